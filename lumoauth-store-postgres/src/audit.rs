//! The audit log.
//!
//! 1. Events arrive in the outbox: those of changes with the change, the others by [`AuditStore::append`], in batches.
//!    Nobody waits for a number.
//! 2. [`AuditStore::sequence`] moves them into the log. It holds the organization's row in `audit_head`, so one
//!    transaction at a time gives numbers, and gives them from the size that is in that row: there are no gaps. What is
//!    in the log already is dropped before numbers are given.
//! 3. The log is only ever appended to. How it is searched: [`crate::audit_search`]; the tree over it, and what retention
//!    takes away: [`crate::audit_tree`].

use std::ops::Range;

use async_trait::async_trait;
use lumoauth_core::{
    audit::{Event, EventKind, EventOutcome},
    id::{EventId, OrgId},
    merkle::Node,
    store::{
        AuditFilter, AuditKey, AuditStats, AuditStore, Checkpoint, Listing, LogEntry, LogHead, Page,
        RawEntry, StoreError, TreeLevel, dropped_event,
    },
};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    PostgresStore, audit_search,
    audit_tree::{self, CHECKPOINTS, DROP_BODIES, HEAD, NODES, RAW, SIGN_OFF, UNSIGNED},
    batcher::Work,
    open::Events,
    pool::Pool,
    records::millis,
    sequencer::SEQUENCE,
    values::{column, from_millis, whole},
};

const APPEND: &str = "audit.append";
const FIND: &str = "audit.find";
pub(crate) const PAGE: &str = "audit.page";
pub(crate) const STATS: &str = "audit.stats";
const WAITING: &str = "audit.waiting";

/// Goes from organization to organization in the index, whatever waits between them.
const SELECT_ORGANIZATIONS: &str = "\
    WITH RECURSIVE waiting AS ( \
        (SELECT org_id FROM outbox ORDER BY org_id LIMIT 1) \
        UNION ALL \
        SELECT (SELECT next.org_id FROM outbox AS next WHERE next.org_id > waiting.org_id ORDER BY next.org_id LIMIT 1) \
        FROM waiting WHERE waiting.org_id IS NOT NULL) \
    SELECT org_id FROM waiting WHERE org_id IS NOT NULL LIMIT $1";

/// Adds events. Whether they are known is looked up when they are given numbers, and not while somebody waits. Only one
/// that two servers add in the same microsecond is left out here.
const INSERT: &str = "\
    INSERT INTO outbox (org_id, event_id, arrived, nth, at, body) \
    SELECT org_id, event_id, (extract(epoch FROM statement_timestamp()) * 1000000)::bigint, nth, at, body \
    FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::text[]) \
        WITH ORDINALITY AS event (org_id, event_id, at, body, nth) \
    ON CONFLICT DO NOTHING";

/// What [`entry`] reads.
macro_rules! entry_columns {
    () => {
        "SELECT seq, event_id, at, kind, outcome, body::text AS body FROM audit_log "
    };
}
pub(crate) use entry_columns;

const SELECT_BY_SEQ: &str = concat!(entry_columns!(), "WHERE org_id = $1 AND seq = $2");

const SELECT_BY_EVENT: &str = concat!(entry_columns!(), "WHERE org_id = $1 AND event_id = $2");

#[async_trait]
impl AuditStore for PostgresStore {
    async fn append(&self, org: &OrgId, events: &[Event]) -> Result<(), StoreError> {
        self.must_keep_the_log(APPEND)?;
        if events.is_empty() {
            return Ok(());
        }
        let rows = events.iter().map(|event| {
            let body = serde_json::to_string(event).map_err(|error| StoreError::other(APPEND, error))?;
            Ok(NewRow { event_id: event.id.uuid(), at: millis(event.at), body })
        });
        let job = Job { org: org.clone(), rows: rows.collect::<Result<_, StoreError>>()? };
        self.appends.submit(job).await
    }

    async fn waiting(&self, max: u32) -> Result<Vec<OrgId>, StoreError> {
        self.must_keep_the_log(WAITING)?;
        let rows =
            self.pool.repeatable(WAITING, || sqlx::query(SELECT_ORGANIZATIONS).bind(i64::from(max))).await?;
        let orgs = rows.iter().map(|row| {
            let org = row.try_get("org_id")?;
            OrgId::parse(org).map_err(|error| sqlx::Error::Decode(error.into()))
        });
        orgs.collect::<Result<_, _>>().map_err(|error| StoreError::corrupt(WAITING, error))
    }

    async fn sequence(&self, org: &OrgId, max: u32) -> Result<u64, StoreError> {
        self.must_keep_the_log(SEQUENCE)?;
        self.sequencer.sequence(org, max).await
    }

    async fn find(&self, org: &OrgId, key: AuditKey) -> Result<Option<LogEntry>, StoreError> {
        self.must_keep_the_log(FIND)?;
        let find = || match key {
            AuditKey::Seq(seq) => sqlx::query(SELECT_BY_SEQ).bind(org.as_str()).bind(column(seq)),
            AuditKey::Event(id) => sqlx::query(SELECT_BY_EVENT).bind(org.as_str()).bind(id.uuid()),
        };
        let rows = self.pool.repeatable(FIND, find).await?;
        let found = rows.first().map(entry).transpose();
        found.map_err(|error| StoreError::corrupt(FIND, error))
    }

