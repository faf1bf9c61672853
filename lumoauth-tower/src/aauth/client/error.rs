//! What ends a call.

use std::{error::Error, fmt, sync::Arc};

use lumoauth_core::{
    aauth::client::{ClientError, ConsentNeeded},
    secret::Secret,
};
use url::Origin;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Why a call of an AAuth agent did not come to an answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AAuthClientError {
    /// A person must agree first, in their browser. [`AAuthClient::finish`](crate::AAuthClient::finish) takes their answer;
    /// until it comes, other calls for the same end in the same.
    ConsentNeeded(PendingConsent),
    /// The resource or the authorization server refuses, or what they say does not fit.
    Protocol(Arc<ClientError>),
    /// The authorization server cannot be reached, or does not answer in time and in a size that is read.
    AuthServer(Arc<dyn Error + Send + Sync>),
    /// The request could not be sent.
    NotSent(Arc<dyn Error + Send + Sync>),
    /// A person's answer cannot be taken without a redirect URI.
    NoRedirectUri,
}

/// A question to a person that waits for its answer.
#[derive(Clone, Debug)]
pub struct PendingConsent {
    pub(super) needed: ConsentNeeded,
    pub(super) origin: Origin,
}

impl PendingConsent {
    /// Where the person's browser is to go. A `state` may be added to it, which comes back with the answer.
    pub fn auth_url(&self) -> &Secret {
        &self.needed.auth_url
    }

    /// Names the question.
    pub fn request_token(&self) -> &Secret {
        &self.needed.request_token
    }

    /// Everything that is known of it.
    pub fn needed(&self) -> &ConsentNeeded {
        &self.needed
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.needed.request_token.hash().matches(&other.needed.request_token)
    }
}

impl AAuthClientError {
    pub(super) fn not_sent(error: impl Into<BoxError>) -> Self {
        Self::NotSent(error.into().into())
    }

    /// The error code, if the authorization server refused.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Protocol(error) => error.refusal(),
            _ => None,
        }
    }

    /// Whether the authorization server could not be asked or has a failure of its own, so that the answer may be another one
    /// later.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::AuthServer(_) => true,
            Self::Protocol(error) => match &**error {
                ClientError::Refused { status, .. } | ClientError::Answer(status) => {
                    status.is_server_error() || *status == http::StatusCode::TOO_MANY_REQUESTS
                }
                _ => false,
            },
            _ => false,
        }
    }
}

impl From<ClientError> for AAuthClientError {
    fn from(error: ClientError) -> Self {
        Self::Protocol(Arc::new(error))
    }
}

impl fmt::Display for AAuthClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConsentNeeded(_) => f.write_str("a person must agree first"),
            Self::Protocol(error) => error.fmt(f),
            Self::AuthServer(_) => f.write_str("the authorization server does not answer"),
            Self::NotSent(_) => f.write_str("the request could not be sent"),
            Self::NoRedirectUri => f.write_str("there is no redirect URI to ask a person with"),
        }
    }
}

impl Error for AAuthClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Protocol(error) => error.source(),
            Self::AuthServer(error) | Self::NotSent(error) => Some(&**error),
            Self::ConsentNeeded(_) | Self::NoRedirectUri => None,
        }
    }
}

/// The answer took too long.
#[derive(Debug)]
pub(super) struct CutOff;

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no answer in time")
    }
}

impl Error for CutOff {}
