//! The agent registry.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::StatusCode;
use lumoauth_core::{
    agent::{Agent, AgentKind, AgentPatch, AgentStatus, StatusChange},
    capability::Capability,
    id::Label,
    policy::Holder,
    server::{TestTokenRequest, UsageRequest},
    store::AgentFilter,
    wire::{WireError, view},
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{Call, refuse};
use crate::reply::{self, Reply};

/// GET `admin/agents`.
pub(crate) async fn list(call: Call) -> Result<Reply, WireError> {
    let query = call.query();
    let paging = query.page()?;
    let mut filter = AgentFilter::default();
    filter.search = query.get(&["search"]).map(ToOwned::to_owned);
    if let Some(name) = query.get(&["status"]) {
        let unknown = || WireError::invalid_request("status is not one of an agent.");
        filter.status = Some(AgentStatus::from_wire(name).ok_or_else(unknown)?);
    }
    if let Some(name) = query.get(&["type"]) {
        let kind = serde_json::from_value::<AgentKind>(name.into());
        filter.kind = Some(kind.map_err(|_| WireError::invalid_request("type is not one of an agent."))?);
    }
    let page = call.server.agents(call.org(), &filter, paging.store_page()).await.map_err(refuse)?;
    let holders: Vec<_> = page.items.iter().map(|agent| Holder::Agent(agent.id)).collect();
    let grants = call.server.grants_of_each(call.org(), &holders).await.map_err(refuse)?;
    let items = page.items.iter().zip(grants).map(|(agent, grants)| granted(agent, grants)).collect();
    Ok(reply::ok(&paging.render("agents", items, page.total)))
}

/// POST `admin/agents`.
pub(crate) async fn create(call: Call) -> Result<Reply, WireError> {
    let patch: AgentPatch = call.json()?;
    let new = call.server.create_agent(call.org(), &patch, &call.caller()?).await.map_err(refuse)?;
    let mut data = view::agent(&new.agent);
    if let Some(secret) = &new.secret {
        data["clientSecret"] = secret.expose().into();
        data["secret"] = secret.expose().into();
    }
    if let Some(key) = &new.api_key {
        data["apiKey"] = key.expose().into();
    }
    Ok(reply::tagged(
        reply::json(StatusCode::CREATED, &json!({ "data": data, "message": "Agent created." })),
        &*new.agent,
    ))
}

/// An agent with its roles, and the permissions that it has without one.
async fn with_grants(call: &Call, agent: &Agent) -> Result<Value, WireError> {
    let grants = call.server.grants_of(call.org(), &Holder::Agent(agent.id)).await;
    Ok(granted(agent, grants.map_err(refuse)?))
}

fn granted(agent: &Agent, (roles, permissions): (Vec<Label>, Vec<Capability>)) -> Value {
    let mut data = view::agent(agent);
    data["roles"] = json!(roles);
    data["permissions"] = json!(permissions);
    data
}

/// GET `admin/agents/{}`.
pub(crate) async fn read(call: Call) -> Result<Reply, WireError> {
    let agent = call.server.agent(call.org(), call.name()).await.map_err(refuse)?;
    Ok(reply::tagged(reply::ok(&json!({ "data": with_grants(&call, &agent).await? })), &*agent))
}

/// PUT, PATCH `admin/agents/{}`: both change what is there and keep what is not.
pub(crate) async fn update(call: Call) -> Result<Reply, WireError> {
    let patch: AgentPatch = call.json()?;
    let agent =
        call.server.update_agent(call.org(), call.name(), &patch, &call.editor()?).await.map_err(refuse)?;
    Ok(reply::tagged(
        reply::ok(&json!({ "data": with_grants(&call, &agent).await?, "message": "Agent updated." })),
        &*agent,
    ))
}

/// DELETE `admin/agents/{}`.
pub(crate) async fn delete(call: Call) -> Result<Reply, WireError> {
    call.server.delete_agent(call.org(), call.name(), &call.editor()?).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "Agent deleted." })))
}

/// POST `admin/agents/{}/activate`.
pub(crate) async fn activate(call: Call) -> Result<Reply, WireError> {
    let (agent, view) = change(&call, StatusChange::Activate).await?;
    Ok(reply::tagged(reply::ok(&json!({ "data": view, "message": "Agent activated." })), &*agent))
}

