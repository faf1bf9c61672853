//! People, cached by id. By number and address only administrators ask.

use std::sync::Arc;

use async_trait::async_trait;

use super::Cached;
use crate::{
    audit::Event,
    id::OrgId,
    store::{ChangedRecord, Insert, Listing, Page, StoreError, Update, UserKey, UserStore},
    user::User,
};

#[async_trait]
impl UserStore for Cached {
    async fn insert(&self, org: &OrgId, user: &User, on: &Event) -> Result<Insert, StoreError> {
        self.users.insert(org, user, on).await
    }

    async fn find(&self, org: &OrgId, key: UserKey<'_>) -> Result<Option<Arc<User>>, StoreError> {
        let UserKey::Id(id) = key else { return self.users.find(org, key).await };
        let kept = (org.clone(), id);
        if let Some(user) = self.kept_users.get(&kept) {
            return Ok(Some(user));
        }
        let reading = self.kept_users.reading();
        let found = self.users.find(org, key).await?;
        if let Some(user) = &found {
            self.kept_users.keep(reading, kept, user);
        }
        Ok(found)
    }

    async fn update(&self, org: &OrgId, user: &User, on: &Event) -> Result<Update, StoreError> {
        let change = self.users.update(org, user, on);
        self.change(org, ChangedRecord::User(user.id), change).await
    }

    async fn list(
        &self,
        org: &OrgId,
        search: Option<&str>,
        page: Page,
    ) -> Result<Listing<Arc<User>>, StoreError> {
        self.users.list(org, search, page).await
    }
}
