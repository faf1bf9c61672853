//! Permission checks: a yes or no, for the caller or (with `authz:check`) for somebody else.

use std::{collections::HashSet, future::poll_fn, sync::Arc, task::Poll};

use serde::Deserialize;
use serde_json::Value;

use super::{
    ApiError, AuthorizationServer, Caller, RequestFacts,
    error::ELSEWHERE,
    policy::{Asked, sources_of_permissions, system_permissions},
};
use crate::{
    agent::Agent,
    audit::{Event, EventKind, Origin, Target, cleaned},
    authorize::still_allowed,
    authz::{parties, subject_parties},
    capability::{Capability, Scope},
    id::OrgId,
    organization::Organization,
    policy::{DecidedBy, Environment, Holder, Party, Question, Resource, Verdict},
    principal::{Identity, Person, Principal, agent_actor},
    spending::{Payers, Remaining},
    store::UserKey,
    user::User,
};

/// A check of one or several permissions.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct CheckRequest {
    /// The permission of a single check.
    pub permission: Option<Value>,
    /// The permissions of a bulk, any or all check.
    pub permissions: Option<Value>,
    /// What it is about; echoed.
    pub context: Option<serde_json::Map<String, Value>>,
    /// Who it is about; the caller if absent.
    pub subject: Option<SubjectRef>,
}

/// How a request names a subject.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
#[expect(clippy::exhaustive_enums, reason = "the wire has these two forms")]
pub enum SubjectRef {
    /// `agent:<slug>` or `user:<id>`.
    Text(String),
    /// The two parts apart.
    Parts {
        /// `agent` or `user`.
        #[serde(rename = "type")]
        kind: String,
        /// The id.
        id: Value,
    },
}

/// Who a check is about.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "every sort of subject is decided differently")]
pub enum Subject {
    /// An agent.
    Agent(Arc<Agent>),
    /// A person.
    User(Arc<User>),
    /// A caller that is neither, about itself.
    Caller(String),
}

impl Subject {
    /// The wire name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Agent(_) => "agent",
            Self::User(_) => "user",
            Self::Caller(_) => "client",
        }
    }

    /// Its id.
    pub fn id(&self) -> String {
        match self {
            Self::Agent(agent) => agent.id.to_string(),
            Self::User(user) => user.id.to_string(),
            Self::Caller(id) => id.clone(),
        }
    }

    /// Who must be able to do what `principal` asks about: of itself an agent holds what its token covers; of others the whole
    /// of what they have counts. Whoever is stopped has nothing.
    pub(super) fn parties<'a>(&'a self, principal: &'a Principal, action: &Capability) -> Vec<Party<'a>> {
        match (self, &principal.identity) {
            (Self::Agent(one), Identity::Agent(caller)) if one.id == caller.id => parties(principal, action),
            (Self::User(one), Identity::User(caller)) if one.id == caller.user.id => {
                parties(principal, action)
            }
            (Self::Caller(_), _) => parties(principal, action),
            (Self::Agent(agent), _) if agent.is_active() => subject_parties(Some(agent), None, action),
            (Self::User(user), _) if user.is_active() => subject_parties(None, Some(user), action),
            (Self::Agent(_) | Self::User(_), _) => Vec::new(),
        }
    }
}

/// The answers, in the order of the questions.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a result, read by transports")]
pub struct Checked {
    /// Who it was about.
    pub subject: Subject,
    /// Each permission and whether it is held.
    pub results: Vec<(String, bool)>,
    /// Why, in the same order.
    pub verdicts: Vec<Verdict>,
    /// What is left of the caller's budget, if it has one.
    pub remaining: Remaining,
}

/// The most permissions that one check is about.
const MOST_AT_ONCE: usize = 100;

/// A permission that a caller holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Permission {
    /// The permission.
    pub slug: Capability,
    /// A sentence about it.
    pub description: String,
    /// Where it comes from.
    pub source: String,
}

