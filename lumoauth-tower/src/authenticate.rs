//! Who is calling: an access token or an API key becomes a [`Principal`] in the request's extensions.

use std::sync::Arc;

use http::{header, request::Parts};
use lumoauth_core::{
    id::OrgId,
    organization::Organization,
    principal::Principal,
    server::{AuthenticateError, AuthorizationServer, Credential, Door},
    token::DpopRequest,
};
use tower_layer::Layer;

#[cfg(feature = "fetch")]
use crate::remote::RemoteTokens;
use crate::{
    gate::{Gate, Gated},
    rejection::Rejection,
    service::origin,
};

/// Lets only requests through that carry a live credential, and puts its [`Principal`] into their extensions.
///
/// 1. `Authorization: Bearer` (an access token or an agent API key), `Authorization: DPoP` with a `DPoP` header (an access
///    token that is bound to a key, RFC 9449), or `X-API-Key` (an organization API key). If there are two of them, the
///    `Authorization` counts.
/// 2. An access token must have a good signature, be in its time, and be alive: not revoked, its agent and
///    organization active. All of that is asked anew on every request.
/// 3. It must be meant for this service: by default a token that agents use at the authorization server itself; with
///    [`AuthenticateLayer::for_resource`] one that is bound to that resource.
/// 4. A token that is bound to a key needs a proof for this very request: its method, and the public URL of the server followed
///    by its path. Such a token is accepted where that is how the service is reached, and nowhere as a bearer token.
/// 5. An agent that is registered with addresses is accepted from there only: the host says where a request came from with
///    [`PeerAddr`](crate::PeerAddr). Services that verify the tokens of a server elsewhere do not know of that.
/// 6. The organization is the one given with [`AuthenticateLayer::for_organization`], or else the credential's own.
///
/// Everything else is a 401 with a `WWW-Authenticate` header, or a 503 while the stores do not answer. The
/// [`Rejection`] is in the response's extensions.
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use http_body_util::Full;
/// use lumoauth_core::{
///     keys::{KeyRing, KeyRingConfig, MasterKey},
///     principal::Principal,
///     server::AuthorizationServer,
///     store::{MemoryStore, Stores},
/// };
/// use lumoauth_tower::{AuthenticateLayer, RequireCapabilityLayer};
/// use std::{convert::Infallible, sync::Arc};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let store = Arc::new(MemoryStore::new());
/// let keys = Arc::new(KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default()));
/// let server = AuthorizationServer::builder("https://auth.example", Stores::all(store), keys).build().unwrap();
///
/// let service = ServiceBuilder::new()
///     .layer(AuthenticateLayer::new(server))
///     .layer(RequireCapabilityLayer::new("read:documents".parse().unwrap()))
///     .service(service_fn(async |request: Request<()>| {
///         let caller = request.extensions().get::<Principal>().unwrap();
///         Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from(caller.org.to_string())))
///     }));
///
/// let response = service.oneshot(Request::new(())).await.unwrap();
/// assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct AuthenticateLayer {
    issuer: Issuer,
    org: Option<OrgId>,
    resource: Option<Arc<str>>,
    details: bool,
}

/// Where the authorization server is.
#[derive(Clone, Debug)]
enum Issuer {
    Here(AuthorizationServer),
    #[cfg(feature = "fetch")]
    Elsewhere(RemoteTokens),
}

impl AuthenticateLayer {
    /// Accepts the credentials of `server`.
    pub fn new(server: AuthorizationServer) -> Self {
        Self { issuer: Issuer::Here(server), org: None, resource: None, details: false }
    }

    /// Accepts access tokens of an authorization server on another host that are bound to `resource`: this service. An agent
    /// is known by its token only then ([`Identity::Remote`](lumoauth_core::principal::Identity::Remote)).
    #[cfg(feature = "fetch")]
    pub fn remote(tokens: RemoteTokens, resource: &str) -> Self {
        Self { issuer: Issuer::Elsewhere(tokens), org: None, resource: Some(resource.into()), details: false }
    }

    /// Accepts the credentials of one organization only.
    pub fn for_organization(mut self, org: OrgId) -> Self {
        self.org = Some(org);
        self
    }

