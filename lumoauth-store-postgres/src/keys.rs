//! Sealed signing keys on PostgreSQL.

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    id::{KeyId, OrgId},
    store::{Insert, KeyStore, Remove, SealedKey, StoreError, Unique},
};

use crate::{
    PostgresStore,
    records::{self, Recorded, recorded, to_json},
};

const INSERT: &str = recorded!(
    "INSERT INTO sealed_key (org_id, id, purpose, generation, record)
    VALUES ($1, $5, $6, $7, $8::json)
    ON CONFLICT DO NOTHING"
);

const TAKEN: &str = "SELECT
    EXISTS (SELECT 1 FROM sealed_key WHERE org_id = $1 AND id = $2),
    EXISTS (SELECT 1 FROM sealed_key WHERE org_id = $1 AND purpose = $3 AND generation = $4)";

/// In the order of the columns of [`TAKEN`].
const UNIQUES: &[Unique] = &[Unique::Id, Unique::Generation];

const LIST: &str = "SELECT record::text FROM sealed_key WHERE org_id = $1";

const REMOVE: &str = recorded!("DELETE FROM sealed_key WHERE org_id = $1 AND id = $5");

#[async_trait]
impl KeyStore for PostgresStore {
    async fn insert(&self, org: &OrgId, key: &SealedKey, on: &Event) -> Result<Insert, StoreError> {
        const OPERATION: &str = "keys.insert";
        let on = Recorded::new(OPERATION, org, on)?;
        let record = to_json(OPERATION, key)?;
        let (id, purpose, generation) = (key.id.as_str(), key.purpose.as_str(), i64::from(key.generation));
        let insert = || on.statement(INSERT).bind(id).bind(purpose).bind(generation).bind(record.as_str());
        let taken = || sqlx::query(TAKEN).bind(org.as_str()).bind(id).bind(purpose).bind(generation);
        records::insert(&self.pool, OPERATION, insert, taken, UNIQUES).await
    }

    async fn list(&self, org: &OrgId) -> Result<Vec<SealedKey>, StoreError> {
        let statement = || sqlx::query(LIST).bind(org.as_str());
        let mut keys: Vec<SealedKey> = records::all(&self.pool, "keys.list", statement).await?;
        // The order of the purposes is core's, and not that of their names. An organization has few keys.
        keys.sort_by_key(|key| (key.purpose, key.generation));
        Ok(keys)
    }

    async fn remove(&self, org: &OrgId, id: &KeyId, on: &Event) -> Result<Remove, StoreError> {
        const OPERATION: &str = "keys.remove";
        let on = Recorded::new(OPERATION, org, on)?;
        records::remove(&self.pool, OPERATION, || on.statement(REMOVE).bind(id.as_str())).await
    }
}
