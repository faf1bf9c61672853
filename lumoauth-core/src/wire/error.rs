//! The one error body.
//!
//! Clients of this API know three shapes: the OAuth one (`error`, `error_description`), and two of the
//! management API (`error`, `message`, `status`, `code`, `details`). The body here is a superset of all three;
//! `error` is always a string.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::{clock::Timestamp, jit::AuthorizationDetail, jwks::JwsAlgorithm, token::DPOP_ALGORITHMS};

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WireError {
    /// The status.
    pub status: StatusCode,
    /// The machine-readable error.
    pub error: &'static str,
    /// The `code` member, where it must differ from `error` or be absent.
    pub code: Option<&'static str>,
    /// One sentence that is safe to show.
    pub description: String,
    /// Members beside the common ones.
    pub members: Option<Box<Map<String, Value>>>,
    /// The `details` member.
    pub details: Map<String, Value>,
    /// The `Retry-After` header, in whole seconds.
    pub retry_after: Option<u32>,
    /// The `WWW-Authenticate` header.
    pub challenge: Option<Box<Challenge>>,
    /// Names and values of the `RateLimit` headers.
    pub rate_limit: Option<Box<[(&'static str, String); 2]>>,
}

/// What a `WWW-Authenticate` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Challenge {
    /// Client credentials by HTTP Basic (RFC 6749 section 5.2).
    Basic,
    /// A bearer token, with these parameters (RFC 6750 section 3).
    Bearer(Vec<(&'static str, String)>),
    /// A token with a proof that its key is held, with these parameters (RFC 9449 section 7.1).
    Dpop(Vec<(&'static str, String)>),
}

impl WireError {
    /// An error whose `code` equals its `error`.
    pub fn new(status: StatusCode, error: &'static str, description: impl Into<String>) -> Self {
        Self {
            status,
            error,
            code: Some(error),
            description: description.into(),
            members: None,
            details: Map::new(),
            retry_after: None,
            challenge: None,
            rate_limit: None,
        }
    }

    /// 400 `invalid_request`.
    pub fn invalid_request(description: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    /// 404 `not_found`.
    pub fn not_found(description: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", description)
    }

    /// 403 `forbidden`.
    pub fn forbidden(description: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", description)
    }

    /// 429 `rate_limit_exceeded`, with `Retry-After`.
    pub fn rate_limited(retry_after: u64) -> Self {
        let text = "Too many requests; slow down.";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", text).with_retry_after(retry_after)
    }

    /// The same, until `resets_at`: whole seconds from `now`, at least one.
    pub fn rate_limited_until(resets_at: Timestamp, now: Timestamp) -> Self {
        let seconds = resets_at.since(now).as_millis().div_ceil(1000);
        Self::rate_limited(u64::try_from(seconds).unwrap_or(u64::MAX).max(1))
    }

    /// 503: the store or the keys do not answer. It says nothing of the cause.
    pub fn unavailable() -> Self {
        let description = "The service is temporarily unavailable.";
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", description);
        error.retry_after = Some(1);
        error
    }

    /// 401 `invalid_token` with its challenge (RFC 6750 section 3.1).
    pub fn invalid_token() -> Self {
        let text = "The credential is missing, invalid, expired or revoked.";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_token", text)
            .with_challenge(Challenge::Bearer(vec![("error", "invalid_token".to_owned())]))
    }

    /// The same for a token that must be presented with a proof.
    pub fn invalid_dpop_token() -> Self {
        Self::invalid_token().with_challenge(Challenge::dpop("invalid_token"))
    }

    /// 401 `invalid_dpop_proof` with its challenge (RFC 9449 section 7.1).
    pub fn invalid_dpop_proof() -> Self {
        let text = "The DPoP proof is missing, or not for this request, this token and this time.";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_dpop_proof", text)
            .with_challenge(Challenge::dpop("invalid_dpop_proof"))
    }

    /// 403 `insufficient_authorization_details`: what a token would have to be for, as a client can ask for it.
    pub fn insufficient_details(required: Option<&AuthorizationDetail>) -> Self {
        let challenge = Challenge::Bearer(vec![("error", INSUFFICIENT.to_owned())]);
        let text = "The token was not granted for this.";
        let error = Self::new(StatusCode::FORBIDDEN, INSUFFICIENT, text).with_challenge(challenge);
        match required {
            Some(required) => error.with_detail(DETAILS, required.to_json()),
            None => error,
        }
    }

    /// The `Insufficient-Authorization-Details` header: what is missing as JSON in standard base64, if something in particular
    /// is.
    pub fn missing_details(&self) -> Option<String> {
        let missing = self.details.get(DETAILS).filter(|_| self.error == INSUFFICIENT)?;
        Some(STANDARD.encode(missing.to_string()))
    }

    /// The same with another `code`, or none.
    #[must_use]
    pub fn with_code(mut self, code: Option<&'static str>) -> Self {
        self.code = code;
        self
    }

    /// The same with one more member of the body.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.get_or_insert_default().insert(name.to_owned(), value.into());
        self
    }

    /// The same with one more detail.
    #[must_use]
    pub fn with_detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// The same with a `Retry-After`.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(u32::try_from(seconds).unwrap_or(u32::MAX));
        self
    }

    /// The same with `RateLimit` headers.
    #[must_use]
    pub fn with_rate_limit(mut self, headers: Option<[(&'static str, String); 2]>) -> Self {
        self.rate_limit = headers.map(Box::new);
        self
    }

    /// The same with a `WWW-Authenticate`.
    #[must_use]
    pub fn with_challenge(mut self, challenge: Challenge) -> Self {
        self.challenge = Some(Box::new(challenge));
        self
    }

    /// The JSON body.
    pub fn body(&self) -> Value {
        let mut body = self.members.as_deref().cloned().unwrap_or_default();
        body.insert("error".to_owned(), self.error.into());
        body.insert("error_description".to_owned(), self.description.clone().into());
        body.insert("message".to_owned(), self.description.clone().into());
        body.insert("status".to_owned(), self.status.as_u16().into());
        if let Some(code) = self.code {
            body.insert("code".to_owned(), code.into());
        }
        body.insert("details".to_owned(), json!(self.details));
        Value::Object(body)
    }
}

const INSUFFICIENT: &str = "insufficient_authorization_details";

/// The member of `details` that says what is missing.
const DETAILS: &str = "authorization_details";

impl Challenge {
    /// What answers a token that came, or should have come, with a proof.
    pub fn dpop(error: &str) -> Self {
        let algorithms = DPOP_ALGORITHMS.map(JwsAlgorithm::as_str).join(" ");
        Self::Dpop(vec![("error", error.to_owned()), ("algs", algorithms)])
    }

    /// The value of the header.
    pub fn header_value(&self) -> String {
        match self {
            Self::Basic => r#"Basic realm="token""#.to_owned(),
            Self::Bearer(parameters) => with_parameters("Bearer", parameters),
            Self::Dpop(parameters) => with_parameters("DPoP", parameters),
        }
    }
}

fn with_parameters(scheme: &str, parameters: &[(&'static str, String)]) -> String {
    let list: Vec<_> = parameters
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", value.replace(['"', '\\'], "")))
        .collect();
    if list.is_empty() { scheme.to_owned() } else { format!("{scheme} {}", list.join(", ")) }
}
