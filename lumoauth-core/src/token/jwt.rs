//! Compact JWS (RFC 7515) and JWT checks (RFC 7519, RFC 8725) for our own tokens.
//!
//! One small module of our own instead of a general library: our tokens have one form, and everything else is
//! refused before any cryptography.
//!
//! 1. At most 16 KiB, exactly three parts, canonical unpadded base64url.
//! 2. The header has exactly `alg`, `kid` and `typ`; anything more (`crit`, `b64`, `jwk`, `jku`, `x5c` ..) is
//!    refused.
//! 3. The key is found by `kid` among our own; its algorithm, not the header's, decides how to check.
//! 4. Header and claims are strict JSON: no duplicate members, at most 32 levels.
//! 5. `iss` is exactly ours, `exp` has not come, `nbf` and `iat` are at most 30 seconds ahead.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::AccessClaims;
use crate::{
    clock::Timestamp,
    json,
    keys::{KeyError, Signer, VerifyingKey},
};

/// The longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// How far ahead of ours the clock of the replica that issued a token may be, in seconds.
const CLOCK_SKEW: u64 = 30;

/// Why a token is not accepted. Logged; clients only learn that it is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("too long")]
    TooLong,
    /// Not three parts of canonical base64url with strict JSON inside.
    #[error("malformed")]
    Malformed,
    /// The header has members we never write.
    #[error("unexpected header")]
    Header,
    /// The wrong kind of token.
    #[error("wrong type")]
    WrongType,
    /// No key of ours has this id and algorithm.
    #[error("unknown key")]
    UnknownKey,
    /// The signature does not fit.
    #[error("bad signature")]
    Signature,
    /// Issued by or for somebody else.
    #[error("wrong issuer")]
    WrongIssuer,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// Its time has not come.
    #[error("not yet valid")]
    NotYetValid,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

/// The token that `signer` makes of `claims`. `kid` and `alg` come from the key that signs.
pub(crate) async fn sign(signer: &dyn Signer, typ: &str, claims: &impl Serialize) -> Result<String, KeyError> {
    let claims = serde_json::to_vec(claims).map_err(|_| KeyError::Crypto("claims"))?;
    let mut header = String::with_capacity(96);
    // None of the three values needs JSON escaping: two are our constants, a key id is of `A-Z a-z 0-9 _ - .`.
    write!(
        header,
        r#"{{"alg":"{}","kid":"{}","typ":"{typ}"}}"#,
        signer.algorithm().as_str(),
        signer.key_id()
    )
    .map_err(|_| KeyError::Crypto("header"))?;
    let mut token = String::with_capacity((header.len() + claims.len()) * 4 / 3 + 96);
    URL_SAFE_NO_PAD.encode_string(header, &mut token);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let signature = signer.sign(token.as_bytes()).await?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

/// The claims of `token`, if one of `keys` signed it as an access token of `issuer` that is valid at `now`.
///
/// Whether it is still *alive* (not revoked, its principals active) is another question, which needs the
/// stores.
///
/// # Errors
/// [`InvalidToken`] says which check failed.
pub fn verify(
    token: &str,
    keys: &[VerifyingKey],
    issuer: &str,
    now: Timestamp,
) -> Result<AccessClaims, InvalidToken> {
    let (signed, header, payload, signature) = split(token)?;
    let header: serde_json::Value = json::parse(&header).map_err(|_| InvalidToken::Malformed)?;
    let header = Header::deserialize(header).map_err(|_| InvalidToken::Header)?;
    if header.typ != "at+jwt" {
        return Err(InvalidToken::WrongType);
    }
    let key = keys
        .iter()
        .find(|key| key.id().as_str() == header.kid && key.algorithm().as_str() == header.alg)
        .ok_or(InvalidToken::UnknownKey)?;
    if !key.verify(signed.as_bytes(), &signature) {
        return Err(InvalidToken::Signature);
    }
    let claims: AccessClaims = json::parse(&payload).map_err(|_| InvalidToken::Malformed)?;
    if claims.iss != issuer {
        return Err(InvalidToken::WrongIssuer);
    }
    let now = now.unix_seconds();
    if claims.exp <= now {
        return Err(InvalidToken::Expired);
    }
    if claims.nbf.max(claims.iat) > now + CLOCK_SKEW {
        return Err(InvalidToken::NotYetValid);
    }
    Ok(claims)
}

/// The `iss` that `token` claims, before anything is verified: it only says whose keys to check it with.
pub(crate) fn unverified_issuer(token: &str) -> Result<String, InvalidToken> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    let (_, _, payload, _) = split(token)?;
    json::parse::<Issuer>(&payload).map(|claims| claims.iss).map_err(|_| InvalidToken::Malformed)
}

/// Signed text, and the three decoded parts.
#[expect(clippy::type_complexity, reason = "the parts of a compact JWS, used right here")]
fn split(token: &str) -> Result<(&str, Vec<u8>, Vec<u8>, Vec<u8>), InvalidToken> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(InvalidToken::TooLong);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(InvalidToken::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(InvalidToken::Malformed)?;
    if payload.contains('.') {
        return Err(InvalidToken::Malformed);
    }
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| InvalidToken::Malformed);
    Ok((signed, decode(header)?, decode(payload)?, decode(signature)?))
}
