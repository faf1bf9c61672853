//! Policy that is written by halves, twice, or with the neighbours, and changes that nobody hears of.

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    clock::Timestamp,
    id::OrgId,
    policy::{Record, RecordId},
    store::{
        Apply, MemoryStore, PolicyChange, PolicyStore, Since, StoreError,
        conformance::{
            policies,
            recorded::{Trail, writes_its_events},
        },
    },
};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Checks first, acts later.
    Racy,
    /// Makes changes one by one, as far as they go.
    Torn,
    /// Keeps everything of everybody under one name.
    OrgBlind,
    /// Does not tell what was removed.
    Forgetful,
    /// Is at a revision whose changes it does not show yet.
    Ahead,
    /// Has no end of a page.
    Boundless,
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    memory: MemoryStore,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self { fault, memory: MemoryStore::new() }
    }

    fn org(&self, org: &OrgId) -> OrgId {
        if self.fault == Fault::OrgBlind { OrgId::parse("everybody").unwrap() } else { org.clone() }
    }

    /// Whether everything is as `changes` expect it, for now.
    async fn admits(&self, org: &OrgId, changes: &[PolicyChange]) -> Result<bool, StoreError> {
        let found = self.page(org, None, u32::MAX).await?;
        let admits = |change: &PolicyChange| {
            let found = found.iter().find(|record| record.id == change.id);
            change.expect.admits(found.map(|record| record.revision), change.body.is_none())
        };
        Ok(changes.iter().all(admits))
    }
}

#[async_trait]
impl PolicyStore for Faulty {
    async fn apply(
        &self,
        org: &OrgId,
        changes: &[PolicyChange],
        on: &Event,
        now: Timestamp,
    ) -> Result<Apply, StoreError> {
        let org = &self.org(org);
        if self.fault == Fault::Torn {
            for (place, change) in changes.iter().enumerate() {
                let outcome = self.memory.apply(org, std::slice::from_ref(change), on, now).await?;
                if let Apply::Conflict(_) = outcome {
                    return Ok(Apply::Conflict(place));
                }
            }
            return Ok(Apply::Applied { revision: self.memory.revision(org).await? });
        }
        let racy = self.fault == Fault::Racy && self.admits(org, changes).await?;
        tokio::task::yield_now().await;
        let outcome = self.memory.apply(org, changes, on, now).await?;
        Ok(if racy { Apply::Applied { revision: self.memory.revision(org).await? } } else { outcome })
    }

    async fn revision(&self, org: &OrgId) -> Result<u64, StoreError> {
        self.memory.revision(&self.org(org)).await
    }

    async fn page(
        &self,
        org: &OrgId,
        after: Option<&RecordId>,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        let limit = if self.fault == Fault::Boundless { u32::MAX } else { limit };
        PolicyStore::page(&self.memory, &self.org(org), after, limit).await
    }

    async fn since(&self, org: &OrgId, revision: u64, limit: u32) -> Result<Since, StoreError> {
        let since = self.memory.since(&self.org(org), revision, limit).await?;
        Ok(match since {
            Since::Changed { mut records, revision } => {
                records.retain(|record| match self.fault {
                    Fault::Forgetful => record.body.is_some(),
                    Fault::Ahead => record.revision < revision,
                    _ => true,
                });
                Since::Changed { records, revision }
            }
            other @ (Since::UpToDate | Since::TooOld) => other,
        })
    }
}

#[tokio::test]
#[should_panic(expected = "Applied")]
async fn a_record_that_is_looked_for_and_then_added_is_there_twice() {
    policies::racing_inserts(&Faulty::new(Fault::Racy)).await;
}

#[tokio::test]
#[should_panic(expected = "Applied")]
async fn a_record_that_is_compared_and_then_written_has_two_winners() {
    policies::racing_updates(&Faulty::new(Fault::Racy)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn changes_that_are_made_one_by_one_are_found_out() {
    policies::all_or_none(&Faulty::new(Fault::Torn)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn policy_without_organization_is_shared() {
    policies::organizations_are_apart(&Faulty::new(Fault::OrgBlind)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn a_removal_that_nobody_hears_of_is_found_out() {
    policies::changes_since(&Faulty::new(Fault::Forgetful)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn a_revision_that_is_seen_before_its_changes_is_found_out() {
    policies::changes_since(&Faulty::new(Fault::Ahead)).await;
}

#[tokio::test]
#[should_panic(expected = "limit")]
async fn a_page_without_an_end_is_found_out() {
    policies::pages(&Faulty::new(Fault::Boundless)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn policy_without_its_event_is_found_out() {
    let (store, log) = (MemoryStore::new(), MemoryStore::new());
    let role: &dyn PolicyStore = &store;
    writes_its_events(role.into(), Trail::Log(&log)).await;
}
