//! Why a layer refused, as a value, and the response that says so.

use bytes::Bytes;
use http::{Response, StatusCode};
use lumoauth_core::{
    capability::{Capability, DenyReason},
    jit::AuthorizationDetail,
    principal::{Identity, Principal, RemoteKind},
    server::{ApiError, AuthenticateError},
    spending::SpendError,
    wire::WireError,
};

use crate::reply;

/// A refusal. It is in the extensions of the response that a layer answers with, so that outer layers can log or
/// replace it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rejection {
    /// Why.
    pub reason: RejectionReason,
    /// What the client sees.
    pub wire: WireError,
}

/// Why a layer refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectionReason {
    /// No credential, or one that is not accepted here.
    Unauthenticated,
    /// A credential of another organization.
    OtherOrganization,
    /// The caller may not do this.
    Denied(DenyReason),
    /// The caller's token was not granted for this, in detail.
    Details,
    /// The caller's budget does not allow it.
    Budget,
    /// The content is too large, or did not arrive.
    Content,
    /// The stores or the keys do not answer; nothing is allowed then.
    Unavailable,
    /// A layer that must come first is missing.
    Misconfigured,
}

impl Rejection {
    pub(crate) fn unauthenticated() -> Self {
        Self { reason: RejectionReason::Unauthenticated, wire: WireError::invalid_token() }
    }

    pub(crate) fn misconfigured(missing: &'static str) -> Self {
        tracing::error!(missing, "a layer is missing: add it outside of this one");
        let wire =
            WireError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "The server is misconfigured.");
        Self { reason: RejectionReason::Misconfigured, wire }
    }

    pub(crate) fn denied(principal: &Principal, wanted: &[Capability], reason: DenyReason) -> Self {
        let names = |list: &[Capability]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let wire = match &principal.identity {
            Identity::Remote(caller) if caller.kind == RemoteKind::User => {
                let granted = names(caller.scope.as_slice());
                ApiError::InsufficientScope { required: names(wanted), granted }.to_wire()
            }
            Identity::Agent(_) | Identity::Client(_) | Identity::Remote(_) => {
                let text = format!("Capability {} is required.", names(wanted).join(" or "));
                WireError::new(StatusCode::FORBIDDEN, "capability_denied", text)
                    .with_detail("required", names(wanted))
            }
            Identity::User(_) => {
                let granted = names(principal.token_scope().unwrap_or_default());
                ApiError::InsufficientScope { required: names(wanted), granted }.to_wire()
            }
            Identity::ApiKey(key) => {
                ApiError::InsufficientScope { required: names(wanted), granted: names(&key.scopes) }.to_wire()
            }
        };
        Self { reason: RejectionReason::Denied(reason), wire }
    }

    /// What a token lacks in detail; nothing is named if the request is none that anybody could be granted.
    pub(crate) fn insufficient_details(required: Option<&AuthorizationDetail>) -> Self {
        Self { reason: RejectionReason::Details, wire: WireError::insufficient_details(required) }
    }

    /// The response, with the rejection in its extensions.
    pub fn into_response<B: From<Bytes>>(self) -> Response<B> {
        let mut response = reply::error(&self.wire).map(B::from);
        response.extensions_mut().insert(self);
        response
    }
}

impl From<SpendError> for Rejection {
    fn from(error: SpendError) -> Self {
        let (reason, wire) = match error {
            SpendError::Exceeded(exhausted) => (RejectionReason::Budget, exhausted.to_wire()),
            SpendError::UsedUp { retry_after } => {
                let text = "A budget of the caller is used up.";
                let wire = WireError::new(StatusCode::TOO_MANY_REQUESTS, "budget_exceeded", text);
                (RejectionReason::Budget, wire.with_retry_after(retry_after))
            }
            SpendError::NotAccepted => (RejectionReason::Unauthenticated, WireError::invalid_token()),
            SpendError::ModelNotAllowed => (RejectionReason::Budget, ApiError::ModelNotAllowed.to_wire()),
            SpendError::ApprovalRequired => (RejectionReason::Budget, ApiError::ApprovalRequired.to_wire()),
            SpendError::TooManyQuestions { retry_after } => {
                (RejectionReason::Budget, WireError::rate_limited(retry_after))
            }
            SpendError::ApprovalDenied => {
                let text = "Whoever was asked did not agree to this call.";
                (RejectionReason::Budget, WireError::new(StatusCode::FORBIDDEN, "approval_denied", text))
            }
            outage => {
                tracing::error!(error = &outage as &dyn std::error::Error, "cannot charge a budget");
                (RejectionReason::Unavailable, WireError::unavailable())
            }
        };
        Self { reason, wire }
    }
}

impl From<AuthenticateError> for Rejection {
    fn from(error: AuthenticateError) -> Self {
        let reason = match &error {
            AuthenticateError::Refused | AuthenticateError::RefusedDpop | AuthenticateError::InvalidProof => {
                RejectionReason::Unauthenticated
            }
            AuthenticateError::OtherOrganization => RejectionReason::OtherOrganization,
            outage => {
                tracing::error!(error = outage as &dyn std::error::Error, "cannot authenticate");
                RejectionReason::Unavailable
            }
        };
        Self { reason, wire: error.to_wire() }
    }
}

impl Rejection {
    /// Administration is for people and their API keys: an agent cannot change what it may do itself.
    pub(crate) fn not_for_agents() -> Self {
        Self {
            reason: RejectionReason::Denied(DenyReason::NotGranted),
            wire: WireError::forbidden("This route is for administrators, not for agents."),
        }
    }
}
