//! MCP servers: their registry, their metadata, and a challenge that stands in for one.

use http::StatusCode;
use lumoauth_core::{
    capability::Scope,
    jit::AuthorizationDetail,
    json,
    mcp::{AuthMode, McpServer},
    principal::Principal,
    server::{AuthenticateError, Door, McpServerPatch, Visit},
    wire::{Challenge, WireError, view},
};
use serde_json::{Value, json};

use super::{Call, refuse};
use crate::{
    authenticate::credential,
    reply::{self, Reply},
};

/// GET `admin/mcp/servers`.
pub(crate) async fn list(call: Call) -> Result<Reply, WireError> {
    let paging = call.query().page()?;
    let servers = call.server.mcp_servers(call.org(), None).await.map_err(refuse)?;
    let total = servers.len() as u64;
    let items = paging.slice(servers).map(|server| view::mcp_server(&server)).collect();
    Ok(reply::ok(&paging.render("mcp_servers", items, total)))
}

/// POST `admin/mcp/servers`.
pub(crate) async fn create(call: Call) -> Result<Reply, WireError> {
    let patch: McpServerPatch = call.json().map_err(unprocessable)?;
    let new = call.server.create_mcp_server(call.org(), &patch, &call.caller()?).await.map_err(refuse)?;
    let mut data = view::mcp_server(&new.server);
    if let Some((client_id, secret)) = &new.resource_client {
        data["resource_client_id"] = json!(client_id);
        data["resource_client_secret"] = secret.expose().into();
    }
    Ok(reply::tagged(
        reply::json(StatusCode::CREATED, &json!({ "data": data, "message": "MCP server registered." })),
        &*new.server,
    ))
}

/// GET `admin/mcp/servers/{}`.
pub(crate) async fn read(call: Call) -> Result<Reply, WireError> {
    let server = call.server.mcp_server(call.org(), call.name()).await.map_err(refuse)?;
    Ok(reply::tagged(reply::ok(&json!({ "data": view::mcp_server(&server) })), &*server))
}

/// PUT, PATCH `admin/mcp/servers/{}`.
pub(crate) async fn update(call: Call) -> Result<Reply, WireError> {
    let patch: McpServerPatch = call.json()?;
    let server = call
        .server
        .update_mcp_server(call.org(), call.name(), &patch, &call.editor()?)
        .await
        .map_err(refuse)?;
    Ok(reply::tagged(
        reply::ok(&json!({ "data": view::mcp_server(&server), "message": "MCP server updated." })),
        &*server,
    ))
}

/// DELETE `admin/mcp/servers/{}`.
pub(crate) async fn delete(call: Call) -> Result<Reply, WireError> {
    call.server.delete_mcp_server(call.org(), call.name(), &call.editor()?).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "MCP server removed." })))
}

/// GET `mcp/servers`: those that the caller may use.
pub(crate) async fn visible(call: Call) -> Result<Reply, WireError> {
    let paging = call.query().page()?;
    let servers = call.server.mcp_servers(call.org(), Some(call.principal()?)).await.map_err(refuse)?;
    let total = servers.len() as u64;
    let principal = call.principal()?;
    let items: Vec<_> = paging.slice(servers).map(|server| seen_by(principal, &server)).collect();
    let mut body = paging.render("mcp_servers", items, total);
    body["servers"] = body["data"].clone();
    Ok(reply::ok(&body))
}

/// GET `mcp/servers/{}`.
pub(crate) async fn visible_one(call: Call) -> Result<Reply, WireError> {
    let server =
        call.server.visible_mcp_server(call.org(), call.principal()?, call.name()).await.map_err(refuse)?;
    let issuer = call.server.issuer(call.org());
    let mut data = seen_by(call.principal()?, &server);
    data["discovery"] = json!({
        "authorization_server_metadata": format!("{issuer}/.well-known/oauth-authorization-server"),
        "protected_resource_metadata": call.server.resource_metadata_url(call.org(), &server),
        "www_authenticate_example": challenge_of(&call, &server, None).header_value(),
    });
    Ok(reply::ok(&json!({ "data": data })))
}

/// GET `.well-known/oauth-protected-resource/mcp/{}`.
pub(crate) async fn protected_resource(call: Call) -> Result<Reply, WireError> {
    let server = call.server.mcp_server(call.org(), call.name()).await.map_err(refuse)?;
    if !is_protected(&server) {
        return Err(WireError::not_found("There is no such protected resource."));
    }
    Ok(reply::metadata(&call.server.resource_metadata(call.org(), &server)))
}