/// POST `admin/agents/{}/deactivate`.
pub(crate) async fn deactivate(call: Call) -> Result<Reply, WireError> {
    let (agent, view) = change(&call, StatusChange::Deactivate).await?;
    Ok(reply::tagged(reply::ok(&json!({ "data": view, "message": "Agent deactivated." })), &*agent))
}

/// POST `admin/agents/{}/enable`.
pub(crate) async fn enable(call: Call) -> Result<Reply, WireError> {
    let (agent, view) = change(&call, StatusChange::Activate).await?;
    Ok(reply::tagged(reply::ok(&json!({ "message": "Agent enabled.", "agent": view })), &*agent))
}

/// POST `admin/agents/{}/disable`.
pub(crate) async fn disable(call: Call) -> Result<Reply, WireError> {
    let (agent, view) = change(&call, StatusChange::Disable).await?;
    Ok(reply::tagged(reply::ok(&json!({ "message": "Agent disabled.", "agent": view })), &*agent))
}

/// POST `admin/agents/{}/revoke`.
pub(crate) async fn revoke(call: Call) -> Result<Reply, WireError> {
    let (agent, view) = change(&call, StatusChange::Revoke).await?;
    Ok(reply::tagged(reply::ok(&json!({ "data": view, "message": "Agent revoked." })), &*agent))
}

async fn change(call: &Call, change: StatusChange) -> Result<(Arc<Agent>, Value), WireError> {
    #[derive(Deserialize)]
    struct Body {
        reason: Option<String>,
    }
    let body: Body = call.json()?;
    let agent = call
        .server
        .change_agent_status(call.org(), call.name(), change, body.reason.as_deref(), &call.editor()?)
        .await
        .map_err(refuse)?;
    let view = with_grants(call, &agent).await?;
    Ok((agent, view))
}

/// POST `admin/agents/{}/rotate-credentials`.
pub(crate) async fn rotate_credentials(call: Call) -> Result<Reply, WireError> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(alias = "graceSeconds")]
        grace_seconds: Option<u32>,
    }
    const LONGEST_GRACE: u32 = 7 * 86_400;
    let body: Body = call.json()?;
    let grace = body.grace_seconds.unwrap_or(0);
    if grace > LONGEST_GRACE {
        return Err(WireError::invalid_request("grace_seconds is at most 604800."));
    }
    let grace = Duration::from_secs(grace.into());
    let (agent, secret) = call
        .server
        .rotate_agent_secret(call.org(), call.name(), grace, &call.editor()?)
        .await
        .map_err(refuse)?;
    Ok(reply::ok(&json!({
        "data": {
            "agentId": agent.id.to_string(),
            "clientId": agent.client_id,
            "clientSecret": secret.expose(),
            "secret": secret.expose(),
            "_note": "This secret is shown once.",
        },
        "message": "Credentials rotated.",
    })))
}

/// POST `admin/agents/{}/rotate-key`.
pub(crate) async fn rotate_key(call: Call) -> Result<Reply, WireError> {
    let (_, key) =
        call.server.rotate_agent_key(call.org(), call.name(), &call.editor()?).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "API key rotated.", "api_key": key.expose() })))
}

/// POST `admin/agents/{}/revoke-key`.
pub(crate) async fn revoke_key(call: Call) -> Result<Reply, WireError> {
    call.server.revoke_agent_key(call.org(), call.name(), &call.editor()?).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "API key revoked." })))
}

/// GET `admin/agents/{}/scopes`.
pub(crate) async fn scopes(call: Call) -> Result<Reply, WireError> {
    let agent = call.server.agent(call.org(), call.name()).await.map_err(refuse)?;
    let total = agent.capabilities.len() as u64;
    let limit = u32::try_from(total).unwrap_or(u32::MAX).max(1);
    Ok(reply::tagged(
        reply::ok(&json!({
            "data": agent.capabilities,
            "pagination": view::pagination(total, 1, limit),
        })),
        &*agent,
    ))
}

