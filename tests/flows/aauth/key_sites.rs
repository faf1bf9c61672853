//! Agents and resources that publish their keys by https: keys that change, and sites that fail (security HS-21).

use lumoauth_tests::{
    AAuthAgent, AAuthResource, AttackerKey, Ed25519, KeyPage, KeySite, Response, Server, at_once,
    on_each_backend, unique,
};
use serde_json::{Value, json};

use super::{refused, unauthenticated};

on_each_backend!(
    published_keys_are_as_good_as_registered_ones,
    key_that_appears_is_found_at_once,
    key_that_disappears_is_dead_with_the_next_read,
    keys_are_kept_while_their_site_is_down,
    site_that_never_answered_refuses_its_party_only,
    sites_that_are_not_allowed_are_not_reached,
    what_is_no_key_set_proves_nothing,
    nothing_is_fetched_for_whoever_cannot_sign,
    party_that_registers_keys_no_longer_publishes_them,
    invented_names_of_keys_are_looked_for_once,
    first_requests_at_once_read_once,
    keys_that_are_of_no_use_spoil_no_others,
    what_is_too_long_is_no_key_set,
);

/// An agent that publishes its keys.
fn publisher<'a>(server: &'a Server) -> (AAuthAgent<'a>, KeyPage<'static>) {
    let page = KeySite::trusted().page();
    let mut agent = server.acme().aauth_agent(json!({ "jwks": null, "jwks_uri": page.uri() }));
    agent.key = Ed25519::generate("k1");
    show(&page, &[&agent.key]);
    (agent, page)
}

fn show(page: &KeyPage<'_>, keys: &[&Ed25519]) {
    page.show(json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }));
}

/// An agent token that is signed by `key`.
fn with(agent: &AAuthAgent<'_>, resource: &AAuthResource<'_>, key: &Ed25519) -> Response {
    let asked = resource.token_saying(agent, json!({ "agent_jkt": key.thumbprint() }));
    let token = key.token("agent+jwt", &agent.claims(json!({ "cnf": { "jwk": key.jwk() } })));
    agent.call(&json!({ "request_type": "auth", "resource_token": asked })).by(&token).signed(key).send()
}

fn published_keys_are_as_good_as_registered_ones(server: &Server) {
    let (agent, page) = publisher(server);
    let resource = agent.org.aauth_resource(json!({}));
    for _ in 0..5 {
        agent.tokens(&resource);
    }
    assert_eq!(page.asked(), 1, "keys are kept");
    // The same for a resource.
    let page = KeySite::trusted().page();
    let mut resource = agent.org.aauth_resource(json!({ "jwks": null, "jwks_uri": page.uri() }));
    resource.key = Ed25519::generate("r1");
    show(&page, &[&resource.key]);
    let body = agent.tokens(&resource);
    assert!(resource.sees_alive(&body["auth_token"]));
    assert_eq!(page.asked(), 1, "keys are kept");
    let thief = Ed25519::generate("r1");
    let forged = thief.token("resource+jwt", &resource.claims(&agent, json!({})));
    let answer = agent.ask(&json!({ "request_type": "auth", "resource_token": forged }));
    refused(&answer, 400, "invalid_resource_token");
}

fn key_that_appears_is_found_at_once(server: &Server) {
    let (agent, page) = publisher(server);
    let resource = agent.org.aauth_resource(json!({}));
    agent.tokens(&resource);
    let next = Ed25519::generate("k2");
    show(&page, &[&agent.key, &next]);
    with(&agent, &resource, &next).ok();
    agent.tokens(&resource);
    assert_eq!(page.asked(), 2);
}

fn key_that_disappears_is_dead_with_the_next_read(server: &Server) {
    let (agent, page) = publisher(server);
    let resource = agent.org.aauth_resource(json!({}));
    agent.tokens(&resource);
    let next = Ed25519::generate("k2");
    show(&page, &[&next]);
    with(&agent, &resource, &next).ok();
    unauthenticated(&agent.ask_for(&resource), "invalid_agent_token");
    // Its name with another key is another key.
    unauthenticated(&with(&agent, &resource, &agent.key.called("k2")), "invalid_agent_token");
}

