//! Reading and verifying tokens, independently of the code under test.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, jwk::JwkSet};
use serde_json::Value;

use crate::{Org, text};

/// A compact JWS, taken apart but not verified.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Token {
    /// The whole string.
    pub text: String,
    /// Protected header.
    pub header: Value,
    /// Claims.
    pub claims: Value,
}

impl Token {
    /// Takes `token` apart.
    ///
    /// # Panics
    /// When it is no compact JWS with JSON inside.
    #[track_caller]
    pub fn parse(token: &str) -> Self {
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(parts.len(), 3, "a compact JWS has three parts: {token}");
        let json = |part: &str| serde_json::from_slice(&unb64(part)).expect("JSON in a token part");
        Self { text: token.to_owned(), header: json(parts[0]), claims: json(parts[1]) }
    }

    /// The three parts.
    ///
    /// # Panics
    /// Never, for a token that was parsed.
    pub fn parts(&self) -> [&str; 3] {
        let parts: Vec<&str> = self.text.split('.').collect();
        parts.try_into().expect("three parts")
    }
}

/// An organization's published signing keys.
#[derive(Clone, Debug)]
pub struct Jwks {
    raw: Value,
    keys: JwkSet,
}

impl Jwks {
    /// Fetches them.
    ///
    /// # Panics
    /// When they cannot be had or read.
    #[track_caller]
    pub fn fetch(org: &Org<'_>) -> Self {
        Self::read(org.get("/.well-known/jwks.json").send().ok())
    }

    /// Reads a document that was fetched.
    ///
    /// # Panics
    /// When it is no JWK set.
    #[track_caller]
    pub fn read(raw: Value) -> Self {
        let keys = serde_json::from_value(raw.clone()).expect("a JWK set");
        Self { raw, keys }
    }

    /// The document.
    pub fn raw(&self) -> &Value {
        &self.raw
    }

    /// The claims of `token`, once `jsonwebtoken` has verified signature, issuer, audience and times with the key
    /// that its `kid` names.
    ///
    /// # Panics
    /// When it does not verify.
    #[track_caller]
    pub fn verify(&self, token: &str, issuer: &str, audience: &str) -> Value {
        let header = jsonwebtoken::decode_header(token).expect("a JWS header");
        let kid = header.kid.expect("a key id");
        let jwk = self.keys.find(&kid).unwrap_or_else(|| panic!("{kid} is not published: {}", self.raw));
        let allowed = [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA];
        assert!(allowed.contains(&header.alg), "{:?}", header.alg);
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        let key = DecodingKey::from_jwk(jwk).expect("a usable key");
        let claims = decode::<Value>(token, &key, &validation).expect("the token verifies").claims;
        assert_eq!(text(&claims["iss"]), issuer);
        claims
    }
}

/// Base64url without padding.
pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes base64url without padding.
///
/// # Panics
/// When it is none.
#[track_caller]
pub fn unb64(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).expect("base64url")
}
