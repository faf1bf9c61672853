//! The roles that keep the audit log and bring events to it.

use std::{collections::BTreeMap, fmt, ops::Range};

use async_trait::async_trait;

use super::{Checkpoint, Listing, LogHead, Page, RawEntry, StoreError, TreeLevel};
use crate::{
    audit::{Event, EventOutcome},
    clock::Timestamp,
    id::{EventId, OrgId},
    merkle::Node,
};

/// An event with its place in the log.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a number and an event are all there is to an entry")]
pub struct LogEntry {
    /// 1, 2, 3 .. without gaps, per organization.
    pub seq: u64,
    /// What happened.
    pub event: Event,
}

/// By what an entry is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every backend must serve every key")]
pub enum AuditKey {
    /// Its number.
    Seq(u64),
    /// The id of its event.
    Event(EventId),
}

/// Which entries are wanted; every part that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditFilter {
    /// The kind of event, exact, or a prefix if it ends in `*`.
    pub kind: Option<String>,
    /// The id of the actor.
    pub actor: Option<String>,
    /// The id of the target.
    pub target: Option<String>,
    /// Whether it succeeded.
    pub outcome: Option<EventOutcome>,
    /// The part of the kind before the dot.
    pub category: Option<String>,
    /// Not before this instant.
    pub from: Option<Timestamp>,
    /// Before this instant.
    pub until: Option<Timestamp>,
    /// Part of the message, the actor's name or the target's name, without regard to ASCII case.
    pub search: Option<String>,
}

impl AuditFilter {
    /// Whether `event` is wanted: the definition that every backend must agree with.
    pub fn matches(&self, event: &Event) -> bool {
        let target = event.target.as_ref();
        let kind = event.kind.as_str();
        let kind_fits = self.kind.as_deref().is_none_or(|wanted| match wanted.strip_suffix('*') {
            Some(prefix) => kind.starts_with(prefix),
            None => kind == wanted,
        });
        let text_fits = self.search.as_deref().is_none_or(|search| {
            let needle = search.to_ascii_lowercase();
            [Some(&*event.message), event.actor.name.as_deref(), target.and_then(|t| t.name.as_deref())]
                .into_iter()
                .flatten()
                .any(|text| text.to_ascii_lowercase().contains(&needle))
        });
        kind_fits
            && text_fits
            && self.actor.as_deref().is_none_or(|id| *event.actor.id == *id)
            && self.target.as_deref().is_none_or(|id| target.is_some_and(|target| *target.id == *id))
            && self.outcome.is_none_or(|outcome| event.outcome == outcome)
            && self.category.as_deref().is_none_or(|category| event.kind.category() == category)
            && self.from.is_none_or(|from| event.at >= from)
            && self.until.is_none_or(|until| event.at < until)
    }
}

/// How many entries there are, by kind and by severity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditStats {
    /// All of them.
    pub total: u64,
    /// By kind of event.
    pub by_kind: BTreeMap<&'static str, u64>,
    /// By severity.
    pub by_severity: BTreeMap<&'static str, u64>,
}

impl AuditStats {
    /// Counts one event.
    pub fn count(&mut self, event: &Event) {
        self.total += 1;
        *self.by_kind.entry(event.kind.as_str()).or_default() += 1;
        *self.by_severity.entry(event.kind.severity(event.outcome)).or_default() += 1;
    }
}

