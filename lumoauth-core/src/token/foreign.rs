//! JWTs that others issued (RFC 7519, RFC 8725): what platforms say about workloads, what clients say about themselves. And
//! those that we issued for others to read: ID tokens that come back.
//!
//! They are read in two steps. [`read`] takes the text apart and shows what it claims, which only decides whose keys to
//! look for; [`Unverified::verify`] gives the claims that somebody signed. Between them:
//!
//! 1. At most 16 KiB, exactly three parts, canonical unpadded base64url; header and claims are strict JSON without
//!    duplicate members, at most 32 levels deep.
//! 2. The algorithm is one of [`JwsAlgorithm`]; `none` and everything symmetric is refused before a key is looked for.
//! 3. `crit`, `b64` and `zip` change what is signed and are refused. Keys in the header (`jwk`, `jku`, `x5u`, `x5c`) are
//!    never used, and no reason to refuse: platforms send them.
//! 4. The key is the one that `kid` names; without `kid`, the only one that fits.
//!
//! Issuer, audience, type and times are the caller's to check, since each door has rules of its own; the readers of
//! [`ForeignClaims`] give nothing of the wrong JSON type.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{InvalidToken, jwt::split};
use crate::{
    clock::Timestamp,
    json,
    jwks::{JwsAlgorithm, MAX_KID_BYTES, PublicKeys},
    keys::VerifyingKey,
};

/// A JWT that has been read but not checked: whatever it says may be a lie.
#[derive(Debug)]
pub(crate) struct Unverified<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    algorithm: JwsAlgorithm,
    kid: Option<String>,
    typ: Option<String>,
    claims: Map<String, Value>,
}

/// Takes a JWT apart.
///
/// # Errors
/// [`InvalidToken`] if it cannot be acceptable whoever signed it.
pub(crate) fn read(token: &str) -> Result<Unverified<'_>, InvalidToken> {
    let (signed, header, payload, signature) = split(token)?;
    let header: Map<String, Value> = json::parse(&header).map_err(|_| InvalidToken::Malformed)?;
    if ["crit", "b64", "zip"].iter().any(|name| header.contains_key(*name)) {
        return Err(InvalidToken::Header);
    }
    let text = |name: &str| match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(InvalidToken::Header),
    };
    let algorithm = text("alg")?.and_then(|name| JwsAlgorithm::from_wire(&name));
    let (kid, typ) = (text("kid")?, text("typ")?);
    if kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
        return Err(InvalidToken::Header);
    }
    Ok(Unverified {
        signed,
        signature,
        algorithm: algorithm.ok_or(InvalidToken::Algorithm)?,
        kid,
        typ,
        claims: json::parse(&payload).map_err(|_| InvalidToken::Malformed)?,
    })
}

/// Whether `text` has the three parts of a signed JWT, whatever they say.
pub(crate) fn looks_like_jwt(text: &str) -> bool {
    split(text).is_ok()
}

impl Unverified<'_> {
    /// Who it claims to be issued by.
    pub(crate) fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    /// Which key it claims to be signed with.
    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// What it claims to be, as it was sent.
    pub(crate) fn typ(&self) -> Option<&str> {
        self.typ.as_deref()
    }

    /// How it claims to be signed.
    pub(crate) fn algorithm(&self) -> JwsAlgorithm {
        self.algorithm
    }

    /// Everything it claims.
    pub(crate) fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// The claims, if one of `keys` signed them.
    ///
    /// # Errors
    /// [`InvalidToken::UnknownKey`] or [`InvalidToken::Signature`].
    pub(crate) fn verify(self, keys: &PublicKeys) -> Result<ForeignClaims, InvalidToken> {
        let key = keys.find(self.kid(), self.algorithm).ok_or(InvalidToken::UnknownKey)?;
        if !key.verify(self.algorithm, self.signed.as_bytes(), &self.signature) {
            return Err(InvalidToken::Signature);
        }
        Ok(ForeignClaims(self.claims))
    }

    /// The claims, if one of our own `keys` signed them. A token of ours always names its key.
    ///
    /// # Errors
    /// [`InvalidToken::UnknownKey`] or [`InvalidToken::Signature`].
    pub(crate) fn verify_own(self, keys: &[VerifyingKey]) -> Result<ForeignClaims, InvalidToken> {
        let is_it = |key: &&VerifyingKey| {
            self.kid() == Some(key.id().as_str()) && key.algorithm().as_str() == self.algorithm.as_str()
        };
        let key = keys.iter().find(is_it).ok_or(InvalidToken::UnknownKey)?;
        if !key.verify(self.signed.as_bytes(), &self.signature) {
            return Err(InvalidToken::Signature);
        }
        Ok(ForeignClaims(self.claims))
    }
}

/// Claims that were signed by a key the caller trusts for something. When and for whom, the caller checks.
#[derive(Clone, Debug)]
pub(crate) struct ForeignClaims(Map<String, Value>);

impl ForeignClaims {
    /// Everything, for claims without a reader of their own.
    pub(crate) fn all(&self) -> &Map<String, Value> {
        &self.0
    }

    /// A claim that is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// `iat`, if it is whole seconds.
    pub(crate) fn issued_at(&self) -> Option<Timestamp> {
        self.0.get("iat")?.as_u64().map(Timestamp::from_unix_seconds)
    }

    /// `exp`, if it is whole seconds.
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        self.0.get("exp")?.as_u64().map(Timestamp::from_unix_seconds)
    }

    /// Whom it is for: one text, or several (RFC 7519 section 4.1.3). A list with anything else in it is for nobody.
    pub(crate) fn audience(&self) -> Vec<&str> {
        match self.0.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => {
                several.iter().map(Value::as_str).collect::<Option<_>>().unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// Whether it is valid at `now`. `exp` is required and has no leeway; `nbf` and `iat` may be `skew` ahead of us. With
    /// `max_age`, `iat` is required too and may be that long ago.
    ///
    /// # Errors
    /// [`InvalidToken`]: `Expired`, `NotYetValid`, or `Malformed` if a time is missing or not whole seconds.
    pub(crate) fn check_times(
        &self,
        now: Timestamp,
        max_age: Option<Duration>,
        skew: Duration,
    ) -> Result<(), InvalidToken> {
        let time = |name: &str| match self.0.get(name) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(seconds) => Ok(Some(Timestamp::from_unix_seconds(seconds))),
                None => Err(InvalidToken::Malformed),
            },
        };
        let (exp, nbf, iat) = (time("exp")?.ok_or(InvalidToken::Malformed)?, time("nbf")?, time("iat")?);
        if exp <= now {
            return Err(InvalidToken::Expired);
        }
        if nbf.max(iat).is_some_and(|latest| latest > now.plus(skew)) {
            return Err(InvalidToken::NotYetValid);
        }
        if let Some(max_age) = max_age {
            let issued = iat.ok_or(InvalidToken::Malformed)?;
            if now.since(issued) > max_age {
                return Err(InvalidToken::Expired);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
