//! The role that keeps AAuth resources.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{Insert, Listing, Page, Remove, StoreError, Update};
use crate::{
    aauth_resource::AAuthResource,
    audit::Event,
    id::{AAuthIdentifier, AAuthResourceId, Number, OrgId},
};

/// By what an AAuth resource is looked up. Each is unique in its organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every backend must serve every key")]
pub enum AAuthResourceKey<'a> {
    /// The public id.
    Id(&'a AAuthResourceId),
    /// The integer id.
    Number(Number),
    /// The URL that names it.
    Identifier(&'a AAuthIdentifier),
}

/// Keeps AAuth resources. Recorded.
#[async_trait]
pub trait AAuthResourceStore: fmt::Debug + Send + Sync + 'static {
    /// Adds `resource` and writes `on`, in one step. Public id, number and identifier are unique in the organization, the
    /// last byte for byte. Of any number of concurrent inserts with one such value exactly one is [`Insert::Inserted`].
    /// Checked by `conformance::aauth_resources::one_identifier_once` and `unique_values`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn insert(&self, org: &OrgId, resource: &AAuthResource, on: &Event) -> Result<Insert, StoreError>;

    /// The resource with this key. Checked by `conformance::aauth_resources::round_trip` and `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn find(
        &self,
        org: &OrgId,
        key: AAuthResourceKey<'_>,
    ) -> Result<Option<Arc<AAuthResource>>, StoreError>;

    /// Replaces the resource if its stored version is `resource.version`; see [`Update`]. The public id, number and
    /// identifier of a resource never change. Checked by `conformance::aauth_resources::updates_are_guarded` and
    /// `racing_updates`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn update(&self, org: &OrgId, resource: &AAuthResource, on: &Event) -> Result<Update, StoreError>;

    /// Removes the resource if `version` is its stored one, and frees its unique values.
    /// Checked by `conformance::aauth_resources::removal_frees_identifiers`, `removals_are_guarded` and `racing_removals`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn remove(
        &self,
        org: &OrgId,
        id: &AAuthResourceId,
        version: u64,
        on: &Event,
    ) -> Result<Remove, StoreError>;

    /// The resources, in ascending order of identifier. Checked by `conformance::aauth_resources::listing`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn list(&self, org: &OrgId, page: Page) -> Result<Listing<Arc<AAuthResource>>, StoreError>;
}
