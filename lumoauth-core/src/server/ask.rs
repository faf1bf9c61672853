//! The Ask API: may I do this? Made for the tool loops of language models.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    ApiError, AuthorizationServer, Caller, budget::cost, error::ELSEWHERE, me::FOR_AGENTS_AND_PEOPLE,
};
use crate::{
    audit::{Event, EventKind, Target, cleaned},
    capability::{Capability, Decision, DenyReason},
    json as strict,
    organization::Organization,
    principal::{Identity, Principal},
    spending::{Payers, Remaining},
};

/// A question. Absent and `null` are the same.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct AskRequest {
    /// What the agent wants to do.
    pub action: Option<String>,
    /// On what, and how.
    pub context: Option<Box<RawValue>>,
}

/// The request as the server saw it: what a caller writes under these names in the context is not believed.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "transports build it")]
pub struct RequestFacts<'a> {
    /// The request's method.
    pub method: &'a str,
    /// The request's path.
    pub path: &'a str,
}

/// The answer. A denial is an answer, not an error.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Answer {
    /// What is left of the caller's budget.
    #[serde(skip)]
    pub remaining: Remaining,
    /// Whether it may.
    pub allowed: bool,
    /// The action that was decided on.
    pub action: String,
    /// The context that was decided on.
    pub context: Map<String, Value>,
    /// One sentence.
    pub reason: String,
    /// What decided.
    pub decided_by: &'static str,
    /// The id of the audit entry.
    pub audit_id: String,
    /// Whether a human could allow it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub approval_required: bool,
    /// For questions in the older form: the same sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// For questions in the older form: always 1, since this is a decision and not a guess.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// For questions in the older form: the capabilities that were tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required_scopes: Option<Vec<String>>,
}

/// Names in the context that belong to the server.
const SERVER_FACTS: [&str; 4] = ["ip", "userAgent", "requestMethod", "requestPath"];

