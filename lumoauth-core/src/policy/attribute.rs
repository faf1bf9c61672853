//! Attributes: what organizations know of people, agents and resources, for policies to look at.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{RecordId, RecordKind};
use crate::{
    clock::Timestamp,
    id::{AgentId, Label, Number, UserId},
};

/// Of what it is an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "policies have these roots")]
pub enum AttributeKind {
    /// Of an agent.
    Agent,
    /// Of a request; nobody sets its values.
    Environment,
    /// Of a resource.
    Resource,
    /// Of a person.
    User,
}

impl AttributeKind {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Environment => "environment",
            Self::Resource => "resource",
            Self::User => "user",
        }
    }

    /// The kind with this wire name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Agent, Self::Environment, Self::Resource, Self::User]
            .into_iter()
            .find(|it| it.as_str() == name)
    }
}

/// What its values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "every type must be handled where values are set")]
pub enum DataType {
    /// Anything.
    Any,
    /// A list.
    Array,
    /// Yes or no.
    Boolean,
    /// An instant of RFC 3339.
    Datetime,
    /// A number.
    Number,
    /// Text.
    String,
}

impl DataType {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Array => "array",
            Self::Boolean => "boolean",
            Self::Datetime => "datetime",
            Self::Number => "number",
            Self::String => "string",
        }
    }

    /// The type with this wire name; other servers have more names for the same.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "any" | "json" | "object" => Self::Any,
            "array" | "list" => Self::Array,
            "boolean" | "bool" => Self::Boolean,
            "datetime" | "date" => Self::Datetime,
            "number" | "integer" | "float" => Self::Number,
            "string" => Self::String,
            _ => return None,
        })
    }

    /// Whether `value` is one.
    pub fn admits(self, value: &Value) -> bool {
        match self {
            Self::Any => true,
            Self::Array => value.is_array(),
            Self::Boolean => value.is_boolean(),
            Self::Datetime => value.as_str().is_some_and(|text| text.parse::<Timestamp>().is_ok()),
            Self::Number => value.is_number(),
            Self::String => value.is_string(),
        }
    }
}

/// What an attribute is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AttributeDefinition {
    /// The integer id.
    pub number: Number,
    /// Its name in policies, unique among those of its kind; it never changes.
    pub slug: Label,
    /// Of what it is one.
    pub kind: AttributeKind,
    /// Display name.
    pub name: String,
    /// What it means.
    pub description: Option<String>,
    /// What its values are.
    pub data_type: DataType,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl AttributeDefinition {
    /// An attribute whose values are text.
    pub fn new(kind: AttributeKind, slug: Label, name: impl Into<String>, now: Timestamp) -> Self {
        Self {
            number: Number::generate(),
            slug,
            kind,
            name: name.into(),
            description: None,
            data_type: DataType::String,
            created_at: now,
            updated_at: now,
        }
    }

    pub(super) fn record_id(&self) -> RecordId {
        Self::id_of(self.kind, &self.slug)
    }

    /// The name of the record of the attribute with this slug.
    pub fn id_of(kind: AttributeKind, slug: &Label) -> RecordId {
        RecordId::of_parts(RecordKind::Attribute, format!("{}:{slug}", kind.as_str()))
    }
}

/// Whose attribute it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "policies have these roots")]
pub enum AttributeOwner {
    /// An agent's.
    Agent(AgentId),
    /// A resource's.
    Resource {
        /// Its type.
        kind: Label,
        /// Its id: 1 to 256 bytes without control characters.
        id: Box<str>,
    },
    /// A person's.
    User(UserId),
}

impl AttributeOwner {
    /// The resource of this type and id, if both can be those of one.
    pub fn resource(kind: &str, id: &str) -> Option<Self> {
        let valid =
            (1..=256).contains(&id.len()) && !id.contains(|c: char| c.is_control() || c == '\u{ffff}');
        let kind = Label::parse(kind).ok()?;
        valid.then(|| Self::Resource { kind, id: id.into() })
    }
}

impl fmt::Display for AttributeOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => write!(f, "agent:{id}"),
            Self::Resource { kind, id } => write!(f, "resource:{kind}:{id}"),
            Self::User(id) => write!(f, "user:{id}"),
        }
    }
}

/// What somebody's or something's attribute is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AttributeValue {
    /// Whose.
    pub owner: AttributeOwner,
    /// Which.
    pub slug: Label,
    /// What it is.
    pub value: Value,
}

impl AttributeValue {
    /// The attribute `slug` of `owner` is `value`.
    pub fn new(owner: AttributeOwner, slug: Label, value: Value) -> Self {
        Self { owner, slug, value }
    }

    pub(super) fn record_id(&self) -> RecordId {
        // The slug has no space and comes first, so no two values share a key.
        RecordId::of_parts(RecordKind::Value, format!("{} {}", self.slug, self.owner))
    }
}
