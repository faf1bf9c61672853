//! Public keys of others (RFC 7517): sets of them as they are registered or fetched, and what of a set can be used.
//!
//! 1. A set that holds private or symmetric keys is refused as a whole: whoever publishes those has a leak to mend.
//! 2. What of a set can be used is decided when it is read. A key that is too weak, malformed, not for signatures or of an
//!    unknown sort is skipped and never tried, and the other keys of its set are used.
//! 3. A key verifies by the algorithms of its type; one that names an algorithm verifies by that one only
//!    (RFC 8725 section 3.1).

mod http_algorithm;
mod public_key;
#[cfg(test)]
pub(crate) mod test_key;
mod thumbprint;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json;

pub use http_algorithm::HttpAlgorithm;
pub use public_key::{JwsAlgorithm, PublicKey};
pub use thumbprint::{ParseThumbprintError, Thumbprint};

/// A set of public keys as it was registered. What of it can be used is decided when it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JwkSet {
    /// The keys, as they were given.
    pub keys: Vec<Value>,
}

/// The text is not a set of public keys that is accepted. The messages are safe to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidJwks {
    /// Longer than [`JwkSet::MAX_BYTES`].
    #[error("the key set is too long")]
    TooLong,
    /// More keys than [`JwkSet::MAX_KEYS`].
    #[error("the key set has too many keys")]
    TooManyKeys,
    /// Not strict JSON in the form of RFC 7517 section 5.
    #[error("this is not a key set")]
    Malformed,
    /// Two keys have one `kid`.
    #[error("two keys of the key set have one `kid`")]
    DuplicateKid,
    /// A private or symmetric key.
    #[error("the key set holds a private or symmetric key")]
    Private,
}

/// Members that only private and symmetric keys have (RFC 7518 sections 6.2.2, 6.3.2 and 6.4, RFC 8037 section 2).
const PRIVATE_MEMBERS: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// The longest `kid` that is looked at, in bytes.
pub(crate) const MAX_KID_BYTES: usize = 256;

impl JwkSet {
    /// The longest set that is read, in bytes.
    pub const MAX_BYTES: usize = 64 * 1024;
    /// The most keys that a set may have.
    pub const MAX_KEYS: usize = 64;

    /// Reads a set (RFC 7517 section 5). Unknown members are kept, and unusable keys with them.
    ///
    /// ```
    /// use lumoauth_core::jwks::{InvalidJwks, JwkSet};
    ///
    /// assert!(JwkSet::parse(br#"{"keys":[]}"#).is_ok());
    /// assert_eq!(JwkSet::parse(br#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#), Err(InvalidJwks::Private));
    /// ```
    ///
    /// # Errors
    /// [`InvalidJwks`] if it is too large, not strict JSON, has a `kid` twice, or holds a key that must not be shown.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidJwks> {
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidJwks::TooLong);
        }
        let mut set: Map<String, Value> = json::parse(text).map_err(|_| InvalidJwks::Malformed)?;
        let Some(Value::Array(keys)) = set.remove("keys") else { return Err(InvalidJwks::Malformed) };
        let set = Self { keys };
        set.check()?;
        Ok(set)
    }

    /// Whether [`JwkSet::parse`] accepts keys such as these: for sets that come inside of other JSON.
    ///
    /// # Errors
    /// [`InvalidJwks`] says what is wrong with them.
    pub fn check(&self) -> Result<(), InvalidJwks> {
        if self.keys.len() > Self::MAX_KEYS {
            return Err(InvalidJwks::TooManyKeys);
        }
        let mut kids = HashSet::new();
        for key in &self.keys {
            let Value::Object(key) = key else { return Err(InvalidJwks::Malformed) };
            if PRIVATE_MEMBERS.iter().any(|name| key.contains_key(*name)) {
                return Err(InvalidJwks::Private);
            }
            let Some(kid) = key.get("kid") else { continue };
            let kid = kid.as_str().filter(|kid| kid.len() <= MAX_KID_BYTES);
            if !kids.insert(kid.ok_or(InvalidJwks::Malformed)?) {
                return Err(InvalidJwks::DuplicateKid);
            }
        }
        Ok(())
    }
}

/// The usable keys of a set, ready to verify.
#[derive(Clone, Debug, Default)]
pub struct PublicKeys(Vec<PublicKey>);

impl PublicKeys {
    /// The usable keys of `set`: RSA of 2048 to 8192 bits, EC on P-256 and P-384, Ed25519. The others are skipped.
    pub fn of(set: &JwkSet) -> Self {
        Self(set.keys.iter().take(JwkSet::MAX_KEYS).filter_map(PublicKey::from_jwk).collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them has a part of small order.
    pub(crate) fn has_mixed_order(&self) -> bool {
        self.0.iter().any(PublicKey::is_of_mixed_order)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a key has this id.
    pub fn contains(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid() == Some(kid))
    }

    /// The key with this id.
    pub fn by_kid(&self, kid: &str) -> Option<&PublicKey> {
        self.0.iter().find(|key| key.kid() == Some(kid))
    }

    /// The key with this thumbprint.
    pub fn by_thumbprint(&self, thumbprint: &Thumbprint) -> Option<&PublicKey> {
        self.0.iter().find(|key| key.thumbprint() == *thumbprint)
    }

    /// The key that must have made a signature by `algorithm` that names `kid`; if it names none, the only key that can
    /// have. If that leaves more than one key there is none: nothing is tried.
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: JwsAlgorithm) -> Option<&PublicKey> {
        let mut fitting =
            self.0.iter().filter(|key| (kid.is_none() || key.kid() == kid) && key.verifies_by(algorithm));
        fitting.next().filter(|_| fitting.next().is_none())
    }
}

#[cfg(test)]
mod tests;
