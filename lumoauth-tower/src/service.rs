//! Every endpoint as one tower service.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
    request::Parts,
};
use http_body::Body;
use http_body_util::Full;
use lumoauth_core::{
    audit::Origin,
    capability::Capability,
    id::OrgId,
    organization::Organization,
    people::UserAuthenticator,
    principal::{Identity, Principal},
    server::{ApiError, AuthorizationServer},
    wire::WireError,
};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    authenticate::AuthenticateLayer,
    body,
    capability::RequireCapabilityLayer,
    endpoint::{self, Call},
    gate::take_ready,
    path::{Location, locate},
    rate_limit::{Counted, RateLimits},
    rejection::Rejection,
    reply::{self, Reply, fail, log_outage},
    route::{self, Access, Found, ORGANIZATION, ORGLESS, Route},
};

/// The address of the peer, which hosts put into the request's extensions. It is written to the audit log, decides
/// rate limits, is what `ip` means in policies, and is where agents with `allowedIps` must come from; a header that a client
/// can write is never believed. A host behind proxies of its own puts the address of the client here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "an address is all there is to it")]
pub struct PeerAddr(pub SocketAddr);

/// Which route answered, in the extensions of the response: its path with `{}` in place of everything that a caller chose,
/// such as `/orgs/{}/api/v1/agents/{}/attest`. Both prefixes of an organization are one. A response without it is to a
/// path, or a method, that there is no route for.
///
/// It is what a host may write to its log. Paths as they come are not fit for that: people paste tokens and keys into them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a path is all there is to it")]
pub struct MatchedRoute(pub &'static str);

/// All endpoints of an [`AuthorizationServer`] as one service over `http` types.
///
/// It mounts anywhere: as the fallback of an axum router, under hyper, below other tower layers. It answers every
/// path below `/orgs/{org}/api/v1`, its alias `/t/{org}/api/v1`, `/api/v1/authz`, `/api/v1/abac/check`,
/// `/api/v1/zanzibar/check` and the well-known documents, and 404 for everything else.
///
/// ```no_run
/// # async fn serve(server: lumoauth_core::server::AuthorizationServer) -> std::io::Result<()> {
/// use lumoauth_tower::LumoauthService;
///
/// let app = axum::Router::new().fallback_service(LumoauthService::new(server));
/// axum::serve(tokio::net::TcpListener::bind("127.0.0.1:8080").await?, app).await
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LumoauthService {
    server: AuthorizationServer,
    rate_limits: Option<RateLimits>,
    people: Option<Arc<dyn UserAuthenticator>>,
    default_organization: Option<OrgId>,
}

/// Where clients of AAuth look for an issuer that know no organization.
const ROOT_ISSUER: &str = "/.well-known/aauth-issuer";
/// How many issuers are shown to whoever names none.
const MOST_ISSUERS: u32 = 100;

impl LumoauthService {
    /// Serves `server`, without rate limits.
    pub fn new(server: AuthorizationServer) -> Self {
        Self { server, rate_limits: None, people: None, default_organization: None }
    }

    /// Whose issuer is meant where a client of AAuth asks for one and names no organization. Without it, the only one there
    /// is; of several, all are shown.
    #[must_use]
    pub fn with_default_organization(mut self, org: OrgId) -> Self {
        self.default_organization = Some(org);
        self
    }

    /// Limits how many requests a caller may make.
    #[must_use]
    pub fn with_rate_limits(mut self, limits: RateLimits) -> Self {
        self.rate_limits = Some(limits);
        self
    }

    /// Serves the authorization endpoint too, to the people that `people` recognises. Without it there is none, and the
    /// metadata name no grant that needs it.
    #[must_use]
    pub fn with_people(mut self, people: Arc<dyn UserAuthenticator>) -> Self {
        self.people = Some(people);
        self
    }

    /// Answers, and says in the extensions which route it was.
    ///
    /// The body is read first, also of what is refused then: where a client still writes, the transport would close the
    /// connection after the answer, and whatever the client sent on it next would be lost. Where it is not read to its end,
    /// the answer says that the connection ends.
    async fn serve<B: Body>(&self, request: Request<B>) -> Reply {
        let (parts, body) = request.into_parts();
        let persistent = parts.version == Version::HTTP_11;
        let body = body::read(&parts.headers, body).await;
        let unread = body.is_err();
        let mut reply = self.serve_read(Request::from_parts(parts, body)).await;
        if unread && persistent {
            reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        reply
    }

    async fn serve_read(&self, request: Request<Result<Bytes, WireError>>) -> Reply {
        // What serves GET serves HEAD (RFC 9110 section 9.3.2); the transport leaves the body out.
        let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
        let uri = request.uri().clone();
        let location = if uri.path() == ROOT_ISSUER {
            match self.issuer_at_root(&uri).await {
                Ok(location) => Some(location),
                Err(reply) => return reply,
            }
        } else {
            locate(uri.path())
        };
        let Some(Location { org, rest, .. }) = location else { return not_found() };
        let table = if org.is_some() { ORGANIZATION } else { ORGLESS };
        let (route, params) = match route::find(table, &method, &rest) {
            Found::Route(route, params) => (route, params),
            Found::OtherMethods(methods) => return other_method(&method, table, &rest, &methods),
            Found::Nothing => return not_found(),
        };
        let (parts, body) = request.into_parts();
        let mut request = match body {
            Ok(body) => Request::from_parts(parts, body),
            Err(error) => return stop(route, &parts.headers, &error),
        };
        let mut reply = match org {
            None => self.serve_route(request, route, params).await,
            Some(org) => match self.organization(&org).await {
                Ok(organization) => {
                    request.extensions_mut().insert(organization);
                    self.serve_route(request, route, params).await
                }
                Err(error) => stop(route, request.headers(), &outage(&error)),
            },
        };
        reply.extensions_mut().insert(MatchedRoute(route.template));
        reply
    }

    /// The organization that a client means which asks for an issuer without saying whose, or the answer that shows all.
    async fn issuer_at_root(&self, uri: &Uri) -> Result<Location<'static>, Reply> {
        let query = uri.query().unwrap_or_default();
        let named = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "org");
        let org = match (named, &self.default_organization) {
            (Some((_, org)), _) => org.into_owned(),
            (None, Some(org)) => org.to_string(),
            (None, None) => {
                let found = self.server.organizations(None, MOST_ISSUERS).await;
                let mut found = found.map_err(|error| reply::error(&outage(&error)))?;
                found.retain(|organization| organization.is_active());
                match found.as_slice() {
                    [only] => only.id.to_string(),
                    several => return Err(endpoint::aauth::metadata::issuers(&self.server, several)),
                }
            }
        };
        let rest = vec![".well-known".into(), "aauth-issuer".into()];
        Ok(Location { org: Some(org.into()), prefix: "", rest })
    }

    async fn serve_route(
        &self,
        request: Request<Bytes>,
        route: &'static Route,
        params: Vec<String>,
    ) -> Reply {
        let endpoint = EndpointService { service: self.clone(), route, params };
        let authenticate = || AuthenticateLayer::new(self.server.clone());
        let result = match route.access {
            Access::Open | Access::Metadata => endpoint.run(request).await,
            Access::Token | Access::Anyone => {
                let gate = RouteGate { service: self.clone(), route, inner: endpoint };
                drive(authenticate().layer(gate), request).await
            }
            Access::Admin(scopes) => {
                let scopes = scopes.iter().filter_map(|scope| Capability::parse(scope).ok());
                let require = RequireCapabilityLayer::any_of(scopes);
                let gate = RouteGate { service: self.clone(), route, inner: require.layer(endpoint) };
                drive(authenticate().layer(gate), request).await
            }
        };
        match result {
            Ok(reply) => reply,
            Err(never) => match never {},
        }
    }

    async fn organization(&self, org: &str) -> Result<Arc<Organization>, ApiError> {
        let org = OrgId::parse(org).map_err(|_| ApiError::TenantNotFound)?;
        self.server.organization(&org).await
    }
}

