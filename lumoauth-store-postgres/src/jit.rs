//! Tasks and what agents ask for in them, on PostgreSQL.
//!
//! A task, the requests in it and what of its agent waits change together, in a transaction that holds, in this order: the row
//! of the agent, the task, the request. What it becomes is decided by core, with these rows held.

use std::sync::Arc;

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
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{PgConnection, Row};

use crate::{
    PostgresStore,
    pool::{End, Transaction},
    records::{self, Recorded, bounds, listing, millis, one, recorded, to_json, value},
};

const INSERT_TASK: &str = recorded!(
    "INSERT INTO jit_task (org_id, id, closed, keep_until, record)
    VALUES ($1, $5, false, $6, $7::json)
    ON CONFLICT DO NOTHING"
);

const TASK_TAKEN: &str = "SELECT EXISTS (SELECT 1 FROM jit_task WHERE org_id = $1 AND id = $2)";

const FIND_TASK: &str = "SELECT record::text FROM jit_task WHERE org_id = $1 AND id = $2";

const COUNT_OPEN: &str = "SELECT count(*) FROM jit_task WHERE org_id = $1 AND id = ANY($2) AND NOT closed";

const FIND_REQUEST: &str = "SELECT record::text FROM jit_request WHERE org_id = $1 AND id = $2";

const PENDING: &str = listing!(
    "FROM jit_request WHERE org_id = $1 AND waiting AND expires_at > $2
        AND ($3::uuid IS NULL OR on_behalf_of = $3)",
    order: "expires_at, id", offset: "$4", limit: "$5"
);

// Records are read of those only that have their turn.
const DUE: &str = "SELECT org_id, record::text FROM (\
        SELECT org_id, id, callback_due, \
            row_number() OVER (PARTITION BY org_id ORDER BY callback_due, id) AS turn \
        FROM jit_request WHERE callback_due <= $1 ORDER BY turn, callback_due LIMIT $2) AS due \
    JOIN jit_request USING (org_id, id) ORDER BY due.turn, due.callback_due";

// Only the row of the agent is made where it is missing, so that there is something to hold. Somebody else may have made it
// meanwhile, and a purge may drop it again: one statement holds it either way.
const MAKE_LOAD: &str = "INSERT INTO jit_load (org_id, agent, keep_until, record) \
    VALUES ($1, $2, 0, $3::json) \
    ON CONFLICT (org_id, agent) DO UPDATE SET agent = excluded.agent RETURNING record::text";

const LOCK_LOAD: &str = "SELECT record::text FROM jit_load WHERE org_id = $1 AND agent = $2 FOR UPDATE";

const SET_LOAD: &str = "UPDATE jit_load SET record = $3::json, keep_until = coalesce($4, 0) \
    WHERE org_id = $1 AND agent = $2";

const LOCK_TASK: &str = "SELECT record::text FROM jit_task WHERE org_id = $1 AND id = $2 FOR UPDATE";

const SET_TASK: &str = "UPDATE jit_task SET closed = $3, record = $4::json WHERE org_id = $1 AND id = $2";

const LOCK_REQUEST: &str = "SELECT record::text FROM jit_request WHERE org_id = $1 AND id = $2 FOR UPDATE";

const INSERT_REQUEST: &str = "INSERT INTO jit_request \
        (org_id, id, on_behalf_of, expires_at, keep_until, waiting, callback_due, record) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8::json) ON CONFLICT DO NOTHING";

const SET_REQUEST: &str = "UPDATE jit_request SET waiting = $3, callback_due = $4, record = $5::json \
    WHERE org_id = $1 AND id = $2";

const STOP_WAITING: &str = "UPDATE jit_request SET waiting = false WHERE org_id = $1 AND id = ANY($2)";

const NOTE: &str = "INSERT INTO outbox (org_id, event_id, arrived, nth, at, body) \
    VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, 0, $3, $4)";

