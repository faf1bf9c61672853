//! Attribute policies, as administrators write them.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, AuthorizationServer, Caller, Plan, Shows, description, invalid};
use crate::{
    agent::checked_text,
    audit::{EventKind, Target},
    id::{AgentId, Number, OrgId},
    policy::{Condition, Effect, Entry, Policy, RecordKind, Snapshot},
};

/// The members of an attribute policy. Absent and `null` leave a member as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PolicyRequest {
    /// Display name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The type of resource that it is about, or `*`.
    #[serde(alias = "resource_type")]
    pub resource_type: Option<String>,
    /// The action that it is about, or `*`.
    pub action: Option<String>,
    /// Several types and actions.
    pub target: Option<TargetRequest>,
    /// `allow` or `deny`.
    pub effect: Option<String>,
    /// 0 to 1000.
    pub priority: Option<u64>,
    /// Where it applies.
    pub conditions: Option<Value>,
    /// The only agents that it is about: ids or slugs of at least one. Who takes the last one off means no policy, and not
    /// one about everybody.
    #[serde(alias = "agent_ids")]
    pub agent_ids: Option<Vec<String>>,
    /// Whether it counts at all.
    #[serde(alias = "is_active", alias = "enabled")]
    pub is_active: Option<bool>,
}

/// Several types and actions.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct TargetRequest {
    /// Types of resources.
    pub resources: Option<Vec<String>>,
    /// Actions.
    pub actions: Option<Vec<String>>,
}

