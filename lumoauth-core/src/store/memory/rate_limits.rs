//! Rate limit counters in memory.

use async_trait::async_trait;

use super::{MemoryStore, fading::Fading, lock};
use crate::{
    clock::Timestamp,
    id::OrgId,
    store::{Admission, RateLimit, RateLimitStore, StoreError},
};

/// How many were admitted per organization, source, length and end of the window. Not kept per organization:
/// its name and the source come from outside, and a window that ended must leave nothing behind.
pub(super) type Counters = Fading<(OrgId, String, u64, Timestamp), u32>;

/// How many ended windows a new one drops. More than one, so that the backlog of a burst shrinks.
const DROPPED_PER_WINDOW: u64 = 4;

#[async_trait]
impl RateLimitStore for MemoryStore {
    async fn take(
        &self,
        org: &OrgId,
        source: &str,
        limit: RateLimit,
        now: Timestamp,
    ) -> Result<Admission, StoreError> {
        let (length, resets_at) = limit.window_at(now);
        let key = (org.clone(), source.to_owned(), length, resets_at);

        let mut counters = lock(&self.rate_limits);
        counters.drop_ended(now, DROPPED_PER_WINDOW);
        let used = counters.keep(key, resets_at);
        let admitted = *used < limit.max;
        *used += u32::from(admitted);
        Ok(Admission { admitted, remaining: limit.max.saturating_sub(*used), resets_at })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn sources_that_never_come_back_leave_nothing_behind() {
        let store = MemoryStore::new();
        let org = OrgId::parse("acme").unwrap();
        let limit = RateLimit { max: 1, window: Duration::from_secs(1) };
        for n in 0..10_000 {
            let now = Timestamp::from_unix_millis(n * 10);
            assert!(store.take(&org, &n.to_string(), limit, now).await.unwrap().admitted);
        }
        assert!(lock(&store.rate_limits).len() <= 200, "two windows of a hundred sources each");
    }
}
