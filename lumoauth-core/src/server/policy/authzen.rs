//! The same decision in the form of the OpenID AuthZEN Authorization API 1.0.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ApiError, AuthorizationServer, Caller, invalid};
use crate::{
    audit::{Event, EventKind, Target, cleaned},
    capability::Capability,
    organization::Organization,
    policy::{DecidedBy, Environment, Question, Resource, Verdict},
    principal::Principal,
    server::{RequestFacts, SubjectRef},
    spending::{Payers, Remaining},
};

/// One evaluation. In a batch, what is missing is taken from the batch.
#[derive(Clone, Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct AuthZenEvaluation {
    /// Who: `{"type": "user" | "agent", "id"}`.
    pub subject: Option<Map<String, Value>>,
    /// What: `{"name"}`.
    pub action: Option<Map<String, Value>>,
    /// On what: `{"type", "id", "properties"}`.
    pub resource: Option<Map<String, Value>>,
    /// What else is known.
    pub context: Option<Map<String, Value>>,
}

/// Several evaluations.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct AuthZenBatch {
    /// What those that lack something have.
    #[serde(flatten)]
    pub common: AuthZenEvaluation,
    /// 1 to 100; without any, the batch itself is one.
    pub evaluations: Option<Vec<AuthZenEvaluation>>,
    /// `{"evaluations_semantic": "execute_all" | "deny_on_first_deny" | "permit_on_first_permit"}`.
    pub options: Option<Map<String, Value>>,
}

/// An answer, and to what.
struct Evaluated {
    /// As the log names it.
    question: Value,
    verdict: Verdict,
    /// What is wrong with the question.
    error: Option<Value>,
}

