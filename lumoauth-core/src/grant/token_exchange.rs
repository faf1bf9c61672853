//! Token exchange (RFC 8693): here, an agent's own token for one that is bound to an MCP server.
//!
//! 1. The subject token authenticates the request; client authentication may be sent too and must then be the
//!    same agent.
//! 2. What the subject is comes from its verified claims, never from `subject_token_type` alone.
//! 3. The subject must be meant for this server's own routes. A token that is bound to a resource is not
//!    exchanged: that would let the resource act as the agent.
//! 4. The scope is within the subject's, the agent's capabilities and the server's vocabulary.
//! 5. One API call is charged, after everything that can refuse has passed.
//! 6. The new token carries the subject's handle: revoking the subject ends it.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Bearer, Grant, GrantContext, NewToken, Resource, TokenError, TokenResponse, issue, requested_scope,
    target, workload,
};
use crate::{
    agent::Agent,
    audit::{Event, EventKind, Target},
    budget_gate::charge_call,
    capability::Scope,
    client_auth::AuthenticatedClient,
    id::McpServerId,
    mcp::{McpServer, ResourceUri},
    principal::{Principal, agent_actor},
    token::{AccessClaims, token_handle},
    wire::Params,
};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const REFRESH_TOKEN: &str = "urn:ietf:params:oauth:token-type:refresh_token";

/// The `token-exchange` grant.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TokenExchange;

#[async_trait]
impl Grant for TokenExchange {
    fn grant_type(&self) -> &'static str {
        "urn:ietf:params:oauth:grant-type:token-exchange"
    }

    async fn handle(&self, context: &GrantContext<'_>, params: &Params) -> Result<TokenResponse, TokenError> {
        if workload::is_workload_exchange(params, context.issuer) {
            let token = params
                .get("subject_token")
                .ok_or(TokenError::InvalidRequest("subject_token is required."))?;
            let response = workload::exchange(context, token, params.get("subject_issuer"), params).await?;
            return Ok(TokenResponse { issued_token_type: Some(ACCESS_TOKEN), ..response });
        }
        if context.public_client.is_some() {
            return Err(TokenError::UnauthorizedClient);
        }
        let named = named_target(params);
        context.refusal.set(|event| {
            event.kind = EventKind::McpConnection;
            event.auth_method = Some("token_exchange".into());
            event.target = named;
        });
        let (agent, claims) = subject(context, params).await?;
        let known = agent.clone();
        context.refusal.set(move |event| event.actor = agent_actor(&known));
        let (server, scope) = decide(context, &agent, &claims, params).await?;
        let event =
            Event::new(EventKind::McpConnection, agent_actor(&agent), "token for an MCP server", context.now)
                .on(Target::new("mcp_server", server.server_id.as_str()).named(&*server.name))
                .by_method("token_exchange")
                .from_origin(context.origin)
                .with("scope", scope.to_string());
        let (agent, lifetime) = (AuthenticatedClient::Agent(agent), server.token_lifetime);
        let new = NewToken {
            ancestors: ancestors(context, &claims),
            test: claims.test,
            ..NewToken::new(Bearer::Itself(&agent), Resource::Mcp(server), scope, lifetime)
        };
        let response = issue(context, new).await?;
        // Signed, but not out of our hands: the token leaves when its event is durable.
        context.append(&[event]).await?;
        Ok(TokenResponse { issued_token_type: Some(ACCESS_TOKEN), ..response })
    }
}

/// The agent whose live token the subject is, and the token's claims.
async fn subject(
    context: &GrantContext<'_>,
    params: &Params,
) -> Result<(Arc<Agent>, Arc<AccessClaims>), TokenError> {
    let token =
        params.get("subject_token").ok_or(TokenError::InvalidRequest("subject_token is required."))?;
    let declared = params
        .get("subject_token_type")
        .ok_or(TokenError::InvalidRequest("subject_token_type is required."))?;
    match declared {
        ACCESS_TOKEN | JWT => {}
        ID_TOKEN | REFRESH_TOKEN => {
            return Err(TokenError::InvalidGrant("The subject token is not of the declared type."));
        }
        _ => return Err(TokenError::UnsupportedTokenType),
    }
    match (params.get("actor_token"), params.get("actor_token_type")) {
        (None, None) => {}
        (Some(_), Some(_)) => {
            return Err(TokenError::InvalidRequest("Exchange with an actor token is not supported."));
        }
        _ => {
            let text = "actor_token and actor_token_type go together.";
            return Err(TokenError::InvalidRequest(text));
        }
    }
    if params.get("requested_token_type").is_some_and(|requested| requested != ACCESS_TOKEN) {
        return Err(TokenError::InvalidRequest("Only access tokens are issued."));
    }
    let refused = TokenError::InvalidGrant("The subject token is not acceptable.");
    let Some(Principal { identity, claims: Some(claims), .. }) = context.principal(token).await? else {
        return Err(refused);
    };
    let crate::principal::Identity::Agent(agent) = identity else { return Err(refused) };
    let same_client = context.client.is_none_or(|client| *client.client_id() == agent.client_id);
    if !claims.is_for_own_routes() || !same_client {
        return Err(refused);
    }
    Ok((agent, claims))
}

async fn decide(
    context: &GrantContext<'_>,
    agent: &Arc<Agent>,
    claims: &AccessClaims,
    params: &Params,
) -> Result<(Arc<McpServer>, Scope), TokenError> {
    let named = target::requested(params)?
        .ok_or(TokenError::InvalidRequest("resource or audience is required for this exchange."))?;
    let requested = requested_scope(params)?;
    let client = AuthenticatedClient::Agent(agent.clone());
    let server = target::resolve(context, &client, named).await?;
    let scope = target::scope_for(&server, &client, requested.as_ref(), &[claims.scope.as_slice()])?;
    charge_call(context.stores, context.org(), agent, context.origin, context.now).await??;
    Ok((server, scope))
}

fn ancestors(context: &GrantContext<'_>, subject: &AccessClaims) -> Vec<crate::store::Handle> {
    let mut handles = subject.lin.handles.clone();
    handles.push(token_handle(context.org(), &subject.jti));
    handles
}

/// What the request names, for the log, if it is a resource at all: anything else may be a token in the wrong place.
fn named_target(params: &Params) -> Option<Target> {
    let named = target::requested(params).ok().flatten()?;
    let known_form = ResourceUri::parse(named).is_ok() || McpServerId::parse(named).is_ok();
    known_form.then(|| Target::new("mcp_server", named))
}
