//! What resources ask about tokens.

use lumoauth_tests::{AAuthAgent, AAuthResource, Ed25519, Server, Token, on_each_backend, text};
use serde_json::{Value, json};

use super::{refused, unauthenticated};

on_each_backend!(
    auth_token_is_described_to_its_resource,
    auth_token_of_another_resource_is_nobody_elses_business,
    bad_auth_tokens_are_inactive,
    resource_token_is_described_to_its_resource,
    resource_token_of_another_resource_is_nobody_elses_business,
    members_are_required,
    only_resources_ask,
);

fn granted<'a>(server: &'a Server) -> (AAuthAgent<'a>, AAuthResource<'a>, Value) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let body = agent.tokens(&resource);
    (agent, resource, body)
}

fn auth_token_is_described_to_its_resource(server: &Server) {
    let (agent, resource, body) = granted(server);
    let claims = Token::parse(text(&body["auth_token"])).claims;
    let ask = json!({ "auth_token": body["auth_token"], "resource": resource.identifier });
    let answer = resource.post("/aauth/auth/token/verify", &ask);
    let seen = answer.ok();
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    for (name, value) in [
        ("active", json!(true)),
        ("agent", json!(agent.identifier)),
        ("agent_delegate", Value::Null),
        ("resource", json!(resource.identifier)),
        ("sub", Value::Null),
        ("scope", json!("read write")),
        ("cnf_jkt", json!(agent.key.thumbprint())),
        ("act", Value::Null),
        ("pop_required", json!(true)),
        ("exp", claims["exp"].clone()),
        ("auth_level", json!("none")),
    ] {
        assert_eq!(seen[name], value, "{name}");
    }
    // How it is built inside is nobody's business.
    assert!(seen["lin"].is_null());
    // Asking uses nothing up.
    assert!(resource.sees_alive(&body["auth_token"]) && resource.sees_alive(&body["auth_token"]));
}

fn auth_token_of_another_resource_is_nobody_elses_business(server: &Server) {
    let (agent, resource, body) = granted(server);
    let other = agent.org.aauth_resource(json!({}));
    for named in
        [json!({}), json!({ "resource": resource.identifier }), json!({ "resource": other.identifier })]
    {
        let mut ask = named;
        ask["auth_token"] = body["auth_token"].clone();
        refused(&other.post("/aauth/auth/token/verify", &ask), 403, "access_denied");
    }
    let ask = json!({ "auth_token": body["auth_token"], "resource": other.identifier });
    refused(&resource.post("/aauth/auth/token/verify", &ask), 403, "access_denied");
}

fn bad_auth_tokens_are_inactive(server: &Server) {
    let (agent, resource, body) = granted(server);
    let good = text(&body["auth_token"]);
    let parts: Vec<_> = good.split('.').collect();
    let token = Token::parse(good);
    let mut wider = token.claims.clone();
    wider["scope"] = json!("admin");
    let forged = |typ: &str, key: &Ed25519, claims: &Value| {
        let kid = text(&token.header["kid"]);
        key.jws(&json!({ "typ": typ, "alg": "EdDSA", "kid": kid }), claims)
    };
    let thief = Ed25519::generate("t");
    let bent = format!("{}.{}.{}", parts[0], lumoauth_tests::b64(wider.to_string()), parts[2]);
    let there = server.globex();
    let (theirs, their_resource) = (
        there.aauth_agent(json!({})),
        there.aauth_resource(json!({ "resource_identifier": resource.identifier })),
    );
    let foreign = theirs.tokens(&their_resource);
    for bad in [
        "x".to_owned(),
        String::new(),
        "a.b.c".to_owned(),
        format!("{}.{}.", parts[0], parts[1]),
        bent,
        forged("auth+jwt", &thief, &token.claims),
        forged("auth+jwt", &resource.key, &token.claims),
        resource.key.token("auth+jwt", &token.claims),
        agent.key.token("auth+jwt", &token.claims),
        text(&foreign["auth_token"]).to_owned(),
        "x".repeat(20_000),
    ] {
        let seen = resource.verify(&json!(bad));
        assert_eq!((&seen["active"], &seen["pop_required"]), (&json!(false), &json!(true)), "{seen}");
        assert_eq!(seen["error"], "invalid_token");
        assert_eq!(seen.as_object().map(serde_json::Map::len), Some(3), "{seen}");
    }
    assert!(resource.sees_alive(&body["auth_token"]));
}

