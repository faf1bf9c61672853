//! Refresh tokens: the same again, for a resource that asks anew.

use lumoauth_tests::{AAuthAgent, AAuthResource, Ed25519, Server, Token, on_each_backend, text};
use serde_json::{Value, json};

use super::{codes::withdraw, refused, unauthenticated};

on_each_backend!(
    it_is_not_rotated_and_gives_no_other,
    scope_narrows_and_never_widens,
    resource_is_the_same_and_asks_anew,
    it_is_the_agents_and_its_delegates,
    it_survives_a_new_key,
    it_ends_with_what_it_stands_on,
    other_tokens_are_none,
    scope_that_the_agent_or_resource_lost_is_gone,
    resource_that_wants_more_of_people_now_is_heeded,
);

fn both<'a>(server: &'a Server) -> (AAuthAgent<'a>, AAuthResource<'a>, Value) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let token = agent.tokens(&resource)["refresh_token"].clone();
    (agent, resource, token)
}

fn it_is_not_rotated_and_gives_no_other(server: &Server) {
    let (agent, resource, token) = both(server);
    for _ in 0..3 {
        let body = agent.refresh(&token, &resource).ok();
        assert_eq!((&body["request_type"], &body["scope"]), (&json!("refresh"), &json!("read write")));
        assert_eq!(body["expires_in"], 3600);
        assert!(body["refresh_token"].is_null(), "{body}");
        assert!(resource.sees_alive(&body["auth_token"]));
    }
}

fn scope_narrows_and_never_widens(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let narrow = resource.token_saying(&agent, json!({ "scope": "read write" }));
    let body = json!({ "request_type": "auth", "resource_token": narrow, "scope": "read" });
    let first = agent.ask(&body).ok();
    let refresh = |asked: &str, scope: Value| {
        let token = resource.token_saying(&agent, json!({ "scope": asked }));
        let mut body = json!({
            "request_type": "refresh", "refresh_token": first["refresh_token"], "resource_token": token,
        });
        if !scope.is_null() {
            body["scope"] = scope;
        }
        agent.ask(&body)
    };
    assert_eq!(refresh("read", Value::Null).ok()["scope"], "read");
    assert_eq!(refresh("read write", json!("read")).ok()["scope"], "read");
    assert_eq!(refresh("", Value::Null).ok()["scope"], "");
    refused(&refresh("read write", Value::Null), 400, "invalid_scope");
    refused(&refresh("read write", json!("write")), 400, "invalid_scope");
    refused(&refresh("write", json!("read")), 400, "invalid_scope");
    refused(&refresh("read", json!("a\"b")), 400, "invalid_scope");
    // Narrowing is not for ever.
    assert_eq!(refresh("read", Value::Null).ok()["scope"], "read");
}

fn resource_is_the_same_and_asks_anew(server: &Server) {
    let (agent, resource, token) = both(server);
    let other = agent.org.aauth_resource(json!({}));
    refused(&agent.refresh(&token, &other), 400, "invalid_target");
    let body = json!({ "request_type": "refresh", "refresh_token": token });
    refused(&agent.ask(&body), 400, "invalid_request");
    let used = resource.token_for(&agent);
    agent.refresh_with(&token, &used).ok();
    refused(&agent.refresh_with(&token, &used), 400, "invalid_resource_token");
    let theirs = agent.org.aauth_agent(json!({}));
    refused(&agent.refresh_with(&token, &resource.token_for(&theirs)), 400, "invalid_resource_token");
    agent.refresh(&token, &resource).ok();
}

fn it_is_the_agents_and_its_delegates(server: &Server) {
    let (agent, resource, token) = both(server);
    let thief = agent.org.aauth_agent(json!({}));
    refused(&thief.refresh(&token, &resource), 400, "invalid_grant");
    let key = Ed25519::generate("d");
    let ask = |name: &str, kind: &str, refresh: &Value| {
        let asked = resource.token_saying(&agent, json!({ "agent_jkt": key.thumbprint() }));
        let body = json!({ "request_type": kind, "refresh_token": refresh, "resource_token": asked });
        agent.ask_as(name, &key, &body)
    };
    // What the agent has its delegate has not, and the other way round.
    refused(&ask("d1", "refresh", &token), 400, "invalid_grant");
    let own = ask("d1", "auth", &Value::Null).ok();
    assert_eq!(Token::parse(text(&own["auth_token"])).claims["agent_delegate"], "d1");
    ask("d1", "refresh", &own["refresh_token"]).ok();
    refused(&ask("d2", "refresh", &own["refresh_token"]), 400, "invalid_grant");
    refused(&agent.refresh(&own["refresh_token"], &resource), 400, "invalid_grant");
    agent.refresh(&token, &resource).ok();
}

fn it_survives_a_new_key(server: &Server) {
    let (mut agent, resource, token) = both(server);
    let next = Ed25519::generate("next");
    let path = format!("/aauth/agents/{}", agent.id);
    agent.org.admin("PATCH", &path).json(json!({ "jwks": next.jwks() })).send().ok();
    unauthenticated(&agent.refresh(&token, &resource), "invalid_agent_token");
    agent.key = next;
    let body = agent.refresh(&token, &resource).ok();
    let claims = Token::parse(text(&body["auth_token"])).claims;
    assert_eq!(claims["cnf"]["jkt"], *agent.key.thumbprint());
}

