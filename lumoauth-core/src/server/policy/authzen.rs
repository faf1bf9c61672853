//! The same decision in the form of the OpenID AuthZEN Authorization API 1.0.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ApiError, AuthorizationServer, Caller, invalid};
use crate::{
    authz::{parties, subject_parties},
    capability::Capability,
    organization::Organization,
    policy::{Environment, Question, Resource, Verdict},
    principal::{Identity, Principal},
    server::{RequestFacts, Subject, SubjectRef},
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
        let remaining = self.charge_evaluation(organization, principal, caller).await?;
        let verdict = self.evaluated(organization, principal, request, facts, caller).await?;
        Ok((view(&verdict), remaining))
    }

    /// Evaluates several questions; how far it goes is for `options` to say.
    ///
    /// # Errors
    /// As [`Self::evaluate`], and if there are more than 100.
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
            let verdict = self.evaluated(organization, principal, &whole, facts, caller).await?;
            answers.push(view(&verdict));
            if stop_at == Some(verdict.allowed) {
                break;
            }
        }
        Ok((json!({ "evaluations": answers }), remaining))
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
    ) -> Result<Verdict, ApiError> {
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
        let trusted = self.asks_about_others(principal).await?;
        let subject = self.subject(org, principal, Some(&named)).await?;
        let given = Environment::separate(request.context.clone().unwrap_or_default());
        let properties =
            request.resource.as_ref().and_then(|it| it.get("properties")).and_then(Value::as_object);
        let asked = super::Asked { given: &given, facts, caller, now: self.now() };
        let relation = self.relation_in(org, &given).await?;
        let forms = [format!("{kind}.{name}"), format!("{kind}:{name}"), name];
        let actions: Vec<_> = forms.iter().filter_map(|form| Capability::parse(form).ok()).collect();
        if actions.is_empty() {
            return Err(invalid("action", "must be made of A-Z a-z 0-9 _ . : / -"));
        }
        let own = match (&subject, &principal.identity) {
            (Subject::Agent(agent), Identity::Agent(caller)) => agent.id == caller.id,
            (Subject::User(user), Identity::User(person)) => user.id == person.user.id,
            _ => false,
        };
        let ask = |action| {
            let parties = match &subject {
                _ if own => parties(principal, action),
                Subject::Agent(agent) if agent.is_active() => subject_parties(Some(agent), None, action),
                Subject::User(user) if user.is_active() => subject_parties(None, Some(user), action),
                Subject::Agent(_) | Subject::User(_) | Subject::Caller(_) => Vec::new(),
            };
            let mut question = Question::new(action, parties, asked.environment());
            question.resource = Resource::new(Some(&kind), Some(&id));
            question.resource.given = properties.filter(|_| trusted);
            question.relation = relation.clone();
            question
        };
        let questions: Vec<_> = actions.iter().map(ask).collect();
        let verdicts = self.verdicts(org, &questions).await?;
        Ok(super::decisions::any_form(verdicts).1)
    }
}

fn view(verdict: &Verdict) -> Value {
    json!({
        "decision": verdict.allowed,
        "context": {
            "reason_admin": { "en": verdict.reason },
            "reason_user": { "en": if verdict.allowed { "Allowed." } else { "Not allowed." } },
            "decided_by": verdict.decided_by,
            "path": verdict.path_view(),
        },
    })
}
