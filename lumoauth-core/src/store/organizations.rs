//! The role that keeps organizations.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{Insert, StoreError, Update};
use crate::{audit::Event, id::OrgId, organization::Organization};

/// Keeps organizations. Recorded.
#[async_trait]
pub trait OrganizationStore: fmt::Debug + Send + Sync + 'static {
    /// Adds `organization` and writes `on` into its log, in one step.
    ///
    /// Of any number of concurrent inserts with one id, exactly one is [`Insert::Inserted`]; the others are
    /// `Taken(Unique::Id)`. Checked by `conformance::organizations::one_id_once`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn insert(&self, organization: &Organization, on: &Event) -> Result<Insert, StoreError>;

    /// The organization `org`, if there is one. Checked by `conformance::organizations::round_trip`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn find(&self, org: &OrgId) -> Result<Option<Arc<Organization>>, StoreError>;

    /// Replaces the organization if its stored version is `organization.version`; see [`Update`].
    /// Checked by `conformance::organizations::updates_are_guarded` and `racing_updates`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn update(&self, organization: &Organization, on: &Event) -> Result<Update, StoreError>;

    /// Up to `max` organizations with an id above `after`, in ascending order of id. For maintenance, which
    /// walks all of them. Checked by `conformance::organizations::walk_in_order`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn list(&self, after: Option<&OrgId>, max: u32) -> Result<Vec<Arc<Organization>>, StoreError>;
}
