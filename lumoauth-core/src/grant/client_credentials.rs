//! `client_credentials` (RFC 6749 section 4.4): an agent or a client as itself.
//!
//! 1. The client must have authenticated; a public client cannot use this grant.
//! 2. Without `scope` the token carries everything the client may ask for; with it, every item must be covered.
//! 3. With `resource` (RFC 8707) the token is bound to that MCP server.
//! 4. An agent whose budget is used up still gets a token for this server's own routes: it must be able to read its
//!    budget. A token for an MCP server is charged as in an exchange.
//! 5. No refresh token.
//! 6. With a DPoP proof the token is bound to the key of the proof (RFC 9449 section 5).

use async_trait::async_trait;

use super::{
    Bearer, Grant, GrantContext, NewToken, Resource, TokenError, TokenResponse, issue, requested_scope,
    target,
};
use crate::{
    audit::{Event, EventKind, Target},
    client_auth::AuthenticatedClient,
    principal::client_actor,
    spending::Payers,
    wire::Params,
};

/// Life of the token of an ordinary client, in seconds.
const CLIENT_TOKEN_LIFETIME: u32 = 3600;

/// The `client_credentials` grant.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ClientCredentials;

#[async_trait]
impl Grant for ClientCredentials {
    fn grant_type(&self) -> &'static str {
        "client_credentials"
    }

    fn binds_keys(&self) -> bool {
        true
    }

    async fn handle(&self, context: &GrantContext<'_>, params: &Params) -> Result<TokenResponse, TokenError> {
        let client = context.proven_client()?;
        let mut resources = params.all("resource");
        let target = match (resources.next(), resources.next()) {
            (target, None) => target,
            // One token, one audience: a token for two servers would let each replay it at the other.
            (_, Some(_)) => return Err(TokenError::InvalidTarget),
        };
        let decided = decide(context, client, target, params).await?;
        let events = events(context, client, &decided, "client_credentials");
        let response = issue(context, decided).await?;
        // Signed, but not out of our hands: the token leaves when its event is durable.
        context.append(&events).await?;
        Ok(response)
    }
}

/// The token of a client as itself, by whichever proof: for `target`, or for this server's own routes.
pub(super) async fn decide<'a>(
    context: &GrantContext<'_>,
    client: &'a AuthenticatedClient,
    target: Option<&str>,
    params: &Params,
) -> Result<NewToken<'a>, TokenError> {
    let requested = requested_scope(params)?;
    let lifetime = match client {
        AuthenticatedClient::Agent(agent) => agent.token_lifetime,
        AuthenticatedClient::Client(client) => {
            if !client.grant_types.iter().any(|grant| grant == "client_credentials") {
                return Err(TokenError::UnauthorizedClient);
            }
            CLIENT_TOKEN_LIFETIME
        }
    };
    let target = match target.filter(|target| *target != context.issuer) {
        Some(target) => Some(target::resolve(context, client, target).await?),
        None => None,
    };
    let (resource, scope, lifetime) = match target {
        Some(server) => {
            let scope = target::scope_for(&server, client, requested.as_ref(), &[])?;
            let lifetime = server.token_lifetime;
            if let AuthenticatedClient::Agent(agent) = client {
                // A token for a resource is an act, by whichever grant.
                Payers::alone(agent)
                    .charge_call(context.stores, context.org(), context.origin, context.now)
                    .await??;
            }
            (Resource::Mcp(server), scope, lifetime)
        }
        None => {
            let scope = client
                .narrow(requested.as_ref(), &[])
                .map_err(|item| TokenError::InvalidScope(item.to_string()))?;
            (Resource::Own, scope, lifetime)
        }
    };
    Ok(NewToken::new(Bearer::Itself(client), resource, scope, lifetime))
}

/// What happened, by `method`; first of all that the client authenticated.
pub(super) fn events(
    context: &GrantContext<'_>,
    client: &AuthenticatedClient,
    new: &NewToken<'_>,
    method: &'static str,
) -> Vec<Event> {
    let actor = client_actor(client);
    let (kind, what) = match client {
        AuthenticatedClient::Agent(_) => (EventKind::AgentAuthenticated, "agent"),
        AuthenticatedClient::Client(_) => (EventKind::ClientAuthenticated, "client"),
    };
    let mut target = Target::new(what, actor.id.clone());
    target.name.clone_from(&actor.name);
    let event = |kind, message, target| {
        Event::new(kind, actor.clone(), message, context.now)
            .on(target)
            .by_method(method)
            .from_origin(context.origin)
            .with("scope", new.scope.to_string())
    };
    let mut events = vec![event(kind, "client credentials presented", target)];
    if let Resource::Mcp(server) = &new.resource {
        let target = Target::new("mcp_server", server.server_id.as_str()).named(&*server.name);
        events.push(event(EventKind::McpConnection, "token for an MCP server", target));
    }
    events
}
