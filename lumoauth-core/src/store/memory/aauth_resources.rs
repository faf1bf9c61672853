//! AAuth resources in memory.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    MemoryStore,
    table::{Record, Versioned},
};
use crate::{
    aauth_resource::AAuthResource,
    audit::Event,
    id::{AAuthIdentifier, AAuthResourceId, Number, OrgId},
    store::{
        AAuthResourceKey, AAuthResourceStore, Insert, Listing, Page, Remove, StoreError, Unique, Update,
    },
};

#[derive(PartialEq, Eq, Hash)]
pub(super) enum Key {
    Id(AAuthResourceId),
    Number(Number),
    Identifier(AAuthIdentifier),
}

impl From<AAuthResourceKey<'_>> for Key {
    fn from(key: AAuthResourceKey<'_>) -> Self {
        match key {
            AAuthResourceKey::Id(id) => Self::Id(id.clone()),
            AAuthResourceKey::Number(number) => Self::Number(number),
            AAuthResourceKey::Identifier(identifier) => Self::Identifier(identifier.clone()),
        }
    }
}

impl Record for AAuthResource {
    type Key = Key;
    type Order = AAuthIdentifier;

    fn id(&self) -> Key {
        Key::Id(self.id.clone())
    }

    fn keys(&self) -> Vec<(Unique, Key)> {
        vec![
            (Unique::Id, Record::id(self)),
            (Unique::Number, Key::Number(self.number)),
            (Unique::AAuthIdentifier, Key::Identifier(self.identifier.clone())),
        ]
    }

    fn order(&self) -> AAuthIdentifier {
        self.identifier.clone()
    }
}

impl Versioned for AAuthResource {
    fn version(&self) -> u64 {
        self.version
    }

    fn at_version(&self, version: u64) -> Self {
        Self { version, ..self.clone() }
    }
}

#[async_trait]
impl AAuthResourceStore for MemoryStore {
    async fn insert(&self, org: &OrgId, resource: &AAuthResource, on: &Event) -> Result<Insert, StoreError> {
        Ok(self.recorded(&self.aauth_resources, org, on, |resources| resources.insert(resource)))
    }

    async fn find(
        &self,
        org: &OrgId,
        key: AAuthResourceKey<'_>,
    ) -> Result<Option<Arc<AAuthResource>>, StoreError> {
        Ok(self.aauth_resources.read(org, |resources| resources.find(&key.into())))
    }

    async fn update(&self, org: &OrgId, resource: &AAuthResource, on: &Event) -> Result<Update, StoreError> {
        Ok(self.recorded(&self.aauth_resources, org, on, |resources| resources.update(resource)))
    }

    async fn remove(
        &self,
        org: &OrgId,
        id: &AAuthResourceId,
        version: u64,
        on: &Event,
    ) -> Result<Remove, StoreError> {
        let key = Key::Id(id.clone());
        Ok(self.recorded(&self.aauth_resources, org, on, |resources| resources.remove_at(&key, version)))
    }

    async fn list(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<AAuthResource>>, StoreError> {
        Ok(self.aauth_resources.read(org, |resources| resources.list(page, |_| true)))
    }
}
