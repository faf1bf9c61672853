//! Organization API keys in memory.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    MemoryStore,
    table::{Record, Versioned},
};
use crate::{
    api_key::ApiKey,
    audit::Event,
    id::{Number, OrgId},
    secret::SecretHash,
    store::{ApiKeyKey, ApiKeyStore, Insert, Listing, Page, StoreError, Unique, Update},
};

#[derive(PartialEq, Eq, Hash)]
pub(super) enum Key {
    Number(Number),
    Hash(SecretHash),
}

impl From<ApiKeyKey<'_>> for Key {
    fn from(key: ApiKeyKey<'_>) -> Self {
        match key {
            ApiKeyKey::Number(number) => Self::Number(number),
            ApiKeyKey::Hash(hash) => Self::Hash(*hash),
        }
    }
}

impl Record for ApiKey {
    type Key = Key;
    type Order = Number;

    fn id(&self) -> Key {
        Key::Number(self.number)
    }

    fn keys(&self) -> Vec<(Unique, Key)> {
        vec![(Unique::Number, Key::Number(self.number)), (Unique::KeyHash, Key::Hash(self.hash))]
    }

    fn order(&self) -> Number {
        self.number
    }
}

impl Versioned for ApiKey {
    fn version(&self) -> u64 {
        self.version
    }

    fn at_version(&self, version: u64) -> Self {
        Self { version, ..self.clone() }
    }
}

#[async_trait]
impl ApiKeyStore for MemoryStore {
    async fn insert(&self, org: &OrgId, key: &ApiKey, on: &Event) -> Result<Insert, StoreError> {
        Ok(self.recorded(&self.api_keys, org, on, |keys| keys.insert(key)))
    }

    async fn find(&self, org: &OrgId, key: ApiKeyKey<'_>) -> Result<Option<Arc<ApiKey>>, StoreError> {
        Ok(self.api_keys.read(org, |keys| keys.find(&key.into())))
    }

    async fn update(&self, org: &OrgId, key: &ApiKey, on: &Event) -> Result<Update, StoreError> {
        Ok(self.recorded(&self.api_keys, org, on, |keys| keys.update(key)))
    }

    async fn list(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<ApiKey>>, StoreError> {
        Ok(self.api_keys.read(org, |keys| keys.list(page, |_| true)))
    }
}
