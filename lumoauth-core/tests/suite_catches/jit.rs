//! Tasks that leave something waiting, answers that are given twice, bounds that do not hold, and callbacks that repeat or crowd
//! out others.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use lumoauth_core::{
    agent::Agent,
    audit::Event,
    clock::Timestamp,
    id::{OrgId, Slug, TaskId, UserId},
    jit::{CloseTask, Closing, History, JitRequest, JitRequestId, NewRequest, Rule, Ruling, Task},
    store::{
        Insert, JitStore, Listing, MemoryStore, Page, RequestEvents, StoreError,
        conformance::{
            jit,
            recorded::{Trail, writes_its_events},
        },
    },
};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Checks first, acts later.
    Racy,
    /// Believes that there is always time.
    Timeless,
    /// Keeps everything of everybody under one name.
    OrgBlind,
    /// Lists what waits for others, too.
    Nosy,
    /// Lists what waits in the first organization that it knew, to all.
    Blurred,
    /// Closes a task, and what waits in it waits on.
    Untidy,
    /// Lets more wait than may.
    Patient,
    /// Takes requests in tasks that are closed.
    Open,
    /// Makes requests on a history that is none any more.
    Stale,
    /// Notes no try, so callbacks are due again and again.
    Repeating,
    /// Has those called back first that are due longest, whosever they are.
    Unfair,
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    memory: MemoryStore,
    /// What a closed task leaves behind.
    left: MemoryStore,
    /// The first organization of a task.
    first: OnceLock<OrgId>,
    /// How many too many it took.
    surplus: AtomicUsize,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        let (memory, left) = (MemoryStore::new(), MemoryStore::new());
        Self { fault, memory, left, first: OnceLock::new(), surplus: AtomicUsize::new(0) }
    }

    fn org(&self, org: &OrgId) -> OrgId {
        if self.fault == Fault::OrgBlind { OrgId::parse("everybody").unwrap() } else { org.clone() }
    }

    /// A task of an agent that nobody counts, with `request` in it.
    async fn elsewhere(
        &self,
        org: &OrgId,
        request: &JitRequest,
        now: Timestamp,
        on: RequestEvents<'_>,
    ) -> Result<NewRequest, StoreError> {
        let agent = Agent::new("Another", Slug::parse("another").unwrap(), now);
        let task = Task::new(agent.id, agent.client_id.clone(), now);
        let _new = self.memory.insert_task(org, &task, on.done).await?;
        let mut request = request.clone();
        (request.task, request.agent) = (task.id.clone(), agent.id);
        self.memory.insert_request(org, &request, task.history(now), now, on).await
    }
}

#[async_trait]
impl JitStore for Faulty {
    async fn insert_task(&self, org: &OrgId, task: &Task, on: &Event) -> Result<Insert, StoreError> {
        self.first.get_or_init(|| org.clone());
        if self.fault == Fault::Untidy {
            let _kept = self.left.insert_task(org, task, on).await?;
        }
        self.memory.insert_task(&self.org(org), task, on).await
    }

    async fn find_task(&self, org: &OrgId, id: &TaskId) -> Result<Option<Arc<Task>>, StoreError> {
        self.memory.find_task(&self.org(org), id).await
    }

    async fn tasks_open(&self, org: &OrgId, ids: &[TaskId]) -> Result<bool, StoreError> {
        self.memory.tasks_open(&self.org(org), ids).await
    }

    async fn close_task(
        &self,
        org: &OrgId,
        task: &Task,
        closing: &Closing,
        on: &Event,
    ) -> Result<CloseTask, StoreError> {
        let found = self.find_task(org, &task.id).await?;
        let racy = self.fault == Fault::Racy && found.is_some_and(|task| task.closed.is_none());
        tokio::task::yield_now().await;
        let outcome = self.memory.close_task(&self.org(org), task, closing, on).await?;
        Ok(if racy { CloseTask::Closed } else { outcome })
    }

    async fn insert_request(
        &self,
        org: &OrgId,
        request: &JitRequest,
        assessed: History,
        now: Timestamp,
        on: RequestEvents<'_>,
    ) -> Result<NewRequest, StoreError> {
        if self.fault == Fault::Untidy {
            let _kept = self.left.insert_request(org, request, assessed, now, on).await?;
        }
        let outcome = self.memory.insert_request(&self.org(org), request, assessed, now, on).await?;
        match (self.fault, outcome) {
            // Not for ever: the suite asks until there is no room.
            (Fault::Patient, NewRequest::TooMany) if self.surplus.fetch_add(1, Ordering::Relaxed) < 200 => {
                self.elsewhere(org, request, now, on).await
            }
            (Fault::Open, NewRequest::TaskClosed) => self.elsewhere(org, request, now, on).await,
            (Fault::Stale, NewRequest::Stale) => Ok(NewRequest::Inserted),
            (_, outcome) => Ok(outcome),
        }
    }

