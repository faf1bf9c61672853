//! Steps that are not one step.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use lumoauth_core::{
    agent::Agent,
    audit::Event,
    budget::{Account, Usage, admits},
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{
        Admission, AgentFilter, AgentKey, AgentStore, BudgetStore, Charge, Charged, Insert, Listing,
        MemoryStore, Page, RateLimit, RateLimitStore, Remove, StoreError, Update,
        conformance::{agents, budgets, rate_limits},
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
impl BudgetStore for Racy {
    async fn charge(&self, org: &OrgId, charge: &Charge<'_>, now: Timestamp) -> Result<Charged, StoreError> {
        for (index, line) in charge.lines.iter().enumerate() {
            let used = self.memory.usage(org, line.account, now).await?.of(line.meter);
            if !admits(used, line) {
                return Ok(Charged::Exceeded { line: index, used });
            }
        }
        round_trip().await;
        let mut lines = charge.lines.to_vec();
        lines.iter_mut().for_each(|line| line.limit = None);
        self.memory.charge(org, &Charge::once(&lines), now).await
    }

    async fn usage(&self, org: &OrgId, account: Account, now: Timestamp) -> Result<Usage, StoreError> {
        self.memory.usage(org, account, now).await
    }
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

    async fn remove(&self, org: &OrgId, id: AgentId, on: &Event) -> Result<Remove, StoreError> {
        if AgentStore::find(&self.memory, org, AgentKey::Id(id)).await?.is_none() {
            return Ok(Remove::Missing);
        }
        round_trip().await;
        AgentStore::remove(&self.memory, org, id, on).await.map(|_| Remove::Removed)
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
#[should_panic(expected = "Charged")]
async fn a_charge_that_reads_and_then_writes_oversells() {
    budgets::never_oversells(&Racy::default()).await;
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
#[should_panic(expected = "Admission")]
async fn a_rate_limit_that_checks_and_then_counts_admits_too_many() {
    rate_limits::admits_exactly_max(&Racy::default()).await;
}

/// Charges line after line.
#[derive(Debug, Default)]
struct LineByLine(MemoryStore);

#[async_trait]
impl BudgetStore for LineByLine {
    async fn charge(&self, org: &OrgId, charge: &Charge<'_>, now: Timestamp) -> Result<Charged, StoreError> {
        let mut counters = Vec::new();
        for (line, one) in charge.lines.chunks(1).enumerate() {
            match self.0.charge(org, &Charge::once(one), now).await? {
                Charged::Charged(used) => counters.extend(used),
                Charged::Exceeded { used, .. } => return Ok(Charged::Exceeded { line, used }),
                other => return Ok(other),
            }
        }
        Ok(Charged::Charged(counters))
    }

    async fn usage(&self, org: &OrgId, account: Account, now: Timestamp) -> Result<Usage, StoreError> {
        self.0.usage(org, account, now).await
    }
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn a_charge_line_by_line_is_not_all_or_none() {
    budgets::all_lines_or_none(&LineByLine::default()).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn a_charge_that_ignores_its_id_is_made_twice() {
    budgets::repeats_by_id(&LineByLine::default()).await;
}