fn it_ends_with_what_it_stands_on(server: &Server) {
    // The agent is suspended, and comes back.
    let (agent, resource, token) = both(server);
    agent.admin("POST", "/deactivate").send().ok();
    unauthenticated(&agent.refresh(&token, &resource), "invalid_agent_token");
    agent.admin("POST", "/activate").send().ok();
    refused(&agent.refresh(&token, &resource), 400, "invalid_grant");
    // The resource is, too.
    let (agent, resource, token) = both(server);
    for status in ["inactive", "active"] {
        resource.admin("PATCH").json(json!({ "status": status })).send().ok();
        agent.refresh(&token, &resource).refused_somehow();
    }
    refused(&agent.refresh(&token, &resource), 400, "invalid_grant");
    // The person takes it back.
    let org = server.acme();
    let (agent, resource, alice) =
        (org.aauth_agent(json!({})), org.aauth_resource_of("authorized"), org.person());
    let given = alice.give(&agent, &resource, "read");
    let asked = || resource.token_saying(&agent, json!({ "scope": "read" }));
    agent.refresh_with(&given["refresh_token"], &asked()).ok();
    withdraw(&alice, &agent);
    refused(&agent.refresh_with(&given["refresh_token"], &asked()), 400, "invalid_grant");
    assert!(!resource.sees_alive(&given["auth_token"]));
    // The person is gone.
    let given = alice.give(&agent, &resource, "read");
    org.admin("POST", &format!("/users/{}/block", alice.id)).send().ok();
    refused(&agent.refresh_with(&given["refresh_token"], &asked()), 400, "invalid_grant");
}

fn other_tokens_are_none(server: &Server) {
    let (agent, resource, token) = both(server);
    let given = agent.tokens(&resource);
    let alice = agent.org.person();
    let oauth = agent.org.delegate(&["read:a"]);
    let theirs = alice.allow(&oauth, "read:a");
    for other in [
        given["auth_token"].clone(),
        json!(theirs.refresh),
        json!("aauth_refresh_"),
        json!("x"),
        json!("x".repeat(5000)),
        json!(format!("{}x", text(&token))),
    ] {
        refused(&agent.refresh(&other, &resource), 400, "invalid_grant");
    }
    // Nor is it one of OAuth.
    oauth.refresh(text(&token), &[]).refused(400, "invalid_grant");
    oauth.refresh(&theirs.refresh, &[]).ok();
}

fn scope_that_the_agent_or_resource_lost_is_gone(server: &Server) {
    let (agent, resource, token) = both(server);
    let path = format!("/aauth/agents/{}", agent.id);
    agent.org.admin("PATCH", &path).json(json!({ "allowed_scopes": ["read"] })).send().ok();
    refused(&agent.refresh(&token, &resource), 400, "invalid_scope");
    let asked = resource.token_saying(&agent, json!({ "scope": "read" }));
    assert_eq!(agent.refresh_with(&token, &asked).ok()["scope"], "read");
    resource.admin("PATCH").json(json!({ "supported_scopes": ["write"] })).send().ok();
    let asked = resource.token_saying(&agent, json!({ "scope": "read" }));
    refused(&agent.refresh_with(&token, &asked), 400, "invalid_scope");
}

fn resource_that_wants_more_of_people_now_is_heeded(server: &Server) {
    let (agent, resource, token) = both(server);
    for level in ["authenticated", "authorized", "user"] {
        resource.admin("PATCH").json(json!({ "default_auth_level": level })).send().ok();
        refused(&agent.refresh(&token, &resource), 403, "access_denied");
    }
    resource.admin("PATCH").json(json!({ "default_auth_level": "none" })).send().ok();
    agent.refresh(&token, &resource).ok();
    // What a person agreed to is not that they are there.
    let (resource, alice) = (agent.org.aauth_resource_of("authorized"), agent.org.person());
    let given = alice.give(&agent, &resource, "read write");
    agent.refresh(&given["refresh_token"], &resource).ok();
    resource.admin("PATCH").json(json!({ "default_auth_level": "user" })).send().ok();
    refused(&agent.refresh(&given["refresh_token"], &resource), 403, "access_denied");
    // Nor is that they agreed once that they agreed to each scope.
    let resource = agent.org.aauth_resource_of("authenticated");
    let given = alice.give(&agent, &resource, "read write");
    agent.refresh(&given["refresh_token"], &resource).ok();
    resource.admin("PATCH").json(json!({ "default_auth_level": "authorized" })).send().ok();
    refused(&agent.refresh(&given["refresh_token"], &resource), 403, "access_denied");
    resource.admin("PATCH").json(json!({ "default_auth_level": "authenticated" })).send().ok();
    agent.refresh(&given["refresh_token"], &resource).ok();
}
