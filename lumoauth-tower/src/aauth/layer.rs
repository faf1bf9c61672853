//! Routes that agents call with auth tokens and signed requests.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Request, Response, request::Parts};
use http_body::Body;
use lumoauth_core::{
    aauth::{AAuthCaller, Demand, Refusal, RefusalCause, ResourceServer},
    aauth_resource::AuthLevel,
    capability::{DenyReason, Scope},
    clock::{Clock, SystemClock},
    httpsig::{Content, Message},
    wire::WireError,
};
use tower_layer::Layer;
use tower_service::Service;

use super::CheckedBody;
use crate::{
    body,
    gate::take_ready,
    rejection::{Rejection, RejectionReason},
    reply,
};

const AGENT_AUTH: HeaderName = HeaderName::from_static("agent-auth");

/// The largest content that is waited for, unless the host says otherwise.
const MAX_CONTENT: usize = 1024 * 1024;

/// Lets only requests through that an agent signed with the key that its auth token is bound to, and puts into their extensions
/// the caller as a [`Principal`](lumoauth_core::principal::Principal) and as an
/// [`AAuthContext`](lumoauth_core::aauth::AAuthContext).
///
/// 1. `Authorization: Bearer` must hold an auth token of a trusted issuer for this resource, in its time. An issuer in this
///    process is asked whether it still holds; of another one that is not known before it ends.
/// 2. The request must be signed (RFC 9421) by the key that the token is bound to, token included, for an authority of this
///    service, now, and for the first time. **A token without a signature opens nothing.**
/// 3. The content must be the one that was signed. It is waited for when the signer is known, up to 1 MiB
///    ([`AAuthLayer::max_content`], else 413), and handed on as it came. [`AAuthLayer::streaming`] lets it flow instead.
/// 4. The token must be good for the scope ([`AAuthLayer::scope`]) and of the level ([`AAuthLayer::level`]) that are demanded.
///
/// Who is not known gets a 401, whose token is not enough a 403, both with `Agent-Auth: httpsig; auth-token`. An agent that
/// signed gets a resource token in it, to ask the authorization server with, if the resource has a key
/// ([`ResourceServer::with_key`]). An outage is 503. The [`Rejection`] is in the response's extensions.
///
/// # Where it stands
///
/// - [`RequireCapabilityLayer`](crate::RequireCapabilityLayer) and [`BudgetLayer`](crate::BudgetLayer) go inside of it, and
///   [`Guard::behind_aauth`](crate::Guard::behind_aauth) is both of them. What they want belongs into [`AAuthLayer::scope`] too:
///   agents get tokens for what this layer asks. An [`AuthenticateLayer`](crate::AuthenticateLayer) takes other credentials; it
///   refuses auth tokens.
/// - A limit on how often somebody may call goes outside: whoever makes a key is an agent here, and gets a resource token, which
///   costs a signature.
/// - What changes the content or the head of requests (decompression, rewriting of paths) goes inside, or the signature does
///   not fit any more. Where something outside takes the begin of the path away, such as `nest` of axum or a proxy,
///   [`AAuthLayer::below`] says what.
/// - It knows nothing of CORS: a layer for that goes outside, and answers preflights, which nobody signs, and shows scripts
///   `Agent-Auth`.
/// - The SDK's signature says nothing about the query. [`AAuthLayer::query_coverage`] refuses those that do not.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response, StatusCode};
/// use http_body_util::Full;
/// use lumoauth_core::{
///     aauth::{AAuthContext, ResourceServer},
///     id::{AAuthIdentifier, OrgId},
///     keys::{KeyRing, KeyRingConfig, MasterKey},
///     server::AuthorizationServer,
///     store::{MemoryStore, Stores},
/// };
/// use lumoauth_tower::{AAuthLayer, CheckedBody};
/// use std::{convert::Infallible, sync::Arc};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Arc::new(MemoryStore::from_the_beginning());
/// let keys = Arc::new(KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default()));
/// let server = AuthorizationServer::builder("https://auth.example", Stores::all(store.clone()), keys).build()?;
///
/// // An issuer in this process. For one elsewhere: `PublishedIssuer`, or `RemoteServer::auth_tokens`.
/// let issuer = Arc::new(server.auth_tokens_of(&OrgId::parse("acme-corp")?)?);
/// let identifier = AAuthIdentifier::parse("https://files.example")?;
/// let resource = Arc::new(ResourceServer::new(identifier, issuer, store));
///
/// let service = ServiceBuilder::new()
///     .layer(AAuthLayer::new(resource).scope("read:files".parse()?))
///     .service(service_fn(async |request: Request<CheckedBody<Full<Bytes>>>| {
///         let caller = request.extensions().get::<AAuthContext>().expect("the layer put it there");
///         Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(caller.agent.to_string())))
///     }));
///
/// let unsigned = Request::get("https://files.example/a").body(Full::<Bytes>::default())?;
/// let response = service.oneshot(unsigned).await?;
/// assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
/// assert_eq!(response.headers()["agent-auth"], "httpsig; auth-token");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct AAuthLayer {
    resource: Arc<ResourceServer>,
    clock: Arc<dyn Clock>,
    demand: Demand,
    below: Arc<str>,
    /// The largest content that is waited for; `None` if it flows.
    max_content: Option<usize>,
}

impl AAuthLayer {
    /// Demands an auth token for `resource`, whatever it may be used for.
    pub fn new(resource: Arc<ResourceServer>) -> Self {
        let clock = Arc::new(SystemClock::new());
        let demand = Demand::default();
        Self { resource, clock, demand, below: "".into(), max_content: Some(MAX_CONTENT) }
    }

