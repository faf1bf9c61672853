//! The role that keeps what organizations write down as policy.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::StoreError;
use crate::{
    audit::Event,
    clock::Timestamp,
    id::OrgId,
    policy::{Entry, Record, RecordId},
};

/// How long a removal is remembered at least, so that servers which keep a snapshot learn of it.
pub const POLICY_TOMBSTONE_LIFE: Duration = Duration::from_secs(3600);

/// One change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a name, a body and a guard are all there is to a change")]
pub struct PolicyChange {
    /// Which record.
    pub id: RecordId,
    /// What it says from now on, as JSON; `None` removes it.
    pub body: Option<Arc<str>>,
    /// What must be there now.
    pub expect: Expect,
}

impl PolicyChange {
    /// Writes `entry`.
    pub fn put(entry: &Entry, expect: Expect) -> Self {
        Self { id: entry.id(), body: Some(entry.body()), expect }
    }

    /// Removes the record `id`.
    pub fn remove(id: RecordId, expect: Expect) -> Self {
        Self { id, body: None, expect }
    }
}

/// What a change wants to find. To remove something that is not there conflicts with every expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every backend must check every expectation")]
pub enum Expect {
    /// No such record.
    Absent,
    /// The record as it was written at this revision.
    At(u64),
    /// Whatever there is.
    Anything,
}

impl Expect {
    /// Whether a record that was written at `found` (`None`: there is no such record) is what was expected by a change that
    /// removes it or does not.
    pub fn admits(self, found: Option<u64>, removes: bool) -> bool {
        match self {
            Self::Absent => found.is_none() && !removes,
            Self::At(revision) => found == Some(revision),
            Self::Anything => found.is_some() || !removes,
        }
    }
}

/// What became of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum Apply {
    /// All of them are made, with their event. The organization is at this revision now.
    Applied {
        /// One more than before.
        revision: u64,
    },
    /// What this change (by its place in the call, the first one if there are several) expects is not so; nothing changed.
    Conflict(usize),
}

/// What changed since a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum Since {
    /// Nothing: this is the organization's revision.
    UpToDate,
    /// These records, removals included, each as it is now.
    Changed {
        /// In ascending order of revision, and of id within one.
        records: Vec<Record>,
        /// The organization's revision.
        revision: u64,
    },
    /// More than asked for, or so long ago that removals are forgotten, or the organization never was at that revision. Read
    /// everything.
    TooOld,
}

/// Keeps roles, attribute policies and relations. Recorded.
///
/// The records of an organization are one thing with one revision, which every call of [`Self::apply`] raises by one. An
/// organization that nothing was ever written for is at revision 0.
#[async_trait]
pub trait PolicyStore: fmt::Debug + Send + Sync + 'static {
    /// Makes all of `changes`, raises the revision by one and writes `on`, in one step; or none of it. No two of them are
    /// about one record. `now` is when removals happen, for [`POLICY_TOMBSTONE_LIFE`].
    ///
    /// # To be correct
    /// - What changes expect is checked in the same atomic step.
    /// - Revisions become visible in their order: whoever sees one sees everything of those before.
    ///
    /// Checked by `conformance::policies::round_trip`, `expectations`, `all_or_none`, `racing_inserts`, `racing_updates`,
    /// `revisions_have_no_gaps` and `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer. The changes may have been made then.
    async fn apply(
        &self,
        org: &OrgId,
        changes: &[PolicyChange],
        on: &Event,
        now: Timestamp,
    ) -> Result<Apply, StoreError>;

    /// The organization's revision. Checked by `conformance::policies::revisions_have_no_gaps`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn revision(&self, org: &OrgId) -> Result<u64, StoreError>;

    /// The records that are there with an id after `after`, in ascending order of kind (by name) and key (by bytes), at most
    /// `limit`. Pages may be of different revisions: whoever reads several asks for the revision first, and for what changed
    /// since it afterwards. Checked by `conformance::policies::pages` and `pages_and_changes_make_a_whole`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn page(
        &self,
        org: &OrgId,
        after: Option<&RecordId>,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError>;

    /// What changed since `revision`, if it is no more than `limit` records. All of it is of one instant. Checked by
    /// `conformance::policies::changes_since`, `long_ago` and `conformance::upkeep::purge_keeps_what_counts`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn since(&self, org: &OrgId, revision: u64, limit: u32) -> Result<Since, StoreError>;
}
