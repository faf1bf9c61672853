//! What a call costs: held before the inner service runs, settled when its answer has been sent.

mod account;
mod body;

use std::{convert::Infallible, fmt, sync::Arc};

use http::{Response, request::Parts};
use http_body::Body;
use lumoauth_core::{
    budget::Usage,
    principal::Principal,
    spending::{Budgets, Remaining, Spend},
};

use crate::{rejection::Rejection, reply, service::origin};

pub use account::UsageMeter;
pub use body::MeteredBody;

use account::Account;

/// Charges each call to the budget of its [`Principal`], and to everybody else who pays for that caller's calls.
///
/// 1. Before the inner service runs, what the call is expected to use is held: by default one API call;
///    [`BudgetLayer::estimate`] says more. If somebody has no room the answer is 429 `budget_exceeded` with `Retry-After`, and
///    the inner service does not run. A model outside the policy is 403 `model_not_allowed`, and a call above the approval
///    threshold 403 `approval_required`.
/// 2. An inner service that knows better what was used says so: it puts a [`Usage`] into the extensions of its response, or
///    keeps the [`UsageMeter`] that it finds in those of the request, and records while it streams.
/// 3. When the body of the answer ends, that is settled in place of what was held, also if it is more. Whoever has seen the end
///    sees it settled, unless that takes longer than a second.
/// 4. It is settled as well when the body is dropped because the client has gone, when the request is given up before its
///    answer, and when the inner service or the body fails or panics. Who records nothing has used what was held; so has a
///    request that is given up while it is being held.
///
/// It goes inside of [`AuthenticateLayer`](crate::AuthenticateLayer): without a principal it answers 500 and logs which layer
/// is missing. Callers that are no agents have no budget. Answers carry `RateLimit` and `RateLimit-Policy` for the API calls
/// of the hour.
///
/// Settling runs in a task of the tokio runtime, so that it goes on when the client has gone. Outside of one, or if nobody can be
/// told, what was held counts as used.
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

    /// Holds what a request is expected to use, and puts a meter into its extensions.
    pub(crate) async fn admit(&self, parts: &mut Parts) -> Result<Admitted, Rejection> {
        let Some(principal) = parts.extensions.get::<Principal>() else {
            return Err(Rejection::misconfigured("AuthenticateLayer"));
        };
        let spend = (self.estimate)(parts);
        let origin = origin(&parts.headers, &parts.extensions);
        let held = self.budgets.reserve(principal, &spend, &origin).await?;
        let remaining = held.remaining;
        let account = Account::new(self.budgets.clone(), held, spend.usage);
        parts.extensions.insert(account.meter.clone());
        Ok(Admitted { account, remaining })
    }
}

/// A call that is paid for.
pub(crate) struct Admitted {
    account: Account,
    remaining: Remaining,
}

impl Admitted {
    /// The answer of `call`, which is settled when it ends.
    pub(crate) async fn answer<B: Body>(
        mut self,
        call: impl Future<Output = Result<Response<B>, Infallible>>,
    ) -> Response<MeteredBody<B>> {
        let Ok(response) = call.await;
        if let Some(used) = response.extensions().get::<Usage>() {
            self.account.meter.record(*used);
        }
        // Nobody reads a body that ends before it begins.
        let response = if response.body().is_end_stream() {
            if let Some(settling) = self.account.settle() {
                settling.await;
            }
            response.map(MeteredBody::free)
        } else {
            response.map(|body| MeteredBody::new(body, self.account))
        };
        reply::with_rate_limit(response, &self.remaining)
    }
}

impl fmt::Debug for BudgetLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BudgetLayer").field("budgets", &self.budgets).finish_non_exhaustive()
    }
}
