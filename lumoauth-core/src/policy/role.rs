//! Roles: sets of permissions, and who has them.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use super::{RecordId, RecordKind};
use crate::{
    capability::Capability,
    clock::Timestamp,
    id::{AgentId, Label, Number, ParseIdError, UserId},
};

/// A set of permissions with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Role {
    /// Its id. A role that is made anew under the same slug is another one: nobody has it yet.
    pub number: Number,
    /// Its short name, unique in the organization; it never changes.
    pub slug: Label,
    /// Display name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// What it permits.
    pub permissions: BTreeSet<Capability>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Role {
    /// The most permissions of one role.
    pub const MAX_PERMISSIONS: usize = 1000;

    /// A role that permits nothing yet.
    pub fn new(slug: Label, name: impl Into<String>, now: Timestamp) -> Self {
        Self {
            number: Number::generate(),
            slug,
            name: name.into(),
            description: None,
            permissions: BTreeSet::new(),
            created_at: now,
            updated_at: now,
        }
    }

    /// The name of the record of the role with this slug.
    pub fn record_id(slug: &Label) -> RecordId {
        RecordId::of_parts(RecordKind::Role, slug.to_string())
    }
}

/// Something that can be permitted. What an organization lists here, people have by role, policy or relation only;
/// agreeing to a scope of that name does not give it to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Permission {
    /// The integer id.
    pub number: Number,
    /// The action it permits, unique in the organization; it never changes.
    pub slug: Capability,
    /// Display name.
    pub name: String,
    /// What it permits, in words.
    pub description: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Permission {
    /// A permission to do `slug`.
    pub fn new(slug: Capability, name: impl Into<String>, now: Timestamp) -> Self {
        Self { number: Number::generate(), slug, name: name.into(), description: None, created_at: now }
    }

    /// The name of the record of the permission with this slug.
    pub fn record_id(slug: &Capability) -> RecordId {
        RecordId::of_parts(RecordKind::Permission, slug.to_string())
    }
}

/// What there is to permit in every organization: its slug, and what it is good for. Administrators have these, and
/// nothing else, without a role.
pub const SYSTEM_PERMISSIONS: [(&str, &str); 5] = [
    ("abac.manage", "Set attributes of people and resources"),
    ("approvals.manage", "Decide what others are asked"),
    ("authz.check", "Ask what others may do"),
    ("jit.approve", "Decide what agents ask for just in time, whoever is asked"),
    ("policies.view", "See the policies that matched a check"),
];

/// Whether `action` is of a family that no role, policy or relation reaches: administration, delegation and asking about
/// others are for capabilities, scopes and keys only.
pub fn is_reserved(action: &Capability) -> bool {
    ["admin", "delegate:", "authz:", "jit:"].iter().any(|family| action.as_str().starts_with(family))
}

/// Who can have a role.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "every sort of holder must be handled where roles are decided")]
pub enum Holder {
    /// An agent.
    Agent(AgentId),
    /// Whoever has the relation `member` to the object `group:<name>`, as a check of that relation says.
    Group(Label),
    /// A person.
    User(UserId),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => write!(f, "agent:{id}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::User(id) => write!(f, "user:{id}"),
        }
    }
}

impl Holder {
    /// The holder with this text form.
    ///
    /// # Errors
    /// [`ParseIdError`] if it is none.
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        match text.split_once(':') {
            Some(("agent", id)) => AgentId::parse(id).map(Self::Agent),
            Some(("group", name)) => Label::parse(name).map(Self::Group),
            Some(("user", id)) => UserId::parse(id).map(Self::User),
            _ => Err(ParseIdError { kind: "holder of a role" }),
        }
    }
}

/// What a holder has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "every sort of grant must be handled where roles are decided")]
pub enum Grant {
    /// One permission.
    Permission(Capability),
    /// The role with this id.
    Role(Number),
}

/// Who has a role or a permission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Assignment {
    /// Who.
    pub holder: Holder,
    /// What.
    pub grant: Grant,
    /// Since when.
    pub at: Timestamp,
}

impl Assignment {
    /// `holder` has `grant`.
    pub fn new(holder: Holder, grant: Grant, now: Timestamp) -> Self {
        Self { holder, grant, at: now }
    }

    pub(super) fn record_id(&self) -> RecordId {
        let grant = match &self.grant {
            Grant::Permission(slug) => format!("permission:{slug}"),
            Grant::Role(number) => format!("role:{number}"),
        };
        RecordId::of_parts(RecordKind::Assignment, format!("{} {grant}", self.holder))
    }
}
