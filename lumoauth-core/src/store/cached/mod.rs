//! [`Cached`]: the records that every request needs, kept for a bounded time.

mod agents;
mod clients;
mod consents;
mod organizations;
mod policies;
mod shelf;
mod users;

use std::{future, sync::Arc, time::Duration};

use futures_timer::Delay;
use moka::sync::Cache;

use self::{agents::Alias, shelf::Shelf};
use super::{
    AgentStore, Change, ChangeFeed, ChangedRecord, ClientStore, ConsentStore, Notice, OrganizationStore,
    PolicyStore, StoreError, Stores, UserStore,
};
use crate::{
    agent::Agent,
    client::Client,
    consent::Consent,
    id::{AgentId, ClientId, ConsentId, OrgId, UserId},
    organization::Organization,
    user::User,
};

/// How much [`Cached`] keeps, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheConfig {
    /// How old a record may be that another server has changed: the bound of staleness. Default 1 second.
    pub ttl: Duration,
    /// How many records of each role are kept. Default 16 384.
    pub capacity: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(1), capacity: 16_384 }
    }
}

impl CacheConfig {
    /// The same with another bound of staleness.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// The same with room for another number of records of each role.
    #[must_use]
    pub fn with_capacity(mut self, capacity: u64) -> Self {
        self.capacity = capacity;
        self
    }
}

/// A cache over agents (with their capabilities), organizations, OAuth clients, people and consents (with their epochs).
///
/// 1. What this server changes it sees at once. What another server changed it sees after at most
///    [`CacheConfig::ttl`], measured from the beginning of the read; a [`ChangeFeed`] makes that sooner, and nothing
///    depends on it.
///    A change whose caller goes away in the middle is forgotten at that moment; the store may carry it out after that,
///    and then this server sees it within the same bound.
/// 2. That something is not there is never kept, so what was just made is found.
/// 3. Of policy it keeps how far it has come ([`PolicyStore::since`]); servers hold the snapshots.
/// 4. Revocation marks, budgets, keys and everything else pass through: they are always read.
///
/// A token that was issued from a record of the last second carries the epochs of that record, so it is dead as
/// soon as the next check sees the new one.
///
/// ```
/// use lumoauth_core::store::{CacheConfig, Cached, MemoryStore, Stores};
/// use std::sync::Arc;
///
/// let stores = Stores::all(Arc::new(MemoryStore::new()));
/// let stores = Cached::over(stores, &CacheConfig::default(), None);
/// # let _ = stores;
/// ```
#[derive(Debug)]
pub struct Cached {
    agents: Arc<dyn AgentStore>,
    clients: Arc<dyn ClientStore>,
    consents: Arc<dyn ConsentStore>,
    organizations: Arc<dyn OrganizationStore>,
    policies: Arc<dyn PolicyStore>,
    users: Arc<dyn UserStore>,
    feed: Option<Arc<dyn ChangeFeed>>,
    kept_agents: Shelf<(OrgId, AgentId), Agent>,
    /// Which agent another key of its led to. The agent it leads to says whether it still does.
    agent_aliases: Cache<(OrgId, Alias), AgentId>,
    kept_clients: Shelf<(OrgId, ClientId), Client>,
    kept_consents: Shelf<(OrgId, ConsentId), Consent>,
    kept_organizations: Shelf<OrgId, Organization>,
    /// At which revision the policy of an organization is.
    kept_revisions: Shelf<OrgId, u64>,
    kept_users: Shelf<(OrgId, UserId), User>,
}

/// How long to wait before listening again.
const PAUSE: Duration = Duration::from_secs(1);

