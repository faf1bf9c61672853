//! Delegates: those that an agent vouches for, by its own key or through this server.

use lumoauth_tests::{AAuthAgent, Call, DpopKey, Ed25519, Response, Server, Token, on_each_backend, text};
use serde_json::{Value, json};

use super::{refused, unauthenticated};

on_each_backend!(
    server_makes_the_token_of_a_delegate,
    token_is_for_its_key_alone,
    what_is_asked_must_make_sense,
    agent_must_be_allowed_to_have_delegates,
    only_the_agent_itself_names_delegates,
    end_of_the_agent_ends_its_delegates,
    end_of_the_agent_ends_what_its_delegates_hold,
    audience_bounds_where_it_is_good,
    delegate_may_sign_by_p_256,
);

fn issue(agent: &AAuthAgent<'_>, sub: &str, key: &Ed25519) -> Response {
    agent.post("/aauth/agent/issue", &json!({ "delegate_sub": sub, "delegate_public_key": key.jwk() }))
}

fn asks(agent: &AAuthAgent<'_>, token: &str, key: &Ed25519) -> Response {
    let resource = agent.org.aauth_resource(json!({}));
    let asked = resource.token_saying(agent, json!({ "agent_jkt": key.thumbprint() }));
    let body = json!({ "request_type": "auth", "resource_token": asked });
    Call::sdk(&agent.org, "/aauth/agent/token", &body).by(token).signed(key).send()
}

fn server_makes_the_token_of_a_delegate(server: &Server) {
    let agent = server.acme().aauth_agent(json!({}));
    let key = Ed25519::generate("d");
    let answer = issue(&agent, "worker-1", &key);
    let body = answer.ok();
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("agent+jwt"), &json!(3600)));
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(3));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let token = Token::parse(text(&body["agent_token"]));
    assert_eq!((&token.header["typ"], &token.header["alg"]), (&json!("agent+jwt"), &json!("EdDSA")));
    let claims = &token.claims;
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!(agent.identifier), &json!("worker-1")));
    assert_eq!(
        (&claims["cnf"]["jkt"], &claims["cnf"]["jwk"]["x"]),
        (&json!(key.thumbprint()), &json!(key.x()))
    );
    assert!(claims["jti"].is_string() && claims["iat"].is_u64());
    let given = asks(&agent, &token.text, &key).ok();
    assert_eq!(Token::parse(text(&given["auth_token"])).claims["agent_delegate"], "worker-1");
}

fn token_is_for_its_key_alone(server: &Server) {
    let agent = server.acme().aauth_agent(json!({}));
    let (key, thief) = (Ed25519::generate("d"), Ed25519::generate("d"));
    let body = issue(&agent, "worker-1", &key).ok();
    unauthenticated(&asks(&agent, text(&body["agent_token"]), &thief), "key_binding_failed");
    // Not even for the agent's own.
    unauthenticated(&asks(&agent, text(&body["agent_token"]), &agent.key), "key_binding_failed");
}