#[async_trait]
impl JitStore for PostgresStore {
    async fn insert_task(&self, org: &OrgId, task: &Task, on: &Event) -> Result<Insert, StoreError> {
        const OPERATION: &str = "jit.insert_task";
        let on = Recorded::new(OPERATION, org, on)?;
        let (record, id) = (to_json(OPERATION, task)?, task.id.as_str());
        let insert =
            || on.statement(INSERT_TASK).bind(id).bind(millis(task.keep_until())).bind(record.as_str());
        let taken = || sqlx::query(TASK_TAKEN).bind(org.as_str()).bind(id);
        records::insert(&self.pool, OPERATION, insert, taken, &[Unique::Id]).await
    }

    async fn find_task(&self, org: &OrgId, id: &TaskId) -> Result<Option<Arc<Task>>, StoreError> {
        let statement = || sqlx::query(FIND_TASK).bind(org.as_str()).bind(id.as_str());
        records::find(&self.pool, "jit.find_task", statement).await
    }

    async fn tasks_open(&self, org: &OrgId, ids: &[TaskId]) -> Result<bool, StoreError> {
        const OPERATION: &str = "jit.tasks_open";
        let mut names: Vec<&str> = ids.iter().map(TaskId::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let wanted = i64::try_from(names.len()).unwrap_or(i64::MAX);
        let names: Vec<String> = names.into_iter().map(ToOwned::to_owned).collect();
        let statement = || sqlx::query(COUNT_OPEN).bind(org.as_str()).bind(names.clone());
        let rows = self.pool.repeatable(OPERATION, statement).await?;
        Ok(value::<i64>(OPERATION, one(OPERATION, &rows)?, 0)? == wanted)
    }

    async fn close_task(
        &self,
        org: &OrgId,
        task: &Task,
        closing: &Closing,
        on: &Event,
    ) -> Result<CloseTask, StoreError> {
        const OPERATION: &str = "jit.close_task";
        let work = Close {
            place: Place::new(org, task.agent, &task.id),
            closing: closing.clone(),
            on: Recorded::new(OPERATION, org, on)?,
        };
        self.pool.transaction(OPERATION, work).await
    }

    async fn insert_request(
        &self,
        org: &OrgId,
        request: &JitRequest,
        assessed: History,
        now: Timestamp,
        on: RequestEvents<'_>,
    ) -> Result<NewRequest, StoreError> {
        const OPERATION: &str = "jit.insert_request";
        let work = Ask {
            place: Place::new(org, request.agent, &request.task),
            request: request.clone(),
            assessed,
            now,
            done: Recorded::new(OPERATION, org, on.done)?,
            suspended: Recorded::new(OPERATION, org, on.suspended)?,
        };
        self.pool.transaction(OPERATION, work).await
    }

    async fn find_request(
        &self,
        org: &OrgId,
        id: &JitRequestId,
    ) -> Result<Option<Arc<JitRequest>>, StoreError> {
        let statement = || sqlx::query(FIND_REQUEST).bind(org.as_str()).bind(id.as_str());
        records::find(&self.pool, "jit.find_request", statement).await
    }

    async fn rule(
        &self,
        org: &OrgId,
        request: &JitRequest,
        ruling: &Ruling,
        now: Timestamp,
        on: RequestEvents<'_>,
    ) -> Result<Rule, StoreError> {
        const OPERATION: &str = "jit.rule";
        let work = Answer {
            place: Place::new(org, request.agent, &request.task),
            id: request.id.clone(),
            ruling: ruling.clone(),
            now,
            done: Recorded::new(OPERATION, org, on.done)?,
            suspended: Recorded::new(OPERATION, org, on.suspended)?,
        };
        self.pool.transaction(OPERATION, work).await
    }

    async fn pending(
        &self,
        org: &OrgId,
        user: Option<UserId>,
        now: Timestamp,
        page: Page,
    ) -> Result<Listing<Arc<JitRequest>>, StoreError> {
        let (offset, limit) = bounds(page);
        let user = user.map(UserId::uuid);
        let statement = || {
            let statement = sqlx::query(PENDING).bind(org.as_str()).bind(millis(now));
            statement.bind(user).bind(offset).bind(limit)
        };
        records::list(&self.pool, "jit.pending", statement).await
    }

    async fn due_callbacks(
        &self,
        now: Timestamp,
        max: u32,
    ) -> Result<Vec<(OrgId, Arc<JitRequest>)>, StoreError> {
        const OPERATION: &str = "jit.due_callbacks";
        let statement = || sqlx::query(DUE).bind(millis(now)).bind(i64::from(max));
        let rows = self.pool.repeatable(OPERATION, statement).await?;
        let mut due = Vec::with_capacity(rows.len());
        for row in &rows {
            let org = OrgId::parse(value(OPERATION, row, 0)?);
            let org = org.map_err(|error| StoreError::corrupt(OPERATION, error))?;
            due.push((org, Arc::new(records::from_json(OPERATION, value(OPERATION, row, 1)?)?)));
        }
        Ok(due)
    }

    async fn note_try(
        &self,
        org: &OrgId,
        request: &JitRequest,
        next: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        let tries = request.callback.as_ref().map_or(0, |callback| callback.tries);
        let work = Try { org: org.clone(), id: request.id.clone(), tries, next };
        self.pool.transaction("jit.note_try", work).await
    }
}

/// Which rows are held.
struct Place {
    org: OrgId,
    agent: AgentId,
    task: TaskId,
}

impl Place {
    fn new(org: &OrgId, agent: AgentId, task: &TaskId) -> Self {
        Self { org: org.clone(), agent, task: task.clone() }
    }

