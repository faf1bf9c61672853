//! The behaviour suite for store backends (feature `conformance`; outside the semver promise).
//!
//! This is the whole test file of a backend, with `lumoauth-core` (feature `conformance`) and `tokio`
//! (features `macros` and `rt-multi-thread`) as development dependencies:
//!
//! ```
//! use lumoauth_core::store::MemoryStore;
//!
//! async fn make() -> (impl Sized, MemoryStore) {
//!     let guard = (); // what must live as long as the store: a directory, a container
//!     (guard, MemoryStore::new())
//! }
//!
//! lumoauth_core::store_conformance!(make);
//!
//! mod outbox {
//!     use super::*;
//!     lumoauth_core::outbox_conformance!(async || ((), MemoryStore::with_outbox()));
//! }
//! # fn main() {}
//! ```
//!
//! It expands to one named test per case, `agents::one_slug_once` and so on, each with a store of its own. A
//! backend with only some roles names them: `store_conformance!(make; roles: budgets, rate_limits)`. A backend that
//! carries notices of changes has [`change_feed_conformance!`](crate::change_feed_conformance) as well.
//!
//! 1. One file per role, one function per case; the case's doc comment quotes the sentence that it checks.
//! 2. Cases make their own organizations and ids and never wipe, so they may run in parallel, and again, on
//!    one shared database. An organization that is written to need not have a record: roles are separable.
//! 3. Cases do not sleep. Their time is [`now`], an instant of the past, so a backend that asks its own clock
//!    what has expired does not pass.
//! 4. A race is a case: [`race`] makes the calls of one task at once. Run the suite with a pool of more than
//!    one connection, or nothing races.

#![expect(clippy::unwrap_used, reason = "a case fails by panicking")]

pub mod aauth_resources;
pub mod agents;
pub mod api_keys;
pub mod approvals;
pub mod audit;
pub mod audit_tree;
pub mod budgets;
pub mod changes;
pub mod clients;
pub mod consents;
pub mod grants;
mod holds;
pub mod jit;
pub mod keys;
mod macros;
pub mod mcp_servers;
pub mod organizations;
pub mod outbox;
pub mod policies;
pub mod rate_limits;
pub mod recorded;
pub mod replay;
pub mod upkeep;
pub mod users;

use futures_util::future::join_all;

use super::Page;
use crate::{
    audit::{Actor, Event, EventKind},
    clock::Timestamp,
    id::OrgId,
    random::random_number,
};

/// How many calls a race has.
pub const RACERS: usize = 48;

/// What time it is in every case: the middle of an hour, a day and a month, long ago.
pub fn now() -> Timestamp {
    "2024-05-15T10:30:30Z".parse().expect("a well-formed time")
}

/// An organization that no other case knows.
pub fn some_org() -> OrgId {
    OrgId::parse(&unique("suite")).expect("letters, digits and `-`")
}

/// An event that no other case knows.
pub fn some_event() -> Event {
    Event::new(EventKind::AgentUpdated, Actor::system(), "something changed", now())
}

/// What `n` concurrent calls return, in the order of their numbers.
///
/// They are polled by one task, so they overlap wherever the backend waits: for a connection, a thread, a
/// lock.
pub async fn race<F: Future>(n: usize, call: impl FnMut(usize) -> F) -> Vec<F::Output> {
    join_all((0..n).map(call)).await
}

/// The port of every role, by the name of the role: for the macros, which only know that.
#[doc(hidden)]
pub mod ports {
    pub use crate::store::{
        AAuthResourceStore as aauth_resources, AgentStore as agents, ApiKeyStore as api_keys,
        ApprovalStore as approvals, AuditStore as audit, AuditStore as audit_tree, BudgetStore as budgets,
        ClientStore as clients, ConsentStore as consents, GrantStore as grants, JitStore as jit,
        KeyStore as keys, McpServerStore as mcp_servers, OrganizationStore as organizations,
        PolicyStore as policies, RateLimitStore as rate_limits, ReplayStore as replay, Store as upkeep,
        UserStore as users,
    };
}

/// A text that no other case knows.
fn unique(prefix: &str) -> String {
    format!("{prefix}-{:014x}{:014x}", random_number(), random_number())
}

/// How many of `outcomes` are `outcome`.
fn count<T: PartialEq>(outcomes: &[T], outcome: &T) -> usize {
    outcomes.iter().filter(|one| *one == outcome).count()
}

/// Everything, as far as a case can make it.
const ALL: Page = Page::first(10_000);
