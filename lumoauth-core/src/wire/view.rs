//! The JSON that records become. No view has a member for a secret.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{
    aauth_resource::AAuthResource,
    agent::{AAuthIdentity, Agent},
    api_key::ApiKey,
    approval::{Approval, ApprovalStatus},
    audit::{ActorKind, Event},
    budget::{BudgetPolicy, MicroUsd, Usage},
    client::Client,
    clock::Timestamp,
    jit::{ActionHash, JitRequest, RequestStatus},
    mcp::McpServer,
    store::LogEntry,
    user::{User, UserStatus, is_email},
    workload::WorkloadTrust,
};

/// An agent, as administrators see it.
pub fn agent(agent: &Agent) -> Value {
    json!({
        "id": agent.id.uuid().to_string(),
        "agentId": agent.id.to_string(),
        "slug": agent.slug.as_str(),
        "clientId": agent.client_id.as_str(),
        "name": agent.name,
        "description": agent.description,
        "type": agent.kind.as_str(),
        "status": agent.status.as_str(),
        "isActive": agent.is_active(),
        "identityType": agent.identity_type.as_str(),
        "capabilities": agent.capabilities,
        "requestedCapabilities": agent.requested_capabilities,
        "allowedTools": agent.allowed_tools,
        "permissions": [],
        "roles": [],
        "budgetPolicy": agent.budget,
        "tokenLifetime": agent.token_lifetime,
        "redirectUris": agent.redirect_uris,
        "canActOnBehalfOfUsers": agent.can_act_on_behalf_of_users,
        "delegationPolicy": { "consent": agent.delegation_consent.as_str() },
        "workloadIdentity": agent.workload.as_ref().map(WorkloadTrust::view),
        "aauthIdentity": agent.aauth.as_deref().map(aauth_identity),
        "jwksUri": agent.jwks_uri,
        "jwks": agent.jwks,
        "authMethods": listed(&agent.auth_methods),
        "allowedIps": listed(&agent.allowed_ips),
        "hasApiKey": agent.api_key.is_some(),
        "lastUsedAt": null,
        "createdAt": agent.created_at.to_string(),
        "updatedAt": agent.updated_at.to_string(),
    })
}

/// A list of the only ones there may be; `null` if there is no such list.
fn listed<T>(items: &[T]) -> Option<&[T]> {
    (!items.is_empty()).then_some(items)
}

/// An agent's part in AAuth.
pub fn aauth_identity(identity: &AAuthIdentity) -> Value {
    json!({
        "identifier": identity.identifier,
        "allowedScopes": identity.allowed_scopes.as_slice(),
        "algorithms": identity.algorithms,
        "userAuthorization": identity.user_authorization,
        "delegation": identity.delegation,
        "tokenExchange": identity.token_exchange,
    })
}

/// An agent as the registry of AAuth shows it.
pub fn aauth_agent(agent: &Agent) -> Value {
    let mut view = json!({
        "id": agent.id.to_string(),
        "agent_id": agent.id.to_string(),
        "name": agent.name,
        "description": agent.description,
        "status": agent.status.as_str(),
        "jwks": agent.jwks,
        "jwks_uri": agent.jwks_uri,
        "redirect_uris": agent.redirect_uris,
        "created_at": agent.created_at.to_string(),
        "updated_at": agent.updated_at.to_string(),
    });
    if let Some(identity) = agent.aauth.as_deref() {
        view["agent_identifier"] = json!(identity.identifier);
        view["allowed_scopes"] = json!(identity.allowed_scopes.as_slice());
        view["signing_algs"] = json!(identity.algorithms);
        view["user_authorization"] = identity.user_authorization.into();
        view["delegation"] = identity.delegation.into();
        view["token_exchange"] = identity.token_exchange.into();
    }
    view
}