async fn drive<S>(mut service: S, request: Request<Bytes>) -> Result<Reply, Infallible>
where
    S: Service<Request<Bytes>, Response = Reply, Error = Infallible>,
{
    std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}

impl<B> Service<Request<B>> for LumoauthService
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.serve(request).await.map(Full::new)) })
    }
}

/// Between authentication and everything else: which sorts of principals a route is for. A denied route for
/// administrators is recorded.
#[derive(Clone)]
struct RouteGate<S> {
    service: LumoauthService,
    route: &'static Route,
    inner: S,
}

impl<S> Service<Request<Bytes>> for RouteGate<S>
where
    S: Service<Request<Bytes>, Response = Reply, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Reply;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Reply, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let (server, route) = (self.service.server.clone(), self.route);
        Box::pin(async move {
            let Some(principal) = request.extensions().get::<Principal>().cloned() else {
                return Ok(Rejection::misconfigured("AuthenticateLayer").into_response());
            };
            match (route.access, &principal.identity) {
                (Access::Token, Identity::ApiKey(_)) => Ok(Rejection::unauthenticated().into_response()),
                (Access::Admin(_), identity) => {
                    let origin = origin(request.headers(), request.extensions());
                    let reply = match identity {
                        Identity::ApiKey(_) => inner.call(request).await?,
                        Identity::User(person) if person.acts_in_person() => inner.call(request).await?,
                        Identity::Agent(_)
                        | Identity::Client(_)
                        | Identity::User(_)
                        | Identity::Remote(_) => Rejection::not_for_agents().into_response(),
                    };
                    if reply.extensions().get::<Rejection>().is_none() {
                        return Ok(reply);
                    }
                    match server.record_denied(&principal.org, &principal, route.pattern, &origin).await {
                        Ok(()) => Ok(reply),
                        Err(error) => Ok(fail(&ApiError::from(error))),
                    }
                }
                (Access::Open | Access::Metadata | Access::Token | Access::Anyone, _) => {
                    inner.call(request).await
                }
            }
        })
    }
}

