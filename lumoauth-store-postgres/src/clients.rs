//! Ordinary OAuth clients on PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    client::Client,
    id::OrgId,
    store::{ClientKey, ClientStore, Insert, Listing, Page, StoreError, Unique, Update},
};

use crate::{
    PostgresStore,
    records::{self, Recorded, bounds, listing, recorded, sought, stored, to_json},
};

const INSERT: &str = recorded!(
    "INSERT INTO client (org_id, client_id, number, version, record)
    VALUES ($1, $5, $6, $7, $8::json)
    ON CONFLICT DO NOTHING"
);

const TAKEN: &str = "SELECT
    EXISTS (SELECT 1 FROM client WHERE org_id = $1 AND client_id = $2),
    EXISTS (SELECT 1 FROM client WHERE org_id = $1 AND number = $3)";

/// In the order of the columns of [`TAKEN`].
const UNIQUES: &[Unique] = &[Unique::ClientId, Unique::Number];

const UPDATE: &str = recorded!(
    "UPDATE client SET version = version + 1, record = $7::json
    WHERE org_id = $1 AND client_id = $5 AND version = $6"
);

const EXISTS: &str = "SELECT 1 FROM client WHERE org_id = $1 AND client_id = $2";

const FIND_BY_CLIENT_ID: &str = "SELECT record::text FROM client WHERE org_id = $1 AND client_id = $2";

const FIND_BY_NUMBER: &str = "SELECT record::text FROM client WHERE org_id = $1 AND number = $2";

const LIST: &str = listing!("FROM client WHERE org_id = $1", order: "client_id", offset: "$2", limit: "$3");

#[async_trait]
impl ClientStore for PostgresStore {
    async fn insert(&self, org: &OrgId, client: &Client, on: &Event) -> Result<Insert, StoreError> {
        const OPERATION: &str = "clients.insert";
        let on = Recorded::new(OPERATION, org, on)?;
        let number = stored(OPERATION, client.number.value())?;
        let version = stored(OPERATION, client.version)?;
        let record = to_json(OPERATION, client)?;
        let id = client.client_id.as_str();
        let insert = || on.statement(INSERT).bind(id).bind(number).bind(version).bind(record.as_str());
        let taken = || sqlx::query(TAKEN).bind(org.as_str()).bind(id).bind(number);
        records::insert(&self.pool, OPERATION, insert, taken, UNIQUES).await
    }

    async fn find(&self, org: &OrgId, key: ClientKey<'_>) -> Result<Option<Arc<Client>>, StoreError> {
        let statement = || match key {
            ClientKey::ClientId(id) => sqlx::query(FIND_BY_CLIENT_ID).bind(org.as_str()).bind(id.as_str()),
            ClientKey::Number(number) => {
                sqlx::query(FIND_BY_NUMBER).bind(org.as_str()).bind(sought(number.value()))
            }
        };
        records::find(&self.pool, "clients.find", statement).await
    }

    async fn update(&self, org: &OrgId, client: &Client, on: &Event) -> Result<Update, StoreError> {
        const OPERATION: &str = "clients.update";
        let on = Recorded::new(OPERATION, org, on)?;
        let id = client.client_id.as_str();
        let mut next = client.clone();
        next.version = client.version.saturating_add(1);
        let record = to_json(OPERATION, &next)?;
        let update = || on.statement(UPDATE).bind(id).bind(sought(client.version)).bind(record.as_str());
        let exists = || sqlx::query(EXISTS).bind(org.as_str()).bind(id);
        records::update(&self.pool, OPERATION, update, exists, &[]).await
    }

    async fn list(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<Client>>, StoreError> {
        let (offset, limit) = bounds(page);
        let statement = || sqlx::query(LIST).bind(org.as_str()).bind(offset).bind(limit);
        records::list(&self.pool, "clients.list", statement).await
    }
}
