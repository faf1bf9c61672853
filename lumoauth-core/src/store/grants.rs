//! The role that keeps what was granted and taken back.

use std::fmt;

use async_trait::async_trait;

use super::StoreError;
use crate::{audit::Event, clock::Timestamp, id::OrgId};

/// What a revocation marks and a token carries: one kind byte and eleven bytes of a SHA-256.
///
/// Collisions fail closed: a foreign mark can only kill a token, never revive one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle([u8; 12]);

impl Handle {
    /// The handle with these bytes.
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// The bytes, as a store keys by them.
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }
}

/// What became of a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum Revoked {
    /// It is marked now, with its event.
    Revoked,
    /// It was marked before; no event is written.
    AlreadyRevoked,
}

/// Keeps revocation marks. Recorded.
#[async_trait]
pub trait GrantStore: fmt::Debug + Send + Sync + 'static {
    /// Marks `handle` as revoked and writes `on`, in one step.
    ///
    /// The mark holds at least until `keep_until`, also the later one of a repetition; a purge may drop it after
    /// that. Of any number of concurrent
    /// calls with one handle, exactly one is [`Revoked::Revoked`]. Checked by
    /// `conformance::grants::revoked_once` and `marks_are_kept`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer; the caller must not report success.
    async fn revoke(
        &self,
        org: &OrgId,
        handle: Handle,
        keep_until: Timestamp,
        on: &Event,
    ) -> Result<Revoked, StoreError>;

    /// Whether any of `handles` is marked. A mark is seen by every call that starts after the revocation
    /// returned. Checked by `conformance::grants::any_of_many` and `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer; the caller must treat the token as dead.
    async fn any_revoked(&self, org: &OrgId, handles: &[Handle]) -> Result<bool, StoreError>;
}