/// One endpoint, behind the layers its route asks for: it calls the handler.
#[derive(Clone)]
struct EndpointService {
    service: LumoauthService,
    route: &'static Route,
    params: Vec<String>,
}

impl Service<Request<Bytes>> for EndpointService {
    type Response = Reply;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Reply, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let endpoint = self.clone();
        Box::pin(async move { endpoint.run(request).await })
    }
}

impl EndpointService {
    async fn run(self, request: Request<Bytes>) -> Result<Reply, Infallible> {
        let (mut parts, body) = request.into_parts();
        let principal = parts.extensions.remove::<Principal>();
        let organization = match self.organization_of(&mut parts, principal.as_ref()).await {
            Ok(organization) => organization,
            Err(error) => return Ok(stop(self.route, &parts.headers, &outage(&error))),
        };
        let origin = origin(&parts.headers, &parts.extensions);
        let call = Call {
            server: self.service.server.clone(),
            people: self.service.people.clone(),
            rate_limits: self.service.rate_limits,
            organization,
            principal,
            params: self.params,
            origin,
            body,
            parts,
        };
        let share = match self.service.rate_limits {
            None => None,
            Some(limits) => match count(limits, self.route, &call).await {
                Ok(share) => share,
                Err((error, share)) => {
                    let mut reply = stop(self.route, &call.parts.headers, &error);
                    if let Some(share) = share {
                        share.write(reply.headers_mut());
                    }
                    return Ok(reply);
                }
            },
        };
        let mut reply = match (self.route.handler)(call).await {
            Ok(reply) => reply,
            Err(error) => reply::error(&error),
        };
        if let Some(share) = share {
            share.write(reply.headers_mut());
        }
        Ok(reply)
    }

    async fn organization_of(
        &self,
        parts: &mut Parts,
        principal: Option<&Principal>,
    ) -> Result<Arc<Organization>, ApiError> {
        match (parts.extensions.remove::<Arc<Organization>>(), principal) {
            (Some(organization), _) => Ok(organization),
            (None, Some(principal)) => self.service.server.organization(&principal.org).await,
            (None, None) => Err(ApiError::TenantNotFound),
        }
    }
}