/// A resource as the registry of AAuth shows it.
pub fn aauth_resource(resource: &AAuthResource) -> Value {
    json!({
        "id": resource.id,
        "number": resource.number,
        "name": resource.name,
        "description": resource.description,
        "resource_identifier": resource.identifier,
        "jwks": resource.jwks,
        "jwks_uri": resource.jwks_uri,
        "supported_scopes": resource.supported_scopes,
        "scope_descriptions": resource.scope_descriptions,
        "default_auth_level": resource.default_auth_level,
        "status": if resource.active { "active" } else { "inactive" },
        "created_at": resource.created_at.to_string(),
        "updated_at": resource.updated_at.to_string(),
    })
}

/// A budget policy with what is used of it. Limits that are not set are absent: clients compare numbers.
pub fn budget(policy: &BudgetPolicy, usage: &Usage) -> Value {
    let mut view = match json!(policy) {
        Value::Object(view) => view,
        _ => Map::new(),
    };
    if !policy.is_empty() {
        view.insert("tokens_used_today".to_owned(), usage.tokens.into());
        view.insert("api_calls_this_hour".to_owned(), usage.calls.into());
        view.insert("cost_this_month_usd".to_owned(), json!(MicroUsd::from_micros(usage.micro_usd)));
    }
    Value::Object(view)
}

/// What is left of each limit: whole numbers for tokens and calls, decimal text for money.
pub fn remaining(policy: &BudgetPolicy, usage: &Usage) -> Value {
    let mut view = Map::new();
    if let Some(max) = policy.max_tokens_per_day {
        view.insert("tokens".to_owned(), max.saturating_sub(usage.tokens).into());
    }
    if let Some(max) = policy.max_api_calls_per_hour {
        view.insert("api_calls".to_owned(), max.saturating_sub(usage.calls).into());
    }
    if let Some(max) = policy.max_cost_per_month_usd {
        let left = MicroUsd::from_micros(max.micros().saturating_sub(usage.micro_usd));
        view.insert("cost_usd".to_owned(), left.to_string().into());
    }
    Value::Object(view)
}

/// An MCP server.
pub fn mcp_server(server: &McpServer) -> Value {
    json!({
        "id": server.number.value(),
        "server_id": server.server_id.as_str(),
        "name": server.name,
        "description": server.description,
        "resource_uri": server.resource_uri.as_str(),
        "aliases": server.aliases,
        "endpoint_url": server.endpoint_url,
        "transport": server.transport,
        "auth_mode": server.auth_mode,
        "status": if server.active { "active" } else { "inactive" },
        "scopes_supported": server.scopes_supported,
        "scope_descriptions": server.scope_descriptions,
        "allowed_client_ids": server.allowed_client_ids,
        "allowed_agent_ids": server.allowed_agent_ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "resource_client_id": server.resource_client_id,
        "require_pkce": true,
        "require_resource_param": true,
        "require_dpop": false,
        "token_lifetime": server.token_lifetime,
        "created_at": server.created_at.to_string(),
        "updated_at": server.updated_at.to_string(),
    })
}

/// An ordinary client.
pub fn client(client: &Client) -> Value {
    json!({
        "id": client.number.value(),
        "clientId": client.client_id.as_str(),
        "name": client.name,
        "redirectUris": client.redirect_uris,
        "allowedScopes": client.allowed_scopes,
        "scopes": client.allowed_scopes,
        "grantTypes": client.grant_types,
        "isConfidential": client.confidential,
        "isPublic": !client.confidential,
        "jwksUri": client.jwks_uri,
        "jwks": client.jwks,
        "requiresPkce": client.needs_pkce(),
        "isActive": client.active,
        "createdAt": client.created_at.to_string(),
        "updatedAt": client.updated_at.to_string(),
    })
}

