//! Everything that stands before a route, in the one order in which it may.

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, request::Parts};
use http_body::Body;
use lumoauth_core::{
    capability::Capability,
    id::OrgId,
    principal::Principal,
    server::{AuthenticateError, AuthorizationServer},
    spending::{Budgets, Spend},
};
use tower_layer::Layer;
use tower_service::Service;

#[cfg(feature = "fetch")]
use crate::remote::{RemoteBudgets, RemoteTokens, ServiceAccount};
use crate::{
    authenticate::AuthenticateLayer,
    budget::{Admitted, BudgetLayer, MeteredBody},
    capability::RequireCapabilityLayer,
    gate::{Gate, take_ready},
    rejection::Rejection,
};

/// Authentication, then perhaps a capability, then perhaps a budget, as one layer: whoever is not known does not learn which
/// capability a route wants, and whoever may not call is not charged.
///
/// `Guard::new` is for the process of the [`AuthorizationServer`], `Guard::remote` (feature `fetch`) for every other one. What
/// is charged is charged where the token comes from.
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use http_body_util::Full;
/// use lumoauth_core::{
///     keys::{KeyRing, KeyRingConfig, MasterKey},
///     server::AuthorizationServer,
///     spending::Spend,
///     store::{MemoryStore, Stores},
/// };
/// use lumoauth_tower::Guard;
/// use std::{convert::Infallible, sync::Arc};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let store = Arc::new(MemoryStore::new());
/// let keys = Arc::new(KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default()));
/// let server = AuthorizationServer::builder("https://auth.example", Stores::all(store), keys).build().unwrap();
///
/// let guard = Guard::new(server)
///     .capability("read:documents".parse().unwrap())
///     .charge(|_request| Spend::default());
/// let service = ServiceBuilder::new()
///     .layer(guard)
///     .service(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::default()))));
///
/// let response = service.oneshot(Request::new(())).await.unwrap();
/// assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Guard<Home = AuthorizationServer> {
    home: Home,
    checks: Checks,
}

#[derive(Clone, Debug)]
struct Checks {
    who: Who,
    capability: Option<RequireCapabilityLayer>,
    budget: Option<BudgetLayer>,
}

/// How it is known who calls.
#[derive(Clone, Debug)]
enum Who {
    /// It is asked here.
    ByToken(AuthenticateLayer),
    /// Nobody needs it before the budget, which asks for itself.
    Unasked,
    /// A layer outside found out; here it is only asked whether the caller is of this organization.
    Outside(Option<OrgId>),
}

impl Guard<AuthorizationServer> {
    /// Accepts the credentials of `server`, which is in this process.
    pub fn new(server: AuthorizationServer) -> Self {
        Self::of(server.clone(), Who::ByToken(AuthenticateLayer::new(server)))
    }

    /// For routes behind an [`AAuthLayer`](crate::AAuthLayer), which has found out who calls by an auth token of `server`: a
    /// capability, which that layer's scope must name too, and then perhaps a budget. Without that layer it answers 500.
    ///
    /// ```
    /// # use lumoauth_core::{aauth::ResourceServer, capability::{Capability, Scope}, server::AuthorizationServer, spending::Spend};
    /// # use lumoauth_tower::{AAuthLayer, Guard};
    /// # use std::sync::Arc;
    /// fn protect(server: AuthorizationServer, resource: Arc<ResourceServer>, capability: Capability) {
    ///     let layers = tower::ServiceBuilder::new()
    ///         .layer(AAuthLayer::new(resource).scope(Scope::new([capability.clone()])))
    ///         .layer(Guard::behind_aauth(server).capability(capability).charge(|_request| Spend::default()));
    /// }
    /// ```
    pub fn behind_aauth(server: AuthorizationServer) -> Self {
        Self::of(server, Who::Outside(None))
    }

    /// Accepts access tokens that are bound to `resource` (their `aud`), and no others.
    pub fn for_resource(mut self, resource: &str) -> Self {
        if let Who::ByToken(layer) = self.checks.who {
            self.checks.who = Who::ByToken(layer.for_resource(resource));
        }
        self
    }

