//! The role that keeps ordinary OAuth clients.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    client::Client,
    id::{ClientId, OrgId},
    store::{ClientKey, ClientStore, Insert, Listing, Page, StoreError, Unique, Update},
};

use crate::{
    EmbeddedStore,
    cache::{Cache, Caches},
    records::{IndexRow, Record, Versioned},
    tables::{Table, key, number_key},
};

fn client_key(org: &OrgId, id: &ClientId) -> Vec<u8> {
    key(org, &[id.as_str().as_bytes()])
}

impl Record for Client {
    const TABLE: Table = Table::Clients;
    const KEY: Unique = Unique::ClientId;

    fn key(&self, org: &OrgId) -> Vec<u8> {
        client_key(org, &self.client_id)
    }

    fn index_rows(&self, org: &OrgId) -> Vec<IndexRow> {
        vec![IndexRow::unique(Table::ClientNumbers, number_key(org, self.number), Unique::Number)]
    }
}

impl Versioned for Client {
    fn version(&self) -> u64 {
        self.version
    }

    fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.clients
    }
}

#[async_trait]
impl ClientStore for EmbeddedStore {
    async fn insert(&self, org: &OrgId, client: &Client, on: &Event) -> Result<Insert, StoreError> {
        self.insert_record(org, client, on).await
    }

    async fn find(&self, org: &OrgId, by: ClientKey<'_>) -> Result<Option<Arc<Client>>, StoreError> {
        match by {
            ClientKey::ClientId(id) => self.find_record(Table::Clients, &client_key(org, id)),
            ClientKey::Number(number) => self.find_record(Table::ClientNumbers, &number_key(org, number)),
        }
    }

    async fn update(&self, org: &OrgId, client: &Client, on: &Event) -> Result<Update, StoreError> {
        self.update_record(org, client, on).await
    }

    async fn list(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<Client>>, StoreError> {
        self.list_records(org, Table::Clients, None, page).await
    }
}
