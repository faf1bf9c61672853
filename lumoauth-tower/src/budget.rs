//! What a call costs: held before the inner service runs, settled when its answer has been sent.

use std::{
    convert::Infallible,
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, request::Parts};
use http_body::{Body, Frame, SizeHint};
use lumoauth_core::{
    audit::Origin,
    budget::Usage,
    principal::Principal,
    spending::{Budgets, Held, Spend, SpendError},
};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{rejection::Rejection, reply};

/// Charges each call to the budget of its [`Principal`], and to everybody else who pays for that caller's calls.
///
/// 1. Before the inner service runs, what the call is expected to use is held: by default one API call;
///    [`BudgetLayer::estimate`] says more. If somebody has no room the answer is 429 `budget_exceeded` with `Retry-After`, and
///    the inner service does not run. A model outside the policy is 403 `model_not_allowed`, and a call above the approval
///    threshold 403 `approval_required`.
/// 2. An inner service that knows better what was used says so: it puts a [`Usage`] into the extensions of its response, or
///    keeps the [`UsageMeter`] that it finds in those of the request, and records while it streams.
/// 3. When the body of the answer ends, that is settled in place of what was held, also if it is more. It is settled as well
///    when the body is dropped because the client has gone, and when the inner service fails or panics. Who records nothing
///    has used what was held.
///
/// It goes inside of [`AuthenticateLayer`](crate::AuthenticateLayer): without a principal it answers 500 and logs which layer
/// is missing. Callers that are no agents have no budget. Answers carry `RateLimit` and `RateLimit-Policy` for the API calls
/// of the hour.
///
/// What is settled after the caller has gone is settled in a task of the tokio runtime that drops the body. Without one, or if
/// nobody can be told, what was held counts as used.
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use lumoauth_core::{budget::Usage, server::AuthorizationServer, spending::Spend};
/// use lumoauth_tower::{AuthenticateLayer, BudgetLayer};
/// use std::sync::Arc;
/// use tower::ServiceBuilder;
///
/// fn protect(server: AuthorizationServer) {
///     let layers = ServiceBuilder::new()
///         .layer(AuthenticateLayer::new(server.clone()))
///         .layer(BudgetLayer::new(Arc::new(server)).estimate(|request| {
///             let tokens = request.headers.get("x-tokens").and_then(|n| n.to_str().ok()?.parse().ok());
///             Spend::new(Usage { tokens: tokens.unwrap_or(1000), ..Usage::ONE_CALL })
///         }));
/// }
/// ```
#[derive(Clone)]
#[must_use]
pub struct BudgetLayer {
    budgets: Arc<dyn Budgets>,
    estimate: Arc<dyn Fn(&Parts) -> Spend + Send + Sync>,
}

impl BudgetLayer {
    /// Charges one API call per request.
    pub fn new(budgets: Arc<dyn Budgets>) -> Self {
        Self { budgets, estimate: Arc::new(|_| Spend::default()) }
    }

    /// Holds what `estimate` says of a request.
    pub fn estimate(mut self, estimate: impl Fn(&Parts) -> Spend + Send + Sync + 'static) -> Self {
        self.estimate = Arc::new(estimate);
        self
    }

    /// Holds what the call of `principal` is expected to use.
    ///
    /// # Errors
    /// [`SpendError`] if the call may not be made.
    pub async fn reserve(&self, principal: &Principal, spend: &Spend) -> Result<Held, SpendError> {
        self.budgets.reserve(principal, spend, &Origin::default()).await
    }
}

impl fmt::Debug for BudgetLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BudgetLayer").field("budgets", &self.budgets).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for BudgetLayer {
    type Service = Budget<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Budget { inner, layer: self.clone() }
    }
}

/// Where the service behind a [`BudgetLayer`] records what a call used in the end. It is in the extensions of the request.
#[derive(Clone, Debug, Default)]
pub struct UsageMeter(Arc<Mutex<Option<Usage>>>);

impl UsageMeter {
    /// Records what was used so far, in place of what was recorded before. What is recorded after the body of the answer has
    /// ended comes too late.
    pub fn record(&self, used: Usage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(used);
    }

    /// What was recorded.
    pub fn recorded(&self) -> Option<Usage> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is held for a call, until it is settled. Dropping it settles it.
struct Account {
    budgets: Arc<dyn Budgets>,
    held: Option<Held>,
    estimate: Usage,
    meter: UsageMeter,
}

impl Account {
    /// What remains to be done, once.
    fn settling(&mut self) -> Option<BoxFuture<'static, ()>> {
        let used = self.meter.recorded().unwrap_or(self.estimate);
        let held = self.held.take().filter(|held| !held.stands_for(&used))?;
        let budgets = self.budgets.clone();
        Some(Box::pin(async move {
            if let Err(error) = budgets.settle(held, &used).await {
                tracing::error!(error = &error as &dyn std::error::Error, "what was held counts as used");
            }
        }))
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let Some(settling) = self.settling() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(settling)),
            Err(_) => tracing::error!("no runtime to settle a budget in: what was held counts as used"),
        }
    }
}

/// The service of [`BudgetLayer`].
#[derive(Clone, Debug)]
pub struct Budget<S> {
    inner: S,
    layer: BudgetLayer,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Budget<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    ReqBody: Send + 'static,
    ResBody: From<Bytes> + Send + 'static,
{
    type Response = Response<MeteredBody<ResBody>>;
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
            let (mut parts, body) = request.into_parts();
            let Some(principal) = parts.extensions.get::<Principal>() else {
                return Ok(Rejection::misconfigured("AuthenticateLayer").into_response());
            };
            let spend = (layer.estimate)(&parts);
            let held = match layer.reserve(principal, &spend).await {
                Ok(held) => held,
                Err(error) => return Ok(Rejection::from(error).into_response()),
            };
            let remaining = held.remaining;
            let meter = UsageMeter::default();
            let account = Account {
                budgets: layer.budgets,
                held: Some(held),
                estimate: spend.usage,
                meter: meter.clone(),
            };
            parts.extensions.insert(meter);
            let Ok(response) = inner.call(Request::from_parts(parts, body)).await;
            if let Some(used) = response.extensions().get::<Usage>() {
                account.meter.record(*used);
            }
            let response = response.map(|body| MeteredBody { body, account: Some(account), settling: None });
            Ok(reply::with_rate_limit(response, &remaining))
        })
    }
}

pin_project! {
    /// The body of an answer behind a [`BudgetLayer`]: at its end, what the call used is settled.
    #[project = Projected]
    pub struct MeteredBody<B> {
        #[pin]
        body: B,
        account: Option<Account>,
        settling: Option<BoxFuture<'static, ()>>,
    }
}

impl<B> From<Bytes> for MeteredBody<B>
where
    B: From<Bytes>,
{
    fn from(bytes: Bytes) -> Self {
        Self { body: B::from(bytes), account: None, settling: None }
    }
}

impl<B: fmt::Debug> fmt::Debug for MeteredBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeteredBody").field("body", &self.body).finish_non_exhaustive()
    }
}

impl<B: Body> Body for MeteredBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let Projected { body, account, settling } = self.project();
        if settling.is_none() {
            if let Some(frame) = ready!(body.poll_frame(cx)) {
                return Poll::Ready(Some(frame));
            }
            *settling = account.take().and_then(|mut account| account.settling());
        }
        // The end is shown when it is settled: whoever asks next sees it.
        if let Some(future) = settling {
            ready!(future.as_mut().poll(cx));
            *settling = None;
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.account.is_none() && self.settling.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