impl AuthorizationServer {
    /// Every attribute policy, those with the highest priority first.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn policies(&self, org: &OrgId) -> Result<Vec<Arc<Policy>>, ApiError> {
        self.with_policy(org, |snapshot| {
            let mut all: Vec<_> = snapshot
                .all(RecordKind::Policy)
                .filter_map(|entry| match entry {
                    Entry::Policy(policy) => Some(policy.clone()),
                    _ => None,
                })
                .collect();
            all.sort_by_key(|policy| (std::cmp::Reverse(policy.priority), policy.number));
            all
        })
        .await
    }

    /// The attribute policy with this id.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn policy(&self, org: &OrgId, name: &str) -> Result<Arc<Policy>, ApiError> {
        self.with_policy(org, |snapshot| found(snapshot, name).cloned()).await?
    }

    /// Makes an attribute policy.
    ///
    /// # Errors
    /// [`ApiError`] if a member is not acceptable.
    pub async fn create_policy(
        &self,
        org: &OrgId,
        request: &PolicyRequest,
        caller: &Caller,
    ) -> Result<Arc<Policy>, ApiError> {
        let agents = self.agents_named(org, request).await?;
        let effect = request.effect.as_deref().ok_or_else(|| invalid("effect", "is required"))?;
        let mut policy = Policy::new("", "*", "*", self::effect(effect)?, self.now());
        checked_text("name", request.name.as_deref().unwrap_or_default(), 1, 128)?;
        let target = request.target.as_ref();
        let of_type = request.resource_type.is_some() || target.is_some_and(|it| it.resources.is_some());
        let of_action = request.action.is_some() || target.is_some_and(|it| it.actions.is_some());
        if !of_type {
            return Err(invalid("resourceType", "is required; * is all"));
        }
        if !of_action {
            return Err(invalid("action", "is required; * is all"));
        }
        agree("resourceType", target.and_then(|it| it.resources.as_ref()), request.resource_type.as_ref())?;
        agree("action", target.and_then(|it| it.actions.as_ref()), request.action.as_ref())?;
        change(&mut policy, request, agents)?;
        let policy = Arc::new(policy);
        let plan = |_: &Snapshot| {
            let plan = Plan::new(EventKind::PolicyCreated, "policy made", target_of(&policy), policy.clone());
            Ok(plan.made(policy.view()).insert(&Entry::Policy(policy.clone())))
        };
        self.change_policy(org, caller, plan).await.map(|(policy, _)| policy)
    }

    /// Changes an attribute policy.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such policy or a member is not acceptable.
    pub async fn update_policy(
        &self,
        org: &OrgId,
        name: &str,
        request: &PolicyRequest,
        caller: &Caller,
    ) -> Result<Arc<Policy>, ApiError> {
        let agents = self.agents_named(org, request).await?;
        self.rewrite_policy(org, name, caller, |policy| change(policy, request, agents.clone())).await
    }

    /// Switches an attribute policy on or off.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn toggle_policy(
        &self,
        org: &OrgId,
        name: &str,
        caller: &Caller,
    ) -> Result<Arc<Policy>, ApiError> {
        let toggle = |policy: &mut Policy| {
            policy.active = !policy.active;
            Ok(())
        };
        self.rewrite_policy(org, name, caller, toggle).await
    }

    async fn rewrite_policy(
        &self,
        org: &OrgId,
        name: &str,
        caller: &Caller,
        change: impl Fn(&mut Policy) -> Result<(), ApiError> + Send + Sync,
    ) -> Result<Arc<Policy>, ApiError> {
        let plan = |snapshot: &Snapshot| {
            let old = found(snapshot, name)?;
            caller.expects(&**old)?;
            let mut policy = Policy::clone(old);
            change(&mut policy)?;
            let plan = Plan::new(EventKind::PolicyUpdated, "policy changed", target_of(old), old.clone());
            if policy == **old {
                return Ok(plan);
            }
            policy.updated_at = self.now();
            let policy = Arc::new(policy);
            let mut plan =
                plan.changed(&old.view(), &policy.view()).put(snapshot, &Entry::Policy(policy.clone()));
            plan.result = policy;
            Ok(plan)
        };
        self.change_policy(org, caller, plan).await.map(|(policy, _)| policy)
    }

    /// Removes an attribute policy.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn delete_policy(&self, org: &OrgId, name: &str, caller: &Caller) -> Result<(), ApiError> {
        let plan = |snapshot: &Snapshot| {
            let old = found(snapshot, name)?;
            caller.expects(&**old)?;
            let plan = Plan::new(EventKind::PolicyDeleted, "policy removed", target_of(old), ());
            Ok(plan.gone(old.view()).remove(snapshot, &Entry::Policy(old.clone())))
        };
        self.change_policy(org, caller, plan).await.map(|((), _)| ())
    }

    async fn agents_named(
        &self,
        org: &OrgId,
        request: &PolicyRequest,
    ) -> Result<Option<Vec<AgentId>>, ApiError> {
        let Some(names) = &request.agent_ids else { return Ok(None) };
        if names.is_empty() {
            return Err(invalid(
                "agentIds",
                "must name an agent; a policy that names none is about everybody",
            ));
        }
        if names.len() > Policy::MAX_NAMES {
            return Err(invalid("agentIds", format!("are more than {}", Policy::MAX_NAMES)));
        }
        let mut agents = Vec::with_capacity(names.len());
        for name in names {
            let agent = self.find_agent(org, name).await?;
            agents.push(agent.ok_or_else(|| invalid("agentIds", "name an unknown agent"))?.id);
        }
        Ok(Some(agents))
    }
}

fn found<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Arc<Policy>, ApiError> {
    let number = name.parse().map_err(|_| ApiError::NotFound("policy"))?;
    snapshot.policy(Number::new(number)).ok_or(ApiError::NotFound("policy"))
}

fn target_of(policy: &Policy) -> Target {
    Target::new("policy", policy.number.to_string()).named(&*policy.name)
}

fn effect(text: &str) -> Result<Effect, ApiError> {
    match text {
        "allow" | "permit" => Ok(Effect::Allow),
        "deny" => Ok(Effect::Deny),
        _ => Err(invalid("effect", "must be allow or deny")),
    }
}

