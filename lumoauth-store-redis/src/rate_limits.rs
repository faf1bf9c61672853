//! Rate limits.

use std::time::Duration;

use async_trait::async_trait;
use lumoauth_core::{
    clock::Timestamp,
    id::OrgId,
    store::{Admission, RateLimit, RateLimitStore, StoreError},
};

use crate::{RedisStore, error::Failure, keys, script};

/// How long after its window a counter is kept, so that a server whose clock is behind finds it.
const GRACE: Duration = Duration::from_secs(120);

/// The longest time for which a key is kept, far below what Redis can count.
pub(crate) const LONGEST: u64 = 10 * 366 * 86_400_000;

#[async_trait]
impl RateLimitStore for RedisStore {
    async fn take(
        &self,
        org: &OrgId,
        source: &str,
        limit: RateLimit,
        now: Timestamp,
    ) -> Result<Admission, StoreError> {
        let (length, resets_at) = limit.window_at(now);
        let keep = millis(resets_at.plus(GRACE).since(now));

        let key = keys::rate_limit(org, length, resets_at.unix_millis(), source);
        let args = vec![limit.max.to_string().into_bytes(), keep.to_string().into_bytes()];
        let used: i64 = self
            .connection()
            .call(&script::TAKE.call(vec![key], args))
            .await
            .map_err(|failure| failure.during("counting a request"))?;
        let Ok(used) = u32::try_from(used) else {
            return if used == -1 {
                Ok(Admission { admitted: false, remaining: 0, resets_at })
            } else {
                Err(Failure::Unreadable.during("counting a request"))
            };
        };
        Ok(Admission { admitted: true, remaining: limit.max.saturating_sub(used), resets_at })
    }
}

/// As a time to live.
pub(crate) fn millis(keep: Duration) -> u64 {
    u64::try_from(keep.as_millis()).unwrap_or(LONGEST).clamp(1, LONGEST)
}
