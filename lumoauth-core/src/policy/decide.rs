//! The decision, and why it came out so.

use std::{cmp::Reverse, fmt, sync::Arc};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Check, Effect, Grant, Party, Policy, Question, SYSTEM_PERMISSIONS, Snapshot, Tuple, Who, abac::Facts,
    is_reserved,
};
use crate::{
    capability::{Capability, Decision, DenyReason},
    id::Label,
};

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DecidedBy {
    /// An attribute policy.
    Abac,
    /// That it is what administrators do.
    Administrator,
    /// An agent's list of tools.
    AllowedTools,
    /// A budget.
    Budget,
    /// A capability, or the scope that a person or an application has.
    Capability,
    /// Nothing allows it.
    Default,
    /// A relation to an object.
    Relation,
    /// A permission, by role or without.
    Role,
    /// The scope of the token.
    TokenScope,
    /// Another engine than this one.
    Host,
}

impl DecidedBy {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Abac => "abac",
            Self::Administrator => "administrator",
            Self::AllowedTools => "allowed_tools",
            Self::Budget => "budget",
            Self::Capability => "capability",
            Self::Default => "default",
            Self::Relation => "relation",
            Self::Role => "role",
            Self::TokenScope => "token_scope",
            Self::Host => "host",
        }
    }
}

/// Why somebody may do something.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Basis {
    /// It is theirs by capability or scope.
    Capability,
    /// It is what administrators do.
    Administrator,
    /// They have it by a role (`None`: without one), perhaps that of a group.
    Role {
        /// The role.
        role: Option<Label>,
        /// The group.
        via: Option<Label>,
    },
    /// A policy allows it.
    Policy(Arc<Policy>),
    /// They stand in the relation that was asked about, because of these tuples.
    Relation(Vec<Tuple>),
}

impl Basis {
    fn decided_by(&self) -> DecidedBy {
        match self {
            Self::Capability => DecidedBy::Capability,
            Self::Administrator => DecidedBy::Administrator,
            Self::Role { .. } => DecidedBy::Role,
            Self::Policy(_) => DecidedBy::Abac,
            Self::Relation(_) => DecidedBy::Relation,
        }
    }

    fn reason(&self, action: &Capability) -> String {
        match self {
            Self::Capability => format!("Capability {action} is granted."),
            Self::Administrator => format!("Administrators may {action}."),
            Self::Role { role: Some(role), via: None } => format!("The role {role} permits {action}."),
            Self::Role { role: Some(role), via: Some(group) } => {
                format!("The role {role} of the group {group} permits {action}.")
            }
            Self::Role { role: None, via: None } => format!("The permission {action} is granted."),
            Self::Role { role: None, via: Some(group) } => {
                format!("The permission {action} is granted to the group {group}.")
            }
            Self::Policy(policy) => format!("The policy `{}` allows it.", policy.name),
            Self::Relation(_) => "The relation to the object allows it.".to_owned(),
        }
    }
}

/// One step of the explanation: who has what is needed, and why.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// Who; `None` for an application or a key.
    pub party: Option<String>,
    /// Why.
    pub basis: Basis,
}

impl Step {
    /// As clients see it.
    pub fn view(&self) -> Value {
        let mut view = json!({ "subject": self.party, "by": self.basis.decided_by() });
        match &self.basis {
            Basis::Capability | Basis::Administrator => {}
            Basis::Role { role, via } => {
                view["role"] = json!(role);
                view["group"] = json!(via);
            }
            Basis::Policy(policy) => view["policy"] = named(policy),
            Basis::Relation(tuples) => {
                view["tuples"] = tuples.iter().map(ToString::to_string).collect();
            }
        }
        view
    }
}

