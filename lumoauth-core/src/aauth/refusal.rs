//! What a resource demands of its callers, and what it answers to those who do not have it.

use http::{HeaderValue, StatusCode};

use super::{
    AuthClaims,
    resource_server::{CHALLENGE, IssuerUnavailable},
};
use crate::{
    aauth_resource::AuthLevel, capability::Scope, httpsig::SignatureError, id::AAuthIdentifier,
    token::InvalidToken, wire::WireError,
};

/// What a route demands. By default an auth token, whatever it may be used for.
#[derive(Clone, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "hosts name every demand")]
pub struct Demand {
    /// What the token must be good for.
    pub scope: Scope,
    /// How much a person must have had to do with it.
    pub level: AuthLevel,
    /// Whether the signature must show that nobody changed the query, which the SDK's do not do.
    pub query_coverage: bool,
}

impl Demand {
    /// Why a token with these claims is not enough.
    pub fn refusal_of(&self, claims: &AuthClaims) -> Option<RefusalCause> {
        if claims.auth_level < self.level {
            return Some(RefusalCause::Level(self.level));
        }
        let held = claims.scope.as_slice();
        let covered =
            |wanted: &_| held.iter().any(|held: &crate::capability::Capability| held.covers(wanted));
        (!self.scope.as_slice().iter().all(covered)).then(|| RefusalCause::Scope(self.scope.clone()))
    }
}

/// Why a resource does not serve a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefusalCause {
    /// The request is not signed, or not so that it counts.
    #[error("{0}")]
    Signature(#[from] SignatureError),
    /// There is no auth token.
    #[error("there is no auth token")]
    NoToken,
    /// The token is none for this resource, or not any more.
    #[error("auth token is not acceptable: {0}")]
    Token(#[from] InvalidToken),
    /// The token was revoked, or something ended that it stands on.
    #[error("auth token is not alive")]
    Dead,
    /// The request is signed by another key than the one that the token is bound to.
    #[error("the token is bound to another key")]
    KeyBinding,
    /// A person must have more to do with it.
    #[error("level `{}` is required", .0.as_str())]
    Level(AuthLevel),
    /// The token may not be used for this.
    #[error("scope `{0}` is required")]
    Scope(Scope),
    /// Nobody can say. The request must be refused.
    #[error("what must be known cannot be asked")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<IssuerUnavailable> for RefusalCause {
    fn from(error: IssuerUnavailable) -> Self {
        Self::Unavailable(error.into())
    }
}

/// A refusal: why, and what to answer.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// Why.
    pub cause: RefusalCause,
    /// The `Agent-Auth` of the answer: what to come back with.
    pub challenge: Option<HeaderValue>,
    auth_server: AAuthIdentifier,
}

impl Refusal {
    pub(super) fn new(cause: RefusalCause, auth_server: &AAuthIdentifier) -> Self {
        let cause = match cause {
            RefusalCause::Signature(SignatureError::Store(error)) => RefusalCause::Unavailable(error.into()),
            cause => cause,
        };
        let challenge = (!matches!(cause, RefusalCause::Unavailable(_))).then_some(CHALLENGE);
        Self { cause, challenge, auth_server: auth_server.clone() }
    }

    pub(super) fn with_challenge(self, challenge: HeaderValue) -> Self {
        Self { challenge: Some(challenge), ..self }
    }

    /// Whether a backend failed, and the refusal says nothing about the request.
    pub fn is_outage(&self) -> bool {
        matches!(self.cause, RefusalCause::Unavailable(_))
    }

    /// The body and status of the answer.
    pub fn to_wire(&self) -> WireError {
        let unauthenticated = |reason: &str, text: String| {
            WireError::new(StatusCode::UNAUTHORIZED, "authentication_required", text)
                .with_member("auth_server", self.auth_server.as_str())
                .with_detail("reason", reason)
        };
        let forbidden = |error, text: String| {
            WireError::new(StatusCode::FORBIDDEN, error, text)
                .with_member("auth_server", self.auth_server.as_str())
        };
        match &self.cause {
            RefusalCause::Signature(error) => unauthenticated("invalid_signature", error.to_string()),
            RefusalCause::NoToken => {
                unauthenticated("auth_token_required", "Send an auth token for this resource.".to_owned())
            }
            // Which check failed is for the log.
            RefusalCause::Token(_) | RefusalCause::Dead => unauthenticated(
                "invalid_token",
                "The token is no auth token for this resource, or not any more.".to_owned(),
            ),
            RefusalCause::KeyBinding => unauthenticated(
                "key_binding_failed",
                "The request is not signed by the key that the token is bound to.".to_owned(),
            ),
            RefusalCause::Level(level) => {
                forbidden("insufficient_auth_level", format!("Level {} is required.", level.as_str()))
                    .with_detail("required", level.as_str())
            }
            RefusalCause::Scope(scope) => {
                forbidden("insufficient_scope", format!("Scope {scope} is required."))
                    .with_member("scope", scope.to_string())
                    .with_detail("required", scope.to_string())
            }
            RefusalCause::Unavailable(_) => WireError::unavailable(),
        }
    }
}
