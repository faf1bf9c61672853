//! Pages and counts of the audit log.
//!
//! 1. [`summary`] asks `audit_count`, which has a row for every hour, kind and outcome, and not the log. That is enough
//!    for the total by kind, outcome and time, except in the hours that the wanted time cuts; and it says between which
//!    numbers the wanted entries are.
//! 2. Between those, the log is read newest first, [`RANGE`] numbers at a time. However long the log is, each statement
//!    is short.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lumoauth_core::{
    audit::{EventKind, EventOutcome},
    id::OrgId,
    store::{AuditFilter, AuditStats, Listing, LogEntry, Page, StoreError},
};
use sqlx::{Row, postgres::PgRow};
use tokio::time::timeout;

use crate::{
    audit::{PAGE, STATS, entry, entry_columns},
    pool::{Pool, Statement},
    records::millis,
    values::{column, from_millis, searchable, whole},
};

/// How many numbers one statement looks at. At 10 µs each, which is slow, it takes half a second.
const RANGE: u64 = 50_000;

/// How long a search may take in all.
const LIMIT: Duration = Duration::from_secs(60);

const SELECT_SIZE: &str = "SELECT size FROM audit_head WHERE org_id = $1";

const SELECT_NEWEST: &str =
    concat!(entry_columns!(), "WHERE org_id = $1 AND seq > $2 AND seq <= $3 ORDER BY seq DESC");

/// The conditions that the log and the counts have in common.
macro_rules! alike {
    () => {
        "AND ($2::text IS NULL OR kind = $2) \
        AND ($3::text IS NULL OR starts_with(kind, $3)) \
        AND ($4::text IS NULL OR split_part(kind, '.', 1) = $4) \
        AND ($5::text IS NULL OR outcome = $5) "
    };
}

/// Sums of what is wanted whole (`hour` is null), and hours of which a part is wanted.
const SUMMARIZE: &str = concat!(
    "SELECT kind, outcome, part AS hour, sum(total)::bigint AS total, \
        min(first_seq) AS first_seq, max(last_seq) AS last_seq, \
        (SELECT size FROM audit_head AS head WHERE head.org_id = $1) AS size \
    FROM (SELECT kind, outcome, total, first_seq, last_seq, \
            CASE WHEN ($6::bigint IS NULL OR first_at >= $6) AND ($7::bigint IS NULL OR last_at < $7) \
                THEN NULL ELSE hour END AS part \
        FROM audit_count WHERE org_id = $1 ",
    alike!(),
    "AND ($6::bigint IS NULL OR last_at >= $6) AND ($7::bigint IS NULL OR first_at < $7)) AS line \
    GROUP BY kind, outcome, part"
);

/// The condition that [`AuditFilter::matches`] defines, between two numbers, on the arguments that [`bind_filter`] binds.
///
/// A JSON string with an escaped NUL is valid, but PostgreSQL refuses to take it apart. Such bodies are read with the
/// replacement character in its place. `COLLATE "C"` makes `lower` change ASCII letters only.
///
/// Taking JSON apart is slow, so the needle as it would be written in JSON (`$12`) is looked for in the whole body first.
macro_rules! matching {
    () => {
        concat!(
            "org_id = $1 ",
            alike!(),
            "AND ($6::bigint IS NULL OR at >= $6) \
            AND ($7::bigint IS NULL OR at < $7) \
            AND ($8::text IS NULL OR actor_id = $8) \
            AND ($9::text IS NULL OR target_id = $9) \
            AND seq > $10 AND seq <= $11 \
            AND ($12::text IS NULL OR $12 = '' OR strpos(lower(body::text COLLATE \"C\"), $12) > 0) \
            AND ($13::text IS NULL OR $13 = '' OR EXISTS ( \
                SELECT FROM (SELECT CASE WHEN strpos(body::text, '\\u0000') = 0 THEN body ELSE \
                    regexp_replace(body::text, '(?<!\\\\)((?:\\\\\\\\)*)\\\\u0000', '\\1\\ufffd', 'g')::json END) \
                    AS readable (body) \
                WHERE strpos(lower((readable.body ->> 'message') COLLATE \"C\"), $13) > 0 \
                    OR strpos(lower((readable.body #>> '{actor,name}') COLLATE \"C\"), $13) > 0 \
                    OR strpos(lower((readable.body #>> '{target,name}') COLLATE \"C\"), $13) > 0))"
        )
    };
}