/// A policy by id and name.
fn named(policy: &Policy) -> Value {
    json!({ "id": policy.number, "name": policy.name })
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct Verdict {
    /// Whether they may.
    pub allowed: bool,
    /// What decided.
    pub decided_by: DecidedBy,
    /// One sentence.
    pub reason: String,
    /// If they may: why each of them may. If a policy denies it: nothing; see `denied_by`.
    pub path: Vec<Step>,
    /// The policy that denies it.
    pub denied_by: Option<Arc<Policy>>,
}

impl Verdict {
    /// They may not.
    pub fn deny(decided_by: DecidedBy, reason: impl Into<String>) -> Self {
        Self { allowed: false, decided_by, reason: reason.into(), path: Vec::new(), denied_by: None }
    }

    /// They may, for a reason that an engine of the host's own knows.
    pub fn allow(reason: impl Into<String>) -> Self {
        let (decided_by, path) = (DecidedBy::Host, Vec::new());
        Self { allowed: true, decided_by, reason: reason.into(), path, denied_by: None }
    }

    /// How it came about, as clients see it.
    pub fn path_view(&self) -> Value {
        match &self.denied_by {
            Some(policy) => json!([{ "by": "abac", "policy": named(policy) }]),
            None => self.path.iter().map(Step::view).collect(),
        }
    }
}

/// What the attribute policies alone say.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct AttributeVerdict {
    /// Whether a policy allows it and none denies it.
    pub allowed: bool,
    /// The policies that decided: those that deny it, or else those that allow it; highest priority first.
    pub matched: Vec<Arc<Policy>>,
}

impl fmt::Display for AttributeVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.allowed, self.matched.first()) {
            (true, Some(policy)) => write!(f, "The policy `{}` allows it.", policy.name),
            (false, Some(policy)) => write!(f, "The policy `{}` denies it.", policy.name),
            (_, None) => f.write_str("No policy allows it."),
        }
    }
}

impl Question<'_> {
    /// What neither a policy nor an engine of the host's own can give back: a tool that is not on an agent's list, what the
    /// token leaves out, and everything of a reserved family that nobody's scopes cover. Nobody can do anything.
    pub fn out_of_bounds(&self) -> Option<Verdict> {
        if self.parties.is_empty() {
            return Some(not_granted(self.action));
        }
        self.parties.iter().find_map(|party| party.out_of_bounds(self.action))
    }

    /// Whether what its capabilities and tokens say stops any of the parties for this reason.
    pub(crate) fn is_stopped_by(&self, reason: DenyReason) -> bool {
        self.parties.iter().any(|party| party.standing == Decision::Deny(reason))
    }

    /// Whether every one of the parties has it by capability and token.
    pub(crate) fn is_in_scope(&self) -> bool {
        self.parties.iter().all(|party| party.standing.is_allow())
    }

    /// Whether policies look at it with the eyes of this party: a person's agents see what is known of the person too, so
    /// the person alone adds nothing but not to be an agent.
    fn is_looked_at_by(&self, party: &Party<'_>) -> bool {
        let is_agent = |party: &Party<'_>| matches!(party.who, Who::Agent(_));
        is_agent(party) || !self.parties.iter().any(is_agent)
    }
}

impl Party<'_> {
    fn out_of_bounds(&self, action: &Capability) -> Option<Verdict> {
        match self.standing {
            Decision::Allow => None,
            Decision::Deny(DenyReason::ToolNotAllowed) => {
                let whose = match self.who {
                    Who::Agent(agent) => format!("agent:{}", agent.slug),
                    _ => "this agent".to_owned(),
                };
                let reason = format!("{action} is not among the allowed tools of {whose}.");
                Some(Verdict::deny(DecidedBy::AllowedTools, reason))
            }
            // It was left out of the token; nothing brings it back.
            Decision::Deny(DenyReason::NotInToken) => {
                let reason = format!("The presented token does not cover {action}.");
                Some(Verdict::deny(DecidedBy::TokenScope, reason))
            }
            Decision::Deny(DenyReason::NotGranted) if self.bounded => {
                let reason = format!("Nobody agreed to {action}, or an agent of the chain lacks it.");
                Some(Verdict::deny(DecidedBy::TokenScope, reason))
            }
            Decision::Deny(DenyReason::NotGranted) => is_reserved(action).then(|| not_granted(action)),
        }
    }
}

