//! [`MemoryStore`]: every role in the memory of one process.

mod aauth_resources;
mod agents;
mod api_keys;
mod approvals;
mod audit;
mod budgets;
mod clients;
mod consents;
mod fading;
mod grants;
mod jit;
mod keys;
mod mcp_servers;
mod organizations;
mod per_org;
mod policies;
mod rate_limits;
mod replay;
mod table;
mod upkeep;
mod users;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::{Insert, Remove, Revoked, SealedKey, Update};
use crate::{
    aauth_resource::AAuthResource, agent::Agent, api_key::ApiKey, audit::Event, client::Client,
    consent::Consent, id::OrgId, mcp::McpServer, organization::Organization, user::User,
};

use approvals::Approvals;
use audit::Journal;
use budgets::Book;
use grants::Grants;
use jit::Tasks;
pub(super) use per_org::PerOrg;
use policies::Policies;
use table::Table;

/// Every role in the memory of one process: for tests, for trying out, and for single-process hosts that can
/// afford to forget.
///
/// Nothing survives the process, and the audit log grows as long as it lives. Look-ups by key are hash
/// look-ups and return shared records; their cost does not depend on how many records there are.
///
/// ```
/// use lumoauth_core::store::{MemoryStore, Stores};
/// use std::sync::Arc;
///
/// let stores = Stores::all(Arc::new(MemoryStore::new()));
/// # let _ = stores;
/// ```
#[derive(Default)]
pub struct MemoryStore {
    // Lock order: the lock of a role (its map of organizations, then the organization's part), then the lock
    // of the journal. A recorded change holds the first while it takes the second, so whoever sees the event
    // sees the change, and whoever sees the change sees the event. The journal takes no lock of a role.
    aauth_resources: PerOrg<Table<AAuthResource>>,
    agents: PerOrg<Table<Agent>>,
    api_keys: PerOrg<Table<ApiKey>>,
    approvals: PerOrg<Approvals>,
    books: PerOrg<Book>,
    clients: PerOrg<Table<Client>>,
    consents: PerOrg<Table<Consent>>,
    grants: PerOrg<Grants>,
    keys: PerOrg<Table<SealedKey>>,
    mcp_servers: PerOrg<Table<McpServer>>,
    organizations: RwLock<Table<Organization>>,
    policies: PerOrg<Policies>,
    rate_limits: Mutex<rate_limits::Counters>,
    seen: Mutex<replay::Seen>,
    tasks: PerOrg<Tasks>,
    users: PerOrg<Table<User>>,
    journal: Journal,
}

impl MemoryStore {
    /// An empty store that keeps its own audit log.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that keeps everything of its server. Nothing can have been presented to that server before, so single-use
    /// values are taken however old they are, where a store that only remembers such values for others has to refuse what may
    /// be older than itself.
    ///
    /// Not for a host that makes the same organizations, agents and keys anew at each start: what was presented before the start
    /// would count again, for as long as it is valid.
    pub fn from_the_beginning() -> Self {
        Self { seen: Mutex::new(replay::Seen::from_the_beginning()), ..Self::default() }
    }

    /// An empty store in outbox mode: its events wait for an audit log that is kept elsewhere, and its own
    /// log stays empty.
    pub fn with_outbox() -> Self {
        Self { journal: Journal::with_outbox(), ..Self::default() }
    }

    /// Makes `change` in the part of `org`, and if it changed something, writes `on` before anybody can see
    /// it.
    fn recorded<T: Default, R: Outcome>(
        &self,
        role: &PerOrg<T>,
        org: &OrgId,
        on: &Event,
        change: impl FnOnce(&mut T) -> R,
    ) -> R {
        let on = Arc::new(on.clone());
        role.write(org, |part| {
            let outcome = change(part);
            if outcome.is_change() {
                self.journal.write(org, [on]);
            }
            outcome
        })
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

/// What a recorded method returns.
trait Outcome {
    /// Whether it says that something changed.
    fn is_change(&self) -> bool;
}

impl Outcome for Insert {
    fn is_change(&self) -> bool {
        *self == Self::Inserted
    }
}

impl Outcome for Update {
    fn is_change(&self) -> bool {
        *self == Self::Updated
    }
}

impl Outcome for Remove {
    fn is_change(&self) -> bool {
        *self == Self::Removed
    }
}

impl Outcome for Revoked {
    fn is_change(&self) -> bool {
        *self == Self::Revoked
    }
}

// A panic under a lock leaves consistent state behind: every change is computed before the first part of it
// is applied, and applying only moves values into collections. So a poisoned lock is taken like any other.

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
