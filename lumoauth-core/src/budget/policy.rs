//! The budget policy as administrators write it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use super::{Limit, Meter, MicroUsd, Window};

/// What an agent may use; every part is optional, and an absent maximum is no maximum.
///
/// Unknown members are kept and returned. In JSON, absent and `null` are the same.
///
/// ```
/// use lumoauth_core::budget::BudgetPolicy;
///
/// let policy: BudgetPolicy = serde_json::from_str(
///     r#"{"max_tokens_per_day": 100000, "max_cost_per_month_usd": 50, "team": "blue"}"#,
/// ).unwrap();
/// assert_eq!(policy.limits().count(), 2);
/// assert!(serde_json::from_str::<BudgetPolicy>(r#"{"max_tokens_per_day": -1}"#).is_err());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BudgetPolicy {
    /// Model tokens per UTC day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens_per_day: Option<u64>,
    /// API calls per UTC clock hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_api_calls_per_hour: Option<u64>,
    /// Cost per UTC calendar month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost_per_month_usd: Option<MicroUsd>,
    /// The models that may be used; absent or empty allows every model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_models: Option<Vec<String>>,
    /// A single call that costs more than this needs a human's approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_approval_above_usd: Option<MicroUsd>,
    /// Members this version does not know.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// The policy cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member}: {problem}")]
#[non_exhaustive]
pub struct InvalidPolicy {
    /// The member at fault.
    pub member: String,
    /// What is wrong with it, safe to show.
    pub problem: &'static str,
}

impl BudgetPolicy {
    /// The largest maximum of tokens or calls: beyond it JSON clients lose digits.
    pub const MAX_COUNT: u64 = 1 << 53;

    /// The maxima, as limits.
    pub fn limits(&self) -> impl Iterator<Item = Limit> + '_ {
        [
            self.max_tokens_per_day.map(|max| Limit::new(Meter::Tokens, Window::Day, max)),
            self.max_api_calls_per_hour.map(|max| Limit::new(Meter::Calls, Window::Hour, max)),
            self.max_cost_per_month_usd.map(|max| Limit::new(Meter::MicroUsd, Window::Month, max.micros())),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether nothing at all is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `model` may be used.
    pub fn allows_model(&self, model: &str) -> bool {
        self.allowed_models
            .as_ref()
            .is_none_or(|models| models.is_empty() || models.iter().any(|allowed| allowed == model))
    }

    /// Whether one call of this cost needs an approval first.
    pub fn needs_approval(&self, cost: MicroUsd) -> bool {
        self.require_approval_above_usd.is_some_and(|threshold| cost > threshold)
    }

    /// Whether this policy allows nothing that `larger` does not, in what both of them limit.
    ///
    /// ```
    /// use lumoauth_core::budget::BudgetPolicy;
    ///
    /// let read = |text: &str| serde_json::from_str::<BudgetPolicy>(text).unwrap();
    /// let agent = read(r#"{"max_api_calls_per_hour": 500, "allowed_models": ["gpt-4"]}"#);
    /// assert!(read(r#"{"max_api_calls_per_hour": 10, "max_tokens_per_day": 7}"#).narrows(&agent));
    /// assert!(!read(r#"{"max_api_calls_per_hour": 501}"#).narrows(&agent));
    /// assert!(!read(r#"{"allowed_models": ["gpt-5"]}"#).narrows(&agent));
    /// ```
    pub fn narrows(&self, larger: &Self) -> bool {
        let within = |limit: Limit| {
            let mut others =
                larger.limits().filter(|other| (other.meter, other.window) == (limit.meter, limit.window));
            others.all(|other| limit.max <= other.max)
        };
        let models = self.allowed_models.iter().flatten();
        let threshold = match (self.require_approval_above_usd, larger.require_approval_above_usd) {
            (Some(own), Some(other)) => own <= other,
            (None, _) | (_, None) => true,
        };
        self.limits().all(within) && models.into_iter().all(|model| larger.allows_model(model)) && threshold
    }

    /// The wire name of the maximum for `meter`.
    pub const fn member_of(meter: Meter) -> &'static str {
        match meter {
            Meter::Tokens => "max_tokens_per_day",
            Meter::Calls => "max_api_calls_per_hour",
            Meter::MicroUsd => "max_cost_per_month_usd",
        }
    }

