//! Questions to the attribute policies alone.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ApiError, Asked, AuthorizationServer, Caller, invalid, require_scope};
use crate::{
    audit::{Event, EventKind, Target, cleaned},
    capability::Capability,
    organization::Organization,
    policy::{AttributeVerdict, Environment, Policy, Question, Resource},
    principal::Principal,
    server::{RequestFacts, SubjectRef},
    spending::{Payers, Remaining},
};

/// One question: by its members, or in the older form as objects.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AttributeCheckRequest {
    /// The type of the resource.
    #[serde(alias = "resource_type")]
    pub resource_type: Option<Value>,
    /// What is to be done with it.
    pub action: Option<Value>,
    /// Its id.
    #[serde(alias = "resource_id")]
    pub resource_id: Option<Value>,
    /// In the older form: `{"type", "id"}`.
    pub resource: Option<Map<String, Value>>,
    /// In the older form: whom it is about; the caller if absent.
    pub subject: Option<SubjectRef>,
    /// What else is known of the request.
    pub environment: Option<Map<String, Value>>,
    /// Another name of the same.
    pub context: Option<Map<String, Value>>,
}

/// Several questions about one request.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct BulkAttributeCheckRequest {
    /// 1 to 100 questions.
    pub checks: Option<Vec<Value>>,
    /// Whom all of them are about; the caller if absent.
    pub subject: Option<SubjectRef>,
    /// What else is known of the request.
    pub environment: Option<Map<String, Value>>,
    /// Another name of the same.
    pub context: Option<Map<String, Value>>,
}

/// A question that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttributeCheck {
    /// The type of the resource.
    pub resource_type: String,
    /// What is to be done with it.
    pub action: String,
    /// Its id.
    pub resource_id: Option<String>,
}

/// The answers, in the order of the questions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AttributeChecked {
    /// The id of whom they are about.
    pub subject: String,
    /// Each question with its answer, or what is wrong with it.
    pub results: Vec<Result<(AttributeCheck, AttributeVerdict), String>>,
    /// Whether the caller may see whole policies.
    pub sees_policies: bool,
    /// What is left of the caller's budget, if it has one.
    pub remaining: Remaining,
}

impl AttributeCheckRequest {
    fn read(&self) -> Result<AttributeCheck, ApiError> {
        let text = |member: &'static str, value: Option<&Value>| match value {
            Some(Value::String(text)) if (1..=256).contains(&text.len()) => Ok(text.clone()),
            None | Some(Value::Null) => Err(invalid(member, "is required")),
            Some(_) => Err(invalid(member, "must be text of 1 to 256 bytes")),
        };
        let of_resource = |name: &str| self.resource.as_ref().and_then(|resource| resource.get(name));
        let action = match &self.action {
            Some(Value::Object(members)) => members.get("name"),
            other => other.as_ref(),
        };
        let id = self.resource_id.as_ref().or(of_resource("id"));
        let resource_id = match id {
            None | Some(Value::Null) => None,
            Some(Value::Number(number)) => Some(number.to_string()),
            id => Some(text("resourceId", id)?),
        };
        Ok(AttributeCheck {
            resource_type: text("resourceType", self.resource_type.as_ref().or(of_resource("type")))?,
            action: text("action", action)?,
            resource_id,
        })
    }
}

/// What else is known: under either name, and under both if it is the same.
fn environment(
    environment: &Option<Map<String, Value>>,
    context: &Option<Map<String, Value>>,
) -> Result<Map<String, Value>, ApiError> {
    match (environment, context) {
        (Some(one), Some(other)) if one != other => Err(invalid("context", "and environment differ")),
        (Some(known), _) | (None, Some(known)) => Ok(known.clone()),
        (None, None) => Ok(Map::new()),
    }
}

