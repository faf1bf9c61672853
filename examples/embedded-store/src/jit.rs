//! The role that keeps tasks and what agents ask for in them.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    clock::Timestamp,
    id::{AgentId, OrgId, TaskId, UserId},
    jit::{
        CloseTask, Closing, History, JitRequest, JitRequestId, Load, NewRequest, Rule, Ruling, Step, Task,
        Waiting,
    },
    store::{Insert, JitStore, Listing, Page, RequestEvents, StoreError, Unique},
};
use serde::de::DeserializeOwned;

use crate::{
    EmbeddedStore,
    batch::{Batch, EncodedEvent, encode},
    records::{IndexRow, Record, list_range},
    snapshot::{Order, Visit, decode, malformed},
    tables::{
        Table, agent_key, due_key, due_until, jit_key, key_of_due, pending_approvals_from, pending_key,
    },
};

impl Record for JitRequest {
    const TABLE: Table = Table::JitRequests;
    const KEY: Unique = Unique::Id;

    fn key(&self, org: &OrgId) -> Vec<u8> {
        jit_key(org, self.id.as_str())
    }

    fn index_rows(&self, org: &OrgId) -> Vec<IndexRow> {
        let key = pending_key(org, self.expires_at, self.id.as_str());
        vec![IndexRow::shared(Table::PendingJit, key)]
    }
}

/// Takes the request that is in `record`, whose key is `row`, off the lists.
pub(crate) fn take_off(batch: &mut Batch<'_>, row: &[u8], record: &[u8]) -> Result<(), StoreError> {
    let request: JitRequest = decode(Table::JitRequests, record)?;
    // The key of a request is its organization, NUL, and its id.
    let org = &row[..row.len().saturating_sub(request.id.as_str().len())];
    let end = request.expires_at.unix_millis().to_be_bytes();
    let pending = [org, &end, request.id.as_str().as_bytes()].concat();
    batch.remove(Table::PendingJit, &pending)?;
    if let Some(due) = request.callback_due() {
        batch.remove(Table::DueCallbacks, &due_key(due, row))?;
    }
    Ok(())
}

/// What a batch sees and writes of one organization.
struct Tasks<'b, 't> {
    batch: &'b mut Batch<'t>,
    org: &'b OrgId,
}

impl Tasks<'_, '_> {
    fn read<T: DeserializeOwned>(&mut self, table: Table, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.batch.get(table, key)?.map(|row| decode(table, &row)).transpose()
    }

    fn task(&mut self, id: &TaskId) -> Result<Option<Task>, StoreError> {
        self.read(Table::JitTasks, &jit_key(self.org, id.as_str()))
    }

    fn request(&mut self, id: &JitRequestId) -> Result<Option<JitRequest>, StoreError> {
        self.read(Table::JitRequests, &jit_key(self.org, id.as_str()))
    }

    fn load(&mut self, agent: AgentId) -> Result<Load, StoreError> {
        Ok(self.read(Table::JitLoads, &agent_key(self.org, agent))?.unwrap_or_default())
    }

    /// Writes what a step changed.
    fn write<T>(&mut self, agent: AgentId, step: Step<T>) -> Result<(), StoreError> {
        for Waiting { request, until, .. } in step.dropped {
            self.batch.remove(Table::PendingJit, &pending_key(self.org, until, request.as_str()))?;
        }
        let load = agent_key(self.org, agent);
        let before = self.load(agent)?.keep_until();
        if let Some(until) = step.load.keep_until() {
            self.batch.put(Table::JitLoads, &load, &encode(Table::JitLoads, &step.load)?)?;
            self.batch.expires(Table::JitLoads, &load, before, until)?;
        } else if let Some(before) = before {
            self.batch.remove(Table::JitLoads, &load)?;
            self.batch.expires_no_more(Table::JitLoads, &load, before)?;
        }
        let task = encode(Table::JitTasks, &step.task)?;
        self.batch.put(Table::JitTasks, &jit_key(self.org, step.task.id.as_str()), &task)
    }

    fn put(&mut self, old: Option<&JitRequest>, new: &JitRequest) -> Result<(), StoreError> {
        let key = new.key(self.org);
        if let Some(due) = old.and_then(JitRequest::callback_due) {
            self.batch.remove(Table::DueCallbacks, &due_key(due, &key))?;
        }
        if let Some(due) = new.callback_due() {
            self.batch.put(Table::DueCallbacks, &due_key(due, &key), &key)?;
        }
        self.batch.put(Table::JitRequests, &key, &encode(Table::JitRequests, new)?)
    }

