//! The same service under different hosts: axum as a fallback, and bare hyper.

mod setup;

use std::net::TcpListener;

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use lumoauth_tests::{Jwks, Request, text};
use lumoauth_tower::LumoauthService;

use setup::Tenant;

#[test]
fn axum_serves_the_service_as_its_fallback() {
    let (listener, authority) = listen();
    let (runtime, tenant, server) = setup::start(&format!("http://{authority}"));
    runtime.spawn(async move {
        let app = axum::Router::new()
            .route("/own", axum::routing::get(|| async { "the host's own route" }))
            .fallback_service(LumoauthService::new(server));
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        axum::serve(listener, app).await.expect("axum serves");
    });

    assert_agent_signs_in(&authority, &tenant);
    let own = Request::new(&authority, "GET", "/own").send().expect(200);
    assert_eq!(own.text(), "the host's own route");
}

#[test]
fn bare_hyper_serves_the_service() {
    let (listener, authority) = listen();
    let (runtime, tenant, server) = setup::start(&format!("http://{authority}"));
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        let service = LumoauthService::new(server);
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                // A client that hangs up is no failure of the host.
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });

    assert_agent_signs_in(&authority, &tenant);
}

#[test]
fn axum_serves_the_service_below_other_layers_and_beside_a_nested_router() {
    let (listener, authority) = listen();
    let (runtime, tenant, server) = setup::start(&format!("http://{authority}"));
    runtime.spawn(async move {
        let inner = axum::Router::new().route("/hello", axum::routing::get(|| async { "hello" }));
        let app = axum::Router::new().nest("/app", inner).fallback_service(LumoauthService::new(server));
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        axum::serve(listener, app).await.expect("axum serves");
    });

    assert_agent_signs_in(&authority, &tenant);
    assert_eq!(Request::new(&authority, "GET", "/app/hello").send().expect(200).text(), "hello");
    let absent = Request::new(&authority, "GET", "/nowhere").send();
    absent.expect(404).refused_somehow();
}

/// Token, userinfo and an administrator's list, over a socket.
fn assert_agent_signs_in(authority: &str, tenant: &Tenant) {
    let at = |method: &str, path: &str| Request::new(authority, method, &format!("/orgs/acme/api/v1{path}"));
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", tenant.client_id.as_str()),
        ("client_secret", tenant.secret.as_str()),
    ];
    let answer = at("POST", "/oauth/token").form(&form).send();
    let body = answer.ok();
    assert_eq!(body["scope"], "read:documents");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");

    let token = text(&body["access_token"]);
    let info = at("GET", "/oauth/userinfo").bearer(token).send().ok();
    assert_eq!((&info["name"], &info["organization"]), (&"Host Bot".into(), &"acme".into()));

    let issuer = format!("http://{authority}/orgs/acme/api/v1");
    let keys = Jwks::read(at("GET", "/.well-known/jwks.json").send().ok());
    keys.verify(token, &issuer, &tenant.client_id);

    let list = at("GET", "/admin/agents").api_key(&tenant.api_key).send().ok();
    assert_eq!(list["meta"]["total"], 1);
    at("GET", "/oauth/userinfo").send().expect(401);
    at("POST", "/oauth/token").form(&form[..2]).send().refused(401, "invalid_client");
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a listener can be non-blocking");
    let authority = listener.local_addr().expect("an address").to_string();
    (listener, authority)
}
