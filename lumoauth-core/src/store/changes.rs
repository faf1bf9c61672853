//! The port that tells other servers what changed.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::id::{AgentId, ClientId, ConsentId, OrgId, UserId};

/// A record that changed, by name; what became of it is in the store. It travels as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "an organization and a name are all there is to a change")]
pub struct Change {
    /// In which organization.
    pub org: OrgId,
    /// Which record.
    pub record: ChangedRecord,
}

/// Which record changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChangedRecord {
    /// The organization itself.
    Organization,
    /// An agent.
    Agent(AgentId),
    /// An ordinary OAuth client.
    Client(ClientId),
    /// A consent.
    Consent(ConsentId),
    /// Something of the organization's policy.
    Policy,
    /// A person.
    User(UserId),
}

/// What [`ChangeFeed::next`] hears.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "whoever misses a kind of notice keeps stale records")]
pub enum Notice {
    /// This record changed.
    Changed(Change),
    /// Listening began, or began again: changes before this may have been missed.
    Gap,
}

/// Tells the servers that share a store what changed, so that their caches forget it before its time.
///
/// Nothing may depend on it: a notice can be lost, doubled or late, and a cache stays within its bound without any.
#[async_trait]
pub trait ChangeFeed: fmt::Debug + Send + Sync + 'static {
    /// Tells every server that listens, this one as well. What one server publishes one after the other is heard in
    /// that order. Checked by `conformance::changes::every_server_hears` and `order_is_kept`.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be told now; nobody repeats it.
    async fn publish(&self, change: &Change) -> Result<(), StoreError>;

    /// Waits for the next notice. The first one, and the first after an error, is [`Notice::Gap`]. Checked by
    /// `conformance::changes::begins_with_a_gap`. A notice that cannot be read is [`Notice::Gap`] as well, which each
    /// backend tests itself: what an error or an unreadable notice is only it knows. There is one listener at a time.
    ///
    /// # Errors
    /// [`StoreError`] if listening broke; the caller waits a moment and calls again.
    async fn next(&self) -> Result<Notice, StoreError>;
}
