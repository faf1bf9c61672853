//! `private_key_jwt`: a client proves who it is with a JWT that it signed (RFC 7523 section 2.2).
//!
//! 1. `iss` and `sub` are the client's id; `aud` is the issuer of this organization and nothing else, as one text: an
//!    address of an endpoint or a list could be presented to somebody else as well (draft-ietf-oauth-rfc7523bis).
//! 2. `exp` is at most five minutes ahead, `nbf` and `iat` at most a minute, and `jti` is used once. A `typ`, if there is
//!    one, says that it is an assertion: a client signs other things with its key.
//! 3. The keys are those that an administrator registered for the client, or registered the address of. What the
//!    assertion says about keys is not looked at.
//! 4. The `jti` is remembered only after everything else has passed, so nobody else can use it up.

use std::time::Duration;

use super::{AuthenticatedClient, Desk};
use crate::{
    agent::{AuthMethod, Barred},
    foreign_keys::{ForeignKeyError, KeySource},
    secret::{Secret, sha256},
    store::{Remembered, StoreError},
    token::{
        InvalidToken,
        foreign::{self, ForeignClaims, Unverified},
    },
};

/// The only `client_assertion_type` there is.
pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How far ahead `exp` may be.
const LONGEST_LIFE: Duration = Duration::from_secs(5 * 60);
/// How far ahead of ours the client's clock may be.
const SKEW: Duration = Duration::from_secs(60);
/// The longest `jti`, in bytes.
const MAX_JTI_BYTES: usize = 256;

/// Why an assertion proves nothing. For the log; clients never learn it.
#[derive(Debug, thiserror::Error)]
pub(super) enum AssertionError {
    #[error("assertion is not acceptable: {0}")]
    Token(#[from] InvalidToken),
    #[error("{0}")]
    Keys(#[from] ForeignKeyError),
    #[error("client is not active, or public")]
    NotUsable,
    #[error("client has no registered keys")]
    NoKeys,
    #[error("{0}")]
    Barred(#[from] Barred),
    #[error("assertion is of another type")]
    WrongType,
    #[error("assertion is by or about somebody else")]
    WrongClient,
    #[error("assertion is for another audience")]
    WrongAudience,
    #[error("assertion is valid for too long")]
    TooLong,
    #[error("assertion has no usable jti")]
    NoJti,
    #[error("assertion was used before")]
    Replayed,
    #[error("assertion may have been used before this server began to remember")]
    TooOld,
    /// The only one that is no refusal.
    #[error("store")]
    Store(#[from] StoreError),
}

/// The client that an assertion says it is of, before anything is proven.
pub(super) fn claimed_client(assertion: &Secret) -> Option<String> {
    let unverified = foreign::read(assertion.expose()).ok()?;
    unverified.claims().get("sub")?.as_str().map(str::to_owned)
}

/// Whether `client` signed `assertion` for us and now, and presents it for the first time.
pub(super) async fn verify(
    at: &Desk<'_>,
    client: &AuthenticatedClient,
    assertion: &Secret,
) -> Result<(), AssertionError> {
    let claims = check(at, client, assertion.expose()).await?;
    let jti = claims.text("jti").filter(|jti| !jti.is_empty() && jti.len() <= MAX_JTI_BYTES);
    let (Some(jti), Some(exp)) = (jti, claims.expires_at()) else { return Err(AssertionError::NoJti) };
    // No server accepts it before either of these, and the later one is the better bound.
    let by_end = exp.minus(LONGEST_LIFE);
    let presented_from = claims.issued_at().map_or(by_end, |iat| by_end.max(iat.minus(SKEW)));
    let key = sha256(format!("{}\0{jti}", client.client_id()).as_bytes());
    match at.stores.replay.remember(at.org, "client_assertion", &key, presented_from, exp, at.now).await? {
        Remembered::First => Ok(()),
        Remembered::Replay => Err(AssertionError::Replayed),
        Remembered::TooOld => Err(AssertionError::TooOld),
    }
}

/// The claims, if they pass everything but the question whether they were presented before.
async fn check(
    at: &Desk<'_>,
    client: &AuthenticatedClient,
    assertion: &str,
) -> Result<ForeignClaims, AssertionError> {
    let (usable, jwks, uri) = match client {
        AuthenticatedClient::Agent(agent) => (agent.is_active(), &agent.jwks, &agent.jwks_uri),
        AuthenticatedClient::Client(client) => {
            (client.active && client.confidential, &client.jwks, &client.jwks_uri)
        }
    };
    if !usable {
        return Err(AssertionError::NotUsable);
    }
    let source = match (jwks, uri) {
        (Some(set), _) => KeySource::Inline(set),
        (None, Some(uri)) => KeySource::JwksUri(uri),
        (None, None) => return Err(AssertionError::NoKeys),
    };
    let unverified = foreign::read(assertion)?;
    if !is_assertion(&unverified) {
        return Err(AssertionError::WrongType);
    }
    let keys = at.foreign_keys.keys(source, unverified.kid(), at.now).await?;
    let claims = unverified.verify(&keys)?;
    let id = client.client_id().as_str();
    if claims.text("iss") != Some(id) || claims.text("sub") != Some(id) {
        return Err(AssertionError::WrongClient);
    }
    if claims.text("aud") != Some(at.issuer) {
        return Err(AssertionError::WrongAudience);
    }
    claims.check_times(at.now, None, SKEW)?;
    if claims.expires_at().is_none_or(|exp| exp > at.now.plus(LONGEST_LIFE)) {
        return Err(AssertionError::TooLong);
    }
    if let AuthenticatedClient::Agent(agent) = client {
        agent.check(AuthMethod::PrivateKeyJwt, at.from)?;
    }
    Ok(claims)
}

/// Whether its `typ`, if there is one, is that of an assertion (draft-ietf-oauth-rfc7523bis) or says nothing.
fn is_assertion(token: &Unverified<'_>) -> bool {
    token.typ().is_none_or(|typ| {
        let typ = typ.strip_prefix("application/").unwrap_or(typ);
        typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("client-authentication+jwt")
    })
}

#[cfg(test)]
mod tests;
