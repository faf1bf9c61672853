//! Keys that tokens are bound to, and proofs of them (RFC 9449), independently of the code under test.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::{AttackerKey, Request, Server, b64, unique, unix_now};

/// A key of a client that asks for tokens that nobody else can use.
#[derive(Debug)]
pub struct DpopKey(AttackerKey);

impl DpopKey {
    /// A fresh key, for proofs that go to `server`.
    ///
    /// Waits until the server remembers everything that such proofs can have been used for.
    pub fn for_server(server: &Server) -> Self {
        server.wait_until_up_for(Duration::from_secs(7));
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

    /// The claims of a good proof for a request with `token`, if there is one already.
    ///
    /// They are from the last seconds of the minute that clocks may be ahead: a server whose memory is in no database does not
    /// accept what could have been used before that began, and a proof of now could have been for a minute.
    pub fn claims(&self, method: &str, url: &str, token: Option<&str>) -> Value {
        let mut claims = json!({ "htm": method, "htu": url, "iat": unix_now() + 55, "jti": unique("proof") });
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
