//! Permission checks.

use lumoauth_core::{
    server::{ApiError, AuthZenBatch, AuthZenEvaluation, CheckRequest, Checked, Subject},
    wire::{WireError, view},
};
use serde_json::{Map, Value, json};

use super::{Call, refuse};
use crate::reply::{self, Reply};

/// POST `authz/check`.
pub(crate) async fn check(call: Call) -> Result<Reply, WireError> {
    let request: CheckRequest = call.json()?;
    let checked = decide(&call, &request, request.single()).await?;
    let (permission, allowed) = checked.results.first().cloned().unwrap_or_default();
    let mut body = json!({
        "allowed": allowed,
        "permission": permission,
        "subject_type": checked.subject.kind(),
        "subject_id": checked.subject.id(),
        "context": request.context.unwrap_or_default(),
    });
    if let Some(verdict) = checked.verdicts.first() {
        body["reason"] = verdict.reason.as_str().into();
        body["decided_by"] = verdict.decided_by.as_str().into();
        body["path"] = verdict.path_view();
    }
    if let Subject::User(user) = &checked.subject {
        body["user_id"] = user.id.to_string().into();
    }
    Ok(reply::budgeted(&body, &checked.remaining))
}

/// POST `authz/check-bulk`.
pub(crate) async fn check_bulk(call: Call) -> Result<Reply, WireError> {
    let request: CheckRequest = call.json()?;
    let checked = decide(&call, &request, request.several()).await?;
    let results: Map<String, Value> =
        checked.results.iter().map(|(name, allowed)| (name.clone(), (*allowed).into())).collect();
    let body = json!({
        "results": results,
        "subject_type": checked.subject.kind(),
        "subject_id": checked.subject.id(),
    });
    Ok(reply::budgeted(&body, &checked.remaining))
}

/// POST `authz/check-any`.
pub(crate) async fn check_any(call: Call) -> Result<Reply, WireError> {
    combined(call, |results| results.iter().any(|(_, allowed)| *allowed)).await
}

/// POST `authz/check-all`.
pub(crate) async fn check_all(call: Call) -> Result<Reply, WireError> {
    combined(call, |results| results.iter().all(|(_, allowed)| *allowed)).await
}

/// GET `authz/permissions`.
pub(crate) async fn permissions(call: Call) -> Result<Reply, WireError> {
    let principal = call.principal()?;
    let permissions =
        call.server.permissions(principal, call.facts(), &call.caller()?).await.map_err(refuse)?;
    let count = permissions.len() as u64;
    Ok(reply::ok(&json!({
        "user_id": principal.actor().id,
        "permissions": permissions,
        "count": count,
        "data": permissions,
        "pagination": view::pagination(count, 1, u32::try_from(count).unwrap_or(u32::MAX).max(1)),
    })))
}

/// POST `authz/v1/evaluation`.
pub(crate) async fn evaluation(call: Call) -> Result<Reply, WireError> {
    let request: AuthZenEvaluation = call.json()?;
    let (body, remaining) = call
        .server
        .evaluate(&call.organization, call.principal()?, &request, call.facts(), &call.caller()?)
        .await
        .map_err(refuse)?;
    Ok(reply::budgeted(&body, &remaining))
}

/// POST `authz/v1/evaluations`.
pub(crate) async fn evaluations(call: Call) -> Result<Reply, WireError> {
    let request: AuthZenBatch = call.json()?;
    let (body, remaining) = call
        .server
        .evaluate_all(&call.organization, call.principal()?, &request, call.facts(), &call.caller()?)
        .await
        .map_err(refuse)?;
    Ok(reply::budgeted(&body, &remaining))
}

async fn combined(call: Call, verdict: fn(&[(String, bool)]) -> bool) -> Result<Reply, WireError> {
    let request: CheckRequest = call.json()?;
    let checked = decide(&call, &request, request.several()).await?;
    let names: Vec<_> = checked.results.iter().map(|(name, _)| name).collect();
    let body = json!({ "allowed": verdict(&checked.results), "permissions": names });
    Ok(reply::budgeted(&body, &checked.remaining))
}

async fn decide(
    call: &Call,
    request: &CheckRequest,
    permissions: Result<Vec<String>, ApiError>,
) -> Result<Checked, WireError> {
    let permissions = permissions.map_err(refuse)?;
    let principal = call.principal()?;
    call.server
        .check(&call.organization, principal, &permissions, request, call.facts(), &call.caller()?)
        .await
        .map_err(refuse)
}
