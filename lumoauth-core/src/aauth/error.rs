//! Why there is no token.

use http::StatusCode;

use crate::{
    clock::Timestamp,
    foreign_keys::ForeignKeyError,
    grant::{Exhausted, TokenError},
    httpsig::SignatureError,
    keys::KeyError,
    store::StoreError,
    token::{InvalidProof, InvalidToken},
    wire::{Challenge, WireError},
};

/// Why a request is not known to come from a registered party. The name of the sort is shown, the rest is for the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unauthenticated {
    /// The request carries no signature, or not one that is accepted.
    #[error("{0}")]
    Signature(#[from] SignatureError),
    /// The request does not say who signs: neither an agent token nor a `Signature-Key`.
    #[error("the request does not say who signed it")]
    NoSigner,
    /// The agent token is not acceptable.
    #[error("agent token is not acceptable: {0}")]
    AgentToken(#[source] InvalidToken),
    /// There is no active party of this name, or it may not do this.
    #[error("the party is unknown, not active, or may not do this")]
    Party,
    /// Its keys cannot be had.
    #[error("{0}")]
    Keys(#[source] ForeignKeyError),
    /// The DPoP proof in place of a signature is not acceptable.
    #[error("{0}")]
    Proof(#[source] InvalidProof),
    /// The request is signed by another key than the one that the token is bound to.
    #[error("the token is bound to another key")]
    KeyBinding,
}

impl Unauthenticated {
    /// The machine-readable reason in the `details` of the answer.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Signature(_) | Self::NoSigner => "invalid_signature",
            Self::AgentToken(_) | Self::Party | Self::Keys(_) => "invalid_agent_token",
            Self::Proof(_) => "invalid_dpop_proof",
            Self::KeyBinding => "key_binding_failed",
        }
    }

    /// A sentence that is safe to show.
    fn description(&self) -> String {
        match self {
            Self::Signature(error) => error.to_string(),
            Self::NoSigner => {
                "Send Agent-Auth: agent_token=<JWT>, or Signature-Key: <identifier>#<kid>.".to_owned()
            }
            // Which parties there are is nobody's business.
            Self::AgentToken(_) | Self::Party | Self::Keys(_) => "The signer is not accepted.".to_owned(),
            Self::Proof(_) => {
                "The DPoP proof is not for this request and the key of the agent token.".to_owned()
            }
            Self::KeyBinding => "The request is not signed by the key that the token is bound to.".to_owned(),
        }
    }
}

/// Why there is no answer to an AAuth request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AAuthError {
    /// Who sent it is not proven.
    #[error("not authenticated: {0}")]
    Unauthenticated(#[from] Unauthenticated),
    /// The request is malformed, or lacks something.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// The `request_type` is none that is served.
    #[error("the request_type is not supported")]
    UnsupportedRequestType,
    /// The resource token is not acceptable, or is about somebody else.
    #[error("resource token refused: {0}")]
    ResourceToken(&'static str),
    /// The code, refresh token or upstream token is unknown, used, over, or somebody else's.
    #[error("{0}")]
    InvalidGrant(&'static str),
    /// This part of the scope is more than the resource asked for or one of the parties may have.
    #[error("scope `{0}` cannot be had")]
    InvalidScope(String),
    /// The resource is not the one that the grant is for, or not active.
    #[error("the resource is unknown, not active, or another one than the grant is for")]
    InvalidTarget,
    /// The policy refuses.
    #[error("{0}")]
    Denied(&'static str),
    /// There is no access token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A budget is used up.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// Too many failures from this address.
    #[error("too many failed attempts")]
    TooManyFailures {
        /// When to try again.
        resets_at: Timestamp,
        /// The time of the request.
        now: Timestamp,
    },
    /// The stores do not answer.
    #[error("store")]
    Store(#[from] StoreError),
    /// The keys cannot be had.
    #[error("keys")]
    Key(#[from] KeyError),
}

impl AAuthError {
    /// Whether it is an outage and says nothing about the request.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Store(_) | Self::Key(_) => true,
            Self::Unauthenticated(Unauthenticated::Signature(error)) => error.is_outage(),
            Self::Unauthenticated(Unauthenticated::Proof(error)) => error.is_outage(),
            Self::Token(error) => error.is_outage(),
            _ => false,
        }
    }

    /// The reason, for the log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unauthenticated(cause) => cause.reason(),
            Self::InvalidRequest(_) => "invalid_request",
            Self::UnsupportedRequestType => "unsupported_request_type",
            Self::ResourceToken(_) => "invalid_resource_token",
            Self::InvalidGrant(_) => "invalid_grant",
            Self::InvalidScope(_) => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::Denied(_) => "access_denied",
            Self::Token(error) => error.reason(),
            Self::Exhausted(_) => "budget_exceeded",
            Self::TooManyFailures { .. } => "rate_limited",
            Self::Store(_) | Self::Key(_) => "unavailable",
        }
    }

    /// The answer. `auth_server` is the issuer, so that whoever is refused knows where to ask.
    pub fn to_wire(&self, auth_server: &str) -> WireError {
        if self.is_outage() {
            return WireError::unavailable();
        }
        let bad = |code| WireError::new(StatusCode::BAD_REQUEST, code, self.to_string());
        match self {
            Self::Unauthenticated(cause) => {
                let error =
                    WireError::new(StatusCode::UNAUTHORIZED, "authentication_required", cause.description())
                        .with_member("auth_server", auth_server)
                        .with_detail("reason", cause.reason());
                match cause {
                    Unauthenticated::Proof(_) => error.with_challenge(Challenge::dpop(cause.reason())),
                    _ => error,
                }
            }
            Self::Denied(text) => WireError::new(StatusCode::FORBIDDEN, "access_denied", *text),
            Self::Token(error) => error.to_wire(),
            Self::Exhausted(exhausted) => exhausted.to_wire(),
            Self::TooManyFailures { resets_at, now } => {
                TokenError::TooManyFailures { resets_at: *resets_at, now: *now }.to_wire()
            }
            _ => bad(self.reason()),
        }
    }
}
