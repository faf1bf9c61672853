//! Status changes act at once, on every route (contract 2.4.2, architecture decision 12).

use lumoauth_tests::{Agent, Server, on_each_backend, text, unique};
use serde_json::json;

on_each_backend!(
    deactivation_shuts_every_door_at_once,
    disabling_shuts_every_door_at_once,
    activation_reopens_for_new_tokens_only,
    enabling_reopens_for_new_tokens_only,
    revocation_is_terminal,
    deleted_agent_is_gone,
    deleted_slug_can_be_used_by_a_new_agent,
    rotation_kills_the_old_secret_at_once,
    rotation_leaves_issued_tokens_alone,
    rotation_with_grace_keeps_the_old_secret_for_a_while,
    revocation_takes_a_reason,
    every_ending_is_audited_with_its_mode,
    envelopes_of_status_routes_differ_as_documented,
    concurrent_rotations_leave_one_valid_secret,
);

fn deactivation_shuts_every_door_at_once(server: &Server) {
    assert_shut_by(server, "/deactivate");
}

fn disabling_shuts_every_door_at_once(server: &Server) {
    assert_shut_by(server, "/disable");
}

fn assert_shut_by(server: &Server, path: &str) {
    let org = server.acme();
    let resource = org.mcp_server(json!({}))["resource_uri"].clone();
    let agent = org.create_agent(json!({ "capabilities": ["read:a"], "identityType": "custom" }));
    let token = agent.token();
    agent.userinfo(&token).ok();

    agent.admin("POST", path).send().ok();

    assert_shut(&agent, &token);
    if !agent.api_key.is_empty() {
        agent.userinfo(&agent.api_key).refused(401, "invalid_token");
    }
    agent.exchange(&token, &[("resource", text(&resource))]).refused(400, "invalid_grant");
}

fn assert_shut(agent: &Agent<'_>, token: &str) {
    agent.ask_token(&[]).refused(401, "invalid_client");
    agent.userinfo(token).refused(401, "invalid_token");
    agent.ask(token, "read:a").refused(401, "invalid_token");
    agent.org.get("/agents/me").bearer(token).send().refused(401, "invalid_token");
    let usage = json!({ "tokens": 1 });
    agent.org.post("/agents/me/usage").bearer(token).json(usage).send().refused(401, "invalid_token");
    let server = agent.org.server();
    let check =
        server.request("POST", "/api/v1/authz/check").bearer(token).json(json!({ "permission": "read:a" }));
    check.send().refused(401, "invalid_token");
    let admin = agent.org.agent(&[]);
    assert_eq!(agent.org.introspect(&admin, token), json!({ "active": false }));
}

fn activation_reopens_for_new_tokens_only(server: &Server) {
    assert_reopened_by(server, "/deactivate", "/activate");
}

fn enabling_reopens_for_new_tokens_only(server: &Server) {
    assert_reopened_by(server, "/disable", "/enable");
}

fn assert_reopened_by(server: &Server, close: &str, open: &str) {
    let agent = server.acme().agent(&["read:a"]);
    let old = agent.token();
    agent.admin("POST", close).send().ok();
    agent.admin("POST", open).send().ok();
    agent.userinfo(&agent.token()).ok();
    agent.userinfo(&old).refused(401, "invalid_token");
    assert_eq!(agent.admin("GET", "").send().ok()["data"]["status"], "active");
}

fn revocation_is_terminal(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.token();
    let body = agent.admin("POST", "/revoke").send().ok();
    assert_eq!((&body["data"]["status"], &body["data"]["isActive"]), (&json!("revoked"), &json!(false)));
    assert!(body["message"].is_string());
    assert_shut(&agent, &token);
    for path in ["/activate", "/deactivate", "/enable", "/disable"] {
        let response = agent.admin("POST", path).send();
        assert_eq!(response.status, 409, "{path}: {response}");
        response.refused_somehow();
    }
    assert_eq!(agent.admin("GET", "").send().ok()["data"]["status"], "revoked");
    agent.ask_token(&[]).refused(401, "invalid_client");
    // Whether fresh credentials are refused or merely dead, they open nothing.
    let rotated = agent.admin("POST", "/rotate-credentials").send();
    if rotated.status == 200 {
        let secret = rotated.json()["data"]["clientSecret"].clone();
        agent.token_request(text(&secret), &[]).send().refused(401, "invalid_client");
    } else {
        rotated.expect(409).refused_somehow();
    }
    let issued = agent.admin("POST", "/token").send();
    if issued.status == 200 {
        let token = issued.json()["data"]["accessToken"].clone();
        agent.userinfo(text(&token)).refused(401, "invalid_token");
    } else {
        assert!(matches!(issued.status, 400 | 409), "{issued}");
        issued.refused_somehow();
    }
}

fn deleted_agent_is_gone(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.token();
    assert!(agent.admin("DELETE", "").send().ok()["message"].is_string());
    assert_shut(&agent, &token);
    for id in [&agent.agent_id, &agent.id, &agent.slug] {
        assert_eq!(agent.org.admin("GET", &format!("/agents/{id}")).send().status, 404);
    }
    assert_eq!(agent.admin("DELETE", "").send().status, 404);
    assert_eq!(agent.admin("POST", "/activate").send().status, 404);
    let found = agent.org.admin("GET", &format!("/agents?search={}", agent.slug)).send().ok();
    assert_eq!(found["meta"]["total"], 0);
}