impl AuthorizationServer {
    /// Evaluates one question.
    ///
    /// # Errors
    /// [`ApiError`] if a part is missing or malformed, the caller asks about somebody else without being allowed to, or the
    /// budget is used up.
    pub async fn evaluate(
        &self,
        organization: &Organization,
        principal: &Principal,
        request: &AuthZenEvaluation,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<(Value, Remaining), ApiError> {
        let one = self.evaluated(organization, principal, request, facts, caller).await?;
        let remaining = self.charge_evaluation(organization, principal, caller).await?;
        self.record_evaluations(organization, principal, std::slice::from_ref(&one), caller).await?;
        Ok((view(&one), remaining))
    }

    /// Evaluates several questions; how far it goes is for `options` to say. What is wrong with one is its answer.
    ///
    /// # Errors
    /// [`ApiError`] if there are more than 100, or the budget is used up.
    pub async fn evaluate_all(
        &self,
        organization: &Organization,
        principal: &Principal,
        batch: &AuthZenBatch,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<(Value, Remaining), ApiError> {
        let semantic = batch.options.as_ref().and_then(|options| options.get("evaluations_semantic"));
        let stop_at = match semantic.map(Value::as_str) {
            None | Some(Some("execute_all")) => None,
            Some(Some("deny_on_first_deny")) => Some(false),
            Some(Some("permit_on_first_permit")) => Some(true),
            Some(_) => return Err(invalid("options", "have an unknown evaluations_semantic")),
        };
        let evaluations = batch.evaluations.as_deref().unwrap_or_default();
        if evaluations.is_empty() {
            return self.evaluate(organization, principal, &batch.common, facts, caller).await;
        }
        if evaluations.len() > 100 {
            return Err(invalid("evaluations", "are more than 100"));
        }
        let remaining = self.charge_evaluation(organization, principal, caller).await?;
        let mut answers = Vec::with_capacity(evaluations.len());
        for evaluation in evaluations {
            let common = &batch.common;
            let either =
                |own: &Option<Map<_, _>>, other: &Option<Map<_, _>>| own.clone().or_else(|| other.clone());
            let whole = AuthZenEvaluation {
                subject: either(&evaluation.subject, &common.subject),
                action: either(&evaluation.action, &common.action),
                resource: either(&evaluation.resource, &common.resource),
                context: either(&evaluation.context, &common.context),
            };
            let evaluated = match self.evaluated(organization, principal, &whole, facts, caller).await {
                Ok(evaluated) => evaluated,
                Err(error) if error.is_outage() => return Err(error),
                Err(error) => Evaluated::wrong(&error),
            };
            let allowed = evaluated.verdict.allowed;
            answers.push(evaluated);
            if stop_at == Some(allowed) {
                break;
            }
        }
        self.record_evaluations(organization, principal, &answers, caller).await?;
        let answers: Vec<_> = answers.iter().map(view).collect();
        Ok((json!({ "evaluations": answers }), remaining))
    }

    /// What an agent asked stands in the log, as in every other form of the question.
    async fn record_evaluations(
        &self,
        organization: &Organization,
        principal: &Principal,
        answers: &[Evaluated],
        caller: &Caller,
    ) -> Result<(), ApiError> {
        let Some(agent) = principal.agent() else { return Ok(()) };
        let results = answers.iter().map(|Evaluated { question, verdict, .. }| {
            let mut told = question.clone();
            told["allowed"] = verdict.allowed.into();
            told
        });
        let event = Event::new(EventKind::AgentAction, principal.actor(), "evaluation", self.now())
            .on(Target::new("agent", agent.id.to_string()))
            .from_origin(&caller.origin)
            .with("action", "authzen.evaluation")
            .with("results", results.collect::<Value>());
        Ok(self.stores().audit.append(&organization.id, &[principal.in_context(event)]).await?)
    }

    async fn charge_evaluation(
        &self,
        organization: &Organization,
        principal: &Principal,
        caller: &Caller,
    ) -> Result<Remaining, ApiError> {
        let Some(agent) = principal.agent() else { return Ok(Remaining::default()) };
        let payers = Payers::of_caller(principal, agent);
        Ok(payers.charge_call(self.stores(), &organization.id, &caller.origin, self.now()).await??)
    }

    async fn evaluated(
        &self,
        organization: &Organization,
        principal: &Principal,
        request: &AuthZenEvaluation,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<Evaluated, ApiError> {
        let org = &organization.id;
        let text = |part: &Option<Map<String, Value>>, name: &str| {
            let text = part.as_ref().and_then(|part| part.get(name)).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let name = text(&request.action, "name").ok_or_else(|| invalid("action", "has no name"))?;
        let kind = text(&request.resource, "type").ok_or_else(|| invalid("resource", "has no type"))?;
        let id = text(&request.resource, "id").ok_or_else(|| invalid("resource", "has no id"))?;
        let named = text(&request.subject, "type").zip(text(&request.subject, "id"));
        let (subject_kind, subject_id) = named.ok_or_else(|| invalid("subject", "has no type or no id"))?;
        let named = SubjectRef::Parts { kind: subject_kind, id: subject_id.into() };
        // The word of somebody who may ask about others counts, also about the resource.
        let trusted = self.asks_about_others(principal, facts, &caller.origin).await?;
        let subject = self.subject(org, principal, Some(&named), facts, &caller.origin).await?;
        let given = Environment::separate(request.context.clone().unwrap_or_default());
        let properties =
            request.resource.as_ref().and_then(|it| it.get("properties")).and_then(Value::as_object);
        let asked = super::Asked { given: &given, facts, caller, now: self.now() };
        let relation = self.relation_in(org, &given).await?;
        let forms = [format!("{kind}.{name}"), format!("{kind}:{name}"), name];
        let actions = forms.iter().filter_map(|form| Capability::parse(form).ok());
        let actions: Vec<_> = actions.filter(|action| !action.is_wildcard()).collect();
        if actions.is_empty() {
            return Err(invalid("action", "must be made of A-Z a-z 0-9 _ . : / -"));
        }
        let ask = |action| {
            let parties = subject.parties(principal, action);
            let mut question = Question::new(action, parties, asked.environment());
            question.resource = Resource::new(Some(&kind), Some(&id));
            question.resource.given = properties.filter(|_| trusted);
            question.relation = relation.clone();
            question
        };
        let questions: Vec<_> = actions.iter().map(ask).collect();
        let verdicts = self.verdicts(org, &questions).await?;
        let question = json!({
            "subject": { "type": subject.kind(), "id": subject.id() },
            "action": cleaned(&forms[0]),
            "resource": cleaned(&id),
        });
        let verdict = super::decisions::any_form(&questions, verdicts).1;
        Ok(Evaluated { question, verdict, error: None })
    }
}

impl Evaluated {
    /// Nobody may do what makes no sense.
    fn wrong(error: &ApiError) -> Self {
        let wire = error.to_wire();
        let verdict = Verdict::deny(DecidedBy::Default, wire.description.to_string());
        let error = json!({ "status": wire.status.as_u16(), "message": verdict.reason });
        Self { question: json!({ "error": error["message"] }), verdict, error: Some(error) }
    }
}

fn view(Evaluated { verdict, error, .. }: &Evaluated) -> Value {
    let mut view = json!({
        "decision": verdict.allowed,
        "context": {
            "reason_admin": { "en": verdict.reason },
            "reason_user": { "en": if verdict.allowed { "Allowed." } else { "Not allowed." } },
            "decided_by": verdict.decided_by,
            "path": verdict.path_view(),
        },
    });
    if let Some(error) = error {
        view["context"]["error"] = error.clone();
    }
    view
}