/// PUT `admin/agents/{}/scopes`.
pub(crate) async fn set_scopes(call: Call) -> Result<Reply, WireError> {
    #[derive(Deserialize)]
    struct Body {
        scopes: Vec<String>,
    }
    let body: Body = call.json()?;
    let agent = call
        .server
        .set_agent_capabilities(call.org(), call.name(), &body.scopes, &call.editor()?)
        .await
        .map_err(refuse)?;
    Ok(reply::tagged(
        reply::ok(&json!({ "data": agent.capabilities, "message": "Scopes replaced." })),
        &*agent,
    ))
}

/// POST `admin/agents/{}/token`.
pub(crate) async fn test_token(call: Call) -> Result<Reply, WireError> {
    let request: TestTokenRequest = call.json()?;
    let token = call
        .server
        .test_token(&call.organization, call.name(), &request, &call.caller()?)
        .await
        .map_err(refuse)?;
    Ok(reply::ok(&json!({
        "data": {
            "accessToken": token.access_token.expose(),
            "tokenType": token.token_type,
            "expiresIn": token.expires_in,
            "scopes": token.scope.as_slice(),
        },
    })))
}

/// GET `admin/agents/{}/budget`.
pub(crate) async fn budget(call: Call) -> Result<Reply, WireError> {
    let agent = call.server.agent(call.org(), call.name()).await.map_err(refuse)?;
    budget_reply(&call, &agent, None).await
}

/// PUT `admin/agents/{}/budget`: the policy itself, or `{"budgetPolicy": {..}}`.
pub(crate) async fn set_budget(call: Call) -> Result<Reply, WireError> {
    let members: BTreeMap<String, Box<RawValue>> = call.json()?;
    // No limits at all is a policy that must be written out: `{}` and not nothing.
    let nothing = call.body.trim_ascii().is_empty() || members.contains_key("data");
    let wrapped = members.get("budgetPolicy").or_else(|| members.get("budget_policy")).cloned();
    let policy = match wrapped {
        Some(policy) if policy.get() != "null" => policy,
        None if !nothing => call.json()?,
        Some(_) | None => {
            let text = "The body must be a budget policy, or hold one as budgetPolicy.";
            return Err(WireError::invalid_request(text));
        }
    };
    let agent = call
        .server
        .set_agent_budget(call.org(), call.name(), &policy, &call.editor()?)
        .await
        .map_err(refuse)?;
    budget_reply(&call, &agent, Some("Budget replaced.")).await
}

/// POST `admin/agents/{}/budget/reset`.
pub(crate) async fn reset_budget(call: Call) -> Result<Reply, WireError> {
    let agent =
        call.server.reset_agent_budget(call.org(), call.name(), &call.editor()?).await.map_err(refuse)?;
    budget_reply(&call, &agent, Some("Budget reset.")).await
}

async fn budget_reply(call: &Call, agent: &Agent, message: Option<&str>) -> Result<Reply, WireError> {
    let usage = call.server.usage(call.org(), agent).await.map_err(refuse)?;
    let policy = view::budget(&agent.budget, &usage);
    let mut body = json!({
        "data": {
            "agentId": agent.id.to_string(),
            "budgetPolicy": policy,
            "budget_policy": policy,
            "remaining": view::remaining(&agent.budget, &usage),
        },
    });
    if let Some(message) = message {
        body["message"] = message.into();
    }
    Ok(reply::tagged(reply::ok(&body), agent))
}

/// GET `admin/agents/{}/usage`.
pub(crate) async fn usage(call: Call) -> Result<Reply, WireError> {
    let agent = call.server.agent(call.org(), call.name()).await.map_err(refuse)?;
    let report = call.server.usage_report(call.org(), &agent).await.map_err(refuse)?;
    Ok(reply::usage(&report, call.server.now()))
}

/// POST `admin/agents/{}/usage`.
pub(crate) async fn report_usage(call: Call) -> Result<Reply, WireError> {
    let request: UsageRequest = call.json()?;
    let agent = call.server.agent(call.org(), call.name()).await.map_err(refuse)?;
    let report = call
        .server
        .report_usage(call.org(), &agent, call.principal()?, &request, &call.caller()?)
        .await
        .map_err(refuse)?;
    Ok(reply::usage(&report, call.server.now()))
}
