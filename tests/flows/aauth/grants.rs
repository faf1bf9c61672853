//! `request_type=auth` at a resource that asks for nobody, and what the token endpoint refuses.

use lumoauth_tests::{Call, Jwks, Org, Server, Token, on_each_backend, text};
use serde_json::{Value, json};

use super::{refused, unauthenticated};

on_each_backend!(
    resource_that_asks_for_nobody_is_open_at_once,
    answer_has_exactly_its_members,
    token_has_exactly_its_claims,
    scope_is_what_the_resource_asks_for_or_less,
    scope_is_bounded_by_all_three,
    empty_scope_is_no_scope,
    members_are_required,
    other_sorts_of_requests_are_refused,
    bodies_that_are_no_json_are_refused,
    unknown_members_are_ignored,
    agent_token_may_be_in_the_body,
    organization_that_is_not_there_or_not_active_answers_nobody,
    both_prefixes_are_served,
    agent_that_may_ask_nobody_is_denied,
    redirect_uri_must_be_registered,
);

fn names(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn keys(org: &Org<'_>) -> Jwks {
    Jwks::read(org.get("/aauth/jwks.json").send().ok())
}

fn resource_that_asks_for_nobody_is_open_at_once(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let body = agent.tokens(&resource);
    assert_eq!(body["request_type"], "auth");
    assert_eq!(body["access_token"], body["auth_token"]);
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("auth+jwt"), &json!(3600)));
    assert_eq!(body["scope"], "read write");
    assert!(text(&body["refresh_token"]).starts_with("aauth_refresh_"));
    assert!(resource.sees_alive(&body["auth_token"]));
}

