//! Ordinary OAuth clients in memory.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    MemoryStore,
    table::{Record, Versioned},
};
use crate::{
    audit::Event,
    client::Client,
    id::{ClientId, Number, OrgId},
    store::{ClientKey, ClientStore, Insert, Listing, Page, StoreError, Unique, Update},
};

#[derive(PartialEq, Eq, Hash)]
pub(super) enum Key {
    ClientId(ClientId),
    Number(Number),
}

impl From<ClientKey<'_>> for Key {
    fn from(key: ClientKey<'_>) -> Self {
        match key {
            ClientKey::ClientId(id) => Self::ClientId(id.clone()),
            ClientKey::Number(number) => Self::Number(number),
        }
    }
}

impl Record for Client {
    type Key = Key;
    type Order = ClientId;

    fn id(&self) -> Key {
        Key::ClientId(self.client_id.clone())
    }

    fn keys(&self) -> Vec<(Unique, Key)> {
        vec![(Unique::ClientId, self.id()), (Unique::Number, Key::Number(self.number))]
    }

    fn order(&self) -> ClientId {
        self.client_id.clone()
    }
}

impl Versioned for Client {
    fn version(&self) -> u64 {
        self.version
    }

    fn at_version(&self, version: u64) -> Self {
        Self { version, ..self.clone() }
    }
}

#[async_trait]
impl ClientStore for MemoryStore {
    async fn insert(&self, org: &OrgId, client: &Client, on: &Event) -> Result<Insert, StoreError> {
        Ok(self.recorded(&self.clients, org, on, |clients| clients.insert(client)))
    }

    async fn find(&self, org: &OrgId, key: ClientKey<'_>) -> Result<Option<Arc<Client>>, StoreError> {
        Ok(self.clients.read(org, |clients| clients.find(&key.into())))
    }

    async fn update(&self, org: &OrgId, client: &Client, on: &Event) -> Result<Update, StoreError> {
        Ok(self.recorded(&self.clients, org, on, |clients| clients.update(client)))
    }

    async fn list(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<Client>>, StoreError> {
        Ok(self.clients.read(org, |clients| clients.list(page, |_| true)))
    }
}
