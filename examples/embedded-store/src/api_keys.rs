//! The role that keeps organization API keys.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    api_key::ApiKey,
    audit::Event,
    id::OrgId,
    store::{ApiKeyKey, ApiKeyStore, Insert, Listing, Page, StoreError, Unique, Update},
};

use crate::{
    EmbeddedStore,
    cache::{Cache, Caches},
    records::{IndexRow, Record, Versioned},
    tables::{Table, key, number_key},
};

impl Record for ApiKey {
    const TABLE: Table = Table::ApiKeys;
    const KEY: Unique = Unique::Number;

    fn key(&self, org: &OrgId) -> Vec<u8> {
        number_key(org, self.number)
    }

    fn index_rows(&self, org: &OrgId) -> Vec<IndexRow> {
        let hash = key(org, &[self.hash.as_bytes()]);
        vec![IndexRow::unique(Table::ApiKeyHashes, hash, Unique::KeyHash)]
    }
}

impl Versioned for ApiKey {
    fn version(&self) -> u64 {
        self.version
    }

    fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.api_keys
    }
}

#[async_trait]
impl ApiKeyStore for EmbeddedStore {
    async fn insert(&self, org: &OrgId, key: &ApiKey, on: &Event) -> Result<Insert, StoreError> {
        self.insert_record(org, key, on).await
    }

    async fn find(&self, org: &OrgId, by: ApiKeyKey<'_>) -> Result<Option<Arc<ApiKey>>, StoreError> {
        match by {
            ApiKeyKey::Hash(hash) => self.find_record(Table::ApiKeyHashes, &key(org, &[hash.as_bytes()])),
            ApiKeyKey::Number(number) => self.find_record(Table::ApiKeys, &number_key(org, number)),
        }
    }

    async fn update(&self, org: &OrgId, key: &ApiKey, on: &Event) -> Result<Update, StoreError> {
        self.update_record(org, key, on).await
    }

    async fn list(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<ApiKey>>, StoreError> {
        self.list_records(org, Table::ApiKeys, None, page).await
    }
}
