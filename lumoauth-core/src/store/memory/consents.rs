//! Consents in memory.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    MemoryStore,
    table::{Record, Versioned},
};
use crate::{
    audit::Event,
    consent::Consent,
    id::{ClientId, ConsentId, OrgId, UserId},
    store::{ConsentKey, ConsentStore, Insert, Listing, Page, StoreError, Unique, Update},
};

#[derive(PartialEq, Eq, Hash)]
pub(super) enum Key {
    Id(ConsentId),
    Between(UserId, ClientId),
}

impl From<ConsentKey<'_>> for Key {
    fn from(key: ConsentKey<'_>) -> Self {
        match key {
            ConsentKey::Id(id) => Self::Id(id),
            ConsentKey::Between(user, client_id) => Self::Between(user, client_id.clone()),
        }
    }
}

impl Record for Consent {
    type Key = Key;
    type Order = (UserId, ClientId);

    fn id(&self) -> Key {
        Key::Id(self.id)
    }

    fn keys(&self) -> Vec<(Unique, Key)> {
        let between = Key::Between(self.user, self.client_id.clone());
        vec![(Unique::Id, self.id()), (Unique::ClientId, between)]
    }

    fn order(&self) -> (UserId, ClientId) {
        (self.user, self.client_id.clone())
    }
}

impl Versioned for Consent {
    fn version(&self) -> u64 {
        self.version
    }

    fn at_version(&self, version: u64) -> Self {
        Self { version, ..self.clone() }
    }
}

#[async_trait]
impl ConsentStore for MemoryStore {
    async fn insert(&self, org: &OrgId, consent: &Consent, on: &Event) -> Result<Insert, StoreError> {
        Ok(self.recorded(&self.consents, org, on, |consents| consents.insert(consent)))
    }

    async fn find(&self, org: &OrgId, key: ConsentKey<'_>) -> Result<Option<Arc<Consent>>, StoreError> {
        Ok(self.consents.read(org, |consents| consents.find(&key.into())))
    }

    async fn update(&self, org: &OrgId, consent: &Consent, on: &Event) -> Result<Update, StoreError> {
        Ok(self.recorded(&self.consents, org, on, |consents| consents.update(consent)))
    }

    async fn list(&self, org: &OrgId, user: UserId, page: Page) -> Result<Listing<Arc<Consent>>, StoreError> {
        Ok(self.consents.read(org, |consents| consents.list(page, |consent| consent.user == user)))
    }
}