fn keys_are_kept_while_their_site_is_down(server: &Server) {
    let (agent, page) = publisher(server);
    let resource = agent.org.aauth_resource(json!({}));
    agent.tokens(&resource);
    for status in [500, 404, 503] {
        page.fail(status, None);
        unauthenticated(&with(&agent, &resource, &Ed25519::generate("k2")), "invalid_agent_token");
        agent.tokens(&resource);
    }
    assert_eq!(page.asked(), 2, "a site that fails is left alone for a while");
}

fn site_that_never_answered_refuses_its_party_only(server: &Server) {
    let (agent, page) = publisher(server);
    page.fail(503, None);
    let resource = agent.org.aauth_resource(json!({}));
    for _ in 0..3 {
        unauthenticated(&agent.ask_for(&resource), "invalid_agent_token");
    }
    assert_eq!(page.asked(), 1);
    agent.org.aauth_agent(json!({})).tokens(&resource);
    let down = KeySite::trusted().page();
    down.fail(503, None);
    let mut gone = agent.org.aauth_resource(json!({ "jwks": null, "jwks_uri": down.uri() }));
    gone.key = Ed25519::generate("r1");
    let other = agent.org.aauth_agent(json!({}));
    refused(&other.ask_for(&gone), 400, "invalid_resource_token");
    unauthenticated(
        &gone.post("/aauth/auth/token/verify", &json!({ "auth_token": "x" })),
        "invalid_agent_token",
    );
}

fn sites_that_are_not_allowed_are_not_reached(server: &Server) {
    let org = server.acme();
    let site = KeySite::another();
    let page = site.page();
    let mut agent = org.aauth_agent(json!({ "jwks": null, "jwks_uri": page.uri() }));
    agent.key = Ed25519::generate("k1");
    show(&page, &[&agent.key]);
    let resource = org.aauth_resource(json!({}));
    unauthenticated(&agent.ask_for(&resource), "invalid_agent_token");
    // Nor does a site that may be reached lead there.
    let (agent, allowed) = publisher(server);
    allowed.fail(302, Some(&page.uri()));
    unauthenticated(&agent.ask_for(&resource), "invalid_agent_token");
    assert_eq!((page.asked(), allowed.asked()), (0, 1));
    // Nor is anything looked for where a token says that keys are.
    let agent = org.aauth_agent(json!({}));
    let header = json!({
        "typ": "agent+jwt", "alg": "EdDSA", "kid": "k9", "jku": allowed.uri(), "x5u": allowed.uri(),
    });
    let key = Ed25519::generate("k9");
    let token = key.jws(&header, &agent.claims(json!({ "cnf": { "jwk": key.jwk() } })));
    let body = json!({ "request_type": "auth", "resource_token": resource.token_for(&agent) });
    unauthenticated(&agent.call(&body).by(&token).signed(&key).send(), "invalid_agent_token");
    assert_eq!(allowed.asked(), 1);
}

fn what_is_no_key_set_proves_nothing(server: &Server) {
    for body in [
        json!({ "keys": [] }),
        json!({}),
        json!([]),
        json!("keys"),
        Value::Null,
        json!({ "keys": [{ "kty": "oct", "k": "AAAA", "kid": "k1" }] }),
    ] {
        let (agent, page) = publisher(server);
        page.show(body);
        let resource = agent.org.aauth_resource(json!({}));
        unauthenticated(&agent.ask_for(&resource), "invalid_agent_token");
    }
    // Two keys of one name, of which one is its own.
    let (agent, page) = publisher(server);
    show(&page, &[&Ed25519::generate("k1"), &agent.key]);
    unauthenticated(&agent.ask_for(&agent.org.aauth_resource(json!({}))), "invalid_agent_token");
}