/// GET `.well-known/oauth-protected-resource`: the one server's document, or a list of several.
pub(crate) async fn protected_resources(call: Call) -> Result<Reply, WireError> {
    let mut servers = call.server.mcp_servers(call.org(), None).await.map_err(refuse)?;
    servers.retain(|server| is_protected(server));
    match servers.as_slice() {
        [] => Err(WireError::not_found("There is no protected resource.")),
        [server] => Ok(reply::metadata(&call.server.resource_metadata(call.org(), server))),
        several => {
            let issuer = call.server.issuer(call.org());
            let resources: Vec<_> = several
                .iter()
                .map(|server| {
                    json!({
                        "resource": server.resource_uri.as_str(),
                        "resource_metadata_url": call.server.resource_metadata_url(call.org(), server),
                        "authorization_servers": [issuer],
                    })
                })
                .collect();
            Ok(reply::metadata(&json!({ "resources": resources })))
        }
    }
}

/// GET, POST `mcp/{}/challenge`: answers as the MCP server itself would, so that a client can be tried out.
pub(crate) async fn challenge(call: Call) -> Result<Reply, WireError> {
    let server = call.server.mcp_server(call.org(), call.name()).await.map_err(refuse)?;
    if !is_protected(&server) {
        return Err(WireError::not_found("There is no such protected resource."));
    }
    let Some(presented) = credential(&call.parts) else {
        let sent = call.parts.headers.contains_key(http::header::AUTHORIZATION);
        return Err(unauthorized(&call, &server, sent.then_some("invalid_token")));
    };
    let resource = server.resource_uri.as_str();
    let required = required_details(&call, resource)?;
    let door = if required.is_some() { Door::Details(resource) } else { Door::Resource(resource) };
    let principal = match call.server.authenticate(&call.organization, presented, door, &call.origin).await {
        Ok(principal) => principal,
        Err(AuthenticateError::Refused | AuthenticateError::OtherOrganization) => {
            return Err(unauthorized(&call, &server, Some("invalid_token")));
        }
        Err(proof @ (AuthenticateError::RefusedDpop | AuthenticateError::InvalidProof)) => {
            return Err(proof.to_wire());
        }
        Err(outage) => return Err(refuse(outage.into())),
    };
    let visit =
        call.server.visit_mcp_server(call.org(), &server, &principal, required.as_ref(), &call.origin);
    match visit.await.map_err(refuse)? {
        Visit::Authenticated => Ok(reply::ok(&json!({
            "status": "authenticated",
            "server": server.name,
            "server_id": server.server_id,
        }))),
        Visit::InsufficientDetails => Err(WireError::insufficient_details(required.as_ref())),
        Visit::InsufficientScope => {
            let text = "The token lacks a scope of this server.";
            let challenge = challenge_of(&call, &server, Some("insufficient_scope"));
            Err(WireError::new(StatusCode::FORBIDDEN, "insufficient_scope", text).with_challenge(challenge))
        }
    }
}

/// What the call is to need in detail, if it is to need anything: the query's `authorization_details`, at this server.
fn required_details(call: &Call, resource: &str) -> Result<Option<AuthorizationDetail>, WireError> {
    let query = call.query();
    let Some(text) = query.0.get("authorization_details") else { return Ok(None) };
    let invalid = || WireError::invalid_request("authorization_details must be one authorization detail.");
    let mut required: Value = json::parse(text.as_bytes()).map_err(|_| invalid())?;
    let Value::Object(members) = &mut required else { return Err(invalid()) };
    members.insert("locations".to_owned(), json!([resource]));
    AuthorizationDetail::new(required).map(Some).map_err(|_| invalid())
}

/// A member of the wrong type is as unprocessable here as one with a wrong value.
fn unprocessable(mut error: WireError) -> WireError {
    if error.error == "validation_error" {
        error.status = StatusCode::UNPROCESSABLE_ENTITY;
    }
    error
}

/// Whom else a server is for is nobody's business but the administrators'.
fn seen_by(principal: &Principal, server: &McpServer) -> Value {
    let mut view = view::mcp_server(server);
    if !principal.administers_agents()
        && let Value::Object(members) = &mut view
    {
        for member in ["allowed_client_ids", "allowed_agent_ids", "resource_client_id"] {
            members.remove(member);
        }
    }
    view
}

fn is_protected(server: &McpServer) -> bool {
    server.active && server.auth_mode == AuthMode::Oauth
}

fn unauthorized(call: &Call, server: &McpServer, sent: Option<&str>) -> WireError {
    WireError::invalid_token().with_challenge(challenge_of(call, server, sent))
}

/// RFC 9728 section 5.1: where the metadata is, and which scope would do.
fn challenge_of(call: &Call, server: &McpServer, error: Option<&str>) -> Challenge {
    let mut parameters = Vec::new();
    if let Some(error) = error {
        parameters.push(("error", error.to_owned()));
    }
    parameters.push(("resource_metadata", call.server.resource_metadata_url(call.org(), server)));
    if !server.scopes_supported.is_empty() {
        parameters.push(("scope", Scope::new(server.scopes_supported.iter().cloned()).to_string()));
    }
    Challenge::Bearer(parameters)
}
