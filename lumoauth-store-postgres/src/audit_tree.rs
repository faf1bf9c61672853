//! The hash tree over the audit log, what was signed of it, and retention. The tree grows where entries get their numbers:
//! [`crate::sequencer`].

use std::ops::Range;

use lumoauth_core::{
    audit::Event,
    id::{EventId, OrgId},
    merkle::Node,
    store::{Checkpoint, LogHead, RawEntry, StoreError, TreeLevel},
};
use sqlx::{PgConnection, Row, postgres::PgRow};

use crate::{
    pool::{End, Pool, Transaction},
    records::millis,
    sequencer::{is_found_by, tree},
    values::{column, from_millis, stored, whole},
};

pub(crate) const HEAD: &str = "audit.head";
pub(crate) const NODES: &str = "audit.nodes";
pub(crate) const RAW: &str = "audit.raw";
pub(crate) const SIGN_OFF: &str = "audit.sign_off";
pub(crate) const CHECKPOINTS: &str = "audit.checkpoints";
pub(crate) const UNSIGNED: &str = "audit.unsigned";
pub(crate) const DROP_BODIES: &str = "audit.drop_bodies";

/// What was signed is asked of the signed heads themselves: one that is about more entries than there are must be found,
/// also if the log is gone.
const SELECT_HEAD: &str = "\
    SELECT coalesce(size, 0) AS size, coalesce(peaks, '') AS peaks, coalesce(dropped, 0) AS dropped, \
        (SELECT coalesce(max(size), 0) FROM audit_checkpoint AS signed WHERE signed.org_id = $1) AS signed \
    FROM (VALUES (1)) AS one LEFT JOIN audit_head ON org_id = $1";

const SELECT_LEAVES: &str =
    "SELECT leaf AS node FROM audit_log WHERE org_id = $1 AND seq > $2 AND seq <= $3 ORDER BY seq";

const SELECT_BLOCKS: &str =
    "SELECT root AS node FROM audit_block WHERE org_id = $1 AND number >= $2 AND number < $3 ORDER BY number";

const SELECT_RAW: &str = "\
    SELECT seq, event_id, at, kind, outcome, actor_id, target_id, body::text AS body, leaf \
    FROM audit_log WHERE org_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";

const INSERT_CHECKPOINT: &str =
    "INSERT INTO audit_checkpoint (org_id, size, signed) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

const SELECT_CHECKPOINTS: &str = "\
    SELECT size, signed FROM audit_checkpoint WHERE org_id = $1 AND size > $2 ORDER BY size LIMIT $3";

/// What is signed is looked up for each log, so that nothing beside the signed heads says that there is nothing to do.
const SELECT_UNSIGNED: &str = "\
    SELECT org_id FROM ( \
        SELECT org_id, size, \
            (SELECT coalesce(max(size), 0) FROM audit_checkpoint AS signed WHERE signed.org_id = head.org_id) AS signed \
        FROM audit_head AS head WHERE org_id > $2) AS log \
    WHERE abs(size - signed) >= $1 ORDER BY org_id LIMIT $3";

const LOCK_DROPPED: &str = "SELECT size, dropped FROM audit_head WHERE org_id = $1 FOR UPDATE";

/// The one statement that changes entries. The leaf stays, and with it every proof.
const DROP: &str = "\
    UPDATE audit_log SET body = NULL, actor_id = '', target_id = NULL \
    WHERE org_id = $1 AND seq > $2 AND seq <= $3";

const NOTE: &str = "\
    INSERT INTO outbox (org_id, event_id, arrived, nth, at, body) \
    VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, 0, $3, $4)";

const UPDATE_DROPPED: &str = "UPDATE audit_head SET dropped = $2 WHERE org_id = $1";

pub(crate) async fn head(pool: &Pool, org: &OrgId) -> Result<LogHead, StoreError> {
    let rows = pool.repeatable(HEAD, || sqlx::query(SELECT_HEAD).bind(org.as_str())).await?;
    let read = |row: &PgRow| {
        let (dropped, signed) = (whole(row.try_get("dropped")?)?, whole(row.try_get("signed")?)?);
        Ok::<_, sqlx::Error>(LogHead { tree: tree(row)?, dropped, signed })
    };
    let head = rows.first().map(read).transpose().map_err(|error| StoreError::corrupt(HEAD, error))?;
    Ok(head.unwrap_or_default())
}

pub(crate) async fn nodes(
    pool: &Pool,
    org: &OrgId,
    level: TreeLevel,
    range: Range<u64>,
) -> Result<Vec<Node>, StoreError> {
    let select = || {
        let select = match level {
            TreeLevel::Leaves => sqlx::query(SELECT_LEAVES),
            TreeLevel::Blocks => sqlx::query(SELECT_BLOCKS),
        };
        select.bind(org.as_str()).bind(column(range.start)).bind(column(range.end))
    };
    let rows = pool.repeatable(NODES, select).await?;
    rows.iter()
        .map(|row| node(row, "node"))
        .collect::<Result<_, _>>()
        .map_err(|error| StoreError::corrupt(NODES, error))
}

