//! Giving numbers to audit events. See [`crate::audit`].

use std::{borrow::Cow, collections::HashSet, sync::Arc, time::Duration};

use lumoauth_core::{id::OrgId, store::StoreError};
use serde::Deserialize;
use sqlx::{PgConnection, Row};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::{
    pool::{End, Pool, Transaction},
    values::searchable,
};

pub(crate) const SEQUENCE: &str = "audit.sequence";

const ANY_WAITING: &str = "SELECT 1 FROM outbox WHERE org_id = $1 LIMIT 1";

/// Does not wait: whoever waits in PostgreSQL occupies a connection.
const LOCK_HEAD: &str = "SELECT size FROM audit_head WHERE org_id = $1 FOR UPDATE SKIP LOCKED";

const INSERT_HEAD: &str =
    "INSERT INTO audit_head (org_id, size) VALUES ($1, 0) ON CONFLICT (org_id) DO NOTHING";

const SELECT_WAITING: &str = "\
    SELECT arrived, event_id, at, body FROM outbox WHERE org_id = $1 ORDER BY arrived, nth, event_id LIMIT $2";

const SELECT_KNOWN: &str = "SELECT event_id FROM audit_log WHERE org_id = $1 AND event_id = ANY($2)";

/// Adds entries with their numbers. Nothing is joined with the outbox, here and below: while its size is misjudged, as
/// right after a burst, a join may compare everything with everything.
const INSERT_ENTRIES: &str = "\
    INSERT INTO audit_log (org_id, seq, event_id, at, kind, actor_id, target_id, outcome, body) \
    SELECT $1, $2 + number, event_id, at, kind, actor_id, target_id, outcome, body::json \
    FROM unnest($3::uuid[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[]) \
        WITH ORDINALITY AS entry (event_id, at, kind, actor_id, target_id, outcome, body, number)";

/// Counts the entries above `$2`, which were added just now.
const ADD_COUNTS: &str = "\
    INSERT INTO audit_count AS counted \
        (org_id, hour, kind, outcome, total, first_seq, last_seq, first_at, last_at) \
    SELECT org_id, at / 3600000, kind, outcome, count(*), min(seq), max(seq), min(at), max(at) \
    FROM audit_log WHERE org_id = $1 AND seq > $2 \
    GROUP BY org_id, at / 3600000, kind, outcome \
    ON CONFLICT (org_id, hour, kind, outcome) DO UPDATE SET \
        total = counted.total + excluded.total, last_seq = excluded.last_seq, \
        first_at = least(counted.first_at, excluded.first_at), \
        last_at = greatest(counted.last_at, excluded.last_at)";

/// Takes away those of a stretch of the outbox that were numbered; others may have arrived in it meanwhile. The ids are
/// compared as text so that they are no condition of the index, which would be searched once for each of them.
const DELETE_WAITING: &str = "\
    DELETE FROM outbox WHERE org_id = $1 AND arrived BETWEEN $2 AND $3 AND event_id::text = ANY($4)";

/// How long such a stretch is: each row in it is compared with each id.
const STRETCH: usize = 128;

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

/// Numbers events, a few organizations at a time. Whoever finds the head of an organization held waits outside, without a
/// connection or a place, and looks again: mostly there is nothing left to do. So a server that stopped while it held one
/// head keeps nobody from the others. Clones share the places.
#[derive(Clone, Debug)]
pub(crate) struct Sequencer {
    pool: Pool,
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Sequencer {
    const PLACES: usize = 2;

    /// How long to wait before looking again.
    const PAUSE: Duration = Duration::from_millis(10);

    /// A sequencer whose callers wait up to `patience` for their turn.
    pub(crate) fn new(pool: Pool, patience: Duration) -> Self {
        Self { pool, places: Arc::new(Semaphore::new(Self::PLACES)), patience }
    }

    /// See [`AuditStore::sequence`](lumoauth_core::store::AuditStore::sequence). Returns how many events no longer
    /// wait, those included that were there already.
    pub(crate) async fn sequence(&self, org: &OrgId, max: u32) -> Result<u64, StoreError> {
        if max == 0 {
            return Ok(0);
        }
        let turn = timeout(self.patience, self.turn(org, max)).await;
        turn.unwrap_or_else(|_| {
            Err(StoreError::unavailable(SEQUENCE, "somebody else numbers events for too long"))
        })
    }

    async fn turn(&self, org: &OrgId, max: u32) -> Result<u64, StoreError> {
        loop {
            if !self.any_waiting(org).await? {
                return Ok(0);
            }
            let Ok(place) = self.places.acquire().await else {
                return Err(StoreError::unavailable(SEQUENCE, "the store is closing"));
            };
            match self.pool.transaction(SEQUENCE, Step { org: org.clone(), max }).await? {
                Turn::Taken(moved) => return Ok(moved),
                Turn::Held => drop(place),
            }
            sleep(Self::PAUSE).await;
        }
    }

    async fn any_waiting(&self, org: &OrgId) -> Result<bool, StoreError> {
        let waiting = self.pool.repeatable(SEQUENCE, || sqlx::query(ANY_WAITING).bind(org.as_str())).await?;
        Ok(!waiting.is_empty())
    }
}

/// What came of a step.
enum Turn {
    /// It moved this many events.
    Taken(u64),
    /// Somebody else holds the head.
    Held,
}

/// One step of numbering.
struct Step {
    org: OrgId,
    max: u32,
}

impl Transaction for Step {
    type Answer = Turn;