fn not_granted(action: &Capability) -> Verdict {
    Verdict::deny(DecidedBy::Default, format!("Capability {action} is not granted."))
}

impl Snapshot {
    /// Decides, in this order; what denies first decides.
    ///
    /// 1. A policy that denies it to any of the parties. So it beats every capability.
    /// 2. A list of tools, or a token, that leaves it out ([`Question::out_of_bounds`]).
    /// 3. Each party has it by its capabilities and token; or by a permission, with or without a role; or by a policy that
    ///    allows it; or by the relation that was asked about.
    ///
    /// A person has by scope only what the organization does not list as a permission. Administrators have what
    /// [`SYSTEM_PERMISSIONS`] lists, in person, and nothing else; others have that by a role or as a permission only.
    pub fn decide(&self, question: &Question<'_>) -> Verdict {
        for party in &question.parties {
            if let Some(policy) = self.denied_by(question, party) {
                let mut verdict =
                    Verdict::deny(DecidedBy::Abac, format!("The policy `{}` denies it.", policy.name));
                verdict.denied_by = Some(policy);
                return verdict;
            }
        }
        if let Some(verdict) = question.out_of_bounds() {
            return verdict;
        }
        let mut path = Vec::with_capacity(question.parties.len());
        for party in &question.parties {
            let Some(basis) = self.basis(question, party) else {
                return match party.who {
                    Who::User(_) if question.parties.len() > 1 => Verdict::deny(
                        DecidedBy::Default,
                        format!("The person that this is done for has no permission {}.", question.action),
                    ),
                    Who::Agent(_) | Who::User(_) | Who::Other => not_granted(question.action),
                };
            };
            let holder = party.who.holder();
            path.push(Step { party: holder.map(|holder| holder.to_string()), basis });
        }
        match path.last() {
            Some(Step { basis, .. }) => Verdict {
                allowed: true,
                decided_by: basis.decided_by(),
                reason: basis.reason(question.action),
                path,
                denied_by: None,
            },
            None => not_granted(question.action),
        }
    }

    fn basis(&self, question: &Question<'_>, party: &Party<'_>) -> Option<Basis> {
        let action = question.action;
        let administrative = SYSTEM_PERMISSIONS.iter().any(|(slug, _)| *slug == action.as_str());
        let by_scope = party.standing.is_allow();
        let counts = match party.who {
            // Nobody administers by a wildcard.
            Who::Agent(agent) => !administrative || agent.capabilities.contains(action),
            Who::Other => true,
            Who::User(_) => is_reserved(action) || !self.lists(action),
        };
        if by_scope && counts {
            return Some(Basis::Capability);
        }
        if is_reserved(action) {
            return None;
        }
        let permitted = self.by_permission(&party.who, action);
        if administrative {
            // What one has by name counts for more.
            let administers = matches!(party.who, Who::User(user) if user.is_admin) && party.in_person;
            return permitted.or_else(|| administers.then_some(Basis::Administrator));
        }
        permitted
            .or_else(|| self.by_policy(question, party).map(Basis::Policy))
            .or_else(|| self.by_relation(question, &party.who))
    }

    /// How `who` has the permission `action`, with or without a role.
    pub fn by_permission(&self, who: &Who<'_>, action: &Capability) -> Option<Basis> {
        if !self.lists(action) {
            return None;
        }
        self.each_grant(&who.holder()?, |grant, via| match grant {
            Grant::Permission(slug) if slug == action => Some(Basis::Role { role: None, via: via.cloned() }),
            Grant::Permission(_) => None,
            Grant::Role(number) => {
                let role = self.role_numbered(*number)?;
                let role = role.permissions.contains(action).then(|| role.slug.clone())?;
                Some(Basis::Role { role: Some(role), via: via.cloned() })
            }
        })
    }

    fn by_relation(&self, question: &Question<'_>, who: &Who<'_>) -> Option<Basis> {
        let (object, relation) = question.relation.as_ref()?;
        match self.check(object, relation, &who.subject()?) {
            Check::Held(tuples) => Some(Basis::Relation(tuples)),
            Check::NotHeld | Check::Unclear => None,
        }
    }

