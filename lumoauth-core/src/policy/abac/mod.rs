//! Attribute policies: allow or deny by what is known of the caller, the resource and the request.
//!
//! 1. A policy is about actions on types of resources, perhaps only for some agents, and applies where its condition
//!    holds. One that denies beats all that allow; where none applies nothing is allowed.
//! 2. Conditions are read once, into a tree of typed tests. What cannot be read is refused when it is written.
//! 3. A test has three outcomes. What is not there fails a comparison (and passes `not_exists`). What is not there where
//!    the test says what something must *not* be, by its operator or within `none`, and what is of a kind that cannot be
//!    compared, is unclear: a policy that allows does not apply then, and one that denies does.
//! 4. Patterns are matched in time linear in the text (no backtracking), against texts of bounded size.

mod condition;
mod index;
mod operator;
mod path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{RecordId, RecordKind};
use crate::{
    clock::Timestamp,
    id::{AgentId, Number},
};

pub use condition::{Condition, InvalidCondition};
pub(super) use index::Policies;
pub(super) use path::{Facts, Values, is_built_in};

/// What a policy does where it applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "every effect must be handled where access is decided")]
pub enum Effect {
    /// It allows.
    Allow,
    /// It denies.
    Deny,
}

impl Effect {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// An attribute policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Policy {
    /// The integer id.
    pub number: Number,
    /// Display name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The types of resources that it is about; `*` is all.
    pub resource_types: Vec<String>,
    /// The actions that it is about, with or without the type before them; `*` is all.
    pub actions: Vec<String>,
    /// What it does where it applies.
    pub effect: Effect,
    /// 0 to 1000: which of several that apply is named first.
    pub priority: u16,
    /// Where it applies, as it was written.
    pub conditions: Value,
    /// If not empty: the only agents that it is about.
    pub agent_ids: Vec<AgentId>,
    /// Whether it counts at all.
    pub active: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Policy {
    /// The highest priority.
    pub const MAX_PRIORITY: u16 = 1000;
    /// The most types, actions or agents that one policy names.
    pub const MAX_NAMES: usize = 100;

    /// A policy without condition, about one action on one type.
    pub fn new(
        name: impl Into<String>,
        resource_type: impl Into<String>,
        action: impl Into<String>,
        effect: Effect,
        now: Timestamp,
    ) -> Self {
        Self {
            number: Number::generate(),
            name: name.into(),
            description: None,
            resource_types: vec![resource_type.into()],
            actions: vec![action.into()],
            effect,
            priority: 0,
            conditions: Value::Null,
            agent_ids: Vec::new(),
            active: true,
            created_at: now,
            updated_at: now,
        }
    }

    /// The name of the record of the policy with this number.
    pub fn record_id(number: Number) -> RecordId {
        RecordId::of_parts(RecordKind::Policy, format!("{number:016}", number = number.value()))
    }
}

#[cfg(test)]
mod tests;
