//! The role that counts requests.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::StoreError;
use crate::{clock::Timestamp, id::OrgId};

/// How many requests per fixed window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a number per time is all there is to a rate")]
pub struct RateLimit {
    /// How many are admitted.
    pub max: u32,
    /// In which time. Windows are aligned to the Unix epoch; at least one second.
    pub window: Duration,
}

impl RateLimit {
    /// The window that `now` is in, as every backend keys its counters: the length in milliseconds, and the end.
    ///
    /// ```
    /// use lumoauth_core::{clock::Timestamp, store::RateLimit};
    /// use std::time::Duration;
    ///
    /// let limit = RateLimit { max: 9, window: Duration::from_secs(60) };
    /// let (length, end) = limit.window_at(Timestamp::from_unix_seconds(61));
    /// assert_eq!((length, end.unix_seconds()), (60_000, 120));
    /// ```
    pub fn window_at(&self, now: Timestamp) -> (u64, Timestamp) {
        const SECOND: u64 = 1000;
        let length = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX).max(SECOND);
        let start = now.unix_millis() - now.unix_millis() % length;
        (length, Timestamp::from_unix_millis(start.saturating_add(length)))
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_structs, reason = "read by every caller that sets the headers")]
pub struct Admission {
    /// Whether it is admitted.
    pub admitted: bool,
    /// How many more this window admits.
    pub remaining: u32,
    /// When the window ends.
    pub resets_at: Timestamp,
}

/// Counts requests. Hot, and its loss is safe: a lost counter starts at zero.
#[async_trait]
pub trait RateLimitStore: fmt::Debug + Send + Sync + 'static {
    /// Counts one request of `source` (at most 256 bytes, from outside) against `limit`. Counters are kept per source
    /// and length of window.
    ///
    /// In one window at most `limit.max` calls are admitted under any concurrency. Memory is bounded: windows
    /// that ended are dropped. Checked by `conformance::rate_limits::admits_exactly_max`, `windows_end`,
    /// `sources_are_apart` and `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn take(
        &self,
        org: &OrgId,
        source: &str,
        limit: RateLimit,
        now: Timestamp,
    ) -> Result<Admission, StoreError>;
}
