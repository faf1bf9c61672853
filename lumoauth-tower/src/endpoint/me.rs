//! What agents and people ask about themselves.

use http::StatusCode;
use lumoauth_core::{
    server::{AskRequest, McpToolRequest, RegistrationRequest, UsageRequest},
    wire::WireError,
};
use serde_json::json;

use super::{Call, refuse};
use crate::reply::{self, Reply};

/// GET, POST `oauth/userinfo`.
pub(crate) async fn userinfo(call: Call) -> Result<Reply, WireError> {
    let body = call.server.userinfo(&call.organization, call.principal()?).await.map_err(refuse)?;
    Ok(reply::ok(&body))
}

/// GET `agents/me`.
pub(crate) async fn identity(call: Call) -> Result<Reply, WireError> {
    let body =
        call.server.identity(&call.organization, call.principal()?, call.prefix()).await.map_err(refuse)?;
    Ok(reply::ok(&body))
}

/// POST `agents/ask`.
pub(crate) async fn ask(call: Call) -> Result<Reply, WireError> {
    let principal = call.principal()?;
    let request: AskRequest = call.json()?;
    let facts = call.facts();
    let answer = call
        .server
        .ask(&call.organization, principal, &request, facts, &call.caller()?)
        .await
        .map_err(refuse)?;
    Ok(reply::budgeted(&answer, &answer.remaining))
}

/// POST `agents/me/mcp/authorize`.
pub(crate) async fn authorize_mcp(call: Call) -> Result<Reply, WireError> {
    let agent = call.agent()?;
    let request: McpToolRequest = call.json()?;
    let answer = call
        .server
        .ask_for_mcp_tool(&call.organization, call.principal()?, &request, call.facts(), &call.caller()?)
        .await
        .map_err(refuse)?;
    let mut body = json!({
        "allowed": answer.allowed,
        "agent_id": agent.id.to_string(),
        "resource": answer.context,
        "action": answer.action,
        "reason": answer.reason,
        "decided_by": answer.decided_by,
        "path": answer.path,
        "audit_id": answer.audit_id,
    });
    if answer.allowed {
        return Ok(reply::budgeted(&body, &answer.remaining));
    }
    body["error"] = "capability_denied".into();
    body["message"] = body["reason"].clone();
    body["status"] = StatusCode::FORBIDDEN.as_u16().into();
    Ok(reply::with_rate_limit(reply::json(StatusCode::FORBIDDEN, &body), &answer.remaining))
}

/// GET `agents/me/usage`.
pub(crate) async fn usage(call: Call) -> Result<Reply, WireError> {
    let report = call.server.usage_report(call.org(), call.agent()?).await.map_err(refuse)?;
    Ok(reply::usage(&report, call.server.now()))
}

/// POST `agents/me/usage`.
pub(crate) async fn report_usage(call: Call) -> Result<Reply, WireError> {
    let agent = call.agent()?;
    let request: UsageRequest = call.json()?;
    let report = call
        .server
        .report_usage(call.org(), agent, call.principal()?, &request, &call.caller()?)
        .await
        .map_err(refuse)?;
    Ok(reply::usage(&report, call.server.now()))
}

/// POST `agents/register`.
pub(crate) async fn register(call: Call) -> Result<Reply, WireError> {
    let principal = call.principal()?;
    let request: RegistrationRequest = call.json()?;
    let registration = call
        .server
        .register_agent(&call.organization, principal, request, &call.caller()?)
        .await
        .map_err(refuse)?;
    let agent = &registration.agent;
    let mut body = json!({
        "success": true,
        "agent_id": agent.id.to_string(),
        "client_id": agent.client_id,
        "name": agent.name,
        "workload_identity": agent.workload.as_ref().map(ToString::to_string),
        "capabilities": agent.capabilities,
        "requested_capabilities": agent.requested_capabilities,
    });
    let status = match registration.secret {
        Some(secret) => {
            body["client_secret"] = secret.expose().into();
            StatusCode::CREATED
        }
        None => StatusCode::OK,
    };
    Ok(reply::json(status, &body))
}
