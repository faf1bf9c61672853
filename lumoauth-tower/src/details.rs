//! What exactly a caller was granted: authorization details (RFC 9396), checked against the [`Principal`] that authentication
//! left behind.

use std::{
    convert::Infallible,
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Extensions, Request, Response, request::Parts};
use lumoauth_core::{
    jit::{AuthorizationDetail, DetailRules},
    principal::Principal,
};
use tower_layer::Layer;
use tower_service::Service;

use crate::rejection::Rejection;

/// Lets only requests through whose token was granted, just in time, for what they do.
///
/// Whoever lacks it gets a 403 that says what is missing: `WWW-Authenticate: Bearer
/// error="insufficient_authorization_details"`, and `Insufficient-Authorization-Details` with the detail as JSON in standard
/// base64. A client can ask for exactly that in its task, and come again.
///
/// It goes inside of an [`AuthenticateLayer`](crate::AuthenticateLayer) that is made with
/// [`for_details_at`](crate::AuthenticateLayer::for_details_at); without a principal it answers 500 and logs which layer is
/// missing. A wider grant allows a narrower request: by default some of the granted actions and locations, and everything else
/// exactly as it was granted; for other types of details there are [`DetailRules`].
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use http_body_util::Full;
/// use lumoauth_core::{
///     jit::AuthorizationDetail,
///     keys::{KeyRing, KeyRingConfig, MasterKey},
///     server::AuthorizationServer,
///     store::{MemoryStore, Stores},
/// };
/// use lumoauth_tower::{AuthenticateLayer, RequireAuthorizationDetailsLayer};
/// use serde_json::json;
/// use std::{convert::Infallible, sync::Arc};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let store = Arc::new(MemoryStore::new());
/// let keys = Arc::new(KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default()));
/// let server = AuthorizationServer::builder("https://auth.example", Stores::all(store), keys).build().unwrap();
///
/// let required = RequireAuthorizationDetailsLayer::new(|request| {
///     AuthorizationDetail::new(json!({
///         "type": "file_access", "actions": ["delete"], "identifier": request.uri.path(),
///         "locations": ["https://files.example"],
///     }))
///     .ok()
/// });
/// let service = ServiceBuilder::new()
///     .layer(AuthenticateLayer::new(server).for_details_at("https://files.example"))
///     .layer(required)
///     .service(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::default()))));
///
/// let response = service.oneshot(Request::new(())).await.unwrap();
/// assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct RequireAuthorizationDetailsLayer {
    required: Arc<Required>,
    rules: Arc<DetailRules>,
}

type Required = dyn Fn(&Parts) -> Option<AuthorizationDetail> + Send + Sync;

impl RequireAuthorizationDetailsLayer {
    /// Requires what `required` makes of the head of a request. A request of which it makes nothing is refused.
    pub fn new(required: impl Fn(&Parts) -> Option<AuthorizationDetail> + Send + Sync + 'static) -> Self {
        Self { required: Arc::new(required), rules: Arc::new(DetailRules::default()) }
    }

    /// Compares details by `rules`.
    pub fn with_rules(mut self, rules: DetailRules) -> Self {
        self.rules = Arc::new(rules);
        self
    }

    /// Whether `principal` was granted `required`: the decision, without any request.
    pub fn verify(&self, principal: &Principal, required: &AuthorizationDetail) -> bool {
        self.rules.allow(principal.authorization_details(), required)
    }

    fn refusal(&self, parts: &Parts) -> Option<Rejection> {
        let extensions: &Extensions = &parts.extensions;
        let Some(principal) = extensions.get::<Principal>() else {
            return Some(Rejection::misconfigured("AuthenticateLayer"));
        };
        match (self.required)(parts) {
            Some(required) if self.verify(principal, &required) => None,
            required => Some(Rejection::insufficient_details(required.as_ref())),
        }
    }
}

impl fmt::Debug for RequireAuthorizationDetailsLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireAuthorizationDetailsLayer").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RequireAuthorizationDetailsLayer {
    type Service = RequireAuthorizationDetails<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireAuthorizationDetails { inner, layer: self.clone() }
    }
}

/// The service of [`RequireAuthorizationDetailsLayer`].
#[derive(Clone, Debug)]
pub struct RequireAuthorizationDetails<S> {
    inner: S,
    layer: RequireAuthorizationDetailsLayer,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RequireAuthorizationDetails<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    ReqBody: Send + 'static,
    ResBody: From<Bytes> + Send + 'static,
{
    type Response = Response<ResBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        // The instance that was polled ready is the one that must be called.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            match layer.refusal(&parts) {
                None => inner.call(Request::from_parts(parts, body)).await,
                Some(rejection) => Ok(rejection.into_response()),
            }
        })
    }
}
