//! MCP servers on PostgreSQL.
//!
//! The identifiers of a server are rows of their own, so that the database keeps them unique. A change of a server and
//! of its identifiers is one statement; its parts work on what the statement saw when it began, which is right because
//! the guard on the version fails if a server changed since.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    id::{McpServerId, OrgId},
    mcp::McpServer,
    store::{Insert, McpServerKey, McpServerStore, Remove, StoreError, Unique, Update},
};

use crate::{
    PostgresStore,
    records::{self, Recorded, recorded, sought, stored, text, to_json},
};

const INSERT: &str = recorded!(
    "INSERT INTO mcp_server (org_id, server_id, number, version, record)
    VALUES ($1, $5, $6, $7, $8::json)
    ON CONFLICT DO NOTHING",
    also: "named AS (
        INSERT INTO mcp_server_target (org_id, target, server_id)
        SELECT $1, target, $5 FROM changed CROSS JOIN unnest($9::text[]) AS target)"
);

const TAKEN: &str = "SELECT
    EXISTS (SELECT 1 FROM mcp_server WHERE org_id = $1 AND server_id = $2),
    EXISTS (SELECT 1 FROM mcp_server WHERE org_id = $1 AND number = $3)";

/// In the order of the columns of [`TAKEN`].
const UNIQUES: &[Unique] = &[Unique::Id, Unique::Number];

const UPDATE: &str = recorded!(
    "UPDATE mcp_server SET version = version + 1, record = $7::json
    WHERE org_id = $1 AND server_id = $5 AND version = $6",
    also: "freed AS (
        DELETE FROM mcp_server_target
        WHERE org_id = $1 AND server_id = $5 AND target <> ALL($8) AND EXISTS (SELECT 1 FROM changed)),
    named AS (
        INSERT INTO mcp_server_target (org_id, target, server_id)
        SELECT $1, wanted.target, $5 FROM changed CROSS JOIN unnest($8::text[]) AS wanted (target)
        WHERE NOT EXISTS (
            SELECT 1 FROM mcp_server_target AS own
            WHERE own.org_id = $1 AND own.target = wanted.target AND own.server_id = $5))"
);

const CONSTRAINTS: &[(&str, Unique)] = &[("mcp_server_target_target", Unique::Target)];

const EXISTS: &str = "SELECT 1 FROM mcp_server WHERE org_id = $1 AND server_id = $2";

const REMOVE: &str = recorded!(
    "DELETE FROM mcp_server WHERE org_id = $1 AND server_id = $5 AND version = $6",
    also: "freed AS (
        DELETE FROM mcp_server_target WHERE org_id = $1 AND server_id = $5 AND EXISTS (SELECT 1 FROM changed))"
);

const FIND_BY_ID: &str = "SELECT record::text FROM mcp_server WHERE org_id = $1 AND server_id = $2";

const FIND_BY_NUMBER: &str = "SELECT record::text FROM mcp_server WHERE org_id = $1 AND number = $2";

const FIND_BY_TARGET: &str = "SELECT server.record::text FROM mcp_server_target AS named
    JOIN mcp_server AS server ON server.org_id = named.org_id AND server.server_id = named.server_id
    WHERE named.org_id = $1 AND named.target = $2";

const ALL: &str = "SELECT record::text FROM mcp_server WHERE org_id = $1 ORDER BY server_id";

/// The identifiers of `server`, each once, in an order that all servers of ours agree on, so that two changes rarely wait
/// for each other.
fn targets(server: &McpServer) -> Vec<String> {
    let mut targets: Vec<_> = server.targets().map(|target| text(target).into_owned()).collect();
    targets.sort_unstable();
    targets.dedup();
    targets
}

#[async_trait]
impl McpServerStore for PostgresStore {
    async fn insert(&self, org: &OrgId, server: &McpServer, on: &Event) -> Result<Insert, StoreError> {
        const OPERATION: &str = "mcp_servers.insert";
        let on = Recorded::new(OPERATION, org, on)?;
        let number = stored(OPERATION, server.number.value())?;
        let version = stored(OPERATION, server.version)?;
        let record = to_json(OPERATION, server)?;
        let targets = targets(server);
        let id = server.server_id.as_str();
        let insert = || {
            let statement = on.statement(INSERT).bind(id).bind(number);
            statement.bind(version).bind(record.as_str()).bind(&targets)
        };
        let taken = || sqlx::query(TAKEN).bind(org.as_str()).bind(id).bind(number);
        let outcome = records::insert(&self.pool, OPERATION, insert, taken, UNIQUES).await;
        outcome.or_else(|error| records::taken(&error, CONSTRAINTS).map(Insert::Taken).ok_or(error))
    }

    async fn find(&self, org: &OrgId, key: McpServerKey<'_>) -> Result<Option<Arc<McpServer>>, StoreError> {
        let statement = || match key {
            McpServerKey::ServerId(id) => sqlx::query(FIND_BY_ID).bind(org.as_str()).bind(id.as_str()),
            McpServerKey::Number(number) => {
                sqlx::query(FIND_BY_NUMBER).bind(org.as_str()).bind(sought(number.value()))
            }
            McpServerKey::Target(target) => sqlx::query(FIND_BY_TARGET).bind(org.as_str()).bind(text(target)),
        };
        records::find(&self.pool, "mcp_servers.find", statement).await
    }

    async fn update(&self, org: &OrgId, server: &McpServer, on: &Event) -> Result<Update, StoreError> {
        const OPERATION: &str = "mcp_servers.update";
        let on = Recorded::new(OPERATION, org, on)?;
        let id = server.server_id.as_str();
        let mut next = server.clone();
        next.version = server.version.saturating_add(1);
        let record = to_json(OPERATION, &next)?;
        let targets = targets(server);
        let update = || {
            let statement = on.statement(UPDATE).bind(id).bind(sought(server.version));
            statement.bind(record.as_str()).bind(&targets)
        };
        let exists = || sqlx::query(EXISTS).bind(org.as_str()).bind(id);
        records::update(&self.pool, OPERATION, update, exists, CONSTRAINTS).await
    }

    async fn remove(
        &self,
        org: &OrgId,
        id: &McpServerId,
        version: u64,
        on: &Event,
    ) -> Result<Remove, StoreError> {
        const OPERATION: &str = "mcp_servers.remove";
        let on = Recorded::new(OPERATION, org, on)?;
        let remove = || on.statement(REMOVE).bind(id.as_str()).bind(sought(version));
        let exists = || sqlx::query(EXISTS).bind(org.as_str()).bind(id.as_str());
        records::remove_at(&self.pool, OPERATION, remove, exists).await
    }

    async fn all(&self, org: &OrgId) -> Result<Vec<Arc<McpServer>>, StoreError> {
        let statement = || sqlx::query(ALL).bind(org.as_str());
        let servers = records::all(&self.pool, "mcp_servers.all", statement).await?;
        Ok(servers.into_iter().map(Arc::new).collect())
    }
}
