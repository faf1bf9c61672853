//! How values are compared.

use std::{
    cmp::Ordering,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use regex::{Regex, RegexBuilder};
use serde_json::{Number, Value};

use super::path::Path;
use crate::clock::Timestamp;

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
        if matches!(self, Self::Exists | Self::NotExists) {
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
            (Self::Matches, Value::String(source)) => Pattern::new(source).map(Operand::Pattern),
            (Self::Matches, _) => Err("have `matches` without a pattern".to_owned()),
            (Self::InNetwork | Self::NotInNetwork, Value::String(text)) => {
                Ok(Operand::Networks(vec![Network::parse(text).ok_or(NO_NETWORK)?]))
            }
            (Self::InNetwork | Self::NotInNetwork, Value::Array(items)) => {
                let read = |item: &Value| item.as_str().and_then(Network::parse).ok_or(NO_NETWORK.to_owned());
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
    fn new(source: &str) -> Result<Self, String> {
        if source.len() > MAX_PATTERN {
            return Err(format!("have a pattern of more than {MAX_PATTERN} bytes"));
        }
        if compile(source).is_none() {
            return Err("have a pattern that is malformed or too large".to_owned());
        }
        Ok(Self { source: source.into(), compiled: Arc::default() })
    }

    fn matches(&self, value: &Value) -> Truth {
        let Value::String(text) = value else { return Truth::Unclear };
        if text.len() > MAX_TEXT {
            return Truth::Unclear;
        }
        match self.compiled.get_or_init(|| compile(&self.source)) {
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

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    length: u8,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => most,
            Some(text) if text.bytes().all(|digit| digit.is_ascii_digit()) => text.parse().ok()?,
            Some(_) => return None,
        };
        (length <= most).then_some(Self { address, length })
    }

    fn contains(self, other: IpAddr) -> bool {
        let shift = |bits: u32| bits - u32::from(self.length);
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                differs.checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                differs.checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

fn in_network(value: &Value, networks: &[Network]) -> Truth {
    match value.as_str().and_then(|text| text.parse::<IpAddr>().ok()) {
        // An IPv4 client on a socket for both shows as `::ffff:a.b.c.d`.
        Some(address) => networks.iter().any(|network| network.contains(address.to_canonical())).into(),
        None => Truth::Unclear,
    }
}