    /// Accepts access tokens that are bound to `resource` (their `aud`), and no others.
    pub fn for_resource(mut self, resource: &str) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Accepts what agents got just in time for `resource`, which is this service, and for no place in particular; and, so
    /// that whoever has nothing yet hears what is missing, also tokens that are good at the authorization server itself. It
    /// only says who calls: put a [`RequireAuthorizationDetailsLayer`](crate::RequireAuthorizationDetailsLayer) inside of it.
    ///
    /// At a service on another host than the server's it depends on how tokens are verified. By keys, the token of a task is
    /// accepted until it expires, also after its task was closed. By introspection it ends with its task, and only tokens that
    /// name the resource are known: whoever comes with another is answered 401, and not with what is missing.
    pub fn for_details_at(mut self, resource: &str) -> Self {
        self.resource = Some(resource.into());
        self.details = true;
        self
    }

    /// The principal of a request with this head.
    ///
    /// # Errors
    /// [`AuthenticateError`] if it proves nobody, or nobody can say.
    pub async fn verify(&self, request: &Parts) -> Result<Principal, AuthenticateError> {
        let credential = credential(request).ok_or(AuthenticateError::Refused)?;
        let principal = match &self.issuer {
            Issuer::Here(server) => {
                let origin = origin(&request.headers, &request.extensions);
                server.authenticate_anywhere(credential, self.door(), &origin).await?.1
            }
            #[cfg(feature = "fetch")]
            Issuer::Elsewhere(tokens) => self.verify_elsewhere(tokens, credential).await?,
        };
        match &self.org {
            Some(org) if *org != principal.org => Err(AuthenticateError::OtherOrganization),
            _ => Ok(principal),
        }
    }

    /// The same at a route whose path names the organization.
    async fn verify_at(
        &self,
        organization: &Organization,
        request: &Parts,
    ) -> Result<Principal, AuthenticateError> {
        match &self.issuer {
            Issuer::Here(server) => {
                let credential = credential(request).ok_or(AuthenticateError::Refused)?;
                let origin = origin(&request.headers, &request.extensions);
                server.authenticate(organization, credential, self.door(), &origin).await
            }
            #[cfg(feature = "fetch")]
            Issuer::Elsewhere(_) => match self.verify(request).await? {
                principal if principal.org == organization.id => Ok(principal),
                _ => Err(AuthenticateError::OtherOrganization),
            },
        }
    }

    #[cfg(feature = "fetch")]
    async fn verify_elsewhere(
        &self,
        tokens: &RemoteTokens,
        credential: Credential<'_>,
    ) -> Result<Principal, AuthenticateError> {
        if matches!(credential, Credential::Dpop { .. }) {
            tracing::warn!(
                "token not accepted: tokens that are bound to a key are accepted by their issuer only"
            );
        }
        // Keys are bound to nothing, so they open no door of a resource.
        let (Credential::Bearer(token), Some(resource)) = (credential, &self.resource) else {
            return Err(AuthenticateError::Refused);
        };
        tokens.verify_at(token, resource, self.details).await.map(Principal::remote)
    }

    fn door(&self) -> Door<'_> {
        match &self.resource {
            None => Door::Own,
            Some(resource) if self.details => Door::Details(resource),
            Some(resource) => Door::Resource(resource),
        }
    }
}

/// The credential that a request carries. A malformed one is none: it cannot prove anything.
pub(crate) fn credential(request: &Parts) -> Option<Credential<'_>> {
    let headers = &request.headers;
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        // Two headers of that name could be read differently by two parties.
        if headers.get_all(header::AUTHORIZATION).iter().nth(1).is_some() {
            return None;
        }
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        let token = token.trim_matches(' ');
        if token.is_empty() || token.contains(' ') {
            return None;
        }
        return match scheme {
            _ if scheme.eq_ignore_ascii_case("bearer") => Some(Credential::Bearer(token)),
            _ if scheme.eq_ignore_ascii_case("dpop") => {
                Some(Credential::Dpop { token, request: dpop(request) })
            }
            _ => None,
        };
    }
    let mut keys = headers.get_all("x-api-key").iter();
    let key = keys.next().filter(|_| keys.next().is_none())?;
    key.to_str().ok().filter(|key| !key.is_empty()).map(Credential::ApiKey)
}

/// What DPoP proofs are about.
pub(crate) fn dpop(request: &Parts) -> DpopRequest<'_> {
    DpopRequest { method: &request.method, path: request.uri.path(), headers: &request.headers }
}

impl Gate for AuthenticateLayer {
    /// Puts the principal into the extensions of the request.
    async fn admit(&self, request: &mut Parts) -> Result<(), Rejection> {
        let principal = match request.extensions.get::<Arc<Organization>>().cloned() {
            Some(organization) => self.verify_at(&organization, request).await?,
            None => self.verify(request).await?,
        };
        request.extensions.insert(principal);
        Ok(())
    }
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Gated<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.clone())
    }
}
