//! Relations: what is written down, and what follows from it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, AuthorizationServer, Caller, Plan, Shows, invalid};
use crate::{
    audit::{Event, EventKind, Origin, Target},
    authz::Kept,
    capability::Capability,
    id::{Label, OrgId},
    organization::Organization,
    policy::{
        Check, DecidedBy, Entity, Entry, ExpandedNode, Namespace, Reached, RecordKind, Rewrite, Snapshot,
        Subject, Tuple,
    },
    principal::{Identity, Principal},
    secret::sha256,
    server::RequestFacts,
    spending::{Payers, Remaining},
};

/// A question about relations, or a tuple: `object`, `relation`, `subject`, or the parts apart.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct RelationRequest {
    /// `namespace:id`.
    pub object: Option<String>,
    /// The relation.
    pub relation: Option<String>,
    /// `namespace:id` or `namespace:id#relation`.
    pub subject: Option<String>,
    /// Another name of the subject: tuples that were read have both.
    pub user: Option<String>,
    /// The namespace of the object.
    #[serde(alias = "objectType", alias = "namespace")]
    pub object_type: Option<String>,
    /// The id of the object.
    #[serde(alias = "objectId")]
    pub object_id: Option<String>,
    /// The namespace of the subject.
    #[serde(alias = "userType", alias = "subject_type", alias = "subjectType")]
    pub user_type: Option<String>,
    /// The id of the subject.
    #[serde(alias = "userId", alias = "subject_id", alias = "subjectId")]
    pub user_id: Option<String>,
    /// If the subject is a set: the relation of its members.
    #[serde(alias = "userRelation", alias = "subject_relation", alias = "subjectRelation")]
    pub user_relation: Option<String>,
    /// An answer that is at least as new as this token of an earlier one.
    #[serde(alias = "consistencyToken", alias = "zookie")]
    pub consistency_token: Option<String>,
}

/// The rules of a namespace.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct NamespaceRequest {
    /// Its relations; see [`Rewrite`].
    pub relations: Option<BTreeMap<String, Rewrite>>,
}

/// An answer, and the token of what it was decided on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Consistent<T> {
    /// The answer.
    pub answer: T,
    /// Proof of how new it is, for [`RelationRequest::consistency_token`].
    pub token: String,
    /// What is left of the caller's budget, if it has one.
    pub remaining: Remaining,
}

pub(super) const UNKNOWN: ApiError = ApiError::RelationCheckFailed;

/// The revision, and whose it is: revisions of two organizations say nothing of each other.
pub(super) fn token(org: &OrgId, revision: u64) -> String {
    let [a, b, c, d, ..] = sha256(org.as_str().as_bytes());
    format!("zk_{revision:x}_{:08x}", u32::from_be_bytes([a, b, c, d]))
}

impl RelationRequest {
    pub(super) fn object(&self) -> Result<Option<String>, ApiError> {
        let parts = match (present(&self.object_type), present(&self.object_id)) {
            (Some(namespace), Some(id)) => Some(format!("{namespace}:{id}")),
            (None, Some(_)) if present(&self.object).is_none() => return Err(ApiError::MissingFields),
            _ => None,
        };
        the_one([present(&self.object).map(str::to_owned), parts])
    }

    pub(super) fn subject(&self) -> Result<Option<String>, ApiError> {
        let whole = [present(&self.subject), present(&self.user)].map(|text| text.map(str::to_owned));
        let parts = match (present(&self.user_type), present(&self.user_id), present(&self.user_relation)) {
            (Some(namespace), Some(id), None) => Some(format!("{namespace}:{id}")),
            (Some(namespace), Some(id), Some(relation)) => Some(format!("{namespace}:{id}#{relation}")),
            (_, None, None) => None,
            // Half a name is none, and is no reason to answer about everybody.
            _ if whole.iter().all(Option::is_none) => return Err(ApiError::MissingFields),
            _ => None,
        };
        let [subject, user] = whole;
        the_one([subject, user, parts])
    }

