//! The role that counts use.

use std::fmt;

use async_trait::async_trait;

use super::StoreError;
use crate::{
    budget::{Account, Line, Usage},
    clock::Timestamp,
    id::{AgentId, OrgId},
};

/// One charge: every line, or none.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Charge<'a> {
    /// The caller's id for it, if it wants to be able to repeat the call.
    pub id: Option<ChargeId<'a>>,
    /// The counters it touches. At most one line per counter.
    pub lines: &'a [Line],
}

/// The caller's own id of a charge.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "built by the protocol layer, read by every backend")]
pub struct ChargeId<'a> {
    /// The agent that calls; ids are unique per agent.
    pub actor: AgentId,
    /// The text it chose.
    pub key: &'a str,
    /// SHA-256 of what was asked, so that the same id with other content is told apart.
    pub request_hash: [u8; 32],
    /// Until when a repetition is recognised; from this instant on the id is new again.
    pub keep_until: Timestamp,
}

impl<'a> Charge<'a> {
    /// A charge that cannot be repeated: after an unknown outcome it counts as made.
    pub const fn once(lines: &'a [Line]) -> Self {
        Self { id: None, lines }
    }

    /// A charge that may be repeated with the same id.
    pub const fn repeatable(id: ChargeId<'a>, lines: &'a [Line]) -> Self {
        Self { id: Some(id), lines }
    }
}

/// What became of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum Charged {
    /// Every line is counted. The counters after it, in the order of the lines.
    Charged(Vec<u64>),
    /// The line at this index had no room; nothing changed. The counter as it is.
    Exceeded {
        /// Index of the first line without room.
        line: usize,
        /// What its counter shows.
        used: u64,
    },
    /// This id was charged before with the same content; nothing changed.
    Repeated,
    /// This id was charged before with other content; nothing changed.
    Conflict,
}

/// Counts use, exactly. Hot: its rows are the record, it writes no events.
#[async_trait]
pub trait BudgetStore: fmt::Debug + Send + Sync + 'static {
    /// Counts every line of `charge`, or none.
    ///
    /// # To be correct
    /// - Whether a line has room is decided by [`crate::budget::admits`] on the counter as it is at that moment,
    ///   in one atomic step with the counting, over all lines and all accounts. Under any concurrency no counter
    ///   with a limit passes it.
    /// - A counter that was never charged shows zero, also for any number of first charges at once.
    /// - An id is looked up and stored in the same step. Until its `keep_until`, a repetition changes nothing.
    ///   A refused charge stores no id.
    /// - Counting saturates; it never wraps.
    ///
    /// Checked by `conformance::budgets::never_oversells`, `all_lines_or_none`, `first_charges_at_once`,
    /// `repeats_by_id`, `racing_repeats`, `refused_ids_are_free`, `ids_end`, `ids_are_per_actor`,
    /// `facts_overshoot` and `no_wrap`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer. A charge without id then counts as made: nobody may repeat it.
    async fn charge(&self, org: &OrgId, charge: &Charge<'_>, now: Timestamp) -> Result<Charged, StoreError>;

    /// What `account` used in the windows that `now` is in. Checked by `conformance::budgets::usage_by_window`
    /// and `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn usage(&self, org: &OrgId, account: Account, now: Timestamp) -> Result<Usage, StoreError>;
}
