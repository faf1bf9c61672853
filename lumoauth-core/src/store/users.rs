//! The role that keeps people.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{Insert, Listing, Page, StoreError, Update};
use crate::{
    audit::Event,
    id::{Number, OrgId, UserId},
    user::User,
};

/// By what a person is looked up. Each is unique in its organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every backend must serve every key")]
pub enum UserKey<'a> {
    /// The `sub`.
    Id(UserId),
    /// The integer id.
    Number(Number),
    /// The e-mail address, in lower case.
    Email(&'a str),
}

/// Keeps people. Recorded.
#[async_trait]
pub trait UserStore: fmt::Debug + Send + Sync + 'static {
    /// Adds `user` and writes `on`, in one step. Id, number and e-mail address are unique in the organization.
    /// Checked by `conformance::users::one_email_once` and `unique_values`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn insert(&self, org: &OrgId, user: &User, on: &Event) -> Result<Insert, StoreError>;

    /// The person with this key. Checked by `conformance::users::round_trip` and `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn find(&self, org: &OrgId, key: UserKey<'_>) -> Result<Option<Arc<User>>, StoreError>;

    /// Replaces the person if the stored version is `user.version`; see [`Update`]. Id, number and e-mail
    /// address never change. Checked by `conformance::users::updates_are_guarded` and `racing_updates`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn update(&self, org: &OrgId, user: &User, on: &Event) -> Result<Update, StoreError>;

    /// The people whose e-mail address or name contains `search` (without regard to ASCII case), in ascending
    /// order of e-mail address. Checked by `conformance::users::listing`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn list(
        &self,
        org: &OrgId,
        search: Option<&str>,
        page: Page,
    ) -> Result<Listing<Arc<User>>, StoreError>;
}
