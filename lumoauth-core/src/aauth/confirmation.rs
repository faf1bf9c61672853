//! The key that a token is bound to (RFC 7800).

use serde_json::{Map, Value, json};

use crate::{
    jwks::{PublicKey, PublicKeys, Thumbprint},
    token::InvalidToken,
};

/// The holder of a token, by its key.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a key and its name are all there is to it")]
pub struct Confirmation {
    /// The key.
    pub key: PublicKey,
    /// Its thumbprint (RFC 7638).
    pub jkt: Thumbprint,
}

impl Confirmation {
    /// Of this key.
    pub fn of(key: PublicKey) -> Self {
        let jkt = key.thumbprint();
        Self { key, jkt }
    }

    /// The `cnf` claim: the key for those who look for it there, and its thumbprint for those who know it.
    pub fn to_claim(&self) -> Value {
        json!({ "jwk": self.key.to_jwk(), "jkt": self.jkt.to_string() })
    }

    /// The `cnf` of these claims. One that only names a thumbprint means one of `known`; if there is a key too, they must be
    /// the same.
    ///
    /// # Errors
    /// [`InvalidToken::Confirmation`] if there is none, it is not usable, or it contradicts itself.
    pub(super) fn read(claims: &Map<String, Value>, known: &PublicKeys) -> Result<Self, InvalidToken> {
        let unusable = InvalidToken::Confirmation;
        let cnf = claims.get("cnf").and_then(Value::as_object).ok_or(unusable)?;
        let jkt = match cnf.get("jkt") {
            None => None,
            Some(text) => {
                Some(text.as_str().and_then(|text| text.parse::<Thumbprint>().ok()).ok_or(unusable)?)
            }
        };
        let key = match (cnf.get("jwk"), &jkt) {
            (Some(jwk), _) => PublicKey::from_jwk(jwk).ok_or(unusable)?,
            (None, Some(jkt)) => known.by_thumbprint(jkt).cloned().ok_or(unusable)?,
            (None, None) => return Err(unusable),
        };
        let found = Self::of(key);
        if jkt.is_some_and(|jkt| jkt != found.jkt) {
            return Err(unusable);
        }
        Ok(found)
    }
}
