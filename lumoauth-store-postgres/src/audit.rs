//! The audit log.
//!
//! 1. Events arrive in the outbox: those of changes with the change, the others by [`AuditStore::append`], in batches.
//!    Nobody waits for a number.
//! 2. [`AuditStore::sequence`] moves them into the log. It holds the organization's row in `audit_head`, so one
//!    transaction at a time gives numbers, and gives them from the size that is in that row: there are no gaps. What is
//!    in the log already is dropped before numbers are given.
//! 3. The log is only ever appended to.

use async_trait::async_trait;
use lumoauth_core::{
    audit::{Event, EventKind, EventOutcome},
    id::OrgId,
    store::{AuditFilter, AuditKey, AuditStats, AuditStore, Listing, LogEntry, Page, StoreError},
};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    PostgresStore,
    batcher::Work,
    pool::{Pool, Statement},
    records::millis,
    values::{column, searchable, whole},
};

const APPEND: &str = "audit.append";
const FIND: &str = "audit.find";
const PAGE: &str = "audit.page";
const STATS: &str = "audit.stats";
const WAITING: &str = "audit.waiting";

/// The outbox is short: this reads it whole.
const SELECT_ORGANIZATIONS: &str = "SELECT DISTINCT org_id FROM outbox LIMIT $1";

/// Adds events. Whether they are known is looked up when they are given numbers, and not while somebody waits.
const INSERT: &str = "\
    INSERT INTO outbox (org_id, event_id, arrived, nth, at, body) \
    SELECT org_id, event_id, (extract(epoch FROM statement_timestamp()) * 1000000)::bigint, nth, at, body \
    FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::text[]) \
        WITH ORDINALITY AS event (org_id, event_id, at, body, nth)";

const SELECT_BY_SEQ: &str = "SELECT seq, body::text AS body FROM audit_log WHERE org_id = $1 AND seq = $2";

const SELECT_BY_EVENT: &str =
    "SELECT seq, body::text AS body FROM audit_log WHERE org_id = $1 AND event_id = $2";

const SELECT_SIZE: &str = "SELECT size FROM audit_head WHERE org_id = $1";

const SELECT_NEWEST: &str = "\
    SELECT seq, body::text AS body FROM audit_log WHERE org_id = $1 AND seq > $2 AND seq <= $3 ORDER BY seq DESC";

/// The condition that [`AuditFilter::matches`] defines, on the arguments that [`bind_filter`] binds.
///
/// A JSON string with an escaped NUL is valid, but PostgreSQL refuses to take it apart. Such bodies are read with the
/// replacement character in its place. `COLLATE "C"` makes `lower` change ASCII letters only.
macro_rules! matching {
    () => {
        "org_id = $1 \
        AND ($2::text IS NULL OR kind = $2) \
        AND ($3::text IS NULL OR starts_with(kind, $3)) \
        AND ($4::text IS NULL OR split_part(kind, '.', 1) = $4) \
        AND ($5::text IS NULL OR actor_id = $5) \
        AND ($6::text IS NULL OR target_id = $6) \
        AND ($7::text IS NULL OR outcome = $7) \
        AND ($8::bigint IS NULL OR at >= $8) \
        AND ($9::bigint IS NULL OR at < $9) \
        AND ($10::text IS NULL OR EXISTS ( \
            SELECT FROM (SELECT CASE WHEN strpos(body::text, '\\u0000') = 0 THEN body ELSE \
                regexp_replace(body::text, '(?<!\\\\)((?:\\\\\\\\)*)\\\\u0000', '\\1\\ufffd', 'g')::json END) \
                AS readable (body) \
            WHERE strpos(lower((readable.body ->> 'message') COLLATE \"C\"), $10) > 0 \
                OR strpos(lower((readable.body #>> '{actor,name}') COLLATE \"C\"), $10) > 0 \
                OR strpos(lower((readable.body #>> '{target,name}') COLLATE \"C\"), $10) > 0))"
    };
}

const COUNT_MATCHING: &str =
    concat!("SELECT count(*) AS total, coalesce(max(seq), 0) AS newest FROM audit_log WHERE ", matching!());

const SELECT_MATCHING: &str = concat!(
    "SELECT seq, body::text AS body FROM audit_log WHERE ",
    matching!(),
    " AND seq <= $11 ORDER BY seq DESC LIMIT $12 OFFSET $13"
);

const COUNT_BY_KIND: &str = concat!(
    "SELECT kind, outcome, count(*) AS total FROM audit_log WHERE ",
    matching!(),
    " GROUP BY kind, outcome"
);

#[async_trait]
impl AuditStore for PostgresStore {
    async fn append(&self, org: &OrgId, events: &[Event]) -> Result<(), StoreError> {
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
        let rows =
            self.pool.repeatable(WAITING, || sqlx::query(SELECT_ORGANIZATIONS).bind(i64::from(max))).await?;
        let orgs = rows.iter().map(|row| {
            let org = row.try_get("org_id")?;
            OrgId::parse(org).map_err(|error| sqlx::Error::Decode(error.into()))
        });
        orgs.collect::<Result<_, _>>().map_err(|error| StoreError::corrupt(WAITING, error))
    }

