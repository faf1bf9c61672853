//! Organizations in memory.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    MemoryStore, Outcome, read,
    table::{Record, Table, Versioned},
    write,
};
use crate::{
    audit::Event,
    id::OrgId,
    organization::Organization,
    store::{Insert, OrganizationStore, StoreError, Unique, Update},
};

impl Record for Organization {
    type Key = OrgId;
    type Order = OrgId;

    fn id(&self) -> OrgId {
        self.id.clone()
    }

    fn keys(&self) -> Vec<(Unique, OrgId)> {
        vec![(Unique::Id, self.id.clone())]
    }

    fn order(&self) -> OrgId {
        self.id.clone()
    }
}

impl Versioned for Organization {
    fn version(&self) -> u64 {
        self.version
    }

    fn at_version(&self, version: u64) -> Self {
        Self { version, ..self.clone() }
    }
}

impl MemoryStore {
    /// What `MemoryStore::recorded` does, for the one role that is not kept per organization.
    fn recorded_organization<R: Outcome>(
        &self,
        org: &OrgId,
        on: &Event,
        change: impl FnOnce(&mut Table<Organization>) -> R,
    ) -> R {
        let on = Arc::new(on.clone());
        let mut organizations = write(&self.organizations);
        let outcome = change(&mut organizations);
        if outcome.is_change() {
            self.journal.write(org, [on]);
        }
        outcome
    }
}

#[async_trait]
impl OrganizationStore for MemoryStore {
    async fn insert(&self, organization: &Organization, on: &Event) -> Result<Insert, StoreError> {
        Ok(self.recorded_organization(&organization.id, on, |all| all.insert(organization)))
    }

    async fn find(&self, org: &OrgId) -> Result<Option<Arc<Organization>>, StoreError> {
        Ok(read(&self.organizations).find(org))
    }

    async fn update(&self, organization: &Organization, on: &Event) -> Result<Update, StoreError> {
        Ok(self.recorded_organization(&organization.id, on, |all| all.update(organization)))
    }

    async fn list(&self, after: Option<&OrgId>, max: u32) -> Result<Vec<Arc<Organization>>, StoreError> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        Ok(read(&self.organizations).after(after).take(max).cloned().collect())
    }
}
