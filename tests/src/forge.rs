//! Making tokens that must be refused.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};

use crate::b64;

/// A P-256 key that the server has never seen.
#[derive(Debug)]
pub struct AttackerKey(EcdsaKeyPair);

impl AttackerKey {
    /// A fresh key.
    ///
    /// # Panics
    /// When the machine has no randomness.
    pub fn generate() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    /// Its public half as a JWK.
    pub fn jwk(&self, kid: &str) -> Value {
        let point = self.0.public_key().as_ref();
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid,
            "x": b64(&point[1..33]), "y": b64(&point[33..65]),
        })
    }

    /// A JWS over `header` and `claims` with a signature of this key.
    ///
    /// # Panics
    /// When the machine has no randomness.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let input = signing_input(header, claims);
        format!("{input}.{}", b64(self.sign_bytes(input.as_bytes())))
    }

    /// Its signature over `message`: r and s, 64 bytes.
    ///
    /// # Panics
    /// When the machine has no randomness.
    pub fn sign_bytes(&self, message: &[u8]) -> Vec<u8> {
        #[expect(clippy::disallowed_methods, reason = "an attacker brings randomness of its own")]
        let random = SystemRandom::new();
        self.0.sign(&random, message).expect("a signature").as_ref().to_vec()
    }
}

/// A JWS whose signature is HMAC-SHA-256 under `secret`.
pub fn forged(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let input = signing_input(header, claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
    format!("{input}.{}", b64(tag))
}

/// A JWS with an empty signature.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.", signing_input(header, claims))
}

fn signing_input(header: &Value, claims: &Value) -> String {
    format!("{}.{}", b64(header.to_string()), b64(claims.to_string()))
}
