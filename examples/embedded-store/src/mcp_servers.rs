//! The role that keeps MCP servers.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    id::{McpServerId, OrgId},
    mcp::McpServer,
    store::{Insert, McpServerKey, McpServerStore, Page, Remove, StoreError, Unique, Update},
};

use crate::{
    EmbeddedStore,
    cache::{Cache, Caches},
    records::{IndexRow, Record, Versioned},
    tables::{Table, key, number_key},
};

fn server_key(org: &OrgId, id: &McpServerId) -> Vec<u8> {
    key(org, &[id.as_str().as_bytes()])
}

fn target_key(org: &OrgId, target: &str) -> Vec<u8> {
    key(org, &[target.as_bytes()])
}

impl Record for McpServer {
    const TABLE: Table = Table::McpServers;
    const KEY: Unique = Unique::Id;

    fn key(&self, org: &OrgId) -> Vec<u8> {
        server_key(org, &self.server_id)
    }

    fn index_rows(&self, org: &OrgId) -> Vec<IndexRow> {
        let number = number_key(org, self.number);
        let targets = self
            .targets()
            .map(|target| IndexRow::unique(Table::McpServerTargets, target_key(org, target), Unique::Target));
        std::iter::once(IndexRow::unique(Table::McpServerNumbers, number, Unique::Number))
            .chain(targets)
            .collect()
    }
}

impl Versioned for McpServer {
    fn version(&self) -> u64 {
        self.version
    }

    fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.mcp_servers
    }
}

#[async_trait]
impl McpServerStore for EmbeddedStore {
    async fn insert(&self, org: &OrgId, server: &McpServer, on: &Event) -> Result<Insert, StoreError> {
        self.insert_record(org, server, on).await
    }

    async fn find(&self, org: &OrgId, by: McpServerKey<'_>) -> Result<Option<Arc<McpServer>>, StoreError> {
        match by {
            McpServerKey::ServerId(id) => self.find_record(Table::McpServers, &server_key(org, id)),
            McpServerKey::Number(number) => {
                self.find_record(Table::McpServerNumbers, &number_key(org, number))
            }
            McpServerKey::Target(target) => {
                self.find_record(Table::McpServerTargets, &target_key(org, target))
            }
        }
    }

    async fn update(&self, org: &OrgId, server: &McpServer, on: &Event) -> Result<Update, StoreError> {
        self.update_record(org, server, on).await
    }

    async fn remove(
        &self,
        org: &OrgId,
        id: &McpServerId,
        version: u64,
        on: &Event,
    ) -> Result<Remove, StoreError> {
        self.remove_record::<McpServer>(org, server_key(org, id), move |it| it.version == version, on).await
    }

    async fn all(&self, org: &OrgId) -> Result<Vec<Arc<McpServer>>, StoreError> {
        Ok(self.list_records(org, Table::McpServers, None, Page::first(u32::MAX)).await?.items)
    }
}
