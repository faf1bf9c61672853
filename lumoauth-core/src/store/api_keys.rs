//! The role that keeps organization API keys.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{Insert, Listing, Page, StoreError, Update};
use crate::{
    api_key::ApiKey,
    audit::Event,
    id::{Number, OrgId},
    secret::SecretHash,
};

/// By what an API key is looked up. Each is unique in its organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every backend must serve every key")]
pub enum ApiKeyKey<'a> {
    /// The hash of its text.
    Hash(&'a SecretHash),
    /// The integer id.
    Number(Number),
}

/// Keeps organization API keys. Recorded.
#[async_trait]
pub trait ApiKeyStore: fmt::Debug + Send + Sync + 'static {
    /// Adds `key` and writes `on`, in one step. Hash and number are unique in the organization.
    /// Checked by `conformance::api_keys::one_hash_once` and `unique_values`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn insert(&self, org: &OrgId, key: &ApiKey, on: &Event) -> Result<Insert, StoreError>;

    /// The key with this hash or number. Checked by `conformance::api_keys::round_trip` and
    /// `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn find(&self, org: &OrgId, key: ApiKeyKey<'_>) -> Result<Option<Arc<ApiKey>>, StoreError>;

    /// Replaces the key if its stored version is `key.version`; see [`Update`]. Hash and number never change.
    /// Checked by `conformance::api_keys::updates_are_guarded` and `racing_updates`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn update(&self, org: &OrgId, key: &ApiKey, on: &Event) -> Result<Update, StoreError>;

    /// All keys, in ascending order of number. Checked by `conformance::api_keys::listing`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn list(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<ApiKey>>, StoreError>;
}
