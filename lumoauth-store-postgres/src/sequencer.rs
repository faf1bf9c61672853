//! Giving numbers to audit events. See [`crate::audit`].

use std::{borrow::Cow, collections::HashSet, sync::Arc, time::Duration};

use lumoauth_core::{
    id::{EventId, OrgId},
    merkle::{BLOCK, Frontier, entry_leaf},
    store::StoreError,
};
use serde::Deserialize;
use sqlx::{PgConnection, Row, postgres::PgRow};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::{
    pool::{End, Pool, Transaction},
    values::{from_millis, searchable, whole},
};

pub(crate) const SEQUENCE: &str = "audit.sequence";

const ANY_WAITING: &str = "SELECT 1 FROM outbox WHERE org_id = $1 LIMIT 1";

/// Does not wait: whoever waits in PostgreSQL occupies a connection.
const LOCK_HEAD: &str = "SELECT size, peaks FROM audit_head WHERE org_id = $1 FOR UPDATE SKIP LOCKED";

const INSERT_HEAD: &str = "INSERT INTO audit_head (org_id, size, peaks, dropped) VALUES ($1, 0, '', 0) ON CONFLICT (org_id) DO NOTHING";

const SELECT_WAITING: &str = "\
    SELECT arrived, event_id, at, body FROM outbox WHERE org_id = $1 ORDER BY arrived, nth, event_id LIMIT $2";

const SELECT_KNOWN: &str = "SELECT event_id FROM audit_log WHERE org_id = $1 AND event_id = ANY($2)";

/// Adds entries with their numbers. Nothing is joined with the outbox, here and below: while its size is misjudged, as
/// right after a burst, a join may compare everything with everything.
const INSERT_ENTRIES: &str = "\
    INSERT INTO audit_log (org_id, seq, event_id, at, kind, actor_id, target_id, outcome, body, leaf) \
    SELECT $1, $2 + number, event_id, at, kind, actor_id, target_id, outcome, body::json, leaf \
    FROM unnest($3::uuid[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bytea[]) \
        WITH ORDINALITY AS entry (event_id, at, kind, actor_id, target_id, outcome, body, leaf, number)";

const INSERT_BLOCKS: &str = "\
    INSERT INTO audit_block (org_id, number, root) \
    SELECT $1, number, root FROM unnest($2::bigint[], $3::bytea[]) AS block (number, root)";

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

const UPDATE_HEAD: &str = "UPDATE audit_head SET size = $2, peaks = $3 WHERE org_id = $1";

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

impl<'a> Facts<'a> {
    fn of(body: &'a str) -> Result<Self, sqlx::Error> {
        serde_json::from_str(body).map_err(|error| sqlx::Error::Decode(error.into()))
    }

    fn target_id(&self) -> Option<Cow<'_, str>> {
        self.target.as_ref().map(|target| searchable(&target.id))
    }
}

/// Whether the columns `kind`, `outcome`, `actor_id` and `target_id` of a row are those of the event in `body`.
pub(crate) fn is_found_by(row: &PgRow, body: &str) -> Result<bool, sqlx::Error> {
    let facts = Facts::of(body)?;
    Ok(searchable(&facts.kind) == row.try_get::<&str, _>("kind")?
        && searchable(&facts.outcome) == row.try_get::<&str, _>("outcome")?
        && searchable(&facts.actor.id) == row.try_get::<&str, _>("actor_id")?
        && facts.target_id().as_deref() == row.try_get::<Option<&str>, _>("target_id")?)
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
    let Some(mut tree) = lock_head(connection, org).await? else {
        return Ok(End::RollBack(Turn::Held));
    };
    let size = stored_size(&tree)?;
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
            entries.push(org, &mut tree, *id, row.try_get("at")?, row.try_get("body")?)?;
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
            .bind(&entries.leaves)
            .execute(&mut *connection)
            .await?
            .rows_affected();
        let new_size = stored_size(&tree)?;
        if size.checked_add_unsigned(added) != Some(new_size) {
            return Err(sqlx::Error::Decode("the log has not grown as its tree has".into()));
        }
        if !entries.blocks.is_empty() {
            let insert = sqlx::query(INSERT_BLOCKS).bind(org.as_str()).bind(&entries.blocks);
            insert.bind(&entries.roots).execute(&mut *connection).await?;
        }
        let update = sqlx::query(UPDATE_HEAD).bind(org.as_str()).bind(new_size);
        update.bind(tree.to_bytes()).execute(&mut *connection).await?;
        sqlx::query(ADD_COUNTS).bind(org.as_str()).bind(size).execute(&mut *connection).await?;
    }
    for (arrived, ids) in arrived.chunks(STRETCH).zip(ids.chunks(STRETCH)) {
        let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
        let delete = sqlx::query(DELETE_WAITING).bind(org.as_str());
        delete.bind(arrived.first()).bind(arrived.last()).bind(ids).execute(&mut *connection).await?;
    }
    Ok(End::Commit(Turn::Taken(u64::try_from(ids.len()).unwrap_or(u64::MAX))))
}

/// Holds the head of the organization, made if it has none, and returns the tree. `None` if somebody else holds it.
async fn lock_head(connection: &mut PgConnection, org: &OrgId) -> Result<Option<Frontier>, sqlx::Error> {
    let head = sqlx::query(LOCK_HEAD).bind(org.as_str()).fetch_optional(&mut *connection).await?;
    if let Some(row) = head {
        return tree(&row).map(Some);
    }
    let made = sqlx::query(INSERT_HEAD).bind(org.as_str()).execute(connection).await?.rows_affected();
    Ok((made == 1).then(Frontier::default))
}

/// The tree of a row of `audit_head`.
pub(crate) fn tree(row: &PgRow) -> Result<Frontier, sqlx::Error> {
    let tree = Frontier::from_bytes(whole(row.try_get("size")?)?, row.try_get("peaks")?);
    tree.ok_or_else(|| sqlx::Error::Decode("the head of the log does not fit its size".into()))
}

/// The size of a log as columns hold it.
fn stored_size(tree: &Frontier) -> Result<i64, sqlx::Error> {
    i64::try_from(tree.size()).map_err(|_| sqlx::Error::Decode("the log is full".into()))
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
    leaves: Vec<Vec<u8>>,
    /// Blocks of the tree that became complete, and their roots.
    blocks: Vec<i64>,
    roots: Vec<Vec<u8>>,
}

impl<'r> Entries<'r> {
    /// Adds an entry, which the tree grows by.
    fn push(
        &mut self,
        org: &OrgId,
        tree: &mut Frontier,
        id: Uuid,
        at: i64,
        body: &'r str,
    ) -> Result<(), sqlx::Error> {
        let seq = tree.size() + 1;
        let leaf = entry_leaf(org, seq, EventId::from_uuid(id), from_millis(at)?, body.as_bytes());
        if let Some(root) = tree.push(leaf) {
            let number = i64::try_from(seq / BLOCK - 1).map_err(|error| sqlx::Error::Decode(error.into()))?;
            self.blocks.push(number);
            self.roots.push(root.as_bytes().to_vec());
        }
        self.leaves.push(leaf.as_bytes().to_vec());
        let facts = Facts::of(body)?;
        self.ids.push(id);
        self.times.push(at);
        self.kinds.push(searchable(&facts.kind).into_owned());
        self.actors.push(searchable(&facts.actor.id).into_owned());
        self.targets.push(facts.target_id().map(Cow::into_owned));
        self.outcomes.push(searchable(&facts.outcome).into_owned());
        self.bodies.push(body);
        Ok(())
    }
}
