//! Signing keys: who signs ([`KeyProvider`], [`Signer`]), and the local implementation ([`KeyRing`]).

mod jwk;
mod local;
mod ring;
mod sealed;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    id::{KeyId, OrgId},
    store::StoreError,
};

pub use jwk::{Jwk, VerifyingKey};
pub use local::LocalSigner;
pub use ring::{KeyRing, KeyRingConfig};
pub use sealed::{MasterKey, ParseMasterKeyError};

/// How a key signs (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Algorithm {
    /// ECDSA with P-256 and SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, 2048 bits or more.
    #[serde(rename = "RS256")]
    Rs256,
    /// Ed25519, checked strictly.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Algorithm {
    /// The `alg` value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm with this `alg` value.
    pub fn from_wire(name: &str) -> Option<Self> {
        [Self::Es256, Self::Rs256, Self::EdDsa].into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

/// What a key is for. A key of one purpose never signs for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyPurpose {
    /// OAuth access tokens.
    AccessToken,
    /// Tokens of AAuth. Always Ed25519.
    #[serde(rename = "aauth")]
    AAuth,
    /// Heads of the audit log. Always Ed25519, and never removed: a head is verified as long as anybody keeps it.
    AuditHead,
}

impl KeyPurpose {
    /// Every purpose.
    pub const ALL: [Self; 3] = [Self::AccessToken, Self::AAuth, Self::AuditHead];

    /// A stable name, part of what a sealed key is bound to.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => "access_token",
            Self::AAuth => "aauth",
            Self::AuditHead => "audit_head",
        }
    }
}

/// A key could not be had or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key store cannot answer.
    #[error("key store unavailable")]
    Store(#[from] StoreError),
    /// A stored key cannot be opened: another master key, or a damaged or moved record.
    #[error("sealed key `{0}` cannot be opened")]
    Sealed(KeyId),
    /// The cryptographic library or a remote signer refused.
    #[error("key operation failed: {0}")]
    Crypto(&'static str),
}

/// Gives the keys of an organization.
///
/// Implement it to keep keys in a KMS or HSM; [`KeyRing`] keeps them sealed in a
/// [`KeyStore`](crate::store::KeyStore).
#[async_trait]
pub trait KeyProvider: fmt::Debug + Send + Sync + 'static {
    /// The signer that is active at `now`. Choose first, then sign: `kid` and `alg` of a token come from the
    /// very key that signs it, so a rotation in between cannot split them.
    ///
    /// # Errors
    /// [`KeyError`] if there is none to be had.
    async fn signer(
        &self,
        org: &OrgId,
        purpose: KeyPurpose,
        now: Timestamp,
    ) -> Result<Arc<dyn Signer>, KeyError>;

    /// The keys that verify at `now`: upcoming, active and retiring; of [`KeyPurpose::AuditHead`] all that ever signed, as the
    /// heads of the audit log are kept for ever.
    ///
    /// # Errors
    /// [`KeyError`] if they cannot be read.
    async fn verifying_keys(
        &self,
        org: &OrgId,
        purpose: KeyPurpose,
        now: Timestamp,
    ) -> Result<Arc<[VerifyingKey]>, KeyError>;

    /// Makes, rotates and removes keys whose time has come. Called by maintenance, for every organization.
    ///
    /// # Errors
    /// [`KeyError`] if a key cannot be made or stored.
    async fn maintain(&self, org: &OrgId, now: Timestamp) -> Result<(), KeyError>;
}

/// One key, ready to sign.
#[async_trait]
pub trait Signer: fmt::Debug + Send + Sync {
    /// The `kid`.
    fn key_id(&self) -> &KeyId;

    /// The `alg`.
    fn algorithm(&self) -> Algorithm;

    /// The signature of `message`, in JWS form (for ECDSA the fixed-length pair).
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if it cannot be made.
    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;
}