    /// Holds the row of the agent and the task. `None` if there is no such task.
    async fn lock(&self, connection: &mut PgConnection) -> Result<Option<(Load, Task)>, sqlx::Error> {
        let load = lock_load(connection, &self.org, self.agent).await?;
        let task = sqlx::query(LOCK_TASK).bind(self.org.as_str()).bind(self.task.as_str());
        let task = task.fetch_optional(&mut *connection).await?;
        task.map(|row| Ok((load, read(row.try_get(0)?)?))).transpose()
    }

    /// Writes what a step changed, and its event.
    async fn write<T>(
        &self,
        connection: &mut PgConnection,
        step: &Step<T>,
        on: &Recorded,
    ) -> Result<(), sqlx::Error> {
        let org = self.org.as_str();
        let load = sqlx::query(SET_LOAD).bind(org).bind(self.agent.uuid()).bind(json(&step.load)?);
        let load = load.bind(step.load.keep_until().map(millis));
        load.execute(&mut *connection).await?;
        let task = sqlx::query(SET_TASK).bind(org).bind(self.task.as_str());
        let task = task.bind(step.task.closed.is_some()).bind(json(&step.task)?);
        task.execute(&mut *connection).await?;
        if !step.dropped.is_empty() {
            let ids: Vec<String> =
                step.dropped.iter().map(|Waiting { request, .. }| request.to_string()).collect();
            sqlx::query(STOP_WAITING).bind(org).bind(ids).execute(&mut *connection).await?;
        }
        on.statement(NOTE).execute(connection).await?;
        Ok(())
    }

    async fn lock_request(
        &self,
        connection: &mut PgConnection,
        id: &JitRequestId,
    ) -> Result<Option<JitRequest>, sqlx::Error> {
        lock_request(connection, &self.org, id).await
    }
}

/// Holds the row of the agent, which is made where it is missing.
pub(crate) async fn lock_load(
    connection: &mut PgConnection,
    org: &OrgId,
    agent: AgentId,
) -> Result<Load, sqlx::Error> {
    let (org, agent) = (org.as_str(), agent.uuid());
    let select = sqlx::query(LOCK_LOAD).bind(org).bind(agent);
    if let Some(row) = select.fetch_optional(&mut *connection).await? {
        return read(row.try_get(0)?);
    }
    let empty = json(&Load::default())?;
    let made = sqlx::query(MAKE_LOAD).bind(org).bind(agent).bind(empty);
    read(made.fetch_one(connection).await?.try_get(0)?)
}

async fn lock_request(
    connection: &mut PgConnection,
    org: &OrgId,
    id: &JitRequestId,
) -> Result<Option<JitRequest>, sqlx::Error> {
    let row = sqlx::query(LOCK_REQUEST).bind(org.as_str()).bind(id.as_str());
    row.fetch_optional(connection).await?.map(|row| read(row.try_get(0)?)).transpose()
}

async fn set_request(
    connection: &mut PgConnection,
    org: &OrgId,
    request: &JitRequest,
) -> Result<(), sqlx::Error> {
    // It waits for nobody once it has an answer, and only then is its callback tried.
    let set = sqlx::query(SET_REQUEST).bind(org.as_str()).bind(request.id.as_str());
    let set = set.bind(request.ruling.is_none()).bind(request.callback_due().map(millis));
    set.bind(json(request)?).execute(connection).await?;
    Ok(())
}

/// A request is made.
struct Ask {
    place: Place,
    request: JitRequest,
    assessed: History,
    now: Timestamp,
    done: Recorded,
    suspended: Recorded,
}

impl Transaction for Ask {
    type Answer = NewRequest;

