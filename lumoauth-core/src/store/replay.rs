//! The role that remembers what may be used only once.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::StoreError;
use crate::{clock::Timestamp, id::OrgId};

/// What is known of a single-use value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum Remembered {
    /// It was never seen before, and is remembered now.
    First,
    /// It was seen before; the caller must refuse it.
    Replay,
    /// Whether it was seen nobody knows: it has ended, or it is older than this backend's memory. The caller must
    /// refuse it.
    TooOld,
}

/// How long after its end a mark is still kept, so that a server whose clock is behind finds it.
pub const REPLAY_GRACE: Duration = Duration::from_secs(600);

/// Remembers single-use values: the `jti` of assertions, nonces of signatures. Hot, and its loss is safe, since
/// a backend that lost its memory refuses what was issued before.
#[async_trait]
pub trait ReplayStore: fmt::Debug + Send + Sync + 'static {
    /// Remembers `key` until `until` at least, unless it is known.
    ///
    /// - `space` says what sort of value it is (`[a-z_]{1,32}`); the same key in another space, or in another
    ///   organization, is another value.
    /// - `key` is the SHA-256 of the value, which comes from outside and may be of any length.
    /// - `issued_at` is the earliest instant at which anybody can have presented the value: the time it claims,
    ///   less the leeway that the caller allows for clocks that run ahead. If the backend's memory is younger than
    ///   that, a value it does not know is [`Remembered::TooOld`]. Ages are compared (`now` less `issued_at` with the
    ///   time since the memory began), not clocks.
    /// - From `until` on the caller refuses the value by its own rules; then the answer is `TooOld` as well. It is
    ///   computed from the value's own claims and not from `now`, so that servers with different clocks agree.
    ///
    /// Of any number of concurrent calls with one value, exactly one is [`Remembered::First`]. Checked by
    /// `conformance::replay::first_once`, `racing_firsts`, `ends`, `spaces_are_apart` and
    /// `organizations_are_apart`. When a memory begins only its backend knows, so each tests itself that it refuses
    /// what was issued before.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer; the caller must refuse the value.
    async fn remember(
        &self,
        org: &OrgId,
        space: &str,
        key: &[u8; 32],
        issued_at: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Remembered, StoreError>;
}
