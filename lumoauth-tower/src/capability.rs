//! What a caller must hold: checked against the [`Principal`] that authentication left behind.

use std::sync::Arc;

use http::request::Parts;
use lumoauth_core::{
    capability::{Capability, Decision, DenyReason},
    principal::Principal,
};
use tower_layer::Layer;

use crate::{
    gate::{Gate, Gated},
    rejection::Rejection,
};

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
}

impl Gate for RequireCapabilityLayer {
    async fn admit(&self, request: &mut Parts) -> Result<(), Rejection> {
        let Some(principal) = request.extensions.get::<Principal>() else {
            return Err(Rejection::misconfigured("AuthenticateLayer"));
        };
        match self.verify(principal) {
            Decision::Allow => Ok(()),
            Decision::Deny(reason) => Err(Rejection::denied(principal, &self.any_of, reason)),
        }
    }
}

impl<S> Layer<S> for RequireCapabilityLayer {
    type Service = Gated<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.clone())
    }
}
