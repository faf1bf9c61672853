//! The routes of accounts: what a request says, and what it is answered.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header, request::Parts};
use http_body::Body;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use lumoauth_core::{
    audit::Origin,
    id::OrgId,
    json,
    organization::Organization,
    secret::Secret,
    server::ApiError,
    wire::{Params, WireError},
};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::{
    Accounts, SignIn, bad_return,
    page::{self, Form},
    session::Session,
};

/// A route of accounts, and the organization it was asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Door<'a> {
    org: &'a str,
    route: Route,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Page,
    Form,
    Json,
    Logout,
    Waiting,
    Decide,
}

impl<'a> Door<'a> {
    /// The route at a path, if it is one of these.
    pub(crate) fn at(path: &'a str) -> Option<Self> {
        // Some clients join a base URL with a trailing slash and a path with a leading one.
        let path = path.strip_prefix('/').filter(|rest| rest.starts_with('/')).unwrap_or(path);
        let below = path.strip_prefix("/orgs/").or_else(|| path.strip_prefix("/t/"))?;
        let (org, rest) = below.split_once('/')?;
        let route = match rest.strip_prefix("api/v1/oauth/")? {
            "login" => Route::Page,
            "login/submit" => Route::Form,
            "login/json" => Route::Json,
            "logout" => Route::Logout,
            "approvals" => Route::Waiting,
            "approvals/decide" => Route::Decide,
            _ => return None,
        };
        Some(Self { org, route })
    }

    /// The path with nothing in it that a caller chose, for the log.
    pub(crate) const fn template(&self) -> &'static str {
        match self.route {
            Route::Page => "/orgs/{}/api/v1/oauth/login",
            Route::Form => "/orgs/{}/api/v1/oauth/login/submit",
            Route::Json => "/orgs/{}/api/v1/oauth/login/json",
            Route::Logout => "/orgs/{}/api/v1/oauth/logout",
            Route::Waiting => "/orgs/{}/api/v1/oauth/approvals",
            Route::Decide => "/orgs/{}/api/v1/oauth/approvals/decide",
        }
    }
}

/// What a program signs in with.
#[derive(Deserialize)]
struct Credentials {
    email: String,
    password: Secret,
}

/// A request that was read.
pub(super) struct Visit {
    pub(super) headers: HeaderMap,
    pub(super) uri: Uri,
    pub(super) origin: Origin,
    pub(super) body: Bytes,
}

