//! What people allowed clients, on PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    consent::Consent,
    id::{OrgId, UserId},
    store::{ConsentKey, ConsentStore, Insert, Listing, Page, StoreError, Unique, Update},
};

use crate::{
    PostgresStore,
    records::{self, Recorded, bounds, listing, recorded, sought, stored, to_json},
};

const INSERT: &str = recorded!(
    "INSERT INTO consent (org_id, id, user_id, client_id, version, record)
    VALUES ($1, $5, $6, $7, $8, $9::json)
    ON CONFLICT DO NOTHING"
);

const TAKEN: &str = "SELECT
    EXISTS (SELECT 1 FROM consent WHERE org_id = $1 AND id = $2),
    EXISTS (SELECT 1 FROM consent WHERE org_id = $1 AND user_id = $3 AND client_id = $4)";

/// In the order of the columns of [`TAKEN`].
const UNIQUES: &[Unique] = &[Unique::Id, Unique::ClientId];

const UPDATE: &str = recorded!(
    "UPDATE consent SET version = version + 1, record = $7::json
    WHERE org_id = $1 AND id = $5 AND version = $6"
);

const EXISTS: &str = "SELECT 1 FROM consent WHERE org_id = $1 AND id = $2";

const FIND_BY_ID: &str = "SELECT record::text FROM consent WHERE org_id = $1 AND id = $2";

const FIND_BETWEEN: &str =
    "SELECT record::text FROM consent WHERE org_id = $1 AND user_id = $2 AND client_id = $3";

const LIST: &str = listing!(
    "FROM consent WHERE org_id = $1 AND user_id = $2",
    order: "client_id", offset: "$3", limit: "$4"
);

#[async_trait]
impl ConsentStore for PostgresStore {
    async fn insert(&self, org: &OrgId, consent: &Consent, on: &Event) -> Result<Insert, StoreError> {
        const OPERATION: &str = "consents.insert";
        let on = Recorded::new(OPERATION, org, on)?;
        let version = stored(OPERATION, consent.version)?;
        let record = to_json(OPERATION, consent)?;
        let (id, user, client_id) = (consent.id.uuid(), consent.user.uuid(), consent.client_id.as_str());
        let insert = || {
            let statement = on.statement(INSERT).bind(id).bind(user).bind(client_id);
            statement.bind(version).bind(record.as_str())
        };
        let taken = || sqlx::query(TAKEN).bind(org.as_str()).bind(id).bind(user).bind(client_id);
        records::insert(&self.pool, OPERATION, insert, taken, UNIQUES).await
    }

    async fn find(&self, org: &OrgId, key: ConsentKey<'_>) -> Result<Option<Arc<Consent>>, StoreError> {
        let statement = || match key {
            ConsentKey::Id(id) => sqlx::query(FIND_BY_ID).bind(org.as_str()).bind(id.uuid()),
            ConsentKey::Between(user, client_id) => {
                sqlx::query(FIND_BETWEEN).bind(org.as_str()).bind(user.uuid()).bind(client_id.as_str())
            }
        };
        records::find(&self.pool, "consents.find", statement).await
    }

    async fn update(&self, org: &OrgId, consent: &Consent, on: &Event) -> Result<Update, StoreError> {
        const OPERATION: &str = "consents.update";
        let on = Recorded::new(OPERATION, org, on)?;
        let id = consent.id.uuid();
        let mut next = consent.clone();
        next.version = consent.version.saturating_add(1);
        let record = to_json(OPERATION, &next)?;
        let update = || on.statement(UPDATE).bind(id).bind(sought(consent.version)).bind(record.as_str());
        let exists = || sqlx::query(EXISTS).bind(org.as_str()).bind(id);
        records::update(&self.pool, OPERATION, update, exists, &[]).await
    }

    async fn list(&self, org: &OrgId, user: UserId, page: Page) -> Result<Listing<Arc<Consent>>, StoreError> {
        let (offset, limit) = bounds(page);
        let statement = || sqlx::query(LIST).bind(org.as_str()).bind(user.uuid()).bind(offset).bind(limit);
        records::list(&self.pool, "consents.list", statement).await
    }
}
