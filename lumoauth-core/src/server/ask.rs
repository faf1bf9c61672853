//! The Ask API: may I do this? Made for the tool loops of language models.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    ApiError, AuthorizationServer, Caller,
    budget::cost,
    error::ELSEWHERE,
    mcp::sees,
    me::FOR_AGENTS_AND_PEOPLE,
    policy::{Asked, any_form},
};
use crate::{
    audit::{Event, EventKind, Target, cleaned},
    authz::parties,
    capability::Capability,
    clock::Timestamp,
    id::OrgId,
    json as strict,
    mcp::{McpServer, ResourceUri},
    organization::Organization,
    policy::{DecidedBy, Entity, Environment, Question as PolicyQuestion, Resource, Verdict},
    principal::{Identity, Principal},
    secret::without_credentials,
    spending::{Payers, Remaining},
    store::McpServerKey,
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
    /// How it came about: why everybody of the chain may, through which roles, policies and relations; or the policy that
    /// denies it.
    pub path: Value,
    /// The id of the audit entry.
    pub audit_id: String,
    /// Whether a human could allow it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub approval_required: bool,
    /// What would have to happen first, and where to ask for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub obligations: Vec<Value>,
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

/// Which tool of which MCP server an agent wants to use. Absent and `null` are the same.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct McpToolRequest {
    /// The public or integer id of the server, or its resource identifier.
    pub server_id: Option<String>,
    /// The name of the tool.
    pub tool: Option<String>,
    /// On what, and how.
    pub context: Option<Map<String, Value>>,
}

