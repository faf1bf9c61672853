//! The role that keeps signing keys, sealed.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Insert, Remove, StoreError};
use crate::{
    audit::Event,
    clock::Timestamp,
    id::{KeyId, OrgId},
    keys::{Algorithm, KeyPurpose},
};

/// A signing key as a store may see it: the private part only as ciphertext.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SealedKey {
    /// Its `kid`.
    pub id: KeyId,
    /// What it signs.
    pub purpose: KeyPurpose,
    /// Its place among the keys of this purpose: 0, 1, 2 ..
    pub generation: u32,
    /// How it signs.
    pub algorithm: Algorithm,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it begins to sign. The key with the latest past start signs; the others only verify.
    pub active_from: Timestamp,
    /// The private key, encrypted under the master key (AES-256-GCM; the associated data binds organization,
    /// purpose and `kid`).
    pub sealed: Vec<u8>,
}

/// Keeps sealed signing keys. Recorded.
#[async_trait]
pub trait KeyStore: fmt::Debug + Send + Sync + 'static {
    /// Adds `key` and writes `on`, in one step.
    ///
    /// The id is unique, and so is the pair of purpose and generation, so of any number of servers that rotate
    /// at once exactly one adds the next key; the others get `Taken(Unique::Generation)`.
    /// Checked by `conformance::keys::one_generation_once`. That nothing unsealed arrives here is checked by
    /// `conformance::keys::never_in_the_clear`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn insert(&self, org: &OrgId, key: &SealedKey, on: &Event) -> Result<Insert, StoreError>;

    /// All keys of the organization, by purpose and ascending generation. Checked by
    /// `conformance::keys::round_trip` and `organizations_are_apart`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn list(&self, org: &OrgId) -> Result<Vec<SealedKey>, StoreError>;

    /// Removes a key that no token needs any more. Its generation stays used only as long as a later one
    /// exists, which core guarantees. Checked by `conformance::keys::removal`.
    ///
    /// # Errors
    /// [`StoreError`] if the backend cannot answer.
    async fn remove(&self, org: &OrgId, id: &KeyId, on: &Event) -> Result<Remove, StoreError>;
}
