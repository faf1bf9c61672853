//! The role that keeps agents.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use lumoauth_core::{
    agent::Agent,
    audit::Event,
    id::{AgentId, OrgId},
    store::{AgentFilter, AgentKey, AgentStore, Insert, Listing, Page, Remove, StoreError, Unique, Update},
    workload::WorkloadKey,
};

use crate::{
    EmbeddedStore,
    cache::{Cache, Caches},
    records::{IndexRow, Record, Versioned, list_range},
    tables::{Table, aauth_key, agent_key, all_with, key},
};

impl Record for Agent {
    const TABLE: Table = Table::Agents;
    const KEY: Unique = Unique::Id;

    fn key(&self, org: &OrgId) -> Vec<u8> {
        agent_key(org, self.id)
    }

    fn index_rows(&self, org: &OrgId) -> Vec<IndexRow> {
        let slug = key(org, &[self.slug.as_str().as_bytes()]);
        let client_id = key(org, &[self.client_id.as_str().as_bytes()]);
        let mut rows = vec![
            IndexRow::unique(Table::AgentSlugs, slug, Unique::Slug),
            IndexRow::unique(Table::AgentClientIds, client_id, Unique::ClientId),
        ];
        if let Some(hash) = &self.api_key {
            let hash = key(org, &[hash.as_bytes()]);
            rows.push(IndexRow::unique(Table::AgentApiKeys, hash, Unique::KeyHash));
        }
        if let Some(identifier) = self.aauth_identifier() {
            let identifier = aauth_key(org, identifier);
            rows.push(IndexRow::unique(Table::AgentAAuthIdentifiers, identifier, Unique::AAuthIdentifier));
        }
        if let Some(workload) = &self.workload {
            let trust = key(org, &[workload.key().as_bytes(), self.id.uuid().as_bytes()]);
            rows.push(IndexRow::shared(Table::AgentWorkloads, trust));
        }
        rows
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
            AgentKey::AAuthIdentifier(identifier) => {
                self.find_record(Table::AgentAAuthIdentifiers, &aauth_key(org, identifier))
            }
        }
    }

    async fn update(&self, org: &OrgId, agent: &Agent, on: &Event) -> Result<Update, StoreError> {
        self.update_record(org, agent, on).await
    }

    async fn remove(&self, org: &OrgId, id: AgentId, version: u64, on: &Event) -> Result<Remove, StoreError> {
        self.remove_record::<Agent>(org, agent_key(org, id), move |it| it.version == version, on).await
    }

    async fn trusting(&self, org: &OrgId, keys: &[WorkloadKey]) -> Result<Vec<Arc<Agent>>, StoreError> {
        let snapshot = self.latest();
        let mut found = Vec::new();
        // An agent has one workload, so it is found once if every key is asked for once.
        for wanted in keys.iter().collect::<BTreeSet<_>>() {
            let rows = all_with(org, &[wanted.as_bytes()]);
            let trusting =
                list_range(&snapshot, Table::AgentWorkloads, rows, None, Page::first(u32::MAX)).await?;
            found.extend(trusting.items);
        }
        Ok(found)
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
