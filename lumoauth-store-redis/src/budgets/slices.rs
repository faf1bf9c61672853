//! How large a slice is. The README derives from it how much a loss wastes at most.

use lumoauth_core::budget::Line;

use super::request::Short;

/// For how many charges like the present one a slice is meant to last.
const CHARGES: u64 = 100;

/// Which part of what is left below the maximum a slice may take: near the maximum slices become small, and in the
/// end each charge is debited by itself.
const PART: u64 = 8;

/// Units to debit in the durable store for one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) line: usize,
    pub(super) units: u64,
    /// Fewer are of no use.
    missing: u64,
    limit: Option<u64>,
}

/// What is brought to the pool for one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Credit {
    pub(super) line: usize,
    pub(super) units: u64,
    /// What the durable counter shows now.
    pub(super) debited: u64,
}

impl Slice {
    /// The slice for a line that is short.
    ///
    /// The first of a counter is exactly what is missing: nothing is known of the counter yet. Later ones are
    /// `min(100 × amount, (maximum - counter) / 8)`, and at least what is missing. A line without a maximum is bound
    /// by the last one that the pool has seen.
    pub(super) fn of(line: &Line, short: &Short, largest: u64) -> Self {
        let missing = line.amount.saturating_sub(short.left);
        let units = short.debited.map_or(missing, |debited| {
            let max = line.limit.or(short.max).unwrap_or(u64::MAX);
            let part = max.saturating_sub(debited) / PART;
            CHARGES.saturating_mul(line.amount).min(part).min(largest).max(missing)
        });
        Self { line: short.line, units, missing, limit: line.limit }
    }

    /// Only what is missing.
    pub(super) const fn missing(line: &Line, short: &Short) -> Self {
        let missing = line.amount.saturating_sub(short.left);
        Self { line: short.line, units: missing, missing, limit: line.limit }
    }

    /// The whole amount of a line.
    pub(super) const fn whole(line: &Line, index: usize) -> Self {
        Self { line: index, units: line.amount, missing: line.amount, limit: line.limit }
    }

    /// Asks for less, since the counter shows `used`. `false` if that is of no use.
    pub(super) fn shrink(&mut self, used: u64) -> bool {
        if self.units <= self.missing {
            return false;
        }
        let part = self.limit.unwrap_or(u64::MAX).saturating_sub(used) / PART;
        self.units = part.min(self.units - 1).max(self.missing);
        true
    }

    /// What to tell the pool when the counter, which shows `used`, has no room for what is missing.
    pub(super) const fn exhausted(&self, used: u64) -> Credit {
        Credit { line: self.line, units: 0, debited: used }
    }
}

#[cfg(test)]
mod tests {
    use lumoauth_core::{
        budget::{Account, BudgetPolicy, Standing, Usage, account_lines},
        clock::Timestamp,
        id::AgentId,
    };

    use super::*;

    fn slice(limit: Option<u64>, amount: u64, left: u64, debited: Option<u64>, max: Option<u64>) -> Slice {
        let account = Account::agent(AgentId::generate(), 0);
        let (policy, now) = (BudgetPolicy::default(), Timestamp::default());
        let mut line = account_lines(account, &policy, &Usage::ONE_CALL, Standing::MustFit, now)[0];
        (line.limit, line.amount) = (limit, amount);
        Slice::of(&line, &Short { line: 0, left, debited, max }, 1 << 50)
    }

    #[test]
    fn a_slice_is_small_near_the_maximum_and_never_too_small() {
        assert_eq!(slice(Some(1000), 3, 0, None, None).units, 3, "the first");
        assert_eq!(slice(Some(100_000), 3, 1, Some(10), None).units, 300);
        assert_eq!(slice(Some(1000), 3, 1, Some(200), None).units, 100);
        assert_eq!(slice(Some(1000), 3, 1, Some(990), None).units, 2);
        assert_eq!(slice(Some(1000), 3, 0, Some(2000), None).units, 3);
        assert_eq!(slice(None, 3, 0, Some(2000), None).units, 300);
        assert_eq!(slice(None, 3, 0, Some(200), Some(1000)).units, 100, "bound by the maximum last seen");
        assert_eq!(slice(None, 1 << 49, 0, Some(0), None).units, 1 << 50);
    }

    #[test]
    fn shrinking_ends_at_what_is_missing() {
        let mut slice = slice(Some(1000), 3, 0, Some(200), None);
        assert!(slice.shrink(800));
        assert_eq!(slice.units, 25);
        assert!(slice.shrink(990));
        assert_eq!(slice.units, 3);
        assert!(!slice.shrink(998));
    }
}
