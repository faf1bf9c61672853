//! Conditions: the wire form, read into a tree of tests.

use serde_json::{Map, Value};

use super::{
    operator::{Operand, Operator, Truth},
    path::{Facts, Path},
};

/// Where a policy applies.
#[derive(Clone, Debug)]
pub struct Condition(Node);

#[derive(Clone, Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Nothing(Vec<Node>),
    Test { path: Path, operator: Operator, operand: Operand },
}

/// The text is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
#[non_exhaustive]
pub struct InvalidCondition(pub String);

/// How deep conditions go into each other at most.
const MAX_DEPTH: usize = 10;
/// The most tests and groups of one condition.
const MAX_NODES: usize = 100;

impl Condition {
    /// Reads a condition. Absent, `null` and empty ones always hold. A group is `{"operator": "AND" | "OR", "conditions":
    /// [..]}`, or has any of `all`, `any`, `none`; a list is a group of which all must hold. A test is `{"subject" |
    /// "attribute": "user.department", "operator": "equals", "value": ..}`; a text value such as `$resource.owner` is
    /// looked up. Other values with text that begins with `$` are refused: their author may have meant a reference. Such
    /// text can be compared with a pattern, as in `{"operator": "matches", "value": "^\\$5$"}`.
    ///
    /// # Errors
    /// [`InvalidCondition`] if it is none, or too large.
    pub fn parse(json: &Value) -> Result<Self, InvalidCondition> {
        let condition = Self::stored(json)?;
        condition.0.check()?;
        Ok(condition)
    }

    /// Reads a condition that was accepted when it was written. Patterns are not compiled: an organization with many
    /// policies is read fast.
    pub(super) fn stored(json: &Value) -> Result<Self, InvalidCondition> {
        let mut left = MAX_NODES;
        match json {
            Value::Null => Ok(Self(Node::All(Vec::new()))),
            Value::Object(members) if members.is_empty() => Ok(Self(Node::All(Vec::new()))),
            other => node(other, MAX_DEPTH, &mut left).map(Self),
        }
    }

    pub(super) fn evaluate(&self, facts: &Facts<'_>) -> Truth {
        self.0.evaluate(facts, false)
    }
}

impl Node {
    /// Whether its tests can do what they say.
    fn check(&self) -> Result<(), InvalidCondition> {
        match self {
            Self::All(nodes) | Self::Any(nodes) | Self::Nothing(nodes) => {
                nodes.iter().try_for_each(Self::check)
            }
            Self::Test { operand, .. } => operand.check().map_err(invalid),
        }
    }

    /// `negated`: whether it stands below a `none`, where what is not there must not come out as a yes.
    fn evaluate(&self, facts: &Facts<'_>, negated: bool) -> Truth {
        match self {
            Self::All(nodes) => all(nodes.iter().map(|node| node.evaluate(facts, negated))),
            Self::Any(nodes) => any(nodes.iter().map(|node| node.evaluate(facts, negated))),
            Self::Nothing(nodes) => any(nodes.iter().map(|node| node.evaluate(facts, true))).not(),
            Self::Test { path, operator, operand } => {
                let left = facts.find(path);
                let right = match operand {
                    Operand::Path(path) => Some(facts.find(path)),
                    Operand::Nothing | Operand::Value(_) | Operand::Pattern(_) | Operand::Networks(_) => None,
                };
                let missing = left.is_none() || right.as_ref().is_some_and(Option::is_none);
                if negated && missing && !operator.is_about_presence() {
                    return Truth::Unclear;
                }
                match right {
                    Some(right) => operator.compare_with_fact(left.as_deref(), right.as_deref()),
                    None => operator.compare(left.as_deref(), operand),
                }
            }
        }
    }
}

fn all(outcomes: impl Iterator<Item = Truth>) -> Truth {
    let mut result = Truth::True;
    for outcome in outcomes {
        match outcome {
            Truth::False => return Truth::False,
            Truth::Unclear => result = Truth::Unclear,
            Truth::True => {}
        }
    }
    result
}

fn any(outcomes: impl Iterator<Item = Truth>) -> Truth {
    let mut result = Truth::False;
    for outcome in outcomes {
        match outcome {
            Truth::True => return Truth::True,
            Truth::Unclear => result = Truth::Unclear,
            Truth::False => {}
        }
    }
    result
}

fn invalid(text: impl Into<String>) -> InvalidCondition {
    InvalidCondition(text.into())
}

fn node(json: &Value, depth: usize, left: &mut usize) -> Result<Node, InvalidCondition> {
    if depth == 0 || *left == 0 {
        return Err(invalid("are too large"));
    }
    *left -= 1;
    match json {
        Value::Array(items) => Ok(Node::All(nodes(items, depth, left)?)),
        Value::Object(members) => object(members, depth, left),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Err(invalid("must be made of objects and lists"))
        }
    }
}

fn nodes(items: &[Value], depth: usize, left: &mut usize) -> Result<Vec<Node>, InvalidCondition> {
    items.iter().map(|item| node(item, depth - 1, left)).collect()
}

fn object(members: &Map<String, Value>, depth: usize, left: &mut usize) -> Result<Node, InvalidCondition> {
    if let Some(inner) = members.get("conditions") {
        let Value::Array(items) = inner else { return Err(invalid("have `conditions` that are no list")) };
        let inner = nodes(items, depth, left)?;
        let operator = members.get("operator").map_or(Some("AND"), Value::as_str).unwrap_or_default();
        // An empty list of alternatives would never hold, an empty list of demands always does: both are mistakes here.
        if inner.is_empty() {
            return Err(invalid("have an empty group"));
        }
        return match operator {
            "AND" | "and" => Ok(Node::All(inner)),
            "OR" | "or" => Ok(Node::Any(inner)),
            _ => Err(invalid("have a group whose operator is neither `AND` nor `OR`")),
        };
    }
    let mut groups = Vec::new();
    for (name, make) in [("all", Node::All as fn(_) -> _), ("any", Node::Any), ("none", Node::Nothing)] {
        match members.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::Array(items)) if !items.is_empty() => groups.push(make(nodes(items, depth, left)?)),
            Some(_) => return Err(invalid(format!("have `{name}` that is no list of conditions"))),
        }
    }
    if !groups.is_empty() {
        let known = |name: &String| ["all", "any", "none"].contains(&name.as_str());
        if !members.keys().all(known) {
            return Err(invalid("have a group with other members"));
        }
        return Ok(Node::All(groups));
    }
    test(members)
}

fn test(members: &Map<String, Value>) -> Result<Node, InvalidCondition> {
    let text = |names: [&str; 2]| names.iter().find_map(|name| members.get(*name)).and_then(Value::as_str);
    let path = text(["attribute", "subject"]).ok_or_else(|| invalid("have a test without `attribute`"))?;
    let parsed = Path::parse(path);
    let path = parsed.ok_or_else(|| {
        invalid(
            "have an attribute that begins with none of user., subject., agent., resource. and environment.",
        )
    })?;
    let operator = text(["operator", "op"]).ok_or_else(|| invalid("have a test without `operator`"))?;
    let named = Operator::named(operator);
    let operator = named.ok_or_else(|| invalid("have a test with an unknown operator"))?;
    let operand = operator.operand(members.get("value").unwrap_or(&Value::Null)).map_err(invalid)?;
    Ok(Node::Test { path, operator, operand })
}
