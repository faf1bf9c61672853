//! The role that counts use.

use std::fmt;

use async_trait::async_trait;

use super::StoreError;
use crate::{
    budget::{Account, HeldLine, Hold, HoldState, Line, Resolution, Usage},
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
    /// How it is held, if what is used in the end is told later with [`BudgetStore::resolve`]; of use with an id only.
    pub hold: Option<NewHold<'a>>,
}

/// How a charge is held.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "built by the protocol layer, read by every backend")]
pub struct NewHold<'a> {
    /// Whether it waits for a human ([`HoldState::Parked`]).
    pub parked: bool,
    /// When its lease or its wait ends.
    pub ends: Timestamp,
    /// What its maker wants to be told again; at most [`Hold::MAX_NOTE`] bytes.
    pub note: &'a str,
}

impl NewHold<'_> {
    /// The hold of `lines`, as it is stored.
    pub fn of(&self, lines: &[Line]) -> Hold {
        let state = if self.parked { HoldState::Parked } else { HoldState::Held };
        Hold::new(lines, state, self.ends, self.note)
    }
}

/// The id of a hold: whose it is, and the text that agent chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "the two parts of the id")]
pub struct HoldId<'a> {
    /// The agent that made it; ids are unique per agent.
    pub actor: AgentId,
    /// The text it chose.
    pub key: &'a str,
}

/// What became of a resolution.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum Resolved {
    /// It holds from now on. The counters after it, in the order of the lines.
    Done {
        /// The counters.
        counters: Vec<u64>,
        /// Whether the lease had ended before.
        late: bool,
    },
    /// The hold does not allow it: it is in this state. Nothing changed.
    Stays(HoldState),
    /// There is no such hold (any more). Nothing changed.
    Unknown,
}

/// A parked hold whose wait is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a result, read by the protocol layer")]
pub struct Overdue {
    /// The organization.
    pub org: OrgId,
    /// Who made the hold.
    pub actor: AgentId,
    /// The text of its id.
    pub key: String,
    /// The hold.
    pub hold: Hold,
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
        Self { id: None, lines, hold: None }
    }

    /// A charge that may be repeated with the same id.
    pub const fn repeatable(id: ChargeId<'a>, lines: &'a [Line]) -> Self {
        Self { id: Some(id), lines, hold: None }
    }

    /// A charge that is held: what was used in the end is told later.
    pub const fn held(id: ChargeId<'a>, lines: &'a [Line], hold: NewHold<'a>) -> Self {
        Self { id: Some(id), lines, hold: Some(hold) }
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
    /// - An id is looked up and stored in the same step, with the hold if there is one. Until its `keep_until`, and while
    ///   its hold is parked, a repetition changes nothing, whatever became of the hold. A refused charge stores no id.
    /// - Counting saturates; it never wraps.
    ///
    /// Checked by `conformance::budgets::never_oversells`, `all_lines_or_none`, `first_charges_at_once`,
    /// `repeats_by_id`, `racing_repeats`, `refused_ids_are_free`, `ids_end`, `parked_ids_do_not_end`, `ids_are_per_actor`,
    /// `facts_overshoot` and `no_wrap`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer. A charge without id then counts as made: nobody may repeat it.
    async fn charge(&self, org: &OrgId, charge: &Charge<'_>, now: Timestamp) -> Result<Charged, StoreError>;

    /// Makes `resolution` hold of the hold `id`, whose lines are `lines` (as [`Self::hold`] or its maker knows them: they
    /// never change).
    ///
    /// Without an id nothing was stored: it is the caller's own charge of exactly `lines`, and the caller resolves it at
    /// most once. It counts as held without an end, so only [`Resolution::Settle`] and [`Resolution::Release`] change
    /// anything.
    ///
    /// # To be correct
    /// - What becomes of it is decided by [`Hold::resolve`], in one atomic step with correcting the counters: of any number of
    ///   resolutions at once, one that ends the hold is [`Resolved::Done`].
    /// - The counters of the hold's own windows are corrected, by [`crate::budget::recounted`], also if those windows are over.
    /// - From the `keep_until` of its charge on, a hold is [`Resolved::Unknown`], unless it is parked: that is known until it
    ///   was freed. A charge with an id that was not held is unknown too.
    ///
    /// Checked by `conformance::budgets::holds_are_settled`, `holds_end_once`, `holds_are_released`,
    /// `settling_overshoots`, `late_holds`, `holds_are_forgotten`, `parked_ids_do_not_end`, `parked_holds`, `parked_holds_expire`,
    /// `holds_of_another_window`, `holds_without_id` and `holds_are_their_makers`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer. With an id the call may be repeated.
    async fn resolve(
        &self,
        org: &OrgId,
        id: Option<HoldId<'_>>,
        lines: &[HeldLine],
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<Resolved, StoreError>;

    /// The hold with this id, until the `keep_until` of its charge and while it is parked. Checked by `conformance::budgets::holds_are_found`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn hold(&self, org: &OrgId, id: HoldId<'_>, now: Timestamp) -> Result<Option<Hold>, StoreError>;

    /// The holds of `actor` that hold something at `now`: held and within their lease, or parked. At most `max`, in no order.
    /// Checked by `conformance::budgets::live_holds`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn live_holds(
        &self,
        org: &OrgId,
        actor: AgentId,
        now: Timestamp,
        max: u32,
    ) -> Result<Vec<Hold>, StoreError>;

    /// Parked holds of all organizations whose wait is over at `now`; at most `max`, those first that ended first. The server
    /// frees them with [`Resolution::Expire`]. Checked by `conformance::budgets::parked_holds_expire`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn overdue(&self, now: Timestamp, max: u32) -> Result<Vec<Overdue>, StoreError>;

    /// What `account` used in the windows that `now` is in, with what is held. Checked by `conformance::budgets::usage_by_window`
    /// and `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn usage(&self, org: &OrgId, account: Account, now: Timestamp) -> Result<Usage, StoreError>;
}
