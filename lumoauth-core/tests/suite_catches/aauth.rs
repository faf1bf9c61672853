//! Names in AAuth that name the wrong thing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use lumoauth_core::{
    aauth_resource::AAuthResource,
    agent::Agent,
    audit::Event,
    id::{AAuthIdentifier, AAuthResourceId, AgentId, OrgId},
    store::{
        AAuthResourceKey, AAuthResourceStore, AgentFilter, AgentKey, AgentStore, Insert, Listing,
        MemoryStore, Page, Remove, StoreError, Unique, Update,
        conformance::{
            aauth_resources, agents,
            recorded::{Trail, writes_its_events},
        },
    },
    workload::WorkloadKey,
};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Checks first, acts later.
    Racy,
    /// Keeps everything of everybody under one name.
    OrgBlind,
    /// Compares identifiers as URLs.
    Normalizing,
    /// Lists in the order of a language.
    Unordered,
    /// Writes over any version.
    Unguarded,
    /// Never forgets whom an identifier named.
    Sticky,
    /// Lists all agents, whatever part they have.
    Unfiltered,
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    memory: MemoryStore,
    named: Mutex<HashMap<AAuthIdentifier, AgentId>>,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self { fault, memory: MemoryStore::new(), named: Mutex::default() }
    }

    fn org(&self, org: &OrgId) -> OrgId {
        if self.fault == Fault::OrgBlind { OrgId::parse("everybody").unwrap() } else { org.clone() }
    }

    fn seen(&self, identifier: &AAuthIdentifier) -> AAuthIdentifier {
        let text = identifier.as_str();
        match self.fault {
            Fault::Normalizing => AAuthIdentifier::parse(&text.to_lowercase()).unwrap(),
            _ => identifier.clone(),
        }
    }

    /// Whether it would write, because the name of `agent` is free a moment before.
    async fn finds_name_free(&self, org: &OrgId, agent: &Agent) -> Result<bool, StoreError> {
        let (Fault::Racy, Some(name)) = (self.fault, agent.aauth_identifier()) else { return Ok(false) };
        Ok(AgentStore::find(self, org, AgentKey::AAuthIdentifier(name)).await?.is_none())
    }

    fn remember(&self, agent: &Agent) {
        if let Some(identifier) = agent.aauth_identifier() {
            self.named.lock().unwrap().insert(identifier.clone(), agent.id);
        }
    }
}

#[async_trait]
impl AAuthResourceStore for Faulty {
    async fn insert(&self, org: &OrgId, resource: &AAuthResource, on: &Event) -> Result<Insert, StoreError> {
        let key = AAuthResourceKey::Identifier(&resource.identifier);
        let racy = self.fault == Fault::Racy && AAuthResourceStore::find(self, org, key).await?.is_none();
        tokio::task::yield_now().await;
        if self.fault == Fault::Normalizing {
            let there = AAuthResourceStore::list(self, org, Page::first(100)).await?.items;
            let seen = self.seen(&resource.identifier);
            if there.iter().any(|it| it.id != resource.id && self.seen(&it.identifier) == seen) {
                return Ok(Insert::Taken(Unique::AAuthIdentifier));
            }
        }
        let outcome = AAuthResourceStore::insert(&self.memory, &self.org(org), resource, on).await?;
        Ok(if racy { Insert::Inserted } else { outcome })
    }

    async fn find(
        &self,
        org: &OrgId,
        key: AAuthResourceKey<'_>,
    ) -> Result<Option<Arc<AAuthResource>>, StoreError> {
        AAuthResourceStore::find(&self.memory, &self.org(org), key).await
    }

    async fn update(&self, org: &OrgId, resource: &AAuthResource, on: &Event) -> Result<Update, StoreError> {
        let mut next = resource.clone();
        if self.fault == Fault::Unguarded {
            let stored = AAuthResourceStore::find(self, org, AAuthResourceKey::Id(&resource.id)).await?;
            next.version = stored.map_or(next.version, |stored| stored.version);
        }
        AAuthResourceStore::update(&self.memory, &self.org(org), &next, on).await
    }

    async fn remove(
        &self,
        org: &OrgId,
        id: &AAuthResourceId,
        version: u64,
        on: &Event,
    ) -> Result<Remove, StoreError> {
        let stored = AAuthResourceStore::find(self, org, AAuthResourceKey::Id(id)).await?;
        tokio::task::yield_now().await;
        let version = match (&stored, self.fault) {
            (Some(stored), Fault::Unguarded) => stored.version,
            _ => version,
        };
        let outcome = AAuthResourceStore::remove(&self.memory, &self.org(org), id, version, on).await?;
        Ok(if self.fault == Fault::Racy && stored.is_some() { Remove::Removed } else { outcome })
    }

