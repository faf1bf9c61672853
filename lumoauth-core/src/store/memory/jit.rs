//! Tasks and their requests in memory.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use async_trait::async_trait;

use super::{MemoryStore, table::Pager};
use crate::{
    audit::Event,
    clock::Timestamp,
    id::{AgentId, OrgId, TaskId, UserId},
    jit::{
        CloseTask, Closing, History, JitRequest, JitRequestId, Load, NewRequest, Rule, Ruling, Step, Task,
        Waiting,
    },
    store::{Insert, JitStore, Listing, Page, RequestEvents, StoreError, Unique},
};

/// The tasks of one organization.
#[derive(Default)]
pub(super) struct Tasks {
    tasks: HashMap<TaskId, Arc<Task>>,
    requests: HashMap<JitRequestId, Arc<JitRequest>>,
    loads: HashMap<AgentId, Load>,
    waiting: BTreeSet<(Timestamp, JitRequestId)>,
    due: BTreeSet<(Timestamp, JitRequestId)>,
    ends: BTreeSet<(Timestamp, Kept)>,
}

/// What is dropped when its time is over.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kept {
    Task(TaskId),
    Request(JitRequestId),
}

/// Which event tells what happened.
enum Told {
    Nothing,
    Done,
    Suspended,
}

impl Tasks {
    fn insert_task(&mut self, task: &Task) -> Insert {
        if self.tasks.contains_key(&task.id) {
            return Insert::Taken(Unique::Id);
        }
        self.ends.insert((task.keep_until(), Kept::Task(task.id.clone())));
        self.tasks.insert(task.id.clone(), Arc::new(task.clone()));
        Insert::Inserted
    }

    fn load(&self, agent: AgentId) -> Load {
        self.loads.get(&agent).cloned().unwrap_or_default()
    }

    /// Writes what a step changed.
    fn write<T>(&mut self, agent: AgentId, step: Step<T>) {
        for Waiting { request, until, .. } in step.dropped {
            self.waiting.remove(&(until, request));
        }
        if step.load == Load::default() {
            self.loads.remove(&agent);
        } else {
            self.loads.insert(agent, step.load);
        }
        self.tasks.insert(step.task.id.clone(), Arc::new(step.task));
    }

    fn close(&mut self, task: &TaskId, closing: &Closing) -> CloseTask {
        let Some(stored) = self.tasks.get(task) else { return CloseTask::Missing };
        let step = Step::close(stored, &self.load(stored.agent), closing);
        let (outcome, agent) = (step.outcome, stored.agent);
        if outcome == CloseTask::Closed {
            self.write(agent, step);
        }
        outcome
    }

    fn insert_request(&mut self, request: &JitRequest, assessed: History, now: Timestamp) -> NewRequest {
        let Some(task) = self.tasks.get(&request.task) else { return NewRequest::Missing };
        if self.requests.contains_key(&request.id) {
            return NewRequest::Missing;
        }
        let step = Step::insert(task, &self.load(request.agent), request, assessed, now);
        let outcome = step.outcome;
        if matches!(outcome, NewRequest::Inserted | NewRequest::Suspended) {
            self.write(request.agent, step);
            if request.ruling.is_none() {
                self.waiting.insert((request.expires_at, request.id.clone()));
            }
            if let Some(due) = request.callback_due() {
                self.due.insert((due, request.id.clone()));
            }
            self.ends.insert((request.keep_until(), Kept::Request(request.id.clone())));
            self.requests.insert(request.id.clone(), Arc::new(request.clone()));
        }
        outcome
    }

    fn rule(&mut self, id: &JitRequestId, ruling: &Ruling, now: Timestamp) -> Rule {
        let Some(request) = self.requests.get(id).cloned() else { return Rule::Missing };
        let Some(task) = self.tasks.get(&request.task) else { return Rule::Missing };
        let step = Step::rule(task, &self.load(request.agent), &request, ruling, now);
        let outcome = step.outcome;
        if matches!(outcome, Rule::Ruled | Rule::Suspended) {
            self.write(request.agent, step);
            self.waiting.remove(&(request.expires_at, id.clone()));
            self.replace(&request, request.with_ruling(ruling.clone()));
        }
        outcome
    }

    fn replace(&mut self, old: &JitRequest, new: JitRequest) {
        if let Some(due) = old.callback_due() {
            self.due.remove(&(due, old.id.clone()));
        }
        if let Some(due) = new.callback_due() {
            self.due.insert((due, new.id.clone()));
        }
        self.requests.insert(new.id.clone(), Arc::new(new));
    }

    fn note_try(&mut self, request: &JitRequest, next: Option<Timestamp>) -> bool {
        let tries = request.callback.as_ref().map_or(0, |callback| callback.tries);
        let Some(stored) = self.requests.get(&request.id).cloned() else { return false };
        let Some(tried) = stored.with_try(tries, next) else { return false };
        self.replace(&stored, tried);
        true
    }

    fn pending(&self, user: Option<UserId>, now: Timestamp, page: Page) -> Listing<Arc<JitRequest>> {
        let mut pager = Pager::new(page);
        self.waiting
            .iter()
            .filter(|(until, _)| *until > now)
            .filter_map(|(_, id)| self.requests.get(id))
            .filter(|request| user.is_none() || request.on_behalf_of == user)
            .for_each(|request| pager.offer(|| Arc::clone(request)));
        pager.finish()
    }

