//! Telling a callback what a person answered, or that nobody did in time: a signed POST, from maintenance.
//!
//! When it is due is written with the request and with the answer, so nothing that stops this server in between loses it.
//! Before each try the try is noted, so one server tries at a time; a server that stops between the two leaves the next try
//! to whoever comes. So the receiver hears it once if everything is well, and perhaps again if its own answer got lost.

use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::Value;
use url::Url;

use crate::{
    fetch::{FetchError, FetchRequest},
    httpsig::{self, Content, Message, Profile, SignError, SignWith},
    id::OrgId,
    jit::JitRequest,
    keys::{KeyError, KeyPurpose},
    secret::Secret,
    server::AuthorizationServer,
    store::StoreError,
    wire::view,
};

/// How many callbacks are tried in one round.
const AT_ONCE: u32 = 50;

/// How long after the first try the second one comes; each later one waits four times as long. Longer than any try takes, so
/// that nobody else takes up what is under way.
const FIRST_PAUSE: Duration = Duration::from_secs(10);

/// Why a post was not heard.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum PostError {
    #[error("not an address")]
    Url,
    #[error("cannot be signed: {0}")]
    Sign(#[from] SignError),
    #[error("no key: {0}")]
    Key(#[from] KeyError),
    #[error("{0}")]
    Fetch(#[from] FetchError),
}

impl AuthorizationServer {
    /// Tries the callbacks that are due, beside each other: whoever is slow to answer holds up no other.
    pub(in crate::server) async fn deliver_callbacks(&self) -> Result<(), StoreError> {
        let due = self.stores().jit.due_callbacks(self.now(), AT_ONCE).await?;
        let tried = join_all(due.iter().map(|(org, request)| self.try_callback(org, request))).await;
        tried.into_iter().collect()
    }

    async fn try_callback(&self, org: &OrgId, request: &JitRequest) -> Result<(), StoreError> {
        let Some(callback) = &request.callback else { return Ok(()) };
        let now = self.now();
        let tries = callback.tries + 1;
        let pause = FIRST_PAUSE * 4u32.saturating_pow(callback.tries.min(8));
        let next = (tries < JitRequest::MAX_TRIES).then(|| now.plus(pause));
        if !self.stores().jit.note_try(org, request, next).await? {
            return Ok(());
        }
        let body = view::jit_status(request, request.status(now), false, &self.issuer(org));
        match self.post_signed(org, &callback.url, &body).await {
            Ok(()) if next.is_some() => {
                // Heard, so it is not due again.
                if let Some(tried) = request.with_try(callback.tries, next) {
                    let _noted = self.stores().jit.note_try(org, &tried, None).await?;
                }
            }
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, request = %request.id, tries, "a callback does not answer");
            }
        }
        Ok(())
    }

    /// Posts `body` with a signature of the organization (RFC 9421, [`Profile::LUMO_RFC`]); its `keyid` is in the
    /// organization's `aauth/jwks.json`.
    pub(in crate::server) async fn post_signed(
        &self,
        org: &OrgId,
        url: &str,
        body: &Value,
    ) -> Result<(), PostError> {
        let now = self.now();
        let url = Url::parse(url).map_err(|_| PostError::Url)?;
        let authority = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => return Err(PostError::Url),
        };
        let body = body.to_string();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let message = Message {
            method: &Method::POST,
            scheme: url.scheme(),
            authority: &authority,
            path: url.path(),
            query: url.query(),
            headers: &headers,
            content: Content::Bytes(body.as_bytes()),
        };
        let signer = self.inner.keys.signer(org, KeyPurpose::AAuth, now).await?;
        let with = SignWith::now(now).key_id(signer.key_id().as_str());
        let signed = httpsig::sign(&*signer, &Profile::LUMO_RFC, &message, with).await?;
        let fields: Vec<(HeaderName, HeaderValue)> =
            signed.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut request = FetchRequest::post_json(url.clone(), Secret::from(body));
        request.headers.extend(fields);
        request.max_bytes = 16 * 1024;
        match self.inner.fetch.fetch(request).await {
            // What a receiver answers is its business, as long as it is a success.
            Ok(_) | Err(FetchError::Unusable(200..=299)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