const COUNT_BY_KIND: &str = concat!(
    "SELECT kind, outcome, count(*) AS total FROM audit_log WHERE ",
    matching!(),
    " GROUP BY kind, outcome"
);

const COUNT_MATCHING: &str = concat!("SELECT count(*) AS total FROM audit_log WHERE ", matching!());

const SELECT_MATCHING: &str =
    concat!(entry_columns!(), "WHERE ", matching!(), " ORDER BY seq DESC LIMIT $14 OFFSET $15");

/// See [`AuditStore::page`](lumoauth_core::store::AuditStore::page).
pub(crate) async fn page(
    pool: &Pool,
    org: &OrgId,
    filter: &AuditFilter,
    page: Page,
) -> Result<Listing<LogEntry>, StoreError> {
    in_time(PAGE, matching_page(pool, org, filter, page)).await
}

/// See [`AuditStore::stats`](lumoauth_core::store::AuditStore::stats).
pub(crate) async fn stats(pool: &Pool, org: &OrgId, filter: &AuditFilter) -> Result<AuditStats, StoreError> {
    in_time(STATS, matching_stats(pool, org, filter)).await
}

async fn in_time<T>(
    operation: &'static str,
    search: impl Future<Output = Result<T, StoreError>> + Send,
) -> Result<T, StoreError> {
    let too_long =
        |_| Err(StoreError::unavailable(operation, "searching the log takes too long: ask for less time"));
    timeout(LIMIT, search).await.unwrap_or_else(too_long)
}

async fn matching_page(
    pool: &Pool,
    org: &OrgId,
    filter: &AuditFilter,
    page: Page,
) -> Result<Listing<LogEntry>, StoreError> {
    if *filter == AuditFilter::default() {
        return newest(pool, org, page).await;
    }
    let search = Search { pool, operation: PAGE, org, filter };
    let summary = search.summary().await?;
    // What is known without reading the log.
    let total = if is_counted(filter) { Some(search.counts(&summary).await?.values().sum()) } else { None };
    let mut items = Vec::new();
    let (mut left_out, mut counted) = (page.offset, 0);
    let enough = |items: &[LogEntry]| items.len() >= page.limit as usize;
    let nothing_there = total.is_some_and(|total: u64| page.offset >= total);
    for range in summary.ranges().take_while(|_| !nothing_there) {
        if total.is_some() && enough(&items) {
            break;
        }
        let mut there = None;
        if left_out > 0 || enough(&items) || total.is_none() {
            there = Some(search.count(range).await?);
        }
        counted += there.unwrap_or_default();
        match there {
            Some(there) if there <= left_out => left_out -= there,
            _ if enough(&items) => {}
            _ => {
                let wanted = page.limit as usize - items.len();
                items.extend(search.select(range, wanted, left_out).await?);
                left_out = 0;
            }
        }
    }
    Ok(Listing { items, total: total.unwrap_or(counted) })
}

async fn matching_stats(pool: &Pool, org: &OrgId, filter: &AuditFilter) -> Result<AuditStats, StoreError> {
    let search = Search { pool, operation: STATS, org, filter };
    let summary = search.summary().await?;
    let counts = if is_counted(filter) {
        search.counts(&summary).await?
    } else {
        let mut counts = Counts::new();
        for range in summary.ranges() {
            search.add_counts(filter, range, &mut counts, |_| true).await?;
        }
        counts
    };
    let mut stats = AuditStats::default();
    for ((kind, outcome), total) in counts {
        let unknown = || StoreError::corrupt(STATS, "an event of an unknown kind");
        let outcomes = [EventOutcome::Success, EventOutcome::Failure];
        let outcome = outcomes.into_iter().find(|one| one.as_str() == outcome).ok_or_else(unknown)?;
        let kind = EventKind::named(&kind).ok_or_else(unknown)?;
        stats.total += total;
        *stats.by_kind.entry(kind.as_str()).or_default() += total;
        *stats.by_severity.entry(kind.severity(outcome)).or_default() += total;
    }
    Ok(stats)
}

