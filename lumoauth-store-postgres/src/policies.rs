//! Roles, attribute policies and relations on PostgreSQL.
//!
//! The row of an organization in `policy_head` holds its revision. Every change locks it first, so changes of one
//! organization happen one after the other and become visible in the order of their revisions; those of different
//! organizations do not wait for each other.

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    clock::Timestamp,
    id::OrgId,
    policy::{Record, RecordId, RecordKind},
    store::{Apply, POLICY_TOMBSTONE_LIFE, PolicyChange, PolicyStore, Since, StoreError},
};
use sqlx::{PgConnection, Row, postgres::PgRow};

use crate::{
    PostgresStore,
    pool::{End, Transaction},
    records::{Recorded, millis, one, recorded, value},
    values::whole,
};

const RAISE: &str = recorded!(
    "INSERT INTO policy_head (org_id, revision, oldest) VALUES ($1, 1, 0)
    ON CONFLICT (org_id) DO UPDATE SET revision = policy_head.revision + 1"
);

/// The new revision, and at which each of the wanted records was written.
const FOUND: &str = "SELECT head.revision, wanted.place, record.revision
    FROM policy_head AS head
    CROSS JOIN unnest($2::text[], $3::text[]) WITH ORDINALITY AS wanted (kind, key, place)
    LEFT JOIN policy_record AS record
        ON record.org_id = head.org_id AND record.kind = wanted.kind AND record.key = wanted.key
        AND record.body IS NOT NULL
    WHERE head.org_id = $1 ORDER BY wanted.place";

const WRITE: &str = "INSERT INTO policy_record (org_id, kind, key, revision, body, forget_after)
    SELECT $1, kind, key, $4, body::json, CASE WHEN body IS NULL THEN $6::bigint END
    FROM unnest($2::text[], $3::text[], $5::text[]) AS written (kind, key, body)
    ON CONFLICT (org_id, kind, key) DO UPDATE
    SET revision = excluded.revision, body = excluded.body, forget_after = excluded.forget_after";

const REVISION: &str = "SELECT revision FROM policy_head WHERE org_id = $1";

const PAGE: &str = "SELECT kind, key, revision, body::text FROM policy_record
    WHERE org_id = $1 AND (kind, key) > ($2, $3) AND body IS NOT NULL
    ORDER BY kind, key LIMIT $4";

/// Both in one statement, so of one instant. Without a change there is one row, without a record.
const SINCE: &str =
    "SELECT head.revision, head.oldest, record.kind, record.key, record.revision, record.body::text
    FROM policy_head AS head
    LEFT JOIN LATERAL (
        SELECT kind, key, revision, body FROM policy_record
        WHERE org_id = head.org_id AND revision > $2
        ORDER BY revision, kind, key LIMIT $3) AS record ON true
    WHERE head.org_id = $1 ORDER BY record.revision, record.kind, record.key";

/// Removals that nobody has to learn of any more; what is in use is left for the next time. Whoever has not seen them yet
/// has to read everything, which is noted in the same step.
pub(crate) const PURGE: &str = "\
    WITH ended AS MATERIALIZED ( \
        SELECT org_id, kind, key FROM policy_record WHERE forget_after < $1 \
        ORDER BY forget_after LIMIT $2 FOR UPDATE SKIP LOCKED), \
    gone AS ( \
        DELETE FROM policy_record AS record USING ended \
        WHERE record.org_id = ended.org_id AND record.kind = ended.kind AND record.key = ended.key \
        RETURNING record.org_id, record.revision), \
    last AS (SELECT org_id, max(revision) AS revision FROM gone GROUP BY org_id), \
    noted AS ( \
        UPDATE policy_head AS head SET oldest = greatest(head.oldest, last.revision) \
        FROM last WHERE head.org_id = last.org_id) \
    SELECT 1 FROM gone";

/// The changes of one call.
struct Changes {
    org: OrgId,
    kinds: Vec<&'static str>,
    keys: Vec<String>,
    bodies: Vec<Option<String>>,
    changes: Vec<PolicyChange>,
    forget_after: i64,
    on: Recorded,
}

impl Transaction for Changes {
    type Answer = Apply;

