//! How values are compared.

use std::{
    cmp::Ordering,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use regex::{Regex, RegexBuilder};
use serde_json::{Number, Value};

use super::path::Path;
use crate::{clock::Timestamp, network::Network};

/// The outcome of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    False,
    /// What is there cannot be compared so.
    Unclear,
}

impl Truth {
    pub(super) fn not(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Unclear => Self::Unclear,
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equals,
    NotEquals,
    In,
    NotIn,
    Contains,
    NotContains,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    Matches,
    Exists,
    NotExists,
    InNetwork,
    NotInNetwork,
}

/// With what a value is compared.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    Nothing,
    Value(Value),
    Path(Path),
    Pattern(Pattern),
    Networks(Vec<Network>),
}

/// The longest list in a condition.
const MAX_LIST: usize = 1000;

impl Operand {
    /// Whether it can be what its author meant: a pattern that is one, no empty list, and nothing that looks like a
    /// reference and is none.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Pattern(pattern) => pattern.check(),
            Self::Networks(networks) if networks.is_empty() => Err(EMPTY_LIST.to_owned()),
            Self::Value(Value::Array(items)) if items.is_empty() => Err(EMPTY_LIST.to_owned()),
            Self::Value(Value::String(text)) if text.starts_with('$') => {
                Err("have a reference to what there is not: `$` and the name of an attribute".to_owned())
            }
            Self::Value(value) if has_reference(value) => {
                Err("have a list or an object with a reference in it".to_owned())
            }
            Self::Nothing | Self::Value(_) | Self::Path(_) | Self::Networks(_) => Ok(()),
        }
    }
}

/// Whether there is text in it, at any depth, that looks like a reference. Nothing looks it up there.
fn has_reference(value: &Value) -> bool {
    match value {
        Value::String(text) => text.starts_with('$'),
        Value::Array(items) => items.iter().any(has_reference),
        Value::Object(members) => members.values().any(has_reference),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

const EMPTY_LIST: &str = "compare with an empty list";

impl Operator {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "equals" | "eq" | "==" => Self::Equals,
            "not_equals" | "ne" | "neq" | "!=" => Self::NotEquals,
            "in" => Self::In,
            "not_in" => Self::NotIn,
            "contains" => Self::Contains,
            "not_contains" => Self::NotContains,
            "gt" | "greater_than" => Self::Greater,
            "lt" | "less_than" => Self::Less,
            "gte" | "greater_than_or_equal" => Self::GreaterOrEqual,
            "lte" | "less_than_or_equal" => Self::LessOrEqual,
            "matches" | "regex" => Self::Matches,
            "exists" => Self::Exists,
            "not_exists" => Self::NotExists,
            "in_cidr" => Self::InNetwork,
            "not_in_cidr" => Self::NotInNetwork,
            _ => return None,
        })
    }

    /// Reads what it compares with.
    pub(super) fn operand(self, value: &Value) -> Result<Operand, String> {
        if self.is_about_presence() {
            // `{"operator": "exists", "value": false}` would be read as its opposite by whoever wrote it.
            return match value {
                Value::Null | Value::Bool(true) => Ok(Operand::Nothing),
                _ => Err("have `exists` or `not_exists` with a value".to_owned()),
            };
        }
        if let Some(path) = value.as_str().and_then(|text| text.strip_prefix('$')).and_then(Path::parse) {
            return if matches!(self, Self::Matches) {
                Err("have a pattern that is looked up".to_owned())
            } else {
                Ok(Operand::Path(path))
            };
        }
        if value.as_array().is_some_and(|items| items.len() > MAX_LIST) {
            return Err(format!("have a list of more than {MAX_LIST}"));
        }
        match (self, value) {
            (_, Value::Null) => Err("have a test without `value`".to_owned()),
            (Self::In | Self::NotIn, Value::Array(_)) => Ok(Operand::Value(value.clone())),
            (Self::In | Self::NotIn, _) => Err("have `in` or `not_in` without a list".to_owned()),
            (Self::Matches, Value::String(source)) => Ok(Operand::Pattern(Pattern::new(source))),
            (Self::Matches, _) => Err("have `matches` without a pattern".to_owned()),
            (Self::InNetwork | Self::NotInNetwork, Value::String(text)) => {
                Ok(Operand::Networks(vec![text.parse().map_err(|_| NO_NETWORK)?]))
            }
            (Self::InNetwork | Self::NotInNetwork, Value::Array(items)) => {
                let read = |item: &Value| item.as_str()?.parse().ok();
                let read = |item: &Value| read(item).ok_or(NO_NETWORK.to_owned());
                items.iter().map(read).collect::<Result<_, _>>().map(Operand::Networks)
            }
            (Self::InNetwork | Self::NotInNetwork, _) => Err(NO_NETWORK.to_owned()),
            (Self::Greater | Self::Less | Self::GreaterOrEqual | Self::LessOrEqual, value)
                if !value.is_number() && instant(value).is_none() =>
            {
                Err("compare sizes of what is neither a number nor an instant".to_owned())
            }
            _ => Ok(Operand::Value(value.clone())),
        }
    }

    /// Whether it asks whether something is there at all.
    pub(super) fn is_about_presence(self) -> bool {
        matches!(self, Self::Exists | Self::NotExists)
    }

    /// Whether it says what something must not be.
    fn is_negative(self) -> bool {
        matches!(self, Self::NotEquals | Self::NotIn | Self::NotContains | Self::NotInNetwork)
    }

    pub(super) fn compare_with_fact(self, left: Option<&Value>, right: Option<&Value>) -> Truth {
        match right {
            Some(right) => match self {
                Self::InNetwork | Self::NotInNetwork => match self.operand(right) {
                    Ok(operand) => self.compare(left, &operand),
                    Err(_) => Truth::Unclear,
                },
                _ => self.compare(left, &Operand::Value(right.clone())),
            },
            None if self.is_negative() => Truth::Unclear,
            None => Truth::False,
        }
    }

    pub(super) fn compare(self, left: Option<&Value>, operand: &Operand) -> Truth {
        let Some(left) = left else {
            return match self {
                Self::NotExists => Truth::True,
                _ if self.is_negative() => Truth::Unclear,
                _ => Truth::False,
            };
        };
        match (self, operand) {
            (Self::Exists, _) => Truth::True,
            (Self::NotExists, _) => Truth::False,
            (Self::Equals, Operand::Value(right)) => equal(left, right).into(),
            (Self::NotEquals, Operand::Value(right)) => Truth::from(equal(left, right)).not(),
            (Self::In, Operand::Value(right)) => within(left, right),
            (Self::NotIn, Operand::Value(right)) => within(left, right).not(),
            (Self::Contains, Operand::Value(right)) => holds(left, right),
            (Self::NotContains, Operand::Value(right)) => holds(left, right).not(),
            (Self::Greater, Operand::Value(right)) => sized(left, right, Ordering::is_gt),
            (Self::Less, Operand::Value(right)) => sized(left, right, Ordering::is_lt),
            (Self::GreaterOrEqual, Operand::Value(right)) => sized(left, right, Ordering::is_ge),
            (Self::LessOrEqual, Operand::Value(right)) => sized(left, right, Ordering::is_le),
            (Self::Matches, Operand::Pattern(pattern)) => pattern.matches(left),
            (Self::InNetwork, Operand::Networks(networks)) => in_network(left, networks),
            (Self::NotInNetwork, Operand::Networks(networks)) => in_network(left, networks).not(),
            _ => Truth::Unclear,
        }
    }
}

