//! The refusal of a call for which somebody has no budget left.

use http::StatusCode;
use serde_json::Value;

use super::Remaining;
use crate::{
    budget::{BudgetPolicy, Line, Meter, MicroUsd, Usage, exceeded},
    clock::Timestamp,
    wire::WireError,
};

/// A limit is used up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("budget exceeded: {limit}")]
#[non_exhaustive]
pub struct Exhausted {
    /// The member of the policy.
    pub limit: &'static str,
    /// Its maximum.
    pub max: u64,
    /// What is used.
    pub used: u64,
    /// When its window ends.
    pub resets_at: Timestamp,
    /// Whole seconds until a call could pass, were nothing else used: until the last exceeded window ends.
    pub retry_after: u64,
    /// What is counted.
    pub meter: Meter,
    /// What is left to whoever refuses.
    pub remaining: Remaining,
}

impl Exhausted {
    /// The refusal of `line`, whose counter shows `used`.
    pub(crate) fn new(policy: &BudgetPolicy, usage: &Usage, line: &Line, used: u64, now: Timestamp) -> Self {
        let resets_at = line.window.end(now);
        let last = exceeded(policy, usage, now).map(|(_, end)| end).fold(resets_at, Timestamp::max);
        Self {
            limit: BudgetPolicy::member_of(line.meter),
            max: line.limit.unwrap_or(u64::MAX),
            used,
            resets_at,
            retry_after: last.since(now).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX),
            meter: line.meter,
            remaining: Remaining::of(policy, usage, now),
        }
    }

    /// The refusal that `body`, the JSON of [`Exhausted::to_wire`], tells of; `None` if it is none. What is left is in headers.
    pub fn from_wire(body: &Value, remaining: Remaining, retry_after: u64) -> Option<Self> {
        let details = body.get("details").filter(|_| body["error"] == "budget_exceeded")?;
        let name = details.get("limit")?.as_str()?;
        let meter = [Meter::Tokens, Meter::Calls, Meter::MicroUsd]
            .into_iter()
            .find(|meter| BudgetPolicy::member_of(*meter) == name)?;
        let amount = |name: &str| match (meter, details.get(name)?) {
            (Meter::MicroUsd, Value::String(text)) => text.parse::<MicroUsd>().ok().map(MicroUsd::micros),
            (Meter::MicroUsd, Value::Number(number)) => {
                number.to_string().parse::<MicroUsd>().ok().map(MicroUsd::micros)
            }
            (Meter::Tokens | Meter::Calls, value) => value.as_u64(),
            (Meter::MicroUsd, _) => None,
        };
        Some(Self {
            limit: BudgetPolicy::member_of(meter),
            max: amount("max")?,
            used: amount("used")?,
            resets_at: details.get("resets_at")?.as_str()?.parse().ok()?,
            retry_after,
            meter,
            remaining,
        })
    }

    /// 429 `budget_exceeded` with the numbers.
    pub fn to_wire(&self) -> WireError {
        let sentence = match (self.meter, self.used < self.max) {
            (Meter::Tokens, false) => "Daily token budget used up.",
            (Meter::Calls, false) => "Hourly API call budget used up.",
            (Meter::MicroUsd, false) => "Monthly cost budget used up.",
            (Meter::Tokens, true) => "What is left of the daily token budget is less than asked for.",
            (Meter::Calls, true) => "What is left of the hourly API call budget is less than asked for.",
            (Meter::MicroUsd, true) => "What is left of the monthly cost budget is less than asked for.",
        };
        let amount = |n: u64| match self.meter {
            Meter::Tokens | Meter::Calls => serde_json::json!(n),
            Meter::MicroUsd => serde_json::json!(MicroUsd::from_micros(n)),
        };
        WireError::new(StatusCode::TOO_MANY_REQUESTS, "budget_exceeded", sentence)
            .with_detail("limit", self.limit)
            .with_detail("max", amount(self.max))
            .with_detail("used", amount(self.used))
            .with_detail("resets_at", self.resets_at.to_string())
            .with_rate_limit(self.remaining.rate_limit_headers())
            .with_retry_after(self.retry_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_as_it_is_written() {
        for (meter, max, used) in
            [(Meter::Tokens, 100, 120), (Meter::Calls, 5, 5), (Meter::MicroUsd, 1_500_000, 20)]
        {
            let refusal = Exhausted {
                limit: BudgetPolicy::member_of(meter),
                max,
                used,
                resets_at: Timestamp::from_unix_seconds(1_790_000_000),
                retry_after: 7,
                meter,
                remaining: Remaining::default(),
            };
            let body = refusal.to_wire().body();
            assert_eq!(Exhausted::from_wire(&body, Remaining::default(), 7), Some(refusal), "{body}");
        }
        for other in [
            serde_json::json!({}),
            serde_json::json!({ "error": "budget_exceeded" }),
            serde_json::json!({ "error": "budget_exceeded", "details": { "limit": "max_hours" } }),
            serde_json::json!({ "error": "slow_down", "details": { "limit": "max_tokens_per_day" } }),
        ] {
            assert_eq!(Exhausted::from_wire(&other, Remaining::default(), 7), None);
        }
    }
}
