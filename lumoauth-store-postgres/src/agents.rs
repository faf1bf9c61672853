//! Agents on PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    agent::Agent,
    audit::Event,
    id::{AAuthIdentifier, AgentId, OrgId},
    store::{AgentFilter, AgentKey, AgentStore, Insert, Listing, Page, Remove, StoreError, Unique, Update},
    workload::WorkloadKey,
};

use crate::{
    PostgresStore,
    records::{self, Recorded, bounds, listing, needle, recorded, sought, stored, text, to_json},
};

const INSERT: &str = recorded!(
    "INSERT INTO agent
        (org_id, id, slug, client_id, api_key, aauth, workload, status, kind, name, description, version, record)
    VALUES ($1, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16::json)
    ON CONFLICT DO NOTHING"
);

const TAKEN: &str = "SELECT
    EXISTS (SELECT 1 FROM agent WHERE org_id = $1 AND id = $2),
    EXISTS (SELECT 1 FROM agent WHERE org_id = $1 AND slug = $3),
    EXISTS (SELECT 1 FROM agent WHERE org_id = $1 AND client_id = $4),
    EXISTS (SELECT 1 FROM agent WHERE org_id = $1 AND api_key = $5),
    EXISTS (SELECT 1 FROM agent WHERE org_id = $1 AND aauth = $6)";

/// In the order of the columns of [`TAKEN`].
const UNIQUES: &[Unique] =
    &[Unique::Id, Unique::Slug, Unique::ClientId, Unique::KeyHash, Unique::AAuthIdentifier];

/// What an update may run into.
const CONSTRAINTS: &[(&str, Unique)] =
    &[("agent_api_key", Unique::KeyHash), ("agent_aauth", Unique::AAuthIdentifier)];

const UPDATE: &str = recorded!(
    "UPDATE agent SET api_key = $7, aauth = $8, workload = $9, status = $10, kind = $11, name = $12,
        description = $13, version = version + 1, record = $14::json
    WHERE org_id = $1 AND id = $5 AND version = $6"
);

const EXISTS: &str = "SELECT 1 FROM agent WHERE org_id = $1 AND id = $2";

const REMOVE: &str = recorded!("DELETE FROM agent WHERE org_id = $1 AND id = $5 AND version = $6");

const FIND_BY_ID: &str = "SELECT record::text FROM agent WHERE org_id = $1 AND id = $2";

const FIND_BY_SLUG: &str = "SELECT record::text FROM agent WHERE org_id = $1 AND slug = $2";

const FIND_BY_CLIENT_ID: &str = "SELECT record::text FROM agent WHERE org_id = $1 AND client_id = $2";

const FIND_BY_API_KEY: &str = "SELECT record::text FROM agent WHERE org_id = $1 AND api_key = $2";

const FIND_BY_AAUTH: &str = "SELECT record::text FROM agent WHERE org_id = $1 AND aauth = $2";

const FIND_BY_WORKLOAD: &str = "SELECT record::text FROM agent WHERE org_id = $1 AND workload = ANY($2)";

const LIST: &str = listing!(
    "FROM agent WHERE org_id = $1
        AND ($2::text IS NULL OR status = $2)
        AND ($3::text IS NULL OR kind = $3)
        AND ($4::text IS NULL OR strpos(lower(name), $4) > 0 OR strpos(lower(slug), $4) > 0
            OR strpos(lower(description), $4) > 0)
        AND (NOT $5 OR aauth IS NOT NULL)",
    order: "slug", offset: "$6", limit: "$7"
);

/// Under what the agent is found in AAuth.
fn aauth(agent: &Agent) -> Option<&str> {
    agent.aauth_identifier().map(AAuthIdentifier::as_str)
}

/// Under what the agent is found as a workload.
fn workload(agent: &Agent) -> Option<Vec<u8>> {
    agent.workload.as_ref().map(|trust| trust.key().as_bytes().to_vec())
}