impl AuthorizationServer {
    /// Asks the attribute policies one question about the caller, or about somebody else if the caller may ask about others.
    ///
    /// An agent that asks is charged one API call.
    ///
    /// # Errors
    /// [`ApiError`] if the question makes no sense, the caller lacks the scope `abac:read` or may not ask about this
    /// subject, there is none, or the budget is used up.
    pub async fn attribute_check(
        &self,
        organization: &Organization,
        principal: &Principal,
        request: &AttributeCheckRequest,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<AttributeChecked, ApiError> {
        let check = request.read()?;
        let given = environment(&request.environment, &request.context)?;
        let about = (request.subject.as_ref(), given);
        self.attribute_checks(organization, principal, vec![Ok(check)], about, facts, caller).await
    }

    /// Asks the attribute policies several questions about one subject. What is wrong with one is its answer.
    ///
    /// # Errors
    /// [`ApiError`] if they are no list of 1 to 100, and as [`Self::attribute_check`].
    pub async fn bulk_attribute_check(
        &self,
        organization: &Organization,
        principal: &Principal,
        request: &BulkAttributeCheckRequest,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<AttributeChecked, ApiError> {
        let checks = request.checks.as_deref().unwrap_or_default();
        if !(1..=100).contains(&checks.len()) {
            return Err(invalid("checks", "must be a list of 1 to 100 checks"));
        }
        let read = |value: &Value| {
            let request = AttributeCheckRequest::deserialize(value).map_err(|_| "malformed".to_owned())?;
            if request.subject.is_some() {
                return Err("subject is the same for all checks, and stands beside them".to_owned());
            }
            request.read().map_err(|error| error.to_string())
        };
        let checks = checks.iter().map(read).collect();
        let given = environment(&request.environment, &request.context)?;
        let about = (request.subject.as_ref(), given);
        self.attribute_checks(organization, principal, checks, about, facts, caller).await
    }

    async fn attribute_checks(
        &self,
        organization: &Organization,
        principal: &Principal,
        checks: Vec<Result<AttributeCheck, String>>,
        (subject, given): (Option<&SubjectRef>, Map<String, Value>),
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<AttributeChecked, ApiError> {
        let (org, now) = (&organization.id, self.now());
        require_scope(principal, &["abac:read", "abac:write"])?;
        let subject = self.subject(org, principal, subject, facts, &caller.origin).await?;
        let mut remaining = Remaining::default();
        if let Some(agent) = principal.agent() {
            let payers = Payers::of_caller(principal, agent);
            remaining = payers.charge_call(self.stores(), org, &caller.origin, now).await??;
        }
        let sees_policies = self.holds_permission(principal, "policies.view", facts, &caller.origin).await?;
        let given = Environment::separate(given);
        let asked = Asked { given: &given, facts, caller, now };
        let kept = self.policy_of(org).await?;
        let answer = |check: AttributeCheck| {
            // `*` is none: some of it may be denied.
            let action = Capability::parse(&check.action).ok().filter(|action| !action.is_wildcard());
            let action = action.ok_or_else(|| "action must be made of A-Z a-z 0-9 _ . : / -".to_owned())?;
            let mut question =
                Question::new(&action, subject.parties(principal, &action), asked.environment());
            question.resource = Resource::new(Some(&check.resource_type), check.resource_id.as_deref());
            question.verb = Some(&check.action);
            // Each on its own: whoever changes the policy does not wait for all of them.
            let verdict = kept.read(|snapshot| snapshot.attribute_verdict(&question));
            Ok((check, verdict))
        };
        let results: Vec<_> = checks.into_iter().map(|check| check.and_then(answer)).collect();
        if let Some(agent) = principal.agent() {
            let shown = results.iter().flatten().map(|(check, verdict)| {
                let question = cleaned(&format!("{}.{}", check.resource_type, check.action));
                json!({ "action": question, "resource": check.resource_id.as_deref().map(cleaned), "allowed": verdict.allowed })
            });
            let event = Event::new(EventKind::AgentAction, principal.actor(), "attribute policy check", now)
                .on(Target::new("agent", agent.id.to_string()))
                .from_origin(&caller.origin)
                .with("action", "abac.check")
                .with("results", shown.collect::<Value>());
            self.stores().audit.append(org, &[principal.in_context(event)]).await?;
        }
        Ok(AttributeChecked { subject: subject.id(), results, sees_policies, remaining })
    }
}

impl AttributeChecked {
    /// Policies as the caller may see them.
    pub fn policies(&self, matched: &[Arc<Policy>]) -> Vec<Value> {
        let brief = |policy: &Policy| json!({ "id": policy.number, "name": policy.name });
        matched.iter().map(|policy| if self.sees_policies { policy.view() } else { brief(policy) }).collect()
    }
}
