//! Organizations that are not apart.

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    clock::Timestamp,
    id::{KeyId, OrgId},
    store::{
        Admission, Insert, KeyStore, MemoryStore, RateLimit, RateLimitStore, Remove, SealedKey, StoreError,
        conformance::{keys, rate_limits},
    },
};

/// Keeps everything of everybody under one name.
#[derive(Debug, Default)]
struct Forgetful(MemoryStore);

fn everybody() -> OrgId {
    OrgId::parse("everybody").unwrap()
}

#[async_trait]
impl KeyStore for Forgetful {
    async fn insert(&self, _: &OrgId, key: &SealedKey, on: &Event) -> Result<Insert, StoreError> {
        KeyStore::insert(&self.0, &everybody(), key, on).await
    }

    async fn list(&self, _: &OrgId) -> Result<Vec<SealedKey>, StoreError> {
        KeyStore::list(&self.0, &everybody()).await
    }

    async fn remove(&self, _: &OrgId, id: &KeyId, on: &Event) -> Result<Remove, StoreError> {
        KeyStore::remove(&self.0, &everybody(), id, on).await
    }
}

#[async_trait]
impl RateLimitStore for Forgetful {
    async fn take(
        &self,
        _: &OrgId,
        source: &str,
        limit: RateLimit,
        now: Timestamp,
    ) -> Result<Admission, StoreError> {
        self.0.take(&everybody(), source, limit, now).await
    }
}

#[tokio::test]
#[should_panic(expected = "is_empty")]
async fn keys_without_organization_are_shared() {
    keys::organizations_are_apart(&Forgetful::default()).await;
}

#[tokio::test]
#[should_panic(expected = "admitted")]
async fn rate_limits_without_organization_are_shared() {
    rate_limits::organizations_are_apart(&Forgetful::default()).await;
}