fn resource_token_is_described_to_its_resource(server: &Server) {
    let (agent, resource, _) = granted(server);
    let (jkt, other) = (agent.key.thumbprint(), Ed25519::generate("o").thumbprint());
    let token = resource.token_saying(&agent, json!({ "auth_request_url": "https://r.test/1" }));
    let ask = |token: &str, agent: &str, jkt: &str| {
        let body = json!({ "resource_token": token, "agent": agent, "agent_jkt": jkt });
        resource.post("/aauth/resource/token/verify", &body).ok()
    };
    let seen = ask(&token, &agent.identifier, &jkt);
    assert_eq!((&seen["active"], &seen["scope"]), (&json!(true), &json!("read write")));
    assert_eq!(seen["resource"], *resource.identifier);
    assert_eq!(seen["auth_request_url"], "https://r.test/1");
    assert_eq!(ask(&token, "https://else.test", &jkt)["active"], false);
    assert_eq!(ask(&token, &agent.identifier, &other)["active"], false);
    for bad in ["x", &agent.key.token("resource+jwt", &resource.claims(&agent, json!({})))] {
        let seen = ask(bad, &agent.identifier, &jkt);
        assert_eq!(seen["active"], false);
        assert!(seen["error"].is_string() && seen["scope"].is_null());
    }
    let old = resource.token_saying(&agent, json!({ "exp": lumoauth_tests::unix_now() - 61 }));
    assert_eq!(ask(&old, &agent.identifier, &jkt)["active"], false);
    // Asking does not use it up.
    agent.ask(&json!({ "request_type": "auth", "resource_token": token })).ok();
}

fn resource_token_of_another_resource_is_nobody_elses_business(server: &Server) {
    let (agent, resource, _) = granted(server);
    let other = agent.org.aauth_resource(json!({}));
    let body = json!({
        "resource_token": resource.token_for(&agent), "agent": agent.identifier,
        "agent_jkt": agent.key.thumbprint(),
    });
    refused(&other.post("/aauth/resource/token/verify", &body), 403, "access_denied");
}

fn members_are_required(server: &Server) {
    let (agent, resource, granted) = granted(server);
    let cases = [
        ("/aauth/auth/token/verify", json!({ "auth_token": granted["auth_token"] })),
        (
            "/aauth/resource/token/verify",
            json!({
                "resource_token": resource.token_for(&agent), "agent": agent.identifier,
                "agent_jkt": agent.key.thumbprint(),
            }),
        ),
    ];
    for (path, whole) in cases {
        resource.post(path, &whole).ok();
        for name in whole.as_object().expect("an object").keys() {
            for wrong in [Value::Null, json!(1), json!([]), json!({})] {
                let mut body = whole.clone();
                body[name] = wrong;
                refused(&resource.post(path, &body), 400, "invalid_request");
            }
        }
    }
}

fn only_resources_ask(server: &Server) {
    let (agent, resource, granted) = granted(server);
    let body = json!({ "auth_token": granted["auth_token"] });
    let path = "/aauth/auth/token/verify";
    unauthenticated(&agent.post(path, &body), "invalid_agent_token");
    unauthenticated(&agent.org.post(path).json(body.clone()).send(), "invalid_signature");
    let robot = agent.org.agent(&["*"]);
    unauthenticated(
        &agent.org.post(path).bearer(&robot.token()).json(body.clone()).send(),
        "invalid_signature",
    );
    unauthenticated(
        &agent.org.post(path).api_key(agent.org.key()).json(body.clone()).send(),
        "invalid_signature",
    );
    let thief = resource.call(path, &body).signed(&agent.key);
    unauthenticated(&thief.send(), "invalid_signature");
    let sent = resource.call(path, &body).signed(&resource.key);
    sent.send().ok();
    unauthenticated(&sent.send(), "invalid_signature");
}
