//! `client_credentials` (RFC 6749 section 4.4): an agent or a client as itself.
//!
//! 1. The client must have authenticated; a public client cannot use this grant.
//! 2. Without `scope` the token carries everything the client may ask for; with it, every item must be covered.
//! 3. With `resource` (RFC 8707) the token is bound to that MCP server.
//! 4. An agent whose budget is used up still gets a token: it must be able to read its budget.
//! 5. No refresh token.

use async_trait::async_trait;

use super::{
    Grant, GrantContext, NewToken, Resource, TokenError, TokenResponse, issue, requested_scope, target,
};
use crate::{
    audit::{Actor, ActorKind, Event, EventKind, Target},
    capability::{Scope, narrow},
    client_auth::{AuthenticatedClient, Method},
    principal::agent_actor,
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

    async fn handle(&self, context: &GrantContext<'_>, params: &Params) -> Result<TokenResponse, TokenError> {
        let client = context.client.ok_or(TokenError::InvalidClient(Method::Body))?;
        match decide(context, client, params).await {
            Ok(decided) => {
                let event = event(context, client, &decided.scope);
                // The row may reach the disk while the signature is computed; the token leaves after both.
                let (signed, ()) = futures_util::future::try_join(
                    async { issue(context, decided).await.map_err(TokenError::from) },
                    async { context.append(event).await.map_err(TokenError::from) },
                )
                .await?;
                Ok(signed.0)
            }
            Err(error) if error.is_outage() => Err(error),
            Err(error) => {
                context.append(event(context, client, &Scope::default()).failed(error.reason())).await?;
                Err(error)
            }
        }
    }
}

async fn decide<'a>(
    context: &GrantContext<'_>,
    client: &'a AuthenticatedClient,
    params: &Params,
) -> Result<NewToken<'a>, TokenError> {
    let requested = requested_scope(params)?;
    let (allowed, lifetime) = match client {
        AuthenticatedClient::Agent(agent) => (&agent.capabilities, agent.token_lifetime),
        AuthenticatedClient::Client(client) => {
            if !client.grant_types.iter().any(|grant| grant == "client_credentials") {
                return Err(TokenError::UnauthorizedClient);
            }
            (&client.allowed_scopes, CLIENT_TOKEN_LIFETIME)
        }
    };
    let mut resources = params.all("resource");
    let target = match (resources.next(), resources.next()) {
        (None, _) => None,
        (Some(target), None) if target == context.issuer => None,
        (Some(target), None) => Some(target::resolve(context, client, target).await?),
        // One token, one audience: a token for two servers would let each replay it at the other.
        (Some(_), Some(_)) => return Err(TokenError::InvalidTarget),
    };
    let (resource, scope, lifetime) = match target {
        Some(server) => {
            let scope = target::scope_for(&server, requested.as_ref(), &[allowed])?;
            let lifetime = server.token_lifetime;
            (Resource::Mcp(server), scope, lifetime)
        }
        None => {
            let scope = narrow(requested.as_ref(), &[allowed])
                .map_err(|item| TokenError::InvalidScope(item.to_string()))?;
            (Resource::Own, scope, lifetime)
        }
    };
    Ok(NewToken { holder: client, resource, scope, lifetime, ancestors: Vec::new(), test: false })
}

fn event(context: &GrantContext<'_>, client: &AuthenticatedClient, scope: &Scope) -> Event {
    let (kind, actor, target) = match client {
        AuthenticatedClient::Agent(agent) => (
            EventKind::AgentAuthenticated,
            agent_actor(agent),
            Target::new("agent", agent.id.to_string()).named(&agent.name),
        ),
        AuthenticatedClient::Client(client) => (
            EventKind::ClientAuthenticated,
            Actor::new(ActorKind::Client, client.client_id.as_str()).named(&client.name),
            Target::new("client", client.client_id.as_str()).named(&client.name),
        ),
    };
    Event::new(kind, actor, "client credentials presented", context.now)
        .on(target)
        .by_method("client_credentials")
        .from_origin(context.origin)
        .with("scope", scope.to_string())
}