    async fn sequence(&self, org: &OrgId, max: u32) -> Result<u64, StoreError> {
        self.sequencer.sequence(org, max).await
    }

    async fn find(&self, org: &OrgId, key: AuditKey) -> Result<Option<LogEntry>, StoreError> {
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
        let (total, rows) = if *filter == AuditFilter::default() {
            newest(&self.pool, org, page).await?
        } else {
            matching(&self.pool, org, filter, page).await?
        };
        let items = rows.iter().map(entry).collect::<Result<_, _>>();
        Ok(Listing { items: items.map_err(|error| StoreError::corrupt(PAGE, error))?, total })
    }

    async fn stats(&self, org: &OrgId, filter: &AuditFilter) -> Result<AuditStats, StoreError> {
        let count = || bind_filter(sqlx::query(COUNT_BY_KIND), org, filter);
        let rows = self.pool.repeatable(STATS, count).await?;
        let mut stats = AuditStats::default();
        for row in &rows {
            add_to(&mut stats, row).map_err(|error| StoreError::corrupt(STATS, error))?;
        }
        Ok(stats)
    }
}

/// A page of everything, without a look at what is not on it.
async fn newest(pool: &Pool, org: &OrgId, page: Page) -> Result<(u64, Vec<PgRow>), StoreError> {
    let rows = pool.repeatable(PAGE, || sqlx::query(SELECT_SIZE).bind(org.as_str())).await?;
    let size = rows.first().map_or(Ok(0), |row| whole(row.try_get("size")?));
    let size = size.map_err(|error| StoreError::corrupt(PAGE, error))?;
    let last = size.saturating_sub(page.offset);
    let before = last.saturating_sub(u64::from(page.limit));
    if before == last {
        return Ok((size, Vec::new()));
    }
    let select = || sqlx::query(SELECT_NEWEST).bind(org.as_str()).bind(column(before)).bind(column(last));
    Ok((size, pool.repeatable(PAGE, select).await?))
}

/// A page of what matches.
async fn matching(
    pool: &Pool,
    org: &OrgId,
    filter: &AuditFilter,
    page: Page,
) -> Result<(u64, Vec<PgRow>), StoreError> {
    let rows = pool.repeatable(PAGE, || bind_filter(sqlx::query(COUNT_MATCHING), org, filter)).await?;
    let counted = rows
        .first()
        .ok_or(sqlx::Error::RowNotFound)
        .and_then(|row| Ok((whole(row.try_get("total")?)?, row.try_get::<i64, _>("newest")?)));
    let (total, newest) = counted.map_err(|error| StoreError::corrupt(PAGE, error))?;
    if page.offset >= total || page.limit == 0 {
        return Ok((total, Vec::new()));
    }
    // What has been added since must not move the page.
    let select = || {
        let select = bind_filter(sqlx::query(SELECT_MATCHING), org, filter);
        select.bind(newest).bind(i64::from(page.limit)).bind(column(page.offset))
    };
    Ok((total, pool.repeatable(PAGE, select).await?))
}

fn bind_filter(statement: Statement, org: &OrgId, filter: &AuditFilter) -> Statement {
    let text = |text: &Option<String>| text.as_deref().map(|text| searchable(text).into_owned());
    let kind = text(&filter.kind);
    let (kind, prefix) = match kind.as_deref().map(|kind| kind.strip_suffix('*').ok_or(kind)) {
        None => (None, None),
        Some(Ok(prefix)) => (None, Some(prefix)),
        Some(Err(kind)) => (Some(kind), None),
    };
    statement
        .bind(org.as_str())
        .bind(kind)
        .bind(prefix)
        .bind(text(&filter.category))
        .bind(text(&filter.actor))
        .bind(text(&filter.target))
        .bind(filter.outcome.map(EventOutcome::as_str))
        .bind(filter.from.map(millis))
        .bind(filter.until.map(millis))
        .bind(text(&filter.search).map(|search| search.to_ascii_lowercase()))
}

fn entry(row: &PgRow) -> Result<LogEntry, sqlx::Error> {
    let event =
        serde_json::from_str(row.try_get("body")?).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(LogEntry { seq: whole(row.try_get("seq")?)?, event })
}

fn add_to(stats: &mut AuditStats, row: &PgRow) -> Result<(), sqlx::Error> {
    let unknown = || sqlx::Error::Decode("an event of an unknown kind".into());
    let (kind, outcome): (&str, &str) = (row.try_get("kind")?, row.try_get("outcome")?);
    let kind = EventKind::ALL.iter().find(|one| one.as_str() == kind).ok_or_else(unknown)?;
    let outcome =
        [EventOutcome::Success, EventOutcome::Failure].into_iter().find(|one| one.as_str() == outcome);
    let severity = kind.severity(outcome.ok_or_else(unknown)?);
    let total = whole(row.try_get("total")?)?;
    stats.total += total;
    *stats.by_kind.entry(kind.as_str()).or_default() += total;
    *stats.by_severity.entry(severity).or_default() += total;
    Ok(())
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
