//! The role that counts requests, in memory: a lost counter starts at zero, which the role allows, and a disk write
//! per request would cost more than what it protects.

use async_trait::async_trait;
use lumoauth_core::{
    clock::Timestamp,
    id::OrgId,
    store::{Admission, RateLimit, RateLimitStore, StoreError},
};

use crate::EmbeddedStore;

#[async_trait]
impl RateLimitStore for EmbeddedStore {
    async fn take(
        &self,
        org: &OrgId,
        source: &str,
        limit: RateLimit,
        now: Timestamp,
    ) -> Result<Admission, StoreError> {
        self.limits.take(org, source, limit, now).await
    }
}
