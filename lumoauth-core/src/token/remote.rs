//! Access tokens of another server, at a service that knows no more of that server than its public keys.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::{
    AccessClaims, InvalidToken,
    foreign::{self, Unverified},
};
use crate::{clock::Timestamp, jwks::PublicKeys};

/// How far ahead of ours the clock of the issuer may be.
const SKEW: Duration = Duration::from_secs(30);

/// An access token (RFC 9068) that has been read but not checked: whatever it says may be a lie.
///
/// The checks are those that the issuer makes of its own tokens ([`verify`](super::verify)), and whom it is for. Whether it is
/// still *alive* only the issuer knows: what is revoked is accepted until its `exp`. One that is bound
/// to a key is refused: here a token is all that is presented.
#[derive(Debug)]
pub struct RemoteToken<'a>(Unverified<'a>);

impl<'a> RemoteToken<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`InvalidToken`] if it cannot be acceptable whoever signed it.
    pub fn read(token: &'a str) -> Result<Self, InvalidToken> {
        let token = foreign::read(token)?;
        if token.typ() != Some("at+jwt") {
            return Err(InvalidToken::WrongType);
        }
        if token.kid().is_none() {
            return Err(InvalidToken::Header);
        }
        Ok(Self(token))
    }

    /// Who it claims to be issued by: whoever it is, keys are looked for at one issuer only.
    pub fn issuer(&self) -> Option<&str> {
        self.0.issuer()
    }

    /// Which key it claims to be signed with.
    pub fn kid(&self) -> Option<&str> {
        self.0.kid()
    }

    /// The claims, if one of `keys` signed them, they are of `issuer` and for `resource`, and valid at `now`. A token that
    /// was made for a task is refused.
    ///
    /// # Errors
    /// [`InvalidToken`] says which check failed.
    pub fn verify(
        self,
        keys: &PublicKeys,
        issuer: &str,
        resource: &str,
        now: Timestamp,
    ) -> Result<AccessClaims, InvalidToken> {
        self.meant(keys, issuer, now, |claims| claims.is_for_resource(resource))
    }

    /// The same where `resource` asks for authorization details: [`AccessClaims::is_for_details_at`].
    ///
    /// # Security
    /// The claims say who calls and nothing else: whoever takes them must look at the details, those of tokens with `jit`
    /// only.
    ///
    /// # Errors
    /// The same.
    pub fn verify_for_details(
        self,
        keys: &PublicKeys,
        issuer: &str,
        resource: &str,
        now: Timestamp,
    ) -> Result<AccessClaims, InvalidToken> {
        self.meant(keys, issuer, now, |claims| claims.is_for_details_at(resource))
    }

    fn meant(
        self,
        keys: &PublicKeys,
        issuer: &str,
        now: Timestamp,
        for_us: impl FnOnce(&AccessClaims) -> bool,
    ) -> Result<AccessClaims, InvalidToken> {
        let verified = self.0.verify(keys)?;
        verified.check_times(now, None, SKEW)?;
        let claims = AccessClaims::deserialize(Value::Object(verified.all().clone()))
            .map_err(|_| InvalidToken::Malformed)?;
        if claims.iss != issuer {
            return Err(InvalidToken::WrongIssuer);
        }
        if !for_us(&claims) {
            return Err(InvalidToken::WrongAudience);
        }
        if claims.cnf.is_some() {
            return Err(InvalidToken::Bound);
        }
        Ok(claims)
    }
}