/// A person; who shows the roles puts them there.
pub fn user(user: &User) -> Value {
    let active = user.status == UserStatus::Active;
    json!({
        "id": user.id.to_string(),
        "userId": user.number.value(),
        "email": user.email,
        "name": user.name,
        "emailVerified": false,
        "isActive": active,
        "blocked": !active,
        "mfaEnabled": false,
        "isAdmin": user.is_admin,
        // Whoever knows such an address may be able to write to it.
        "approver": { "enabled": user.approver, "hasWebhook": user.approver_webhook.is_some() },
        "roles": [],
        "loginCount": 0,
        "createdAt": user.created_at.to_string(),
        "updatedAt": user.updated_at.to_string(),
    })
}

/// An organization API key.
pub fn api_key(key: &ApiKey) -> Value {
    json!({
        "id": key.number.value(),
        "name": key.name,
        "scopes": key.scopes,
        "isActive": key.active,
        "createdBy": key.created_by.map(|id| id.to_string()),
        "createdAt": key.created_at.to_string(),
    })
}

/// An approval at `now`, as its agent sees it. Who approved it is told by number only.
pub fn approval_status(approval: &Approval, now: Timestamp) -> Value {
    let decision = approval.decision.as_ref();
    let status = approval.status(now);
    let approved_by = decision.filter(|_| status == ApprovalStatus::Approved);
    json!({
        "approval_token": approval.token.as_str(),
        "status": status.as_str(),
        "task_id": approval.task_id,
        "impact": approval.impact.as_str(),
        "reason": approval.reason,
        "expires_at": approval.expires_at.to_string(),
        "responded_at": decision.map(|decision| decision.at.to_string()),
        "approved_by": approved_by.and_then(|decision| decision.number).map(|number| json!({ "user_id": number.value() })),
        "decision_note": decision.and_then(|decision| decision.note.as_deref()),
        "action_hash": ActionHash::of(&approval.action()).as_str(),
    })
}

/// An approval at `now`, as those see it who decide; `agent_name` is the name of the agent that asked, if there still is one.
pub fn approval(approval: &Approval, agent_name: Option<&str>, now: Timestamp) -> Value {
    let mut view = approval_status(approval, now);
    view["agent_id"] = approval.agent.to_string().into();
    view["agent_name"] = agent_name.into();
    view["client_id"] = approval.client_id.as_str().into();
    view["on_behalf_of"] = approval.on_behalf_of.map(|user| user.to_string()).into();
    view["meta"] = json!(approval.meta);
    view["created_at"] = approval.created_at.to_string().into();
    view["audit_target"] = approval.token.fingerprint().into();
    view
}

/// A request of a task, as its agent sees it; `base` is where the routes of the organization are, as the agent wrote it.
pub fn jit_status(request: &JitRequest, status: RequestStatus, needs_consent: bool, base: &str) -> Value {
    let url = |what: &str| format!("{base}/jit/request/{}/{what}", request.id);
    let mut view = json!({
        "request_id": request.id.as_str(),
        "status": status.as_str(),
        "risk_level": request.risk.as_str(),
        "task_id": request.task.as_str(),
        "action_hash": request.action_hash.as_str(),
    });
    match status {
        RequestStatus::Pending => {
            view["status_url"] = url("status").into();
            view["expires_at"] = request.expires_at.to_string().into();
            view["delegation_consent_required"] = needs_consent.into();
            view["message"] = "A person has to decide.".into();
        }
        RequestStatus::Approved | RequestStatus::Denied | RequestStatus::Expired => {}
    }
    if let Some(ruling) = &request.ruling {
        view["has_notes"] = ruling.notes.is_some().into();
        view["agent_message"] = ruling.agent_message.as_deref().into();
        if ruling.approved {
            view["token_url"] = url("token").into();
            view["granted_ttl"] = ruling.ttl.into();
        } else {
            view["deny_reason"] = ruling.agent_message.as_deref().into();
        }
    }
    view
}