    async fn page(
        &self,
        org: &OrgId,
        filter: &AuditFilter,
        page: Page,
    ) -> Result<Listing<LogEntry>, StoreError> {
        self.must_keep_the_log(PAGE)?;
        audit_search::page(&self.pool, org, filter, page).await
    }

    async fn stats(&self, org: &OrgId, filter: &AuditFilter) -> Result<AuditStats, StoreError> {
        self.must_keep_the_log(STATS)?;
        audit_search::stats(&self.pool, org, filter).await
    }

    async fn head(&self, org: &OrgId) -> Result<LogHead, StoreError> {
        self.must_keep_the_log(HEAD)?;
        audit_tree::head(&self.pool, org).await
    }

    async fn nodes(&self, org: &OrgId, level: TreeLevel, range: Range<u64>) -> Result<Vec<Node>, StoreError> {
        self.must_keep_the_log(NODES)?;
        audit_tree::nodes(&self.pool, org, level, range).await
    }

    async fn raw(&self, org: &OrgId, after: u64, max: u32) -> Result<Vec<RawEntry>, StoreError> {
        self.must_keep_the_log(RAW)?;
        audit_tree::raw(&self.pool, org, after, max).await
    }

    async fn sign_off(&self, org: &OrgId, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        self.must_keep_the_log(SIGN_OFF)?;
        audit_tree::sign_off(&self.pool, org, checkpoint).await
    }

    async fn checkpoints(&self, org: &OrgId, after: u64, max: u32) -> Result<Vec<Checkpoint>, StoreError> {
        self.must_keep_the_log(CHECKPOINTS)?;
        audit_tree::checkpoints(&self.pool, org, after, max).await
    }

    async fn unsigned(&self, by: u64, after: Option<&OrgId>, max: u32) -> Result<Vec<OrgId>, StoreError> {
        self.must_keep_the_log(UNSIGNED)?;
        audit_tree::unsigned(&self.pool, by, after, max).await
    }

    async fn drop_bodies(&self, org: &OrgId, from: u64, up_to: u64, on: &Event) -> Result<u64, StoreError> {
        self.must_keep_the_log(DROP_BODIES)?;
        audit_tree::drop_bodies(&self.pool, org, from..up_to, on).await
    }
}

impl PostgresStore {
    /// Refuses what only a store with a log can do. In outbox mode an event that was added here would be moved to where
    /// it is already and then forgotten; and an empty page would be taken for an empty log.
    fn must_keep_the_log(&self, operation: &'static str) -> Result<(), StoreError> {
        match self.events {
            Events::Numbered => Ok(()),
            Events::Moved => {
                Err(StoreError::other(operation, "the store was opened as an outbox and keeps no log"))
            }
        }
    }
}

pub(crate) fn entry(row: &PgRow) -> Result<LogEntry, sqlx::Error> {
    let seq = whole(row.try_get("seq")?)?;
    let event = match row.try_get::<Option<&str>, _>("body")? {
        Some(body) => serde_json::from_str(body).map_err(|error| sqlx::Error::Decode(error.into()))?,
        None => what_is_left(row)?,
    };
    Ok(LogEntry { seq, event })
}

/// An event whose body was dropped.
fn what_is_left(row: &PgRow) -> Result<Event, sqlx::Error> {
    let unknown = |column: &str| sqlx::Error::Decode(format!("the log has an unknown {column}").into());
    let kind = EventKind::named(row.try_get("kind")?).ok_or_else(|| unknown("kind"))?;
    let outcomes = [EventOutcome::Success, EventOutcome::Failure];
    let name: &str = row.try_get("outcome")?;
    let outcome = outcomes.into_iter().find(|it| it.as_str() == name).ok_or_else(|| unknown("outcome"))?;
    let id = EventId::from_uuid(row.try_get("event_id")?);
    Ok(dropped_event(id, from_millis(row.try_get("at")?)?, kind, outcome))
}

/// The events of one call, as they wait for their batch.
#[derive(Debug)]
pub(crate) struct Job {
    org: OrgId,
    rows: Vec<NewRow>,
}

#[derive(Debug)]
struct NewRow {
    event_id: Uuid,
    at: i64,
    body: String,
}

/// Makes batches of appends.
#[derive(Debug)]
pub(crate) struct Appends {
    pool: Pool,
}

impl Appends {
    /// How many batches may be under way at once.
    pub(crate) const IN_FLIGHT: usize = 2;

    pub(crate) const fn new(pool: Pool) -> Self {
        Self { pool }
    }
}

impl Work for Appends {
    type Job = Job;
    type Answer = ();

    const OPERATION: &'static str = APPEND;

    async fn carry_out(&self, jobs: &[Job]) -> Result<Vec<()>, StoreError> {
        let rows = || jobs.iter().flat_map(|job| job.rows.iter().map(|row| (job.org.as_str(), row)));
        let orgs: Vec<_> = rows().map(|(org, _)| org).collect();
        let ids: Vec<_> = rows().map(|(_, row)| row.event_id).collect();
        let times: Vec<_> = rows().map(|(_, row)| row.at).collect();
        let bodies: Vec<_> = rows().map(|(_, row)| row.body.as_str()).collect();
        let insert = || sqlx::query(INSERT).bind(&orgs).bind(&ids).bind(&times).bind(&bodies);
        // Events that are added again are recognised.
        self.pool.repeatable(APPEND, insert).await?;
        Ok(vec![(); jobs.len()])
    }
}
