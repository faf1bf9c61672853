//! AAuth resources on PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    aauth_resource::AAuthResource,
    audit::Event,
    id::{AAuthResourceId, OrgId},
    store::{
        AAuthResourceKey, AAuthResourceStore, Insert, Listing, Page, Remove, StoreError, Unique, Update,
    },
};

use crate::{
    PostgresStore,
    records::{self, Recorded, bounds, listing, recorded, sought, stored, to_json},
};

const INSERT: &str = recorded!(
    "INSERT INTO aauth_resource (org_id, id, number, identifier, version, record)
    VALUES ($1, $5, $6, $7, $8, $9::json)
    ON CONFLICT DO NOTHING"
);

const TAKEN: &str = "SELECT
    EXISTS (SELECT 1 FROM aauth_resource WHERE org_id = $1 AND id = $2),
    EXISTS (SELECT 1 FROM aauth_resource WHERE org_id = $1 AND number = $3),
    EXISTS (SELECT 1 FROM aauth_resource WHERE org_id = $1 AND identifier = $4)";

/// In the order of the columns of [`TAKEN`].
const UNIQUES: &[Unique] = &[Unique::Id, Unique::Number, Unique::AAuthIdentifier];

const UPDATE: &str = recorded!(
    "UPDATE aauth_resource SET version = version + 1, record = $7::json
    WHERE org_id = $1 AND id = $5 AND version = $6"
);

const EXISTS: &str = "SELECT 1 FROM aauth_resource WHERE org_id = $1 AND id = $2";

const REMOVE: &str = recorded!("DELETE FROM aauth_resource WHERE org_id = $1 AND id = $5 AND version = $6");

const FIND_BY_ID: &str = "SELECT record::text FROM aauth_resource WHERE org_id = $1 AND id = $2";

const FIND_BY_NUMBER: &str = "SELECT record::text FROM aauth_resource WHERE org_id = $1 AND number = $2";

const FIND_BY_IDENTIFIER: &str =
    "SELECT record::text FROM aauth_resource WHERE org_id = $1 AND identifier = $2";

const LIST: &str = listing!(
    "FROM aauth_resource WHERE org_id = $1",
    order: "identifier", offset: "$2", limit: "$3"
);

#[async_trait]
impl AAuthResourceStore for PostgresStore {
    async fn insert(&self, org: &OrgId, resource: &AAuthResource, on: &Event) -> Result<Insert, StoreError> {
        const OPERATION: &str = "aauth_resources.insert";
        let on = Recorded::new(OPERATION, org, on)?;
        let number = stored(OPERATION, resource.number.value())?;
        let version = stored(OPERATION, resource.version)?;
        let record = to_json(OPERATION, resource)?;
        let (id, identifier) = (resource.id.as_str(), resource.identifier.as_str());
        let insert = || {
            let statement = on.statement(INSERT).bind(id).bind(number).bind(identifier);
            statement.bind(version).bind(record.as_str())
        };
        let taken = || sqlx::query(TAKEN).bind(org.as_str()).bind(id).bind(number).bind(identifier);
        records::insert(&self.pool, OPERATION, insert, taken, UNIQUES).await
    }

    async fn find(
        &self,
        org: &OrgId,
        key: AAuthResourceKey<'_>,
    ) -> Result<Option<Arc<AAuthResource>>, StoreError> {
        let statement = || match key {
            AAuthResourceKey::Id(id) => sqlx::query(FIND_BY_ID).bind(org.as_str()).bind(id.as_str()),
            AAuthResourceKey::Number(number) => {
                sqlx::query(FIND_BY_NUMBER).bind(org.as_str()).bind(sought(number.value()))
            }
            AAuthResourceKey::Identifier(identifier) => {
                sqlx::query(FIND_BY_IDENTIFIER).bind(org.as_str()).bind(identifier.as_str())
            }
        };
        records::find(&self.pool, "aauth_resources.find", statement).await
    }

    async fn update(&self, org: &OrgId, resource: &AAuthResource, on: &Event) -> Result<Update, StoreError> {
        const OPERATION: &str = "aauth_resources.update";
        let on = Recorded::new(OPERATION, org, on)?;
        let id = resource.id.as_str();
        let mut next = resource.clone();
        next.version = resource.version.saturating_add(1);
        let record = to_json(OPERATION, &next)?;
        let update = || on.statement(UPDATE).bind(id).bind(sought(resource.version)).bind(record.as_str());
        let exists = || sqlx::query(EXISTS).bind(org.as_str()).bind(id);
        records::update(&self.pool, OPERATION, update, exists, &[]).await
    }

    async fn remove(
        &self,
        org: &OrgId,
        id: &AAuthResourceId,
        version: u64,
        on: &Event,
    ) -> Result<Remove, StoreError> {
        const OPERATION: &str = "aauth_resources.remove";
        let on = Recorded::new(OPERATION, org, on)?;
        let remove = || on.statement(REMOVE).bind(id.as_str()).bind(sought(version));
        let exists = || sqlx::query(EXISTS).bind(org.as_str()).bind(id.as_str());
        records::remove_at(&self.pool, OPERATION, remove, exists).await
    }

    async fn list(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<AAuthResource>>, StoreError> {
        let (offset, limit) = bounds(page);
        let statement = || sqlx::query(LIST).bind(org.as_str()).bind(offset).bind(limit);
        records::list(&self.pool, "aauth_resources.list", statement).await
    }
}