impl Cached {
    /// A cache over the roles of `stores`. [`Cached::follow`] is for the caller to run.
    pub fn new(stores: &Stores, config: &CacheConfig, feed: Option<Arc<dyn ChangeFeed>>) -> Self {
        Self {
            agents: stores.agents.clone(),
            clients: stores.clients.clone(),
            consents: stores.consents.clone(),
            organizations: stores.organizations.clone(),
            policies: stores.policies.clone(),
            users: stores.users.clone(),
            feed,
            kept_agents: Shelf::new(config),
            agent_aliases: Cache::builder()
                .max_capacity(config.capacity.saturating_mul(2))
                .time_to_idle(IDLE_ALIAS)
                .build(),
            kept_clients: Shelf::new(config),
            kept_consents: Shelf::new(config),
            kept_organizations: Shelf::new(config),
            kept_revisions: Shelf::new(config),
            kept_users: Shelf::new(config),
        }
    }

    /// `stores` with a cache over its roles. The server's maintenance follows `feed`.
    pub fn over(stores: Stores, config: &CacheConfig, feed: Option<Arc<dyn ChangeFeed>>) -> Stores {
        let cached = Arc::new(Self::new(&stores, config, feed));
        Stores {
            agents: cached.clone(),
            clients: cached.clone(),
            consents: cached.clone(),
            organizations: cached.clone(),
            policies: cached.clone(),
            users: cached.clone(),
            cached: Some(cached),
            ..stores
        }
    }

    /// `stores` with what is below this cache in its place.
    pub(super) fn beneath(&self, stores: Stores) -> Stores {
        Stores {
            agents: self.agents.clone(),
            clients: self.clients.clone(),
            consents: self.consents.clone(),
            organizations: self.organizations.clone(),
            policies: self.policies.clone(),
            users: self.users.clone(),
            cached: None,
            ..stores
        }
    }

    /// Forgets what the feed says has changed. It never ends.
    pub async fn follow(&self) {
        let Some(feed) = &self.feed else { return future::pending().await };
        let mut listening = true;
        loop {
            match feed.next().await {
                Ok(notice) => {
                    listening = true;
                    self.hear(&notice);
                }
                Err(error) => {
                    if std::mem::take(&mut listening) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "no change notices; changes of other servers are seen later");
                    }
                    Delay::new(PAUSE).await;
                }
            }
        }
    }

    fn hear(&self, notice: &Notice) {
        match notice {
            Notice::Changed(change) => self.forget(change),
            Notice::Gap => {
                self.kept_agents.forget_all();
                self.kept_clients.forget_all();
                self.kept_consents.forget_all();
                self.kept_organizations.forget_all();
                self.kept_revisions.forget_all();
                self.kept_users.forget_all();
            }
        }
    }

    fn forget(&self, Change { org, record }: &Change) {
        match record {
            ChangedRecord::Organization => self.kept_organizations.forget(org),
            ChangedRecord::Agent(id) => self.kept_agents.forget(&(org.clone(), *id)),
            ChangedRecord::Client(id) => self.kept_clients.forget(&(org.clone(), id.clone())),
            ChangedRecord::Consent(id) => self.kept_consents.forget(&(org.clone(), *id)),
            ChangedRecord::Policy => self.kept_revisions.forget(org),
            ChangedRecord::User(id) => self.kept_users.forget(&(org.clone(), *id)),
        }
    }

    /// Makes a change of `record` and forgets it, whatever comes of it: an answer that got lost may have been a success,
    /// and a refusal may mean that what is kept here is old. Tells the other servers as well, unless the store is down.
    async fn change<T>(
        &self,
        org: &OrgId,
        record: ChangedRecord,
        make: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let change = Change { org: org.clone(), record };
        let changing = Changing { cached: self, change: &change };
        let outcome = make.await;
        // Before the others are told: whoever asks here next sees the change, however long that takes.
        drop(changing);
        if outcome.is_ok()
            && let Some(feed) = &self.feed
            && let Err(error) = feed.publish(&change).await
        {
            tracing::debug!(error = &error as &dyn std::error::Error, "a change notice is lost");
        }
        outcome
    }
}

/// A change under way. Its end forgets the record, also when the caller goes away in the middle.
struct Changing<'a> {
    cached: &'a Cached,
    change: &'a Change,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.cached.forget(self.change);
    }
}

/// How long an unused alias is kept. It is only a hint, so this is no bound of anything but memory.
const IDLE_ALIAS: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
