//! Relations: who stands in what relation to which object, after Google's Zanzibar.
//!
//! A [`Tuple`] `object#relation@subject` states one. The subject may be a set: `team:x#member` is everybody who is a member
//! of that team. A [`Namespace`] says how the relations of its objects follow from each other; where an organization
//! defines none, owners are editors, editors are viewers, admins are members, and what holds for a parent holds for what
//! is in it.
//!
//! 1. A check follows at most [`MAX_HOPS`] tuples in a row. What is farther away is not held, and is not "not held" either:
//!    where a rule excludes somebody, being too far to tell excludes as well.
//! 2. Cycles end. What could only be true because of itself is false; what excludes itself cannot be told, and is not held.
//! 3. The work of a check is bounded, whatever the tuples look like.

mod check;
mod expand;
mod index;
mod namespace;
mod reverse;

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{RecordId, RecordKind};
use crate::id::Label;

pub use check::{Check, MAX_HOPS};
pub use expand::{ExpandedNode, NodeKind};
pub(super) use index::Relations;
pub use namespace::{InvalidNamespace, Namespace, Rewrite};
pub use reverse::Reached;

/// The text is no object, subject or tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {0}")]
#[non_exhaustive]
pub struct ParseRelationError(pub &'static str);

/// Something that has relations: `namespace:id`, such as `document:1` or `user:alice`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Arc<str>", into = "Arc<str>")]
pub struct Entity(Arc<str>);

impl Entity {
    /// Parses `namespace:id`: a [`Label`], and 1 to 256 bytes without `#`, spaces and control characters. `*` is no id.
    ///
    /// # Errors
    /// [`ParseRelationError`] if the text is not one.
    pub fn parse(text: &str) -> Result<Self, ParseRelationError> {
        const ERROR: ParseRelationError = ParseRelationError("`namespace:id`");
        let (namespace, id) = text.split_once(':').ok_or(ERROR)?;
        let odd = |c: char| c == '#' || c == '\u{ffff}' || c.is_whitespace() || c.is_control();
        if Label::parse(namespace).is_err() || !(1..=256).contains(&id.len()) || id == "*" || id.contains(odd)
        {
            return Err(ERROR);
        }
        Ok(Self(text.into()))
    }

    /// The part before the colon.
    pub fn namespace(&self) -> &str {
        self.0.split_once(':').map_or("", |(namespace, _)| namespace)
    }

    /// The part after it.
    pub fn id(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, id)| id)
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Entity {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<Arc<str>> for Entity {
    type Error = ParseRelationError;

    fn try_from(text: Arc<str>) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Entity> for Arc<str> {
    fn from(entity: Entity) -> Self {
        entity.0
    }
}

impl FromStr for Entity {
    type Err = ParseRelationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entity({})", self.0)
    }
}

/// Who stands in a relation: an entity, or everybody who stands in a relation to one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "an entity and a relation are all there is to it")]
pub struct Subject {
    /// The entity.
    pub entity: Entity,
    /// If it is a set: the relation that its members have to the entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<Label>,
}

impl Subject {
    /// Parses `namespace:id` or `namespace:id#relation`.
    ///
    /// # Errors
    /// [`ParseRelationError`] if the text is neither.
    pub fn parse(text: &str) -> Result<Self, ParseRelationError> {
        match text.split_once('#') {
            None => Ok(Self { entity: Entity::parse(text)?, relation: None }),
            Some((entity, relation)) => {
                let relation = Label::parse(relation)
                    .map_err(|_| ParseRelationError("`namespace:id` or `namespace:id#relation`"))?;
                Ok(Self { entity: Entity::parse(entity)?, relation: Some(relation) })
            }
        }
    }
}

impl From<Entity> for Subject {
    fn from(entity: Entity) -> Self {
        Self { entity, relation: None }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.relation {
            None => fmt::Display::fmt(&self.entity, f),
            Some(relation) => write!(f, "{}#{relation}", self.entity),
        }
    }
}

/// One relation, as it was written down.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "three parts are all there is to a tuple")]
pub struct Tuple {
    /// To what.
    pub object: Entity,
    /// Which relation.
    pub relation: Label,
    /// Who stands in it.
    pub subject: Subject,
}

impl Tuple {
    /// Parses `object#relation@subject`.
    ///
    /// # Errors
    /// [`ParseRelationError`] if the text is not one.
    pub fn parse(text: &str) -> Result<Self, ParseRelationError> {
        const ERROR: ParseRelationError = ParseRelationError("`object#relation@subject`");
        let (object, rest) = text.split_once('#').ok_or(ERROR)?;
        let (relation, subject) = rest.split_once('@').ok_or(ERROR)?;
        Ok(Self {
            object: Entity::parse(object)?,
            relation: Label::parse(relation).map_err(|_| ERROR)?,
            subject: Subject::parse(subject)?,
        })
    }

    /// The name of its record.
    pub fn record_id(&self) -> RecordId {
        RecordId::of_parts(RecordKind::Tuple, self.to_string())
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}@{}", self.object, self.relation, self.subject)
    }
}

#[cfg(test)]
mod tests;
