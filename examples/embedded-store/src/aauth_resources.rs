//! The role that keeps AAuth resources.

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
    EmbeddedStore,
    cache::{Cache, Caches},
    records::{IndexRow, Record, Versioned},
    tables::{Table, aauth_key, key, number_key},
};

fn resource_key(org: &OrgId, id: &AAuthResourceId) -> Vec<u8> {
    key(org, &[id.as_str().as_bytes()])
}

impl Record for AAuthResource {
    const TABLE: Table = Table::AAuthResources;
    const KEY: Unique = Unique::Id;

    fn key(&self, org: &OrgId) -> Vec<u8> {
        resource_key(org, &self.id)
    }

    fn index_rows(&self, org: &OrgId) -> Vec<IndexRow> {
        let identifier = aauth_key(org, &self.identifier);
        vec![
            IndexRow::unique(Table::AAuthResourceNumbers, number_key(org, self.number), Unique::Number),
            IndexRow::unique(Table::AAuthResourceIdentifiers, identifier, Unique::AAuthIdentifier),
        ]
    }
}

impl Versioned for AAuthResource {
    fn version(&self) -> u64 {
        self.version
    }

    fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.aauth_resources
    }
}

#[async_trait]
impl AAuthResourceStore for EmbeddedStore {
    async fn insert(&self, org: &OrgId, resource: &AAuthResource, on: &Event) -> Result<Insert, StoreError> {
        self.insert_record(org, resource, on).await
    }

    async fn find(
        &self,
        org: &OrgId,
        by: AAuthResourceKey<'_>,
    ) -> Result<Option<Arc<AAuthResource>>, StoreError> {
        match by {
            AAuthResourceKey::Id(id) => self.find_record(Table::AAuthResources, &resource_key(org, id)),
            AAuthResourceKey::Number(number) => {
                self.find_record(Table::AAuthResourceNumbers, &number_key(org, number))
            }
            AAuthResourceKey::Identifier(identifier) => {
                self.find_record(Table::AAuthResourceIdentifiers, &aauth_key(org, identifier))
            }
        }
    }

    async fn update(&self, org: &OrgId, resource: &AAuthResource, on: &Event) -> Result<Update, StoreError> {
        self.update_record(org, resource, on).await
    }

    async fn remove(
        &self,
        org: &OrgId,
        id: &AAuthResourceId,
        version: u64,
        on: &Event,
    ) -> Result<Remove, StoreError> {
        self.remove_record::<AAuthResource>(org, resource_key(org, id), move |it| it.version == version, on)
            .await
    }

    async fn list(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<AAuthResource>>, StoreError> {
        self.list_records(org, Table::AAuthResourceIdentifiers, None, page).await
    }
}