fn node(row: &PgRow, column: &str) -> Result<Node, sqlx::Error> {
    let bytes: &[u8] = row.try_get(column)?;
    let bytes = bytes.try_into().map_err(|_| sqlx::Error::Decode("a hash has 32 bytes".into()))?;
    Ok(Node::from_bytes(bytes))
}

pub(crate) async fn raw(pool: &Pool, org: &OrgId, after: u64, max: u32) -> Result<Vec<RawEntry>, StoreError> {
    let select = || sqlx::query(SELECT_RAW).bind(org.as_str()).bind(column(after)).bind(i64::from(max));
    let read = |row: &PgRow| {
        let entry = RawEntry {
            seq: whole(row.try_get("seq")?)?,
            event_id: EventId::from_uuid(row.try_get("event_id")?),
            at: from_millis(row.try_get("at")?)?,
            body: row.try_get("body")?,
            leaf: node(row, "leaf")?,
        };
        // The columns that searches go by are not hashed. Where the hash is wrong as well, whoever checks the hashes finds it.
        if let Some(body) = &entry.body
            && entry.recomputed(org) == Some(entry.leaf)
            && !is_found_by(row, body)?
        {
            let problem =
                format!("entry {} is searched by columns that are not those of its event", entry.seq);
            return Err(sqlx::Error::Decode(problem.into()));
        }
        Ok(entry)
    };
    let rows = pool.repeatable(RAW, select).await?;
    rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(|error| StoreError::corrupt(RAW, error))
}

pub(crate) async fn sign_off(pool: &Pool, org: &OrgId, checkpoint: &Checkpoint) -> Result<(), StoreError> {
    let size = stored(SIGN_OFF, checkpoint.size)?;
    let insert =
        || sqlx::query(INSERT_CHECKPOINT).bind(org.as_str()).bind(size).bind(checkpoint.signed.clone());
    // The first of its size stays, so it may be repeated.
    pool.repeatable(SIGN_OFF, insert).await?;
    Ok(())
}

pub(crate) async fn checkpoints(
    pool: &Pool,
    org: &OrgId,
    after: u64,
    max: u32,
) -> Result<Vec<Checkpoint>, StoreError> {
    let select =
        || sqlx::query(SELECT_CHECKPOINTS).bind(org.as_str()).bind(column(after)).bind(i64::from(max));
    let read =
        |row: &PgRow| Ok(Checkpoint { size: whole(row.try_get("size")?)?, signed: row.try_get("signed")? });
    let rows = pool.repeatable(CHECKPOINTS, select).await?;
    let found = rows.iter().map(read).collect::<Result<_, sqlx::Error>>();
    found.map_err(|error| StoreError::corrupt(CHECKPOINTS, error))
}

pub(crate) async fn unsigned(
    pool: &Pool,
    by: u64,
    after: Option<&OrgId>,
    max: u32,
) -> Result<Vec<OrgId>, StoreError> {
    let after = after.map_or("", OrgId::as_str);
    let select = || sqlx::query(SELECT_UNSIGNED).bind(column(by.max(1))).bind(after).bind(i64::from(max));
    let rows = pool.repeatable(UNSIGNED, select).await?;
    let orgs = rows.iter().map(|row| {
        let org = row.try_get("org_id")?;
        OrgId::parse(org).map_err(|error| sqlx::Error::Decode(error.into()))
    });
    orgs.collect::<Result<_, _>>().map_err(|error| StoreError::corrupt(UNSIGNED, error))
}

pub(crate) async fn drop_bodies(
    pool: &Pool,
    org: &OrgId,
    range: Range<u64>,
    on: &Event,
) -> Result<u64, StoreError> {
    let body = serde_json::to_string(on).map_err(|error| StoreError::other(DROP_BODIES, error))?;
    let (from, up_to) = (column(range.start), column(range.end));
    let drop = Drop { org: org.clone(), from, up_to, id: on.id, at: millis(on.at), body };
    pool.transaction(DROP_BODIES, drop).await
}

/// One step of retention.
struct Drop {
    org: OrgId,
    from: i64,
    up_to: i64,
    /// The event that says so.
    id: EventId,
    at: i64,
    body: String,
}

impl Transaction for Drop {
    type Answer = u64;

    async fn run(&self, connection: &mut PgConnection) -> Result<End<u64>, sqlx::Error> {
        let org = self.org.as_str();
        let head = sqlx::query(LOCK_DROPPED).bind(org).fetch_optional(&mut *connection).await?;
        let Some(head) = head else { return Ok(End::RollBack(0)) };
        let (size, dropped): (i64, i64) = (head.try_get("size")?, head.try_get("dropped")?);
        if dropped != self.from || self.up_to <= dropped || self.up_to > size {
            return Ok(End::RollBack(0));
        }
        sqlx::query(DROP).bind(org).bind(dropped).bind(self.up_to).execute(&mut *connection).await?;
        sqlx::query(UPDATE_DROPPED).bind(org).bind(self.up_to).execute(&mut *connection).await?;
        let note = sqlx::query(NOTE).bind(org).bind(self.id.uuid()).bind(self.at).bind(&self.body);
        note.execute(&mut *connection).await?;
        whole(self.up_to.saturating_sub(dropped)).map(End::Commit)
    }
}
