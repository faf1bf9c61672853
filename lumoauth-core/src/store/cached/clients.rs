//! Ordinary OAuth clients, cached by client id. By number only administrators ask.

use std::sync::Arc;

use async_trait::async_trait;

use super::Cached;
use crate::{
    audit::Event,
    client::Client,
    id::OrgId,
    store::{ChangedRecord, ClientKey, ClientStore, Insert, Listing, Page, StoreError, Update},
};

#[async_trait]
impl ClientStore for Cached {
    async fn insert(&self, org: &OrgId, client: &Client, on: &Event) -> Result<Insert, StoreError> {
        self.clients.insert(org, client, on).await
    }

    async fn find(&self, org: &OrgId, key: ClientKey<'_>) -> Result<Option<Arc<Client>>, StoreError> {
        let ClientKey::ClientId(id) = key else { return self.clients.find(org, key).await };
        let kept = (org.clone(), id.clone());
        if let Some(client) = self.kept_clients.get(&kept) {
            return Ok(Some(client));
        }
        let reading = self.kept_clients.reading();
        let found = self.clients.find(org, key).await?;
        if let Some(client) = &found {
            self.kept_clients.keep(reading, kept, client);
        }
        Ok(found)
    }

    async fn update(&self, org: &OrgId, client: &Client, on: &Event) -> Result<Update, StoreError> {
        let change = self.clients.update(org, client, on);
        self.change(org, ChangedRecord::Client(client.client_id.clone()), change).await
    }

    async fn list(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<Client>>, StoreError> {
        self.clients.list(org, page).await
    }
}
