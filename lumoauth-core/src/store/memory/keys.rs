//! Sealed signing keys in memory.

use async_trait::async_trait;

use super::{MemoryStore, table::Record};
use crate::{
    audit::Event,
    id::{KeyId, OrgId},
    keys::KeyPurpose,
    store::{Insert, KeyStore, Remove, SealedKey, StoreError, Unique},
};

#[derive(PartialEq, Eq, Hash)]
pub(super) enum Key {
    Id(KeyId),
    Generation(KeyPurpose, u32),
}

impl Record for SealedKey {
    type Key = Key;
    type Order = (KeyPurpose, u32);

    fn id(&self) -> Key {
        Key::Id(self.id.clone())
    }

    fn keys(&self) -> Vec<(Unique, Key)> {
        let generation = Key::Generation(self.purpose, self.generation);
        vec![(Unique::Id, Key::Id(self.id.clone())), (Unique::Generation, generation)]
    }

    fn order(&self) -> (KeyPurpose, u32) {
        (self.purpose, self.generation)
    }
}

#[async_trait]
impl KeyStore for MemoryStore {
    async fn insert(&self, org: &OrgId, key: &SealedKey, on: &Event) -> Result<Insert, StoreError> {
        Ok(self.recorded(&self.keys, org, on, |keys| keys.insert(key)))
    }

    async fn list(&self, org: &OrgId) -> Result<Vec<SealedKey>, StoreError> {
        Ok(self.keys.read(org, |keys| keys.after(None).map(|key| SealedKey::clone(key)).collect()))
    }

    async fn remove(&self, org: &OrgId, id: &KeyId, on: &Event) -> Result<Remove, StoreError> {
        Ok(self.recorded(&self.keys, org, on, |keys| keys.remove(&Key::Id(id.clone()))))
    }
}
