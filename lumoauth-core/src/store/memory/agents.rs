//! Agents in memory.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    MemoryStore,
    table::{Record, Versioned},
};
use crate::{
    agent::Agent,
    audit::Event,
    id::{AAuthIdentifier, AgentId, ClientId, OrgId, Slug},
    secret::SecretHash,
    store::{AgentFilter, AgentKey, AgentStore, Insert, Listing, Page, Remove, StoreError, Unique, Update},
    workload::WorkloadKey,
};

#[derive(PartialEq, Eq, Hash)]
pub(super) enum Key {
    Id(AgentId),
    Slug(Slug),
    ClientId(ClientId),
    ApiKeyHash(SecretHash),
    AAuthIdentifier(AAuthIdentifier),
}

impl From<AgentKey<'_>> for Key {
    fn from(key: AgentKey<'_>) -> Self {
        match key {
            AgentKey::Id(id) => Self::Id(id),
            AgentKey::Slug(slug) => Self::Slug(slug.clone()),
            AgentKey::ClientId(id) => Self::ClientId(id.clone()),
            AgentKey::ApiKey(hash) => Self::ApiKeyHash(*hash),
            AgentKey::AAuthIdentifier(identifier) => Self::AAuthIdentifier(identifier.clone()),
        }
    }
}

impl Record for Agent {
    type Key = Key;
    type Order = Slug;

    fn id(&self) -> Key {
        Key::Id(self.id)
    }

    fn keys(&self) -> Vec<(Unique, Key)> {
        let mut keys = vec![
            (Unique::Id, Key::Id(self.id)),
            (Unique::Slug, Key::Slug(self.slug.clone())),
            (Unique::ClientId, Key::ClientId(self.client_id.clone())),
        ];
        keys.extend(self.api_key.map(|hash| (Unique::KeyHash, Key::ApiKeyHash(hash))));
        let identifier = self.aauth_identifier().cloned();
        keys.extend(identifier.map(|it| (Unique::AAuthIdentifier, Key::AAuthIdentifier(it))));
        keys
    }

    fn order(&self) -> Slug {
        self.slug.clone()
    }
}

impl Versioned for Agent {
    fn version(&self) -> u64 {
        self.version
    }

    fn at_version(&self, version: u64) -> Self {
        Self { version, ..self.clone() }
    }
}

#[async_trait]
impl AgentStore for MemoryStore {
    async fn insert(&self, org: &OrgId, agent: &Agent, on: &Event) -> Result<Insert, StoreError> {
        Ok(self.recorded(&self.agents, org, on, |agents| agents.insert(agent)))
    }

    async fn find(&self, org: &OrgId, key: AgentKey<'_>) -> Result<Option<Arc<Agent>>, StoreError> {
        Ok(self.agents.read(org, |agents| agents.find(&key.into())))
    }

    async fn update(&self, org: &OrgId, agent: &Agent, on: &Event) -> Result<Update, StoreError> {
        Ok(self.recorded(&self.agents, org, on, |agents| agents.update(agent)))
    }

    async fn remove(&self, org: &OrgId, id: AgentId, version: u64, on: &Event) -> Result<Remove, StoreError> {
        Ok(self.recorded(&self.agents, org, on, |agents| agents.remove_at(&Key::Id(id), version)))
    }

    async fn trusting(&self, org: &OrgId, keys: &[WorkloadKey]) -> Result<Vec<Arc<Agent>>, StoreError> {
        Ok(self.agents.read(org, |agents| {
            let trusts = |agent: &&Arc<Agent>| {
                agent.workload.as_ref().is_some_and(|workload| keys.contains(&workload.key()))
            };
            agents.after(None).filter(trusts).cloned().collect()
        }))
    }

    async fn list(
        &self,
        org: &OrgId,
        filter: &AgentFilter,
        page: Page,
    ) -> Result<Listing<Arc<Agent>>, StoreError> {
        Ok(self.agents.read(org, |agents| agents.list(page, |agent| filter.matches(agent))))
    }
}
