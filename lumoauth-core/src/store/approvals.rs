//! The role that keeps what agents ask people to allow.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{Listing, Page, StoreError};
use crate::{
    approval::{Approval, ApprovalToken, Decision},
    audit::Event,
    clock::Timestamp,
    id::{OrgId, UserId},
};

/// What became of opening an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum NewApproval {
    /// It is there now, with its event.
    Inserted,
    /// There is one with this token; nothing changed.
    Taken,
    /// As many of its agent wait for its person as may; nothing changed.
    TooMany,
}

/// What became of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum Decide {
    /// It is decided now, with its event.
    Decided,
    /// It was decided before; nothing changed.
    AlreadyDecided,
    /// Nobody decided it, and its time is over; nothing changed.
    Expired,
    /// There is no such approval; nothing changed.
    Missing,
}

/// What became of using an approval up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum Consume {
    /// It is used up now, with its event.
    Consumed,
    /// Somebody used it up before; nothing changed.
    AlreadyConsumed,
    /// Nobody agreed to it; nothing changed.
    NotApproved,
    /// There is no such approval; nothing changed.
    Missing,
}

/// Keeps approvals. Recorded.
#[async_trait]
pub trait ApprovalStore: fmt::Debug + Send + Sync + 'static {
    /// Adds `approval` and writes `on`, in one step. The token is unique in the organization.
    ///
    /// # To be correct
    /// - What is there already is [`NewApproval::Taken`], however many wait. Checked by `conformance::approvals::one_token_once`.
    /// - If it [is bounded](Approval::is_bounded), and [`Approval::MAX_PENDING`] of those that are, of the same agent for the
    ///   same person (or for nobody in particular), are pending at its `created_at`, it is [`NewApproval::TooMany`]. They are
    ///   counted in the same atomic step, so any number of calls at once leave no more than that. Checked by
    ///   `conformance::approvals::so_many_wait_at_a_time`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn insert(&self, org: &OrgId, approval: &Approval, on: &Event) -> Result<NewApproval, StoreError>;

    /// The approval with this token, also one that has expired or was decided. Checked by
    /// `conformance::approvals::round_trip` and `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn find(&self, org: &OrgId, token: &ApprovalToken) -> Result<Option<Arc<Approval>>, StoreError>;

    /// Writes `decision` into `approval`, which is as it was found (or as its maker knows it: nothing but the decision ever
    /// changes), and `on`, in one step.
    ///
    /// # To be correct
    /// - That it was not decided and that `now` is before its `expires_at` is checked in the same atomic step. So of any
    ///   number of decisions at once, of one kind or both, exactly one is [`Decide::Decided`], and what is found afterwards
    ///   is that one.
    /// - What was decided before is [`Decide::AlreadyDecided`], also after its end.
    ///
    /// Checked by `conformance::approvals::decided_once`, `racing_approvals`, `approve_and_deny_race` and
    /// `expired_is_not_decided`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer. The decision may have been written then.
    async fn decide(
        &self,
        org: &OrgId,
        approval: &Approval,
        decision: &Decision,
        now: Timestamp,
        on: &Event,
    ) -> Result<Decide, StoreError>;

    /// Writes into `approval`, which is as it was found, that it was used up `now`, and `on`, in one step.
    ///
    /// That somebody agreed to it and that nobody used it up is checked in the same atomic step, so of any number of calls
    /// at once exactly one is [`Consume::Consumed`]. Checked by `conformance::approvals::used_once` and `racing_uses`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer. It may have been used up then.
    async fn consume(
        &self,
        org: &OrgId,
        approval: &Approval,
        now: Timestamp,
        on: &Event,
    ) -> Result<Consume, StoreError>;

    /// Up to `max` approvals that have expired at `now` without a decision, and whose end nobody told yet
    /// ([`ApprovalStore::lapse`]), in no order. Checked by `conformance::approvals::ends_are_told_once`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn ended(&self, org: &OrgId, now: Timestamp, max: u32) -> Result<Vec<Arc<Approval>>, StoreError>;

    /// Writes `on`, which tells that `approval` has expired `now`. Whether this call told it: not if it was decided, is still
    /// pending, was told before, or is not there. Of any number of calls at once exactly one tells it. Nothing that
    /// [`ApprovalStore::find`] finds changes, and nobody can decide it any more, whatever their clock says. Checked by
    /// `conformance::approvals::ends_are_told_once`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer. It may have been told then.
    async fn lapse(
        &self,
        org: &OrgId,
        approval: &Approval,
        now: Timestamp,
        on: &Event,
    ) -> Result<bool, StoreError>;

    /// The approvals that are pending at `now`: of `user`, or all of the organization, those without a user too. Those first
    /// that expire first; of the same instant, in ascending order of token. Checked by `conformance::approvals::pending`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn pending(
        &self,
        org: &OrgId,
        user: Option<UserId>,
        now: Timestamp,
        page: Page,
    ) -> Result<Listing<Arc<Approval>>, StoreError>;
}
