//! Steps that are not one step.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use lumoauth_core::{
    agent::Agent,
    audit::Event,
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{
        Admission, AgentFilter, AgentKey, AgentStore, Insert, Listing, MemoryStore, Page, RateLimit,
        RateLimitStore, Remove, StoreError, Update,
        conformance::{agents, rate_limits},
    },
    workload::WorkloadKey,
};

/// Where the backend waits between the check and the act.
async fn round_trip() {
    tokio::task::yield_now().await;
}

/// Checks first, acts later.
#[derive(Debug, Default)]
struct Racy {
    memory: MemoryStore,
    taken: Mutex<HashMap<String, u32>>,
}

#[async_trait]
impl AgentStore for Racy {
    async fn insert(&self, org: &OrgId, agent: &Agent, on: &Event) -> Result<Insert, StoreError> {
        if AgentStore::find(&self.memory, org, AgentKey::Slug(&agent.slug)).await?.is_some() {
            return AgentStore::insert(&self.memory, org, agent, on).await;
        }
        round_trip().await;
        AgentStore::insert(&self.memory, org, agent, on).await.map(|_| Insert::Inserted)
    }

    async fn find(&self, org: &OrgId, key: AgentKey<'_>) -> Result<Option<Arc<Agent>>, StoreError> {
        AgentStore::find(&self.memory, org, key).await
    }

    async fn update(&self, org: &OrgId, agent: &Agent, on: &Event) -> Result<Update, StoreError> {
        let Some(stored) = AgentStore::find(&self.memory, org, AgentKey::Id(agent.id)).await? else {
            return Ok(Update::Missing);
        };
        if stored.version != agent.version {
            return Ok(Update::Stale);
        }
        round_trip().await;
        let mut next = agent.clone();
        if let Some(stored) = AgentStore::find(&self.memory, org, AgentKey::Id(agent.id)).await? {
            next.version = stored.version;
        }
        AgentStore::update(&self.memory, org, &next, on).await
    }

    async fn remove(&self, org: &OrgId, id: AgentId, version: u64, on: &Event) -> Result<Remove, StoreError> {
        let Some(stored) = AgentStore::find(&self.memory, org, AgentKey::Id(id)).await? else {
            return Ok(Remove::Missing);
        };
        if stored.version != version {
            return Ok(Remove::Stale);
        }
        round_trip().await;
        AgentStore::remove(&self.memory, org, id, version, on).await.map(|_| Remove::Removed)
    }

    async fn trusting(&self, org: &OrgId, keys: &[WorkloadKey]) -> Result<Vec<Arc<Agent>>, StoreError> {
        self.memory.trusting(org, keys).await
    }

    async fn list(
        &self,
        org: &OrgId,
        filter: &AgentFilter,
        page: Page,
    ) -> Result<Listing<Arc<Agent>>, StoreError> {
        AgentStore::list(&self.memory, org, filter, page).await
    }
}

#[async_trait]
impl RateLimitStore for Racy {
    async fn take(
        &self,
        org: &OrgId,
        source: &str,
        limit: RateLimit,
        now: Timestamp,
    ) -> Result<Admission, StoreError> {
        let key = format!("{org} {source}");
        let taken = self.taken.lock().unwrap().get(&key).copied().unwrap_or(0);
        round_trip().await;
        let admitted = taken < limit.max;
        let taken = taken + u32::from(admitted);
        self.taken.lock().unwrap().insert(key, taken);
        Ok(Admission { admitted, remaining: limit.max - taken, resets_at: now })
    }
}

#[tokio::test]
#[should_panic(expected = "Inserted")]
async fn an_insert_that_checks_and_then_inserts_has_two_winners() {
    agents::one_slug_once(&Racy::default()).await;
}

#[tokio::test]
#[should_panic(expected = "Updated")]
async fn an_update_that_checks_and_then_writes_has_two_winners() {
    agents::racing_updates(&Racy::default()).await;
}

#[tokio::test]
#[should_panic(expected = "Removed")]
async fn a_removal_that_checks_and_then_removes_has_two_winners() {
    agents::racing_removals(&Racy::default()).await;
}

#[tokio::test]
#[should_panic(expected = "true, true")]
async fn a_removal_that_checks_the_version_and_then_removes_undoes_an_update() {
    agents::removals_are_guarded(&Racy::default()).await;
}

#[tokio::test]
#[should_panic(expected = "Admission")]
async fn a_rate_limit_that_checks_and_then_counts_admits_too_many() {
    rate_limits::admits_exactly_max(&Racy::default()).await;
}
