//! Events that do not follow the changes.

use std::{ops::Range, sync::Mutex};

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    id::{EventId, OrgId},
    merkle::Node,
    store::{
        AgentStore, AuditFilter, AuditKey, AuditStats, AuditStore, Checkpoint, GrantStore, Listing, LogEntry,
        LogHead, MemoryStore, Outbox, Page, RawEntry, StoreError, TreeLevel,
        conformance::{
            audit, outbox,
            recorded::{Trail, writes_its_events},
        },
    },
};

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn a_change_without_its_event_is_found_out() {
    let (store, log) = (MemoryStore::new(), MemoryStore::new());
    let role: &dyn AgentStore = &store;
    writes_its_events(role.into(), Trail::Log(&log)).await;
}

/// Numbers with a counter that goes on when an event turns out to be known.
#[derive(Debug, Default)]
struct Gaps {
    memory: MemoryStore,
    skipped: Mutex<u64>,
}

impl Gaps {
    fn shifted(&self, mut entry: LogEntry) -> LogEntry {
        entry.seq += *self.skipped.lock().unwrap();
        entry
    }
}

#[async_trait]
impl AuditStore for Gaps {
    async fn append(&self, org: &OrgId, events: &[Event]) -> Result<(), StoreError> {
        for event in events {
            if AuditStore::find(&self.memory, org, AuditKey::Event(event.id)).await?.is_some() {
                *self.skipped.lock().unwrap() += 1;
            }
        }
        self.memory.append(org, events).await
    }

    async fn waiting(&self, max: u32) -> Result<Vec<OrgId>, StoreError> {
        self.memory.waiting(max).await
    }

    async fn sequence(&self, org: &OrgId, max: u32) -> Result<u64, StoreError> {
        self.memory.sequence(org, max).await
    }

    async fn find(&self, org: &OrgId, key: AuditKey) -> Result<Option<LogEntry>, StoreError> {
        Ok(AuditStore::find(&self.memory, org, key).await?.map(|entry| self.shifted(entry)))
    }

    async fn page(
        &self,
        org: &OrgId,
        filter: &AuditFilter,
        page: Page,
    ) -> Result<Listing<LogEntry>, StoreError> {
        let mut listing = self.memory.page(org, filter, page).await?;
        listing.items = listing.items.into_iter().map(|entry| self.shifted(entry)).collect();
        Ok(listing)
    }

    async fn stats(&self, org: &OrgId, filter: &AuditFilter) -> Result<AuditStats, StoreError> {
        self.memory.stats(org, filter).await
    }

    async fn head(&self, org: &OrgId) -> Result<LogHead, StoreError> {
        self.memory.head(org).await
    }

    async fn nodes(&self, org: &OrgId, level: TreeLevel, range: Range<u64>) -> Result<Vec<Node>, StoreError> {
        self.memory.nodes(org, level, range).await
    }

    async fn raw(&self, org: &OrgId, after: u64, max: u32) -> Result<Vec<RawEntry>, StoreError> {
        self.memory.raw(org, after, max).await
    }

    async fn sign_off(&self, org: &OrgId, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        self.memory.sign_off(org, checkpoint).await
    }

    async fn checkpoints(&self, org: &OrgId, after: u64, max: u32) -> Result<Vec<Checkpoint>, StoreError> {
        self.memory.checkpoints(org, after, max).await
    }

    async fn unsigned(&self, by: u64, after: Option<&OrgId>, max: u32) -> Result<Vec<OrgId>, StoreError> {
        self.memory.unsigned(by, after, max).await
    }

    async fn drop_bodies(&self, org: &OrgId, from: u64, up_to: u64, on: &Event) -> Result<u64, StoreError> {
        self.memory.drop_bodies(org, from, up_to, on).await
    }
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn a_gap_in_the_numbers_is_found_out() {
    audit::racing_appends_leave_no_gap(&Gaps::default()).await;
}

/// Forgets events when they are shown.
#[derive(Debug, Default)]
struct Impatient(MemoryStore);

impl Impatient {
    fn new() -> Self {
        Self(MemoryStore::with_outbox())
    }
}

#[async_trait]
impl Outbox for Impatient {
    async fn pending(&self, max: u32) -> Result<Vec<(OrgId, Event)>, StoreError> {
        let pending = self.0.pending(max).await?;
        let ids: Vec<_> = pending.iter().map(|(org, event)| (org.clone(), event.id)).collect();
        self.0.done(&ids).await?;
        Ok(pending)
    }

    async fn done(&self, _: &[(OrgId, EventId)]) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn an_outbox_that_forgets_what_it_shows_is_found_out() {
    let store = Impatient::new();
    let role: &dyn GrantStore = &store.0;
    outbox::waits_until_done(&store, role.into()).await;
}
