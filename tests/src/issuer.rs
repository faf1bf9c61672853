//! A platform's token issuer: discovery, a key, and tokens with real signatures.

use serde_json::{Value, json};

use crate::{AttackerKey, KeyPage, KeySite};

/// An issuer on [`KeySite::trusted`], with one key that is called `k1`.
#[derive(Debug)]
pub struct Issuer {
    url: String,
    metadata: KeyPage<'static>,
    keys: KeyPage<'static>,
    key: AttackerKey,
}

impl Issuer {
    /// A new one.
    pub fn start() -> Self {
        let site = KeySite::trusted();
        let ((url, metadata), keys, key) = (site.issuer(), site.page(), AttackerKey::generate());
        metadata.show(json!({ "issuer": url, "jwks_uri": keys.uri() }));
        keys.publish(&[("k1", &key)]);
        Self { url, metadata, keys, key }
    }

    /// The `iss` of its tokens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How often its metadata and its keys were asked for.
    pub fn asked(&self) -> (u64, u64) {
        (self.metadata.asked(), self.keys.asked())
    }

    /// Where its keys are.
    pub fn keys_uri(&self) -> String {
        self.keys.uri()
    }

    /// Its keys, as it publishes them.
    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.key.jwk("k1")] })
    }

    /// A token with these claims, signed by its key.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" }), claims)
    }

    /// A token with this header, signed by its key.
    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        self.key.sign(header, claims)
    }
}
