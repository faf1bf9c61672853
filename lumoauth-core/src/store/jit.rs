//! The role that keeps tasks and what agents ask for in them.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{Insert, Listing, Page, StoreError};
use crate::{
    audit::Event,
    clock::Timestamp,
    id::{OrgId, TaskId, UserId},
    jit::{CloseTask, Closing, History, JitRequest, JitRequestId, NewRequest, Rule, Ruling, Task},
};

/// The events of what can change a request: the one that tells what happened is written.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "one event per outcome that changes something")]
pub struct RequestEvents<'a> {
    /// It was made, or answered.
    pub done: &'a Event,
    /// It was denied, and its task was suspended for that.
    pub suspended: &'a Event,
}

/// Keeps tasks and the requests that agents make in them. Recorded.
///
/// What may happen is decided by [`Step`](crate::jit::Step): a backend reads the agent's [`Load`](crate::jit::Load) (empty
/// if there is none), the task and the request, takes the step, and writes what it says, in one atomic step with its event.
#[async_trait]
pub trait JitStore: fmt::Debug + Send + Sync + 'static {
    /// Adds `task` and writes `on`, in one step. The id is unique in the organization ([`Unique::Id`](super::Unique::Id)).
    /// Checked by `conformance::jit::one_task_once`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn insert_task(&self, org: &OrgId, task: &Task, on: &Event) -> Result<Insert, StoreError>;

    /// The task with this id, also one that is over. Checked by `conformance::jit::tasks_round_trip` and
    /// `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn find_task(&self, org: &OrgId, id: &TaskId) -> Result<Option<Arc<Task>>, StoreError>;

    /// Whether every one of these tasks is there and none was closed: whether tokens of the last of them are alive. It never
    /// answers from a cache. What has expired by itself counts as open here, since its tokens have expired as well.
    /// Checked by `conformance::jit::open_tasks`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn tasks_open(&self, org: &OrgId, ids: &[TaskId]) -> Result<bool, StoreError>;

    /// Closes `task`, which is as it was found, and writes `on`: [`Step::close`](crate::jit::Step::close). What waited in it,
    /// or in what is part of it, is not listed as pending any more. Of any number of calls at once exactly one is
    /// [`CloseTask::Closed`]; of a closing and an answer to a request of the task, the later one sees the earlier one.
    /// Checked by `conformance::jit::closed_once`, `closed_tasks_take_nothing` and `closing_and_answering_race`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer. It may have been closed then.
    async fn close_task(
        &self,
        org: &OrgId,
        task: &Task,
        closing: &Closing,
        on: &Event,
    ) -> Result<CloseTask, StoreError>;

    /// Adds `request`, whose risk was assessed on `assessed`, and writes the event of what happened:
    /// [`Step::insert`](crate::jit::Step::insert). Its callback is due when it says. An id that is taken is [`NewRequest::Missing`].
    ///
    /// # To be correct
    /// - The bounds of what waits for one agent and in one task hold for any number of calls at once.
    /// - Each is made on the history that it was assessed on, for any number of calls at once; the others are
    ///   [`NewRequest::Stale`].
    ///
    /// Checked by `conformance::jit::requests_round_trip`, `waiting_is_bounded`, `risk_is_of_this_moment`, `callbacks` and
    /// `denials_suspend`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer. The request may have been made then.
    async fn insert_request(
        &self,
        org: &OrgId,
        request: &JitRequest,
        assessed: History,
        now: Timestamp,
        on: RequestEvents<'_>,
    ) -> Result<NewRequest, StoreError>;

    /// The request with this id, answered or not. Checked by `conformance::jit::requests_round_trip`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn find_request(
        &self,
        org: &OrgId,
        id: &JitRequestId,
    ) -> Result<Option<Arc<JitRequest>>, StoreError>;

    /// Answers `request`, which is as it was found, and writes the event of what happened:
    /// [`Step::rule`](crate::jit::Step::rule). Its callback, if it has one, is due from the instant of the answer on, in the same
    /// step.
    ///
    /// Of any number of answers at once, of one kind or both, exactly one is [`Rule::Ruled`] (or [`Rule::Suspended`]), and
    /// what is found afterwards is that one. Checked by `conformance::jit::answered_once`, `racing_answers`, `denials_suspend`
    /// and `expired_is_not_answered`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer. The answer may have been written then.
    async fn rule(
        &self,
        org: &OrgId,
        request: &JitRequest,
        ruling: &Ruling,
        now: Timestamp,
        on: RequestEvents<'_>,
    ) -> Result<Rule, StoreError>;

    /// The requests that wait at `now` in tasks that are not closed: for `user`, or all of the organization. Those first that
    /// expire first; of the same instant, in ascending order of id. Checked by `conformance::jit::pending` and
    /// `closed_tasks_take_nothing`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn pending(
        &self,
        org: &OrgId,
        user: Option<UserId>,
        now: Timestamp,
        page: Page,
    ) -> Result<Listing<Arc<JitRequest>>, StoreError>;

    /// Up to `max` requests of any organization whose callback is due at `now`, in turns: first the one of each organization
    /// that is due longest, then the next one of each, and so on; of the same turn, the one that is due longest first. However
    /// many of one organization are due, they delay no other; only as many organizations as `max` do. Checked by
    /// `conformance::jit::callbacks` and `callbacks_take_turns`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn due_callbacks(
        &self,
        now: Timestamp,
        max: u32,
    ) -> Result<Vec<(OrgId, Arc<JitRequest>)>, StoreError>;

    /// Notes one more try of the callback of `request`, which is as it was found: [`JitRequest::with_try`]. `next` is when it
    /// is due again, if ever. Whether this call noted it: of any number at once exactly one does, so one server tries at a
    /// time. No event tells it. Checked by `conformance::jit::callbacks`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer. It may have been noted then.
    async fn note_try(
        &self,
        org: &OrgId,
        request: &JitRequest,
        next: Option<Timestamp>,
    ) -> Result<bool, StoreError>;
}
