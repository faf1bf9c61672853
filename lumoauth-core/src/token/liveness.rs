//! Whether a verified token is alive, and whose it is.

use std::sync::Arc;

use super::{AccessClaims, lineage::token_handle};
use crate::{
    organization::Organization,
    principal::{Identity, Principal},
    store::{AgentKey, ClientKey, McpServerKey, StoreError, Stores},
};

/// Why a token with a good signature is dead. Logged; clients only learn that it is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Dead {
    /// Its organization is disabled, or it was issued before the organization's tokens were ended.
    #[error("organization")]
    Organization,
    /// Its agent or client is gone, not active, or was suspended since.
    #[error("principal")]
    Principal,
    /// The MCP server it is bound to is gone, inactive, or no longer for this client.
    #[error("resource")]
    Resource,
    /// It or something it came from is revoked.
    #[error("revoked")]
    Revoked,
}

/// The principal behind `claims`: every record is active and in the epoch that the token was issued in, and no
/// handle of the token or its ancestors is marked.
///
/// Two record look-ups (three for a token bound to an MCP server) and one look-up of marks, at any depth of delegation.
///
/// # Errors
/// [`StoreError`] if the stores cannot answer; the token must then be refused.
pub async fn principal_of(
    stores: &Stores,
    organization: &Organization,
    claims: Arc<AccessClaims>,
) -> Result<Result<Principal, Dead>, StoreError> {
    let org = &organization.id;
    let [org_epoch, own_epoch] = claims.lin.epochs[..] else { return Ok(Err(Dead::Principal)) };
    if claims.organization != *org || !organization.is_active() || organization.epoch != org_epoch {
        return Ok(Err(Dead::Organization));
    }
    let identity = match claims.agent_id {
        Some(id) => stores
            .agents
            .find(org, AgentKey::Id(id))
            .await?
            .filter(|agent| agent.is_active() && agent.epoch == own_epoch)
            .map(Identity::Agent),
        None => stores
            .clients
            .find(org, ClientKey::ClientId(&claims.client_id))
            .await?
            .filter(|client| client.active && client.epoch == own_epoch)
            .map(Identity::Client),
    };
    let Some(identity) = identity else { return Ok(Err(Dead::Principal)) };
    if let Some(server) = &claims.mcp_server_id {
        let server = stores.mcp_servers.find(org, McpServerKey::ServerId(server)).await?;
        if !server.is_some_and(|server| server.admits(&claims.client_id, claims.agent_id)) {
            return Ok(Err(Dead::Resource));
        }
    }
    let mut handles = claims.lin.handles.clone();
    handles.push(token_handle(org, &claims.jti));
    if stores.grants.any_revoked(org, &handles).await? {
        return Ok(Err(Dead::Revoked));
    }
    Ok(Ok(Principal::new(org.clone(), identity, Some(claims))))
}
