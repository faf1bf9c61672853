//! The budget decision, as pure functions over counters. Every store decides with [`admits`].

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{BudgetPolicy, COUNTERS, Meter, Window};
use crate::{clock::Timestamp, id::AgentId};

/// Whose use is counted: an agent's, in one budget generation, or that of a family of tokens with a budget of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Account {
    /// The id of the agent or the envelope that pays. Both are random, so they never meet.
    pub owner: Uuid,
    /// Raised by a reset, so that old counters are no longer asked for.
    pub generation: u32,
}

impl Account {
    /// The account of `agent` in one of its budget generations.
    ///
    /// A reset writes no counter: it raises the generation in the agent's record, and the old counters are
    /// simply no longer asked for.
    pub const fn agent(agent: AgentId, generation: u32) -> Self {
        Self { owner: agent.uuid(), generation }
    }

    /// The account of an envelope: the budget that a family of delegated tokens carries.
    pub const fn envelope(id: Uuid) -> Self {
        Self { owner: id, generation: 0 }
    }
}

/// What one call uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a new meter must be considered wherever usage is made")]
pub struct Usage {
    /// Model tokens.
    pub tokens: u64,
    /// API calls.
    pub calls: u64,
    /// Cost in millionths of a US dollar.
    pub micro_usd: u64,
}

impl Usage {
    /// One API call and nothing else.
    pub const ONE_CALL: Self = Self { tokens: 0, calls: 1, micro_usd: 0 };

    /// The amount for `meter`.
    pub const fn of(&self, meter: Meter) -> u64 {
        match meter {
            Meter::Tokens => self.tokens,
            Meter::Calls => self.calls,
            Meter::MicroUsd => self.micro_usd,
        }
    }
}

/// One counter that a charge touches, with the limit that holds for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// Who pays.
    pub account: Account,
    /// What is counted.
    pub meter: Meter,
    /// Over which time.
    pub window: Window,
    /// First instant of the window; part of the counter's key.
    pub window_start: Timestamp,
    /// The maximum; `None` counts without limiting. The store knows no limits of its own.
    pub limit: Option<u64>,
    /// How much to add. Zero adds nothing, but with a limit still asks for room.
    pub amount: u64,
}

/// Whether a counter at `used` has room for `line`.
///
/// A counter that has reached its maximum admits nothing, not even a zero; below it, the whole amount must fit.
///
/// ```
/// use lumoauth_core::budget::*;
/// use lumoauth_core::{clock::Timestamp, id::AgentId};
///
/// let policy: BudgetPolicy = serde_json::from_str(r#"{"max_api_calls_per_hour": 10}"#).unwrap();
/// let account = Account::agent(AgentId::generate(), 0);
/// let lines = account_lines(account, &policy, &Usage::ONE_CALL, Standing::MustFit, Timestamp::default());
/// assert!(admits(9, &lines[0]));
/// assert!(!admits(10, &lines[0]));
/// ```
pub fn admits(used: u64, line: &Line) -> bool {
    line.limit.is_none_or(|max| used < max && line.amount <= max - used)
}

/// Whether a charge asks or tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the two ways to charge")]
pub enum Standing {
    /// The use lies ahead: it must fit, and every other maximum of the policy must have room.
    MustFit,
    /// The same, and what was used in the end may be something else: every counter is a line, so that it can be corrected.
    Hold,
    /// The use has happened: it is recorded even if it overshoots.
    Fact,
}

/// The lines of a charge of `usage` to `account` under `policy`.
///
/// When the charge must fit, every limited counter is a line, also with amount zero: an agent whose tokens
/// are used up is stopped at its next call. Meters without a limit are counted all the same, so that a limit
/// set later sees what was used.
pub fn account_lines(
    account: Account,
    policy: &BudgetPolicy,
    usage: &Usage,
    standing: Standing,
    now: Timestamp,
) -> Vec<Line> {
    let max = |meter, window| {
        policy.limits().find(|limit| limit.meter == meter && limit.window == window).map(|limit| limit.max)
    };
    COUNTERS
        .into_iter()
        .filter_map(|(meter, window)| {
            let limit = match standing {
                Standing::MustFit | Standing::Hold => max(meter, window),
                Standing::Fact => None,
            };
            let amount = usage.of(meter);
            (amount > 0 || limit.is_some() || standing == Standing::Hold).then(|| Line {
                account,
                meter,
                window,
                window_start: window.start(now),
                limit,
                amount,
            })
        })
        .collect()
}

/// The maxima of `policy` that `used` has reached, each with the instant its window ends.
pub fn exceeded<'a>(
    policy: &'a BudgetPolicy,
    used: &'a Usage,
    now: Timestamp,
) -> impl Iterator<Item = (super::Limit, Timestamp)> + 'a {
    policy
        .limits()
        .filter(|limit| used.of(limit.meter) >= limit.max)
        .map(move |limit| (limit, limit.window.end(now)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(max: u64) -> BudgetPolicy {
        serde_json::from_str(&format!(r#"{{"max_tokens_per_day":{max},"max_api_calls_per_hour":{max}}}"#))
            .unwrap()
    }

    fn account() -> Account {
        Account::agent(AgentId::generate(), 0)
    }

    #[test]
    fn zero_allows_nothing_and_absent_allows_everything() {
        let now = Timestamp::default();
        let closed = account_lines(account(), &policy(0), &Usage::ONE_CALL, Standing::MustFit, now);
        assert!(closed.iter().all(|line| !admits(0, line)));
        let open =
            account_lines(account(), &BudgetPolicy::default(), &Usage::ONE_CALL, Standing::MustFit, now);
        assert!(open.iter().all(|line| admits(u64::MAX, line)));
        assert_eq!(open.len(), 1, "calls are counted without a limit too");
    }

    #[test]
    fn a_call_asks_every_limited_counter_for_room() {
        let now = Timestamp::default();
        let lines = account_lines(account(), &policy(5), &Usage::ONE_CALL, Standing::MustFit, now);
        assert_eq!(
            lines.iter().map(|line| (line.meter, line.amount)).collect::<Vec<_>>(),
            [(Meter::Tokens, 0), (Meter::Calls, 1)]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Admitting one amount after another never passes the maximum, whatever the amounts.
        #[test]
        fn a_counter_never_passes_its_maximum(max in 0u64..100, amounts in proptest::collection::vec(any::<u64>(), 0..50)) {
            let mut used = 0u64;
            for amount in amounts {
                let usage = Usage { calls: amount % 40, ..Usage::default() };
                let lines = account_lines(account(), &policy(max), &usage, Standing::MustFit, Timestamp::default());
                let line = lines.iter().find(|line| line.meter == Meter::Calls).unwrap();
                if admits(used, line) {
                    used += line.amount;
                }
                prop_assert!(used <= max);
            }
        }
    }
}
