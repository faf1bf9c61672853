//! The role that keeps organizations.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    id::OrgId,
    organization::Organization,
    store::{Insert, OrganizationStore, StoreError, Unique, Update},
};

use crate::{
    EmbeddedStore,
    cache::{Cache, Caches},
    records::{IndexRow, Record, Versioned},
    snapshot::{Order, Visit, decode},
    tables::{Table, all_of, prefix},
};

impl Record for Organization {
    const TABLE: Table = Table::Organizations;
    const KEY: Unique = Unique::Id;

    fn key(&self, org: &OrgId) -> Vec<u8> {
        prefix(org)
    }

    fn index_rows(&self, _org: &OrgId) -> Vec<IndexRow> {
        Vec::new()
    }
}

impl Versioned for Organization {
    fn version(&self) -> u64 {
        self.version
    }

    fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.organizations
    }
}

#[async_trait]
impl OrganizationStore for EmbeddedStore {
    async fn insert(&self, organization: &Organization, on: &Event) -> Result<Insert, StoreError> {
        self.insert_record(&organization.id, organization, on).await
    }

    async fn find(&self, org: &OrgId) -> Result<Option<Arc<Organization>>, StoreError> {
        self.find_record(Table::Organizations, &prefix(org))
    }

    async fn update(&self, organization: &Organization, on: &Event) -> Result<Update, StoreError> {
        self.update_record(&organization.id, organization, on).await
    }

    async fn list(&self, after: Option<&OrgId>, max: u32) -> Result<Vec<Arc<Organization>>, StoreError> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let start = after.map(|org| all_of(org).end).unwrap_or_default();
        let mut found = Vec::new();
        let visit = |_: &[u8], value: &[u8]| {
            if found.len() >= max {
                return Ok(Visit::Stop);
            }
            found.push(Arc::new(decode(Table::Organizations, value)?));
            Ok(Visit::Next)
        };
        // Slugs are ASCII, so this is above them all.
        self.latest().walk(Table::Organizations, start..vec![0xff], Order::Ascending, visit).await?;
        Ok(found)
    }
}
