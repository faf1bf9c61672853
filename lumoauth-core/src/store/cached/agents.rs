//! Agents, cached.

use std::sync::Arc;

use async_trait::async_trait;

use super::Cached;
use crate::{
    agent::Agent,
    audit::Event,
    id::{AAuthIdentifier, AgentId, ClientId, OrgId, Slug},
    secret::SecretHash,
    store::{
        AgentFilter, AgentKey, AgentStore, ChangedRecord, Insert, Listing, Page, Remove, StoreError, Update,
    },
    workload::WorkloadKey,
};

/// A key of an agent that may lead to another agent later.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Alias {
    Slug(Slug),
    ClientId(ClientId),
    ApiKey(SecretHash),
    AAuthIdentifier(AAuthIdentifier),
}

impl std::fmt::Debug for Alias {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Slug(slug) => write!(f, "{slug:?}"),
            Self::ClientId(id) => write!(f, "{id:?}"),
            Self::ApiKey(_) => f.write_str("ApiKey(..)"),
            Self::AAuthIdentifier(identifier) => write!(f, "{identifier:?}"),
        }
    }
}

impl Alias {
    fn of(key: AgentKey<'_>) -> Option<Self> {
        match key {
            AgentKey::Id(_) => None,
            AgentKey::Slug(slug) => Some(Self::Slug(slug.clone())),
            AgentKey::ClientId(id) => Some(Self::ClientId(id.clone())),
            AgentKey::ApiKey(hash) => Some(Self::ApiKey(*hash)),
            AgentKey::AAuthIdentifier(identifier) => Some(Self::AAuthIdentifier(identifier.clone())),
        }
    }

    /// Whether it leads to `agent`.
    fn names(&self, agent: &Agent) -> bool {
        match self {
            Self::Slug(slug) => agent.slug == *slug,
            Self::ClientId(id) => agent.client_id == *id,
            Self::ApiKey(hash) => agent.api_key.as_ref() == Some(hash),
            Self::AAuthIdentifier(identifier) => agent.aauth_identifier() == Some(identifier),
        }
    }
}

impl Cached {
    fn kept_agent(
        &self,
        org: &OrgId,
        key: AgentKey<'_>,
        alias: Option<&(OrgId, Alias)>,
    ) -> Option<Arc<Agent>> {
        match (key, alias) {
            (_, Some(alias)) => {
                let id = self.agent_aliases.get(alias)?;
                self.kept_agents.get(&(org.clone(), id)).filter(|agent| alias.1.names(agent))
            }
            (AgentKey::Id(id), None) => self.kept_agents.get(&(org.clone(), id)),
            (
                AgentKey::Slug(_)
                | AgentKey::ClientId(_)
                | AgentKey::ApiKey(_)
                | AgentKey::AAuthIdentifier(_),
                None,
            ) => None,
        }
    }
}

#[async_trait]
impl AgentStore for Cached {
    async fn insert(&self, org: &OrgId, agent: &Agent, on: &Event) -> Result<Insert, StoreError> {
        self.agents.insert(org, agent, on).await
    }

    async fn find(&self, org: &OrgId, key: AgentKey<'_>) -> Result<Option<Arc<Agent>>, StoreError> {
        let alias = Alias::of(key).map(|alias| (org.clone(), alias));
        if let Some(agent) = self.kept_agent(org, key, alias.as_ref()) {
            return Ok(Some(agent));
        }
        let reading = self.kept_agents.reading();
        let found = self.agents.find(org, key).await?;
        if let Some(agent) = &found {
            self.kept_agents.keep(reading, (org.clone(), agent.id), agent);
            if let Some(alias) = alias {
                self.agent_aliases.insert(alias, agent.id);
            }
        }
        Ok(found)
    }

    async fn update(&self, org: &OrgId, agent: &Agent, on: &Event) -> Result<Update, StoreError> {
        let change = self.agents.update(org, agent, on);
        self.change(org, ChangedRecord::Agent(agent.id), change).await
    }

    async fn remove(&self, org: &OrgId, id: AgentId, version: u64, on: &Event) -> Result<Remove, StoreError> {
        let change = self.agents.remove(org, id, version, on);
        self.change(org, ChangedRecord::Agent(id), change).await
    }

    async fn trusting(&self, org: &OrgId, keys: &[WorkloadKey]) -> Result<Vec<Arc<Agent>>, StoreError> {
        self.agents.trusting(org, keys).await
    }

    async fn list(
        &self,
        org: &OrgId,
        filter: &AgentFilter,
        page: Page,
    ) -> Result<Listing<Arc<Agent>>, StoreError> {
        self.agents.list(org, filter, page).await
    }
}
