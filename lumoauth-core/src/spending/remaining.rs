//! What is left of budgets, and how answers tell it.

use serde_json::{Map, Value};

use crate::{
    budget::{BudgetPolicy, Limit, Meter, MicroUsd, Usage},
    clock::Timestamp,
};

/// What is left; `None` has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "one for every meter")]
pub struct Remaining {
    /// Model tokens of the day.
    pub tokens: Option<u64>,
    /// API calls of the hour.
    pub calls: Option<CallsLeft>,
    /// Millionths of a US dollar of the month.
    pub micro_usd: Option<u64>,
}

/// What is left of the API calls of an hour, as the `RateLimit` headers tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a result, read by transports")]
pub struct CallsLeft {
    /// The maximum.
    pub max: u64,
    /// What is left of it.
    pub left: u64,
    /// In how many seconds the hour ends, rounded up.
    pub resets_in: u64,
}

impl Remaining {
    /// What `usage` leaves of `policy`.
    pub fn of(policy: &BudgetPolicy, usage: &Usage, now: Timestamp) -> Self {
        let mut remaining = Self::default();
        for limit in policy.limits() {
            remaining.lower(&limit, usage.of(limit.meter), now);
        }
        remaining
    }

    /// Takes a limit into account whose counter shows `used`.
    pub(super) fn lower(&mut self, limit: &Limit, used: u64, now: Timestamp) {
        let left = limit.max.saturating_sub(used);
        let least = |known: Option<u64>| Some(known.map_or(left, |known| known.min(left)));
        match limit.meter {
            Meter::Tokens => self.tokens = least(self.tokens),
            Meter::Calls => {
                if self.calls.is_none_or(|known| left < known.left) {
                    let resets_in = limit.window.end(now).since(now).as_millis().div_ceil(1000);
                    let resets_in = resets_in.try_into().unwrap_or(u64::MAX);
                    self.calls = Some(CallsLeft { max: limit.max, left, resets_in });
                }
            }
            Meter::MicroUsd => self.micro_usd = least(self.micro_usd),
        }
    }

    /// The JSON of it: whole numbers for tokens and calls, decimal text for money. What has no limit is not there.
    pub fn to_json(&self) -> Value {
        let mut view = Map::new();
        let mut show =
            |name: &str, value: Option<Value>| value.map(|value| view.insert(name.to_owned(), value));
        show("tokens", self.tokens.map(Value::from));
        show("api_calls", self.calls.map(|calls| calls.left.into()));
        show("cost_usd", self.micro_usd.map(|left| MicroUsd::from_micros(left).to_string().into()));
        Value::Object(view)
    }

    /// The values of `RateLimit-Policy` and `RateLimit` (IETF draft httpapi-ratelimit-headers) for the calls of the hour;
    /// `None` if they have no limit.
    pub fn rate_limit_headers(&self) -> Option<[(&'static str, String); 2]> {
        let CallsLeft { max, left, resets_in } = self.calls?;
        Some([
            ("ratelimit-policy", format!("\"calls\";q={max};w=3600")),
            ("ratelimit", format!("\"calls\";r={left};t={resets_in}")),
        ])
    }
}
