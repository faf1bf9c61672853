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

use crate::{PostgresStore, open::Events};

const PENDING: &str = "outbox.pending";
const DONE: &str = "outbox.done";

/// The oldest of every organization, and of those the oldest: the index is by organization.
const SELECT_PENDING: &str = "\
    WITH RECURSIVE waiting AS ( \
        (SELECT org_id FROM outbox ORDER BY org_id LIMIT 1) \
        UNION ALL \
        SELECT (SELECT next.org_id FROM outbox AS next WHERE next.org_id > waiting.org_id ORDER BY next.org_id LIMIT 1) \
        FROM waiting WHERE waiting.org_id IS NOT NULL) \
    SELECT event.org_id, event.body FROM waiting CROSS JOIN LATERAL ( \
        SELECT org_id, arrived, nth, event_id, body FROM outbox WHERE outbox.org_id = waiting.org_id \
        ORDER BY arrived, nth, event_id LIMIT $1) AS event \
    ORDER BY event.arrived, event.nth, event.org_id, event.event_id LIMIT $1";

/// Looks only at the oldest, which is where events are that [`Outbox::pending`] showed.
const DELETE_OLDEST: &str = "\
    WITH oldest AS MATERIALIZED ( \
        SELECT arrived, nth, event_id FROM outbox WHERE org_id = $1 ORDER BY arrived, nth, event_id LIMIT $3) \
    DELETE FROM outbox AS waiting USING oldest \
    WHERE waiting.org_id = $1 AND waiting.arrived = oldest.arrived AND waiting.nth = oldest.nth \
        AND waiting.event_id = oldest.event_id AND oldest.event_id = ANY($2) \
    RETURNING 1";

/// Looks at everything that waits in the organization.
const DELETE_ANY: &str = "DELETE FROM outbox WHERE org_id = $1 AND event_id = ANY($2)";

#[async_trait]
impl Outbox for PostgresStore {
    async fn pending(&self, max: u32) -> Result<Vec<(OrgId, Event)>, StoreError> {
        if self.events == Events::Numbered {
            return Ok(Vec::new());
        }
        let rows = self.pool.repeatable(PENDING, || sqlx::query(SELECT_PENDING).bind(i64::from(max))).await?;
        rows.iter()
            .map(waiting)
            .collect::<Result<_, _>>()
            .map_err(|error| StoreError::corrupt(PENDING, error))
    }

    async fn done(&self, events: &[(OrgId, EventId)]) -> Result<(), StoreError> {
        if self.events == Events::Numbered {
            return Ok(());
        }
        let mut by_org: BTreeMap<&OrgId, Vec<Uuid>> = BTreeMap::new();
        for (org, id) in events {
            by_org.entry(org).or_default().push(id.uuid());
        }
        for (org, ids) in by_org {
            let oldest = i64::try_from(ids.len()).unwrap_or(i64::MAX);
            let delete = || sqlx::query(DELETE_OLDEST).bind(org.as_str()).bind(&ids).bind(oldest);
            // Fewer if another server moved them as well, or if they are not the oldest.
            if self.pool.repeatable(DONE, delete).await?.len() < ids.len() {
                let delete = || sqlx::query(DELETE_ANY).bind(org.as_str()).bind(&ids);
                self.pool.repeatable(DONE, delete).await?;
            }
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
