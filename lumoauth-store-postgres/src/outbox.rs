//! The outbox, for a store whose audit log is kept elsewhere.

use std::collections::BTreeMap;

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    id::{EventId, OrgId},
    store::{Outbox, StoreError},
};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::PostgresStore;

const PENDING: &str = "outbox.pending";

const SELECT_PENDING: &str = "\
    SELECT org_id, body FROM outbox ORDER BY arrived, nth, org_id LIMIT $1";

/// Without an index: the outbox is short, and only hosts that keep the log elsewhere need this.
const DELETE_DONE: &str = "DELETE FROM outbox WHERE org_id = $1 AND event_id = ANY($2)";

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
        let mut by_org: BTreeMap<&OrgId, Vec<Uuid>> = BTreeMap::new();
        for (org, id) in events {
            by_org.entry(org).or_default().push(id.uuid());
        }
        for (org, ids) in by_org {
            let delete = || sqlx::query(DELETE_DONE).bind(org.as_str()).bind(&ids);
            self.pool.repeatable("outbox.done", delete).await?;
        }
        Ok(())
    }
}

fn waiting(row: &PgRow) -> Result<(OrgId, Event), sqlx::Error> {
    let decode = |error| sqlx::Error::Decode(error);
    let org = OrgId::parse(row.try_get("org_id")?).map_err(|error| decode(error.into()))?;
    let body: &str = row.try_get("body")?;
    Ok((org, serde_json::from_str(body).map_err(|error| decode(error.into()))?))
}
