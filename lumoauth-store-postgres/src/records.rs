//! What the recorded roles share: one statement that changes a record and writes its event, and what its answer means.

use std::{error::Error, sync::Arc};

use lumoauth_core::{
    audit::Event,
    id::OrgId,
    store::{Insert, Listing, Page, Remove, StoreError, Unique, Update},
};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    failure,
    pool::{Pool, Statement},
    values::whole,
};

pub(crate) use crate::values::{millis, needle, sought, stored, text};

/// A statement that makes one change (`INSERT`, `UPDATE` or `DELETE` of one row) and, if it happened, writes its event
/// into the outbox. Its arguments `$1` to `$4` are those of [`Recorded::statement`], its answer is how many rows changed.
/// What must happen with the change goes into `also`: further parts that read `changed`.
///
/// The order of the outbox is (`arrived`, `nth`): microseconds of the database's clock and the place in the call.
macro_rules! recorded {
    ($change:expr $(, also: $also:expr)?) => {
        concat!(
            "WITH changed AS (",
            $change,
            " RETURNING 1), ",
            $($also, ", ",)?
            "noted AS (
                INSERT INTO outbox (org_id, event_id, arrived, nth, at, body)
                SELECT $1, $2, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, 0, $3, $4
                FROM changed)
            SELECT count(*) FROM changed"
        )
    };
}
pub(crate) use recorded;

/// An event as the outbox keeps it, with its organization.
#[derive(Debug)]
pub(crate) struct Recorded {
    org: OrgId,
    event_id: Uuid,
    at: i64,
    body: String,
}

impl Recorded {
    /// The event that goes with a change in `org`.
    pub(crate) fn new(operation: &'static str, org: &OrgId, on: &Event) -> Result<Self, StoreError> {
        let body = to_json(operation, on)?;
        Ok(Self { org: org.clone(), event_id: on.id.uuid(), at: millis(on.at), body })
    }

    /// `sql`, made by `recorded!`, with its first four arguments: organization, event id, instant and body.
    pub(crate) fn statement(&self, sql: &'static str) -> Statement {
        sqlx::query(sql).bind(self.org.as_str()).bind(self.event_id).bind(self.at).bind(self.body.as_str())
    }
}

/// How often an insert is tried again when what was in its way had gone before it could be named.
const MAX_TRIES: u32 = 5;

/// Runs an insert with `ON CONFLICT DO NOTHING`. If nothing was inserted, `taken` is asked: one row with a truth value per
/// field of `uniques`; the first that is true is reported.
pub(crate) async fn insert(
    pool: &Pool,
    operation: &'static str,
    insert: impl Fn() -> Statement + Send + Sync,
    taken: impl Fn() -> Statement + Send + Sync,
    uniques: &[Unique],
) -> Result<Insert, StoreError> {
    let pool = pool.one_call();
    for _ in 0..MAX_TRIES {
        if changed(operation, &pool.change(operation, &insert).await?)? {
            return Ok(Insert::Inserted);
        }
        let rows = pool.repeatable(operation, &taken).await?;
        if let Some(unique) = first_taken(operation, &rows, uniques)? {
            return Ok(Insert::Taken(unique));
        }
    }
    Err(StoreError::unavailable(operation, "other calls take and free the same values all the time"))
}

/// The first of `uniques` whose column is true.
pub(crate) fn first_taken(
    operation: &'static str,
    rows: &[PgRow],
    uniques: &[Unique],
) -> Result<Option<Unique>, StoreError> {
    for (index, unique) in uniques.iter().enumerate() {
        if value::<Option<bool>>(operation, one(operation, rows)?, index)?.unwrap_or(false) {
            return Ok(Some(*unique));
        }
    }
    Ok(None)
}

/// Runs an update that is guarded by a version. If no row had it, `exists` is asked, which gives a row if there is such a
/// record at all. `constraints` says which field a unique constraint is about.
pub(crate) async fn update(
    pool: &Pool,
    operation: &'static str,
    update: impl Fn() -> Statement + Send + Sync,
    exists: impl Fn() -> Statement + Send + Sync,
    constraints: &[(&str, Unique)],
) -> Result<Update, StoreError> {
    let pool = pool.one_call();
    match pool.change(operation, update).await {
        Ok(rows) if changed(operation, &rows)? => Ok(Update::Updated),
        Ok(_) => {
            let found = !pool.repeatable(operation, exists).await?.is_empty();
            Ok(if found { Update::Stale } else { Update::Missing })
        }
        Err(error) => match taken(&error, constraints) {
            Some(unique) => Ok(Update::Taken(unique)),
            None => Err(error),
        },
    }
}

/// Which field was taken, if that is why the call failed.
pub(crate) fn taken(error: &StoreError, constraints: &[(&str, Unique)]) -> Option<Unique> {
    let name = failure::refused_by(error.source()?.downcast_ref()?)?;
    constraints.iter().find(|(constraint, _)| *constraint == name).map(|(_, unique)| *unique)
}

