//! The port for outgoing HTTP: everything this crate ever fetches goes through [`Fetch`].
//!
//! The port exists so that a host decides what may leave the machine. An implementation must refuse plain
//! `http`, private and link-local addresses (checked on the address it connects to), redirects, bodies above
//! the request's limit and answers slower than the request's time, unless its host allowed the exception.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue};
use url::Url;

use crate::secret::Secret;

/// One request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FetchRequest {
    /// From where.
    pub url: Url,
    /// A POST of this form, and not a GET.
    pub form: Option<Secret>,
    /// A POST of this JSON, and not a GET.
    pub json: Option<Secret>,
    /// Headers beside the usual ones. `Accept: application/json` is usual.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The most bytes of body that are read.
    pub max_bytes: usize,
    /// The longest the whole exchange may take.
    pub timeout: Duration,
}

impl FetchRequest {
    /// A POST of an `application/x-www-form-urlencoded` body to `url`, within the limits of [`FetchRequest::get`].
    pub fn post_form(url: Url, form: Secret) -> Self {
        Self { form: Some(form), ..Self::get(url) }
    }

    /// A POST of an `application/json` body to `url`, within the limits of [`FetchRequest::get`].
    pub fn post_json(url: Url, json: Secret) -> Self {
        Self { json: Some(json), ..Self::get(url) }
    }

    /// A GET of `url` with at most 256 KiB in 5 seconds.
    pub fn get(url: Url) -> Self {
        Self {
            url,
            form: None,
            json: None,
            headers: Vec::new(),
            max_bytes: 256 * 1024,
            timeout: Duration::from_secs(5),
        }
    }
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The host does not let us go there.
    #[error("fetching from this address is not allowed")]
    NotAllowed,
    /// No answer, or not in time.
    #[error("no answer")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An answer that is not a plain success within the limits.
    #[error("unusable answer with status {0}")]
    Unusable(u16),
}

/// Outgoing HTTP.
#[async_trait]
pub trait Fetch: fmt::Debug + Send + Sync + 'static {
    /// The body of a 200 answer.
    ///
    /// # Errors
    /// [`FetchError`] for everything else.
    async fn fetch(&self, request: FetchRequest) -> Result<Vec<u8>, FetchError>;

    /// Whether JSON may be posted to `url`, as far as that can be told without a look-up: whoever names a place that is
    /// refused for certain hears it at once. What is said to be possible here is looked at again when it is posted. If an
    /// implementation says nothing, everything is.
    fn may_post_to(&self, _url: &Url) -> bool {
        true
    }
}

/// Fetches nothing: for servers whose host lets nothing out.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to know")]
pub struct NoFetch;

#[async_trait]
impl Fetch for NoFetch {
    async fn fetch(&self, _: FetchRequest) -> Result<Vec<u8>, FetchError> {
        Err(FetchError::NotAllowed)
    }
}
