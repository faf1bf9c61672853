//! What AAuth publishes: who issues, who takes part, and by which keys.

use std::sync::Arc;

use lumoauth_core::{
    aauth_resource::AAuthResource,
    agent::Agent,
    id::OrgId,
    jwks::{HttpAlgorithm, JwkSet},
    organization::Organization,
    server::ApiError,
    server::AuthorizationServer,
    store::Page,
    wire::WireError,
};
use serde_json::{Value, json};

use super::Call;
use crate::{
    endpoint::refuse,
    reply::{self, Reply},
};

/// How many agents and resources a public list shows.
const MOST: u32 = 1000;

/// GET `.well-known/aauth-issuer`.
pub(crate) async fn issuer(call: Call) -> Result<Reply, WireError> {
    Ok(reply::metadata(&issuer_document(&call.server, call.org())))
}

/// The metadata of an organization as an issuer.
pub(crate) fn issuer_document(server: &AuthorizationServer, org: &OrgId) -> Value {
    let issuer = server.issuer(org);
    json!({
        "aauth_version": "1.0",
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/aauth/jwks.json"),
        "agent_token_endpoint": format!("{issuer}/aauth/agent/token"),
        "agent_auth_endpoint": format!("{issuer}/aauth/agent/auth"),
        "agent_signing_algs_supported": HttpAlgorithm::ALL.map(HttpAlgorithm::as_str),
        "token_signing_algs_supported": ["EdDSA"],
        "request_types_supported": ["auth", "code", "exchange", "refresh"],
        "scopes_supported": [],
    })
}

/// All issuers of an instance.
pub(crate) fn issuers(server: &AuthorizationServer, organizations: &[Arc<Organization>]) -> Reply {
    let issuers: Vec<_> =
        organizations.iter().map(|organization| issuer_document(server, &organization.id)).collect();
    reply::metadata(&json!({ "aauth_version": "1.0", "issuers": issuers }))
}

/// GET `aauth/jwks.json`.
pub(crate) async fn jwks(call: Call) -> Result<Reply, WireError> {
    let keys = call.server.aauth_jwks(call.org()).await.map_err(ApiError::from).map_err(refuse)?;
    Ok(reply::metadata(&json!({ "keys": keys })))
}

/// GET `.well-known/aauth-agent`.
pub(crate) async fn agents(call: Call) -> Result<Reply, WireError> {
    let page = call.server.aauth_agents(call.org(), Page { offset: 0, limit: MOST }).await.map_err(refuse)?;
    let active = page.items.iter().filter(|agent| agent.is_active());
    Ok(reply::metadata(&active.map(|agent| agent_document(&call, agent)).collect::<Vec<_>>()))
}

/// GET `aauth/agents/{}/metadata`.
pub(crate) async fn agent(call: Call) -> Result<Reply, WireError> {
    let agent = active_agent(&call).await?;
    Ok(reply::metadata(&agent_document(&call, &agent)))
}

/// GET `aauth/agents/{}/jwks.json`.
pub(crate) async fn agent_jwks(call: Call) -> Result<Reply, WireError> {
    let agent = active_agent(&call).await?;
    registered_keys(agent.jwks.as_ref(), agent.jwks_uri.as_deref())
}

/// GET `.well-known/aauth-resource`.
pub(crate) async fn resources(call: Call) -> Result<Reply, WireError> {
    let page = Page { offset: 0, limit: MOST };
    let page = call.server.aauth_resources(call.org(), page).await.map_err(refuse)?;
    let active = page.items.iter().filter(|resource| resource.active);
    Ok(reply::metadata(&active.map(|resource| resource_document(&call, resource)).collect::<Vec<_>>()))
}

/// GET `aauth/resources/{}/metadata`.
pub(crate) async fn resource(call: Call) -> Result<Reply, WireError> {
    let resource = active_resource(&call).await?;
    Ok(reply::metadata(&resource_document(&call, &resource)))
}

/// GET `aauth/resources/{}/jwks.json`.
pub(crate) async fn resource_jwks(call: Call) -> Result<Reply, WireError> {
    let resource = active_resource(&call).await?;
    registered_keys(resource.jwks.as_ref(), resource.jwks_uri.as_deref())
}

/// The keys of a party that are registered here. Of one that publishes its own there is no set here: an empty one would say
/// that it has no keys.
fn registered_keys(jwks: Option<&JwkSet>, jwks_uri: Option<&str>) -> Result<Reply, WireError> {
    match (jwks, jwks_uri) {
        (None, Some(_)) => Err(WireError::not_found("The keys are published elsewhere; see jwks_uri.")),
        (jwks, _) => Ok(reply::metadata(&json!({ "keys": jwks.map_or(&[][..], |set| &set.keys) }))),
    }
}

async fn active_agent(call: &Call) -> Result<Arc<Agent>, WireError> {
    let agent = call.server.aauth_agent(call.org(), call.name()).await.map_err(refuse)?;
    if agent.is_active() { Ok(agent) } else { Err(WireError::not_found("There is no such agent.")) }
}

async fn active_resource(call: &Call) -> Result<Arc<AAuthResource>, WireError> {
    let resource = call.server.aauth_resource(call.org(), call.name()).await.map_err(refuse)?;
    if resource.active { Ok(resource) } else { Err(WireError::not_found("There is no such resource.")) }
}

fn agent_document(call: &Call, agent: &Agent) -> Value {
    let issuer = call.server.issuer(call.org());
    // Keys that the agent publishes itself are read there.
    let jwks_uri = agent.jwks_uri.clone();
    let jwks_uri = jwks_uri.unwrap_or_else(|| format!("{issuer}/aauth/agents/{}/jwks.json", agent.id));
    json!({
        "agent": agent.aauth_identifier(),
        "jwks_uri": jwks_uri,
        "redirect_uris": agent.redirect_uris,
        "name": agent.name,
    })
}

fn resource_document(call: &Call, resource: &AAuthResource) -> Value {
    let issuer = call.server.issuer(call.org());
    let jwks_uri = resource.jwks_uri.clone();
    let jwks_uri = jwks_uri.unwrap_or_else(|| format!("{issuer}/aauth/resources/{}/jwks.json", resource.id));
    json!({
        "resource": resource.identifier,
        "jwks_uri": jwks_uri,
        "resource_token_endpoint": format!("{issuer}/aauth/resource/token"),
        "supported_scopes": resource.supported_scopes,
        "scope_descriptions": resource.scope_descriptions,
        "name": resource.name,
    })
}
