//! Agents that call: against the layer and the authorization server in memory, and against resources and servers that lie.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use lumoauth_core::{
    aauth::client::{AAuthAgent, ClientError},
    httpsig::Profile,
    id::AAuthIdentifier,
};
use lumoauth_tower::{
    AAuthClient, AAuthClientError, AAuthClientLayer, AAuthLayer, LumoauthService, WantedScope,
};
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneService};

use crate::setting::{AGENT, ISSUER, RESOURCE, Setting, echo};

pub(crate) const CALLBACK: &str = "https://agent.acme.test/callback";
pub(crate) const TOKEN_ENDPOINT: &str = "auth.example/orgs/acme/api/v1/aauth/agent/token";

pub(crate) type Net = BoxCloneService<Request<Bytes>, Response<Full<Bytes>>, Infallible>;
pub(crate) type Handler =
    Box<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Response<Full<Bytes>>> + Send + Sync>;

/// What went over the wire.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>);

impl Log {
    pub(crate) fn to(&self, host_and_path: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|(to, ..)| to.starts_with(host_and_path)).count()
    }

    fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<_> =
            self.0.lock().unwrap().iter().map(|(to, ..)| to.split('/').next().unwrap().to_owned()).collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }

    /// The bodies of the requests to the token endpoint.
    pub(crate) fn asked(&self) -> Vec<Value> {
        let log = self.0.lock().unwrap();
        let asked = log.iter().filter(|(to, ..)| to == TOKEN_ENDPOINT);
        asked.map(|(.., body)| serde_json::from_slice(body).unwrap()).collect()
    }
}

/// The network: `resource` and `auth_server` by their hosts.
pub(crate) fn net(resource: Handler, auth_server: Handler) -> (Net, Log) {
    let (log, servers) = (Log::default(), Arc::new((resource, auth_server)));
    let written = log.clone();
    let net = service_fn(move |request: Request<Bytes>| {
        let (servers, written) = (servers.clone(), written.clone());
        async move {
            let to = format!("{}{}", request.uri().authority().unwrap(), request.uri().path());
            let entry = (to.clone(), request.headers().clone(), request.body().clone());
            written.0.lock().unwrap().push(entry);
            tokio::task::yield_now().await;
            Ok(if to.starts_with("auth.example/") {
                (servers.1)(request).await
            } else {
                (servers.0)(request).await
            })
        }
    });
    (BoxCloneService::new(net), log)
}

pub(crate) fn handler<F>(answer: impl Fn(Request<Bytes>) -> F + Send + Sync + 'static) -> Handler
where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    Box::new(move |request| Box::pin(answer(request)))
}

/// Each path with the layer that stands before it.
pub(crate) fn behind(routes: Vec<(&'static str, AAuthLayer)>) -> Handler {
    handler(move |request| {
        let path = request.uri().path();
        let (_, layer) = routes.iter().find(|(prefix, _)| path.starts_with(prefix)).unwrap();
        let service = layer.layer(echo().0);
        async move { whole(service.oneshot(request.map(Full::new)).await.unwrap()).await }
    })
}

pub(crate) fn authorization_server(setting: &Setting) -> Handler {
    let service = LumoauthService::new(setting.server.clone());
    handler(move |request| {
        let service = service.clone();
        async move { whole(service.oneshot(request.map(Full::new)).await.unwrap()).await }
    })
}

async fn whole<B: http_body::Body>(response: Response<B>) -> Response<Full<Bytes>>
where
    B::Error: std::fmt::Debug,
{
    let (head, body) = response.into_parts();
    Response::from_parts(head, Full::new(body.collect().await.unwrap().to_bytes()))
}

pub(crate) fn answer(status: u16, challenge: &str, body: &str) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status);
    let response = if challenge.is_empty() { response } else { response.header("agent-auth", challenge) };
    response.body(Full::from(body.to_owned())).unwrap()
}

pub(crate) fn id(text: &str) -> AAuthIdentifier {
    AAuthIdentifier::parse(text).unwrap()
}