/// A request of a task, as those see it who decide; `agent_name` is the name of the agent that asked, if there still is one.
pub fn jit_request(request: &JitRequest, agent_name: Option<&str>, now: Timestamp) -> Value {
    json!({
        "request_id": request.id.as_str(),
        "status": request.status(now).as_str(),
        "risk_level": request.risk.as_str(),
        "task_id": request.task.as_str(),
        "agent_id": request.agent.to_string(),
        "agent_name": agent_name,
        "on_behalf_of": request.on_behalf_of.map(|user| user.to_string()),
        "authorization_details": request.detail.to_json(),
        "action_hash": request.action_hash.as_str(),
        "justification": request.justification,
        "requested_ttl": request.ttl,
        "created_at": request.created_at.to_string(),
        "expires_at": request.expires_at.to_string(),
    })
}

/// An audit entry, as lists show it.
pub fn audit_entry(entry: &LogEntry) -> Value {
    let Event { id, at, kind, outcome, actor, target, message, auth_method, origin, .. } = &entry.event;
    let at = at.to_string();
    json!({
        "id": entry.seq,
        "eventId": id.to_string(),
        "createdAt": at,
        "timestamp": at,
        "eventType": kind.as_str(),
        "action": kind.as_str(),
        "category": kind.category(),
        "severity": kind.severity(*outcome),
        "message": message,
        "actorId": actor.id,
        "actorName": actor.name,
        "actorType": actor.kind.as_str(),
        "userEmail": actor.name.as_ref().filter(|name| actor.kind == ActorKind::User && is_email(name)),
        "authMethod": auth_method,
        "targetType": target.as_ref().map(|target| &target.kind),
        "targetId": target.as_ref().map(|target| &target.id),
        "targetName": target.as_ref().and_then(|target| target.name.as_ref()),
        "ipAddress": origin.ip.map(|ip| ip.to_string()),
        "status": outcome.as_str(),
        "outcome": outcome.as_str(),
    })
}

/// An audit entry with everything that is known.
pub fn audit_entry_detailed(entry: &LogEntry) -> Value {
    let mut view = audit_entry(entry);
    let event = &entry.event;
    let context = &event.context;
    view["eventTime"] = event.at.to_string().into();
    view["durationMs"] = Value::Null;
    view["initiatedBy"] = (*event.actor.id).into();
    view["clientId"] = Value::Null;
    view["userAgent"] = json!(event.origin.user_agent);
    view["geoLocation"] = Value::Null;
    view["sessionId"] = Value::Null;
    view["requestId"] = json!(event.origin.request_id);
    view["statusReason"] = json!(event.reason);
    view["oldValue"] = json!(context.get("before"));
    view["newValue"] = json!(context.get("after"));
    view["changes"] = json!(context.get("after"));
    view["context"] = json!(context);
    view
}

/// The six keys that describe a page of a list.
pub fn pagination(total: u64, page: u64, limit: u32) -> Value {
    let pages = total.div_ceil(u64::from(limit.max(1)));
    json!({
        "total": total,
        "page": page,
        "limit": limit,
        "totalPages": pages,
        "hasNextPage": page < pages,
        "hasPreviousPage": page > 1,
    })
}

/// A list: its items, and the description of the page under both of its names.
pub fn list(resource_type: &str, items: Vec<Value>, total: u64, page: u64, limit: u32) -> Value {
    let pagination = pagination(total, page, limit);
    json!({ "data": items, "meta": pagination, "pagination": pagination, "resourceType": resource_type })
}

/// The members that differ between two views: as they were, and as they are.
pub(crate) fn changes(before: &Value, after: &Value) -> (Map<String, Value>, Map<String, Value>) {
    let (mut old, mut new) = (Map::new(), Map::new());
    if let (Value::Object(before), Value::Object(after)) = (before, after) {
        let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        for name in names.into_iter().filter(|name| *name != "updatedAt" && *name != "updated_at") {
            let member = |of: &Map<String, Value>| of.get(name).cloned().unwrap_or(Value::Null);
            let (was, is) = (member(before), member(after));
            if was != is {
                old.insert(name.clone(), was);
                new.insert(name.clone(), is);
            }
        }
    }
    (old, new)
}
