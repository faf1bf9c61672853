//! Amounts that are held before they are used, and what may become of them. Every store decides with [`Hold::resolve`].

use serde::{Deserialize, Serialize};

use super::{Account, Line, Meter, Usage, Window};
use crate::clock::Timestamp;

/// One counter that a hold stands on, with the amount that was counted when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HeldLine {
    /// Who pays.
    pub account: Account,
    /// What is counted.
    pub meter: Meter,
    /// Over which time.
    pub window: Window,
    /// First instant of the window in which the hold was made: it belongs to that window for good.
    pub window_start: Timestamp,
    /// How much is held.
    pub amount: u64,
}

impl From<&Line> for HeldLine {
    fn from(line: &Line) -> Self {
        let Line { account, meter, window, window_start, amount, .. } = *line;
        Self { account, meter, window, window_start, amount }
    }
}

impl HeldLine {
    /// The same counter without a limit, with `amount`.
    pub const fn counting(&self, amount: u64) -> Line {
        let Self { account, meter, window, window_start, .. } = *self;
        Line { account, meter, window, window_start, limit: None, amount }
    }
}

/// Where a hold stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new state must break every reader")]
pub enum HoldState {
    /// The amount is held for its lease, and counts as used when that ends.
    Held,
    /// The amount is held until a human has decided.
    Parked,
    /// This much was used in the end.
    Settled(Usage),
    /// Freed by its holder.
    Released,
    /// Freed, since a human said no.
    Denied,
    /// Freed, since no human said anything in time.
    Expired,
}

/// A hold, as a store keeps it under its id. All but `state` and `ends` stays as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Hold {
    /// Where it stands.
    pub state: HoldState,
    /// When the lease of a [`HoldState::Held`] or the wait of a [`HoldState::Parked`] ends.
    pub ends: Timestamp,
    /// What it counts, and for whom.
    pub lines: Vec<HeldLine>,
    /// What its maker wants to be told again; at most [`Hold::MAX_NOTE`] bytes, which its maker sees to. Stores do not look at
    /// it, and need not take a longer one.
    pub note: String,
}

/// What is to become of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every store must handle every one")]
pub enum Resolution {
    /// This much was used, in place of what was held: a fact, recorded also where it passes a limit, and also after the
    /// lease has ended.
    Settle(Usage),
    /// Nothing was used.
    Release,
    /// A human agreed: a parked hold is held from now on, until this instant.
    Unpark(Timestamp),
    /// A human said no to a parked hold.
    Deny,
    /// The wait of a parked hold is over.
    Expire,
}

/// What [`Hold::resolve`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "the two answers")]
pub enum Verdict {
    /// The hold becomes this.
    Becomes {
        /// Its next state.
        state: HoldState,
        /// Its next end.
        ends: Timestamp,
        /// What each line counts from now on, in place of its amount.
        amounts: Vec<u64>,
        /// Whether its lease had ended before.
        late: bool,
    },
    /// It stays as it is, in this state.
    Stays(HoldState),
}

impl Hold {
    /// The longest note, in bytes.
    pub const MAX_NOTE: usize = 4096;

    /// A hold of what `lines` count.
    pub fn new(lines: &[Line], state: HoldState, ends: Timestamp, note: &str) -> Self {
        Self { state, ends, lines: lines.iter().map(HeldLine::from).collect(), note: note.to_owned() }
    }

    /// A hold of `lines` of which no store knows: its maker keeps it, and it has no end.
    pub fn without_end(lines: &[HeldLine]) -> Self {
        let ends = Timestamp::from_unix_millis(u64::MAX);
        Self { state: HoldState::Held, ends, lines: lines.to_vec(), note: String::new() }
    }

    /// Whether it holds something at `now` that may still be used or freed: it is within its lease, or parked.
    pub fn is_live(&self, now: Timestamp) -> bool {
        match self.state {
            HoldState::Held => now < self.ends,
            HoldState::Parked => true,
            HoldState::Settled(_) | HoldState::Released | HoldState::Denied | HoldState::Expired => false,
        }
    }

