//! API keys of agents (contract 0.3 and routes 13).

use lumoauth_tests::{Server, on_each_backend, text};
use serde_json::json;

on_each_backend!(
    agent_key_works_like_a_token_with_all_capabilities,
    agent_key_is_refused_as_organization_key,
    rotating_the_key_kills_the_old_one,
    revoking_the_key_leaves_none,
    key_of_an_agent_that_is_no_key_identity_can_be_made,
    mutilated_keys_are_refused,
    organization_key_is_refused_on_agent_routes,
);

fn agent_key_works_like_a_token_with_all_capabilities(server: &Server) {
    let agent = server.acme().create_agent(json!({ "identityType": "api_key", "capabilities": ["read:a"] }));
    let key = &agent.api_key;
    assert_eq!(agent.org.get("/agents/me").bearer(key).send().ok()["agent_id"], agent.agent_id);
    assert_eq!(agent.ask(key, "read:a").ok()["allowed"], true);
    assert_eq!(agent.ask(key, "write:b").ok()["allowed"], false);
    let check =
        server.request("POST", "/api/v1/authz/check").bearer(key).json(json!({ "permission": "read:a" }));
    assert_eq!(check.send().ok()["allowed"], true);
}

fn agent_key_is_refused_as_organization_key(server: &Server) {
    let agent = server.acme().create_agent(json!({ "identityType": "api_key", "capabilities": ["*"] }));
    let response = agent.org.request("GET", "/admin/agents").api_key(&agent.api_key).send();
    assert!(matches!(response.status, 401 | 403), "{response}");
    let response = agent.org.request("GET", "/admin/agents").bearer(&agent.api_key).send();
    assert!(matches!(response.status, 401 | 403), "{response}");
}

fn rotating_the_key_kills_the_old_one(server: &Server) {
    let agent = server.acme().create_agent(json!({ "identityType": "api_key" }));
    let body = agent.admin("POST", "/rotate-key").send().ok();
    let new = text(&body["api_key"]);
    assert!(new.starts_with("agk_") && new != agent.api_key && body["message"].is_string(), "{body}");
    agent.userinfo(&agent.api_key).refused(401, "invalid_token");
    agent.userinfo(new).ok();
}

fn revoking_the_key_leaves_none(server: &Server) {
    let agent = server.acme().create_agent(json!({ "identityType": "api_key" }));
    assert!(agent.admin("POST", "/revoke-key").send().ok()["message"].is_string());
    agent.userinfo(&agent.api_key).refused(401, "invalid_token");
    let again = agent.admin("POST", "/rotate-key").send().ok();
    agent.userinfo(text(&again["api_key"])).ok();
}

fn key_of_an_agent_that_is_no_key_identity_can_be_made(server: &Server) {
    let agent = server.acme().create_agent(json!({ "identityType": "custom", "capabilities": ["read:a"] }));
    let body = agent.admin("POST", "/rotate-key").send().ok();
    assert_eq!(agent.userinfo(text(&body["api_key"])).ok()["agent_id"], agent.agent_id);
    agent.token();
}

fn mutilated_keys_are_refused(server: &Server) {
    let agent = server.acme().create_agent(json!({ "identityType": "api_key" }));
    let key = &agent.api_key;
    let mut flipped = key.clone().into_bytes();
    let last = flipped.len() - 1;
    flipped[last] = if flipped[last] == b'a' { b'b' } else { b'a' };
    let flipped = String::from_utf8(flipped).expect("ascii");
    for wrong in [&key[..key.len() - 1], &format!("{key}x"), &key.to_uppercase(), &key[4..], "agk_", &flipped]
    {
        agent.userinfo(wrong).refused(401, "invalid_token");
    }
    agent.userinfo(key).ok();
}

fn organization_key_is_refused_on_agent_routes(server: &Server) {
    let org = server.acme();
    let requests = [
        org.get("/agents/me"),
        org.post("/agents/ask").json(json!({ "action": "read:a" })),
        org.post("/agents/me/usage").json(json!({ "tokens": 1 })),
        org.get("/agents/me/usage"),
    ];
    for request in requests {
        for response in [request.clone().api_key(org.key()).send(), request.bearer(org.key()).send()] {
            assert_eq!(response.status, 401, "{response}");
            response.refused_somehow();
        }
    }
}