    fn denied_by(&self, question: &Question<'_>, party: &Party<'_>) -> Option<Arc<Policy>> {
        let first =
            |names: &[(&str, &str)], facts: &Facts<'_>| self.policies.first(Effect::Deny, names, facts);
        let looks = question.is_looked_at_by(party);
        looks.then(|| foremost(self.look(Effect::Deny, question, party, first).flatten())).flatten()
    }

    fn by_policy(&self, question: &Question<'_>, party: &Party<'_>) -> Option<Arc<Policy>> {
        let first =
            |names: &[(&str, &str)], facts: &Facts<'_>| self.policies.first(Effect::Allow, names, facts);
        foremost(self.look(Effect::Allow, question, party, first).flatten())
    }

    /// What the attribute policies alone say: a policy that denies it to any of the parties denies it, and a policy must
    /// allow it to each.
    pub fn attribute_verdict(&self, question: &Question<'_>) -> AttributeVerdict {
        let matched = |effect, party| -> Vec<_> {
            let all = |names: &[(&str, &str)], facts: &Facts<'_>| self.policies.all(effect, names, facts);
            self.look(effect, question, party, all).flatten().collect()
        };
        let sorted = |mut policies: Vec<Arc<Policy>>| {
            policies.sort_by_key(|policy| (Reverse(policy.priority), policy.number));
            policies.dedup_by_key(|policy| policy.number);
            policies
        };
        let looking = question.parties.iter().filter(|party| question.is_looked_at_by(party));
        let denying: Vec<_> = looking.flat_map(|party| matched(Effect::Deny, party)).collect();
        if !denying.is_empty() {
            return AttributeVerdict { allowed: false, matched: sorted(denying) };
        }
        let mut allowing = Vec::new();
        for party in &question.parties {
            let found = matched(Effect::Allow, party);
            if found.is_empty() {
                return AttributeVerdict { allowed: false, matched: Vec::new() };
            }
            allowing.extend(found);
        }
        AttributeVerdict { allowed: !allowing.is_empty(), matched: sorted(allowing) }
    }

    /// Looks at policies with the eyes of one party: an agent that acts for a person, with both; the person alone. Once for
    /// each type that the resource may be of.
    fn look<T>(
        &self,
        effect: Effect,
        question: &Question<'_>,
        party: &Party<'_>,
        look: impl Fn(&[(&str, &str)], &Facts<'_>) -> T,
    ) -> impl Iterator<Item = T> {
        let person = question.parties.iter().find_map(|party| match party.who {
            Who::User(user) => Some(user),
            Who::Agent(_) | Who::Other => None,
        });
        let agent = match party.who {
            Who::Agent(agent) => Some(agent),
            Who::User(_) | Who::Other => None,
        };
        question.sought(effect).into_iter().map(move |sought| {
            let roles = |who: Who<'_>| -> Vec<Label> {
                let held = who.holder().map(|holder| self.roles_of(&holder)).unwrap_or_default();
                held.iter().map(|held| held.role.slug.clone()).collect()
            };
            let of_user = || person.map(|user| roles(Who::User(user))).unwrap_or_default();
            let of_agent = || agent.map(|agent| roles(Who::Agent(agent))).unwrap_or_default();
            let mut resource = question.resource;
            resource.kind = sought.kind;
            let facts = Facts {
                values: &self.values,
                user: person.map(|user| (user, &of_user as &dyn Fn() -> Vec<Label>)),
                agent: agent.map(|agent| (agent, &of_agent as &dyn Fn() -> Vec<Label>)),
                resource: &resource,
                environment: &question.environment,
            };
            look(&sought.names, &facts)
        })
    }
}

/// The one that is named if several policies say the same.
fn foremost(policies: impl Iterator<Item = Arc<Policy>>) -> Option<Arc<Policy>> {
    policies.max_by_key(|policy| (policy.priority, Reverse(policy.number)))
}
