//! `private_key_jwt` of clients that publish their keys by https (`jwks_uri`): keys that change, and sites that fail.

use std::thread;

use lumoauth_tests::{
    Agent, AttackerKey, Backend, KeyPage, KeySite, Options, Org, Response, Server, on_each_backend, text,
    unique, unix_now,
};
use serde_json::json;

on_each_backend!(
    published_key_stands_in_for_a_secret,
    key_that_appears_is_found_at_once,
    key_that_disappears_is_dead_with_the_next_read,
    keys_are_kept_while_their_site_is_down,
    site_that_never_answered_refuses_its_client_only,
    invented_key_ids_are_cheap,
    many_at_once_make_one_read,
    address_that_moves_takes_its_keys_along,
    sites_that_are_not_allowed_are_not_reached,
    what_is_no_key_set_proves_nothing,
    application_may_publish_its_keys_too,
);

const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An agent that publishes its keys.
struct Publisher<'a> {
    agent: Agent<'a>,
    page: KeyPage<'static>,
    key: AttackerKey,
}

impl<'a> Publisher<'a> {
    /// With one key, `k1`, that is published.
    fn new(server: &'a Server) -> Self {
        let page = KeySite::trusted().page();
        let key = AttackerKey::generate();
        page.publish(&[("k1", &key)]);
        Self { agent: agent_at(&server.acme(), &page.uri()), page, key }
    }

    fn with(&self, kid: &str, key: &AttackerKey) -> Response {
        token(&self.agent.org, &self.agent.client_id, kid, key)
    }

    #[track_caller]
    fn ok(&self) {
        self.with("k1", &self.key).ok();
    }

    #[track_caller]
    fn refused(&self, kid: &str, key: &AttackerKey) {
        self.with(kid, key).refused(401, "invalid_client");
    }
}

fn agent_at<'a>(org: &Org<'a>, uri: &str) -> Agent<'a> {
    org.create_agent(json!({ "capabilities": ["read:a"], "jwksUri": uri }))
}

/// Asks for a token with a fresh assertion of `client`.
fn token(org: &Org<'_>, client: &str, kid: &str, key: &AttackerKey) -> Response {
    let claims = json!({
        "iss": client, "sub": client, "aud": org.issuer(), "jti": unique("jti"), "iat": unix_now(),
        "exp": unix_now() + 300,
    });
    let assertion = key.sign(&json!({ "alg": "ES256", "kid": kid, "typ": "JWT" }), &claims);
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", client),
        ("client_assertion_type", TYPE),
        ("client_assertion", &assertion),
    ];
    org.post("/oauth/token").form(&fields).send()
}

fn published_key_stands_in_for_a_secret(server: &Server) {
    let publisher = Publisher::new(server);
    let body = publisher.with("k1", &publisher.key).ok();
    assert_eq!(body["scope"], "read:a");
    publisher.agent.userinfo(text(&body["access_token"])).ok();
    for _ in 0..10 {
        publisher.ok();
    }
    assert_eq!(publisher.page.asked(), 1, "keys are kept");
    publisher.refused("k1", &AttackerKey::generate());
}

fn key_that_appears_is_found_at_once(server: &Server) {
    let publisher = Publisher::new(server);
    publisher.ok();
    let next = AttackerKey::generate();
    publisher.refused("k2", &next);
    // That used up the early read of half a minute. Another client has one of its own.
    assert_eq!(publisher.page.asked(), 2);
    let publisher = Publisher::new(server);
    publisher.ok();
    publisher.page.publish(&[("k1", &publisher.key), ("k2", &next)]);
    publisher.with("k2", &next).ok();
    publisher.ok();
    assert_eq!(publisher.page.asked(), 2);
}

fn key_that_disappears_is_dead_with_the_next_read(server: &Server) {
    let publisher = Publisher::new(server);
    publisher.ok();
    let next = AttackerKey::generate();
    publisher.page.publish(&[("k2", &next)]);
    publisher.with("k2", &next).ok();
    publisher.refused("k1", &publisher.key);
    publisher.refused("k2", &publisher.key);
    // Its id with another key is another key.
    let publisher = Publisher::new(server);
    publisher.page.publish(&[("k1", &next)]);
    publisher.refused("k1", &publisher.key);
    publisher.with("k1", &next).ok();
}

fn keys_are_kept_while_their_site_is_down(server: &Server) {
    let publisher = Publisher::new(server);
    publisher.ok();
    for status in [500, 404, 503] {
        publisher.page.fail(status, None);
        let new = AttackerKey::generate();
        publisher.refused("k2", &new);
        publisher.ok();
    }
    assert_eq!(publisher.page.asked(), 2, "a site that fails is left alone for a while");
    let other = Publisher::new(server);
    other.ok();
}

