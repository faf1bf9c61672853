//! Why a person is not asked, or the answer is not taken.

use http::StatusCode;

use crate::{keys::KeyError, store::StoreError, wire::WireError};

/// What is wrong with a request whose client and redirect URI are good: the client is told, by the browser (RFC 6749
/// section 4.1.2.1, OpenID Connect Core section 3.1.2.6).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A parameter is missing or malformed.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// Only codes are given.
    #[error("Only response_type=code is supported.")]
    UnsupportedResponseType,
    /// Signed request objects are not read.
    #[error("Request objects are not supported.")]
    RequestNotSupported,
    /// The client may not have this item.
    #[error("Scope {0} is not available to this client.")]
    InvalidScope(String),
    /// The resource is unknown or not for this client.
    #[error("The resource is unknown or not available to this client.")]
    InvalidTarget,
    /// The client is not registered for this.
    #[error("This client may not use the authorization endpoint.")]
    UnauthorizedClient,
    /// The person said no, or may not say anything.
    #[error("The request was denied.")]
    AccessDenied,
    /// Nobody is signed in, and nobody may be asked to.
    #[error("Nobody is signed in.")]
    LoginRequired,
    /// The person must be asked, and may not be.
    #[error("The person has not agreed to this.")]
    ConsentRequired,
}

impl RequestError {
    /// The `error` of the answer.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::RequestNotSupported => "request_not_supported",
            Self::InvalidScope(_) => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::AccessDenied => "access_denied",
            Self::LoginRequired => "login_required",
            Self::ConsentRequired => "consent_required",
        }
    }
}

/// Why the browser gets an error page, and the client nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorizeError {
    /// A parameter is missing or malformed. The text is safe to show.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// There is no such client or agent, or it is not active.
    #[error("unknown client")]
    UnknownClient,
    /// The redirect URI is missing, malformed or not registered.
    #[error("redirect URI not registered")]
    RedirectUri,
    /// The pushed request is unknown, expired or another client's.
    #[error("unknown request URI")]
    RequestUri,
    /// The question is unknown, or its time is over.
    #[error("unknown challenge")]
    UnknownChallenge,
    /// The question was put to somebody else, or in another browser session; or the proof that the form came from our page
    /// is missing.
    #[error("challenge of another session")]
    OtherSession,
    /// The question was answered before.
    #[error("challenge decided before")]
    AlreadyDecided,
    /// The answer does not come from a person in person.
    #[error("not in person")]
    NotInPerson,
    /// Others change the same consent all the time.
    #[error("consent changed by others")]
    Busy,
    /// The store cannot answer.
    #[error("store")]
    Store(#[from] StoreError),
    /// The keys cannot be read.
    #[error("keys")]
    Key(#[from] KeyError),
}

impl AuthorizeError {
    /// The error as programs and, in words, people see it.
    pub fn to_wire(&self) -> WireError {
        let bad = |text: &str| WireError::invalid_request(text);
        match self {
            Self::InvalidRequest(text) => bad(text),
            Self::UnknownClient => {
                let text = "The application that sent you here is unknown or switched off.";
                WireError::new(StatusCode::BAD_REQUEST, "invalid_client", text)
            }
            Self::RedirectUri => bad("The address to return to is not registered for this application."),
            Self::RequestUri => {
                bad("The request is unknown or its time is over. Start again at the application.")
            }
            Self::UnknownChallenge => WireError::not_found(
                "This question is unknown or its time is over. Start again at the application.",
            ),
            Self::OtherSession => WireError::forbidden("This question was asked in another session."),
            Self::NotInPerson => WireError::forbidden("Only people in person answer this."),
            Self::AlreadyDecided => {
                WireError::new(StatusCode::CONFLICT, "conflict", "This question has been answered already.")
            }
            Self::Busy => {
                let text = "The record was changed by others at the same time.";
                WireError::new(StatusCode::CONFLICT, "conflict", text)
            }
            Self::Store(_) | Self::Key(_) => WireError::unavailable(),
        }
    }

    /// Whether the fault is ours, so that it must be logged as one.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Key(_))
    }
}