    /// What `resolution` makes of it at `now`.
    ///
    /// | | held | parked, in time | parked, its wait over | ended |
    /// |---|---|---|---|---|
    /// | `Settle` | ends, late or not | stays | stays | stays |
    /// | `Release` | ends, late or not | ends | ends | stays |
    /// | `Unpark` | stays | held | stays | stays |
    /// | `Deny` | stays | ends | ends | stays |
    /// | `Expire` | stays | stays | ends | stays |
    ///
    /// ```
    /// use lumoauth_core::{budget::*, clock::Timestamp};
    ///
    /// let ends = Timestamp::from_unix_seconds(60);
    /// let hold = Hold::new(&[], HoldState::Parked, ends, "");
    /// assert_eq!(hold.resolve(Resolution::Settle(Usage::ONE_CALL), ends), Verdict::Stays(HoldState::Parked));
    /// assert!(matches!(hold.resolve(Resolution::Expire, ends), Verdict::Becomes { .. }));
    /// ```
    pub fn resolve(&self, resolution: Resolution, now: Timestamp) -> Verdict {
        let over = now >= self.ends;
        let (state, ends) = match (self.state, resolution) {
            (HoldState::Held, Resolution::Settle(usage)) => (HoldState::Settled(usage), self.ends),
            (HoldState::Held | HoldState::Parked, Resolution::Release) => (HoldState::Released, self.ends),
            (HoldState::Parked, Resolution::Unpark(ends)) if !over => (HoldState::Held, ends),
            (HoldState::Parked, Resolution::Deny) => (HoldState::Denied, self.ends),
            (HoldState::Parked, Resolution::Expire) if over => (HoldState::Expired, self.ends),
            (state, _) => return Verdict::Stays(state),
        };
        let late = over && self.state == HoldState::Held;
        Verdict::Becomes { state, ends, amounts: amounts(&self.lines, state), late }
    }
}

/// What each of `lines` counts when their hold is in `state`.
pub fn amounts(lines: &[HeldLine], state: HoldState) -> Vec<u64> {
    let amount = |line: &HeldLine| match state {
        HoldState::Held | HoldState::Parked => line.amount,
        HoldState::Settled(usage) => usage.of(line.meter),
        HoldState::Released | HoldState::Denied | HoldState::Expired => 0,
    };
    lines.iter().map(amount).collect()
}

/// A counter at `used` in which `before` was counted, with `after` counted in its place. It saturates.
pub const fn recounted(used: u64, before: u64, after: u64) -> u64 {
    used.saturating_sub(before).saturating_add(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        budget::{BudgetPolicy, Standing, account_lines},
        id::AgentId,
    };

    const EVERY: [Resolution; 5] = [
        Resolution::Settle(Usage::ONE_CALL),
        Resolution::Release,
        Resolution::Unpark(Timestamp::from_unix_seconds(500)),
        Resolution::Deny,
        Resolution::Expire,
    ];

    fn hold(state: HoldState) -> Hold {
        let usage = Usage { tokens: 10, calls: 2, micro_usd: 30 };
        let account = Account::agent(AgentId::generate(), 0);
        let lines =
            account_lines(account, &BudgetPolicy::default(), &usage, Standing::Hold, Timestamp::default());
        Hold::new(&lines, state, Timestamp::from_unix_seconds(100), "")
    }

    /// The states that each resolution leads to, at `seconds`.
    fn next(state: HoldState, seconds: u64) -> Vec<Option<HoldState>> {
        EVERY
            .into_iter()
            .map(|resolution| match hold(state).resolve(resolution, Timestamp::from_unix_seconds(seconds)) {
                Verdict::Becomes { state, .. } => Some(state),
                Verdict::Stays(same) => {
                    assert_eq!(same, state);
                    None
                }
            })
            .collect()
    }

    #[test]
    fn a_held_amount_is_settled_or_released_also_late_and_nothing_else() {
        let settled = Some(HoldState::Settled(Usage::ONE_CALL));
        for seconds in [99, 100, 1000] {
            assert_eq!(
                next(HoldState::Held, seconds),
                [settled, Some(HoldState::Released), None, None, None]
            );
        }
    }

    #[test]
    fn a_parked_amount_is_decided_in_time_or_freed() {
        assert_eq!(
            next(HoldState::Parked, 99),
            [None, Some(HoldState::Released), Some(HoldState::Held), Some(HoldState::Denied), None]
        );
        for seconds in [100, 1000] {
            let freed =
                [None, Some(HoldState::Released), None, Some(HoldState::Denied), Some(HoldState::Expired)];
            assert_eq!(next(HoldState::Parked, seconds), freed);
        }
    }

    #[test]
    fn what_has_ended_stays() {
        let settled = HoldState::Settled(Usage::default());
        for state in [settled, HoldState::Released, HoldState::Denied, HoldState::Expired] {
            assert_eq!(next(state, 99), [None; 5]);
            assert_eq!(next(state, 100), [None; 5]);
        }
    }

    #[test]
    fn amounts_follow_the_state() {
        let hold = hold(HoldState::Held);
        let amounts = |resolution, now| match hold.resolve(resolution, now) {
            Verdict::Becomes { amounts, late, .. } => (amounts, late),
            Verdict::Stays(_) => panic!("it stays"),
        };
        let (before, at) = (Timestamp::from_unix_seconds(99), Timestamp::from_unix_seconds(100));
        assert_eq!(amounts(Resolution::Settle(Usage::ONE_CALL), before), (vec![0, 1, 0], false));
        assert_eq!(amounts(Resolution::Settle(Usage::ONE_CALL), at), (vec![0, 1, 0], true));
        assert_eq!(amounts(Resolution::Release, before), (vec![0, 0, 0], false));
        assert_eq!(recounted(10, 3, 5), 12);
        assert_eq!(recounted(2, 3, u64::MAX), u64::MAX);
    }
}
