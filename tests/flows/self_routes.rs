//! `agents/me` and, for people, `agents/ask` (contract 2.6).

use lumoauth_tests::{Server, on_each_backend, rfc3339, strings, text};
use serde_json::{Value, json};

on_each_backend!(
    answer_is_the_superset_of_all_client_generations,
    scopes_are_those_of_the_token,
    expiry_is_that_of_the_token,
    caller_without_a_credential_is_refused,
    exhausted_agent_may_still_look_at_itself,
    person_is_told_who_they_are_by_scope,
    person_asks_about_their_token,
    client_without_a_person_is_neither,
);

fn answer_is_the_superset_of_all_client_generations(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let body = agent.org.get("/agents/me").bearer(&agent.token()).send().ok();
    let slug = agent.org.slug();
    let identity = json!({
        "id": agent.agent_id, "type": "agent", "tenant": slug, "organization": slug, "agent_id": agent.agent_id,
        "status": "active", "name": agent.name,
    });
    for (member, value) in identity.as_object().expect("an object") {
        assert_eq!(&body["identity"][member], value, "{member} in {body}");
    }
    assert_eq!(body["workspace"], json!({ "slug": slug, "api_base": format!("/orgs/{slug}/api/v1/") }));
    assert_eq!((&body["agent_id"], &body["name"]), (&json!(agent.agent_id), &json!(agent.name)));
    assert!(strings(&body["capabilities"]).contains(&"read:a"));
    assert!(body["roles"].is_array(), "{body}");
    assert_eq!(body.get("delegated_by"), Some(&Value::Null));
}

fn scopes_are_those_of_the_token(server: &Server) {
    let agent = server.acme().agent(&["read:a", "write:b"]);
    let body = agent.org.get("/agents/me").bearer(&agent.token_for("write:b")).send().ok();
    assert_eq!(body["scopes"], json!(["write:b"]));
}

fn expiry_is_that_of_the_token(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    let body = agent.org.get("/agents/me").bearer(&token.text).send().ok();
    assert_eq!(text(&body["expires_at"]), rfc3339(token.claims["exp"].as_i64().expect("seconds")));
}

fn caller_without_a_credential_is_refused(server: &Server) {
    let response = server.acme().get("/agents/me").send();
    assert_eq!(response.status, 401, "{response}");
    response.refused_somehow();
}

fn exhausted_agent_may_still_look_at_itself(server: &Server) {
    let agent = server.acme().create_agent(json!({ "budgetPolicy": { "max_api_calls_per_hour": 0 } }));
    let token = agent.token();
    agent.org.get("/agents/me").bearer(&token).send().ok();
    agent.org.get("/agents/me/usage").bearer(&token).send().ok();
    agent.userinfo(&token).ok();
}

fn person_is_told_who_they_are_by_scope(server: &Server) {
    let org = server.acme();
    let alice = org.person();
    let me = |token: &str| org.get("/agents/me").bearer(token).send().ok();
    let body = me(&alice.in_person("read:a"));
    assert_eq!((&body["identity"]["id"], &body["identity"]["type"]), (&json!(alice.id), &json!("user")));
    assert_eq!((&body["capabilities"], &body["scopes"]), (&json!([]), &json!(["read:a"])));
    assert_eq!((&body["name"], &body["agent_id"], &body["roles"]), (&Value::Null, &Value::Null, &json!([])));
    assert_eq!(body["workspace"]["slug"], org.slug());
    assert!(!body.to_string().contains(&alice.email), "{body}");
    assert_eq!(me(&alice.in_person("read:a profile"))["name"], "A Person");
    let user = alice.allow(&org.delegate(&["read:a", "authz:read"]), "read:a authz:read").access;
    assert!(strings(&me(&user)["capabilities"]).contains(&"read:a"));
    org.get("/agents/me").api_key(org.key()).send().expect(401);
}

fn person_asks_about_their_token(server: &Server) {
    let org = server.acme();
    let alice = org.person();
    let agent = org.delegate(&["read:a", "read:b"]);
    let user = alice.allow(&agent, "read:a").access;
    let ask = |action: &str| agent.ask(&user, action).ok();
    let body = ask("read:a");
    assert_eq!((&body["allowed"], &body["decided_by"]), (&json!(true), &json!("capability")));
    assert_eq!(ask("read:b")["allowed"], false);
    let query = format!("/audit-logs?actorId={}&action=agent.action", alice.id);
    let log = org.admin("GET", &query).send().ok();
    assert!(log.to_string().contains(text(&body["audit_id"])), "{log}");
    agent.admin("PUT", "/scopes").json(json!({ "scopes": ["read:b"] })).send().ok();
    assert_eq!(ask("read:a")["allowed"], false, "its client lost it");
    org.post("/agents/ask").bearer(&user).json(json!({})).send().refused(400, "invalid_request");
    org.post("/agents/ask").api_key(org.key()).json(json!({ "action": "read:a" })).send().expect(401);
}

fn client_without_a_person_is_neither(server: &Server) {
    let org = server.acme();
    let app = org.app(json!({ "allowedScopes": ["read:a"], "grantTypes": ["client_credentials"] }));
    let body = app.as_client(&[("grant_type", "client_credentials")]).ok();
    let token = text(&body["access_token"]);
    org.get("/agents/me").bearer(token).send().refused(403, "forbidden");
    org.post("/agents/ask")
        .bearer(token)
        .json(json!({ "action": "read:a" }))
        .send()
        .refused(403, "forbidden");
}
