//! The role that keeps a backend in order.

use std::fmt;

use async_trait::async_trait;

use super::StoreError;
use crate::clock::Timestamp;

/// Readiness and tidying of one backend.
#[async_trait]
pub trait Upkeep: fmt::Debug + Send + Sync + 'static {
    /// What operators call this backend: `postgres`, `redis`. It is told to whoever asks whether the server is ready.
    fn name(&self) -> &'static str;

    /// Whether the backend answers, for readiness probes. A backend with a clock of its own takes the
    /// occasion to sync the server's. Checked by `conformance::upkeep::answers`.
    ///
    /// # Errors
    /// [`StoreError`] if it does not.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Drops up to `max` rows that have no meaning at `now`: revocation marks, used tickets and charge ids past their
    /// `keep_until` (but none whose hold is parked), refresh tokens and tickets that nobody used past their `expires_at`,
    /// counters of windows that ended more than 48 hours ago, rate limit windows that ended, approvals more than
    /// [`APPROVAL_GRACE`](crate::approval::APPROVAL_GRACE) past their end, tasks and what was asked in them past their
    /// `keep_until`, what of an agent waited for people once all of it has ended, replay marks more than
    /// [`REPLAY_GRACE`](super::REPLAY_GRACE) past their end, removals of policy more than
    /// [`POLICY_TOMBSTONE_LIFE`](super::POLICY_TOMBSTONE_LIFE) ago.
    /// Returns how many. Nothing depends on it but space. Checked by `conformance::upkeep::purge_keeps_what_counts`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn purge(&self, now: Timestamp, max: u32) -> Result<u64, StoreError>;
}
