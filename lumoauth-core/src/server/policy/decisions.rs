//! One decision: the engine's, within the bounds that no engine moves.

use serde_json::{Map, Value};

use super::{ApiError, AuthorizationServer, Caller};
use crate::{
    audit::Origin,
    authz::{parties, subject_parties},
    capability::{Capability, DenyReason},
    clock::Timestamp,
    id::{Label, OrgId},
    policy::{DecidedBy, Entity, Environment, Party, Question, Verdict},
    principal::Principal,
    server::RequestFacts,
    user::User,
};

/// A request for decisions: where it comes from, and what the caller says about it.
pub(in crate::server) struct Asked<'a> {
    pub(in crate::server) given: &'a Map<String, Value>,
    pub(in crate::server) facts: RequestFacts<'a>,
    pub(in crate::server) caller: &'a Caller,
    pub(in crate::server) now: Timestamp,
}

impl<'a> Asked<'a> {
    pub(in crate::server) fn environment(&self) -> Environment<'a> {
        environment(self.given, self.facts, &self.caller.origin, self.now)
    }
}

fn environment<'a>(
    given: &'a Map<String, Value>,
    facts: RequestFacts<'a>,
    origin: &'a Origin,
    now: Timestamp,
) -> Environment<'a> {
    let (ip, user_agent) = (origin.ip, origin.user_agent.as_deref());
    Environment { given, ip, user_agent, method: facts.method, path: facts.path, now }
}

impl AuthorizationServer {
    /// The answers to `questions`, in their order. There are as many.
    pub(in crate::server) async fn verdicts(
        &self,
        org: &OrgId,
        questions: &[Question<'_>],
    ) -> Result<Vec<Verdict>, ApiError> {
        let answers = self.inner.authorizer.decide(org, questions).await?;
        let mut answers = answers.into_iter();
        let bounded = |question: &Question<'_>| {
            let answer = answers.next();
            let answer = answer.unwrap_or_else(|| Verdict::deny(DecidedBy::Default, "It was not decided."));
            match question.out_of_bounds() {
                Some(refusal) if answer.allowed => refusal,
                _ => answer,
            }
        };
        Ok(questions.iter().map(bounded).collect())
    }

    /// Whether somebody in person has this permission, for the request that they make; administrators have it whatever
    /// application they use.
    pub(in crate::server) async fn holds_permission(
        &self,
        principal: &Principal,
        permission: &'static str,
        facts: RequestFacts<'_>,
        origin: &Origin,
    ) -> Result<bool, ApiError> {
        Ok(self.permission_of(principal, permission, facts, origin).await?.is_some())
    }

    /// By what somebody in person has this permission, for the request that they make.
    pub(in crate::server) async fn permission_of(
        &self,
        principal: &Principal,
        permission: &'static str,
        facts: RequestFacts<'_>,
        origin: &Origin,
    ) -> Result<Option<DecidedBy>, ApiError> {
        if principal.person().is_none() {
            return Ok(None);
        }
        let parties = |action: &Capability| parties(principal, action);
        self.permitted(&principal.org, permission, parties, facts, origin).await
    }

    /// By what a person has this permission, in person and whatever application they use, for the request that they make.
    pub(in crate::server) async fn permitted_by(
        &self,
        org: &OrgId,
        user: &User,
        permission: &'static str,
        facts: RequestFacts<'_>,
        origin: &Origin,
    ) -> Result<Option<DecidedBy>, ApiError> {
        let parties = |action: &Capability| subject_parties(None, Some(user), action);
        self.permitted(org, permission, parties, facts, origin).await
    }

    async fn permitted<'a>(
        &self,
        org: &OrgId,
        permission: &'static str,
        parties: impl FnOnce(&Capability) -> Vec<Party<'a>> + Send,
        facts: RequestFacts<'_>,
        origin: &Origin,
    ) -> Result<Option<DecidedBy>, ApiError> {
        let Ok(action) = Capability::parse(permission) else { return Ok(None) };
        let given = Map::new();
        let environment = environment(&given, facts, origin, self.now());
        let question = Question::new(&action, parties(&action), environment);
        let verdicts = self.verdicts(org, &[question]).await?;
        Ok(verdicts.first().filter(|verdict| verdict.allowed).map(|verdict| verdict.decided_by))
    }

    /// `text` as an object or a subject of relations. An agent by its slug is the agent that has it now, so that no later
    /// one of that name inherits anything.
    pub(in crate::server) async fn entity(
        &self,
        org: &OrgId,
        text: &str,
    ) -> Result<Option<Entity>, ApiError> {
        let Ok(entity) = Entity::parse(text) else { return Ok(None) };
        let found = match (entity.namespace(), entity.id()) {
            ("agent", name) => self.find_agent(org, name).await?.map(|agent| format!("agent:{}", agent.id)),
            // A person by e-mail address or number.
            ("user", name) if name.contains('@') || name.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.find_user(org, name).await?.map(|user| format!("user:{}", user.id))
            }
            _ => None,
        };
        Ok(Some(found.and_then(|text| Entity::parse(&text).ok()).unwrap_or(entity)))
    }

    /// The relation that `context` asks about, if it has `object` and `relation`. What is not well-formed is no relation.
    pub(in crate::server) async fn relation_in(
        &self,
        org: &OrgId,
        context: &Map<String, Value>,
    ) -> Result<Option<(Entity, Label)>, ApiError> {
        let text = |name: &str| context.get(name).and_then(Value::as_str);
        let (Some(object), Some(relation)) = (text("object"), text("relation")) else { return Ok(None) };
        let entity = self.entity(org, object).await?;
        Ok(entity.zip(Label::parse(relation).ok()))
    }
}

/// The verdict about an action that has several forms, and the place of the form it is about. What stops one form stops
/// all: a policy that denies it, a list of tools, and a token that leaves it out, unless the token covers another form.
/// Otherwise any that is allowed is enough, and of several refusals the first one counts.
pub(in crate::server) fn any_form(questions: &[Question<'_>], verdicts: Vec<Verdict>) -> (usize, Verdict) {
    let stopped_by = |reason| questions.iter().position(|question| question.is_stopped_by(reason));
    let denied =
        verdicts.iter().position(|verdict| !verdict.allowed && verdict.decided_by == DecidedBy::Abac);
    let allowed = verdicts.iter().position(|verdict| verdict.allowed);
    let in_token =
        questions.iter().zip(&verdicts).any(|(question, verdict)| verdict.allowed && question.is_in_scope());
    let place = denied
        .or_else(|| stopped_by(DenyReason::ToolNotAllowed))
        .or_else(|| stopped_by(DenyReason::NotInToken).filter(|_| !in_token))
        .or(allowed)
        .unwrap_or(0);
    let verdict = verdicts.into_iter().nth(place);
    (place, verdict.unwrap_or_else(|| Verdict::deny(DecidedBy::Default, "It was not decided.")))
}