fn agent(setting: &Setting) -> AAuthAgent {
    let public = setting.agent.public_key().unwrap();
    AAuthAgent::new(id(AGENT), setting.agent.clone(), public, id(ISSUER)).unwrap()
}

pub(crate) fn layer(setting: &Setting) -> AAuthClientLayer {
    AAuthClientLayer::new(agent(setting)).with_clock(setting.clock.clone()).with_redirect_uri(CALLBACK)
}

/// An agent, the resource that demands `read:files` (and `write:files` below `/write`), and the real server.
pub(crate) fn real(setting: &Setting) -> (AAuthClient<Net>, Log) {
    let resource = behind(vec![
        ("/write", setting.layer().scope("write:files".parse().unwrap())),
        ("/", setting.layer().scope("read:files".parse().unwrap())),
    ]);
    let (net, log) = net(resource, authorization_server(setting));
    (layer(setting).layer(net), log)
}

fn request(path: &str) -> Request<Bytes> {
    Request::get(format!("{RESOURCE}{path}")).body(Bytes::new()).unwrap()
}

pub(crate) async fn get(
    client: &AAuthClient<Net>,
    path: &str,
) -> Result<Response<Full<Bytes>>, AAuthClientError> {
    client.clone().oneshot(request(path)).await
}

pub(crate) async fn json_of(response: Response<Full<Bytes>>) -> Value {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

#[track_caller]
fn protocol(outcome: Result<Response<Full<Bytes>>, AAuthClientError>) -> Arc<ClientError> {
    match outcome {
        Err(AAuthClientError::Protocol(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_first_call_obtains_a_token_and_the_next_ones_use_it() {
    let setting = Setting::new().await;
    let (client, log) = real(&setting);
    for n in 0..3 {
        let post = Request::post(format!("{RESOURCE}/a?n={n}")).header("content-type", "application/json");
        let response = client.clone().oneshot(post.body(Bytes::from("{\"a\":1}")).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let seen = json_of(response).await;
        assert_eq!((&seen["agent"], &seen["body"]), (&json!(AGENT), &json!("{\"a\":1}")));
        assert_eq!(seen["query_covered"], true);
    }
    assert_eq!((log.to(TOKEN_ENDPOINT), log.to("files.acme.test/")), (1, 4));
    for (_, headers, _) in log.0.lock().unwrap().iter() {
        assert!(headers.contains_key("signature") && headers.contains_key("signature-input"));
        let both = headers.contains_key("authorization") && headers.contains_key("agent-auth");
        assert!(!both);
    }
}

#[tokio::test]
async fn both_profiles_are_understood_by_the_real_parties() {
    let setting = Setting::new().await;
    for profile in [Profile::LUMO_RFC, Profile::LUMO_SDK] {
        let (net, _) = net(behind(vec![("/", setting.layer())]), authorization_server(&setting));
        let layer = AAuthClientLayer::new(agent(&setting).with_profile(profile));
        let client = layer.with_clock(setting.clock.clone()).layer(net);
        assert_eq!(get(&client, "/a").await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_hundred_calls_at_once_share_one_token() {
    let setting = Setting::new().await;
    let (client, log) = real(&setting);
    let calls = (0..100).map(|n| {
        let client = client.clone();
        async move { get(&client, &format!("/{n}")).await.unwrap().status() }
    });
    assert!(join_all(calls).await.iter().all(|status| *status == StatusCode::OK));
    assert_eq!(log.to(TOKEN_ENDPOINT), 1);
}

#[tokio::test]
async fn a_hundred_calls_at_once_share_one_failure() {
    let setting = Setting::new().await;
    let failing = handler(async |_| answer(503, "", "{\"error\":\"temporarily_unavailable\"}"));
    let (net, log) = net(behind(vec![("/", setting.layer())]), failing);
    let client = layer(&setting).layer(net);
    let outcomes = join_all((0..100).map(|_| get(&client, "/a"))).await;
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(AAuthClientError::is_outage)));
    assert_eq!(log.to(TOKEN_ENDPOINT), 1);
    // The next one tries again.
    assert!(get(&client, "/a").await.is_err());
    assert_eq!(log.to(TOKEN_ENDPOINT), 2);
}

#[tokio::test]
async fn whoever_is_dropped_while_it_obtains_a_token_holds_nobody_up() {
    let setting = Setting::new().await;
    let (client, log) = real(&setting);
    // It waits for the resource, for the authorization server, and for the resource again.
    for polls in 1..=3 {
        let client = client.for_somebody_else();
        let mut first = Box::pin(get(&client, "/a"));
        for _ in 0..polls {
            assert!(futures_util::poll!(first.as_mut()).is_pending());
        }
        drop(first);
        assert_eq!(get(&client, "/a").await.unwrap().status(), StatusCode::OK, "{polls}");
    }
    assert_eq!(log.to(TOKEN_ENDPOINT), 4);
}

#[tokio::test]
async fn a_token_is_refreshed_a_minute_before_its_end() {
    let setting = Setting::new().await;
    let (client, log) = real(&setting);
    let ok = async || assert_eq!(get(&client, "/a").await.unwrap().status(), StatusCode::OK);
    ok().await;
    setting.clock.advance(Duration::from_secs(3539));
    ok().await;
    assert_eq!(log.to(TOKEN_ENDPOINT), 1);
    setting.clock.advance(Duration::from_secs(1));
    ok().await;
    ok().await;
    // The refresh token stays what it is.
    setting.clock.advance(Duration::from_secs(3600));
    ok().await;
    let asked: Vec<_> = log.asked().iter().map(|body| body["request_type"].clone()).collect();
    assert_eq!(asked, ["auth", "refresh", "refresh"]);
}

#[tokio::test]
async fn a_token_that_died_is_replaced_even_if_its_refresh_token_died_too() {
    let setting = Setting::new().await;
    let (client, log) = real(&setting);
    assert_eq!(get(&client, "/a").await.unwrap().status(), StatusCode::OK);
    setting.change(|agent| agent.epoch += 1).await;
    // What the server remembers is a second old at most.
    setting.clock.advance(Duration::from_secs(2));
    assert_eq!(get(&client, "/a").await.unwrap().status(), StatusCode::OK);
    let asked: Vec<_> = log.asked().iter().map(|body| body["request_type"].clone()).collect();
    assert_eq!(asked, ["auth", "refresh", "auth"]);
}

#[tokio::test]
async fn routes_of_other_scopes_get_tokens_of_their_own_which_are_kept() {
    let setting = Setting::new().await;
    let (client, log) = real(&setting);
    for path in ["/a", "/write", "/a", "/write", "/a"] {
        assert_eq!(get(&client, path).await.unwrap().status(), StatusCode::OK, "{path}");
    }
    assert_eq!(log.to(TOKEN_ENDPOINT), 2);
    // Who says what it needs is not told off first.
    let before = log.to(RESOURCE.trim_start_matches("https://"));
    for (path, scope) in [("/a", "read:files"), ("/write", "write:files"), ("/a", "read:files")] {
        let mut request = request(path);
        request.extensions_mut().insert(WantedScope(scope.parse().unwrap()));
        assert_eq!(client.clone().oneshot(request).await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(log.to(RESOURCE.trim_start_matches("https://")) - before, 3);
}

#[tokio::test]
async fn a_resource_that_names_another_server_gets_nothing_and_nobody_is_asked() {
    let setting = Setting::new().await;
    let real = setting.layer();
    let lying = handler(move |request| {
        let service = real.layer(echo().0);
        async move {
            let mut response = whole(service.oneshot(request.map(Full::new)).await.unwrap()).await;
            let challenge = response.headers()["agent-auth"].to_str().unwrap();
            let lie = challenge.replace(ISSUER, "https://evil.example");
            response.headers_mut().insert("agent-auth", lie.parse().unwrap());
            response
        }
    });
    let (net, log) = net(lying, authorization_server(&setting));
    let client = layer(&setting).layer(net);
    assert!(matches!(*protocol(get(&client, "/a").await), ClientError::OtherAuthServer));
    assert_eq!(log.hosts(), ["files.acme.test"]);
}

#[tokio::test]
async fn what_another_resource_asks_for_is_not_sent_on() {
    let setting = Setting::new().await;
    // A real challenge for this agent and its key, handed on by somebody else.
    let mut call = setting.call(Method::GET, "/a", "", None);
    let agent_auth = format!("agent_token={}", setting.agent_token().await);
    call.headers.insert("agent-auth", agent_auth.parse().unwrap());
    let challenge = call.signed(&setting).await.to(&setting.layer()).await.challenge().to_owned();
    assert!(challenge.contains("resource_token="), "{challenge}");
    let other = handler(move |_| {
        let challenge = challenge.clone();
        async move { answer(401, &challenge, "") }
    });
    let (net, log) = net(other, authorization_server(&setting));
    let request = |host| Request::get(format!("https://{host}/a")).body(Bytes::new()).unwrap();
    let error = protocol(layer(&setting).layer(net.clone()).oneshot(request("evil.example")).await);
    assert!(matches!(*error, ClientError::ResourceToken(_)), "{error:?}");
    assert_eq!(log.to(TOKEN_ENDPOINT), 0);
    // From where it is for it would be.
    let _ = layer(&setting).layer(net).oneshot(request("files.acme.test")).await.unwrap();
    assert_eq!(log.to(TOKEN_ENDPOINT), 1);
}

/// A resource by hand: it wants a token, and takes none of them.
fn never_content(setting: &Setting) -> Handler {
    let real = setting.layer();
    handler(move |request| {
        let service = real.layer(echo().0);
        async move {
            if request.headers().contains_key("authorization") {
                return answer(401, "httpsig; auth-token", "");
            }
            whole(service.oneshot(request.map(Full::new)).await.unwrap()).await
        }
    })
}

#[tokio::test]
async fn a_resource_that_is_never_content_is_not_called_for_ever() {
    let setting = Setting::new().await;
    let (net, log) = net(never_content(&setting), authorization_server(&setting));
    let client = layer(&setting).layer(net);
    for _ in 0..3 {
        let before = (log.to("files.acme.test"), log.to(TOKEN_ENDPOINT));
        assert_eq!(get(&client, "/a").await.unwrap().status(), StatusCode::UNAUTHORIZED);
        let after = (log.to("files.acme.test"), log.to(TOKEN_ENDPOINT));
        assert!(after.0 - before.0 <= 5 && after.1 - before.1 <= 2, "{before:?} {after:?}");
    }
}

#[tokio::test]
async fn answers_that_ask_for_no_token_are_handed_on_as_they_are() {
    let setting = Setting::new().await;
    for (status, challenge) in [
        (200, ""),
        (401, ""),
        (401, "httpsig"),
        (401, "httpsig; auth-token"),
        (401, "not, a: challenge"),
        (403, ""),
        (404, "httpsig; auth-token"),
        (500, ""),
    ] {
        let resource = handler(move |_| async move { answer(status, challenge, "as it is") });
        let (net, log) = net(resource, authorization_server(&setting));
        let response = get(&layer(&setting).layer(net), "/a").await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "as it is");
        assert_eq!(log.0.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_request_with_an_authorization_of_its_own_is_signed_and_left_alone() {
    let setting = Setting::new().await;
    let (client, log) = real(&setting);
    let own = Request::get(format!("{RESOURCE}/a")).header("authorization", "Basic eDp5");
    let response = client.oneshot(own.body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let log = log.0.lock().unwrap();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].1["authorization"], "Basic eDp5");
    assert!(log[0].1["signature-input"].to_str().unwrap().contains("\"authorization\""));
}

/// What becomes of a call if the token endpoint answers this.
async fn with_answer(setting: &Setting, status: u16, body: String) -> AAuthClientError {
    let body = Arc::new(body);
    let server = handler(move |_| {
        let body = body.clone();
        async move { answer(status, "", &body) }
    });
    let (net, log) = net(behind(vec![("/", setting.layer())]), server);
    let error = get(&layer(setting).layer(net), "/a").await.unwrap_err();
    assert_eq!(log.to("files.acme.test"), 1, "no token was sent");
    assert_eq!(log.to(TOKEN_ENDPOINT), 1);
    error
}

#[tokio::test]
async fn tokens_for_others_are_not_used() {
    let setting = Setting::new().await;
    let other_key = crate::setting::signer(9, "other").public_key().unwrap();
    let other = lumoauth_core::aauth::Confirmation::of(other_key).to_claim();
    for (name, value) in [
        ("aud", json!("https://mail.acme.test")),
        ("cnf", other),
        ("iss", json!("https://evil.example")),
        ("exp", json!(1)),
        ("agent", json!("https://other.acme.test")),
    ] {
        let token = setting.token_with(name, value).await;
        let error = with_answer(&setting, 200, json!({ "auth_token": token }).to_string()).await;
        let refused = matches!(&error, AAuthClientError::Protocol(error)
            if matches!(**error, ClientError::AuthToken(_)));
        assert!(refused, "{name}: {error}");
        assert!(!format!("{error:?}").contains(&token));
    }
}

#[tokio::test]
async fn garbage_and_too_much_from_the_token_endpoint_end_the_call() {
    let setting = Setting::new().await;
    for body in ["", "{}", "<html>", "[1]", "{\"auth_token\":7}", "{\"auth_token\":\"x\"}"] {
        let error = with_answer(&setting, 200, body.to_owned()).await;
        assert!(matches!(error, AAuthClientError::Protocol(_)), "{body}");
    }
    let token = setting.token("read:files").await;
    let much = json!({ "auth_token": token, "more": "x".repeat(70_000) }).to_string();
    let error = with_answer(&setting, 200, much).await;
    assert!(matches!(error, AAuthClientError::AuthServer(_)), "{error:?}");
    let error = with_answer(&setting, 302, json!({ "auth_token": token }).to_string()).await;
    assert!(matches!(error, AAuthClientError::Protocol(_)));
    let refusal = json!({ "error": "access_denied", "error_description": "No." }).to_string();
    let error = with_answer(&setting, 403, refusal).await;
    assert_eq!(error.refusal(), Some("access_denied"));
    assert!(!error.is_outage());
}

#[tokio::test]
async fn a_relative_request_and_a_network_that_fails_end_the_call() {
    let setting = Setting::new().await;
    let (client, _) = real(&setting);
    let relative = client.oneshot(Request::get("/a").body(Bytes::new()).unwrap()).await;
    assert!(matches!(*protocol(relative), ClientError::Target));
    let broken =
        service_fn(async |_: Request<Bytes>| Err::<Response<Full<Bytes>>, _>(std::io::Error::other("cut")));
    let client = layer(&setting).layer(broken);
    let outcome = client.oneshot(request("/a")).await;
    assert!(matches!(outcome, Err(AAuthClientError::NotSent(_))));
}

#[tokio::test]
async fn the_client_below_is_asked_whether_it_is_ready_each_time() {
    let setting = Setting::new().await;
    let (net, _) = net(behind(vec![("/", setting.layer())]), authorization_server(&setting));
    let mut client = layer(&setting).layer(Strict { net, ready: false });
    let response = client.ready().await.unwrap().call(request("/a")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

/// Panics when it is called unasked.
struct Strict {
    net: Net,
    ready: bool,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { net: self.net.clone(), ready: false }
    }
}

impl Service<Request<Bytes>> for Strict {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = <Net as Service<Request<Bytes>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        self.net.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called unasked");
        self.net.call(request)
    }
}