    /// Drops up to `max` whose time is long over; how many.
    pub(super) fn purge(&mut self, now: Timestamp, max: u64) -> u64 {
        let mut dropped = 0;
        while dropped < max
            && let Some((until, _)) = self.ends.first()
            && *until < now
            && let Some((_, kept)) = self.ends.pop_first()
        {
            match kept {
                Kept::Task(id) => drop(self.tasks.remove(&id)),
                Kept::Request(id) => {
                    if let Some(request) = self.requests.remove(&id) {
                        self.waiting.remove(&(request.expires_at, id.clone()));
                        if let Some(due) = request.callback_due() {
                            self.due.remove(&(due, id));
                        }
                    }
                }
            }
            dropped += 1;
        }
        self.loads.retain(|_, load| load.keep_until().is_some_and(|until| until > now));
        dropped
    }
}

impl MemoryStore {
    fn in_task<T: Copy>(
        &self,
        org: &OrgId,
        on: RequestEvents<'_>,
        step: impl FnOnce(&mut Tasks) -> T,
        told: fn(T) -> Told,
    ) -> T {
        self.tasks.write(org, |tasks| {
            let outcome = step(tasks);
            let event = match told(outcome) {
                Told::Nothing => None,
                Told::Done => Some(on.done),
                Told::Suspended => Some(on.suspended),
            };
            self.journal.write(org, event.map(|event| Arc::new(event.clone())));
            outcome
        })
    }
}

#[async_trait]
impl JitStore for MemoryStore {
    async fn insert_task(&self, org: &OrgId, task: &Task, on: &Event) -> Result<Insert, StoreError> {
        Ok(self.recorded(&self.tasks, org, on, |tasks| tasks.insert_task(task)))
    }

    async fn find_task(&self, org: &OrgId, id: &TaskId) -> Result<Option<Arc<Task>>, StoreError> {
        Ok(self.tasks.read(org, |tasks| tasks.tasks.get(id).cloned()))
    }

    async fn tasks_open(&self, org: &OrgId, ids: &[TaskId]) -> Result<bool, StoreError> {
        Ok(self.tasks.read(org, |tasks| {
            ids.iter().all(|id| tasks.tasks.get(id).is_some_and(|task| task.closed.is_none()))
        }))
    }

    async fn close_task(
        &self,
        org: &OrgId,
        task: &Task,
        closing: &Closing,
        on: &Event,
    ) -> Result<CloseTask, StoreError> {
        let on = RequestEvents { done: on, suspended: on };
        Ok(self.in_task(
            org,
            on,
            |tasks| tasks.close(&task.id, closing),
            |outcome| match outcome {
                CloseTask::Closed => Told::Done,
                CloseTask::AlreadyClosed | CloseTask::Missing => Told::Nothing,
            },
        ))
    }

    async fn insert_request(
        &self,
        org: &OrgId,
        request: &JitRequest,
        assessed: History,
        now: Timestamp,
        on: RequestEvents<'_>,
    ) -> Result<NewRequest, StoreError> {
        Ok(self.in_task(
            org,
            on,
            |tasks| tasks.insert_request(request, assessed, now),
            |outcome| match outcome {
                NewRequest::Inserted => Told::Done,
                NewRequest::Suspended => Told::Suspended,
                NewRequest::Stale | NewRequest::TooMany | NewRequest::TaskClosed | NewRequest::Missing => {
                    Told::Nothing
                }
            },
        ))
    }

    async fn find_request(
        &self,
        org: &OrgId,
        id: &JitRequestId,
    ) -> Result<Option<Arc<JitRequest>>, StoreError> {
        Ok(self.tasks.read(org, |tasks| tasks.requests.get(id).cloned()))
    }

    async fn rule(
        &self,
        org: &OrgId,
        request: &JitRequest,
        ruling: &Ruling,
        now: Timestamp,
        on: RequestEvents<'_>,
    ) -> Result<Rule, StoreError> {
        Ok(self.in_task(
            org,
            on,
            |tasks| tasks.rule(&request.id, ruling, now),
            |outcome| match outcome {
                Rule::Ruled => Told::Done,
                Rule::Suspended => Told::Suspended,
                Rule::AlreadyRuled | Rule::Expired | Rule::TaskClosed | Rule::Missing => Told::Nothing,
            },
        ))
    }

    async fn pending(
        &self,
        org: &OrgId,
        user: Option<UserId>,
        now: Timestamp,
        page: Page,
    ) -> Result<Listing<Arc<JitRequest>>, StoreError> {
        Ok(self.tasks.read(org, |tasks| tasks.pending(user, now, page)))
    }

    async fn due_callbacks(
        &self,
        now: Timestamp,
        max: u32,
    ) -> Result<Vec<(OrgId, Arc<JitRequest>)>, StoreError> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let mut due = Vec::new();
        self.tasks.read_each(|org, tasks| {
            let ready = tasks.due.iter().take_while(|(at, _)| *at <= now).take(max);
            let ready = ready.filter_map(|(at, id)| Some((*at, tasks.requests.get(id)?.clone())));
            due.extend(ready.enumerate().map(|(turn, (at, request))| ((turn, at), org.clone(), request)));
        });
        due.sort_by_key(|(order, ..)| *order);
        due.truncate(max);
        Ok(due.into_iter().map(|(_, org, request)| (org, request)).collect())
    }

    async fn note_try(
        &self,
        org: &OrgId,
        request: &JitRequest,
        next: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        Ok(self.tasks.write(org, |tasks| tasks.note_try(request, next)))
    }
}