/// A page of everything, without a look at what is not on it.
async fn newest(pool: &Pool, org: &OrgId, page: Page) -> Result<Listing<LogEntry>, StoreError> {
    let rows = pool.repeatable(PAGE, || sqlx::query(SELECT_SIZE).bind(org.as_str())).await?;
    let size = rows.first().map_or(Ok(0), |row| whole(row.try_get("size")?));
    let total = size.map_err(|error| StoreError::corrupt(PAGE, error))?;
    let last = total.saturating_sub(page.offset);
    let before = last.saturating_sub(u64::from(page.limit));
    if before == last {
        return Ok(Listing { items: Vec::new(), total });
    }
    let select = || sqlx::query(SELECT_NEWEST).bind(org.as_str()).bind(column(before)).bind(column(last));
    let rows = pool.repeatable(PAGE, select).await?;
    let items = rows.iter().map(entry).collect::<Result<_, _>>();
    Ok(Listing { items: items.map_err(|error| StoreError::corrupt(PAGE, error))?, total })
}

/// Whether `audit_count` knows everything that the filter asks for.
fn is_counted(filter: &AuditFilter) -> bool {
    filter.actor.is_none() && filter.target.is_none() && filter.search.is_none()
}

/// Totals by kind and outcome, as they are stored.
type Counts = BTreeMap<(String, String), u64>;

/// What `audit_count` says.
#[derive(Default)]
struct Summary {
    /// What is wanted whole.
    counts: Counts,
    /// Of which kinds and outcomes a part is wanted in an hour, and between which numbers it is.
    parts: BTreeMap<i64, (BTreeSet<(String, String)>, Range)>,
    /// Where all of it is.
    range: Range,
}

/// Numbers above the first and up to the second.
type Range = (u64, u64);

impl Summary {
    fn add(&mut self, row: &PgRow) -> Result<(), sqlx::Error> {
        let size = whole(row.try_get("size")?)?;
        let first = whole(row.try_get("first_seq")?)?.saturating_sub(1);
        let range = (first, whole(row.try_get("last_seq")?)?.min(size));
        let key = (row.try_get("kind")?, row.try_get("outcome")?);
        self.range = joined(self.range, range);
        match row.try_get::<Option<i64>, _>("hour")? {
            None => *self.counts.entry(key).or_default() += whole(row.try_get("total")?)?,
            Some(hour) => {
                let (keys, part) = self.parts.entry(hour).or_default();
                keys.insert(key);
                *part = joined(*part, range);
            }
        }
        Ok(())
    }

    /// In pieces, newest first.
    fn ranges(&self) -> impl Iterator<Item = Range> + use<> {
        pieces(self.range)
    }
}

fn joined(one: Range, other: Range) -> Range {
    if one.1 == 0 { other } else { (one.0.min(other.0), one.1.max(other.1)) }
}

fn pieces((before, mut last): Range) -> impl Iterator<Item = Range> {
    std::iter::from_fn(move || {
        let piece = (last.saturating_sub(RANGE).max(before), last);
        last = piece.0;
        (piece.0 < piece.1).then_some(piece)
    })
}

/// One question.
struct Search<'a> {
    pool: &'a Pool,
    operation: &'static str,
    org: &'a OrgId,
    filter: &'a AuditFilter,
}

