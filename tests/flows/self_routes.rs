//! `agents/me` (contract 2.6).

use lumoauth_tests::{Server, on_each_backend, rfc3339, strings, text};
use serde_json::{Value, json};

on_each_backend!(
    answer_is_the_superset_of_all_client_generations,
    scopes_are_those_of_the_token,
    expiry_is_that_of_the_token,
    caller_without_a_credential_is_refused,
    exhausted_agent_may_still_look_at_itself,
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