/// Runs a removal that is guarded by a version. If no row had it, `exists` is asked, as by [`update`].
pub(crate) async fn remove_at(
    pool: &Pool,
    operation: &'static str,
    remove: impl Fn() -> Statement + Send + Sync,
    exists: impl Fn() -> Statement + Send + Sync,
) -> Result<Remove, StoreError> {
    let pool = pool.one_call();
    if changed(operation, &pool.change(operation, remove).await?)? {
        return Ok(Remove::Removed);
    }
    let found = !pool.repeatable(operation, exists).await?.is_empty();
    Ok(if found { Remove::Stale } else { Remove::Missing })
}

/// Runs a removal.
pub(crate) async fn remove(
    pool: &Pool,
    operation: &'static str,
    remove: impl Fn() -> Statement + Send + Sync,
) -> Result<Remove, StoreError> {
    let rows = pool.change(operation, remove).await?;
    Ok(if changed(operation, &rows)? { Remove::Removed } else { Remove::Missing })
}

/// Runs a look-up whose first column is the record.
pub(crate) async fn find<T: DeserializeOwned>(
    pool: &Pool,
    operation: &'static str,
    statement: impl Fn() -> Statement + Send + Sync,
) -> Result<Option<Arc<T>>, StoreError> {
    let rows = pool.repeatable(operation, statement).await?;
    rows.first().map(|row| record(operation, row, 0).map(Arc::new)).transpose()
}

/// Runs a query for several records, each in the first column.
pub(crate) async fn all<T: DeserializeOwned>(
    pool: &Pool,
    operation: &'static str,
    statement: impl Fn() -> Statement + Send + Sync,
) -> Result<Vec<T>, StoreError> {
    let rows = pool.repeatable(operation, statement).await?;
    rows.iter().map(|row| record(operation, row, 0)).collect()
}

/// A statement that lists one page and counts everything, in one snapshot: the total in the first column, the record in
/// the second, which is NULL if the page is empty. `$from_where` is the rest of both queries, `$order` the column of the
/// order; `$offset` and `$limit` are the places of the arguments.
macro_rules! listing {
    ($from_where:expr, order: $order:literal, offset: $offset:literal, limit: $limit:literal) => {
        concat!(
            "SELECT counted.total, page.record FROM (SELECT count(*) AS total ",
            $from_where,
            ") AS counted LEFT JOIN (SELECT ",
            $order,
            ", record::text AS record ",
            $from_where,
            " ORDER BY ",
            $order,
            " OFFSET ",
            $offset,
            " LIMIT ",
            $limit,
            ") AS page ON true ORDER BY page.",
            $order
        )
    };
}
pub(crate) use listing;

/// Runs a statement made by `listing!`.
pub(crate) async fn list<T: DeserializeOwned>(
    pool: &Pool,
    operation: &'static str,
    statement: impl Fn() -> Statement + Send + Sync,
) -> Result<Listing<Arc<T>>, StoreError> {
    let rows = pool.repeatable(operation, statement).await?;
    let total = whole(value(operation, one(operation, &rows)?, 0)?);
    let total = total.map_err(|error| StoreError::corrupt(operation, error))?;
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(text) = value::<Option<&str>>(operation, row, 1)? {
            items.push(Arc::new(from_json(operation, text)?));
        }
    }
    Ok(Listing { items, total })
}

/// Offset and limit as arguments.
pub(crate) fn bounds(page: Page) -> (i64, i64) {
    // Offset and limit are added up by PostgreSQL, so their sum must fit as well.
    let offset = i64::try_from(page.offset).unwrap_or(i64::MAX).min(i64::MAX / 2);
    (offset, i64::from(page.limit))
}

/// Whether a statement made by `recorded!` changed something.
pub(crate) fn changed(operation: &'static str, rows: &[PgRow]) -> Result<bool, StoreError> {
    Ok(value::<i64>(operation, one(operation, rows)?, 0)? > 0)
}

/// The row of an answer that always has one.
pub(crate) fn one<'r>(operation: &'static str, rows: &'r [PgRow]) -> Result<&'r PgRow, StoreError> {
    rows.first().ok_or_else(|| StoreError::corrupt(operation, "an answer without a row"))
}

/// The value in a column.
pub(crate) fn value<'r, T>(operation: &'static str, row: &'r PgRow, index: usize) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(index).map_err(|error| StoreError::corrupt(operation, error))
}

/// The record in a column.
fn record<T: DeserializeOwned>(operation: &'static str, row: &PgRow, index: usize) -> Result<T, StoreError> {
    from_json(operation, value(operation, row, index)?)
}

/// A record as it is stored.
pub(crate) fn to_json<T: Serialize>(operation: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::other(operation, error))
}

/// A record from what is stored.
pub(crate) fn from_json<T: DeserializeOwned>(operation: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::corrupt(operation, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_never_overflow() {
        let (offset, limit) = bounds(Page { offset: u64::MAX, limit: u32::MAX });
        assert!(offset.checked_add(limit).is_some());
        assert_eq!(bounds(Page { offset: 3, limit: 7 }), (3, 7));
    }
}
