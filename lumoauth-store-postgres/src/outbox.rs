//! The outbox, for a store whose audit log is kept elsewhere.

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    id::{EventId, OrgId},
    store::{Outbox, StoreError},
};
use sqlx::{Row, postgres::PgRow};

use crate::PostgresStore;

const PENDING: &str = "outbox.pending";

const SELECT_PENDING: &str = "\
    SELECT org_id, body::text AS body FROM outbox ORDER BY arrived, nth, org_id LIMIT $1";

const DELETE_DONE: &str = "\
    DELETE FROM outbox AS waiting USING unnest($1::text[], $2::uuid[]) AS done (org_id, event_id) \
    WHERE waiting.org_id = done.org_id AND waiting.event_id = done.event_id";

#[async_trait]
impl Outbox for PostgresStore {
    async fn pending(&self, max: u32) -> Result<Vec<(OrgId, Event)>, StoreError> {
        let rows = self.pool.repeatable(PENDING, || sqlx::query(SELECT_PENDING).bind(i64::from(max))).await?;
        rows.iter()
            .map(waiting)
            .collect::<Result<_, _>>()
            .map_err(|error| StoreError::corrupt(PENDING, error))
    }

    async fn done(&self, events: &[(OrgId, EventId)]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let orgs: Vec<_> = events.iter().map(|(org, _)| org.as_str()).collect();
        let ids: Vec<_> = events.iter().map(|(_, id)| id.uuid()).collect();
        let delete = || sqlx::query(DELETE_DONE).bind(&orgs).bind(&ids);
        self.pool.repeatable("outbox.done", delete).await?;
        Ok(())
    }
}

fn waiting(row: &PgRow) -> Result<(OrgId, Event), sqlx::Error> {
    let decode = |error| sqlx::Error::Decode(error);
    let org = OrgId::parse(row.try_get("org_id")?).map_err(|error| decode(error.into()))?;
    let body: &str = row.try_get("body")?;
    Ok((org, serde_json::from_str(body).map_err(|error| decode(error.into()))?))
}