    /// Reads the time from `clock` instead of the operating system.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Demands a token that is good for all of `scope`, and asks agents to get one for that.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.demand.scope = scope;
        self
    }

    /// Demands a token of this level, or one that asks more of people. Agents get it if the resource is registered with it.
    pub fn level(mut self, level: AuthLevel) -> Self {
        self.demand.level = level;
        self
    }

    /// Demands that nobody can have changed the query, added one or taken it away: the list of the SDK's says nothing about it
    /// and is refused, also where there is no query.
    pub fn query_coverage(mut self) -> Self {
        self.demand.query_coverage = true;
        self
    }

    /// Takes requests whose path lacks this begin, which something outside took away: `/api` behind a `nest("/api", ..)`. The
    /// path `/` is then `/api` itself, as it is there.
    pub fn below(mut self, prefix: &str) -> Self {
        self.below = prefix.trim_end_matches('/').into();
        self
    }

    /// Waits for content of up to this many bytes, in place of [`AAuthLayer::streaming`].
    pub fn max_content(mut self, bytes: usize) -> Self {
        self.max_content = Some(bytes);
        self
    }

    /// Lets content flow, however long it is, in place of [`AAuthLayer::max_content`]: the service behind reads it before it is
    /// known to be what was signed, and finds an error in place of its end if it is not ([`CheckedBody`]). For services that can
    /// undo what they did until then, and bound what they read.
    pub fn streaming(mut self) -> Self {
        self.max_content = None;
        self
    }

    /// The caller, and the content to hand on.
    async fn admit<B>(&self, parts: &Parts, body: B) -> Result<(AAuthCaller, CheckedBody<B>), Refused>
    where
        B: Body,
    {
        let (resource, now) = (&*self.resource, self.clock.now());
        let path = match parts.uri.path() {
            "/" if !self.below.is_empty() => self.below.to_string(),
            path => format!("{}{path}", self.below),
        };
        let message = Message::of(parts, resource.scheme(), Content::Bytes(b""));
        let message = message.map_err(|error| resource.refuse(error))?;
        let recognized = resource.recognize(&Message { path: &path, ..message }, &self.demand, now).await?;
        let (seen, body) = match self.max_content {
            // Whoever gets no answer but a challenge need not be waited for.
            _ if !recognized.has_token() => {
                let (seen, promised) = recognized.ahead_of_content();
                (seen, CheckedBody::flowing(body, promised))
            }
            None if !body.is_end_stream() => {
                let (seen, promised) = recognized.ahead_of_content();
                (seen, CheckedBody::flowing(body, promised))
            }
            max => {
                let content = body::read_up_to(max.unwrap_or_default(), &parts.headers, body).await?;
                let seen = recognized.with_content(Content::Bytes(&content));
                (seen.map_err(|error| resource.refuse(error))?, CheckedBody::whole(content))
            }
        };
        Ok((resource.admit(seen, &self.demand, now).await?, body))
    }
}

/// A refusal, on its way to be an answer.
struct Refused {
    rejection: Rejection,
    challenge: Option<HeaderValue>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let reason = match &refusal.cause {
            RefusalCause::Level(_) | RefusalCause::Scope(_) => {
                RejectionReason::Denied(DenyReason::NotInToken)
            }
            RefusalCause::Unavailable(_) => RejectionReason::Unavailable,
            _ => RejectionReason::Unauthenticated,
        };
        if refusal.is_outage() {
            tracing::error!(error = &refusal.cause as &dyn std::error::Error, "cannot tell who calls");
        } else {
            tracing::debug!(cause = %refusal.cause, "AAuth request refused");
        }
        let wire = refusal.to_wire();
        Self { rejection: Rejection { reason, wire }, challenge: refusal.challenge }
    }
}

impl From<WireError> for Refused {
    fn from(wire: WireError) -> Self {
        Self { rejection: Rejection { reason: RejectionReason::Content, wire }, challenge: None }
    }
}

impl Refused {
    fn into_response<B: From<Bytes>>(self) -> Response<B> {
        let mut response = self.rejection.into_response();
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(AGENT_AUTH, challenge);
        }
        response
    }
}

impl<S> Layer<S> for AAuthLayer {
    type Service = AAuth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AAuth { inner, layer: self.clone() }
    }
}

/// The service of [`AAuthLayer`].
#[derive(Clone, Debug)]
pub struct AAuth<S> {
    inner: S,
    layer: AAuthLayer,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for AAuth<S>
where
    S: Service<Request<CheckedBody<ReqBody>>, Response = Response<ResBody>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    ReqBody: Body + Send + 'static,
    ReqBody::Data: Send,
    ReqBody::Error: Send,
    ResBody: From<Bytes> + Send + 'static,
{
    type Response = Response<ResBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let layer = self.layer.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            match layer.admit(&parts, body).await {
                Ok((AAuthCaller { principal, context }, body)) => {
                    parts.extensions.insert(principal);
                    parts.extensions.insert(context);
                    inner.call(Request::from_parts(parts, body)).await
                }
                Err(refused) => Ok(refused.into_response()),
            }
        })
    }
}

/// The answer to GET `/.well-known/aauth-resource` of a service, where agents look for what it is.
pub fn resource_document<B: From<Bytes>>(resource: &ResourceServer) -> Response<B> {
    reply::metadata(&resource.document()).map(B::from)
}

/// The answer to GET `/aauth/jwks.json` of a service: the key that its resource tokens are signed with.
pub fn resource_jwks<B: From<Bytes>>(resource: &ResourceServer) -> Response<B> {
    reply::metadata(&resource.jwks()).map(B::from)
}