fn nothing_is_fetched_for_whoever_cannot_sign(server: &Server) {
    let (agent, page) = publisher(server);
    let resource = agent.org.aauth_resource(json!({}));
    let body = json!({ "request_type": "auth", "resource_token": resource.token_for(&agent) });
    let call = agent.call(&body);
    // Stale, incomplete, of another host, and without a signature: nobody has to know a key to see that.
    call.clone().aged(3600).signed(&agent.key).send().refused_somehow();
    call.clone().not_covering("@method").signed(&agent.key).send().refused_somehow();
    let mut elsewhere = call.clone();
    "evil.test".clone_into(&mut elsewhere.authority);
    elsewhere.signed(&agent.key).send().refused_somehow();
    call.signed(&agent.key).without("Signature").send().refused_somehow();
    assert_eq!(page.asked(), 0);
}

fn party_that_registers_keys_no_longer_publishes_them(server: &Server) {
    let (mut agent, page) = publisher(server);
    let resource = agent.org.aauth_resource(json!({}));
    agent.tokens(&resource);
    let next = Ed25519::generate(&unique("k"));
    let path = format!("/aauth/agents/{}", agent.id);
    agent.org.admin("PATCH", &path).json(json!({ "jwks": next.jwks() })).send().ok();
    unauthenticated(&agent.ask_for(&resource), "invalid_agent_token");
    agent.key = next;
    agent.tokens(&resource);
    assert_eq!(page.asked(), 1);
}

fn invented_names_of_keys_are_looked_for_once(server: &Server) {
    let (agent, page) = publisher(server);
    let resource = agent.org.aauth_resource(json!({}));
    agent.tokens(&resource);
    for n in 0..40 {
        let invented = Ed25519::generate(&format!("invented-{n}"));
        unauthenticated(&with(&agent, &resource, &invented), "invalid_agent_token");
    }
    assert_eq!(page.asked(), 2, "once at first, and once for all that was not there then");
    agent.tokens(&resource);
    assert_eq!(page.asked(), 2);
}

fn first_requests_at_once_read_once(server: &Server) {
    let (agent, page) = publisher(server);
    let resource = agent.org.aauth_resource(json!({}));
    for answer in at_once(16, |_| agent.ask_for(&resource)) {
        answer.ok();
    }
    assert_eq!(page.asked(), 1);
}

fn keys_that_are_of_no_use_spoil_no_others(server: &Server) {
    let (agent, page) = publisher(server);
    let x = Ed25519::generate("x").x();
    let good = agent.key.jwk();
    let others = [
        json!({ "kty": "OKP", "crv": "X25519", "x": x, "kid": "x25519", "use": "enc" }),
        json!({ "kty": "OKP", "crv": "Ed448", "x": x, "kid": "ed448" }),
        json!({ "kty": "AKP", "alg": "ML-DSA-44", "pub": x, "kid": "of-tomorrow" }),
        json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "weak" }),
        json!({ "kty": "EC", "crv": "secp256k1", "x": x, "y": x, "kid": "k1-of-256" }),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "short" }),
        json!({ "kid": "nothing" }),
        AttackerKey::generate().jwk("p-256"),
    ];
    let keys: Vec<_> = others[..4].iter().chain([&good]).chain(&others[4..]).cloned().collect();
    page.show(json!({ "keys": keys }));
    let resource = agent.org.aauth_resource(json!({}));
    agent.tokens(&resource);
    // None of them is tried.
    for kid in ["x25519", "ed448", "of-tomorrow", "weak", "k1-of-256", "short", "nothing"] {
        unauthenticated(&with(&agent, &resource, &agent.key.called(kid)), "invalid_agent_token");
    }
    agent.tokens(&resource);
}

fn what_is_too_long_is_no_key_set(server: &Server) {
    let (agent, page) = publisher(server);
    page.show(json!({ "keys": [agent.key.jwk()], "more": "x".repeat(10 << 20) }));
    unauthenticated(&agent.ask_for(&agent.org.aauth_resource(json!({}))), "invalid_agent_token");
    assert_eq!(page.asked(), 1);
}
