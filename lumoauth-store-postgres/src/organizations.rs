//! Organizations on PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    id::OrgId,
    organization::Organization,
    store::{Insert, OrganizationStore, StoreError, Unique, Update},
};

use crate::{
    PostgresStore,
    records::{self, Recorded, recorded, sought, stored, to_json},
};

const INSERT: &str = recorded!(
    "INSERT INTO organization (org_id, version, record)
    VALUES ($1, $5, $6::json)
    ON CONFLICT DO NOTHING"
);

const TAKEN: &str = "SELECT EXISTS (SELECT 1 FROM organization WHERE org_id = $1)";

const UPDATE: &str = recorded!(
    "UPDATE organization SET version = version + 1, record = $6::json
    WHERE org_id = $1 AND version = $5"
);

const EXISTS: &str = "SELECT 1 FROM organization WHERE org_id = $1";

const FIND: &str = "SELECT record::text FROM organization WHERE org_id = $1";

/// Every id is above the empty text.
const LIST: &str = "SELECT record::text FROM organization WHERE org_id > $1 ORDER BY org_id LIMIT $2";

#[async_trait]
impl OrganizationStore for PostgresStore {
    async fn insert(&self, organization: &Organization, on: &Event) -> Result<Insert, StoreError> {
        const OPERATION: &str = "organizations.insert";
        let org = &organization.id;
        let on = Recorded::new(OPERATION, org, on)?;
        let version = stored(OPERATION, organization.version)?;
        let record = to_json(OPERATION, organization)?;
        let insert = || on.statement(INSERT).bind(version).bind(record.as_str());
        let taken = || sqlx::query(TAKEN).bind(org.as_str());
        records::insert(&self.pool, OPERATION, insert, taken, &[Unique::Id]).await
    }

    async fn find(&self, org: &OrgId) -> Result<Option<Arc<Organization>>, StoreError> {
        records::find(&self.pool, "organizations.find", || sqlx::query(FIND).bind(org.as_str())).await
    }

    async fn update(&self, organization: &Organization, on: &Event) -> Result<Update, StoreError> {
        const OPERATION: &str = "organizations.update";
        let org = &organization.id;
        let on = Recorded::new(OPERATION, org, on)?;
        let mut next = organization.clone();
        next.version = organization.version.saturating_add(1);
        let record = to_json(OPERATION, &next)?;
        let update = || on.statement(UPDATE).bind(sought(organization.version)).bind(record.as_str());
        let exists = || sqlx::query(EXISTS).bind(org.as_str());
        records::update(&self.pool, OPERATION, update, exists, &[]).await
    }

    async fn list(&self, after: Option<&OrgId>, max: u32) -> Result<Vec<Arc<Organization>>, StoreError> {
        let statement = || sqlx::query(LIST).bind(after.map_or("", OrgId::as_str)).bind(i64::from(max));
        let organizations = records::all(&self.pool, "organizations.list", statement).await?;
        Ok(organizations.into_iter().map(Arc::new).collect())
    }
}