fn deleted_slug_can_be_used_by_a_new_agent(server: &Server) {
    let slug = unique("phoenix");
    let old = server.acme().create_agent(json!({ "slug": slug, "capabilities": ["read:a"] }));
    let token = old.token();
    old.admin("DELETE", "").send().ok();
    let new = server.acme().create_agent(json!({ "slug": slug, "capabilities": ["read:a"] }));
    assert_ne!((&new.id, &new.agent_id), (&old.id, &old.agent_id));
    // The token names `agent:<slug>`, which now exists again.
    new.userinfo(&token).refused(401, "invalid_token");
    old.ask_token(&[]).refused(401, "invalid_client");
    new.token();
}

fn rotation_kills_the_old_secret_at_once(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let response = agent.admin("POST", "/rotate-credentials").send();
    assert_eq!(response.header("cache-control"), Some("no-store"), "{response}");
    let body = response.ok();
    let data = &body["data"];
    assert_eq!((&data["agentId"], &data["clientId"]), (&json!(agent.agent_id), &json!(agent.client_id)));
    assert_eq!(data["clientSecret"], data["secret"]);
    assert!(data["_note"].is_string() && body["message"].is_string(), "{body}");
    agent.ask_token(&[]).refused(401, "invalid_client");
    agent.token_request(text(&data["clientSecret"]), &[]).send().ok();
}

fn rotation_leaves_issued_tokens_alone(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.token();
    agent.admin("POST", "/rotate-credentials").send().ok();
    agent.userinfo(&token).ok();
}

fn rotation_with_grace_keeps_the_old_secret_for_a_while(server: &Server) {
    let agent = server.acme().agent(&[]);
    let body = agent.admin("POST", "/rotate-credentials").json(json!({ "grace_seconds": 60 })).send().ok();
    agent.ask_token(&[]).ok();
    agent.token_request(text(&body["data"]["secret"]), &[]).send().ok();
    for bad in [json!({ "grace_seconds": -1 }), json!({ "grace_seconds": "long" })] {
        agent.admin("POST", "/rotate-credentials").json(bad).send().expect(400).refused_somehow();
    }
}

fn revocation_takes_a_reason(server: &Server) {
    let agent = server.acme().agent(&[]);
    agent.admin("POST", "/revoke").json(json!({ "reason": "left the company" })).send().ok();
    let entries = agent.org.audit(&format!("targetId={}&action=agent.revoked", agent.agent_id));
    let id = &entries[0]["id"];
    let detail = agent.org.admin("GET", &format!("/audit-logs/{id}")).send();
    assert!(detail.ok().to_string().contains("left the company"), "{detail}");
}

fn every_ending_is_audited_with_its_mode(server: &Server) {
    for (method, path, mode) in [
        ("POST", "/deactivate", "deactivate"),
        ("POST", "/disable", "disable"),
        ("POST", "/revoke", "revoke"),
        ("DELETE", "", "delete"),
    ] {
        let agent = server.acme().agent(&[]);
        agent.admin(method, path).send().ok();
        let entries = agent.org.audit(&format!("targetId={}&action=agent.revoked", agent.agent_id));
        assert_eq!(entries.len(), 1, "{path}: {entries:?}");
        let detail = agent.org.admin("GET", &format!("/audit-logs/{}", entries[0]["id"])).send().ok();
        let found = detail["data"]["context"]["mode"].as_str().unwrap_or_default();
        // `deactivate` and `deactivated` both name it.
        assert!(found.starts_with(mode.trim_end_matches('e')), "{path}: {detail}");
    }
}

fn envelopes_of_status_routes_differ_as_documented(server: &Server) {
    let agent = server.acme().agent(&[]);
    for (path, member, active) in [
        ("/deactivate", "data", false),
        ("/activate", "data", true),
        ("/disable", "agent", false),
        ("/enable", "agent", true),
    ] {
        let body = agent.admin("POST", path).send().ok();
        assert!(body["message"].is_string(), "{body}");
        assert_eq!(
            (&body[member]["agentId"], &body[member]["isActive"]),
            (&json!(agent.agent_id), &json!(active))
        );
    }
}

fn concurrent_rotations_leave_one_valid_secret(server: &Server) {
    let agent = server.acme().agent(&[]);
    let secrets: Vec<String> = std::thread::scope(|scope| {
        let rotate =
            || text(&agent.admin("POST", "/rotate-credentials").send().ok()["data"]["secret"]).to_owned();
        let handles: Vec<_> = (0..8).map(|_| scope.spawn(rotate)).collect();
        handles.into_iter().map(|handle| handle.join().expect("no panic")).collect()
    });
    let valid = secrets.iter().filter(|secret| agent.token_request(secret, &[]).send().status == 200).count();
    assert_eq!(valid, 1);
    agent.ask_token(&[]).refused(401, "invalid_client");
}