/// Keeps the audit log: append-only, numbered without gaps.
#[async_trait]
pub trait AuditStore: fmt::Debug + Send + Sync + 'static {
    /// Adds events that no change of a record carries. When it returns, they are durable.
    ///
    /// An event whose id is known, in the outbox or in the log, is skipped: an append may be repeated. Events
    /// of one call are kept in its order. Checked by `conformance::audit::append_is_idempotent`,
    /// `waits_twice_is_numbered_once`, `order_is_kept` and `racing_appends_leave_no_gap`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer; the caller must refuse what the events are about.
    async fn append(&self, org: &OrgId, events: &[Event]) -> Result<(), StoreError>;

    /// Up to `max` organizations with events that wait for [`AuditStore::sequence`], in no particular order. For
    /// maintenance. Backends that number on writing have none. Checked by `conformance::audit::waiting_organizations`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn waiting(&self, max: u32) -> Result<Vec<OrgId>, StoreError>;

    /// Moves up to `max` events that wait in this backend's outbox into the log and gives them the next
    /// numbers, in one step; returns how many no longer wait. Any server may call it at any time, also several at once.
    /// Backends that number on writing have nothing to do. Checked by
    /// `conformance::audit::numbers_have_no_gaps` and `long_queues`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn sequence(&self, org: &OrgId, max: u32) -> Result<u64, StoreError>;

    /// The entry with this number or event. Checked by `conformance::audit::found_by_seq_and_event`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn find(&self, org: &OrgId, key: AuditKey) -> Result<Option<LogEntry>, StoreError>;

    /// The entries that match, newest first. Checked by `conformance::audit::pages_and_filters`,
    /// `searches_find_any_text` and `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn page(
        &self,
        org: &OrgId,
        filter: &AuditFilter,
        page: Page,
    ) -> Result<Listing<LogEntry>, StoreError>;

    /// How many entries match. Checked by `conformance::audit::stats` and `stats_of_any_time`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn stats(&self, org: &OrgId, filter: &AuditFilter) -> Result<AuditStats, StoreError>;

    /// How far the log has come, and the tree over it. A number, its leaf and its place in the tree are given in one step,
    /// so the tree has every entry that can be read and no other. Signed heads of more entries are told, too, also where
    /// there are no entries. Checked by `conformance::audit_tree::grows_with_the_log`, `checkpoints_stay_as_they_are` and
    /// `racing_appends_keep_the_tree`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn head(&self, org: &OrgId) -> Result<LogHead, StoreError>;

    /// The hashes with these places, counted from zero; fewer at the end of the tree. Once given they never change.
    /// Checked by `conformance::audit_tree::grows_with_the_log` and `blocks_are_roots_of_leaves`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn nodes(&self, org: &OrgId, level: TreeLevel, range: Range<u64>) -> Result<Vec<Node>, StoreError>;

    /// Up to `max` entries above `after`, in the order of their numbers, as they were hashed. Checked by
    /// `conformance::audit_tree::raw_entries_hash_to_their_leaves`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn raw(&self, org: &OrgId, after: u64, max: u32) -> Result<Vec<RawEntry>, StoreError>;

    /// Keeps a signed head for ever. The first of its size stays. Checked by
    /// `conformance::audit_tree::checkpoints_stay_as_they_are`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn sign_off(&self, org: &OrgId, checkpoint: &Checkpoint) -> Result<(), StoreError>;

    /// Up to `max` signed heads of more than `after` entries, the smallest first. Checked by
    /// `conformance::audit_tree::checkpoints_stay_as_they_are`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn checkpoints(&self, org: &OrgId, after: u64, max: u32) -> Result<Vec<Checkpoint>, StoreError>;

    /// Up to `max` organizations after this one whose log is by at least `by` entries longer than its largest signed head,
    /// or shorter, in the order of their ids. Which head is the largest is asked of the signed heads themselves. For
    /// maintenance. Checked by `conformance::audit_tree::unsigned_logs`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn unsigned(&self, by: u64, after: Option<&OrgId>, max: u32) -> Result<Vec<OrgId>, StoreError>;

    /// Drops the bodies of the entries above `from` and up to `up_to`, writes `on` with them, and returns how many those
    /// were. What is left of them: [`dropped_event`](super::dropped_event). Numbers, leaves, totals and proofs stay as they
    /// are. Unless the bodies up to `from`, and no others, are dropped, and the log has `up_to` entries, nothing happens,
    /// and the answer is 0: of several servers one drops them, and it is said once. Checked by
    /// `conformance::audit_tree::bodies_are_dropped_from_the_oldest_on` and `bodies_are_dropped_once`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn drop_bodies(&self, org: &OrgId, from: u64, up_to: u64, on: &Event) -> Result<u64, StoreError>;
}

/// Events of a backend whose audit log is kept elsewhere. The server's maintenance copies them there.
///
/// A backend is opened in this mode explicitly; then its recorded roles write to the outbox and never to a log
/// of its own, and it refuses [`AuditStore::append`]. Opened otherwise, it has nothing to move, whoever asks.
#[async_trait]
pub trait Outbox: fmt::Debug + Send + Sync + 'static {
    /// Up to `max` waiting events, oldest first. Calling it changes nothing.
    /// Checked by `conformance::outbox::waits_until_done`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn pending(&self, max: u32) -> Result<Vec<(OrgId, Event)>, StoreError>;

    /// Forgets these events, which are in the audit log now. Unknown ids are skipped.
    /// Checked by `conformance::outbox::waits_until_done`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer; the events will be moved again, which does no harm.
    async fn done(&self, events: &[(OrgId, EventId)]) -> Result<(), StoreError>;
}
