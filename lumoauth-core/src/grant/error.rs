//! Why the token endpoint refuses, and how that looks on the wire.

use http::StatusCode;

use crate::{
    authorize::RequestError,
    client_auth::Method,
    clock::Timestamp,
    keys::KeyError,
    spending::Exhausted,
    store::StoreError,
    wire::{Challenge, InvalidParams, WireError},
};

/// How many actors a chain may have.
pub const MAX_ACTORS: usize = 3;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// A parameter is missing, repeated or malformed. The text is safe to show.
    #[error("invalid request: {0}")]
    InvalidRequest(&'static str),
    /// The body cannot be read.
    #[error(transparent)]
    Params(#[from] InvalidParams),
    /// The client is not who it says, or not active, or may not use a secret: never told apart.
    #[error("client authentication failed")]
    InvalidClient(Method),
    /// The DPoP proof is not acceptable.
    #[error("invalid DPoP proof")]
    InvalidDpopProof,
    /// The subject token is not acceptable. The text is safe to show.
    #[error("invalid grant: {0}")]
    InvalidGrant(&'static str),
    /// An item of the requested scope is not covered.
    #[error("scope `{0}` is not granted")]
    InvalidScope(String),
    /// The requested scope is not a list of capabilities.
    #[error("malformed scope")]
    MalformedScope,
    /// The scope is longer than a token can carry.
    #[error("scope too large")]
    ScopeTooLarge,
    /// Too many failures from one address.
    #[error("too many failures")]
    TooManyFailures {
        /// When the next try is looked at.
        resets_at: Timestamp,
        /// The time of the request.
        now: Timestamp,
    },
    /// The target is unknown, inactive, or not for this agent.
    #[error("invalid target")]
    InvalidTarget,
    /// No grant of this server has this type.
    #[error("unsupported grant type")]
    UnsupportedGrantType,
    /// No token of this type is exchanged.
    #[error("unsupported token type")]
    UnsupportedTokenType,
    /// The client may not use this grant.
    #[error("client may not use this grant")]
    UnauthorizedClient,
    /// The agent may not act for others. The text is safe to show.
    #[error("delegation not allowed: {0}")]
    DelegationNotAllowed(&'static str),
    /// The person has not agreed to it.
    #[error("consent required")]
    ConsentRequired,
    /// There would be more actors than a chain may have.
    #[error("chain of actors too long")]
    DepthExceeded,
    /// The platform's word for the workload is not acceptable. Clients never learn why; the text is for the log.
    #[error("workload identity not accepted: {0}")]
    WorkloadIdentity(&'static str),
    /// The agent has used up its budget.
    #[error(transparent)]
    BudgetExceeded(#[from] Exhausted),
    /// The request to the authorization endpoint makes no sense.
    #[error(transparent)]
    Authorization(#[from] RequestError),
    /// The store cannot answer.
    #[error("store")]
    Store(#[from] StoreError),
    /// There is no key to sign with.
    #[error("keys")]
    Key(#[from] KeyError),
}

impl TokenError {
    /// The error as the client sees it.
    pub fn to_wire(&self) -> WireError {
        let bad = |error, text: String| WireError::new(StatusCode::BAD_REQUEST, error, text);
        match self {
            Self::InvalidRequest(text) => bad("invalid_request", (*text).to_owned()),
            Self::Params(error) => bad("invalid_request", error.to_string()),
            Self::InvalidClient(method) => {
                let text = "Client authentication failed.";
                let error = WireError::new(StatusCode::UNAUTHORIZED, "invalid_client", text);
                match method {
                    Method::Basic => error.with_challenge(Challenge::Basic),
                    Method::Body => error,
                }
            }
            // RFC 9449 section 5: an error of the request here, where no token is presented.
            Self::InvalidDpopProof => {
                bad("invalid_dpop_proof", "The DPoP proof is not acceptable.".to_owned())
            }
            Self::InvalidGrant(text) => bad("invalid_grant", (*text).to_owned()),
            Self::InvalidScope(scope) => bad("invalid_scope", format!("Scope {scope} is not granted.")),
            Self::MalformedScope => bad("invalid_scope", "The scope is malformed.".to_owned()),
            Self::ScopeTooLarge => {
                bad("invalid_scope", "The scope is too large for one token; ask for less.".to_owned())
            }
            Self::TooManyFailures { resets_at, now } => {
                let seconds = resets_at.since(*now).as_millis().div_ceil(1000);
                let text = "Too many failed requests; slow down.";
                WireError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", text)
                    .with_retry_after(u64::try_from(seconds).unwrap_or(u64::MAX).max(1))
            }
            Self::InvalidTarget => {
                bad("invalid_target", "The target is unknown or not available to this agent.".to_owned())
            }
            Self::UnsupportedGrantType => {
                bad("unsupported_grant_type", "This grant type is not supported.".to_owned())
            }
            Self::UnsupportedTokenType => {
                bad("unsupported_token_type", "This token type is not supported.".to_owned())
            }
            Self::UnauthorizedClient => {
                bad("unauthorized_client", "This client may not use this grant type.".to_owned())
            }
            Self::DelegationNotAllowed(text) => {
                WireError::new(StatusCode::FORBIDDEN, "delegation_not_allowed", *text)
            }
            Self::ConsentRequired => {
                let text = "The user has not agreed to this agent acting for them.";
                WireError::new(StatusCode::FORBIDDEN, "consent_required", text)
            }
            Self::DepthExceeded => {
                let text = "The chain of actors would be too long.";
                let error = WireError::new(StatusCode::FORBIDDEN, "delegation_depth_exceeded", text);
                error.with_member("max_depth", MAX_ACTORS)
            }
            Self::WorkloadIdentity(_) => {
                let text = "The workload identity was not accepted.";
                WireError::new(StatusCode::UNAUTHORIZED, "workload_identity_failed", text)
            }
            Self::Authorization(error) => bad(error.code(), error.to_string()),
            Self::BudgetExceeded(exhausted) => exhausted.to_wire(),
            Self::Store(_) | Self::Key(_) => WireError::unavailable(),
        }
    }

    /// Whether the fault is ours, so that it must be logged as one.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Key(_))
    }

    /// The wire code, as the reason in the audit log.
    pub(crate) fn reason(&self) -> &'static str {
        self.to_wire().error
    }
}