fn what_is_asked_must_make_sense(server: &Server) {
    let agent = server.acme().aauth_agent(json!({}));
    let key = Ed25519::generate("d");
    let good = json!({ "delegate_sub": "d", "delegate_public_key": key.jwk(), "lifetime": 60 });
    assert_eq!(agent.post("/aauth/agent/issue", &good).ok()["expires_in"], 60);
    let mut private = key.jwk();
    private["d"] = json!(key.x());
    let small = json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" });
    for (name, wrong) in [
        ("delegate_sub", Value::Null),
        ("delegate_sub", json!("")),
        ("delegate_sub", json!(1)),
        ("delegate_sub", json!("x".repeat(257))),
        ("delegate_sub", json!("a\nb")),
        ("delegate_sub", json!(agent.identifier)),
        ("delegate_public_key", Value::Null),
        ("delegate_public_key", json!("key")),
        ("delegate_public_key", json!({})),
        ("delegate_public_key", private),
        ("delegate_public_key", small),
        ("delegate_public_key", json!({ "kty": "oct", "k": "AAAA" })),
        ("delegate_public_key", json!({ "kty": "OKP", "crv": "X25519", "x": key.x() })),
        ("delegate_public_key", json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" })),
        ("lifetime", json!(0)),
        ("lifetime", json!(3601)),
        ("lifetime", json!(-1)),
        ("lifetime", json!("60")),
        ("audience", json!("")),
        ("audience", json!(["a"])),
        ("audience", json!("x".repeat(600))),
    ] {
        let mut body = good.clone();
        body[name] = wrong;
        refused(&agent.post("/aauth/agent/issue", &body), 400, "invalid_request");
    }
}

fn agent_must_be_allowed_to_have_delegates(server: &Server) {
    let agent = server.acme().aauth_agent(json!({ "delegation": false }));
    let key = Ed25519::generate("d");
    refused(&issue(&agent, "d", &key), 403, "access_denied");
    unauthenticated(&asks(&agent, &agent.token_for("d", &key), &key), "invalid_agent_token");
    // Nor for those that it had.
    let agent = server.acme().aauth_agent(json!({}));
    let body = issue(&agent, "d", &key).ok();
    let path = format!("/aauth/agents/{}", agent.id);
    agent.org.admin("PATCH", &path).json(json!({ "delegation": false })).send().ok();
    unauthenticated(&asks(&agent, text(&body["agent_token"]), &key), "invalid_agent_token");
}

fn only_the_agent_itself_names_delegates(server: &Server) {
    let org = server.acme();
    let agent = org.aauth_agent(json!({}));
    let key = Ed25519::generate("d");
    let body = json!({ "delegate_sub": "d", "delegate_public_key": key.jwk() });
    let call = |token: &str| Call::sdk(&org, "/aauth/agent/issue", &body).by(token);
    // Not by an agent token, whoever's it is.
    unauthenticated(&call(&agent.token()).signed(&agent.key).send(), "invalid_signature");
    let delegate = text(&issue(&agent, "d", &key).ok()["agent_token"]).to_owned();
    unauthenticated(&call(&delegate).signed(&key).send(), "invalid_signature");
    unauthenticated(&call(&agent.token_for("d", &key)).signed(&key).send(), "invalid_signature");
    let named = |name: &str| Call::sdk(&org, "/aauth/agent/issue", &body).with("Signature-Key", name);
    let whole = format!("{}#{}", agent.identifier, agent.key.kid());
    unauthenticated(&named(&whole).signed(&key).send(), "invalid_signature");
    let other = org.aauth_agent(json!({}));
    unauthenticated(&named(&whole).signed(&other.key).send(), "invalid_signature");
    // A resource has no delegates.
    let resource = org.aauth_resource(json!({}));
    unauthenticated(&resource.post("/aauth/agent/issue", &body), "invalid_agent_token");
    unauthenticated(&org.post("/aauth/agent/issue").json(body.clone()).send(), "invalid_signature");
    unauthenticated(
        &org.post("/aauth/agent/issue").api_key(org.key()).json(body).send(),
        "invalid_signature",
    );
}

fn end_of_the_agent_ends_its_delegates(server: &Server) {
    let agent = server.acme().aauth_agent(json!({}));
    let key = Ed25519::generate("d");
    let token = text(&issue(&agent, "d", &key).ok()["agent_token"]).to_owned();
    asks(&agent, &token, &key).ok();
    agent.admin("POST", "/deactivate").send().ok();
    unauthenticated(&asks(&agent, &token, &key), "invalid_agent_token");
    agent.admin("POST", "/activate").send().ok();
    unauthenticated(&asks(&agent, &token, &key), "invalid_agent_token");
    let token = text(&issue(&agent, "d", &key).ok()["agent_token"]).to_owned();
    asks(&agent, &token, &key).ok();
}

fn end_of_the_agent_ends_what_its_delegates_hold(server: &Server) {
    let org = server.acme();
    let key = Ed25519::generate("d");
    for action in ["deactivate", "revoke"] {
        let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
        let asked = || resource.token_saying(&agent, json!({ "agent_jkt": key.thumbprint() }));
        let refresh = |token: &Value| {
            let body = json!({
                "request_type": "refresh", "refresh_token": token, "resource_token": asked(),
            });
            agent.ask_as("worker-1", &key, &body)
        };
        let body = json!({ "request_type": "auth", "resource_token": asked() });
        let given = agent.ask_as("worker-1", &key, &body).ok();
        let again = refresh(&given["refresh_token"]).ok();
        assert!(resource.sees_alive(&given["auth_token"]) && resource.sees_alive(&again["auth_token"]));
        agent.admin("POST", &format!("/{action}")).send().ok();
        let dead = || {
            assert!(!resource.sees_alive(&given["auth_token"]), "{action}");
            assert!(!resource.sees_alive(&again["auth_token"]), "{action}");
        };
        dead();
        unauthenticated(&refresh(&given["refresh_token"]), "invalid_agent_token");
        // Nor is it theirs again when the agent comes back.
        if action == "deactivate" {
            agent.admin("POST", "/activate").send().ok();
            dead();
            refused(&refresh(&given["refresh_token"]), 400, "invalid_grant");
        }
    }
}

fn audience_bounds_where_it_is_good(server: &Server) {
    let agent = server.acme().aauth_agent(json!({}));
    let key = Ed25519::generate("d");
    let issue = |audience: &str| {
        let body = json!({ "delegate_sub": "d", "delegate_public_key": key.jwk(), "audience": audience });
        text(&agent.post("/aauth/agent/issue", &body).ok()["agent_token"]).to_owned()
    };
    asks(&agent, &issue(&agent.org.issuer()), &key).ok();
    unauthenticated(&asks(&agent, &issue("https://else.test"), &key), "invalid_agent_token");
}

fn delegate_may_sign_by_p_256(server: &Server) {
    let org = server.acme();
    let (resource, key) = (org.aauth_resource(json!({})), DpopKey::generate());
    let asks = |agent: &AAuthAgent<'_>, signer: &DpopKey| {
        let body = json!({ "delegate_sub": "d", "delegate_public_key": key.key().jwk("d") });
        let issued = agent.post("/aauth/agent/issue", &body).ok();
        let asked = resource.token_saying(agent, json!({ "agent_jkt": key.thumbprint() }));
        let body = json!({ "request_type": "auth", "resource_token": asked });
        let call = Call::sdk(&org, "/aauth/agent/token", &body).by(text(&issued["agent_token"]));
        call.carrying(&signer.key().sign_bytes(call.base().as_bytes())).send()
    };
    let agent = org.aauth_agent(json!({}));
    let given = asks(&agent, &key).ok();
    let claims = Token::parse(text(&given["auth_token"])).claims;
    assert_eq!((&claims["agent_delegate"], &claims["cnf"]["jkt"]), (&json!("d"), &json!(key.thumbprint())));
    unauthenticated(&asks(&agent, &DpopKey::generate()), "key_binding_failed");
    // What the agent itself may not sign by, its delegates may not either.
    let agent = org.aauth_agent(json!({ "signing_algs": ["ed25519"] }));
    unauthenticated(&asks(&agent, &key), "invalid_signature");
}
