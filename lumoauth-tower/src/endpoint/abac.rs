//! Attributes and the policies that look at them.

use http::StatusCode;
use lumoauth_core::{
    policy::{AttributeKind, AttributeOwner},
    server::{AttributeCheckRequest, AttributeRequest, BulkAttributeCheckRequest, PolicyRequest},
    wire::{WireError, view},
};
use serde_json::{Value, json};

use super::{Call, refuse};
use crate::reply::{self, Reply};

/// POST `abac/check`.
pub(crate) async fn check(call: Call) -> Result<Reply, WireError> {
    let request: AttributeCheckRequest = call.json()?;
    let principal = call.principal()?;
    let checked = call
        .server
        .attribute_check(&call.organization, principal, &request, call.facts(), &call.caller()?)
        .await
        .map_err(refuse)?;
    let (asked, verdict) = match checked.results.first() {
        Some(Ok(result)) => result,
        Some(Err(problem)) => return Err(WireError::invalid_request(format!("{problem}."))),
        None => return Err(WireError::invalid_request("There is no check.")),
    };
    let body = json!({
        "allowed": verdict.allowed,
        "decision": if verdict.allowed { "allow" } else { "deny" },
        "reason": verdict.to_string(),
        "matchedPolicies": checked.policies(&verdict.matched),
        "user_id": checked.subject,
        "resourceType": asked.resource_type,
        "action": asked.action,
        "resourceId": asked.resource_id,
    });
    Ok(reply::budgeted(&body, &checked.remaining))
}

/// POST `abac/check-bulk`.
pub(crate) async fn check_bulk(call: Call) -> Result<Reply, WireError> {
    let request: BulkAttributeCheckRequest = call.json()?;
    let principal = call.principal()?;
    let checked = call
        .server
        .bulk_attribute_check(&call.organization, principal, &request, call.facts(), &call.caller()?)
        .await
        .map_err(refuse)?;
    let result = |(index, result): (usize, &Result<_, String>)| match result {
        Ok((asked, verdict)) => {
            let asked: &lumoauth_core::server::AttributeCheck = asked;
            let verdict: &lumoauth_core::policy::AttributeVerdict = verdict;
            json!({
                "index": index,
                "resourceType": asked.resource_type,
                "action": asked.action,
                "resourceId": asked.resource_id,
                "allowed": verdict.allowed,
                "reason": verdict.to_string(),
            })
        }
        Err(problem) => json!({ "index": index, "allowed": false, "error": problem }),
    };
    let results: Vec<_> = checked.results.iter().enumerate().map(result).collect();
    let body = json!({ "results": results, "user_id": checked.subject });
    Ok(reply::budgeted(&body, &checked.remaining))
}

/// GET `abac/my-attributes`.
pub(crate) async fn own(call: Call) -> Result<Reply, WireError> {
    let (id, attributes) = call.server.own_attributes(call.principal()?).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "user_id": id, "attributes": attributes })))
}

/// GET `abac/attribute-definitions`.
pub(crate) async fn definitions(call: Call) -> Result<Reply, WireError> {
    let kind = kind(&call)?;
    let all = call.server.readable_attributes(call.principal()?, kind).await.map_err(refuse)?;
    let count = all.len() as u64;
    let items: Vec<_> = all.iter().map(|it| it.view()).collect();
    let limit = u32::try_from(count).unwrap_or(u32::MAX).max(1);
    Ok(reply::ok(&json!({ "data": items, "pagination": view::pagination(count, 1, limit) })))
}

fn kind(call: &Call) -> Result<Option<AttributeKind>, WireError> {
    let query = call.query();
    let Some(name) = query.get(&["type", "attributeType"]) else { return Ok(None) };
    let unknown = || WireError::invalid_request("type must be user, agent, resource or environment.");
    AttributeKind::named(name).map(Some).ok_or_else(unknown)
}

/// GET `abac/resources/{}/{}/attributes`.
pub(crate) async fn of_resource(call: Call) -> Result<Reply, WireError> {
    let (kind, id) = (call.name(), call.second());
    let attributes = call.server.resource_attributes(call.principal()?, kind, id).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "resourceType": kind, "resourceId": id, "attributes": attributes })))
}

/// PUT `abac/resources/{}/{}/attributes/{}`.
pub(crate) async fn set_of_resource(call: Call) -> Result<Reply, WireError> {
    let (kind, id) = (call.name(), call.second());
    let owner = AttributeOwner::resource(kind, id)
        .ok_or_else(|| WireError::invalid_request("The type or the id of the resource is malformed."))?;
    let about = json!({ "resourceType": kind, "resourceId": id });
    set(&call, owner, call.third(), about).await
}

/// PUT `abac/users/{}/attributes/{}`.
pub(crate) async fn set_of_user(call: Call) -> Result<Reply, WireError> {
    // Whether there is such a person is told only to those who may do this.
    call.server
        .check_sets_attributes(call.principal()?, call.facts(), &call.caller()?)
        .await
        .map_err(refuse)?;
    let user = call.server.user(call.org(), call.name()).await.map_err(refuse)?;
    let about = json!({ "userId": user.id.to_string() });
    set(&call, AttributeOwner::User(user.id), call.second(), about).await
}

/// PUT `abac/agents/{}/attributes/{}`.
pub(crate) async fn set_of_agent(call: Call) -> Result<Reply, WireError> {
    call.server
        .check_sets_attributes(call.principal()?, call.facts(), &call.caller()?)
        .await
        .map_err(refuse)?;
    let agent = call.server.agent(call.org(), call.name()).await.map_err(refuse)?;
    let about = json!({ "agentId": agent.id.to_string() });
    set(&call, AttributeOwner::Agent(agent.id), call.second(), about).await
}

