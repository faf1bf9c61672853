//! The role that keeps agents.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    agent::Agent,
    audit::Event,
    id::{AgentId, OrgId},
    store::{AgentFilter, AgentKey, AgentStore, Insert, Listing, Page, Remove, StoreError, Unique, Update},
};

use crate::{
    EmbeddedStore,
    cache::{Cache, Caches},
    records::{Record, UniqueValue, Versioned},
    tables::{Table, agent_key, key},
};

impl Record for Agent {
    const TABLE: Table = Table::Agents;
    const KEY: Unique = Unique::Id;

    fn key(&self, org: &OrgId) -> Vec<u8> {
        agent_key(org, self.id)
    }

    fn unique_values(&self, org: &OrgId) -> Vec<UniqueValue> {
        let slug = key(org, &[self.slug.as_str().as_bytes()]);
        let client_id = key(org, &[self.client_id.as_str().as_bytes()]);
        let mut values = vec![
            UniqueValue::new(Table::AgentSlugs, slug, Unique::Slug),
            UniqueValue::new(Table::AgentClientIds, client_id, Unique::ClientId),
        ];
        if let Some(hash) = &self.api_key {
            let hash = key(org, &[hash.as_bytes()]);
            values.push(UniqueValue::new(Table::AgentApiKeys, hash, Unique::KeyHash));
        }
        values
    }
}

impl Versioned for Agent {
    fn version(&self) -> u64 {
        self.version
    }

    fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.agents
    }
}

#[async_trait]
impl AgentStore for EmbeddedStore {
    async fn insert(&self, org: &OrgId, agent: &Agent, on: &Event) -> Result<Insert, StoreError> {
        self.insert_record(org, agent, on).await
    }

    async fn find(&self, org: &OrgId, by: AgentKey<'_>) -> Result<Option<Arc<Agent>>, StoreError> {
        match by {
            AgentKey::Id(id) => self.find_record(Table::Agents, &agent_key(org, id)),
            AgentKey::Slug(slug) => {
                self.find_record(Table::AgentSlugs, &key(org, &[slug.as_str().as_bytes()]))
            }
            AgentKey::ClientId(id) => {
                self.find_record(Table::AgentClientIds, &key(org, &[id.as_str().as_bytes()]))
            }
            AgentKey::ApiKey(hash) => self.find_record(Table::AgentApiKeys, &key(org, &[hash.as_bytes()])),
        }
    }

    async fn update(&self, org: &OrgId, agent: &Agent, on: &Event) -> Result<Update, StoreError> {
        self.update_record(org, agent, on).await
    }

    async fn remove(&self, org: &OrgId, id: AgentId, on: &Event) -> Result<Remove, StoreError> {
        self.remove_record::<Agent>(org, agent_key(org, id), on).await
    }

    async fn list(
        &self,
        org: &OrgId,
        filter: &AgentFilter,
        page: Page,
    ) -> Result<Listing<Arc<Agent>>, StoreError> {
        let matches = |agent: &Agent| filter.matches(agent);
        let wanted = (*filter != AgentFilter::default())
            .then_some(&matches as &(dyn Fn(&Agent) -> bool + Send + Sync));
        self.list_records(org, Table::AgentSlugs, wanted, page).await
    }
}
