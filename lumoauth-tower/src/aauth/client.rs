//! Agents that call resources: requests signed, tokens obtained.

mod error;
mod place;

use std::{
    future::poll_fn,
    mem,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_timer::Delay;
use futures_util::future::{BoxFuture, Either, select};
use http::{Request, Response, StatusCode, header, request::Parts};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use lumoauth_core::{
    aauth::client::{
        self, AAuthAgent, AuthToken, Challenge, ConsentNeeded, TokenAnswer, TokenRequest, Wanted,
    },
    capability::Scope,
    clock::{Clock, SystemClock, Timestamp},
    id::AAuthIdentifier,
    secret::Secret,
};
use tower_layer::Layer;
use tower_service::Service;

pub use error::{AAuthClientError, PendingConsent};
use error::{BoxError, CutOff};
use place::{Place, Places, RefusedToken};

/// The longest answer of the token endpoint that is read.
const MAX_ANSWER: usize = 64 * 1024;

/// How long the token endpoint may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(15);

/// How often one call goes out at most: with the token at hand, as the agent alone, with another token that the agent has, as
/// the agent alone again, and with a new token.
const MAX_SENDS: usize = 5;

/// Makes an HTTP client one of an AAuth agent: each request is signed, and where a resource wants an auth token one is obtained
/// and kept.
///
/// The client below is any `Service<Request<Bytes>>` that sends a request as it is: it must not follow redirects, and not
/// change the path. Requests need absolute URIs. A request that has an `Authorization` of its own is signed with it, and gets
/// no auth token.
///
/// - Tokens are kept by origin and scope, a minute short of their end, and obtained once for all calls that wait for one. What
///   a token is obtained with, the resource makes out for a call that came without: each first call goes out twice.
/// - Only the token endpoint of the agent's own authorization server is called, whatever a resource says.
/// - Where a person must agree, the call ends in [`AAuthClientError::ConsentNeeded`]. Then [`AAuthClient::finish`] takes their
///   answer. What people agreed to is kept with the client and its clones, so an agent that serves several people needs
///   [`AAuthClient::for_somebody_else`].
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response, StatusCode};
/// use http_body_util::Full;
/// use lumoauth_core::{
///     aauth::client::AAuthAgent,
///     id::{AAuthIdentifier, KeyId},
///     keys::{Algorithm, LocalSigner},
/// };
/// use lumoauth_tower::AAuthClientLayer;
/// use std::convert::Infallible;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let agent = AAuthAgent::local(
///     AAuthIdentifier::parse("https://agent.example")?,
///     LocalSigner::generate(KeyId::parse("key-1")?, Algorithm::EdDsa)?,
///     AAuthIdentifier::parse("https://auth.example/orgs/acme/api/v1")?,
/// )?;
/// // In place of an HTTP client.
/// let http = service_fn(async |request: Request<Bytes>| {
///     assert!(request.headers().contains_key("signature"));
///     Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
/// });
/// let client = ServiceBuilder::new().layer(AAuthClientLayer::new(agent)).service(http);
///
/// let request = Request::get("https://files.example/reports").body(Bytes::new())?;
/// assert_eq!(client.oneshot(request).await?.status(), StatusCode::OK);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct AAuthClientLayer {
    agent: Arc<AAuthAgent>,
    redirect_uri: Option<Arc<str>>,
    clock: Arc<dyn Clock>,
}

impl AAuthClientLayer {
    /// Calls as `agent`.
    pub fn new(agent: AAuthAgent) -> Self {
        Self { agent: Arc::new(agent), redirect_uri: None, clock: Arc::new(SystemClock::new()) }
    }

    /// Has people's answers sent to `uri`, which must be registered for the agent. Without this no person can be asked.
    pub fn with_redirect_uri(mut self, uri: &str) -> Self {
        self.redirect_uri = Some(uri.into());
        self
    }

    /// Reads the time from `clock` in place of the operating system.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

impl<S> Layer<S> for AAuthClientLayer {
    type Service = AAuthClient<S>;

