//! Organization API keys on PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    api_key::ApiKey,
    audit::Event,
    id::OrgId,
    store::{ApiKeyKey, ApiKeyStore, Insert, Listing, Page, StoreError, Unique, Update},
};

use crate::{
    PostgresStore,
    records::{self, Recorded, bounds, listing, recorded, sought, stored, to_json},
};

const INSERT: &str = recorded!(
    "INSERT INTO api_key (org_id, number, hash, version, record)
    VALUES ($1, $5, $6, $7, $8::json)
    ON CONFLICT DO NOTHING"
);

const TAKEN: &str = "SELECT
    EXISTS (SELECT 1 FROM api_key WHERE org_id = $1 AND number = $2),
    EXISTS (SELECT 1 FROM api_key WHERE org_id = $1 AND hash = $3)";

/// In the order of the columns of [`TAKEN`].
const UNIQUES: &[Unique] = &[Unique::Number, Unique::KeyHash];

const UPDATE: &str = recorded!(
    "UPDATE api_key SET version = version + 1, record = $7::json
    WHERE org_id = $1 AND number = $5 AND version = $6"
);

const EXISTS: &str = "SELECT 1 FROM api_key WHERE org_id = $1 AND number = $2";

const FIND_BY_HASH: &str = "SELECT record::text FROM api_key WHERE org_id = $1 AND hash = $2";

const FIND_BY_NUMBER: &str = "SELECT record::text FROM api_key WHERE org_id = $1 AND number = $2";

const LIST: &str = listing!("FROM api_key WHERE org_id = $1", order: "number", offset: "$2", limit: "$3");

#[async_trait]
impl ApiKeyStore for PostgresStore {
    async fn insert(&self, org: &OrgId, key: &ApiKey, on: &Event) -> Result<Insert, StoreError> {
        const OPERATION: &str = "api_keys.insert";
        let on = Recorded::new(OPERATION, org, on)?;
        let number = stored(OPERATION, key.number.value())?;
        let version = stored(OPERATION, key.version)?;
        let record = to_json(OPERATION, key)?;
        let hash = key.hash.as_bytes().as_slice();
        let insert = || on.statement(INSERT).bind(number).bind(hash).bind(version).bind(record.as_str());
        let taken = || sqlx::query(TAKEN).bind(org.as_str()).bind(number).bind(hash);
        records::insert(&self.pool, OPERATION, insert, taken, UNIQUES).await
    }

    async fn find(&self, org: &OrgId, key: ApiKeyKey<'_>) -> Result<Option<Arc<ApiKey>>, StoreError> {
        let statement = || match key {
            ApiKeyKey::Hash(hash) => {
                sqlx::query(FIND_BY_HASH).bind(org.as_str()).bind(hash.as_bytes().as_slice())
            }
            ApiKeyKey::Number(number) => {
                sqlx::query(FIND_BY_NUMBER).bind(org.as_str()).bind(sought(number.value()))
            }
        };
        records::find(&self.pool, "api_keys.find", statement).await
    }

    async fn update(&self, org: &OrgId, key: &ApiKey, on: &Event) -> Result<Update, StoreError> {
        const OPERATION: &str = "api_keys.update";
        let on = Recorded::new(OPERATION, org, on)?;
        let number = sought(key.number.value());
        let mut next = key.clone();
        next.version = key.version.saturating_add(1);
        let record = to_json(OPERATION, &next)?;
        let update = || on.statement(UPDATE).bind(number).bind(sought(key.version)).bind(record.as_str());
        let exists = || sqlx::query(EXISTS).bind(org.as_str()).bind(number);
        records::update(&self.pool, OPERATION, update, exists, &[]).await
    }

    async fn list(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<ApiKey>>, StoreError> {
        let (offset, limit) = bounds(page);
        let statement = || sqlx::query(LIST).bind(org.as_str()).bind(offset).bind(limit);
        records::list(&self.pool, "api_keys.list", statement).await
    }
}