impl AuthorizationServer {
    /// Decides whether an agent or a person may do what it asks. Deny wins: the budget, then everything that
    /// [`Snapshot::decide`](crate::policy::Snapshot::decide) looks at, then the models and the threshold of the budget.
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
        let mut question = Question::read(request)?;
        let remaining = self.charge_question(org, principal, caller, now).await?;
        question.context = Environment::separate(question.context);
        let asked = Asked { given: &question.context, facts, caller, now };
        let relation = self.relation_in(org, &question.context).await?;
        let ask = |action| {
            let mut one = PolicyQuestion::new(action, parties(principal, action), asked.environment());
            one.resource = question.resource();
            one.relation.clone_from(&relation);
            one
        };
        let questions: Vec<_> = question.actions.iter().map(ask).collect();
        let verdicts = self.verdicts(org, &questions).await?;
        let (place, verdict) = if question.actions.iter().any(Capability::is_wildcard) {
            // A part of it may be denied.
            (0, Verdict::deny(DecidedBy::Default, "A question is about one action, without `*`."))
        } else {
            any_form(&questions, verdicts)
        };
        let action = question.actions.get(place).map(ToString::to_string).unwrap_or_default();
        // Nobody is asked to approve what is denied anyway.
        let stopped = if verdict.allowed { by_budget(principal, &question) } else { None };
        let outcome = stopped.unwrap_or(Outcome { verdict, approval_required: false });
        let Outcome { verdict, approval_required } = outcome;
        let resource = question.resource().id.map(cleaned);
        let audit_id = self.record_answer(principal, &action, resource, &verdict, caller, now).await?;
        let obligations = if approval_required { vec![approval_obligation(facts)] } else { Vec::new() };
        let older = question.older.then(|| question.actions.iter().map(ToString::to_string).collect());
        Ok(Answer {
            remaining,
            allowed: verdict.allowed,
            action,
            path: verdict.path_view(),
            decided_by: verdict.decided_by.as_str(),
            audit_id,
            approval_required,
            obligations,
            explanation: question.older.then(|| verdict.reason.clone()),
            confidence: question.older.then_some(1.0),
            required_scopes: older,
            reason: verdict.reason,
            context: seen_context(question.context, facts, caller),
        })
    }

    /// Decides whether an agent may use a tool of an MCP server: the server must admit it, and it must hold `tool:<name>`, or
    /// `mcp:<alias>` for one of the identifiers of the server (of `urn:mcp:<name>` the name is enough), or be allowed by a
    /// policy about the type `mcp_tool`, or have the relation `invoker` (or `invoke`) to `mcp_tool:<server id>/<name>` or to
    /// `mcp_server:<server id>`.
    ///
    /// # Errors
    /// [`ApiError`] if a member is missing or malformed, there is no such server for the agent, or the budget is used up.
    pub async fn ask_for_mcp_tool(
        &self,
        organization: &Organization,
        principal: &Principal,
        request: &McpToolRequest,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<Answer, ApiError> {
        let (org, now) = (&organization.id, self.now());
        let invalid = |member, problem: &str| ApiError::Invalid { member, problem: problem.to_owned() };
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let name = text(&request.server_id).ok_or_else(|| invalid("server_id", "is required"))?;
        let tool = text(&request.tool).ok_or_else(|| invalid("tool", "is required"))?;
        let action = Capability::parse(&format!("tool:{tool}")).ok().filter(|action| !action.is_wildcard());
        let action = action.ok_or_else(|| invalid("tool", "is malformed"))?;
        let server = match ResourceUri::parse(&name) {
            Ok(uri) => {
                let servers = &self.stores().mcp_servers;
                let server = servers.find(org, McpServerKey::Target(uri.normalized())).await?;
                server.filter(|server| sees(principal, server)).ok_or(ApiError::NotFound("MCP server"))?
            }
            Err(_) => self.visible_mcp_server(org, principal, &name).await?,
        };
        let remaining = self.charge_question(org, principal, caller, now).await?;
        let context = Environment::separate(request.context.clone().unwrap_or_default());
        let id = format!("{}/{tool}", server.server_id);
        let verdict = if server.active {
            let asked = Asked { given: &context, facts, caller, now };
            let objects = [format!("mcp_tool:{id}"), format!("mcp_server:{}", server.server_id)];
            let relations = objects.iter().flat_map(|object| {
                ["invoker", "invoke"].map(|relation| Entity::parse(object).ok().zip(relation.parse().ok()))
            });
            let ask = |action, relation| {
                let mut one = PolicyQuestion::new(action, parties(principal, action), asked.environment());
                one.resource = Resource::new(Some("mcp_tool"), Some(&id));
                one.verb = Some(&tool);
                one.relation = relation;
                one
            };
            let whole_server = of_server(&server);
            let questions: Vec<_> = relations
                .map(|relation| ask(&action, relation))
                .chain(whole_server.iter().map(|action| ask(action, None)))
                .collect();
            any_form(&questions, self.verdicts(org, &questions).await?).1
        } else {
            Verdict::deny(DecidedBy::Default, "The MCP server is not active.")
        };
        let resource = Some(cleaned(&id));
        let audit_id =
            self.record_answer(principal, action.as_str(), resource, &verdict, caller, now).await?;
        Ok(Answer {
            remaining,
            allowed: verdict.allowed,
            action: action.to_string(),
            path: verdict.path_view(),
            decided_by: verdict.decided_by.as_str(),
            audit_id,
            approval_required: false,
            obligations: Vec::new(),
            explanation: None,
            confidence: None,
            required_scopes: None,
            reason: verdict.reason,
            context: json_object(json!({
                "type": "mcp_tool", "id": id, "server_id": server.server_id, "tool": tool,
            })),
        })
    }

    async fn charge_question(
        &self,
        org: &OrgId,
        principal: &Principal,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Remaining, ApiError> {
        match &principal.identity {
            Identity::Agent(agent) => {
                let payers = Payers::of_caller(principal, agent);
                Ok(payers.charge_call(self.stores(), org, &caller.origin, now).await??)
            }
            Identity::User(_) => Ok(Remaining::default()),
            Identity::Client(_) | Identity::ApiKey(_) => Err(FOR_AGENTS_AND_PEOPLE),
            Identity::Remote(_) => Err(ELSEWHERE),
        }
    }

    /// Writes down what was answered. The id of the entry.
    async fn record_answer(
        &self,
        principal: &Principal,
        action: &str,
        resource: Option<String>,
        verdict: &Verdict,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<String, ApiError> {
        let decision = if verdict.allowed { "allow" } else { "deny" };
        let action = cleaned(action);
        let mut event =
            Event::new(EventKind::AgentAction, principal.actor(), format!("ask {action}: {decision}"), now)
                .on(Target::new("action", &*action))
                .from_origin(&caller.origin)
                .with("action", &*action)
                .with("decision", decision)
                .with("decided_by", verdict.decided_by.as_str())
                .with("path", verdict.path_view())
                .with("reason", &*without_credentials(&verdict.reason));
        if let Some(resource) = resource {
            event = event.with("resource", resource);
        }
        event = principal.in_context(event);
        let audit_id = event.id.to_string();
        event = event.with("audit_id", &*audit_id);
        self.stores().audit.append(&principal.org, &[event]).await?;
        Ok(audit_id)
    }
}

/// The capabilities that are good for every tool of a server.
fn of_server(server: &McpServer) -> Vec<Capability> {
    let identifiers = std::iter::once(&server.resource_uri).chain(&server.aliases);
    identifiers
        .flat_map(|identifier| [Some(identifier.as_str()), identifier.as_str().strip_prefix("urn:mcp:")])
        .filter_map(|alias| Capability::parse(&format!("mcp:{}", alias?)).ok())
        .filter(|action| !action.is_wildcard())
        .collect()
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
    /// To what it is to be done.
    fn resource(&self) -> Resource<'_> {
        let text = |name: &str| self.context.get(name).and_then(Value::as_str);
        let id = text("resource_id").or_else(|| text("id")).or_else(|| text("resource"));
        Resource::new(text("resource_type"), id)
    }

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
        let malformed = |problem: String| ApiError::Invalid { member: "action", problem };
        let action = |name: &String| match Capability::parse(name) {
            Ok(action) => Ok(action),
            Err(error) => Err(malformed(format!("is malformed: {error}"))),
        };
        let actions = names.iter().map(action).collect::<Result<_, _>>()?;
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

/// A verdict, and whether a human could turn it.
struct Outcome {
    verdict: Verdict,
    approval_required: bool,
}

/// What the budgets of the chain say of the model and of the cost.
fn by_budget(principal: &Principal, question: &Question) -> Option<Outcome> {
    let deny = |reason: String, approval_required| {
        Some(Outcome { verdict: Verdict::deny(DecidedBy::Budget, reason), approval_required })
    };
    let chain: Vec<_> = principal.agents().collect();
    if let Some(model) = question.model.as_deref()
        && let Some(agent) = chain.iter().find(|agent| !agent.budget.allows_model(model))
    {
        return deny(format!("Model {model} is not allowed for agent:{}.", agent.slug), false);
    }
    if chain.iter().any(|agent| agent.budget.needs_approval(question.cost)) {
        return deny(format!("A call that costs {} USD needs a human's approval.", question.cost), true);
    }
    None
}

/// Where to ask for an approval: beside the route that was asked.
fn approval_obligation(facts: RequestFacts<'_>) -> Value {
    let prefix = facts.path.strip_suffix("/agents/ask").unwrap_or_default();
    json!({ "type": "approval_required", "method": "POST", "url": format!("{prefix}/agents/me/approvals") })
}

fn json_object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// The context as it was decided on: the server's facts under their names.
fn seen_context(
    mut context: Map<String, Value>,
    facts: RequestFacts<'_>,
    caller: &Caller,
) -> Map<String, Value> {
    context.insert("ip".to_owned(), json!(caller.origin.ip.map(|ip| ip.to_string())));
    context.insert("userAgent".to_owned(), json!(caller.origin.user_agent));
    context.insert("requestMethod".to_owned(), facts.method.into());
    context.insert("requestPath".to_owned(), facts.path.into());
    context
}
