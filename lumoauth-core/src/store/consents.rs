//! The role that keeps what people allowed clients.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{Insert, Listing, Page, StoreError, Update};
use crate::{
    audit::Event,
    consent::Consent,
    id::{ClientId, ConsentId, OrgId, UserId},
};

/// By what a consent is looked up. Each is unique in its organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every backend must serve every key")]
pub enum ConsentKey<'a> {
    /// Its id.
    Id(ConsentId),
    /// Who allows it, and to whom.
    Between(UserId, &'a ClientId),
}

/// Keeps consents. Recorded.
#[async_trait]
pub trait ConsentStore: fmt::Debug + Send + Sync + 'static {
    /// Adds `consent` and writes `on`, in one step. The id, and the pair of person and client
    /// ([`Unique::ClientId`](super::Unique::ClientId)), are unique in the organization. Checked by
    /// `conformance::consents::one_per_pair_once` and `unique_values`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn insert(&self, org: &OrgId, consent: &Consent, on: &Event) -> Result<Insert, StoreError>;

    /// The consent with this key. Checked by `conformance::consents::round_trip` and `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn find(&self, org: &OrgId, key: ConsentKey<'_>) -> Result<Option<Arc<Consent>>, StoreError>;

    /// Replaces the consent if its stored version is `consent.version`; see [`Update`]. Id, person and client never change.
    /// Checked by `conformance::consents::updates_are_guarded` and `racing_updates`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn update(&self, org: &OrgId, consent: &Consent, on: &Event) -> Result<Update, StoreError>;

    /// The consents of one person, also those that do not hold any more, in ascending order of client id. Checked by
    /// `conformance::consents::listing`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn list(&self, org: &OrgId, user: UserId, page: Page) -> Result<Listing<Arc<Consent>>, StoreError>;
}