    async fn find_request(
        &self,
        org: &OrgId,
        id: &JitRequestId,
    ) -> Result<Option<Arc<JitRequest>>, StoreError> {
        self.memory.find_request(&self.org(org), id).await
    }

    async fn rule(
        &self,
        org: &OrgId,
        request: &JitRequest,
        ruling: &Ruling,
        now: Timestamp,
        on: RequestEvents<'_>,
    ) -> Result<Rule, StoreError> {
        let found = self.find_request(org, &request.id).await?;
        let racy = self.fault == Fault::Racy && found.is_some_and(|request| request.ruling.is_none());
        tokio::task::yield_now().await;
        let now = if self.fault == Fault::Timeless { request.created_at } else { now };
        let outcome = self.memory.rule(&self.org(org), request, ruling, now, on).await?;
        Ok(if racy && outcome == Rule::AlreadyRuled { Rule::Ruled } else { outcome })
    }

    async fn pending(
        &self,
        org: &OrgId,
        user: Option<UserId>,
        now: Timestamp,
        page: Page,
    ) -> Result<Listing<Arc<JitRequest>>, StoreError> {
        let store = if self.fault == Fault::Untidy { &self.left } else { &self.memory };
        let user = user.filter(|_| self.fault != Fault::Nosy);
        let first = self.first.get().filter(|_| self.fault == Fault::Blurred);
        JitStore::pending(store, first.unwrap_or(&self.org(org)), user, now, page).await
    }

    async fn due_callbacks(
        &self,
        now: Timestamp,
        max: u32,
    ) -> Result<Vec<(OrgId, Arc<JitRequest>)>, StoreError> {
        if self.fault != Fault::Unfair {
            return self.memory.due_callbacks(now, max).await;
        }
        let mut due = self.memory.due_callbacks(now, u32::MAX).await?;
        due.sort_by_key(|(_, request)| request.callback_due());
        due.truncate(usize::try_from(max).unwrap_or(usize::MAX));
        Ok(due)
    }

    async fn note_try(
        &self,
        org: &OrgId,
        request: &JitRequest,
        next: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        if self.fault == Fault::Repeating {
            return Ok(true);
        }
        self.memory.note_try(&self.org(org), request, next).await
    }
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn what_waits_in_a_closed_task_is_found_out() {
    jit::closed_tasks_take_nothing(&Faulty::new(Fault::Untidy)).await;
}

#[tokio::test]
#[should_panic(expected = "Inserted")]
async fn a_closed_task_that_takes_requests_is_found_out() {
    jit::closed_tasks_take_nothing(&Faulty::new(Fault::Open)).await;
}

#[tokio::test]
#[should_panic(expected = "Ruled")]
async fn two_who_both_answer_are_found_out() {
    jit::racing_answers(&Faulty::new(Fault::Racy)).await;
}

#[tokio::test]
#[should_panic(expected = "Closed")]
async fn a_task_that_is_closed_twice_is_found_out() {
    jit::closed_once(&Faulty::new(Fault::Racy)).await;
}

#[tokio::test]
#[should_panic(expected = "Expired")]
async fn an_answer_that_comes_too_late_is_found_out() {
    jit::expired_is_not_answered(&Faulty::new(Fault::Timeless)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn requests_without_organization_are_shared() {
    jit::organizations_are_apart(&Faulty::new(Fault::OrgBlind)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn what_waits_for_others_is_not_listed() {
    jit::pending(&Faulty::new(Fault::Nosy)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn requests_of_the_neighbours_are_not_listed() {
    jit::organizations_are_apart(&Faulty::new(Fault::Blurred)).await;
}

#[tokio::test]
#[should_panic(expected = "too many of a")]
async fn requests_without_a_limit_are_found_out() {
    jit::waiting_is_bounded(&Faulty::new(Fault::Patient)).await;
}

#[tokio::test]
#[should_panic(expected = "Inserted")]
async fn risk_of_another_moment_is_found_out() {
    jit::risk_is_of_this_moment(&Faulty::new(Fault::Stale)).await;
}

#[tokio::test]
#[should_panic(expected = "true, true")]
async fn callbacks_that_repeat_are_found_out() {
    jit::callbacks(&Faulty::new(Fault::Repeating)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn callbacks_that_crowd_out_others_are_found_out() {
    jit::callbacks_take_turns(&Faulty::new(Fault::Unfair)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn requests_without_their_events_are_found_out() {
    let (store, log) = (MemoryStore::new(), MemoryStore::new());
    let role: &dyn JitStore = &store;
    writes_its_events(role.into(), Trail::Log(&log)).await;
}