    async fn run(&self, connection: &mut PgConnection) -> Result<End<Turn>, sqlx::Error> {
        move_waiting(connection, &self.org, self.max).await
    }
}

async fn move_waiting(
    connection: &mut PgConnection,
    org: &OrgId,
    max: u32,
) -> Result<End<Turn>, sqlx::Error> {
    let Some(size) = lock_head(connection, org).await? else {
        return Ok(End::RollBack(Turn::Held));
    };
    let waiting = sqlx::query(SELECT_WAITING)
        .bind(org.as_str())
        .bind(i64::from(max))
        .fetch_all(&mut *connection)
        .await?;
    if waiting.is_empty() {
        return Ok(End::RollBack(Turn::Taken(0)));
    }
    let arrived: Vec<i64> = waiting.iter().map(|row| row.try_get("arrived")).collect::<Result<_, _>>()?;
    let ids: Vec<Uuid> = waiting.iter().map(|row| row.try_get("event_id")).collect::<Result<_, _>>()?;
    let known = sqlx::query(SELECT_KNOWN).bind(org.as_str()).bind(&ids).fetch_all(&mut *connection).await?;
    let mut known: HashSet<Uuid> =
        known.iter().map(|row| row.try_get("event_id")).collect::<Result<_, _>>()?;

    let mut entries = Entries::default();
    for (row, id) in waiting.iter().zip(&ids) {
        if known.insert(*id) {
            entries.push(*id, row.try_get("at")?, row.try_get("body")?)?;
        }
    }
    if !entries.ids.is_empty() {
        let added = sqlx::query(INSERT_ENTRIES)
            .bind(org.as_str())
            .bind(size)
            .bind(&entries.ids)
            .bind(&entries.times)
            .bind(&entries.kinds)
            .bind(&entries.actors)
            .bind(&entries.targets)
            .bind(&entries.outcomes)
            .bind(&entries.bodies)
            .execute(&mut *connection)
            .await?
            .rows_affected();
        let new_size = size.checked_add_unsigned(added);
        let new_size = new_size.ok_or_else(|| sqlx::Error::Decode("the log is full".into()))?;
        sqlx::query(UPDATE_HEAD).bind(org.as_str()).bind(new_size).execute(&mut *connection).await?;
        sqlx::query(ADD_COUNTS).bind(org.as_str()).bind(size).execute(&mut *connection).await?;
    }
    for (arrived, ids) in arrived.chunks(STRETCH).zip(ids.chunks(STRETCH)) {
        let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
        let delete = sqlx::query(DELETE_WAITING).bind(org.as_str());
        delete.bind(arrived.first()).bind(arrived.last()).bind(ids).execute(&mut *connection).await?;
    }
    Ok(End::Commit(Turn::Taken(u64::try_from(ids.len()).unwrap_or(u64::MAX))))
}

/// Holds the head of the organization, made if it has none, and returns the last number given. `None` if somebody else
/// holds it.
async fn lock_head(connection: &mut PgConnection, org: &OrgId) -> Result<Option<i64>, sqlx::Error> {
    let head = sqlx::query(LOCK_HEAD).bind(org.as_str()).fetch_optional(&mut *connection).await?;
    if let Some(row) = head {
        return row.try_get("size").map(Some);
    }
    let made = sqlx::query(INSERT_HEAD).bind(org.as_str()).execute(connection).await?.rows_affected();
    Ok((made == 1).then_some(0))
}

/// What is added to the log, column by column.
#[derive(Default)]
struct Entries<'r> {
    ids: Vec<Uuid>,
    times: Vec<i64>,
    kinds: Vec<String>,
    actors: Vec<String>,
    targets: Vec<Option<String>>,
    outcomes: Vec<String>,
    bodies: Vec<&'r str>,
}

impl<'r> Entries<'r> {
    fn push(&mut self, id: Uuid, at: i64, body: &'r str) -> Result<(), sqlx::Error> {
        let facts: Facts<'_> =
            serde_json::from_str(body).map_err(|error| sqlx::Error::Decode(error.into()))?;
        self.ids.push(id);
        self.times.push(at);
        self.kinds.push(searchable(&facts.kind).into_owned());
        self.actors.push(searchable(&facts.actor.id).into_owned());
        self.targets.push(facts.target.as_ref().map(|target| searchable(&target.id).into_owned()));
        self.outcomes.push(searchable(&facts.outcome).into_owned());
        self.bodies.push(body);
        Ok(())
    }
}
