//! Keys that tokens are bound to, and proofs of them (RFC 9449), independently of the code under test.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::{AttackerKey, Request, b64, unique, unix_now};

/// A key of a client that asks for tokens that nobody else can use.
#[derive(Debug)]
pub struct DpopKey(AttackerKey);

impl DpopKey {
    /// A fresh key.
    pub fn generate() -> Self {
        Self(AttackerKey::generate())
    }

    /// The key itself.
    pub fn key(&self) -> &AttackerKey {
        &self.0
    }

    /// Its thumbprint (RFC 7638).
    pub fn thumbprint(&self) -> String {
        let jwk = self.0.jwk("");
        let (x, y) = (&jwk["x"], &jwk["y"]);
        b64(digest(&SHA256, format!(r#"{{"crv":"P-256","kty":"EC","x":{x},"y":{y}}}"#).as_bytes()))
    }

    /// The header of a good proof.
    pub fn header(&self) -> Value {
        json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": self.0.jwk("k") })
    }

    /// The claims of a good proof of this second for a request with `token`, if there is one already.
    pub fn claims(&self, method: &str, url: &str, token: Option<&str>) -> Value {
        let mut claims = json!({ "htm": method, "htu": url, "iat": unix_now(), "jti": unique("proof") });
        if let Some(token) = token {
            claims["ath"] = b64(digest(&SHA256, token.as_bytes())).into();
        }
        claims
    }

    /// A good proof.
    pub fn proof(&self, method: &str, url: &str, token: Option<&str>) -> String {
        self.0.sign(&self.header(), &self.claims(method, url, token))
    }
}

impl Request {
    /// `Authorization: DPoP`, with a proof.
    pub fn dpop(self, token: &str, proof: &str) -> Self {
        self.header("Authorization", &format!("DPoP {token}")).header("DPoP", proof)
    }
}