    fn from_members(mut members: BTreeMap<String, Box<RawValue>>) -> Result<Self, InvalidPolicy> {
        let count = |members: &mut BTreeMap<_, _>, name| {
            let count: Option<u64> = take(members, name, "must be a whole number, zero or more")?;
            match count {
                Some(n) if n > Self::MAX_COUNT => {
                    Err(InvalidPolicy { member: name.to_owned(), problem: "is absurdly large" })
                }
                count => Ok(count),
            }
        };
        let amount = "must be an amount from 0 to 1000000000 with at most 6 decimals";
        let policy = Self {
            max_tokens_per_day: count(&mut members, "max_tokens_per_day")?,
            max_api_calls_per_hour: count(&mut members, "max_api_calls_per_hour")?,
            max_cost_per_month_usd: take(&mut members, "max_cost_per_month_usd", amount)?,
            require_approval_above_usd: take(&mut members, "require_approval_above_usd", amount)?,
            allowed_models: take(&mut members, "allowed_models", "must be a list of model names")?,
            extra: members
                .into_iter()
                .filter(|(name, _)| !COUNTERS.contains(&name.as_str()))
                .filter_map(|(name, raw)| Some((name, serde_json::from_str(raw.get()).ok()?)))
                .collect(),
        };
        let long = policy.extra.keys().any(|name| name.len() > 64) || policy.extra.len() > 16;
        let models = policy.allowed_models.as_deref().unwrap_or_default();
        if long {
            return Err(InvalidPolicy {
                member: "budget_policy".to_owned(),
                problem: "has too many members",
            });
        }
        if models.len() > 100 || models.iter().any(|model| model.is_empty() || model.len() > 128) {
            let problem = "must be at most 100 names of at most 128 bytes";
            return Err(InvalidPolicy { member: "allowed_models".to_owned(), problem });
        }
        Ok(policy)
    }
}

/// What answers add to a policy: what is used of it. A client that sends an answer back does not set them.
const COUNTERS: [&str; 3] = ["tokens_used_today", "api_calls_this_hour", "cost_this_month_usd"];

fn take<T: DeserializeOwned>(
    members: &mut BTreeMap<String, Box<RawValue>>,
    name: &str,
    problem: &'static str,
) -> Result<Option<T>, InvalidPolicy> {
    match members.remove(name) {
        None => Ok(None),
        Some(raw) => serde_json::from_str::<Option<T>>(raw.get())
            .map_err(|_| InvalidPolicy { member: name.to_owned(), problem }),
    }
}

impl<'de> Deserialize<'de> for BudgetPolicy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_members(BTreeMap::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BudgetPolicy, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn the_policy_of_the_documentation_reads_and_writes_back() {
        let text = r#"{"max_tokens_per_day":100000,"max_api_calls_per_hour":500,"max_cost_per_month_usd":50,"allowed_models":["gpt-4","claude-3-sonnet"],"require_approval_above_usd":10}"#;
        assert_eq!(serde_json::to_string(&read(text).unwrap()).unwrap(), text);
    }

    #[test]
    fn bad_numbers_are_refused() {
        for bad in ["-1", "1.5", "1e300", "\"5\"", "true", "9007199254740993", "[1]"] {
            assert!(read(&format!(r#"{{"max_tokens_per_day":{bad}}}"#)).is_err(), "{bad}");
        }
        for bad in ["-1", "1e3", "0.0000001", "true"] {
            assert!(read(&format!(r#"{{"max_cost_per_month_usd":{bad}}}"#)).is_err(), "{bad}");
        }
    }

    #[test]
    fn null_is_absent_and_zero_is_nothing() {
        let policy = read(r#"{"max_tokens_per_day":null,"max_api_calls_per_hour":0}"#).unwrap();
        assert_eq!(policy.limits().collect::<Vec<_>>(), [Limit::new(Meter::Calls, Window::Hour, 0)]);
    }
}