    fn insert(
        &mut self,
        request: &JitRequest,
        assessed: History,
        now: Timestamp,
    ) -> Result<NewRequest, StoreError> {
        let Some(task) = self.task(&request.task)? else { return Ok(NewRequest::Missing) };
        let key = request.key(self.org);
        if self.batch.has(Table::JitRequests, &key)? {
            return Ok(NewRequest::Missing);
        }
        let step = Step::insert(&task, &self.load(request.agent)?, request, assessed, now);
        let outcome = step.outcome;
        if matches!(outcome, NewRequest::Inserted | NewRequest::Suspended) {
            self.write(request.agent, step)?;
            self.put(None, request)?;
            if request.ruling.is_none() {
                let pending = pending_key(self.org, request.expires_at, request.id.as_str());
                self.batch.put(Table::PendingJit, &pending, &key)?;
            }
            self.batch.expires(Table::JitRequests, &key, None, request.keep_until())?;
        }
        Ok(outcome)
    }

    fn rule(&mut self, id: &JitRequestId, ruling: &Ruling, now: Timestamp) -> Result<Rule, StoreError> {
        let Some(request) = self.request(id)? else { return Ok(Rule::Missing) };
        let Some(task) = self.task(&request.task)? else { return Ok(Rule::Missing) };
        let step = Step::rule(&task, &self.load(request.agent)?, &request, ruling, now);
        let outcome = step.outcome;
        if matches!(outcome, Rule::Ruled | Rule::Suspended) {
            self.write(request.agent, step)?;
            let pending = pending_key(self.org, request.expires_at, request.id.as_str());
            self.batch.remove(Table::PendingJit, &pending)?;
            self.put(Some(&request), &request.with_ruling(ruling.clone()))?;
        }
        Ok(outcome)
    }

    fn close(&mut self, id: &TaskId, closing: &Closing) -> Result<CloseTask, StoreError> {
        let Some(task) = self.task(id)? else { return Ok(CloseTask::Missing) };
        let step = Step::close(&task, &self.load(task.agent)?, closing);
        let outcome = step.outcome;
        if outcome == CloseTask::Closed {
            self.write(task.agent, step)?;
        }
        Ok(outcome)
    }

    fn note_try(
        &mut self,
        id: &JitRequestId,
        tries: u32,
        next: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        let Some(request) = self.request(id)? else { return Ok(false) };
        let Some(tried) = request.with_try(tries, next) else { return Ok(false) };
        self.put(Some(&request), &tried)?;
        Ok(true)
    }
}

