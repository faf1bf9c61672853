//! Decoded records, in memory, exactly as fresh as the file.
//!
//! A record is cached under every row that leads to it: its own and those of its indexes. The rules that keep a
//! look-up in the cache from being older than one in the file:
//!
//! 1. Readers see the file only through published snapshots, which are numbered.
//! 2. Before the writer publishes snapshot `n`, it drops what `n` changes and notes `n` in the shard. So from the
//!    moment a change can be seen, nothing older is in the cache.
//! 3. A reader may fill the cache only from a snapshot that is no older than the number noted in the shard. So a
//!    reader that was slow cannot bring back what the writer dropped.
//! 4. Whatever changes a record writes all rows that lead to it.
//!
//! What is not there is not cached.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lumoauth_core::{
    aauth_resource::AAuthResource, agent::Agent, api_key::ApiKey, client::Client, consent::Consent,
    mcp::McpServer, organization::Organization, user::User,
};

use crate::tables::Table;

/// The caches of all records.
pub(crate) struct Caches {
    pub(crate) aauth_resources: Cache<AAuthResource>,
    pub(crate) agents: Cache<Agent>,
    pub(crate) api_keys: Cache<ApiKey>,
    pub(crate) clients: Cache<Client>,
    pub(crate) consents: Cache<Consent>,
    pub(crate) mcp_servers: Cache<McpServer>,
    pub(crate) organizations: Cache<Organization>,
    pub(crate) users: Cache<User>,
}

/// A row that a commit changed.
pub(crate) type Changed = (Table, Vec<u8>);

/// Whether a commit must name the changed rows of `table`.
pub(crate) const fn is_cached(table: Table) -> bool {
    kind(table).is_some()
}

/// A kind of record with a cache.
enum Kind {
    AAuthResource,
    Agent,
    ApiKey,
    Client,
    Consent,
    McpServer,
    Organization,
    User,
}

/// What the rows of `table` lead to.
const fn kind(table: Table) -> Option<Kind> {
    match table {
        Table::AAuthResources | Table::AAuthResourceNumbers | Table::AAuthResourceIdentifiers => {
            Some(Kind::AAuthResource)
        }
        Table::Agents
        | Table::AgentSlugs
        | Table::AgentClientIds
        | Table::AgentApiKeys
        | Table::AgentAAuthIdentifiers => Some(Kind::Agent),
        Table::ApiKeys | Table::ApiKeyHashes => Some(Kind::ApiKey),
        Table::Clients | Table::ClientNumbers => Some(Kind::Client),
        Table::Consents | Table::ConsentPairs => Some(Kind::Consent),
        Table::McpServers | Table::McpServerNumbers | Table::McpServerTargets => Some(Kind::McpServer),
        Table::Organizations => Some(Kind::Organization),
        Table::Users | Table::UserNumbers | Table::UserEmails => Some(Kind::User),
        Table::Meta
        | Table::Approvals
        | Table::PendingApprovals
        | Table::AskedApprovals
        | Table::JitTasks
        | Table::JitRequests
        | Table::JitLoads
        | Table::PendingJit
        | Table::DueCallbacks
        | Table::AgentWorkloads
        | Table::PolicyHeads
        | Table::Policies
        | Table::PolicyRevisions
        | Table::Keys
        | Table::KeyGenerations
        | Table::Marks
        | Table::Tickets
        | Table::RefreshTokens
        | Table::Counters
        | Table::Charges
        | Table::LiveHolds
        | Table::ParkedHolds
        | Table::Expiries
        | Table::ReplayMarks
        | Table::AuditLog
        | Table::AuditHeads
        | Table::AuditBlocks
        | Table::AuditCheckpoints
        | Table::AuditIds
        | Table::Outbox
        | Table::OutboxIds => None,
    }
}

impl Caches {
    pub(crate) fn new() -> Self {
        Self {
            aauth_resources: Cache::new(512),
            // Up to about a kilobyte each, and only once that many are in use.
            agents: Cache::new(16_384),
            api_keys: Cache::new(512),
            clients: Cache::new(1024),
            consents: Cache::new(1024),
            mcp_servers: Cache::new(512),
            organizations: Cache::new(1024),
            users: Cache::new(1024),
        }
    }

    /// Drops what `snapshot` changes. Must come before `snapshot` is published.
    pub(crate) fn drop_changed(&self, changed: &[Changed], snapshot: u64) {
        for (table, key) in changed {
            match kind(*table) {
                Some(Kind::AAuthResource) => self.aauth_resources.drop_row(*table, key, snapshot),
                Some(Kind::Agent) => self.agents.drop_row(*table, key, snapshot),
                Some(Kind::ApiKey) => self.api_keys.drop_row(*table, key, snapshot),
                Some(Kind::Client) => self.clients.drop_row(*table, key, snapshot),
                Some(Kind::Consent) => self.consents.drop_row(*table, key, snapshot),
                Some(Kind::McpServer) => self.mcp_servers.drop_row(*table, key, snapshot),
                Some(Kind::Organization) => self.organizations.drop_row(*table, key, snapshot),
                Some(Kind::User) => self.users.drop_row(*table, key, snapshot),
                None => {}
            }
        }
    }

