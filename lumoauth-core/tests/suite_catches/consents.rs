//! Consents that are not what the person agreed to.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    consent::Consent,
    id::{OrgId, UserId},
    store::{
        ConsentKey, ConsentStore, Insert, Listing, MemoryStore, Page, StoreError, Update,
        conformance::{
            consents,
            recorded::{Trail, writes_its_events},
        },
    },
};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Checks first, acts later.
    Racy,
    /// Keeps everything of everybody under one name.
    OrgBlind,
    /// Finds only what holds.
    Forgetful,
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

    fn holds(&self, consent: &Consent) -> bool {
        self.fault != Fault::Forgetful || consent.active
    }
}

#[async_trait]
impl ConsentStore for Faulty {
    async fn insert(&self, org: &OrgId, consent: &Consent, on: &Event) -> Result<Insert, StoreError> {
        let pair = ConsentKey::Between(consent.user, &consent.client_id);
        let racy = self.fault == Fault::Racy && self.find(org, pair).await?.is_none();
        tokio::task::yield_now().await;
        let outcome = ConsentStore::insert(&self.memory, &self.org(org), consent, on).await?;
        Ok(if racy { Insert::Inserted } else { outcome })
    }

    async fn find(&self, org: &OrgId, key: ConsentKey<'_>) -> Result<Option<Arc<Consent>>, StoreError> {
        let found = ConsentStore::find(&self.memory, &self.org(org), key).await?;
        Ok(found.filter(|consent| self.holds(consent)))
    }

    async fn update(&self, org: &OrgId, consent: &Consent, on: &Event) -> Result<Update, StoreError> {
        let stored = self.find(org, ConsentKey::Id(consent.id)).await?;
        let racy =
            self.fault == Fault::Racy && stored.is_some_and(|stored| stored.version == consent.version);
        tokio::task::yield_now().await;
        let outcome = ConsentStore::update(&self.memory, &self.org(org), consent, on).await?;
        Ok(if racy { Update::Updated } else { outcome })
    }

    async fn list(&self, org: &OrgId, user: UserId, page: Page) -> Result<Listing<Arc<Consent>>, StoreError> {
        let mut listing = ConsentStore::list(&self.memory, &self.org(org), user, page).await?;
        listing.items.retain(|consent| self.holds(consent));
        Ok(listing)
    }
}

#[tokio::test]
#[should_panic(expected = "Inserted")]
async fn a_consent_that_is_looked_for_and_then_added_is_there_twice() {
    consents::one_per_pair_once(&Faulty::new(Fault::Racy)).await;
}

#[tokio::test]
#[should_panic(expected = "Updated")]
async fn a_consent_that_is_compared_and_then_written_has_two_winners() {
    consents::racing_updates(&Faulty::new(Fault::Racy)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn consents_without_organization_are_shared() {
    consents::organizations_are_apart(&Faulty::new(Fault::OrgBlind)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn a_store_that_forgets_what_was_withdrawn_is_found_out() {
    consents::listing(&Faulty::new(Fault::Forgetful)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn a_consent_without_its_event_is_found_out() {
    let (store, log) = (MemoryStore::new(), MemoryStore::new());
    let role: &dyn ConsentStore = &store;
    writes_its_events(role.into(), Trail::Log(&log)).await;
}