#[async_trait]
impl JitStore for EmbeddedStore {
    async fn insert_task(&self, org: &OrgId, task: &Task, on: &Event) -> Result<Insert, StoreError> {
        let (key, json) = (jit_key(org, task.id.as_str()), encode(Table::JitTasks, task)?);
        let (org, event, keep_until) = (org.clone(), EncodedEvent::of(on)?, task.keep_until());
        let decide = move |batch: &mut Batch<'_>| {
            if batch.has(Table::JitTasks, &key)? {
                return Ok(Insert::Taken(Unique::Id));
            }
            batch.put(Table::JitTasks, &key, &json)?;
            batch.expires(Table::JitTasks, &key, None, keep_until)?;
            batch.record(&org, &event)?;
            Ok(Insert::Inserted)
        };
        self.writer.submit(decide).await
    }

    async fn find_task(&self, org: &OrgId, id: &TaskId) -> Result<Option<Arc<Task>>, StoreError> {
        // The row must not outlive the snapshot that it is of.
        let snapshot = self.latest();
        let row = snapshot.get(Table::JitTasks, &jit_key(org, id.as_str()))?;
        row.map(|row| decode(Table::JitTasks, row.value()).map(Arc::new)).transpose()
    }

    async fn tasks_open(&self, org: &OrgId, ids: &[TaskId]) -> Result<bool, StoreError> {
        for id in ids {
            match self.find_task(org, id).await? {
                Some(task) if task.closed.is_none() => {}
                Some(_) | None => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn close_task(
        &self,
        org: &OrgId,
        task: &Task,
        closing: &Closing,
        on: &Event,
    ) -> Result<CloseTask, StoreError> {
        let (org, id, closing) = (org.clone(), task.id.clone(), closing.clone());
        let event = EncodedEvent::of(on)?;
        let decide = move |batch: &mut Batch<'_>| {
            let outcome = Tasks { batch, org: &org }.close(&id, &closing)?;
            if outcome == CloseTask::Closed {
                batch.record(&org, &event)?;
            }
            Ok(outcome)
        };
        self.writer.submit(decide).await
    }

    async fn insert_request(
        &self,
        org: &OrgId,
        request: &JitRequest,
        assessed: History,
        now: Timestamp,
        on: RequestEvents<'_>,
    ) -> Result<NewRequest, StoreError> {
        let (org, request) = (org.clone(), request.clone());
        let (done, suspended) = (EncodedEvent::of(on.done)?, EncodedEvent::of(on.suspended)?);
        let decide = move |batch: &mut Batch<'_>| {
            let outcome = Tasks { batch, org: &org }.insert(&request, assessed, now)?;
            match outcome {
                NewRequest::Inserted => batch.record(&org, &done)?,
                NewRequest::Suspended => batch.record(&org, &suspended)?,
                NewRequest::Stale | NewRequest::TooMany | NewRequest::TaskClosed | NewRequest::Missing => {}
            }
            Ok(outcome)
        };
        self.writer.submit(decide).await
    }

    async fn find_request(
        &self,
        org: &OrgId,
        id: &JitRequestId,
    ) -> Result<Option<Arc<JitRequest>>, StoreError> {
        // The row must not outlive the snapshot that it is of.
        let snapshot = self.latest();
        let row = snapshot.get(Table::JitRequests, &jit_key(org, id.as_str()))?;
        row.map(|row| decode(Table::JitRequests, row.value()).map(Arc::new)).transpose()
    }

    async fn rule(
        &self,
        org: &OrgId,
        request: &JitRequest,
        ruling: &Ruling,
        now: Timestamp,
        on: RequestEvents<'_>,
    ) -> Result<Rule, StoreError> {
        let (org, id, ruling) = (org.clone(), request.id.clone(), ruling.clone());
        let (done, suspended) = (EncodedEvent::of(on.done)?, EncodedEvent::of(on.suspended)?);
        let decide = move |batch: &mut Batch<'_>| {
            let outcome = Tasks { batch, org: &org }.rule(&id, &ruling, now)?;
            match outcome {
                Rule::Ruled => batch.record(&org, &done)?,
                Rule::Suspended => batch.record(&org, &suspended)?,
                Rule::AlreadyRuled | Rule::Expired | Rule::TaskClosed | Rule::Missing => {}
            }
            Ok(outcome)
        };
        self.writer.submit(decide).await
    }

    async fn pending(
        &self,
        org: &OrgId,
        user: Option<UserId>,
        now: Timestamp,
        page: Page,
    ) -> Result<Listing<Arc<JitRequest>>, StoreError> {
        // The keys of both lists of what is pending are made alike.
        let keys = pending_approvals_from(org, now);
        let asked = |request: &JitRequest| request.on_behalf_of == user;
        let wanted: Option<&(dyn Fn(&JitRequest) -> bool + Send + Sync)> =
            if user.is_some() { Some(&asked) } else { None };
        list_range(&self.latest(), Table::PendingJit, keys, wanted, page).await
    }

    async fn due_callbacks(
        &self,
        now: Timestamp,
        max: u32,
    ) -> Result<Vec<(OrgId, Arc<JitRequest>)>, StoreError> {
        let snapshot = self.latest();
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let (mut keys, mut turns) = (Vec::new(), HashMap::new());
        // All keys, for whoever is due may come behind thousands of one other; no more than can be wanted are kept of any.
        let visit = |_: &[u8], key: &[u8]| {
            let org = key_of_due(key).ok_or_else(|| malformed(Table::DueCallbacks))?;
            let turn = turns.entry(org.clone()).or_insert(0_usize);
            if *turn < max {
                keys.push((*turn, org, key.to_vec()));
                *turn += 1;
            }
            Ok(Visit::Next)
        };
        snapshot.walk(Table::DueCallbacks, due_until(now), Order::Ascending, visit).await?;
        keys.sort_by_key(|(turn, ..)| *turn);
        let mut due = Vec::new();
        for (_, org, key) in keys.into_iter().take(max) {
            if let Some(row) = snapshot.get(Table::JitRequests, &key)? {
                due.push((org, Arc::new(decode(Table::JitRequests, row.value())?)));
            }
        }
        Ok(due)
    }

    async fn note_try(
        &self,
        org: &OrgId,
        request: &JitRequest,
        next: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        let (org, id) = (org.clone(), request.id.clone());
        let tries = request.callback.as_ref().map_or(0, |callback| callback.tries);
        let decide = move |batch: &mut Batch<'_>| Tasks { batch, org: &org }.note_try(&id, tries, next);
        self.writer.submit(decide).await
    }
}
