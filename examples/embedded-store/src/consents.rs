//! The role that keeps what people allowed clients.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    consent::Consent,
    id::{ClientId, ConsentId, OrgId, UserId},
    store::{ConsentKey, ConsentStore, Insert, Listing, Page, StoreError, Unique, Update},
};

use crate::{
    EmbeddedStore,
    cache::{Cache, Caches},
    records::{IndexRow, Record, Versioned, list_range},
    tables::{Table, all_with, key},
};

fn consent_key(org: &OrgId, id: ConsentId) -> Vec<u8> {
    key(org, &[id.uuid().as_bytes()])
}

fn pair_key(org: &OrgId, user: UserId, client: &ClientId) -> Vec<u8> {
    key(org, &[user.uuid().as_bytes(), client.as_str().as_bytes()])
}

impl Record for Consent {
    const TABLE: Table = Table::Consents;
    const KEY: Unique = Unique::Id;

    fn key(&self, org: &OrgId) -> Vec<u8> {
        consent_key(org, self.id)
    }

    fn index_rows(&self, org: &OrgId) -> Vec<IndexRow> {
        let pair = pair_key(org, self.user, &self.client_id);
        vec![IndexRow::unique(Table::ConsentPairs, pair, Unique::ClientId)]
    }
}

impl Versioned for Consent {
    fn version(&self) -> u64 {
        self.version
    }

    fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.consents
    }
}

#[async_trait]
impl ConsentStore for EmbeddedStore {
    async fn insert(&self, org: &OrgId, consent: &Consent, on: &Event) -> Result<Insert, StoreError> {
        self.insert_record(org, consent, on).await
    }

    async fn find(&self, org: &OrgId, by: ConsentKey<'_>) -> Result<Option<Arc<Consent>>, StoreError> {
        match by {
            ConsentKey::Id(id) => self.find_record(Table::Consents, &consent_key(org, id)),
            ConsentKey::Between(user, client) => {
                self.find_record(Table::ConsentPairs, &pair_key(org, user, client))
            }
        }
    }

    async fn update(&self, org: &OrgId, consent: &Consent, on: &Event) -> Result<Update, StoreError> {
        self.update_record(org, consent, on).await
    }

    async fn list(&self, org: &OrgId, user: UserId, page: Page) -> Result<Listing<Arc<Consent>>, StoreError> {
        let keys = all_with(org, &[user.uuid().as_bytes()]);
        list_range(&self.latest(), Table::ConsentPairs, keys, None, page).await
    }
}