    fn layer(&self, inner: S) -> AAuthClient<S> {
        AAuthClient { inner, setup: self.clone(), places: Arc::default() }
    }
}

/// An HTTP client of an AAuth agent, made by [`AAuthClientLayer`]. Cheap to clone if the client below is; clones share their
/// tokens.
#[derive(Clone, Debug)]
pub struct AAuthClient<S> {
    inner: S,
    setup: AAuthClientLayer,
    places: Arc<Places>,
}

/// In the extensions of a request: what its auth token must be good for, where an agent has several for one resource. Without
/// it the last one is tried first.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "it is a scope and nothing else")]
pub struct WantedScope(pub Scope);

impl<S: Clone> AAuthClient<S> {
    /// The same agent without the tokens that this client has: for calls on behalf of another person.
    #[must_use]
    pub fn for_somebody_else(&self) -> Self {
        Self { places: Arc::default(), ..self.clone() }
    }
}

impl<S> AAuthClient<S> {
    /// Forgets a question to a person, who said no or nothing. The next call has them asked anew.
    pub async fn abandon(&self, consent: &PendingConsent) {
        self.places.at(&consent.origin).lock().await.settle(consent);
    }
}

impl<S, B> AAuthClient<S>
where
    S: Service<Request<Bytes>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    /// Takes the `code` that came to the redirect URI: the person agreed, and calls go through from now on. That it is the
    /// answer to this very question is checked by the authorization server.
    ///
    /// # Errors
    /// [`AAuthClientError`] if the code is none for this question, or not any more.
    pub fn finish(
        &self,
        consent: &PendingConsent,
        code: &Secret,
    ) -> BoxFuture<'static, Result<(), AAuthClientError>> {
        let mut calling = Calling::new(self.clone());
        let (consent, code) = (consent.clone(), code.clone());
        Box::pin(async move {
            let place = calling.client.places.at(&consent.origin);
            let mut gate = place.lock().await;
            let redirect_uri = calling.client.setup.redirect_uri.clone();
            let redirect_uri = redirect_uri.ok_or(AAuthClientError::NoRedirectUri)?;
            let ConsentNeeded { request_token, resource, scope, .. } = &consent.needed;
            let request = TokenRequest::Code { code: &code, redirect_uri: &redirect_uri, request_token };
            let answer = calling.ask(request, (resource, scope)).await;
            if !answer.as_ref().is_err_and(AAuthClientError::is_outage) {
                // A code works once, whatever comes of it.
                gate.settle(&consent);
            }
            match answer? {
                TokenAnswer::Token(token) => {
                    place.keep(token, calling.now());
                    Ok(())
                }
                TokenAnswer::Consent(_) => Err(client::ClientError::Answer(StatusCode::UNAUTHORIZED).into()),
            }
        })
    }
}

impl<S, B> Service<Request<Bytes>> for AAuthClient<S>
where
    S: Service<Request<Bytes>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<B>;
    type Error = AAuthClientError;
    type Future = BoxFuture<'static, Result<Response<B>, AAuthClientError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), AAuthClientError>> {
        self.inner.poll_ready(cx).map_err(AAuthClientError::not_sent)
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let next = self.clone();
        let mut calling = Calling { client: mem::replace(self, next), ready: true };
        Box::pin(async move {
            let (head, content) = request.into_parts();
            if head.headers.contains_key(header::AUTHORIZATION) {
                return calling.signed(&head, &content, None).await;
            }
            calling.call(&head, &content).await
        })
    }
}

/// One call, which may go out several times.
struct Calling<S> {
    client: AAuthClient<S>,
    /// Whether the client below was asked for its readiness and has not been called since.
    ready: bool,
}

impl<S> Calling<S> {
    fn new(client: AAuthClient<S>) -> Self {
        Self { client, ready: false }
    }

    fn agent(&self) -> &AAuthAgent {
        &self.client.setup.agent
    }

    fn now(&self) -> Timestamp {
        self.client.setup.clock.now()
    }
}

