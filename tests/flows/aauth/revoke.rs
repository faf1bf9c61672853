//! Taking back what an agent was given.

use lumoauth_tests::{AAuthAgent, AAuthResource, Call, Ed25519, Server, Token, on_each_backend, text};
use serde_json::{Value, json};

use super::{refused, unauthenticated};

on_each_backend!(
    token_is_taken_back_by_its_name_or_whole,
    refresh_token_takes_everything_along_that_came_of_it,
    agents_take_back_only_what_is_theirs,
    unknown_tokens_are_taken_back_as_well,
    body_must_make_sense,
    only_agents_themselves_take_back,
);

fn granted<'a>(server: &'a Server) -> (AAuthAgent<'a>, AAuthResource<'a>, Value) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let body = agent.tokens(&resource);
    (agent, resource, body)
}

fn jti(body: &Value) -> String {
    text(&Token::parse(text(&body["auth_token"])).claims["jti"]).to_owned()
}

#[track_caller]
fn revoke(agent: &AAuthAgent<'_>, body: Value) {
    let answer = agent.post("/aauth/token/revoke", &body);
    assert_eq!(answer.ok(), json!({ "revoked": true }));
}

fn token_is_taken_back_by_its_name_or_whole(server: &Server) {
    let (agent, resource, body) = granted(server);
    let other = agent.refresh(&body["refresh_token"], &resource).ok();
    for _ in 0..2 {
        revoke(&agent, json!({ "token": jti(&body) }));
        assert!(!resource.sees_alive(&body["auth_token"]));
    }
    assert!(resource.sees_alive(&other["auth_token"]), "that is another one");
    revoke(&agent, json!({ "token": other["auth_token"], "token_type": "auth_token" }));
    assert!(!resource.sees_alive(&other["auth_token"]));
    agent.refresh(&body["refresh_token"], &resource).ok();
}

fn refresh_token_takes_everything_along_that_came_of_it(server: &Server) {
    let (agent, resource, body) = granted(server);
    let again = agent.refresh(&body["refresh_token"], &resource).ok();
    let apart = agent.tokens(&resource);
    // Under the wrong type it is the name of nothing.
    revoke(&agent, json!({ "token": jti(&body), "token_type": "refresh_token" }));
    assert!(resource.sees_alive(&body["auth_token"]));
    for _ in 0..2 {
        revoke(&agent, json!({ "token": body["refresh_token"], "token_type": "refresh_token" }));
        assert!(!resource.sees_alive(&body["auth_token"]));
        assert!(!resource.sees_alive(&again["auth_token"]));
        refused(&agent.refresh(&body["refresh_token"], &resource), 400, "invalid_grant");
    }
    assert!(resource.sees_alive(&apart["auth_token"]));
}

fn agents_take_back_only_what_is_theirs(server: &Server) {
    let (agent, resource, body) = granted(server);
    let thief = agent.org.aauth_agent(json!({}));
    revoke(&thief, json!({ "token": jti(&body) }));
    revoke(&thief, json!({ "token": body["auth_token"] }));
    revoke(&thief, json!({ "token": body["refresh_token"], "token_type": "refresh_token" }));
    assert!(resource.sees_alive(&body["auth_token"]));
    agent.refresh(&body["refresh_token"], &resource).ok();
    // Nor one of the same name elsewhere.
    let there = server.globex();
    let twin = there.aauth_agent(json!({ "agent_identifier": agent.identifier }));
    revoke(&twin, json!({ "token": jti(&body) }));
    revoke(&twin, json!({ "token": body["refresh_token"], "token_type": "refresh_token" }));
    assert!(resource.sees_alive(&body["auth_token"]));
}

fn unknown_tokens_are_taken_back_as_well(server: &Server) {
    let (agent, _, _) = granted(server);
    let robot = agent.org.agent(&["read:a"]);
    let token = robot.token();
    for unknown in ["x", "a.b.c", "aauth_refresh_x", &token, &"x".repeat(5000), &agent.token()] {
        for kind in ["auth_token", "refresh_token"] {
            revoke(&agent, json!({ "token": unknown, "token_type": kind }));
        }
    }
    robot.userinfo(&token).ok();
}

fn body_must_make_sense(server: &Server) {
    let (agent, _, body) = granted(server);
    for wrong in [
        json!({}),
        json!({ "token": "" }),
        json!({ "token": null }),
        json!({ "token": 1 }),
        json!({ "token": [jti(&body)] }),
        json!({ "token_type": "auth_token" }),
        json!({ "token": jti(&body), "token_type": "access_token" }),
        json!({ "token": jti(&body), "token_type": "" }),
        json!({ "token": jti(&body), "token_type": 1 }),
    ] {
        refused(&agent.post("/aauth/token/revoke", &wrong), 400, "invalid_request");
    }
}

fn only_agents_themselves_take_back(server: &Server) {
    let (agent, resource, body) = granted(server);
    let ask = json!({ "token": body["auth_token"] });
    let path = "/aauth/token/revoke";
    unauthenticated(&resource.post(path, &ask), "invalid_agent_token");
    unauthenticated(&agent.org.post(path).json(ask.clone()).send(), "invalid_signature");
    unauthenticated(
        &agent.org.post(path).api_key(agent.org.key()).json(ask.clone()).send(),
        "invalid_signature",
    );
    let key = Ed25519::generate("d");
    let delegate = Call::sdk(&agent.org, path, &ask).by(&agent.token_for("d", &key)).signed(&key);
    refused(&delegate.send(), 403, "access_denied");
    assert!(resource.sees_alive(&body["auth_token"]));
    let own = Call::sdk(&agent.org, path, &ask).by(&agent.token()).signed(&agent.key);
    assert_eq!(own.send().ok(), json!({ "revoked": true }));
    assert!(!resource.sees_alive(&body["auth_token"]));
}
