//! What exactly a caller was granted: authorization details (RFC 9396), checked against the [`Principal`] that authentication
//! left behind.

use std::{fmt, sync::Arc};

use http::request::Parts;
use lumoauth_core::{
    jit::{AuthorizationDetail, DetailRules},
    principal::Principal,
};
use tower_layer::Layer;

use crate::{
    gate::{Gate, Gated},
    rejection::Rejection,
};

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
}

impl fmt::Debug for RequireAuthorizationDetailsLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireAuthorizationDetailsLayer").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Gate for RequireAuthorizationDetailsLayer {
    async fn admit(&self, request: &mut Parts) -> Result<(), Rejection> {
        let Some(principal) = request.extensions.get::<Principal>() else {
            return Err(Rejection::misconfigured("AuthenticateLayer"));
        };
        match (self.required)(request) {
            Some(required) if self.verify(principal, &required) => Ok(()),
            required => Err(Rejection::insufficient_details(required.as_ref())),
        }
    }
}

impl<S> Layer<S> for RequireAuthorizationDetailsLayer {
    type Service = Gated<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.clone())
    }
}
