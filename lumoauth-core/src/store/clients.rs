//! The role that keeps ordinary OAuth clients.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{Insert, Listing, Page, StoreError, Update};
use crate::{
    audit::Event,
    client::Client,
    id::{ClientId, Number, OrgId},
};

/// By what a client is looked up. Each is unique in its organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every backend must serve every key")]
pub enum ClientKey<'a> {
    /// The OAuth client id.
    ClientId(&'a ClientId),
    /// The integer id.
    Number(Number),
}

/// Keeps ordinary OAuth clients. Recorded.
#[async_trait]
pub trait ClientStore: fmt::Debug + Send + Sync + 'static {
    /// Adds `client` and writes `on`, in one step. Client id and number are unique in the organization.
    /// Checked by `conformance::clients::one_client_id_once` and `unique_values`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn insert(&self, org: &OrgId, client: &Client, on: &Event) -> Result<Insert, StoreError>;

    /// The client with this key. Checked by `conformance::clients::round_trip` and `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn find(&self, org: &OrgId, key: ClientKey<'_>) -> Result<Option<Arc<Client>>, StoreError>;

    /// Replaces the client if its stored version is `client.version`; see [`Update`]. Client id and number
    /// never change. Checked by `conformance::clients::updates_are_guarded` and `racing_updates`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn update(&self, org: &OrgId, client: &Client, on: &Event) -> Result<Update, StoreError>;

    /// All clients, in ascending order of client id. Checked by `conformance::clients::listing`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn list(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<Client>>, StoreError>;
}