    /// Drops everything, when nobody knows what `snapshot` changes.
    pub(crate) fn drop_all(&self, snapshot: u64) {
        self.aauth_resources.drop_all(snapshot);
        self.agents.drop_all(snapshot);
        self.api_keys.drop_all(snapshot);
        self.clients.drop_all(snapshot);
        self.consents.drop_all(snapshot);
        self.mcp_servers.drop_all(snapshot);
        self.organizations.drop_all(snapshot);
        self.users.drop_all(snapshot);
    }
}

/// Records of one kind by the rows that lead to them, no more than a fixed number.
pub(crate) struct Cache<T> {
    shards: [Mutex<Shard<T>>; SHARDS],
    /// How many entries one generation of one shard may hold.
    room: usize,
    hasher: RandomState,
}

const SHARDS: usize = 8;

struct Shard<T> {
    /// Two generations: what is not asked for while the young one fills up is forgotten with the old one.
    young: Generation<T>,
    old: Generation<T>,
    /// The newest snapshot that changed a row of this shard.
    changed_by: u64,
}

/// A row's table and key, in one.
type RowId = Box<[u8]>;
type Generation<T> = HashMap<RowId, Arc<T>>;

impl<T> Cache<T> {
    fn new(entries: usize) -> Self {
        let shard = || Shard { young: Generation::new(), old: Generation::new(), changed_by: 0 };
        Self {
            shards: std::array::from_fn(|_| Mutex::new(shard())),
            room: (entries / SHARDS / 2).max(1),
            hasher: RandomState::new(),
        }
    }

    /// The record that this row leads to, if it is cached.
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Option<Arc<T>> {
        let id = row_id(table, key);
        let mut shard = self.shard(&id);
        if let Some(record) = shard.young.get(&id) {
            return Some(record.clone());
        }
        let record = shard.old.remove(&id)?;
        shard.put(id, record.clone(), self.room);
        Some(record)
    }

    /// Keeps what was read through this row in `snapshot`, unless the row may have changed since.
    pub(crate) fn fill(&self, table: Table, key: &[u8], record: &Arc<T>, snapshot: u64) {
        let id = row_id(table, key);
        let mut shard = self.shard(&id);
        if shard.changed_by <= snapshot {
            shard.put(id, record.clone(), self.room);
        }
    }

    fn drop_row(&self, table: Table, key: &[u8], snapshot: u64) {
        let id = row_id(table, key);
        let mut shard = self.shard(&id);
        shard.changed_by = snapshot;
        shard.young.remove(&id);
        shard.old.remove(&id);
    }

    fn drop_all(&self, snapshot: u64) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            *shard = Shard { young: Generation::new(), old: Generation::new(), changed_by: snapshot };
        }
    }

    fn shard(&self, id: &RowId) -> MutexGuard<'_, Shard<T>> {
        let index = usize::try_from(self.hasher.hash_one(id) % SHARDS as u64).unwrap_or_default();
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Shard<T> {
    fn put(&mut self, id: RowId, record: Arc<T>, room: usize) {
        if self.young.len() >= room {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, record);
    }
}

fn row_id(table: Table, key: &[u8]) -> RowId {
    let mut id = Vec::with_capacity(key.len() + 1);
    id.push(table as u8);
    id.extend_from_slice(key);
    id.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table = Table::Agents;

    #[test]
    fn a_slow_reader_does_not_bring_back_what_was_dropped() {
        let cache = Cache::new(64);
        cache.fill(TABLE, b"k", &Arc::new("one"), 1);
        assert_eq!(cache.get(TABLE, b"k").as_deref(), Some(&"one"));
        assert_eq!(cache.get(Table::AgentSlugs, b"k"), None);

        cache.drop_row(TABLE, b"k", 2);
        assert_eq!(cache.get(TABLE, b"k"), None);
        cache.fill(TABLE, b"k", &Arc::new("one"), 1);
        assert_eq!(cache.get(TABLE, b"k"), None);
        cache.fill(TABLE, b"k", &Arc::new("two"), 2);
        assert_eq!(cache.get(TABLE, b"k").as_deref(), Some(&"two"));

        cache.drop_all(3);
        cache.fill(TABLE, b"k", &Arc::new("two"), 2);
        assert_eq!(cache.get(TABLE, b"k"), None);
    }

    #[test]
    fn it_holds_no_more_than_it_may_and_keeps_what_is_asked_for() {
        let cache = Cache::new(64);
        cache.fill(TABLE, b"hot", &Arc::new(0), 1);
        for n in 1_u32..10_000 {
            cache.fill(TABLE, &n.to_be_bytes(), &Arc::new(n), 1);
            assert!(cache.get(TABLE, b"hot").is_some(), "{n}");
        }
        let held = |shard: &Mutex<Shard<_>>| {
            let shard = shard.lock().unwrap();
            shard.young.len() + shard.old.len()
        };
        let held: usize = cache.shards.iter().map(held).sum();
        assert!((1..=64).contains(&held), "{held}");
    }
}