#[async_trait]
impl AgentStore for PostgresStore {
    async fn insert(&self, org: &OrgId, agent: &Agent, on: &Event) -> Result<Insert, StoreError> {
        const OPERATION: &str = "agents.insert";
        let on = Recorded::new(OPERATION, org, on)?;
        let version = stored(OPERATION, agent.version)?;
        let record = to_json(OPERATION, agent)?;
        let api_key = agent.api_key.as_ref().map(|hash| hash.as_bytes().as_slice());
        let insert = || {
            on.statement(INSERT)
                .bind(agent.id.uuid())
                .bind(agent.slug.as_str())
                .bind(agent.client_id.as_str())
                .bind(api_key)
                .bind(aauth(agent))
                .bind(workload(agent))
                .bind(agent.status.as_str())
                .bind(agent.kind.as_str())
                .bind(text(&agent.name))
                .bind(agent.description.as_deref().map(text))
                .bind(version)
                .bind(record.as_str())
        };
        let taken = || {
            sqlx::query(TAKEN)
                .bind(org.as_str())
                .bind(agent.id.uuid())
                .bind(agent.slug.as_str())
                .bind(agent.client_id.as_str())
                .bind(api_key)
                .bind(aauth(agent))
        };
        records::insert(&self.pool, OPERATION, insert, taken, UNIQUES).await
    }

    async fn find(&self, org: &OrgId, key: AgentKey<'_>) -> Result<Option<Arc<Agent>>, StoreError> {
        let statement = || match key {
            AgentKey::Id(id) => sqlx::query(FIND_BY_ID).bind(org.as_str()).bind(id.uuid()),
            AgentKey::Slug(slug) => sqlx::query(FIND_BY_SLUG).bind(org.as_str()).bind(slug.as_str()),
            AgentKey::ClientId(id) => sqlx::query(FIND_BY_CLIENT_ID).bind(org.as_str()).bind(id.as_str()),
            AgentKey::ApiKey(hash) => {
                sqlx::query(FIND_BY_API_KEY).bind(org.as_str()).bind(hash.as_bytes().as_slice())
            }
            AgentKey::AAuthIdentifier(identifier) => {
                sqlx::query(FIND_BY_AAUTH).bind(org.as_str()).bind(identifier.as_str())
            }
        };
        records::find(&self.pool, "agents.find", statement).await
    }

    async fn update(&self, org: &OrgId, agent: &Agent, on: &Event) -> Result<Update, StoreError> {
        const OPERATION: &str = "agents.update";
        let on = Recorded::new(OPERATION, org, on)?;
        let mut next = agent.clone();
        next.version = agent.version.saturating_add(1);
        let record = to_json(OPERATION, &next)?;
        let update = || {
            on.statement(UPDATE)
                .bind(agent.id.uuid())
                .bind(sought(agent.version))
                .bind(agent.api_key.as_ref().map(|hash| hash.as_bytes().as_slice()))
                .bind(aauth(agent))
                .bind(workload(agent))
                .bind(agent.status.as_str())
                .bind(agent.kind.as_str())
                .bind(text(&agent.name))
                .bind(agent.description.as_deref().map(text))
                .bind(record.as_str())
        };
        let exists = || sqlx::query(EXISTS).bind(org.as_str()).bind(agent.id.uuid());
        records::update(&self.pool, OPERATION, update, exists, CONSTRAINTS).await
    }

    async fn remove(&self, org: &OrgId, id: AgentId, version: u64, on: &Event) -> Result<Remove, StoreError> {
        const OPERATION: &str = "agents.remove";
        let on = Recorded::new(OPERATION, org, on)?;
        let remove = || on.statement(REMOVE).bind(id.uuid()).bind(sought(version));
        let exists = || sqlx::query(EXISTS).bind(org.as_str()).bind(id.uuid());
        records::remove_at(&self.pool, OPERATION, remove, exists).await
    }

    async fn trusting(&self, org: &OrgId, keys: &[WorkloadKey]) -> Result<Vec<Arc<Agent>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes().as_slice()).collect();
        let statement = || sqlx::query(FIND_BY_WORKLOAD).bind(org.as_str()).bind(&keys);
        let agents = records::all(&self.pool, "agents.trusting", statement).await?;
        Ok(agents.into_iter().map(Arc::new).collect())
    }

    async fn list(
        &self,
        org: &OrgId,
        filter: &AgentFilter,
        page: Page,
    ) -> Result<Listing<Arc<Agent>>, StoreError> {
        let (offset, limit) = bounds(page);
        let search = filter.search.as_deref().map(needle);
        let statement = || {
            sqlx::query(LIST)
                .bind(org.as_str())
                .bind(filter.status.map(|status| status.as_str()))
                .bind(filter.kind.map(|kind| kind.as_str()))
                .bind(search.as_deref())
                .bind(filter.aauth)
                .bind(offset)
                .bind(limit)
        };
        records::list(&self.pool, "agents.list", statement).await
    }
}
