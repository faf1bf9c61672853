//! The MCP server that a request wants a token for (RFC 8707, contract of the exchange).

use std::sync::Arc;

use super::{GrantContext, TokenError};
use crate::{
    capability::{Capability, Scope},
    client_auth::AuthenticatedClient,
    id::McpServerId,
    mcp::{McpServer, ResourceUri},
    store::McpServerKey,
    wire::Params,
};

/// The one target that the request names: `resource` wins over `audience`; `None` if neither is there.
pub(super) fn requested(params: &Params) -> Result<Option<&str>, TokenError> {
    for name in ["resource", "audience"] {
        let mut values = params.all(name);
        if let Some(value) = values.next() {
            // One token, one audience: a token for two servers would let each replay it at the other.
            return if values.next().is_none() { Ok(Some(value)) } else { Err(TokenError::InvalidTarget) };
        }
    }
    Ok(None)
}

/// The registered server that `target` names, by resource identifier, alias or id, if `client` may have a token
/// for it.
pub(crate) async fn resolve(
    context: &GrantContext<'_>,
    client: &AuthenticatedClient,
    target: &str,
) -> Result<Arc<McpServer>, TokenError> {
    let server = match McpServerId::parse(target) {
        Ok(id) => context.stores.mcp_servers.find(context.org(), McpServerKey::ServerId(&id)).await?,
        Err(_) => {
            let uri = ResourceUri::parse(target).map_err(|_| TokenError::InvalidTarget)?;
            context.stores.mcp_servers.find(context.org(), McpServerKey::Target(uri.normalized())).await?
        }
    };
    let agent = match client {
        AuthenticatedClient::Agent(agent) => Some(agent.id),
        AuthenticatedClient::Client(_) => None,
    };
    server.filter(|server| server.admits(client.client_id(), agent)).ok_or(TokenError::InvalidTarget)
}

/// The scope of a token for `server`: within what `client` may ask for, within every one of `others` and, if the server has
/// a vocabulary, within that.
pub(super) fn scope_for(
    server: &McpServer,
    client: &AuthenticatedClient,
    requested: Option<&Scope>,
    others: &[&[Capability]],
) -> Result<Scope, TokenError> {
    let vocabulary = server.scopes_supported.as_slice();
    let mut bounds = others.to_vec();
    if !vocabulary.is_empty() {
        bounds.push(vocabulary);
    }
    let scope =
        client.narrow(requested, &bounds).map_err(|item| TokenError::InvalidScope(item.to_string()))?;
    if scope.is_empty() && !vocabulary.is_empty() {
        return Err(TokenError::InvalidScope("of this server".to_owned()));
    }
    Ok(scope)
}