fn change(
    policy: &mut Policy,
    request: &PolicyRequest,
    agents: Option<Vec<AgentId>>,
) -> Result<(), ApiError> {
    if let Some(name) = &request.name {
        policy.name = checked_text("name", name, 1, 128)?;
    }
    if request.description.is_some() {
        policy.description = description(request.description.as_deref())?;
    }
    let target = request.target.as_ref();
    let types = target.and_then(|target| target.resources.as_ref());
    if let Some(types) =
        several("resourceType", types, request.resource_type.as_ref(), &policy.resource_types)?
    {
        policy.resource_types = names("resourceType", types)?;
    }
    let actions = target.and_then(|target| target.actions.as_ref());
    if let Some(actions) = several("action", actions, request.action.as_ref(), &policy.actions)? {
        policy.actions = names("action", actions)?;
    }
    if let Some(text) = &request.effect {
        policy.effect = effect(text)?;
    }
    if let Some(priority) = request.priority {
        let priority = u16::try_from(priority).ok().filter(|priority| *priority <= Policy::MAX_PRIORITY);
        policy.priority = priority.ok_or_else(|| invalid("priority", "must be 0 to 1000"))?;
    }
    if let Some(conditions) = &request.conditions {
        Condition::parse(conditions).map_err(|problem| invalid("conditions", problem.to_string()))?;
        let empty = match conditions {
            Value::Array(all) => all.is_empty(),
            Value::Object(members) => members.is_empty(),
            _ => false,
        };
        policy.conditions = if empty { Value::Null } else { conditions.clone() };
    }
    if let Some(agents) = agents {
        policy.agent_ids = agents;
    }
    if let Some(active) = request.is_active {
        policy.active = active;
    }
    Ok(())
}

/// Which types or actions are meant by somebody who names several, or one, or both: an object that was read has both, and
/// whoever edited one of them means that one.
fn several(
    member: &'static str,
    several: Option<&Vec<String>>,
    one: Option<&String>,
    now: &[String],
) -> Result<Option<Vec<String>>, ApiError> {
    Ok(match (several, one) {
        (None, None) => None,
        (Some(several), None) => Some(several.clone()),
        (None, Some(one)) => Some(vec![one.clone()]),
        (Some(several), Some(one)) if several.first() == Some(one) || now.first() == Some(one) => {
            Some(several.clone())
        }
        (Some(several), Some(one)) if several == now => Some(vec![one.clone()]),
        (Some(_), Some(_)) => return Err(invalid(member, "and target differ")),
    })
}

/// Where nothing was read yet there is nothing that both could have: whoever says two things means neither.
fn agree(member: &'static str, several: Option<&Vec<String>>, one: Option<&String>) -> Result<(), ApiError> {
    match (several, one) {
        (Some(several), Some(one)) if several.first() != Some(one) => {
            Err(invalid(member, "and target differ"))
        }
        _ => Ok(()),
    }
}

/// Types or actions: `*` is all, and nothing else is a pattern.
fn names(member: &'static str, names: Vec<String>) -> Result<Vec<String>, ApiError> {
    let valid = |name: &String| {
        let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '/' | '-');
        name == "*" || ((1..=128).contains(&name.len()) && name.chars().all(of_name))
    };
    if names.is_empty() || names.len() > Policy::MAX_NAMES || !names.iter().all(valid) {
        return Err(invalid(member, "must be * or made of A-Z a-z 0-9 _ . : / -"));
    }
    Ok(names)
}

impl Policy {
    /// As administrators see it.
    pub fn view(&self) -> Value {
        let conditions = match &self.conditions {
            Value::Null => json!({}),
            Value::Array(all) => json!({ "all": all }),
            other => other.clone(),
        };
        let agents: Vec<_> = self.agent_ids.iter().map(ToString::to_string).collect();
        json!({
            "id": self.number,
            "name": self.name,
            "slug": self.number.to_string(),
            "description": self.description,
            "resourceType": self.resource_types.first(),
            "action": self.actions.first(),
            "target": { "resources": self.resource_types, "actions": self.actions },
            "effect": self.effect.as_str(),
            "priority": self.priority,
            "conditions": conditions,
            "agentIds": (!agents.is_empty()).then_some(agents),
            "isActive": self.active,
            "isSystem": false,
            "createdAt": self.created_at.to_string(),
            "updatedAt": self.updated_at.to_string(),
        })
    }
}
