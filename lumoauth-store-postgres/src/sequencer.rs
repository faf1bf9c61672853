//! Giving numbers to audit events. See [`crate::audit`].

use std::{borrow::Cow, collections::HashSet, sync::Arc, time::Duration};

use lumoauth_core::{id::OrgId, store::StoreError};
use serde::Deserialize;
use sqlx::{PgConnection, Row};
use tokio::{sync::Semaphore, time::timeout};
use uuid::Uuid;

use crate::{
    pool::{End, Pool, Transaction},
    values::searchable,
};

const SEQUENCE: &str = "audit.sequence";

const ANY_WAITING: &str = "SELECT 1 FROM outbox WHERE org_id = $1 LIMIT 1";

const LOCK_HEAD: &str = "SELECT size FROM audit_head WHERE org_id = $1 FOR UPDATE";

const INSERT_HEAD: &str =
    "INSERT INTO audit_head (org_id, size) VALUES ($1, 0) ON CONFLICT (org_id) DO NOTHING";

const SELECT_WAITING: &str = "\
    SELECT arrived, nth, event_id, body FROM outbox WHERE org_id = $1 ORDER BY arrived, nth, event_id LIMIT $2";

const SELECT_KNOWN: &str = "SELECT event_id FROM audit_log WHERE org_id = $1 AND event_id = ANY($2)";

/// Copies waiting events into the log, with their numbers.
const INSERT_ENTRIES: &str = "\
    INSERT INTO audit_log (org_id, seq, event_id, at, kind, actor_id, target_id, outcome, body) \
    SELECT waiting.org_id, $2 + entry.number, waiting.event_id, waiting.at, \
        entry.kind, entry.actor_id, entry.target_id, entry.outcome, waiting.body::json \
    FROM unnest($3::bigint[], $4::int[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::text[]) \
        WITH ORDINALITY AS entry (arrived, nth, event_id, kind, actor_id, target_id, outcome, number) \
    JOIN outbox AS waiting ON waiting.org_id = $1 AND waiting.arrived = entry.arrived \
        AND waiting.nth = entry.nth AND waiting.event_id = entry.event_id";

const DELETE_WAITING: &str = "\
    DELETE FROM outbox AS waiting USING unnest($2::bigint[], $3::int[], $4::uuid[]) AS taken (arrived, nth, event_id) \
    WHERE waiting.org_id = $1 AND waiting.arrived = taken.arrived AND waiting.nth = taken.nth \
        AND waiting.event_id = taken.event_id";

const UPDATE_HEAD: &str = "UPDATE audit_head SET size = $2 WHERE org_id = $1";

/// What look-ups need of an event. Kinds that only newer servers know are numbered all the same.
#[derive(Deserialize)]
struct Facts<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    outcome: Cow<'a, str>,
    actor: Named,
    target: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

/// Numbers events, a few organizations at a time: whoever waits for the head of an organization occupies a connection,
/// and when it is free there is mostly nothing left to do. Clones share the places.
#[derive(Clone, Debug)]
pub(crate) struct Sequencer {
    pool: Pool,
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Sequencer {
    const PLACES: usize = 2;

    /// A sequencer whose callers wait up to `patience` for their turn.
    pub(crate) fn new(pool: Pool, patience: Duration) -> Self {
        Self { pool, places: Arc::new(Semaphore::new(Self::PLACES)), patience }
    }

    /// See [`AuditStore::sequence`](lumoauth_core::store::AuditStore::sequence). Returns how many events no longer
    /// wait, those included that were there already.
    pub(crate) async fn sequence(&self, org: &OrgId, max: u32) -> Result<u64, StoreError> {
        if max == 0 || !self.any_waiting(org).await? {
            return Ok(0);
        }
        let Ok(Ok(_place)) = timeout(self.patience, self.places.acquire()).await else {
            return Err(StoreError::unavailable(SEQUENCE, "too many events are being numbered"));
        };
        // Perhaps somebody else did it meanwhile.
        if !self.any_waiting(org).await? {
            return Ok(0);
        }
        self.pool.transaction(SEQUENCE, &Step { org, max }).await
    }

    async fn any_waiting(&self, org: &OrgId) -> Result<bool, StoreError> {
        let waiting = self.pool.repeatable(SEQUENCE, || sqlx::query(ANY_WAITING).bind(org.as_str())).await?;
        Ok(!waiting.is_empty())
    }
}

/// One step of numbering.
struct Step<'a> {
    org: &'a OrgId,
    max: u32,
}

impl Transaction for Step<'_> {
    type Answer = u64;

    async fn run(&self, connection: &mut PgConnection) -> Result<End<u64>, sqlx::Error> {
        move_waiting(connection, self.org, self.max).await
    }
}