    async fn run(&self, connection: &mut PgConnection) -> Result<End<Apply>, sqlx::Error> {
        self.on.statement(RAISE).execute(&mut *connection).await?;
        let found = sqlx::query(FOUND).bind(self.org.as_str()).bind(&self.kinds).bind(&self.keys);
        let mut raised = None;
        for (place, row) in found.fetch_all(&mut *connection).await?.iter().enumerate() {
            raised = Some(row.try_get::<i64, _>(0)?);
            let there = row.try_get::<Option<i64>, _>(2)?.map(whole).transpose()?;
            let expected = self
                .changes
                .get(place)
                .is_some_and(|change| change.expect.admits(there, change.body.is_none()));
            if !expected {
                return Ok(End::RollBack(Apply::Conflict(place)));
            }
        }
        let revision: i64 = match raised {
            Some(revision) => revision,
            None => {
                sqlx::query(REVISION).bind(self.org.as_str()).fetch_one(&mut *connection).await?.try_get(0)?
            }
        };
        let write = sqlx::query(WRITE).bind(self.org.as_str()).bind(&self.kinds).bind(&self.keys);
        write.bind(revision).bind(&self.bodies).bind(self.forget_after).execute(connection).await?;
        Ok(End::Commit(Apply::Applied { revision: whole(revision)? }))
    }
}

#[async_trait]
impl PolicyStore for PostgresStore {
    async fn apply(
        &self,
        org: &OrgId,
        changes: &[PolicyChange],
        on: &Event,
        now: Timestamp,
    ) -> Result<Apply, StoreError> {
        const OPERATION: &str = "policies.apply";
        let changes = Changes {
            org: org.clone(),
            kinds: changes.iter().map(|change| change.id.kind().as_str()).collect(),
            keys: changes.iter().map(|change| change.id.key().to_owned()).collect(),
            bodies: changes.iter().map(|change| change.body.as_deref().map(ToOwned::to_owned)).collect(),
            changes: changes.to_vec(),
            forget_after: millis(now.plus(POLICY_TOMBSTONE_LIFE)),
            on: Recorded::new(OPERATION, org, on)?,
        };
        self.pool.transaction(OPERATION, changes).await
    }

    async fn revision(&self, org: &OrgId) -> Result<u64, StoreError> {
        const OPERATION: &str = "policies.revision";
        let rows = self.pool.repeatable(OPERATION, || sqlx::query(REVISION).bind(org.as_str())).await?;
        rows.first().map_or(Ok(0), |row| number(OPERATION, row, 0))
    }

    async fn page(
        &self,
        org: &OrgId,
        after: Option<&RecordId>,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        const OPERATION: &str = "policies.page";
        let (kind, key) = after.map_or(("", ""), |id| (id.kind().as_str(), id.key()));
        let statement = || {
            let statement = sqlx::query(PAGE).bind(org.as_str()).bind(kind).bind(key);
            statement.bind(i64::from(limit))
        };
        let rows = self.pool.repeatable(OPERATION, statement).await?;
        rows.iter().map(|row| record(OPERATION, row, 0)).collect()
    }

    async fn since(&self, org: &OrgId, revision: u64, limit: u32) -> Result<Since, StoreError> {
        const OPERATION: &str = "policies.since";
        let statement = || {
            let statement = sqlx::query(SINCE).bind(org.as_str());
            statement.bind(i64::try_from(revision).unwrap_or(i64::MAX)).bind(i64::from(limit) + 1)
        };
        let rows = self.pool.repeatable(OPERATION, statement).await?;
        if rows.is_empty() {
            return Ok(if revision == 0 { Since::UpToDate } else { Since::TooOld });
        }
        let head = one(OPERATION, &rows)?;
        let (current, oldest) = (number(OPERATION, head, 0)?, number(OPERATION, head, 1)?);
        if revision == current {
            return Ok(Since::UpToDate);
        }
        if revision < oldest || revision > current || rows.len() > limit as usize {
            return Ok(Since::TooOld);
        }
        let records = rows.iter().map(|row| record(OPERATION, row, 2)).collect::<Result<_, _>>()?;
        Ok(Since::Changed { records, revision: current })
    }
}

fn number(operation: &'static str, row: &PgRow, index: usize) -> Result<u64, StoreError> {
    whole(value(operation, row, index)?).map_err(|error| StoreError::corrupt(operation, error))
}

/// The record in the four columns from `first` on.
fn record(operation: &'static str, row: &PgRow, first: usize) -> Result<Record, StoreError> {
    let kind: &str = value(operation, row, first)?;
    let kind = RecordKind::named(kind).ok_or_else(|| StoreError::corrupt(operation, "an unknown kind"))?;
    let key: &str = value(operation, row, first + 1)?;
    let id = RecordId::new(kind, key).map_err(|error| StoreError::corrupt(operation, error))?;
    let body: Option<&str> = value(operation, row, first + 3)?;
    Ok(Record { id, revision: number(operation, row, first + 2)?, body: body.map(Into::into) })
}