    async fn list(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<AAuthResource>>, StoreError> {
        let mut listing = AAuthResourceStore::list(&self.memory, &self.org(org), page).await?;
        if self.fault == Fault::Unordered {
            listing.items.sort_by_key(|resource| resource.identifier.as_str().to_lowercase());
        }
        Ok(listing)
    }
}

#[async_trait]
impl AgentStore for Faulty {
    async fn insert(&self, org: &OrgId, agent: &Agent, on: &Event) -> Result<Insert, StoreError> {
        let racy = self.finds_name_free(org, agent).await?;
        tokio::task::yield_now().await;
        let outcome = AgentStore::insert(&self.memory, org, agent, on).await?;
        if outcome == Insert::Inserted {
            self.remember(agent);
        }
        Ok(if racy { Insert::Inserted } else { outcome })
    }

    async fn find(&self, org: &OrgId, key: AgentKey<'_>) -> Result<Option<Arc<Agent>>, StoreError> {
        if let (Fault::Sticky, AgentKey::AAuthIdentifier(identifier)) = (self.fault, key) {
            let id = self.named.lock().unwrap().get(identifier).copied();
            let Some(id) = id else { return Ok(None) };
            return AgentStore::find(&self.memory, org, AgentKey::Id(id)).await;
        }
        AgentStore::find(&self.memory, org, key).await
    }

    async fn update(&self, org: &OrgId, agent: &Agent, on: &Event) -> Result<Update, StoreError> {
        let racy = self.finds_name_free(org, agent).await?;
        tokio::task::yield_now().await;
        let outcome = AgentStore::update(&self.memory, org, agent, on).await?;
        if outcome == Update::Updated {
            self.remember(agent);
        }
        Ok(if racy { Update::Updated } else { outcome })
    }

    async fn remove(&self, org: &OrgId, id: AgentId, version: u64, on: &Event) -> Result<Remove, StoreError> {
        AgentStore::remove(&self.memory, org, id, version, on).await
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
        let mut filter = filter.clone();
        filter.aauth &= self.fault != Fault::Unfiltered;
        AgentStore::list(&self.memory, org, &filter, page).await
    }
}

#[tokio::test]
#[should_panic(expected = "Inserted")]
async fn a_resource_that_is_looked_for_and_then_added_is_there_twice() {
    aauth_resources::one_identifier_once(&Faulty::new(Fault::Racy)).await;
}

#[tokio::test]
#[should_panic(expected = "Removed")]
async fn a_resource_that_is_looked_for_and_then_removed_is_removed_twice() {
    aauth_resources::racing_removals(&Faulty::new(Fault::Racy)).await;
}

#[tokio::test]
#[should_panic(expected = "Updated")]
async fn a_resource_that_is_written_over_any_version_has_two_winners() {
    aauth_resources::racing_updates(&Faulty::new(Fault::Unguarded)).await;
}

#[tokio::test]
#[should_panic(expected = "Stale")]
async fn a_resource_that_is_removed_at_any_version_is_found_out() {
    aauth_resources::removals_are_guarded(&Faulty::new(Fault::Unguarded)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn resources_without_organization_are_shared() {
    aauth_resources::organizations_are_apart(&Faulty::new(Fault::OrgBlind)).await;
}

#[tokio::test]
#[should_panic(expected = "Taken(AAuthIdentifier)")]
async fn a_store_that_compares_identifiers_as_urls_is_found_out() {
    aauth_resources::unique_values(&Faulty::new(Fault::Normalizing)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn resources_in_the_order_of_a_language_are_found_out() {
    aauth_resources::listing(&Faulty::new(Fault::Unordered)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn a_resource_without_its_event_is_found_out() {
    let (store, log) = (MemoryStore::new(), MemoryStore::new());
    let role: &dyn AAuthResourceStore = &store;
    writes_its_events(role.into(), Trail::Log(&log)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn an_agent_whose_name_is_looked_for_and_then_taken_is_there_twice() {
    agents::one_aauth_identifier_once(&Faulty::new(Fault::Racy)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn an_agent_that_is_found_by_a_name_it_gave_up_is_found_out() {
    agents::aauth_identifiers_follow_updates(&Faulty::new(Fault::Sticky)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn agents_without_a_part_in_a_list_of_those_who_have_one_are_found_out() {
    agents::listing(&Faulty::new(Fault::Unfiltered)).await;
}
