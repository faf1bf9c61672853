//! Making tokens that must be refused.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{b64, text, unb64};

/// A P-256 key of somebody else than the server: of an attacker, or of a client or platform with keys of its own.
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

/// A P-256 public key as an attacker may guess that a server feeds it to HMAC.
///
/// # Panics
/// When `jwk` is none.
pub fn forms_of_public_key(jwk: &Value) -> Vec<Vec<u8>> {
    let point = [vec![4], unb64(text(&jwk["x"])), unb64(text(&jwk["y"]))].concat();
    // SubjectPublicKeyInfo of a P-256 key: a fixed prefix, then the point.
    let prefix = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
        0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let der = [prefix.to_vec(), point.clone()].concat();
    let base64 = STANDARD.encode(&der);
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ascii")).collect();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", lines.join("\n"));
    vec![
        der,
        point,
        format!("{pem}\n").into_bytes(),
        pem.into_bytes(),
        base64.into_bytes(),
        jwk.to_string().into_bytes(),
        json!({ "keys": [jwk] }).to_string().into_bytes(),
        text(&jwk["x"]).as_bytes().to_vec(),
        unb64(text(&jwk["x"])),
        text(&jwk["kid"]).as_bytes().to_vec(),
        Vec::new(),
    ]
}

fn signing_input(header: &Value, claims: &Value) -> String {
    format!("{}.{}", b64(header.to_string()), b64(claims.to_string()))
}
