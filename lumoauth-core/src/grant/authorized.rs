//! What the grants of people's authorizations share: who asks, whether what was agreed to still stands, and the answer.

use std::sync::Arc;

use serde_json::json;

use super::{Bearer, GrantContext, NewToken, Resource, TokenError, TokenResponse, id_token, issue, target};
use crate::{
    audit::{Event, EventKind, Target},
    authorize::{Authorized, still_allowed},
    capability::Scope,
    client_auth::{AuthenticatedClient, Method},
    mcp::McpServer,
    principal::client_actor,
    secret::Secret,
    spending::Payers,
    store::{ConsentKey, Handle, McpServerKey, UserKey},
    user::User,
    wire::Params,
};

/// Life of an access token of a person, in seconds.
const USER_TOKEN_LIFETIME: u32 = 3600;

/// The client of the request, and whether it has proven who it is.
pub(super) fn presenter(
    context: &GrantContext<'_>,
    grant_type: &'static str,
) -> Result<(AuthenticatedClient, bool), TokenError> {
    context.refusal.set(move |event| event.auth_method = Some(grant_type.into()));
    match (context.client, context.public_client) {
        (Some(client), _) => Ok((client.clone(), true)),
        (None, Some(client)) => Ok((AuthenticatedClient::Client(client.clone()), false)),
        (None, None) => Err(TokenError::InvalidClient(Method::Body)),
    }
}

/// An authorization that still stands.
pub(super) struct Standing {
    pub(super) user: Arc<User>,
    pub(super) server: Option<Arc<McpServer>>,
    /// What the client may still have of what it was given.
    pub(super) scope: Scope,
}

/// Whether nothing that the authorization stands on has died since: the person, the client, the organization, the consent.
pub(super) async fn standing(
    context: &GrantContext<'_>,
    authorized: &Authorized,
    client: &AuthenticatedClient,
) -> Result<Standing, TokenError> {
    let over = TokenError::InvalidGrant("The authorization is no longer valid.");
    let (org, stores) = (context.org(), context.stores);
    let user = stores.users.find(org, UserKey::Id(authorized.user)).await?;
    let Some(user) = user.filter(|user| user.is_active()) else { return Err(over) };
    let subject = Target::new("user", user.id.to_string());
    context.refusal.set(move |event| event.target = Some(subject));
    if authorized.epochs != [context.organization.epoch, user.epoch, client.epoch()] {
        return Err(over);
    }
    if authorized.agent.is_some() && authorized.agent != client.agent_id() {
        return Err(over);
    }
    let consent = stores.consents.find(org, ConsentKey::Id(authorized.consent.id)).await?;
    if !consent.is_some_and(|consent| consent.active && consent.epoch == authorized.consent.epoch) {
        return Err(over);
    }
    let server = match &authorized.resource {
        None => None,
        Some(id) => {
            let server = stores.mcp_servers.find(org, McpServerKey::ServerId(id)).await?;
            let server = server.filter(|server| server.admits(client.client_id(), client.agent_id()));
            Some(server.ok_or(TokenError::InvalidTarget)?)
        }
    };
    let scope = still_allowed(client, server.as_deref(), &authorized.scope);
    Ok(Standing { user, server, scope })
}

/// Charges an agent for a token that is bound to an MCP server: that is an act, by whichever grant. It comes before the code
/// or refresh token is used, so that a refusal leaves it as it is; what fails afterwards has cost its call.
pub(super) async fn charge(
    context: &GrantContext<'_>,
    client: &AuthenticatedClient,
    standing: &Standing,
) -> Result<(), TokenError> {
    if let (AuthenticatedClient::Agent(agent), Some(_)) = (client, &standing.server) {
        Payers::alone(agent)
            .charge_call(context.stores, context.org(), context.origin, context.now)
            .await??;
    }
    Ok(())
}

/// A request may repeat the resource it was authorized for (RFC 8707 section 2.2), and name no other.
pub(super) async fn check_resource(
    context: &GrantContext<'_>,
    params: &Params,
    client: &AuthenticatedClient,
    authorized: &Authorized,
) -> Result<(), TokenError> {
    let mut named = params.all("resource");
    let same = match (named.next(), named.next(), &authorized.resource) {
        (None, _, _) => true,
        (Some(_), Some(_), _) => false,
        (Some(one), None, None) => one == context.issuer,
        (Some(one), None, Some(id)) => target::resolve(context, client, one).await?.server_id == *id,
    };
    if same { Ok(()) } else { Err(TokenError::InvalidTarget) }
}

/// Signs what the authorization comes to, after the code or refresh token was used; it leaves when the log has what is to be
/// known of it.
pub(super) async fn answer(
    context: &GrantContext<'_>,
    client: &AuthenticatedClient,
    authorized: &Authorized,
    standing: &Standing,
    family: Handle,
    nonce: Option<&str>,
    grant_type: &'static str,
) -> Result<TokenResponse, TokenError> {
    let Standing { user, server, scope } = standing;
    let bearer = Bearer::User { user, client, sign_in: &authorized.sign_in };
    let (resource, lifetime) = match server {
        Some(server) => (Resource::Mcp(server.clone()), server.token_lifetime.min(USER_TOKEN_LIFETIME)),
        None => (Resource::Own, USER_TOKEN_LIFETIME),
    };
    let wants_id = scope.as_slice().iter().any(|item| item.as_str() == "openid");
    let new = NewToken {
        ancestors: vec![family],
        consents: vec![authorized.consent],
        ..NewToken::new(bearer, resource, scope.clone(), lifetime)
    };
    let claims = issue::claims(context, new)?;
    let beside = wants_id.then(|| claims.clone());
    let mut response = issue::signed(context, claims).await?;
    if let Some(claims) = beside {
        let token = id_token::sign(context, user, &response, &claims, nonce).await?;
        response.id_token = Some(Secret::from(token));
    }
    if let Some(server) = server {
        let kind = EventKind::McpConnection;
        let connected = event(context, client, authorized, kind, "token for an MCP server", grant_type)
            .on(Target::new("mcp_server", server.server_id.as_str()).named(&*server.name))
            .with("scope", scope.to_string())
            .with("principal", json!({ "subject": user.id.to_string(), "actor_chain": [] }));
        context.append(&[connected]).await?;
    }
    Ok(response)
}

/// The event of a use of a code or refresh token.
pub(super) fn event(
    context: &GrantContext<'_>,
    client: &AuthenticatedClient,
    authorized: &Authorized,
    kind: EventKind,
    message: &'static str,
    grant_type: &'static str,
) -> Event {
    Event::new(kind, client_actor(client), message, context.now)
        .on(Target::new("user", authorized.user.to_string()))
        .by_method(grant_type)
        .from_origin(context.origin)
        .with("scope", authorized.scope.to_string())
        .with("consent", authorized.consent.id.to_string())
}