    async fn run(&self, connection: &mut PgConnection) -> Result<End<NewRequest>, sqlx::Error> {
        let Some((load, task)) = self.place.lock(connection).await? else {
            return Ok(End::RollBack(NewRequest::Missing));
        };
        let request = &self.request;
        let step = Step::insert(&task, &load, request, self.assessed, self.now);
        let on = match step.outcome {
            NewRequest::Inserted => &self.done,
            NewRequest::Suspended => &self.suspended,
            outcome => return Ok(End::RollBack(outcome)),
        };
        let insert = sqlx::query(INSERT_REQUEST)
            .bind(self.place.org.as_str())
            .bind(request.id.as_str())
            .bind(request.on_behalf_of.map(UserId::uuid))
            .bind(millis(request.expires_at))
            .bind(millis(request.keep_until()))
            .bind(request.ruling.is_none())
            .bind(request.callback_due().map(millis))
            .bind(json(request)?);
        if insert.execute(&mut *connection).await?.rows_affected() == 0 {
            return Ok(End::RollBack(NewRequest::Missing));
        }
        self.place.write(connection, &step, on).await?;
        Ok(End::Commit(step.outcome))
    }
}

/// A request is answered.
struct Answer {
    place: Place,
    id: JitRequestId,
    ruling: Ruling,
    now: Timestamp,
    done: Recorded,
    suspended: Recorded,
}

impl Transaction for Answer {
    type Answer = Rule;

    async fn run(&self, connection: &mut PgConnection) -> Result<End<Rule>, sqlx::Error> {
        let Some((load, task)) = self.place.lock(connection).await? else {
            return Ok(End::RollBack(Rule::Missing));
        };
        let Some(request) = self.place.lock_request(connection, &self.id).await? else {
            return Ok(End::RollBack(Rule::Missing));
        };
        let step = Step::rule(&task, &load, &request, &self.ruling, self.now);
        let on = match step.outcome {
            Rule::Ruled => &self.done,
            Rule::Suspended => &self.suspended,
            outcome => return Ok(End::RollBack(outcome)),
        };
        set_request(connection, &self.place.org, &request.with_ruling(self.ruling.clone())).await?;
        self.place.write(connection, &step, on).await?;
        Ok(End::Commit(step.outcome))
    }
}

/// A task is closed.
struct Close {
    place: Place,
    closing: Closing,
    on: Recorded,
}

impl Transaction for Close {
    type Answer = CloseTask;

    async fn run(&self, connection: &mut PgConnection) -> Result<End<CloseTask>, sqlx::Error> {
        let Some((load, task)) = self.place.lock(connection).await? else {
            return Ok(End::RollBack(CloseTask::Missing));
        };
        let step = Step::close(&task, &load, &self.closing);
        if step.outcome != CloseTask::Closed {
            return Ok(End::RollBack(step.outcome));
        }
        self.place.write(connection, &step, &self.on).await?;
        Ok(End::Commit(step.outcome))
    }
}

/// A callback is tried.
struct Try {
    org: OrgId,
    id: JitRequestId,
    tries: u32,
    next: Option<Timestamp>,
}

impl Transaction for Try {
    type Answer = bool;

    async fn run(&self, connection: &mut PgConnection) -> Result<End<bool>, sqlx::Error> {
        let Some(request) = lock_request(connection, &self.org, &self.id).await? else {
            return Ok(End::RollBack(false));
        };
        let Some(tried) = request.with_try(self.tries, self.next) else { return Ok(End::RollBack(false)) };
        set_request(connection, &self.org, &tried).await?;
        Ok(End::Commit(true))
    }
}

fn json<T: Serialize>(value: &T) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}
