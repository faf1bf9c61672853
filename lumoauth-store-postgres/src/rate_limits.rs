//! The role that counts requests: one statement per request.

use async_trait::async_trait;
use lumoauth_core::{
    clock::Timestamp,
    id::OrgId,
    store::{Admission, RateLimit, RateLimitStore, StoreError},
};
use sqlx::Row;

use crate::{
    PostgresStore,
    values::{column, millis, whole},
};

const TAKE: &str = "rate_limits.take";

/// Counts one request if there is room; no row if there is none. A window that is full is only read: whoever is refused
/// should cost no lock and no write. What the reading missed is decided under the lock of the row.
const COUNT: &str = "\
    INSERT INTO rate_limit AS counter (org_id, source, length_ms, ends_at, used) \
    SELECT $1, $2, $3, $4, 1 WHERE NOT EXISTS ( \
        SELECT 1 FROM rate_limit AS spent \
        WHERE spent.org_id = $1 AND spent.source = $2 AND spent.length_ms = $3 AND spent.ends_at = $4 \
            AND spent.used >= $5) \
    ON CONFLICT (org_id, source, length_ms, ends_at) DO UPDATE SET used = counter.used + 1 \
        WHERE counter.used < $5 \
    RETURNING used";

#[async_trait]
impl RateLimitStore for PostgresStore {
    async fn take(
        &self,
        org: &OrgId,
        source: &str,
        limit: RateLimit,
        now: Timestamp,
    ) -> Result<Admission, StoreError> {
        let (length, resets_at) = limit.window_at(now);
        let refused = Admission { admitted: false, remaining: 0, resets_at };
        // The first request of a window is inserted without a question.
        if limit.max == 0 {
            return Ok(refused);
        }

        let count = || {
            sqlx::query(COUNT)
                .bind(org.as_str())
                .bind(source.as_bytes())
                .bind(column(length))
                .bind(millis(resets_at))
                .bind(i64::from(limit.max))
        };
        let rows = self.pool.change(TAKE, count).await?;
        let Some(row) = rows.first() else { return Ok(refused) };
        let used = row.try_get("used").and_then(whole).map_err(|error| StoreError::corrupt(TAKE, error))?;
        let remaining = u64::from(limit.max).saturating_sub(used);
        Ok(Admission { admitted: true, remaining: u32::try_from(remaining).unwrap_or(u32::MAX), resets_at })
    }
}
