//! Tasks, and what agents ask for in them just in time.

use http::StatusCode;
use lumoauth_core::{
    jit::{JitRequest, RiskTable},
    server::{EndedTask, JitApproval, JitDenial, JitPermissionRequest, TaskEvaluation, TaskRequest},
    wire::{WireError, view},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, refuse};
use crate::reply::{self, Reply};

/// POST `jit/task`.
pub(crate) async fn open(call: Call) -> Result<Reply, WireError> {
    let (principal, agent) = (call.principal()?, call.agent()?);
    let request: TaskRequest = call.json()?;
    let opened = call
        .server
        .open_task(&call.organization, principal, agent, &request, &call.caller()?)
        .await
        .map_err(refuse)?;
    let task = &opened.task;
    let body = json!({
        "task_id": task.id.as_str(),
        "name": task.name,
        "type": task.kind,
        "parent_task_id": task.ancestors.last().map(ToString::to_string),
        "status": task.status(task.created_at),
        "caep_session_id": &*task.caep_session,
        "expires_at": task.expires_at.to_string(),
        "agent_id": agent.id.to_string(),
        "agent": { "id": agent.id.to_string(), "name": &*agent.name },
        "on_behalf_of": task.on_behalf_of.map(|user| user.to_string()),
    });
    Ok(reply::with_rate_limit(reply::json(StatusCode::CREATED, &body), &opened.remaining))
}

/// POST `jit/task/{}/complete`.
pub(crate) async fn complete(call: Call) -> Result<Reply, WireError> {
    let mut evaluation = TaskEvaluation::default();
    evaluation.result = Some("completed".to_owned());
    let task = end(&call, &evaluation).await?.task;
    Ok(reply::ok(&json!({
        "task_id": task.id.as_str(),
        "status": task.status(call.server.now()),
        "completed_at": task.closed.as_ref().map(|closing| closing.at.to_string()),
    })))
}

/// POST `jit/task/{}/evaluate`.
pub(crate) async fn evaluate(call: Call) -> Result<Reply, WireError> {
    let evaluation: TaskEvaluation = call.json()?;
    let EndedTask { task, is_open } = end(&call, &evaluation).await?;
    let now = call.server.now();
    let status = match task.status(now) {
        // What it is part of is over, and so is it.
        "active" if !is_open => "closed",
        status => status,
    };
    let mut events =
        vec![json!({ "type": "task.created", "details": {}, "timestamp": task.created_at.to_string() })];
    events.extend(task.closed.as_ref().map(|closing| {
        json!({
            "type": format!("task.{}", closing.outcome.as_str()),
            "details": { "denials": task.denials },
            "timestamp": closing.at.to_string(),
        })
    }));
    let action = match status {
        "active" => "none",
        "suspended" => "suspended",
        _ => "closed",
    };
    Ok(reply::ok(&json!({
        "task_id": task.id.as_str(),
        "status": status,
        "result": task.closed.as_ref().map(|closing| closing.outcome.as_str()),
        "active": is_open,
        "risk_score": task.denials.saturating_mul(15),
        "events": events,
        "action": action,
        "evaluated_at": now.to_string(),
    })))
}

async fn end(call: &Call, evaluation: &TaskEvaluation) -> Result<EndedTask, WireError> {
    let (principal, caller) = (call.principal()?, call.caller()?);
    call.server.end_task(principal, call.name(), evaluation, call.facts(), &caller).await.map_err(refuse)
}

/// POST `jit/request`.
pub(crate) async fn request(call: Call) -> Result<Reply, WireError> {
    let (principal, agent) = (call.principal()?, call.agent()?);
    let request: JitPermissionRequest = call.json()?;
    let made = call
        .server
        .request_permission(&call.organization, principal, agent, &request, &call.caller()?)
        .await
        .map_err(refuse)?;
    let body = view::jit_status(&made.request, made.status, made.needs_consent, call.prefix());
    Ok(reply::with_rate_limit(reply::json(StatusCode::CREATED, &body), &made.remaining))
}

