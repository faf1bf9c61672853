//! The registry of AAuth, for administrators.

use http::StatusCode;
use lumoauth_core::{
    server::{AAuthAgentPatch, AAuthResourcePatch},
    wire::{WireError, view},
};
use serde_json::json;

use super::Call;
use crate::{
    endpoint::refuse,
    reply::{self, Reply},
};

/// GET `admin/aauth/agents`.
pub(crate) async fn agents(call: Call) -> Result<Reply, WireError> {
    let paging = call.query().page()?;
    let page = call.server.aauth_agents(call.org(), paging.store_page()).await.map_err(refuse)?;
    let items = page.items.iter().map(|agent| view::aauth_agent(agent)).collect();
    Ok(reply::ok(&paging.render("agents", items, page.total)))
}

/// POST `admin/aauth/agents`.
pub(crate) async fn create_agent(call: Call) -> Result<Reply, WireError> {
    let patch: AAuthAgentPatch = call.json()?;
    let agent = call.server.create_aauth_agent(call.org(), &patch, &call.caller()?).await.map_err(refuse)?;
    let body = json!({ "data": view::aauth_agent(&agent), "message": "AAuth agent registered." });
    Ok(reply::tagged(reply::json(StatusCode::CREATED, &body), &*agent))
}

/// GET `admin/aauth/agents/{}`.
pub(crate) async fn agent(call: Call) -> Result<Reply, WireError> {
    let agent = call.server.aauth_agent(call.org(), call.name()).await.map_err(refuse)?;
    Ok(reply::tagged(reply::ok(&json!({ "data": view::aauth_agent(&agent) })), &*agent))
}

/// PUT, PATCH `admin/aauth/agents/{}`.
pub(crate) async fn update_agent(call: Call) -> Result<Reply, WireError> {
    let patch: AAuthAgentPatch = call.json()?;
    let agent = call.server.update_aauth_agent(call.org(), call.name(), &patch, &call.editor()?).await;
    let agent = agent.map_err(refuse)?;
    let body = json!({ "data": view::aauth_agent(&agent), "message": "AAuth agent updated." });
    Ok(reply::tagged(reply::ok(&body), &*agent))
}

/// DELETE `admin/aauth/agents/{}`.
pub(crate) async fn delete_agent(call: Call) -> Result<Reply, WireError> {
    call.server.delete_aauth_agent(call.org(), call.name(), &call.editor()?).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "AAuth agent removed." })))
}

/// GET `admin/aauth/resources`.
pub(crate) async fn resources(call: Call) -> Result<Reply, WireError> {
    let paging = call.query().page()?;
    let page = call.server.aauth_resources(call.org(), paging.store_page()).await.map_err(refuse)?;
    let items = page.items.iter().map(|resource| view::aauth_resource(resource)).collect();
    Ok(reply::ok(&paging.render("resources", items, page.total)))
}

/// POST `admin/aauth/resources`.
pub(crate) async fn create_resource(call: Call) -> Result<Reply, WireError> {
    let patch: AAuthResourcePatch = call.json()?;
    let resource = call.server.create_aauth_resource(call.org(), &patch, &call.caller()?).await;
    let resource = resource.map_err(refuse)?;
    let body = json!({ "data": view::aauth_resource(&resource), "message": "AAuth resource registered." });
    Ok(reply::tagged(reply::json(StatusCode::CREATED, &body), &*resource))
}

/// GET `admin/aauth/resources/{}`.
pub(crate) async fn resource(call: Call) -> Result<Reply, WireError> {
    let resource = call.server.aauth_resource(call.org(), call.name()).await.map_err(refuse)?;
    Ok(reply::tagged(reply::ok(&json!({ "data": view::aauth_resource(&resource) })), &*resource))
}

/// PUT, PATCH `admin/aauth/resources/{}`.
pub(crate) async fn update_resource(call: Call) -> Result<Reply, WireError> {
    let patch: AAuthResourcePatch = call.json()?;
    let resource = call.server.update_aauth_resource(call.org(), call.name(), &patch, &call.editor()?).await;
    let resource = resource.map_err(refuse)?;
    let body = json!({ "data": view::aauth_resource(&resource), "message": "AAuth resource updated." });
    Ok(reply::tagged(reply::ok(&body), &*resource))
}

/// DELETE `admin/aauth/resources/{}`.
pub(crate) async fn delete_resource(call: Call) -> Result<Reply, WireError> {
    call.server.delete_aauth_resource(call.org(), call.name(), &call.editor()?).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "AAuth resource removed." })))
}
