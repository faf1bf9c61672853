//! MCP servers whose identifiers name two of them, and that are written and removed whatever was seen of them.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    id::{McpServerId, OrgId},
    mcp::McpServer,
    store::{
        Insert, McpServerKey, McpServerStore, MemoryStore, Remove, StoreError, Update,
        conformance::mcp_servers,
    },
};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Checks first, acts later.
    Racy,
    /// Writes and removes whatever version is there.
    Unguarded,
    /// Keeps everything of everybody under one name.
    OrgBlind,
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    memory: MemoryStore,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self { fault, memory: MemoryStore::new() }
    }

    fn org(&self, org: &OrgId) -> OrgId {
        if self.fault == Fault::OrgBlind { OrgId::parse("everybody").unwrap() } else { org.clone() }
    }

    /// The version that it takes for the one that was seen.
    async fn version(&self, org: &OrgId, id: &McpServerId, seen: u64) -> Result<u64, StoreError> {
        let stored = McpServerStore::find(self, org, McpServerKey::ServerId(id)).await?;
        let guarded = self.fault != Fault::Unguarded;
        Ok(stored.filter(|_| !guarded).map_or(seen, |stored| stored.version))
    }
}

#[async_trait]
impl McpServerStore for Faulty {
    async fn insert(&self, org: &OrgId, server: &McpServer, on: &Event) -> Result<Insert, StoreError> {
        let mut free = self.fault == Fault::Racy;
        for target in server.targets() {
            free &= McpServerStore::find(self, org, McpServerKey::Target(target)).await?.is_none();
        }
        tokio::task::yield_now().await;
        let outcome = McpServerStore::insert(&self.memory, &self.org(org), server, on).await?;
        Ok(if free { Insert::Inserted } else { outcome })
    }

    async fn find(&self, org: &OrgId, key: McpServerKey<'_>) -> Result<Option<Arc<McpServer>>, StoreError> {
        McpServerStore::find(&self.memory, &self.org(org), key).await
    }

    async fn update(&self, org: &OrgId, server: &McpServer, on: &Event) -> Result<Update, StoreError> {
        let mut next = server.clone();
        next.version = self.version(org, &server.server_id, server.version).await?;
        McpServerStore::update(&self.memory, &self.org(org), &next, on).await
    }

    async fn remove(
        &self,
        org: &OrgId,
        id: &McpServerId,
        version: u64,
        on: &Event,
    ) -> Result<Remove, StoreError> {
        let stored = McpServerStore::find(self, org, McpServerKey::ServerId(id)).await?;
        let as_seen = stored.is_some_and(|stored| stored.version == version);
        tokio::task::yield_now().await;
        let version = self.version(org, id, version).await?;
        let outcome = McpServerStore::remove(&self.memory, &self.org(org), id, version, on).await?;
        Ok(if self.fault == Fault::Racy && as_seen { Remove::Removed } else { outcome })
    }

    async fn all(&self, org: &OrgId) -> Result<Vec<Arc<McpServer>>, StoreError> {
        self.memory.all(&self.org(org)).await
    }
}

#[tokio::test]
#[should_panic(expected = "Inserted, Inserted")]
async fn a_server_that_is_looked_for_and_then_added_is_there_twice() {
    mcp_servers::one_target_once(&Faulty::new(Fault::Racy)).await;
}

#[tokio::test]
#[should_panic(expected = "true, true")]
async fn a_server_that_is_looked_at_and_then_removed_is_removed_twice() {
    mcp_servers::removals_are_guarded(&Faulty::new(Fault::Racy)).await;
}

#[tokio::test]
#[should_panic(expected = "Stale")]
async fn a_server_that_is_removed_at_any_version_is_found_out() {
    mcp_servers::removals_are_guarded(&Faulty::new(Fault::Unguarded)).await;
}

#[tokio::test]
#[should_panic(expected = "Updated, Updated")]
async fn a_server_that_is_written_over_any_version_has_two_winners() {
    mcp_servers::racing_updates(&Faulty::new(Fault::Unguarded)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn servers_without_organization_are_shared() {
    mcp_servers::organizations_are_apart(&Faulty::new(Fault::OrgBlind)).await;
}