impl AuthorizationServer {
    /// Decides whether an agent or a person may do what it asks. Deny wins: the budget, then the policy's models and
    /// threshold, then the list of tools, the agent's capabilities, and the scope of the token it presented. People have no
    /// budget: what their token covers, and its client may still have, is allowed.
    ///
    /// Every answer is an `agent.action` entry of the audit log, which the answer names.
    ///
    /// # Errors
    /// [`ApiError`] if there is no action, the context is malformed, the budget is used up, or the caller is neither.
    pub async fn ask(
        &self,
        organization: &Organization,
        principal: &Principal,
        request: &AskRequest,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<Answer, ApiError> {
        let now = self.now();
        let org = &organization.id;
        let question = Question::read(request)?;
        let remaining = match &principal.identity {
            Identity::Agent(agent) => {
                let payers = Payers::of_caller(principal, agent);
                payers.charge_call(self.stores(), org, &caller.origin, now).await??
            }
            Identity::User(_) => Remaining::default(),
            Identity::Client(_) | Identity::ApiKey(_) => return Err(FOR_AGENTS_AND_PEOPLE),
            Identity::Remote(_) => return Err(ELSEWHERE),
        };

        let (verdict, action) = decide(principal, &question);
        let context = seen_context(question.context, facts, caller);
        let decision = if verdict.allowed { "allow" } else { "deny" };
        let mut event =
            Event::new(EventKind::AgentAction, principal.actor(), format!("ask {action}: {decision}"), now)
                .on(Target::new("action", &*action))
                .from_origin(&caller.origin)
                .with("action", &*action)
                .with("decision", decision)
                .with("decided_by", verdict.by)
                .with("reason", &*verdict.reason);
        let resource = context.get("id").or_else(|| context.get("resource")).and_then(Value::as_str);
        if let Some(resource) = resource {
            event = event.with("resource", cleaned(resource));
        }
        event = principal.in_context(event);
        let audit_id = event.id.to_string();
        event = event.with("audit_id", &*audit_id);
        self.stores().audit.append(org, &[event]).await?;

        let older = question.older.then(|| question.actions.iter().map(ToString::to_string).collect());
        Ok(Answer {
            remaining,
            allowed: verdict.allowed,
            action,
            context,
            decided_by: verdict.by,
            audit_id,
            approval_required: verdict.approval_required,
            explanation: question.older.then(|| verdict.reason.clone()),
            confidence: question.older.then_some(1.0),
            required_scopes: older,
            reason: verdict.reason,
        })
    }
}

struct Question {
    /// The forms of the action; any of them being allowed is enough.
    actions: Vec<Capability>,
    context: Map<String, Value>,
    model: Option<String>,
    cost: crate::budget::MicroUsd,
    older: bool,
}

impl Question {
    fn read(request: &AskRequest) -> Result<Self, ApiError> {
        #[derive(Default, Deserialize)]
        struct Exact {
            cost_usd: Option<Box<RawValue>>,
        }
        let malformed = || ApiError::Invalid { member: "context", problem: "must be an object".to_owned() };
        let text = request.context.as_ref().map_or("{}", |raw| raw.get());
        let text = if text == "null" { "{}" } else { text };
        let context: Map<String, Value> = strict::parse(text.as_bytes()).map_err(|_| malformed())?;
        let exact: Exact = serde_json::from_str(text).map_err(|_| malformed())?;
        let text_of = |name: &str| context.get(name).and_then(Value::as_str);
        let (names, older) = match (&request.action, text_of("resource_type"), text_of("action")) {
            (Some(action), _, _) if !action.is_empty() => (vec![action.clone()], false),
            (_, Some(kind), Some(verb)) => (vec![format!("{kind}.{verb}"), format!("{kind}:{verb}")], true),
            _ => return Err(ApiError::InvalidRequest("action is required.".to_owned())),
        };
        let actions =
            names.iter().map(|name| Capability::parse(name)).collect::<Result<_, _>>().map_err(|error| {
                ApiError::Invalid { member: "action", problem: format!("is malformed: {error}") }
            })?;
        let model = match context.get("model") {
            None | Some(Value::Null) => None,
            Some(Value::String(model)) => Some(model.clone()),
            Some(_) => {
                let problem = "must be text".to_owned();
                return Err(ApiError::Invalid { member: "context.model", problem });
            }
        };
        let cost = cost("context.cost_usd", exact.cost_usd.as_deref())?;
        Ok(Self { actions, model, cost, context, older })
    }
}

struct Verdict {
    allowed: bool,
    by: &'static str,
    reason: String,
    approval_required: bool,
}

fn decide(principal: &Principal, question: &Question) -> (Verdict, String) {
    let deny = |by, reason: String| Verdict { allowed: false, by, reason, approval_required: false };
    let first = question.actions.first().map(ToString::to_string).unwrap_or_default();
    let chain: Vec<_> = principal.agents().collect();
    let allows = |model: &&str| chain.iter().all(|agent| agent.budget.allows_model(model));
    if let Some(model) = question.model.as_deref().filter(|model| !allows(model)) {
        return (deny("budget", format!("Model {model} is not allowed for this agent.")), first);
    }
    if chain.iter().any(|agent| agent.budget.needs_approval(question.cost)) {
        let reason = format!("A call that costs {} USD needs a human's approval.", question.cost);
        return (Verdict { approval_required: true, ..deny("budget", reason) }, first);
    }
    let mut refusal = None;
    for action in &question.actions {
        let reason = match principal.decide(action) {
            Decision::Allow => {
                let reason = format!("Capability {action} is granted.");
                let verdict = Verdict { allowed: true, by: "capability", reason, approval_required: false };
                return (verdict, action.to_string());
            }
            Decision::Deny(DenyReason::NotGranted) => format!("Capability {action} is not granted."),
            Decision::Deny(DenyReason::NotInToken) => {
                format!("The presented token does not cover {action}.")
            }
            Decision::Deny(DenyReason::ToolNotAllowed) => {
                format!("{action} is not among the allowed tools of this agent.")
            }
        };
        refusal.get_or_insert(reason);
    }
    (deny("default", refusal.unwrap_or_default()), first)
}

/// The context as it was decided on: the server's facts under their names, the caller's under `pep`.
fn seen_context(
    mut context: Map<String, Value>,
    facts: RequestFacts<'_>,
    caller: &Caller,
) -> Map<String, Value> {
    let claimed: Map<String, Value> = SERVER_FACTS
        .iter()
        .filter_map(|name| context.remove(*name).map(|value| ((*name).to_owned(), value)))
        .collect();
    if !claimed.is_empty() {
        context.insert("pep".to_owned(), Value::Object(claimed));
    }
    context.insert("ip".to_owned(), json!(caller.origin.ip.map(|ip| ip.to_string())));
    context.insert("userAgent".to_owned(), json!(caller.origin.user_agent));
    context.insert("requestMethod".to_owned(), facts.method.into());
    context.insert("requestPath".to_owned(), facts.path.into());
    context
}