async fn set(call: &Call, owner: AttributeOwner, slug: &str, about: Value) -> Result<Reply, WireError> {
    let body: Value = call.json()?;
    let value = body.get("value");
    let value = value.ok_or_else(|| WireError::invalid_request("value is required; null takes it away."))?;
    let mut data = about;
    data["owner"] = owner.to_string().into();
    data["slug"] = slug.into();
    data["attributeSlug"] = slug.into();
    data["value"] = value.clone();
    let principal = call.principal()?;
    call.server
        .set_attribute(principal, owner, slug, value, call.facts(), &call.caller()?)
        .await
        .map_err(refuse)?;
    let message = if value.is_null() { "Attribute taken away." } else { "Attribute set." };
    Ok(reply::ok(&json!({ "message": message, "data": data })))
}

/// GET `abac/policies`.
pub(crate) async fn policies(call: Call) -> Result<Reply, WireError> {
    let query = call.query();
    let paging = query.page()?;
    let search = query.get(&["search"]).unwrap_or_default().to_lowercase();
    let mut all = call.server.policies(call.org()).await.map_err(refuse)?;
    all.retain(|policy| policy.name.to_lowercase().contains(&search));
    let total = all.len() as u64;
    let items = paging.slice(all).map(|policy| policy.view()).collect();
    Ok(reply::ok(&paging.render("abac_policies", items, total)))
}

/// POST `abac/policies`.
pub(crate) async fn create_policy(call: Call) -> Result<Reply, WireError> {
    let request: PolicyRequest = call.json()?;
    let made = call.server.create_policy(call.org(), &request, &call.caller()?).await.map_err(refuse)?;
    Ok(reply::tagged(
        reply::json(StatusCode::CREATED, &json!({ "data": made.view(), "message": "Policy made." })),
        &*made,
    ))
}

/// GET `abac/policies/{}`.
pub(crate) async fn policy(call: Call) -> Result<Reply, WireError> {
    let policy = call.server.policy(call.org(), call.name()).await.map_err(refuse)?;
    Ok(reply::tagged(reply::ok(&json!({ "data": policy.view() })), &*policy))
}

/// PUT, PATCH `abac/policies/{}`.
pub(crate) async fn update_policy(call: Call) -> Result<Reply, WireError> {
    let request: PolicyRequest = call.json()?;
    let caller = call.editor()?;
    let policy =
        call.server.update_policy(call.org(), call.name(), &request, &caller).await.map_err(refuse)?;
    Ok(reply::tagged(reply::ok(&json!({ "data": policy.view(), "message": "Policy changed." })), &*policy))
}

/// POST `abac/policies/{}/toggle`.
pub(crate) async fn toggle_policy(call: Call) -> Result<Reply, WireError> {
    let policy = call.server.toggle_policy(call.org(), call.name(), &call.editor()?).await.map_err(refuse)?;
    Ok(reply::tagged(reply::ok(&json!({ "data": policy.view(), "message": "Policy switched." })), &*policy))
}

/// DELETE `abac/policies/{}`.
pub(crate) async fn delete_policy(call: Call) -> Result<Reply, WireError> {
    call.server.delete_policy(call.org(), call.name(), &call.editor()?).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "Policy removed." })))
}

/// GET `abac/attributes`.
pub(crate) async fn attributes(call: Call) -> Result<Reply, WireError> {
    let query = call.query();
    let paging = query.page()?;
    let search = query.get(&["search"]).unwrap_or_default().to_lowercase();
    let mut all = call.server.attributes(call.org(), kind(&call)?).await.map_err(refuse)?;
    all.retain(|it| {
        it.name.to_lowercase().contains(&search) || it.slug.as_str().to_lowercase().contains(&search)
    });
    let total = all.len() as u64;
    let items = paging.slice(all).map(|it| it.view()).collect();
    Ok(reply::ok(&paging.render("abac_attributes", items, total)))
}

/// POST `abac/attributes`.
pub(crate) async fn create_attribute(call: Call) -> Result<Reply, WireError> {
    let request: AttributeRequest = call.json()?;
    let made = call.server.create_attribute(call.org(), &request, &call.caller()?).await.map_err(refuse)?;
    Ok(reply::tagged(
        reply::json(StatusCode::CREATED, &json!({ "data": made.view(), "message": "Attribute defined." })),
        &made,
    ))
}

/// GET `abac/attributes/{}`.
pub(crate) async fn attribute(call: Call) -> Result<Reply, WireError> {
    let attribute = call.server.attribute(call.org(), call.name()).await.map_err(refuse)?;
    Ok(reply::tagged(reply::ok(&json!({ "data": attribute.view() })), &attribute))
}

/// PUT, PATCH `abac/attributes/{}`.
pub(crate) async fn update_attribute(call: Call) -> Result<Reply, WireError> {
    let request: AttributeRequest = call.json()?;
    let caller = call.editor()?;
    let changed =
        call.server.update_attribute(call.org(), call.name(), &request, &caller).await.map_err(refuse)?;
    Ok(reply::tagged(
        reply::ok(&json!({ "data": changed.view(), "message": "Attribute changed." })),
        &changed,
    ))
}

/// DELETE `abac/attributes/{}`.
pub(crate) async fn delete_attribute(call: Call) -> Result<Reply, WireError> {
    let deleted = call.server.delete_attribute(call.org(), call.name(), &call.editor()?).await;
    deleted.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "Attribute removed." })))
}
