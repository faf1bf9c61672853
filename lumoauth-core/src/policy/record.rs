//! What an organization wrote down, as stores keep it: a kind, a key and a body.

use std::{fmt, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};

use super::{Assignment, AttributeDefinition, AttributeValue, Namespace, Permission, Policy, Role, Tuple};
use crate::id::ParseIdError;

/// What sort of record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "every kind must be handled wherever policy is decided")]
pub enum RecordKind {
    /// An [`Assignment`].
    Assignment,
    /// An [`AttributeDefinition`].
    Attribute,
    /// A [`Namespace`].
    Namespace,
    /// A [`Permission`].
    Permission,
    /// A [`Policy`].
    Policy,
    /// A [`Role`].
    Role,
    /// A [`Tuple`].
    Tuple,
    /// An [`AttributeValue`].
    Value,
}

impl RecordKind {
    /// All of them, in ascending order; that of their names is the same.
    pub const ALL: [Self; 8] = [
        Self::Assignment,
        Self::Attribute,
        Self::Namespace,
        Self::Permission,
        Self::Policy,
        Self::Role,
        Self::Tuple,
        Self::Value,
    ];

    /// Its name in stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Assignment => "assignment",
            Self::Attribute => "attribute",
            Self::Namespace => "namespace",
            Self::Permission => "permission",
            Self::Policy => "policy",
            Self::Role => "role",
            Self::Tuple => "tuple",
            Self::Value => "value",
        }
    }

    /// The kind with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// The name of a record, unique in its organization.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId {
    kind: RecordKind,
    key: Arc<str>,
}

impl RecordId {
    /// The longest key, in bytes.
    pub const MAX_KEY: usize = 1024;

    /// The record of this kind with this key: 1 to [`Self::MAX_KEY`] bytes, none of them a control character.
    ///
    /// # Errors
    /// [`ParseIdError`] for any other key.
    pub fn new(kind: RecordKind, key: impl Into<Arc<str>>) -> Result<Self, ParseIdError> {
        let key = key.into();
        let valid = (1..=Self::MAX_KEY).contains(&key.len())
            && !key.contains(|c: char| c.is_control() || c == '\u{ffff}');
        if valid { Ok(Self { kind, key }) } else { Err(ParseIdError { kind: "key of a policy record" }) }
    }

    /// For keys that are made of checked parts.
    pub(super) fn of_parts(kind: RecordKind, key: String) -> Self {
        Self { kind, key: key.into() }
    }

    /// What sort of record it names.
    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// Which one of them.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({} {})", self.kind.as_str(), self.key)
    }
}

/// A record as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "backends build it")]
pub struct Record {
    /// Its name.
    pub id: RecordId,
    /// The organization's revision at which it was last written.
    pub revision: u64,
    /// Its JSON; `None` says that it was removed.
    pub body: Option<Arc<str>>,
}

impl Record {
    /// The record of `entry`, written at `revision`.
    pub fn of(entry: &Entry, revision: u64) -> Self {
        Self { id: entry.id(), revision, body: Some(entry.body()) }
    }

    /// The removal of the record `id` at `revision`.
    pub fn removal(id: RecordId, revision: u64) -> Self {
        Self { id, revision, body: None }
    }
}

/// A stored record is not of the form that this version writes.
#[derive(Debug, thiserror::Error)]
#[error("a policy record of the kind `{}` cannot be read", id.kind().as_str())]
#[non_exhaustive]
pub struct CorruptRecord {
    /// Which.
    pub id: RecordId,
    /// Why.
    pub source: serde_json::Error,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "every kind must be handled wherever policy is decided")]
pub enum Entry {
    /// Who has a role or a permission.
    Assignment(Assignment),
    /// What an attribute is.
    Attribute(AttributeDefinition),
    /// How relations follow from each other.
    Namespace(Namespace),
    /// What can be permitted.
    Permission(Permission),
    /// An attribute policy.
    Policy(Arc<Policy>),
    /// A role.
    Role(Arc<Role>),
    /// A relation.
    Tuple(Tuple),
    /// What somebody's or something's attribute is.
    Value(AttributeValue),
}

impl Entry {
    /// The name of its record.
    pub fn id(&self) -> RecordId {
        match self {
            Self::Assignment(it) => it.record_id(),
            Self::Attribute(it) => it.record_id(),
            Self::Namespace(it) => Namespace::record_id(&it.name),
            Self::Permission(it) => Permission::record_id(&it.slug),
            Self::Policy(it) => Policy::record_id(it.number),
            Self::Role(it) => Role::record_id(&it.slug),
            Self::Tuple(it) => it.record_id(),
            Self::Value(it) => it.record_id(),
        }
    }

    /// Its JSON.
    pub fn body(&self) -> Arc<str> {
        fn json(value: &impl Serialize) -> Arc<str> {
            // Names, numbers, lists and maps with text keys: there is nothing in them that cannot be written.
            serde_json::to_string(value).unwrap_or_default().into()
        }
        match self {
            Self::Assignment(it) => json(it),
            Self::Attribute(it) => json(it),
            Self::Namespace(it) => json(it),
            Self::Permission(it) => json(it),
            Self::Policy(it) => json(it),
            Self::Role(it) => json(it),
            Self::Tuple(it) => json(it),
            Self::Value(it) => json(it),
        }
    }

    /// What the record `id` with this JSON says.
    ///
    /// # Errors
    /// [`CorruptRecord`] if it says nothing that this version understands.
    pub fn read(id: &RecordId, body: &str) -> Result<Self, CorruptRecord> {
        fn from<T: DeserializeOwned>(id: &RecordId, body: &str) -> Result<T, CorruptRecord> {
            serde_json::from_str(body).map_err(|source| CorruptRecord { id: id.clone(), source })
        }
        Ok(match id.kind {
            RecordKind::Assignment => Self::Assignment(from(id, body)?),
            RecordKind::Attribute => Self::Attribute(from(id, body)?),
            RecordKind::Namespace => Self::Namespace(from(id, body)?),
            RecordKind::Permission => Self::Permission(from(id, body)?),
            RecordKind::Policy => Self::Policy(from(id, body)?),
            RecordKind::Role => Self::Role(from(id, body)?),
            RecordKind::Tuple => Self::Tuple(from(id, body)?),
            RecordKind::Value => Self::Value(from(id, body)?),
        })
    }
}