impl Search<'_> {
    fn corrupt(&self) -> impl Fn(sqlx::Error) -> StoreError + use<> {
        let operation = self.operation;
        move |error| StoreError::corrupt(operation, error)
    }

    async fn summary(&self) -> Result<Summary, StoreError> {
        let summarize = || bind_alike(sqlx::query(SUMMARIZE), self.org, self.filter);
        let mut summary = Summary::default();
        for row in &self.pool.repeatable(self.operation, summarize).await? {
            summary.add(row).map_err(self.corrupt())?;
        }
        Ok(summary)
    }

    /// The totals of a filter that [`is_counted`]: those of the summary, and what is wanted of the hours that the time
    /// cuts.
    async fn counts(&self, summary: &Summary) -> Result<Counts, StoreError> {
        const HOUR: Duration = Duration::from_secs(3600);
        let mut counts = summary.counts.clone();
        for (hour, (keys, range)) in &summary.parts {
            let start = from_millis(hour.saturating_mul(3_600_000)).map_err(self.corrupt())?;
            let end = start.plus(HOUR);
            let mut within = self.filter.clone();
            within.from = Some(within.from.map_or(start, |from| from.max(start)));
            within.until = Some(within.until.map_or(end, |until| until.min(end)));
            for piece in pieces(*range) {
                self.add_counts(&within, piece, &mut counts, |key| keys.contains(key)).await?;
            }
        }
        Ok(counts)
    }

    async fn add_counts(
        &self,
        filter: &AuditFilter,
        range: Range,
        counts: &mut Counts,
        wanted: impl Fn(&(String, String)) -> bool + Send,
    ) -> Result<(), StoreError> {
        let count = || bind_filter(sqlx::query(COUNT_BY_KIND), self.org, filter, range);
        for row in &self.pool.repeatable(self.operation, count).await? {
            let read = |row: &PgRow| {
                let key = (row.try_get("kind")?, row.try_get("outcome")?);
                Ok((key, whole(row.try_get("total")?)?))
            };
            let (key, total) = read(row).map_err(self.corrupt())?;
            if wanted(&key) {
                *counts.entry(key).or_default() += total;
            }
        }
        Ok(())
    }

    async fn count(&self, range: Range) -> Result<u64, StoreError> {
        let count = || bind_filter(sqlx::query(COUNT_MATCHING), self.org, self.filter, range);
        let rows = self.pool.repeatable(self.operation, count).await?;
        let total = rows.first().ok_or(sqlx::Error::RowNotFound).and_then(|row| whole(row.try_get("total")?));
        total.map_err(self.corrupt())
    }

    async fn select(&self, range: Range, limit: usize, offset: u64) -> Result<Vec<LogEntry>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let select = || {
            let select = bind_filter(sqlx::query(SELECT_MATCHING), self.org, self.filter, range);
            select.bind(limit).bind(column(offset))
        };
        let rows = self.pool.repeatable(self.operation, select).await?;
        rows.iter().map(entry).collect::<Result<_, _>>().map_err(self.corrupt())
    }
}

fn bind_alike(statement: Statement, org: &OrgId, filter: &AuditFilter) -> Statement {
    let kind = text(&filter.kind);
    let (kind, prefix) = match kind.as_deref().map(|kind| kind.strip_suffix('*').ok_or(kind)) {
        None => (None, None),
        Some(Ok(prefix)) => (None, Some(prefix.to_owned())),
        Some(Err(kind)) => (Some(kind.to_owned()), None),
    };
    // Which index is right depends on the arguments, so no plan is kept.
    statement
        .persistent(false)
        .bind(org.as_str().to_owned())
        .bind(kind)
        .bind(prefix)
        .bind(text(&filter.category))
        .bind(filter.outcome.map(EventOutcome::as_str))
        .bind(filter.from.map(millis))
        .bind(filter.until.map(millis))
}

fn bind_filter(statement: Statement, org: &OrgId, filter: &AuditFilter, range: Range) -> Statement {
    let needle = text(&filter.search).map(|search| search.to_ascii_lowercase());
    bind_alike(statement, org, filter)
        .bind(text(&filter.actor))
        .bind(text(&filter.target))
        .bind(column(range.0))
        .bind(column(range.1))
        .bind(needle.as_deref().and_then(as_in_json))
        .bind(needle)
}

fn text(text: &Option<String>) -> Option<String> {
    text.as_deref().map(|text| searchable(text).into_owned())
}

/// How a body contains `needle`, which is in lower case, as the escapes of JSON are. `None` if there are several ways:
/// the replacement character also stands for NUL.
fn as_in_json(needle: &str) -> Option<String> {
    if needle.contains('\u{fffd}') {
        return None;
    }
    let quoted = serde_json::to_string(needle).ok()?;
    Some(quoted.strip_prefix('"')?.strip_suffix('"')?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_walked_newest_first_without_gaps() {
        assert_eq!(pieces((0, 0)).collect::<Vec<_>>(), []);
        assert_eq!(pieces((7, 7)).collect::<Vec<_>>(), []);
        assert_eq!(pieces((7, 9)).collect::<Vec<_>>(), [(7, 9)]);
        let walked: Vec<_> = pieces((5, 2 * RANGE + 6)).collect();
        assert_eq!(walked, [(RANGE + 6, 2 * RANGE + 6), (6, RANGE + 6), (5, 6)]);
    }

    #[test]
    fn a_needle_is_escaped_as_bodies_are() {
        let body = serde_json::to_string("say \"hi\" \\ \n \u{1f} \u{e4} /").unwrap().to_ascii_lowercase();
        for needle in ["\"hi\"", "\\", " \n ", "\u{1f}", "\u{e4}", "/", ""] {
            assert!(body.contains(&as_in_json(needle).unwrap()), "{needle:?}");
        }
        assert_eq!(as_in_json("\u{fffd}"), None);
    }
}
