//! What agents ask people to allow.

use http::StatusCode;
use lumoauth_core::{
    server::{ApprovalDecisionRequest, ApprovalRequest},
    wire::{WireError, view},
};
use serde_json::json;

use super::{Call, refuse};
use crate::reply::{self, Reply};

/// POST `agents/me/approvals`.
pub(crate) async fn request(call: Call) -> Result<Reply, WireError> {
    let (principal, agent) = (call.principal()?, call.agent()?);
    let request: ApprovalRequest = call.json()?;
    let opened =
        call.server.request_approval(principal, agent, &request, &call.caller()).await.map_err(refuse)?;
    let approval = &opened.approval;
    let body = json!({
        "approval_token": approval.token.as_str(),
        "status": approval.status(approval.created_at).as_str(),
        "expires_at": approval.expires_at.to_string(),
        "task_id": approval.task_id,
        "impact": approval.impact.as_str(),
    });
    Ok(reply::with_rate_limit(reply::json(StatusCode::CREATED, &body), &opened.remaining))
}

/// GET `agents/me/approvals/{}/status`.
pub(crate) async fn status(call: Call) -> Result<Reply, WireError> {
    let (principal, agent) = (call.principal()?, call.agent()?);
    let approval = call.server.approval_status(principal, agent, call.name()).await.map_err(refuse)?;
    Ok(reply::ok(&view::approval_status(&approval, call.server.now())))
}

/// GET `approvals/pending`.
pub(crate) async fn pending(call: Call) -> Result<Reply, WireError> {
    let principal = call.principal()?;
    let paging = call.query().page()?;
    let page = call.server.pending_approvals(principal, paging.store_page()).await.map_err(refuse)?;
    let now = call.server.now();
    let mut items = Vec::with_capacity(page.items.len());
    for approval in &page.items {
        let name = call.server.asking_agent(call.org(), approval).await.map_err(refuse)?;
        items.push(view::approval(approval, name.as_deref(), now));
    }
    Ok(reply::ok(&paging.render("approvals", items, page.total)))
}

/// POST `approvals/{}/approve`.
pub(crate) async fn approve(call: Call) -> Result<Reply, WireError> {
    decide(&call, true).await
}

/// POST `approvals/{}/deny`.
pub(crate) async fn deny(call: Call) -> Result<Reply, WireError> {
    decide(&call, false).await
}

async fn decide(call: &Call, approved: bool) -> Result<Reply, WireError> {
    let principal = call.principal()?;
    let request: ApprovalDecisionRequest = call.json()?;
    let caller = call.caller();
    let approval = call
        .server
        .decide_approval(principal, call.name(), approved, &request, &caller)
        .await
        .map_err(refuse)?;
    // It is decided now: nothing that fails from here on may look as if it were not.
    let name = call.server.asking_agent(call.org(), &approval).await.unwrap_or_default();
    Ok(reply::ok(&view::approval(&approval, name.as_deref(), call.server.now())))
}
