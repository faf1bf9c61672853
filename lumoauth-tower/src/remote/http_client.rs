//! Outgoing HTTP to one authorization server. The host named it, so unlike [`GuardedFetch`](crate::GuardedFetch) this may reach
//! private addresses and keeps its connections; and it goes nowhere else.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use lumoauth_core::{
    fetch::{Fetch, FetchError, FetchRequest},
    secret::Secret,
};
use reqwest::{Client, RequestBuilder};
use url::Origin;

use super::RemoteServerError;
use crate::fetch::{plain_builder, read};

/// The longest answer that is read.
const MAX_BYTES: usize = 256 * 1024;

/// How long one exchange may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How many connections are kept while nobody uses them.
const IDLE: usize = 64;

/// Why the authorization server cannot be used. Neither addresses nor secrets are in it. All who wait for one exchange get it.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    #[error("the authorization server does not answer")]
    Unreachable(#[source] Arc<dyn Error + Send + Sync>),
    #[error("the authorization server answers a {what} request with {status}")]
    Status { what: &'static str, status: StatusCode },
    #[error("the authorization server answers no usable {0}")]
    Unusable(&'static str),
    #[error("the authorization server answers with more than is read")]
    TooLong,
}

impl RemoteError {
    /// Whether a later attempt may succeed.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Status { status, .. } => status.is_server_error(),
            Self::Unusable(_) | Self::TooLong => false,
        }
    }
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct HttpClient {
    client: Client,
    origin: Origin,
}

impl HttpClient {
    pub(super) fn new(origin: Origin) -> Result<Self, RemoteServerError> {
        let builder = plain_builder().pool_max_idle_per_host(IDLE);
        let client = builder.build().map_err(|error| RemoteServerError::Client(Box::new(error)))?;
        Ok(Self { client, origin })
    }

    pub(crate) async fn post_form(
        &self,
        url: &str,
        authorization: &HeaderValue,
        form: &Secret,
    ) -> Result<Answer, RemoteError> {
        self.post(url, authorization, "application/x-www-form-urlencoded", form).await
    }

    pub(crate) async fn post_json(
        &self,
        url: &str,
        authorization: &HeaderValue,
        body: &Secret,
    ) -> Result<Answer, RemoteError> {
        self.post(url, authorization, "application/json", body).await
    }

    async fn post(
        &self,
        url: &str,
        authorization: &HeaderValue,
        content_type: &'static str,
        body: &Secret,
    ) -> Result<Answer, RemoteError> {
        let request = self.client.post(url).header(header::CONTENT_TYPE, content_type);
        let request = request.header(header::AUTHORIZATION, authorization).body(body.expose().to_owned());
        exchange(request, MAX_BYTES, TIMEOUT).await
    }
}

async fn exchange(
    request: RequestBuilder,
    max_bytes: usize,
    timeout: Duration,
) -> Result<Answer, RemoteError> {
    let exchange = async {
        let unreachable = |error: reqwest::Error| RemoteError::Unreachable(Arc::new(error.without_url()));
        let response =
            request.header(header::ACCEPT, "application/json").send().await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        match read(response, max_bytes).await {
            Ok(Some(body)) => Ok(Answer { status, headers, body }),
            Ok(None) => Err(RemoteError::TooLong),
            Err(error) => Err(RemoteError::Unreachable(Arc::new(error))),
        }
    };
    match tokio::time::timeout(timeout, exchange).await {
        Ok(outcome) => outcome,
        Err(elapsed) => Err(RemoteError::Unreachable(Arc::new(elapsed))),
    }
}

/// For its keys.
#[async_trait]
impl Fetch for HttpClient {
    async fn fetch(&self, request: FetchRequest) -> Result<Vec<u8>, FetchError> {
        if request.url.origin() != self.origin || request.form.is_some() || request.json.is_some() {
            return Err(FetchError::NotAllowed);
        }
        let sent = self.client.get(request.url);
        match exchange(sent, request.max_bytes, request.timeout).await {
            Ok(Answer { status: StatusCode::OK, body, .. }) => Ok(body),
            Ok(Answer { status, .. }) => Err(FetchError::Unusable(status.as_u16())),
            Err(RemoteError::Unreachable(error)) => Err(FetchError::Unreachable(Box::new(error))),
            Err(error) => Err(FetchError::Unreachable(Box::new(error))),
        }
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.origin.ascii_serialization();
        f.debug_struct("HttpClient").field("origin", &origin).finish_non_exhaustive()
    }
}