fn site_that_never_answered_refuses_its_client_only(server: &Server) {
    let publisher = Publisher::new(server);
    publisher.page.fail(503, None);
    for _ in 0..5 {
        publisher.refused("k1", &publisher.key);
    }
    assert_eq!(publisher.page.asked(), 1);
    // Its secret is not concerned, and neither are others.
    publisher.agent.token();
    Publisher::new(server).ok();
}

fn invented_key_ids_are_cheap(server: &Server) {
    let publisher = Publisher::new(server);
    publisher.ok();
    let thief = AttackerKey::generate();
    for n in 0..50 {
        publisher.refused(&format!("x{n}"), &thief);
    }
    publisher.ok();
    assert_eq!(publisher.page.asked(), 2);
}

fn many_at_once_make_one_read(server: &Server) {
    let publisher = Publisher::new(server);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| publisher.ok());
        }
    });
    assert_eq!(publisher.page.asked(), 1);
}

fn address_that_moves_takes_its_keys_along(server: &Server) {
    let publisher = Publisher::new(server);
    publisher.ok();
    let (page, next) = (KeySite::trusted().page(), AttackerKey::generate());
    page.publish(&[("k1", &next)]);
    publisher.agent.admin("PATCH", "").json(json!({ "jwksUri": page.uri() })).send().ok();
    publisher.refused("k1", &publisher.key);
    publisher.with("k1", &next).ok();
    // Without an address there are no keys.
    publisher.agent.admin("PATCH", "").json(json!({ "jwksUri": "" })).send().ok();
    publisher.refused("k1", &next);
}

fn sites_that_are_not_allowed_are_not_reached(server: &Server) {
    let org = server.acme();
    let site = KeySite::another();
    let key = AttackerKey::generate();
    let page = site.page();
    page.publish(&[("k1", &key)]);
    // It has a good certificate, and is on the loopback.
    let agent = agent_at(&org, &page.uri());
    token(&org, &agent.client_id, "k1", &key).refused(401, "invalid_client");
    // Nor does a site that may be reached lead there.
    let publisher = Publisher::new(server);
    publisher.page.fail(302, Some(&page.uri()));
    token(&org, &publisher.agent.client_id, "k1", &key).refused(401, "invalid_client");
    assert_eq!((page.asked(), publisher.page.asked()), (0, 1));
    for uri in ["http://localhost/jwks.json", "file:///etc/passwd", "https://user@localhost/", "jwks"] {
        let body = json!({ "name": unique("Agent"), "jwksUri": uri });
        org.admin("POST", "/agents").json(body).send().refused(400, "validation_error");
    }
}

fn what_is_no_key_set_proves_nothing(server: &Server) {
    let publisher = Publisher::new(server);
    // A set without keys says that all were removed.
    publisher.page.publish(&[]);
    publisher.refused("k1", &publisher.key);
    // Two keys of one id, of which one is ours.
    let publisher = Publisher::new(server);
    let other = AttackerKey::generate();
    publisher.page.publish(&[("k1", &other), ("k1", &publisher.key)]);
    publisher.refused("k1", &publisher.key);
}

fn application_may_publish_its_keys_too(server: &Server) {
    let org = server.acme();
    let (page, key) = (KeySite::trusted().page(), AttackerKey::generate());
    page.publish(&[("k1", &key)]);
    let app = org.app(json!({
        "grantTypes": ["client_credentials"], "allowedScopes": ["read:a"], "jwksUri": page.uri(),
    }));
    token(&org, &app.client_id, "k1", &key).ok();
    token(&org, &app.client_id, "k1", &AttackerKey::generate()).refused(401, "invalid_client");
}

/// An address that may be reached is not enough: its certificate must be one that the system trusts.
#[test]
fn site_without_a_trusted_certificate_is_not_believed() {
    let site = KeySite::untrusted();
    let options = Options::new(Backend::Memory).knowing_our_sites();
    let server = Server::start(&options.argument("--fetch-allow").argument(site.origin()));
    let (page, key) = (site.page(), AttackerKey::generate());
    page.publish(&[("k1", &key)]);
    let agent = agent_at(&server.acme(), &page.uri());
    token(&server.acme(), &agent.client_id, "k1", &key).refused(401, "invalid_client");
    assert_eq!(page.asked(), 0);
    let publisher = Publisher::new(&server);
    publisher.ok();
}
