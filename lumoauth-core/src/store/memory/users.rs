//! People in memory.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    MemoryStore,
    table::{Record, Versioned},
};
use crate::{
    audit::Event,
    id::{Number, OrgId, UserId},
    store::{Insert, Listing, Page, StoreError, Unique, Update, UserKey, UserStore},
    user::User,
};

#[derive(PartialEq, Eq, Hash)]
pub(super) enum Key {
    Id(UserId),
    Number(Number),
    Email(String),
}

impl From<UserKey<'_>> for Key {
    fn from(key: UserKey<'_>) -> Self {
        match key {
            UserKey::Id(id) => Self::Id(id),
            UserKey::Number(number) => Self::Number(number),
            UserKey::Email(email) => Self::Email(email.to_owned()),
        }
    }
}

impl Record for User {
    type Key = Key;
    type Order = String;

    fn id(&self) -> Key {
        Key::Id(self.id)
    }

    fn keys(&self) -> Vec<(Unique, Key)> {
        vec![
            (Unique::Id, Key::Id(self.id)),
            (Unique::Number, Key::Number(self.number)),
            (Unique::Email, Key::Email(self.email.clone())),
        ]
    }

    fn order(&self) -> String {
        self.email.clone()
    }
}

impl Versioned for User {
    fn version(&self) -> u64 {
        self.version
    }

    fn at_version(&self, version: u64) -> Self {
        Self { version, ..self.clone() }
    }
}

#[async_trait]
impl UserStore for MemoryStore {
    async fn insert(&self, org: &OrgId, user: &User, on: &Event) -> Result<Insert, StoreError> {
        Ok(self.recorded(&self.users, org, on, |users| users.insert(user)))
    }

    async fn find(&self, org: &OrgId, key: UserKey<'_>) -> Result<Option<Arc<User>>, StoreError> {
        Ok(self.users.read(org, |users| users.find(&key.into())))
    }

    async fn update(&self, org: &OrgId, user: &User, on: &Event) -> Result<Update, StoreError> {
        Ok(self.recorded(&self.users, org, on, |users| users.update(user)))
    }

    async fn list(
        &self,
        org: &OrgId,
        search: Option<&str>,
        page: Page,
    ) -> Result<Listing<Arc<User>>, StoreError> {
        let needle = search.map(str::to_ascii_lowercase).unwrap_or_default();
        let fits = |text: &str| text.to_ascii_lowercase().contains(&needle);
        let wanted = |user: &User| fits(&user.email) || user.name.as_deref().is_some_and(fits);
        Ok(self.users.read(org, |users| users.list(page, wanted)))
    }
}
