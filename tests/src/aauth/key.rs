//! Key pairs of agents and resources.

use aws_lc_rs::{
    digest::{SHA256, digest},
    encoding::AsBigEndian,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};

use crate::b64;

/// An Ed25519 key pair with a name.
#[derive(Debug)]
pub struct Ed25519 {
    kid: String,
    pair: Ed25519KeyPair,
}

impl Ed25519 {
    /// A fresh one.
    ///
    /// # Panics
    /// When the machine has no randomness.
    pub fn generate(kid: &str) -> Self {
        Self { kid: kid.to_owned(), pair: Ed25519KeyPair::generate().expect("a key") }
    }

    /// The one of these 32 secret bytes.
    ///
    /// # Panics
    /// Never in practice.
    pub fn of_seed(kid: &str, seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("every seed is a key");
        Self { kid: kid.to_owned(), pair }
    }

    /// Its name.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The same key by another name.
    ///
    /// # Panics
    /// Never in practice.
    #[must_use]
    pub fn called(&self, kid: &str) -> Self {
        let seed =
            self.pair.seed().and_then(|seed| Ok(seed.as_be_bytes()?.as_ref().to_vec())).expect("a seed");
        Self::of_seed(kid, seed.try_into().expect("32 bytes"))
    }

    /// `x` of its JWK.
    pub fn x(&self) -> String {
        b64(self.pair.public_key())
    }

    /// Its public half as a JWK.
    pub fn jwk(&self) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": self.x(), "kid": self.kid, "use": "sig" })
    }

    /// A set of just it.
    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.jwk()] })
    }

    /// RFC 7638.
    pub fn thumbprint(&self) -> String {
        b64(digest(&SHA256, format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, self.x()).as_bytes()))
    }

    /// Its signature of these bytes.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.pair.sign(bytes).as_ref().to_vec()
    }

    /// A JWS of this type with these claims.
    pub fn token(&self, typ: &str, claims: &Value) -> String {
        self.jws(&json!({ "typ": typ, "alg": "EdDSA", "kid": self.kid }), claims)
    }

    /// A JWS with this header and these claims.
    pub fn jws(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature = b64(self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}