impl<S, B> Calling<S>
where
    S: Service<Request<Bytes>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    async fn call(&mut self, head: &Parts, content: &Bytes) -> Result<Response<B>, AAuthClientError> {
        let origin = client::origin(&head.uri)?;
        let place = self.client.places.at(&origin);
        let hint = head.extensions.get::<WantedScope>().map(|WantedScope(scope)| scope);
        let mut token = place.pick(hint, self.now());
        let (mut refused, mut is_new) = (Vec::new(), false);
        for _ in 1..MAX_SENDS {
            let response = self.signed(head, content, token.as_deref()).await?;
            let Some(challenge) = challenge_in(&response) else { return Ok(response) };
            let wanted = self.agent().wanted(&challenge, &origin, self.now())?;
            let had_one = token.is_some();
            refused.extend(token.take().map(|token| (token, response.status())));
            if let Some(wanted) = &wanted {
                place.forget_refused(&refused, &wanted.resource);
            }
            match wanted {
                // With a token that does not count some resources do not say what would.
                None if had_one && !is_new => {}
                Some(wanted) if !is_new => {
                    drop(response);
                    let obtained = self.token_for(&wanted, &place, &origin, &refused).await?;
                    (token, is_new) = (Some(obtained.0), obtained.1);
                }
                _ => return Ok(response),
            }
        }
        self.signed(head, content, token.as_deref()).await
    }

    /// A token for what a resource wants, and whether it was obtained just now for this call: of all calls that wait for one,
    /// one obtains it, and what becomes of that holds for the others too.
    async fn token_for(
        &mut self,
        wanted: &Wanted,
        place: &Place,
        origin: &url::Origin,
        refused: &[RefusedToken],
    ) -> Result<(Arc<AuthToken>, bool), AAuthClientError> {
        let seen = place.rounds();
        let mut gate = place.lock().await;
        let now = self.now();
        if refused.len() < 2
            && let Some(token) = place.another(wanted, refused, now)
        {
            return Ok((token, false));
        }
        if let Some(consent) = gate.asked(wanted, now) {
            return Err(AAuthClientError::ConsentNeeded(consent));
        }
        if place.rounds() != seen
            && let Some(error) = gate.failed(wanted)
        {
            return Err(error);
        }
        let outcome = match self.obtain(wanted, place).await {
            Ok(TokenAnswer::Token(token)) => Ok((place.keep(token, self.now()), true)),
            Ok(TokenAnswer::Consent(needed)) => {
                let consent = PendingConsent { needed, origin: origin.clone() };
                Err(AAuthClientError::ConsentNeeded(gate.ask(consent)))
            }
            Err(error) => Err(error),
        };
        gate.fail(wanted, outcome.as_ref().err());
        place.end_round();
        outcome
    }

    /// By what came with an earlier token if there is one, else anew.
    async fn obtain(&mut self, wanted: &Wanted, place: &Place) -> Result<TokenAnswer, AAuthClientError> {
        let expected = (&wanted.resource, &wanted.scope);
        if let Some(refresh_token) = &place.refresh_token(wanted) {
            match self.ask(TokenRequest::Refresh { refresh_token, wanted }, expected).await {
                Ok(answer) => return Ok(answer),
                // The resource token is not used up by a refusal.
                Err(error) => match error.refusal() {
                    Some("invalid_scope") => {}
                    // More is asked of people than when it was issued, or it is dead: it gives nothing any more.
                    Some("access_denied" | "invalid_grant" | "invalid_target") => {
                        place.forget_refresh_token(refresh_token);
                    }
                    _ => return Err(error),
                },
            }
        }
        let redirect_uri = self.client.setup.redirect_uri.clone();
        self.ask(TokenRequest::Auth { wanted, redirect_uri: redirect_uri.as_deref() }, expected).await
    }

    /// Asks the token endpoint.
    async fn ask(
        &mut self,
        request: TokenRequest<'_>,
        expected: (&AAuthIdentifier, &Scope),
    ) -> Result<TokenAnswer, AAuthClientError> {
        let request = self.agent().token_request(request, self.now()).await?.map(Bytes::from);
        let exchange = async {
            let response = self.send(request).await.map_err(AAuthClientError::AuthServer)?;
            let (head, body) = response.into_parts();
            match Limited::new(body, MAX_ANSWER).collect().await {
                Ok(body) => Ok((head.status, body.to_bytes())),
                Err(error) => Err(AAuthClientError::AuthServer(error.into())),
            }
        };
        let (status, body) = match select(pin!(exchange), Delay::new(ANSWER_TIME)).await {
            Either::Left((outcome, _)) => outcome?,
            Either::Right(_) => return Err(AAuthClientError::AuthServer(Arc::new(CutOff))),
        };
        let answer = self.agent().read_answer(status, &body, expected, self.now());
        tracing::debug!(resource = %expected.0, ok = answer.is_ok(), "auth token asked for");
        Ok(answer?)
    }

    /// Sends the request, signed for this once.
    async fn signed(
        &mut self,
        head: &Parts,
        content: &Bytes,
        token: Option<&AuthToken>,
    ) -> Result<Response<B>, AAuthClientError> {
        let mut head = head.clone();
        self.agent().sign(&mut head, content, token, self.now()).await?;
        let request = Request::from_parts(head, content.clone());
        self.send(request).await.map_err(AAuthClientError::NotSent)
    }

    async fn send(
        &mut self,
        request: Request<Bytes>,
    ) -> Result<Response<B>, Arc<dyn std::error::Error + Send + Sync>> {
        let boxed = |error: S::Error| -> Arc<dyn std::error::Error + Send + Sync> { error.into().into() };
        if !mem::take(&mut self.ready) {
            poll_fn(|cx| self.client.inner.poll_ready(cx)).await.map_err(boxed)?;
        }
        self.client.inner.call(request).await.map_err(boxed)
    }
}

/// What is wanted of whoever gets this answer, if that is an auth token, or another one.
fn challenge_in<B>(response: &Response<B>) -> Option<Challenge> {
    let asks = matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    asks.then(|| Challenge::read(response.headers())).flatten().filter(|challenge| challenge.auth_token)
}
