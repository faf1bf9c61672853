//! What a caller must hold: checked against the [`Principal`] that authentication left behind.

use std::{
    convert::Infallible,
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Extensions, Request, Response};
use lumoauth_core::{
    capability::{Capability, Decision, DenyReason},
    principal::Principal,
};
use tower_layer::Layer;
use tower_service::Service;

use crate::rejection::Rejection;

/// Lets only requests through whose [`Principal`] holds a capability.
///
/// An agent must hold it by its own grants *and* within the token it presented; an API key by its scopes. It goes
/// inside of [`AuthenticateLayer`](crate::AuthenticateLayer), whose documentation has an example: without a principal
/// it answers 500 and logs which layer is missing. A refusal is a 403.
#[derive(Clone, Debug)]
#[must_use]
pub struct RequireCapabilityLayer {
    any_of: Arc<[Capability]>,
}

impl RequireCapabilityLayer {
    /// Requires `capability`.
    pub fn new(capability: Capability) -> Self {
        Self::any_of([capability])
    }

    /// Requires at least one of `capabilities`. An empty list lets nobody through.
    pub fn any_of(capabilities: impl IntoIterator<Item = Capability>) -> Self {
        Self { any_of: capabilities.into_iter().collect() }
    }

    /// Whether `principal` may pass: the decision, without any request.
    pub fn verify(&self, principal: &Principal) -> Decision {
        let mut refusal = Decision::Deny(DenyReason::NotGranted);
        for capability in self.any_of.iter() {
            match principal.decide(capability) {
                Decision::Allow => return Decision::Allow,
                deny @ Decision::Deny(_) => refusal = deny,
            }
        }
        refusal
    }

    /// Why a request with these extensions may not pass; `None` if it may.
    pub(crate) fn refusal(&self, extensions: &Extensions) -> Option<Rejection> {
        let Some(principal) = extensions.get::<Principal>() else {
            return Some(Rejection::misconfigured("AuthenticateLayer"));
        };
        match self.verify(principal) {
            Decision::Allow => None,
            Decision::Deny(reason) => Some(Rejection::denied(principal, &self.any_of, reason)),
        }
    }
}

impl<S> Layer<S> for RequireCapabilityLayer {
    type Service = RequireCapability<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireCapability { inner, layer: self.clone() }
    }
}

/// The service of [`RequireCapabilityLayer`].
#[derive(Clone, Debug)]
pub struct RequireCapability<S> {
    inner: S,
    layer: RequireCapabilityLayer,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RequireCapability<S>
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
            match layer.refusal(request.extensions()) {
                None => inner.call(request).await,
                Some(rejection) => Ok(rejection.into_response()),
            }
        })
    }
}
