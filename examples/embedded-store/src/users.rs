//! The role that keeps people.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    id::{OrgId, UserId},
    store::{Insert, Listing, Page, StoreError, Unique, Update, UserKey, UserStore},
    user::User,
};

use crate::{
    EmbeddedStore,
    cache::{Cache, Caches},
    records::{IndexRow, Record, Versioned},
    tables::{Table, key, number_key},
};

fn user_key(org: &OrgId, id: UserId) -> Vec<u8> {
    key(org, &[id.uuid().as_bytes()])
}

fn email_key(org: &OrgId, email: &str) -> Vec<u8> {
    key(org, &[email.as_bytes()])
}

impl Record for User {
    const TABLE: Table = Table::Users;
    const KEY: Unique = Unique::Id;

    fn key(&self, org: &OrgId) -> Vec<u8> {
        user_key(org, self.id)
    }

    fn index_rows(&self, org: &OrgId) -> Vec<IndexRow> {
        vec![
            IndexRow::unique(Table::UserNumbers, number_key(org, self.number), Unique::Number),
            IndexRow::unique(Table::UserEmails, email_key(org, &self.email), Unique::Email),
        ]
    }
}

impl Versioned for User {
    fn version(&self) -> u64 {
        self.version
    }

    fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.users
    }
}

#[async_trait]
impl UserStore for EmbeddedStore {
    async fn insert(&self, org: &OrgId, user: &User, on: &Event) -> Result<Insert, StoreError> {
        self.insert_record(org, user, on).await
    }

    async fn find(&self, org: &OrgId, by: UserKey<'_>) -> Result<Option<Arc<User>>, StoreError> {
        match by {
            UserKey::Id(id) => self.find_record(Table::Users, &user_key(org, id)),
            UserKey::Number(number) => self.find_record(Table::UserNumbers, &number_key(org, number)),
            UserKey::Email(email) => self.find_record(Table::UserEmails, &email_key(org, email)),
        }
    }

    async fn update(&self, org: &OrgId, user: &User, on: &Event) -> Result<Update, StoreError> {
        self.update_record(org, user, on).await
    }

    async fn list(
        &self,
        org: &OrgId,
        search: Option<&str>,
        page: Page,
    ) -> Result<Listing<Arc<User>>, StoreError> {
        let needle = search.map(str::to_ascii_lowercase);
        let matches = |user: &User| {
            let contains =
                |text: &str| text.to_ascii_lowercase().contains(needle.as_deref().unwrap_or_default());
            contains(&user.email) || user.name.as_deref().is_some_and(contains)
        };
        let wanted = search.map(|_| &matches as &(dyn Fn(&User) -> bool + Send + Sync));
        self.list_records(org, Table::UserEmails, wanted, page).await
    }
}