impl Accounts {
    /// Answers a request at one of the routes.
    pub(crate) async fn answer<B>(
        &self,
        door: Door<'_>,
        request: Request<B>,
        peer: SocketAddr,
    ) -> Response<Full<Bytes>>
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let expected = match door.route {
            Route::Page | Route::Waiting => Method::GET,
            Route::Form | Route::Json | Route::Logout | Route::Decide => Method::POST,
        };
        if parts.method != expected && !(expected == Method::GET && parts.method == Method::HEAD) {
            let text = format!("This path serves {expected} only.");
            let mut reply =
                error(&WireError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text));
            if let Ok(value) = HeaderValue::from_str(expected.as_str()) {
                reply.headers_mut().insert(header::ALLOW, value);
            }
            return reply;
        }
        let organization = match OrgId::parse(door.org) {
            Ok(org) => self.server.organization(&org).await,
            Err(_) => Err(ApiError::TenantNotFound),
        };
        let answer = match (organization, read(body).await) {
            (Err(error), _) => Err(error),
            (Ok(_), Err(refused)) if door.route == Route::Json => return error(&refused),
            (Ok(_), Err(refused)) => {
                return whole(page::notice(refused.status, "This did not work", &refused.description));
            }
            (Ok(organization), Ok(body)) => {
                let visit = Visit::new(parts, body, peer);
                match door.route {
                    Route::Page => self.show(&organization, &visit).await,
                    Route::Form => self.submit(&organization, &visit).await,
                    Route::Json => self.json(&organization, &visit).await,
                    Route::Logout => self.sign_out(&organization, &visit).await,
                    Route::Waiting => self.show_waiting(&organization, &visit).await,
                    Route::Decide => self.decide_waiting(&organization, &visit).await,
                }
            }
        };
        answer.unwrap_or_else(|cause| match door.route {
            Route::Json => fail(&cause),
            Route::Page | Route::Form | Route::Logout | Route::Waiting | Route::Decide => {
                fail_for_people(&cause)
            }
        })
    }

    async fn show(
        &self,
        organization: &Organization,
        visit: &Visit,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let query = visit.uri.query().unwrap_or_default();
        let wanted = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "return_to");
        let wanted = wanted.map(|(_, value)| value).unwrap_or_default();
        let Some(return_to) = self.where_to(&organization.id, &wanted) else {
            return Ok(whole(bad_return()));
        };
        if return_to.is_empty()
            && let Some((.., user)) = self.session(organization, &visit.headers, self.server.now()).await?
        {
            let sign_out = self.site.url(&organization.id, "logout");
            return Ok(whole(page::signed_in(&organization.name, &user.email, &sign_out)));
        }
        let form = Form { return_to, ..Form::default() };
        let pre_session = self.cookies.pre_session(&visit.headers);
        Ok(whole(self.page(organization, pre_session, StatusCode::OK, form).await?))
    }

    async fn submit(
        &self,
        organization: &Organization,
        visit: &Visit,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let org = &organization.id;
        let form = is_form(&visit.headers);
        let Some(params) = form.then(|| Params::from_form(&visit.body).ok()).flatten() else {
            let text = "The form cannot be read.";
            return Ok(whole(page::notice(StatusCode::BAD_REQUEST, "This did not work", text)));
        };
        let of = |name| params.get(name).unwrap_or_default();
        let Some(return_to) = self.where_to(org, of("return_to")) else { return Ok(whole(bad_return())) };
        let email = of("email").trim();
        let again = async |status, text| {
            let form = Form { email, return_to, problem: Some(text), ..Form::default() };
            let pre_session = self.cookies.pre_session(&visit.headers);
            self.page(organization, pre_session, status, form).await.map(whole)
        };
        if !self.cookies.accepts_form(org, &visit.headers, of("csrf_token")) {
            let text = "This page was open for too long, or cookies are off. Please try again.";
            return Ok(again(StatusCode::FORBIDDEN, text).await?);
        }
        let password = params.secret("password").unwrap_or_else(|| Secret::from(""));
        match self.sign_in(organization, email, &password, &visit.origin).await? {
            SignIn::Accepted(user) => {
                let page = self.site.url(org, "login");
                let mut reply = see_other(if return_to.is_empty() { &page } else { return_to });
                self.begin(organization, &user, reply.headers_mut());
                Ok(reply)
            }
            // For a browser this is a page like any other, so it comes as one.
            SignIn::Refused => Ok(again(StatusCode::OK, REFUSED).await?),
            SignIn::TooMany(seconds) => {
                let mut reply = again(StatusCode::TOO_MANY_REQUESTS, TOO_MANY).await?;
                reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                Ok(reply)
            }
        }
    }

    async fn json(
        &self,
        organization: &Organization,
        visit: &Visit,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        // Pages of other sites can send neither this type nor a true `Origin` without being asked for it first.
        if media_type(&visit.headers).is_none_or(|text| text != "application/json") {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Ok(error(&WireError::new(
                status,
                "invalid_request",
                "The body must be application/json.",
            )));
        }
        if self.site.is_from_elsewhere(&visit.uri, &visit.headers) {
            return Ok(error(&WireError::forbidden("Pages of other sites sign nobody in.")));
        }
        let read = json::check(&visit.body).ok().and_then(|()| serde_json::from_slice(&visit.body).ok());
        let Some(Credentials { email, password }) = read else {
            return Ok(error(&WireError::invalid_request(
                "The body must be an object with email and password.",
            )));
        };
        Ok(match self.sign_in(organization, email.trim(), &password, &visit.origin).await? {
            SignIn::Accepted(user) => {
                let person = json!({ "id": user.id.to_string(), "email": user.email, "name": user.name });
                let mut reply = json_reply(StatusCode::OK, &json!({ "user": person }));
                self.begin(organization, &user, reply.headers_mut());
                reply
            }
            SignIn::Refused => {
                error(&WireError::new(StatusCode::UNAUTHORIZED, "invalid_credentials", REFUSED))
            }
            SignIn::TooMany(seconds) => {
                let status = StatusCode::TOO_MANY_REQUESTS;
                error(&WireError::new(status, "rate_limit_exceeded", TOO_MANY).with_retry_after(seconds))
            }
        })
    }

    /// Ends the session of this browser: here first, so that the cookie is only taken away once it is worth nothing.
    async fn sign_out(
        &self,
        organization: &Organization,
        visit: &Visit,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        if self.site.is_from_elsewhere(&visit.uri, &visit.headers) {
            return Ok(error(&WireError::forbidden("Pages of other sites sign nobody out.")));
        }
        if let Some((session, cookie)) = self.cookies.session(&visit.headers)
            && let Some((org, user)) = session.owner()
            && self.server.now() < session.until()
        {
            // It may be of another organization than this page: browsers keep one cookie for all of them.
            self.server.end_session(&org, user, &cookie.hash(), session.until(), &visit.origin).await?;
        }
        let mut reply = see_other(&self.site.url(&organization.id, "login"));
        if let Some(cookie) = self.cookies.end() {
            reply.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        Ok(reply)
    }

    /// Where to go after signing in: nowhere, to the authorization endpoint, or to the page of what waits. `None` for anywhere
    /// else.
    fn where_to<'a>(&self, org: &OrgId, wanted: &'a str) -> Option<&'a str> {
        if wanted.is_empty() { Some(wanted) } else { self.site.checked_return(org, wanted) }
    }

    fn begin(&self, organization: &Organization, user: &lumoauth_core::user::User, headers: &mut HeaderMap) {
        let session = Session::new(organization, user, self.server.now());
        if let Some(cookie) = self.cookies.begin(&self.cookies.seal(&session)) {
            headers.insert(header::SET_COOKIE, cookie);
        }
    }
}