/// 1 and 1.0 are one number.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => order(left, right) == Some(Ordering::Equal),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        _ => left == right,
    }
}

/// A list is within another one if they have something in common.
fn within(left: &Value, list: &Value) -> Truth {
    let Value::Array(list) = list else { return Truth::Unclear };
    let listed = |value: &Value| list.iter().any(|item| equal(value, item));
    match left {
        Value::Array(values) => values.iter().any(listed).into(),
        value => listed(value).into(),
    }
}

fn holds(left: &Value, right: &Value) -> Truth {
    match (left, right) {
        (Value::Array(items), right) => items.iter().any(|item| equal(item, right)).into(),
        (Value::String(text), Value::String(part)) => text.contains(part.as_str()).into(),
        _ => Truth::Unclear,
    }
}

fn sized(left: &Value, right: &Value, wanted: fn(Ordering) -> bool) -> Truth {
    let ordering = match (left, right) {
        (Value::Number(left), Value::Number(right)) => order(left, right),
        _ => instant(left).zip(instant(right)).map(|(left, right)| left.cmp(&right)),
    };
    ordering.map_or(Truth::Unclear, |ordering| wanted(ordering).into())
}

fn order(left: &Number, right: &Number) -> Option<Ordering> {
    let whole = |number: &Number| number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    match (whole(left), whole(right)) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

fn instant(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// A regular expression of the linear-time sort. It is compiled when it is first needed, so that an organization with many
/// policies is read fast.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    source: Box<str>,
    compiled: Arc<OnceLock<Option<Regex>>>,
}

/// The longest pattern, in bytes.
const MAX_PATTERN: usize = 512;
/// The most that a compiled pattern may take, in bytes: with [`MAX_TEXT`] that bounds the time of a match.
const MAX_COMPILED: usize = 64 * 1024;
/// The longest text that is matched, in bytes. Longer ones are unclear.
const MAX_TEXT: usize = 16 * 1024;

impl Pattern {
    fn new(source: &str) -> Self {
        Self { source: source.into(), compiled: Arc::default() }
    }

    fn check(&self) -> Result<(), String> {
        if self.source.len() > MAX_PATTERN {
            return Err(format!("have a pattern of more than {MAX_PATTERN} bytes"));
        }
        match self.compiled() {
            Some(_) => Ok(()),
            None => Err("have a pattern that is malformed or too large".to_owned()),
        }
    }

    fn compiled(&self) -> Option<&Regex> {
        self.compiled.get_or_init(|| compile(&self.source)).as_ref()
    }

    fn matches(&self, value: &Value) -> Truth {
        let Value::String(text) = value else { return Truth::Unclear };
        if text.len() > MAX_TEXT {
            return Truth::Unclear;
        }
        match self.compiled() {
            Some(pattern) => pattern.is_match(text).into(),
            None => Truth::Unclear,
        }
    }
}

fn compile(source: &str) -> Option<Regex> {
    RegexBuilder::new(source)
        .size_limit(MAX_COMPILED)
        .dfa_size_limit(MAX_COMPILED)
        .nest_limit(50)
        .build()
        .ok()
}

const NO_NETWORK: &str = "have a network that is none: `10.0.0.0/8`, `2001:db8::/32` or an address";

fn in_network(value: &Value, networks: &[Network]) -> Truth {
    match value.as_str().and_then(|text| text.parse::<IpAddr>().ok()) {
        Some(address) => networks.iter().any(|network| network.contains(address)).into(),
        None => Truth::Unclear,
    }
}