async fn move_waiting(connection: &mut PgConnection, org: &OrgId, max: u32) -> Result<End<u64>, sqlx::Error> {
    let size = lock_head(connection, org).await?;
    let waiting = sqlx::query(SELECT_WAITING)
        .bind(org.as_str())
        .bind(i64::from(max))
        .fetch_all(&mut *connection)
        .await?;
    if waiting.is_empty() {
        return Ok(End::RollBack(0));
    }
    let mut taken = Keys::default();
    for row in &waiting {
        taken.push(row.try_get("arrived")?, row.try_get("nth")?, row.try_get("event_id")?);
    }
    let known = sqlx::query(SELECT_KNOWN).bind(org.as_str()).bind(&taken.ids);
    let known = known.fetch_all(&mut *connection).await?;
    let mut known: HashSet<Uuid> =
        known.iter().map(|row| row.try_get("event_id")).collect::<Result<_, _>>()?;

    let mut entries = Entries::default();
    for (index, row) in waiting.iter().enumerate() {
        if known.insert(taken.ids[index]) {
            let facts = serde_json::from_str(row.try_get("body")?);
            let facts = facts.map_err(|error| sqlx::Error::Decode(error.into()))?;
            entries.push(taken.at(index), &facts);
        }
    }
    if !entries.keys.ids.is_empty() {
        let added = sqlx::query(INSERT_ENTRIES)
            .bind(org.as_str())
            .bind(size)
            .bind(&entries.keys.arrived)
            .bind(&entries.keys.nth)
            .bind(&entries.keys.ids)
            .bind(&entries.kinds)
            .bind(&entries.actors)
            .bind(&entries.targets)
            .bind(&entries.outcomes)
            .execute(&mut *connection)
            .await?
            .rows_affected();
        // INVARIANT: the log has no gaps. Nobody takes events away while the head is held, except whoever moves them to
        // another log; then they are left to it.
        if usize::try_from(added) != Ok(entries.keys.ids.len()) {
            return Ok(End::RollBack(0));
        }
        let new_size = size.checked_add_unsigned(added);
        let new_size = new_size.ok_or_else(|| sqlx::Error::Decode("the log is full".into()))?;
        sqlx::query(UPDATE_HEAD).bind(org.as_str()).bind(new_size).execute(&mut *connection).await?;
    }
    let delete = sqlx::query(DELETE_WAITING).bind(org.as_str());
    delete.bind(&taken.arrived).bind(&taken.nth).bind(&taken.ids).execute(connection).await?;
    Ok(End::Commit(u64::try_from(taken.ids.len()).unwrap_or(u64::MAX)))
}

/// Holds the head of the organization, made if it has none, and returns the last number given.
async fn lock_head(connection: &mut PgConnection, org: &OrgId) -> Result<i64, sqlx::Error> {
    let head = sqlx::query(LOCK_HEAD).bind(org.as_str()).fetch_optional(&mut *connection).await?;
    if let Some(row) = head {
        return row.try_get("size");
    }
    sqlx::query(INSERT_HEAD).bind(org.as_str()).execute(&mut *connection).await?;
    sqlx::query(LOCK_HEAD).bind(org.as_str()).fetch_one(connection).await?.try_get("size")
}

/// Keys of waiting events, column by column.
#[derive(Default)]
struct Keys {
    arrived: Vec<i64>,
    nth: Vec<i32>,
    ids: Vec<Uuid>,
}

impl Keys {
    fn push(&mut self, arrived: i64, nth: i32, id: Uuid) {
        self.arrived.push(arrived);
        self.nth.push(nth);
        self.ids.push(id);
    }

    fn at(&self, index: usize) -> (i64, i32, Uuid) {
        (self.arrived[index], self.nth[index], self.ids[index])
    }
}

/// What is added to the log, column by column.
#[derive(Default)]
struct Entries {
    keys: Keys,
    kinds: Vec<String>,
    actors: Vec<String>,
    targets: Vec<Option<String>>,
    outcomes: Vec<String>,
}

impl Entries {
    fn push(&mut self, (arrived, nth, id): (i64, i32, Uuid), facts: &Facts<'_>) {
        self.keys.push(arrived, nth, id);
        self.kinds.push(searchable(&facts.kind).into_owned());
        self.actors.push(searchable(&facts.actor.id).into_owned());
        self.targets.push(facts.target.as_ref().map(|target| searchable(&target.id).into_owned()));
        self.outcomes.push(searchable(&facts.outcome).into_owned());
    }
}