impl Visit {
    fn new(parts: Parts, body: Bytes, peer: SocketAddr) -> Self {
        let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let origin = Origin::new(Some(peer.ip()), text("user-agent"), text("x-request-id"));
        Self { origin, headers: parts.headers, uri: parts.uri, body }
    }
}

async fn read<B>(body: B) -> Result<Bytes, WireError>
where
    B: Body + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            Err(WireError::new(status, "invalid_request", "The body is larger than 64 KiB."))
        }
        Ok(Err(_)) => Err(WireError::invalid_request("The body broke off.")),
        Err(_) => {
            let status = StatusCode::REQUEST_TIMEOUT;
            Err(WireError::new(status, "invalid_request", "The body did not arrive in time."))
        }
    }
}

/// The media type without its parameters, in lower case.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("invalid");
    Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Whether the body is a form, as far as its type says.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    media_type(headers).is_none_or(|text| text == "application/x-www-form-urlencoded")
}

pub(super) fn whole(page: Response<String>) -> Response<Full<Bytes>> {
    page.map(|html| Full::new(Bytes::from(html)))
}

/// 303, so that the browser asks with GET and leaves the form behind.
pub(super) fn see_other(target: &str) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = StatusCode::SEE_OTHER;
    // Every target is a path that was checked, or one of ours.
    let target = HeaderValue::from_str(target).unwrap_or_else(|_| HeaderValue::from_static("/"));
    reply.headers_mut().insert(header::LOCATION, target);
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

fn json_reply(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(Bytes::from(body.to_string())));
    *reply.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::PRAGMA, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    reply
}

fn error(wire: &WireError) -> Response<Full<Bytes>> {
    let mut reply = json_reply(wire.status, &wire.body());
    if let Some(seconds) = wire.retry_after {
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}

fn fail(cause: &ApiError) -> Response<Full<Bytes>> {
    if cause.is_outage() {
        tracing::error!(error = cause as &dyn std::error::Error, "a page of people failed");
    }
    error(&cause.to_wire())
}

fn fail_for_people(cause: &ApiError) -> Response<Full<Bytes>> {
    let wire = fail(cause);
    let text = cause.to_wire().description;
    let mut page = whole(page::notice(wire.status(), "This did not work", &text));
    if let Some(seconds) = wire.headers().get(header::RETRY_AFTER) {
        page.headers_mut().insert(header::RETRY_AFTER, seconds.clone());
    }
    page
}

/// The same for every account, there or not.
const REFUSED: &str = "The e-mail address or the password is wrong.";

const TOO_MANY: &str = "Too many tries. Please wait a minute.";

/// The largest body that is read.
const MAX_BODY: usize = 64 * 1024;

/// The longest a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);
