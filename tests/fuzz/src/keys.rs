//! Ed25519 keys that never change, of the server and of others.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lumoauth_core::{
    clock::Timestamp,
    id::{KeyId, OrgId},
    keys::{Algorithm, KeyError, KeyProvider, KeyPurpose, Signer, VerifyingKey},
};
use serde_json::{Value, json};

/// A key pair.
pub struct Pair {
    kid: KeyId,
    pair: Ed25519KeyPair,
}

impl Pair {
    /// The pair with this name; `seed` is all its secret is made of.
    pub fn new(kid: &str, seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("32 bytes are a seed");
        Self { kid: KeyId::parse(kid).expect("a key id"), pair }
    }

    /// The public key as others publish theirs.
    pub fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x})
    }

    /// The public key as the server verifies by it.
    pub fn verifying(&self) -> VerifyingKey {
        VerifyingKey::eddsa(self.kid.clone(), self.pair.public_key().as_ref()).expect("a public key")
    }

    /// A signature.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    /// A JWT of these texts, whatever they are, properly signed.
    pub fn jwt(&self, header: &[u8], payload: &[u8]) -> String {
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(text.as_bytes()));
        format!("{text}.{signature}")
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("kid", &self.kid).finish_non_exhaustive()
    }
}

#[async_trait]
impl Signer for Pair {
    fn key_id(&self) -> &KeyId {
        &self.kid
    }

    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDsa
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        Ok(Pair::sign(self, message))
    }
}

/// One key for each purpose.
#[derive(Clone, Debug)]
pub struct FixedKeys {
    /// That of access tokens.
    pub access: Arc<Pair>,
    /// That of AAuth's tokens.
    pub aauth: Arc<Pair>,
}

impl FixedKeys {
    fn of(&self, purpose: KeyPurpose) -> &Arc<Pair> {
        if purpose == KeyPurpose::AAuth { &self.aauth } else { &self.access }
    }
}

#[async_trait]
impl KeyProvider for FixedKeys {
    async fn signer(
        &self,
        _: &OrgId,
        purpose: KeyPurpose,
        _: Timestamp,
    ) -> Result<Arc<dyn Signer>, KeyError> {
        Ok(self.of(purpose).clone())
    }

    async fn verifying_keys(
        &self,
        _: &OrgId,
        purpose: KeyPurpose,
        _: Timestamp,
    ) -> Result<Arc<[VerifyingKey]>, KeyError> {
        Ok([self.of(purpose).verifying()].into())
    }

    async fn maintain(&self, _: &OrgId, _: Timestamp) -> Result<(), KeyError> {
        Ok(())
    }
}
