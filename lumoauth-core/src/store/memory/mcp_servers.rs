//! MCP servers in memory.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    MemoryStore,
    table::{Record, Versioned},
};
use crate::{
    audit::Event,
    id::{McpServerId, Number, OrgId},
    mcp::McpServer,
    store::{Insert, McpServerKey, McpServerStore, Remove, StoreError, Unique, Update},
};

#[derive(PartialEq, Eq, Hash)]
pub(super) enum Key {
    ServerId(McpServerId),
    Number(Number),
    Target(String),
}

impl From<McpServerKey<'_>> for Key {
    fn from(key: McpServerKey<'_>) -> Self {
        match key {
            McpServerKey::ServerId(id) => Self::ServerId(id.clone()),
            McpServerKey::Number(number) => Self::Number(number),
            McpServerKey::Target(target) => Self::Target(target.to_owned()),
        }
    }
}

impl Record for McpServer {
    type Key = Key;
    type Order = McpServerId;

    fn id(&self) -> Key {
        Key::ServerId(self.server_id.clone())
    }

    fn keys(&self) -> Vec<(Unique, Key)> {
        let named = [(Unique::Id, self.id()), (Unique::Number, Key::Number(self.number))];
        let targets = self.targets().map(|target| (Unique::Target, Key::Target(target.to_owned())));
        named.into_iter().chain(targets).collect()
    }

    fn order(&self) -> McpServerId {
        self.server_id.clone()
    }
}

impl Versioned for McpServer {
    fn version(&self) -> u64 {
        self.version
    }

    fn at_version(&self, version: u64) -> Self {
        Self { version, ..self.clone() }
    }
}

#[async_trait]
impl McpServerStore for MemoryStore {
    async fn insert(&self, org: &OrgId, server: &McpServer, on: &Event) -> Result<Insert, StoreError> {
        Ok(self.recorded(&self.mcp_servers, org, on, |servers| servers.insert(server)))
    }

    async fn find(&self, org: &OrgId, key: McpServerKey<'_>) -> Result<Option<Arc<McpServer>>, StoreError> {
        Ok(self.mcp_servers.read(org, |servers| servers.find(&key.into())))
    }

    async fn update(&self, org: &OrgId, server: &McpServer, on: &Event) -> Result<Update, StoreError> {
        Ok(self.recorded(&self.mcp_servers, org, on, |servers| servers.update(server)))
    }

    async fn remove(
        &self,
        org: &OrgId,
        id: &McpServerId,
        version: u64,
        on: &Event,
    ) -> Result<Remove, StoreError> {
        let key = Key::ServerId(id.clone());
        Ok(self.recorded(&self.mcp_servers, org, on, |servers| servers.remove_at(&key, version)))
    }

    async fn all(&self, org: &OrgId) -> Result<Vec<Arc<McpServer>>, StoreError> {
        Ok(self.mcp_servers.read(org, |servers| servers.after(None).cloned().collect()))
    }
}