async fn count(
    limits: RateLimits,
    route: &Route,
    call: &Call,
) -> Result<Option<crate::rate_limit::Share>, (WireError, Option<crate::rate_limit::Share>)> {
    let actor = call.principal.as_ref().map(|principal| principal.actor().id).unwrap_or_default();
    let peer = call.origin.ip.as_ref().map(IpAddr::to_string).unwrap_or_default();
    let client;
    let counted = match (route.pattern, route.access, &route.method) {
        ("oauth/token" | "agents/{}/attest", _, _) => {
            client = call.claimed_client();
            Counted::Token { client: &client, peer: &peer }
        }
        ("aauth/agent/token" | "aauth/agent/platform-token" | "aauth/agent/issue", _, _) => {
            client = endpoint::aauth::claimed_signer(call, route.pattern);
            Counted::Token { client: &client, peer: &peer }
        }
        // Apart: whoever got too much must be able to take it back.
        ("aauth/token/revoke", _, _) => {
            client = endpoint::aauth::claimed_signer(call, route.pattern);
            Counted::Revocation { agent: &client, peer: &peer }
        }
        ("aauth/resource/token", _, _) => {
            client = endpoint::aauth::claimed_signer(call, route.pattern);
            Counted::ResourceToken { resource: &client, peer: &peer }
        }
        ("aauth/resource/token/verify" | "aauth/auth/token/verify", _, _) => {
            client = endpoint::aauth::claimed_signer(call, route.pattern);
            Counted::Verification { resource: &client, peer: &peer }
        }
        // A client id is the caller's choice here: it would bound nothing.
        ("oauth/authorize" | "oauth/par" | "aauth/agent/auth", _, _) => Counted::Authorize { peer: &peer },
        ("agents/me/approvals" | "jit/task" | "jit/request", _, _) => Counted::Approval { agent: &actor },
        // Not of administration, but what they write is kept like that.
        (
            "abac/resources/{}/{}/attributes/{}"
            | "abac/users/{}/attributes/{}"
            | "abac/agents/{}/attributes/{}",
            _,
            _,
        ) => Counted::AdminWrite { actor: &actor },
        (_, Access::Admin(_), &Method::GET) => Counted::AdminRead { actor: &actor },
        (_, Access::Admin(_), _) => Counted::AdminWrite { actor: &actor },
        _ => return Ok(None),
    };
    limits.admit(&call.server, &call.organization.id, counted).await.map(Some)
}

/// Where a request came from, as far as its headers and the host tell.
pub(crate) fn origin(headers: &HeaderMap, extensions: &Extensions) -> Origin {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let ip = extensions.get::<PeerAddr>().map(|peer| peer.0.ip());
    Origin::new(ip, text("user-agent"), text("x-request-id"))
}

/// The answer to a request that its endpoint has not seen. People stand before one of them.
fn stop(route: &Route, headers: &HeaderMap, error: &WireError) -> Reply {
    match route.pattern {
        "oauth/authorize" | "aauth/agent/auth" => endpoint::authorize::stopped(headers, error),
        _ => reply::error(error),
    }
}

fn outage(error: &ApiError) -> WireError {
    log_outage(error, error.is_outage(), error.to_wire())
}

fn not_found() -> Reply {
    reply::error(&WireError::not_found("There is nothing at this path."))
}

fn other_method(
    method: &Method,
    table: &'static [Route],
    rest: &[std::borrow::Cow<'_, str>],
    methods: &[&'static Method],
) -> Reply {
    let is_metadata = matches!(
        route::find(table, &Method::GET, rest),
        Found::Route(Route { access: Access::Metadata, .. }, _)
    );
    if is_metadata && *method == Method::OPTIONS {
        return reply::preflight();
    }
    let names: Vec<_> = methods.iter().map(|method| method.as_str()).collect();
    let mut reply = reply::error(&WireError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("This path serves {} only.", names.join(", ")),
    ));
    if let Ok(value) = HeaderValue::from_str(&names.join(", ")) {
        reply.headers_mut().insert(header::ALLOW, value);
    }
    reply
}
