//! What agents ask people to allow.

use http::StatusCode;
use lumoauth_core::{
    jit::ActionHash,
    server::{ApiError, ApprovalDecisionRequest, ApprovalRequest},
    wire::{WireError, view},
};
use serde_json::json;

use super::{Call, refuse};
use crate::reply::{self, Reply};

/// POST `agents/me/approvals`.
pub(crate) async fn request(call: Call) -> Result<Reply, WireError> {
    let (principal, agent) = (call.principal()?, call.agent()?);
    let request: ApprovalRequest = call.json()?;
    let opened = match call.server.request_approval(principal, agent, &request, &call.caller()?).await {
        Ok(opened) => opened,
        Err(ApiError::ToldByMail { task_id, impact }) => {
            // The same for somebody without a channel and for nobody at all.
            let body = json!({
                "status": "email_fallback_sent",
                "message": "The request was not delivered. Whoever is asked is told by mail, if there is anybody.",
                "task_id": task_id,
                "impact": impact,
            });
            return Ok(reply::json(StatusCode::ACCEPTED, &body));
        }
        Err(error) => return Err(refuse(error)),
    };
    let approval = &opened.approval;
    let body = json!({
        "approval_token": approval.token.as_str(),
        "status": approval.status(approval.created_at).as_str(),
        "expires_at": approval.expires_at.to_string(),
        "task_id": approval.task_id,
        "impact": approval.impact.as_str(),
        "action_hash": ActionHash::of(&approval.action()).as_str(),
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
    let reviewer =
        call.server.reviewer(call.principal()?, call.facts(), &call.origin).await.map_err(refuse)?;
    let paging = call.query().page()?;
    let page = call.server.pending_approvals(&reviewer, paging.store_page()).await.map_err(refuse)?;
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
    let reviewer =
        call.server.reviewer(call.principal()?, call.facts(), &call.origin).await.map_err(refuse)?;
    let request: ApprovalDecisionRequest = call.json()?;
    let caller = call.caller()?;
    let approval = call
        .server
        .decide_approval(&reviewer, call.name(), approved, &request, &caller)
        .await
        .map_err(refuse)?;
    // It is decided now: nothing that fails from here on may look as if it were not.
    let name = call.server.asking_agent(call.org(), &approval).await.unwrap_or_default();
    Ok(reply::ok(&view::approval(&approval, name.as_deref(), call.server.now())))
}