    /// Charges callers what `estimate` says of a request, until it is known better: see [`BudgetLayer`].
    pub fn charge(self, estimate: impl Fn(&Parts) -> Spend + Send + Sync + 'static) -> Self {
        let budgets = Arc::new(self.home.clone());
        self.charged(budgets, estimate)
    }
}

#[cfg(feature = "fetch")]
impl Guard<RemoteTokens> {
    /// Accepts access tokens of an authorization server elsewhere that are bound to `resource`, which is this service.
    pub fn remote(tokens: RemoteTokens, resource: &str) -> Self {
        Self::of(tokens.clone(), Who::ByToken(AuthenticateLayer::remote(tokens, resource)))
    }

    /// Charges callers there what `estimate` says of a request, until it is known better: see [`BudgetLayer`] and
    /// [`RemoteBudgets`].
    pub fn charge(
        self,
        account: &ServiceAccount,
        estimate: impl Fn(&Parts) -> Spend + Send + Sync + 'static,
    ) -> Self {
        self.charged(Arc::new(RemoteBudgets::new(account.clone())), estimate)
    }
}

impl<Home> Guard<Home> {
    fn of(home: Home, who: Who) -> Self {
        Self { home, checks: Checks { who, capability: None, budget: None } }
    }

    /// Accepts the credentials of one organization only.
    pub fn for_organization(mut self, org: OrgId) -> Self {
        self.checks.who = match self.checks.who {
            Who::ByToken(layer) => Who::ByToken(layer.for_organization(org)),
            Who::Outside(_) | Who::Unasked => Who::Outside(Some(org)),
        };
        self
    }

    /// Requires `capability`, in place of what was required before.
    pub fn capability(self, capability: Capability) -> Self {
        self.any_of([capability])
    }

    /// Requires at least one of `capabilities`, in place of what was required before. An empty list lets nobody through.
    pub fn any_of(mut self, capabilities: impl IntoIterator<Item = Capability>) -> Self {
        self.checks.capability = Some(RequireCapabilityLayer::any_of(capabilities));
        self
    }

    fn charged(
        mut self,
        budgets: Arc<dyn Budgets>,
        estimate: impl Fn(&Parts) -> Spend + Send + Sync + 'static,
    ) -> Self {
        self.checks.budget = Some(BudgetLayer::new(budgets).estimate(estimate));
        self
    }
}

impl Checks {
    async fn admit(&self, parts: &mut Parts) -> Result<Option<Admitted>, Rejection> {
        match (&self.who, parts.extensions.get::<Principal>()) {
            (Who::ByToken(layer), _) => layer.admit(parts).await?,
            (Who::Unasked, _) => {}
            (Who::Outside(Some(org)), Some(principal)) if principal.org != *org => {
                return Err(AuthenticateError::OtherOrganization.into());
            }
            (Who::Outside(_), Some(_)) => {}
            (Who::Outside(_), None) => return Err(Rejection::misconfigured("AAuthLayer")),
        }
        if let Some(layer) = &self.capability {
            layer.admit(parts).await?;
        }
        match &self.budget {
            Some(budget) => budget.admit(parts).await.map(Some),
            None => Ok(None),
        }
    }
}

impl<Home> fmt::Debug for Guard<Home> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("checks", &self.checks).finish_non_exhaustive()
    }
}

impl<S, Home> Layer<S> for Guard<Home> {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded { inner, checks: self.checks.clone() }
    }
}

impl<S> Layer<S> for BudgetLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let checks = Checks { who: Who::Unasked, capability: None, budget: Some(self.clone()) };
        Guarded { inner, checks }
    }
}

/// The service of [`Guard`] and of [`BudgetLayer`].
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    inner: S,
    checks: Checks,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Guarded<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    ReqBody: Send + 'static,
    ResBody: Body + From<Bytes> + Send + 'static,
    ResBody::Data: Send,
{
    type Response = Response<MeteredBody<ResBody>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let checks = self.checks.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let admitted = match checks.admit(&mut parts).await {
                Ok(admitted) => admitted,
                Err(rejection) => return Ok(rejection.into_response()),
            };
            let call = inner.call(Request::from_parts(parts, body));
            match admitted {
                Some(admitted) => Ok(admitted.answer(call).await),
                None => call.await.map(|response| response.map(MeteredBody::free)),
            }
        })
    }
}