impl CheckRequest {
    /// The one permission of a single check.
    ///
    /// # Errors
    /// [`ApiError::MissingPermission`] if there is none.
    pub fn single(&self) -> Result<Vec<String>, ApiError> {
        match &self.permission {
            Some(Value::String(text)) if !text.is_empty() => Ok(vec![text.clone()]),
            _ => Err(ApiError::MissingPermission),
        }
    }

    /// The 1 to 100 permissions of another check.
    ///
    /// # Errors
    /// [`ApiError::InvalidPermissions`] for anything else.
    pub fn several(&self) -> Result<Vec<String>, ApiError> {
        let Some(Value::Array(items)) = &self.permissions else { return Err(ApiError::InvalidPermissions) };
        if !(1..=MOST_AT_ONCE).contains(&items.len()) {
            return Err(ApiError::InvalidPermissions);
        }
        items
            .iter()
            .map(|item| item.as_str().map(ToOwned::to_owned).ok_or(ApiError::InvalidPermissions))
            .collect()
    }
}

impl AuthorizationServer {
    /// Decides each of `permissions`, which are those of `request`, for its subject. A permission that is not one is held by
    /// nobody.
    ///
    /// An agent that asks is charged one API call, however many permissions it asks about.
    ///
    /// # Errors
    /// [`ApiError`] if the caller may not ask about this subject, there is none, or the budget is used up.
    pub async fn check(
        &self,
        organization: &Organization,
        principal: &Principal,
        permissions: &[String],
        request: &CheckRequest,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<Checked, ApiError> {
        let now = self.now();
        let org = &organization.id;
        let subject = self.subject(org, principal, request.subject.as_ref(), facts, &caller.origin).await?;
        let mut remaining = Remaining::default();
        if let Some(agent) = principal.agent() {
            remaining = Payers::of_caller(principal, agent)
                .charge_call(self.stores(), org, &caller.origin, now)
                .await??;
        }
        let given = Environment::separate(request.context.clone().unwrap_or_default());
        let asked = Asked { given: &given, facts, caller, now };
        let relation = self.relation_in(org, &given).await?;
        let text = |name: &str| given.get(name).and_then(Value::as_str);
        let ask = |action| {
            let parties = subject.parties(principal, action);
            let mut question = Question::new(action, parties, asked.environment());
            let id = text("resource_id").or_else(|| text("id"));
            question.resource = Resource::new(text("resource_type"), id);
            question.relation.clone_from(&relation);
            question
        };
        // Whoever may do some of it may not do all.
        let one = |text: &String| Capability::parse(text).ok().filter(|action| !action.is_wildcard());
        let actions: Vec<_> = permissions.iter().map(one).collect();
        let questions: Vec<_> = actions.iter().flatten().map(ask).collect();
        let mut verdicts = self.verdicts(org, &questions).await?.into_iter();
        let mut verdict = |action: &Option<Capability>| {
            let verdict = action.as_ref().and_then(|_| verdicts.next());
            verdict.unwrap_or_else(|| Verdict::deny(DecidedBy::Default, "There can be no such permission."))
        };
        let verdicts: Vec<_> = actions.iter().map(&mut verdict).collect();
        let results: Vec<_> = permissions
            .iter()
            .zip(&verdicts)
            .map(|(text, verdict)| (text.clone(), verdict.allowed))
            .collect();
        if let Some(agent) = principal.agent() {
            let answers: serde_json::Map<_, _> = results
                .iter()
                .map(|(name, allowed)| (cleaned(name).chars().take(128).collect(), (*allowed).into()))
                .collect();
            let event = Event::new(EventKind::AgentAction, agent_actor(agent), "permission check", now)
                .on(Target::new(subject.kind(), subject.id()))
                .from_origin(&caller.origin)
                .with("action", "authz.check")
                .with("results", answers);
            self.stores().audit.append(org, &[principal.in_context(event)]).await?;
        }
        Ok(Checked { subject, results, verdicts, remaining })
    }

    /// The permissions of the caller, each as a check of it without context says. API keys act for nobody in particular and
    /// have no list.
    ///
    /// # Errors
    /// [`ApiError::InsufficientScope`] for an API key, and for a person's token without `authz:read`.
    pub async fn permissions(
        &self,
        principal: &Principal,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<Vec<Permission>, ApiError> {
        let lacking = |granted: &[Capability]| ApiError::InsufficientScope {
            required: vec![PERMISSION_LIST.to_owned()],
            granted: granted.iter().map(ToString::to_string).collect(),
        };
        let listed = |capabilities: &[Capability], source: &str| -> Vec<Permission> {
            capabilities
                .iter()
                .filter(|capability| principal.decide(capability).is_allow())
                .map(|slug| Permission {
                    slug: slug.clone(),
                    description: String::new(),
                    source: source.to_owned(),
                })
                .collect()
        };
        let (mut own, holder) = match &principal.identity {
            Identity::Agent(agent) => {
                // Who acts for somebody has what its token says.
                let holder = principal.delegation.is_none().then_some(Holder::Agent(agent.id));
                (listed(&agent.capabilities, "capability"), holder)
            }
            Identity::Client(client) => (listed(&client.allowed_scopes, "client"), None),
            Identity::User(person) => {
                let scope = principal.token_scope().unwrap_or_default();
                if !reads_permissions(person, scope) {
                    return Err(lacking(scope));
                }
                let holder = person.acts_in_person().then_some(Holder::User(person.user.id));
                (listed(scope, "consent"), holder)
            }
            Identity::ApiKey(key) => return Err(lacking(&key.scopes)),
            Identity::Remote(_) => return Err(ELSEWHERE),
        };
        let administers = match &principal.identity {
            Identity::User(person) => person.user.is_admin && person.acts_in_person(),
            _ => false,
        };
        let mut seen: HashSet<_> = own.iter().map(|one| one.slug.clone()).collect();
        let granted = self.policy_of(&principal.org).await?.read(|snapshot| {
            if matches!(principal.identity, Identity::User(_)) {
                // Agreeing gives nobody what is listed as a permission.
                own.retain(|permission| !snapshot.lists(&permission.slug));
            }
            let mut granted = match &holder {
                Some(holder) => sources_of_permissions(snapshot, holder, &mut seen),
                None => Vec::new(),
            };
            if administers {
                granted.extend(system_permissions(&mut seen));
            }
            granted
        });
        own.extend(granted.into_iter().map(|(slug, description, source)| Permission {
            slug,
            description,
            source,
        }));
        self.held_of(principal, own, facts, caller).await
    }

    /// Those of `listed` that checks without context say yes to, as many at a time as one check may be about: whoever
    /// changes the policy or asks something else does not wait for all of them.
    async fn held_of(
        &self,
        principal: &Principal,
        listed: Vec<Permission>,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<Vec<Permission>, ApiError> {
        let given = serde_json::Map::new();
        let asked = Asked { given: &given, facts, caller, now: self.now() };
        let mut held = Vec::with_capacity(listed.len());
        let mut listed = listed.into_iter();
        loop {
            let some: Vec<_> = listed.by_ref().take(MOST_AT_ONCE).collect();
            if some.is_empty() {
                return Ok(held);
            }
            let verdicts = {
                let questions: Vec<_> = some
                    .iter()
                    .map(|one| Question::new(&one.slug, parties(principal, &one.slug), asked.environment()))
                    .collect();
                self.verdicts(&principal.org, &questions).await?
            };
            let decided = some.into_iter().zip(verdicts);
            held.extend(decided.filter(|(_, verdict)| verdict.allowed).map(|(permission, _)| permission));
            breathe().await;
        }
    }

    pub(super) async fn subject(
        &self,
        org: &OrgId,
        principal: &Principal,
        named: Option<&SubjectRef>,
        facts: RequestFacts<'_>,
        origin: &Origin,
    ) -> Result<Subject, ApiError> {
        let Some(named) = named else {
            return match &principal.identity {
                Identity::Agent(agent) => Ok(Subject::Agent(agent.clone())),
                Identity::Client(client) => Ok(Subject::Caller(client.client_id.to_string())),
                Identity::User(person) => Ok(Subject::User(person.user.clone())),
                Identity::Remote(_) => Err(ELSEWHERE),
                Identity::ApiKey(key) => match key.created_by {
                    None => Ok(Subject::Caller(key.number.to_string())),
                    Some(id) => self
                        .stores()
                        .users
                        .find(org, UserKey::Id(id))
                        .await?
                        .map(Subject::User)
                        .ok_or(ApiError::SubjectNotFound),
                },
            };
        };
        let (kind, id) = named.parts()?;
        // Whether a subject exists is told only to those who may ask about it.
        let itself = match (&principal.identity, kind) {
            (Identity::Agent(agent), "agent") => [agent.id.to_string(), agent.id.uuid().to_string()]
                .iter()
                .map(String::as_str)
                .chain([agent.slug.as_str(), agent.client_id.as_str()])
                .any(|own| own == id),
            (Identity::User(person), "user") if person.acts_in_person() => person.user.id.to_string() == id,
            // For whom it is asked if nobody is named.
            (Identity::ApiKey(key), "user") => key.created_by.is_some_and(|user| user.to_string() == id),
            _ => false,
        };
        if !itself && !self.asks_about_others(principal, facts, origin).await? {
            return Err(ApiError::InsufficientPermissions);
        }
        match (&principal.identity, kind) {
            (Identity::Agent(agent), "agent") if itself => Ok(Subject::Agent(agent.clone())),
            (Identity::User(person), "user") if itself => Ok(Subject::User(person.user.clone())),
            (_, "agent") => {
                self.find_agent(org, &id).await?.map(Subject::Agent).ok_or(ApiError::SubjectNotFound)
            }
            (_, "user") => {
                self.find_user(org, &id).await?.map(Subject::User).ok_or(ApiError::SubjectNotFound)
            }
            _ => Err(ApiError::SubjectNotFound),
        }
    }
}

/// Lets others have their turn.
async fn breathe() {
    let mut waited = false;
    poll_fn(|context| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The scope by which a person's token tells what it is good for.
const PERMISSION_LIST: &str = "authz:read";

/// Whether a person's token with `scope` has [`PERMISSION_LIST`], or `admin` which satisfies it, and its client may still
/// have that.
pub(super) fn reads_permissions(person: &Person, scope: &[Capability]) -> bool {
    let scope = still_allowed(&person.client, None, &Scope::new(scope.iter().cloned()));
    let wanted = Capability::parse(PERMISSION_LIST);
    let satisfies = |item: &Capability| {
        item.as_str() == "admin" || wanted.as_ref().is_ok_and(|wanted| item.covers(wanted))
    };
    scope.as_slice().iter().any(satisfies)
}

impl SubjectRef {
    /// Kind and id. A bare slug, an agent's id and the older `agent_<id>` name agents too.
    fn parts(&self) -> Result<(&str, String), ApiError> {
        let malformed =
            || ApiError::Invalid { member: "subject", problem: "must name an agent or a user".to_owned() };
        let (kind, id) = match self {
            Self::Text(text) => text.split_once(':').unwrap_or(("agent", text)),
            Self::Parts { kind, id } => match id {
                Value::String(text) => {
                    let text = text.strip_prefix("agent:").or(text.strip_prefix("user:")).unwrap_or(text);
                    (kind.as_str(), text)
                }
                Value::Number(number) => return Ok((kind, number.to_string())),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return Err(malformed()),
            },
        };
        let bare = id.strip_prefix("agent_").filter(|_| kind == "agent");
        Ok((kind, bare.unwrap_or(id).to_owned()))
    }
}