fn answer_has_exactly_its_members(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let answer = agent.ask_for(&resource);
    let body = answer.ok();
    let mut found = names(&body);
    found.sort_unstable();
    assert_eq!(
        found,
        ["access_token", "auth_token", "expires_in", "refresh_token", "request_type", "scope", "token_type"]
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

fn token_has_exactly_its_claims(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let token = Token::parse(text(&agent.tokens(&resource)["auth_token"]));
    let mut header = names(&token.header);
    header.sort_unstable();
    assert_eq!(header, ["alg", "kid", "typ"]);
    assert_eq!((&token.header["typ"], &token.header["alg"]), (&json!("auth+jwt"), &json!("EdDSA")));
    let mut found = names(&token.claims);
    found.sort_unstable();
    assert_eq!(
        found,
        ["agent", "aud", "auth_level", "cnf", "exp", "iat", "iss", "jti", "lin", "organization", "scope"]
    );
    let claims = &token.claims;
    // A single text: clients compare it as it is.
    assert_eq!(claims["aud"], *resource.identifier);
    assert_eq!((&claims["iss"], &claims["agent"]), (&json!(org.issuer()), &json!(agent.identifier)));
    assert_eq!(claims["cnf"]["jkt"], *agent.key.thumbprint());
    assert_eq!(claims["cnf"]["jwk"]["x"], *agent.key.x());
    assert_eq!(claims["auth_level"], "none");
    assert_eq!(claims["exp"].as_u64().expect("exp") - claims["iat"].as_u64().expect("iat"), 3600);
    assert!(claims["cnf"]["jwk"]["d"].is_null());
    // The signature, by another implementation; it wants a `sub`, which is not there.
    let published = keys(&org);
    let kid = text(&token.header["kid"]);
    let published = published.raw()["keys"].as_array().expect("keys");
    let key = published.iter().find(|key| key["kid"] == kid).expect("it is published");
    assert_eq!((&key["kty"], &key["crv"]), (&json!("OKP"), &json!("Ed25519")));
    let key = jsonwebtoken::DecodingKey::from_ed_components(text(&key["x"])).expect("a key");
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
    validation.set_issuer(&[org.issuer()]);
    validation.set_audience(&[&resource.identifier]);
    jsonwebtoken::decode::<Value>(&token.text, &key, &validation).expect("it verifies");
}

fn scope_is_what_the_resource_asks_for_or_less(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let ask = |asked: &str, wanted: Value| {
        let token = resource.token_saying(&agent, json!({ "scope": asked }));
        let mut body = json!({ "request_type": "auth", "resource_token": token });
        if !wanted.is_null() {
            body["scope"] = wanted;
        }
        agent.ask(&body)
    };
    assert_eq!(ask("read write", Value::Null).ok()["scope"], "read write");
    assert_eq!(ask("read write", json!("write")).ok()["scope"], "write");
    for more in ["admin", "read admin", "read write x", "READ"] {
        refused(&ask("read write", json!(more)), 400, "invalid_scope");
    }
    for malformed in ["a\"b", "a\\b", "\u{7f}", "ä"] {
        refused(&ask("read write", json!(malformed)), 400, "invalid_scope");
    }
}

fn scope_is_bounded_by_all_three(server: &Server) {
    let org = server.acme();
    let agent = org.aauth_agent(json!({ "allowed_scopes": ["read", "other"] }));
    let resource = org.aauth_resource(json!({ "supported_scopes": ["read", "write"] }));
    let ask = |scope: &str| {
        let token = resource.token_saying(&agent, json!({ "scope": scope }));
        agent.ask(&json!({ "request_type": "auth", "resource_token": token }))
    };
    assert_eq!(ask("read").ok()["scope"], "read");
    // The resource does not have it, though the agent may; and the other way round.
    refused(&ask("read other"), 400, "invalid_scope");
    refused(&ask("read write"), 400, "invalid_scope");
    // Who is bounded by nothing gets what the resource asks for, and no star stands for anything.
    let (free, open) = (org.aauth_agent(json!({})), org.aauth_resource(json!({ "supported_scopes": [] })));
    let token = open.token_saying(&free, json!({ "scope": "anything at:all" }));
    let body = free.ask(&json!({ "request_type": "auth", "resource_token": token })).ok();
    assert_eq!(body["scope"], "anything at:all");
    let star = org.aauth_agent(json!({ "allowed_scopes": ["*"] }));
    let token = resource.token_saying(&star, json!({ "scope": "read" }));
    refused(&star.ask(&json!({ "request_type": "auth", "resource_token": token })), 400, "invalid_scope");
}

fn empty_scope_is_no_scope(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    for scope in [json!(""), Value::Null] {
        let token = resource.token_saying(&agent, json!({ "scope": scope }));
        let body = agent.ask(&json!({ "request_type": "auth", "resource_token": token })).ok();
        assert_eq!(body["scope"], "");
    }
}

fn members_are_required(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let whole = [
        json!({ "request_type": "auth", "resource_token": resource.token_for(&agent) }),
        json!({ "request_type": "code", "code": "aac_x", "redirect_uri": lumoauth_tests::CALLBACK }),
        json!({ "request_type": "refresh", "refresh_token": agent.tokens(&resource)["refresh_token"],
            "resource_token": resource.token_for(&agent) }),
        json!({ "request_type": "exchange", "auth_token": agent.tokens(&agent.as_resource())["auth_token"],
            "resource_token": resource.token_for(&agent) }),
    ];
    for body in &whole {
        for name in names(body) {
            let mut less = body.clone();
            less.as_object_mut().expect("an object").remove(name);
            refused(&agent.ask(&less), 400, "invalid_request");
            for wrong in [json!(1), json!(["a"]), json!({}), json!(true)] {
                let mut bent = body.clone();
                bent[name] = wrong;
                refused(&agent.ask(&bent), 400, "invalid_request");
            }
            let mut empty = body.clone();
            empty[name] = json!("");
            let error = match name {
                "request_type" => "unsupported_request_type",
                "resource_token" => "invalid_resource_token",
                _ => "invalid_grant",
            };
            refused(&agent.ask(&empty), 400, error);
        }
    }
}

fn other_sorts_of_requests_are_refused(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    for kind in ["device_auth", "backchannel_auth", "AUTH", "auth ", "", "client_credentials"] {
        let body = json!({ "request_type": kind, "resource_token": resource.token_for(&agent) });
        refused(&agent.ask(&body), 400, "unsupported_request_type");
    }
}

fn bodies_that_are_no_json_are_refused(server: &Server) {
    let org = server.acme();
    let agent = org.aauth_agent(json!({}));
    let send = |body: &str, media: &str| {
        let mut call = agent.call(&Value::Null);
        call.body = body.as_bytes().to_vec();
        call.digested("sha-256").with("Content-Type", media).signed(&agent.key).send()
    };
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"auth\"",
        "{} {}",
        r#"{"request_type":"auth","request_type":"code"}"#,
        r#"{"auth_token":"a","subject_token":"a","request_type":"exchange"}"#,
        "\u{feff}{}",
    ] {
        refused(&send(body, "application/json"), 400, "invalid_request");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(send(&deep, "application/json").status, 400 | 413));
    for media in ["application/x-www-form-urlencoded", "text/plain", "application/xml"] {
        let answer = send(r#"{"request_type":"auth"}"#, media);
        assert!(matches!(answer.status, 400 | 415), "{answer}");
    }
    let huge = format!(r#"{{"request_type":"{}"}}"#, "x".repeat(4 << 20));
    assert!(matches!(send(&huge, "application/json").status, 400 | 413));
}

fn unknown_members_are_ignored(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    agent
        .ask(&json!({
            "request_type": "auth", "resource_token": resource.token_for(&agent), "purpose": "x",
            "code": "not for this sort of request",
        }))
        .ok();
}

fn agent_token_may_be_in_the_body(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let token = agent.token();
    let body = |agent_token: &str| {
        json!({
            "request_type": "auth", "resource_token": resource.token_for(&agent), "agent_token": agent_token,
        })
    };
    let call = |body: &Value| Call::sdk(&org, "/aauth/agent/token", body);
    call(&body(&token)).signed(&agent.key).send().ok();
    call(&body(&token)).by(&token).signed(&agent.key).send().ok();
    // Two that differ, each of them good.
    let answer = call(&body(&token)).by(&agent.token()).signed(&agent.key).send();
    refused(&answer, 400, "invalid_request");
    let nobody = json!({ "request_type": "auth", "resource_token": resource.token_for(&agent) });
    unauthenticated(&call(&nobody).signed(&agent.key).send(), "invalid_signature");
    // An agent proves itself by its token here, and by nothing else.
    let named = call(&nobody).with("Signature-Key", &format!("{}#{}", agent.identifier, agent.key.kid()));
    unauthenticated(&named.signed(&agent.key).send(), "invalid_signature");
}

fn organization_that_is_not_there_or_not_active_answers_nobody(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let body = json!({ "request_type": "auth", "resource_token": resource.token_for(&agent) });
    let mut call = agent.call(&body);
    call.path = call.path.replace(org.slug(), &lumoauth_tests::unique("nowhere"));
    let answer = call.signed(&agent.key).send();
    assert_eq!(answer.status, 404, "{answer}");
    // Another organization knows neither agent nor resource.
    let mut call = agent.call(&body);
    call.path = call.path.replace(org.slug(), server.globex().slug());
    unauthenticated(&call.signed(&agent.key).send(), "invalid_agent_token");
}

fn both_prefixes_are_served(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let mut call =
        agent.call(&json!({ "request_type": "auth", "resource_token": resource.token_for(&agent) }));
    call.path = format!("/t/{}/api/v1/aauth/agent/token", org.slug());
    call.signed(&agent.key).send().ok();
}

fn agent_that_may_ask_nobody_is_denied(server: &Server) {
    let org = server.acme();
    let agent = org.aauth_agent(json!({ "user_authorization": false }));
    for level in ["authenticated", "authorized", "user"] {
        refused(&agent.ask_for(&org.aauth_resource_of(level)), 403, "access_denied");
    }
    agent.tokens(&org.aauth_resource_of("none"));
}

fn redirect_uri_must_be_registered(server: &Server) {
    let org = server.acme();
    let resource = org.aauth_resource_of("authorized");
    let registered = ["https://a.test/cb", "https://a.test/other"];
    let agent = org.aauth_agent(json!({ "redirect_uris": registered }));
    let ask = |redirect_uri: Value| {
        let mut body = json!({ "request_type": "auth", "resource_token": resource.token_for(&agent) });
        if !redirect_uri.is_null() {
            body["redirect_uri"] = redirect_uri;
        }
        agent.ask(&body)
    };
    for uri in registered {
        ask(json!(uri)).refused(401, "authorization_required");
    }
    for uri in [
        "https://a.test/cb/",
        "https://a.test/CB",
        "https://a.test/cb?x=1",
        "https://A.test/cb",
        "https://a.test:443/cb",
        "https://evil.test/cb",
        "javascript:alert(1)",
        "",
    ] {
        refused(&ask(json!(uri)), 400, "invalid_request");
    }
    // Of several, which one is meant?
    refused(&ask(Value::Null), 400, "invalid_request");
    let without = org.aauth_agent(json!({ "redirect_uris": null }));
    refused(&without.ask_for(&resource), 400, "invalid_request");
    let one = org.aauth_agent(json!({}));
    let body = one.ask_for(&resource).refused(401, "authorization_required");
    assert_eq!(body["auth_url"], body["authorization_uri"]);
    assert_eq!((&body["expires_in"], &body["request_type"]), (&json!(600), &json!("auth")));
    assert_eq!(body["auth_server"], *org.issuer());
    let token = text(&body["request_token"]);
    assert!(token.starts_with("areq_"));
    let url = format!("{}/aauth/agent/auth?request_token={token}", org.issuer());
    assert_eq!(body["auth_url"], *url);
}