/// GET `jit/request/{}/status`.
pub(crate) async fn status(call: Call) -> Result<Reply, WireError> {
    let (principal, agent) = (call.principal()?, call.agent()?);
    let found = call.server.permission_status(principal, agent, call.name()).await.map_err(refuse)?;
    Ok(reply::ok(&view::jit_status(&found.request, found.status, found.needs_consent, call.prefix())))
}

/// POST `jit/request/{}/token`.
pub(crate) async fn token(call: Call) -> Result<Reply, WireError> {
    let (principal, agent) = (call.principal()?, call.agent()?);
    let issued = call
        .server
        .issue_jit_token(&call.organization, principal, agent, call.name(), &call.caller()?)
        .await
        .map_err(refuse)?;
    let body = json!({
        "access_token": issued.access_token.expose(),
        "token_type": issued.token_type,
        "expires_in": issued.expires_in,
        "scope": "",
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "authorization_details": [issued.request.detail.to_json()],
        "task_id": issued.request.task.as_str(),
        "jit_request_id": issued.request.id.as_str(),
    });
    Ok(reply::budgeted(&body, &issued.remaining))
}

/// GET `jit/pending`.
pub(crate) async fn pending(call: Call) -> Result<Reply, WireError> {
    let reviewer =
        call.server.reviewer(call.principal()?, call.facts(), &call.origin).await.map_err(refuse)?;
    let paging = call.query().page()?;
    let page = call.server.pending_permissions(&reviewer, paging.store_page()).await.map_err(refuse)?;
    let mut items = Vec::with_capacity(page.items.len());
    for request in &page.items {
        items.push(shown(&call, request).await?);
    }
    let mut body = paging.render("jit_requests", items, page.total);
    body["pending_requests"] = body["data"].clone();
    body["count"] = page.total.into();
    Ok(reply::ok(&body))
}

async fn shown(call: &Call, request: &JitRequest) -> Result<Value, WireError> {
    let name = call.server.agent_name(call.org(), request.agent).await.map_err(refuse)?;
    Ok(view::jit_request(request, name.as_deref(), call.server.now()))
}

/// POST `jit/approve/{}`.
pub(crate) async fn approve(call: Call) -> Result<Reply, WireError> {
    let reviewer =
        call.server.reviewer(call.principal()?, call.facts(), &call.origin).await.map_err(refuse)?;
    let approval: JitApproval = call.json()?;
    let caller = call.caller()?;
    let granted =
        call.server.approve_permission(&reviewer, call.name(), &approval, &caller).await.map_err(refuse)?;
    Ok(reply::ok(&json!({
        "request_id": granted.id.as_str(),
        "status": "approved",
        "granted_ttl": granted.ruling.as_ref().map(|ruling| ruling.ttl),
        "action_hash": granted.action_hash.as_str(),
    })))
}

/// POST `jit/deny/{}`.
pub(crate) async fn deny(call: Call) -> Result<Reply, WireError> {
    let reviewer =
        call.server.reviewer(call.principal()?, call.facts(), &call.origin).await.map_err(refuse)?;
    let denial: JitDenial = call.json()?;
    let caller = call.caller()?;
    let denied =
        call.server.deny_permission(&reviewer, call.name(), &denial, &caller).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "request_id": denied.id.as_str(), "status": "denied" })))
}

/// What an organization says of types.
#[derive(Deserialize)]
struct Risks {
    types: RiskTable,
}

/// GET `admin/jit/risk`.
pub(crate) async fn risk(call: Call) -> Result<Reply, WireError> {
    Ok(reply::tagged(
        reply::ok(&json!({ "data": { "types": call.organization.jit_risk } })),
        &*call.organization,
    ))
}

/// PUT `admin/jit/risk`.
pub(crate) async fn set_risk(call: Call) -> Result<Reply, WireError> {
    let Risks { types } = call.json()?;
    let organization =
        call.server.set_risk_table(call.org(), &types, &call.editor()?).await.map_err(refuse)?;
    Ok(reply::tagged(
        reply::ok(&json!({
            "data": { "types": organization.jit_risk },
            "message": "Risk of permissions updated.",
        })),
        &*organization,
    ))
}
