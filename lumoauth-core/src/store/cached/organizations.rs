//! Organizations, cached.

use std::sync::Arc;

use async_trait::async_trait;

use super::Cached;
use crate::{
    audit::Event,
    id::OrgId,
    organization::Organization,
    store::{ChangedRecord, Insert, OrganizationStore, StoreError, Update},
};

#[async_trait]
impl OrganizationStore for Cached {
    async fn insert(&self, organization: &Organization, on: &Event) -> Result<Insert, StoreError> {
        self.organizations.insert(organization, on).await
    }

    async fn find(&self, org: &OrgId) -> Result<Option<Arc<Organization>>, StoreError> {
        if let Some(organization) = self.kept_organizations.get(org) {
            return Ok(Some(organization));
        }
        let reading = self.kept_organizations.reading();
        let found = self.organizations.find(org).await?;
        if let Some(organization) = &found {
            self.kept_organizations.keep(reading, org.clone(), organization);
        }
        Ok(found)
    }

    async fn update(&self, organization: &Organization, on: &Event) -> Result<Update, StoreError> {
        let change = self.organizations.update(organization, on);
        self.change(&organization.id, ChangedRecord::Organization, change).await
    }

    async fn list(&self, after: Option<&OrgId>, max: u32) -> Result<Vec<Arc<Organization>>, StoreError> {
        self.organizations.list(after, max).await
    }
}
