//! The role that keeps MCP servers.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{Insert, Remove, StoreError, Update};
use crate::{
    audit::Event,
    id::{McpServerId, Number, OrgId},
    mcp::McpServer,
};

/// By what an MCP server is looked up. Each is unique in its organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every backend must serve every key")]
pub enum McpServerKey<'a> {
    /// The public id.
    ServerId(&'a McpServerId),
    /// The integer id.
    Number(Number),
    /// A normalized resource identifier or alias; see [`McpServer::targets`].
    Target(&'a str),
}

/// Keeps MCP servers. Recorded.
#[async_trait]
pub trait McpServerStore: fmt::Debug + Send + Sync + 'static {
    /// Adds `server` and writes `on`, in one step. Public id, number and every one of
    /// [`McpServer::targets`] are unique in the organization: no identifier names two servers.
    /// Checked by `conformance::mcp_servers::one_target_once` and `unique_values`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn insert(&self, org: &OrgId, server: &McpServer, on: &Event) -> Result<Insert, StoreError>;

    /// The server with this key. Checked by `conformance::mcp_servers::round_trip` and
    /// `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn find(&self, org: &OrgId, key: McpServerKey<'_>) -> Result<Option<Arc<McpServer>>, StoreError>;

    /// Replaces the server if its stored version is `server.version`; see [`Update`]. Identifiers it no longer
    /// has are free; if another server has one of the new ones, nothing changes.
    /// Checked by `conformance::mcp_servers::updates_are_guarded`, `racing_updates` and `targets_follow_updates`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn update(&self, org: &OrgId, server: &McpServer, on: &Event) -> Result<Update, StoreError>;

    /// Removes the server if `version` is its stored one, and frees its identifiers.
    /// Checked by `conformance::mcp_servers::removal_frees_targets` and `removals_are_guarded`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn remove(
        &self,
        org: &OrgId,
        id: &McpServerId,
        version: u64,
        on: &Event,
    ) -> Result<Remove, StoreError>;

    /// All servers, in ascending order of public id. An organization has at most
    /// [`McpServer::MAX_PER_ORG`]. Checked by `conformance::mcp_servers::listing`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn all(&self, org: &OrgId) -> Result<Vec<Arc<McpServer>>, StoreError>;
}