    pub(super) fn names_something(&self) -> bool {
        [&self.object, &self.relation, &self.subject, &self.user, &self.object_id, &self.user_id]
            .into_iter()
            .any(|member| present(member).is_some())
    }
}

fn present(member: &Option<String>) -> Option<&str> {
    member.as_deref().filter(|text| !text.is_empty())
}

/// What is named in several ways, if it is the same in all of them.
fn the_one<const N: usize>(named: [Option<String>; N]) -> Result<Option<String>, ApiError> {
    let mut named = named.into_iter().flatten();
    let Some(first) = named.next() else { return Ok(None) };
    if named.all(|other| other == first) { Ok(Some(first)) } else { Err(UNKNOWN) }
}

impl AuthorizationServer {
    /// Whether a subject stands in a relation to an object.
    ///
    /// An agent that asks is charged one API call.
    ///
    /// # Errors
    /// [`ApiError`] if something is missing or malformed, the namespace or the relation is unknown, the caller asks about
    /// somebody else without being allowed to, or the budget is used up.
    pub async fn relation_check(
        &self,
        organization: &Organization,
        principal: &Principal,
        request: &RelationRequest,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<Consistent<Check>, ApiError> {
        let org = &organization.id;
        let (object, relation) = self.object_and_relation(org, request).await?;
        let subject = request.subject()?.ok_or(ApiError::MissingFields)?;
        let subject = self.subject_of_relation(org, &subject).await?;
        self.may_ask_about(principal, Some(&subject), facts, caller).await?;
        let remaining = self.charged(org, principal, caller).await?;
        let kept = self.consistent(org, request).await?;
        let (answer, revision) = kept.read(|snapshot| {
            known(snapshot, &object, &relation)?;
            Ok::<_, ApiError>((snapshot.check(&object, &relation, &subject), snapshot.revision()))
        })?;
        if principal.agent().is_some() {
            let tuple = Tuple { object, relation, subject };
            let event = Event::new(EventKind::AgentAction, principal.actor(), "relation check", self.now())
                .on(Target::new("relation", tuple.to_string()))
                .from_origin(&caller.origin)
                .with("action", "zanzibar.check")
                .with("allowed", answer.is_held());
            self.stores().audit.append(org, &[principal.in_context(event)]).await?;
        }
        Ok(Consistent { answer, token: token(org, revision), remaining })
    }

    /// Everybody who stands in a relation to an object.
    ///
    /// # Errors
    /// [`ApiError`] as for [`Self::relation_check`]; asking is for those who may ask about others.
    pub async fn relation_expand(
        &self,
        organization: &Organization,
        principal: &Principal,
        request: &RelationRequest,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<Consistent<ExpandedNode>, ApiError> {
        let org = &organization.id;
        let (object, relation) = self.object_and_relation(org, request).await?;
        self.may_ask_about(principal, None, facts, caller).await?;
        let remaining = self.charged(org, principal, caller).await?;
        let kept = self.consistent(org, request).await?;
        let (answer, revision) = kept.read(|snapshot| {
            known(snapshot, &object, &relation)?;
            Ok::<_, ApiError>((snapshot.expand(&object, &relation), snapshot.revision()))
        })?;
        Ok(Consistent { answer, token: token(org, revision), remaining })
    }

    /// The objects of a namespace (`object_type`) to which a subject stands in a relation, at most 1000.
    ///
    /// # Errors
    /// [`ApiError`] as for [`Self::relation_check`].
    pub async fn relation_objects(
        &self,
        organization: &Organization,
        principal: &Principal,
        request: &RelationRequest,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<Consistent<Reached>, ApiError> {
        let org = &organization.id;
        let namespace = request.object_type.as_deref().ok_or(ApiError::MissingFields)?;
        let relation = request.relation.as_deref().ok_or(ApiError::MissingFields)?;
        let relation = Label::parse(relation).map_err(|_| UNKNOWN)?;
        let subject = request.subject()?.ok_or(ApiError::MissingFields)?;
        let subject = self.subject_of_relation(org, &subject).await?;
        self.may_ask_about(principal, Some(&subject), facts, caller).await?;
        let remaining = self.charged(org, principal, caller).await?;
        let kept = self.consistent(org, request).await?;
        let (answer, revision) = kept.read(|snapshot| {
            if !snapshot.knows_relation(namespace, relation.as_str()) {
                return Err(UNKNOWN);
            }
            Ok((snapshot.reached(&subject, &relation, namespace, 1000), snapshot.revision()))
        })?;
        if principal.agent().is_some() {
            let event =
                Event::new(EventKind::AgentAction, principal.actor(), "objects of a relation", self.now())
                    .on(Target::new("relation", format!("{namespace}#{relation}@{subject}")))
                    .from_origin(&caller.origin)
                    .with("action", "zanzibar.objects")
                    .with("objects", answer.objects.len());
            self.stores().audit.append(org, &[principal.in_context(event)]).await?;
        }
        Ok(Consistent { answer, token: token(org, revision), remaining })
    }

    /// The namespaces that the organization defined.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn namespaces(&self, org: &OrgId) -> Result<Vec<Namespace>, ApiError> {
        self.with_policy(org, |snapshot| {
            let all = snapshot.all(RecordKind::Namespace).filter_map(|entry| match entry {
                Entry::Namespace(namespace) => Some(namespace.clone()),
                _ => None,
            });
            all.collect()
        })
        .await
    }

    /// Defines a namespace, or defines it anew.
    ///
    /// # Errors
    /// [`ApiError`] if the rules make no sense.
    pub async fn define_namespace(
        &self,
        org: &OrgId,
        name: &str,
        request: &NamespaceRequest,
        caller: &Caller,
    ) -> Result<Namespace, ApiError> {
        let name = super::label("name", Some(name), "")?;
        let rules = request.relations.iter().flatten();
        let rules = rules.map(|(name, rule)| Ok((super::label("relations", Some(name), "")?, rule.clone())));
        let rules = rules.collect::<Result<BTreeMap<Label, Rewrite>, ApiError>>()?;
        let namespace =
            Namespace::new(name, rules).map_err(|error| invalid("relations", error.to_string()))?;
        let plan = |snapshot: &Snapshot| {
            let target = Target::new("namespace", namespace.name.as_str());
            let plan = Plan::new(EventKind::NamespaceWritten, "namespace defined", target, namespace.clone());
            let entry = Entry::Namespace(namespace.clone());
            let plan = match snapshot.find(&entry.id()) {
                Some((_, found)) if *found == entry => return Ok(plan),
                Some((_, Entry::Namespace(old))) => plan.changed(&told(old), &told(&namespace)),
                _ => plan.made(told(&namespace)),
            };
            Ok(plan.with("relations", json!(namespace.relations)).put(snapshot, &entry))
        };
        self.change_policy(org, caller, plan).await.map(|(namespace, _)| namespace)
    }

    /// Removes the definition of a namespace: the usual rules hold again.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn remove_namespace(&self, org: &OrgId, name: &str, caller: &Caller) -> Result<(), ApiError> {
        let missing = || ApiError::NotFound("namespace");
        let name = Label::parse(name).map_err(|_| missing())?;
        let plan = |snapshot: &Snapshot| {
            let Some((_, entry)) = snapshot.find(&Namespace::record_id(&name)) else { return Err(missing()) };
            let target = Target::new("namespace", name.as_str());
            let plan = Plan::new(EventKind::NamespaceDeleted, "namespace removed", target, ());
            let plan = if let Entry::Namespace(old) = entry { plan.gone(told(old)) } else { plan };
            Ok(plan.remove(snapshot, entry))
        };
        self.change_policy(org, caller, plan).await.map(|((), _)| ())
    }

    pub(super) async fn object_and_relation(
        &self,
        org: &OrgId,
        request: &RelationRequest,
    ) -> Result<(Entity, Label), ApiError> {
        let object = request.object()?.ok_or(ApiError::MissingFields)?;
        let relation = request.relation.as_deref().filter(|text| !text.is_empty());
        let relation = relation.ok_or(ApiError::MissingFields)?;
        let object = self.entity(org, &object).await?.ok_or(UNKNOWN)?;
        Ok((object, Label::parse(relation).map_err(|_| UNKNOWN)?))
    }

    pub(super) async fn subject_of_relation(&self, org: &OrgId, text: &str) -> Result<Subject, ApiError> {
        let subject = Subject::parse(text).map_err(|_| UNKNOWN)?;
        let entity = self.entity(org, subject.entity.as_str()).await?.ok_or(UNKNOWN)?;
        Ok(Subject { entity, ..subject })
    }

    /// Whether the caller may ask about `subject`: about itself anybody may; about others and about everybody, people and
    /// keys with the scope `authz:check`, and people with the permission `authz.check`.
    async fn may_ask_about(
        &self,
        principal: &Principal,
        subject: Option<&Subject>,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<(), ApiError> {
        let own = match &principal.identity {
            Identity::Agent(agent) => Some(format!("agent:{}", agent.id)),
            Identity::User(person) => Some(format!("user:{}", person.user.id)),
            Identity::Client(_) | Identity::ApiKey(_) | Identity::Remote(_) => None,
        };
        let itself = subject.is_some_and(|subject| Some(subject.to_string()) == own);
        if itself || self.asks_about_others(principal, facts, &caller.origin).await? {
            return Ok(());
        }
        Err(ApiError::InsufficientPermissions)
    }

    /// Whether the caller may ask what others may do. It is a door for people and keys: whatever its capabilities, an agent
    /// asks about itself. The permission counts for whoever has it by name; to be an administrator counts with the scope only,
    /// as it does for everything that is administered.
    pub(in crate::server) async fn asks_about_others(
        &self,
        principal: &Principal,
        facts: RequestFacts<'_>,
        origin: &Origin,
    ) -> Result<bool, ApiError> {
        let scope = Capability::parse("authz:check").is_ok_and(|scope| principal.decide(&scope).is_allow());
        if principal.agent().is_some() {
            return Ok(false);
        }
        if scope {
            return Ok(true);
        }
        let permission = self.permission_of(principal, "authz.check", facts, origin).await?;
        Ok(permission.is_some_and(|by| by != DecidedBy::Administrator))
    }

    async fn charged(
        &self,
        org: &OrgId,
        principal: &Principal,
        caller: &Caller,
    ) -> Result<Remaining, ApiError> {
        let Some(agent) = principal.agent() else { return Ok(Remaining::default()) };
        let payers = Payers::of_caller(principal, agent);
        Ok(payers.charge_call(self.stores(), org, &caller.origin, self.now()).await??)
    }

    /// The policy, at least as new as the caller wants.
    async fn consistent(
        &self,
        org: &OrgId,
        request: &RelationRequest,
    ) -> Result<std::sync::Arc<Kept>, ApiError> {
        let kept = self.policy_of(org).await?;
        let Some(text) = &request.consistency_token else { return Ok(kept) };
        let digits = text.strip_prefix("zk_").and_then(|rest| rest.split_once('_')).map(|(digits, _)| digits);
        let wanted = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let wanted = wanted.filter(|revision| token(org, *revision) == *text);
        let wanted = wanted.ok_or_else(|| invalid("consistency_token", "is none of this organization"))?;
        if kept.read(Snapshot::revision) >= wanted {
            return Ok(kept);
        }
        // What is kept may be a moment old; what the store has is not.
        kept.update(&*self.stores().uncached().policies, org).await?;
        if kept.read(Snapshot::revision) >= wanted {
            return Ok(kept);
        }
        Err(invalid("consistency_token", "is none of this organization"))
    }
}

/// What the log says of a namespace.
fn told(namespace: &Namespace) -> Value {
    json!({ "relations": namespace.relations })
}

fn known(snapshot: &Snapshot, object: &Entity, relation: &Label) -> Result<(), ApiError> {
    let known = snapshot.knows_relation(object.namespace(), relation.as_str());
    if known { Ok(()) } else { Err(UNKNOWN) }
}
