//! The storage ports: small role traits that a backend implements, and [`Stores`], which composes them.
//!
//! # Writing a backend
//!
//! 1. Implement the role traits you need; each file here is one role with its outcomes. Every method's
//!    documentation says what is atomic and which case of the `conformance` module checks it.
//! 2. `org` is the first argument of every operation and must be the first part of every key: a record of one
//!    organization is never found, changed, counted or removed through another.
//! 3. A method either happens as a whole or not at all, and when it returns a successful outcome, what it did
//!    is as durable as the backend ever makes it.
//! 4. *Recorded* roles take the audit event of the change and write it in the same atomic step, into the
//!    backend's outbox or, where that backend holds the audit log too, straight into the log. If the outcome
//!    says that nothing changed, no event is written. Checked by `conformance::recorded::writes_its_events`.
//! 5. Expected outcomes are values; [`StoreError`] means that the backend cannot answer. The server then
//!    refuses the request (503), it never guesses.
//! 6. Orders are by bytes (in SQL: `COLLATE "C"`). An offset beyond the end is an empty page. There need not be a record
//!    of the organization that is written to; no role may depend on another.
//! 7. `now` is an argument. Expiry is decided against it and never against the backend's own clock.
//! 8. Only hashes of secrets arrive here. Records implement serde traits, meant for JSON (their amounts of
//!    money are exact JSON numbers).
//! 9. Run the suite: `lumoauth_core::store_conformance!(async || (guard, store))` expands to one named test per
//!    case. That is the whole test file of a backend.
//!
//! A backend that implements every role is a [`Store`] by itself. Parts of several backends become one set with
//! `Stores { budgets: other, ..Stores::all(main) }`. Where several servers share a store, [`Cached`] keeps the records
//! that every request needs for a bounded time.

mod aauth_resources;
mod agents;
mod api_keys;
mod approvals;
mod audit;
mod audit_tree;
mod budgets;
mod cached;
mod changes;
mod clients;
mod consents;
mod error;
mod grants;
mod jit;
mod keys;
mod leased;
mod mcp_servers;
mod memory;
mod organizations;
mod policies;
mod rate_limits;
mod replay;
mod stores;
mod upkeep;
mod users;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use aauth_resources::{AAuthResourceKey, AAuthResourceStore};
pub use agents::{AgentFilter, AgentKey, AgentStore};
pub use api_keys::{ApiKeyKey, ApiKeyStore};
pub use approvals::{ApprovalStore, Consume, Decide, NewApproval};
pub use audit::{AuditFilter, AuditKey, AuditStats, AuditStore, LogEntry, Outbox};
pub use audit_tree::{Checkpoint, LogHead, RawEntry, TreeLevel, dropped_event};
pub use budgets::{BudgetStore, Charge, ChargeId, Charged, HoldId, NewHold, Overdue, Resolved};
pub use cached::{CacheConfig, Cached};
pub use changes::{Change, ChangeFeed, ChangedRecord, Notice};
pub use clients::{ClientKey, ClientStore};
pub use consents::{ConsentKey, ConsentStore};
pub use error::{StoreError, StoreErrorKind};
pub use grants::{
    FoundRefresh, FoundTicket, GrantStore, Handle, ROTATION_GRACE, RefreshToken, Revoked, Rotation, Ticket,
    TicketPurpose, TicketUse, UseEvents,
};
pub use jit::{JitStore, RequestEvents};
pub use keys::{KeyStore, SealedKey};
pub use leased::LeasedBudgets;
pub use mcp_servers::{McpServerKey, McpServerStore};
pub use memory::MemoryStore;
pub use organizations::OrganizationStore;
pub use policies::{Apply, Expect, POLICY_TOMBSTONE_LIFE, PolicyChange, PolicyStore, Since};
pub use rate_limits::{Admission, RateLimit, RateLimitStore};
pub use replay::{REPLAY_GRACE, Remembered, ReplayStore};
pub use stores::{Store, Stores};
pub use upkeep::Upkeep;
pub use users::{UserKey, UserStore};

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum Insert {
    /// The record is there now, with its event.
    Inserted,
    /// Another record of the organization has the same value in this unique field (any of them, if several are
    /// taken); nothing changed.
    Taken(Unique),
}

/// What became of an update.
///
/// An update carries the version it was made from. A store writes it only over that version, and stores the
/// version plus one, so of any number of concurrent updates from one version exactly one is `Updated`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum Update {
    /// The record is replaced, with its event.
    Updated,
    /// The stored version is another one; nothing changed. Read again and decide anew.
    Stale,
    /// There is no such record.
    Missing,
    /// Another record of the organization has the same value in this unique field; nothing changed.
    Taken(Unique),
}

/// What became of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum Remove {
    /// The record is gone, its unique values are free, and its event is written.
    Removed,
    /// Another version is stored than the one that was to be removed; it stays. Only where a removal names one.
    Stale,
    /// There was no such record.
    Missing,
}

/// A field that is unique in its organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unique {
    /// The primary id.
    Id,
    /// The integer id.
    Number,
    /// The short name.
    Slug,
    /// The OAuth client id.
    ClientId,
    /// The hash of a key.
    KeyHash,
    /// The e-mail address.
    Email,
    /// A resource identifier or alias.
    Target,
    /// The URL that names an agent or a resource in AAuth.
    AAuthIdentifier,
    /// The position of a signing key in its purpose.
    Generation,
}

/// Which part of a listing is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "offset and limit are all there is to a page")]
pub struct Page {
    /// How many to skip.
    pub offset: u64,
    /// How many at most.
    pub limit: u32,
}

impl Page {
    /// The first `limit` items.
    pub const fn first(limit: u32) -> Self {
        Self { offset: 0, limit }
    }
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "items and total are all there is to a listing")]
pub struct Listing<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// How many match in all.
    pub total: u64,
}
