//! The role that keeps signing keys, sealed.

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    id::{KeyId, OrgId},
    store::{Insert, KeyStore, Page, Remove, SealedKey, StoreError, Unique},
};

use crate::{
    EmbeddedStore,
    records::{IndexRow, Record},
    tables::{Table, generation_key, key},
};

impl Record for SealedKey {
    const TABLE: Table = Table::Keys;
    const KEY: Unique = Unique::Id;

    fn key(&self, org: &OrgId) -> Vec<u8> {
        key(org, &[self.id.as_str().as_bytes()])
    }

    fn index_rows(&self, org: &OrgId) -> Vec<IndexRow> {
        let generation = generation_key(org, self.purpose, self.generation);
        vec![IndexRow::unique(Table::KeyGenerations, generation, Unique::Generation)]
    }
}

#[async_trait]
impl KeyStore for EmbeddedStore {
    async fn insert(&self, org: &OrgId, key: &SealedKey, on: &Event) -> Result<Insert, StoreError> {
        self.insert_record(org, key, on).await
    }

    async fn list(&self, org: &OrgId) -> Result<Vec<SealedKey>, StoreError> {
        let listing =
            self.list_records::<SealedKey>(org, Table::KeyGenerations, None, Page::first(u32::MAX)).await?;
        let mut keys: Vec<_> = listing.items.into_iter().map(|key| (*key).clone()).collect();
        // The order of the purposes is core's, and not that of their names. An organization has few keys.
        keys.sort_by_key(|key| (key.purpose, key.generation));
        Ok(keys)
    }

    async fn remove(&self, org: &OrgId, id: &KeyId, on: &Event) -> Result<Remove, StoreError> {
        self.remove_record::<SealedKey>(org, key(org, &[id.as_str().as_bytes()]), |_| true, on).await
    }
}
