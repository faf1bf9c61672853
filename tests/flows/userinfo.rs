//! Userinfo for agents (contract 2.2).

use lumoauth_tests::{Server, int, list, on_each_backend, strings, text};
use serde_json::json;

on_each_backend!(
    answer_has_every_member_of_the_contract,
    fixture_agent_is_the_one_of_the_documentation,
    get_and_post_answer_the_same,
    agent_without_a_policy_has_an_empty_budget,
    limits_that_are_not_set_are_omitted,
    capabilities_are_listed_whatever_the_token_scope,
    userinfo_does_not_count_as_a_call,
    api_key_is_refused,
    missing_credential_is_refused_with_a_bearer_challenge,
    garbage_is_refused_with_an_invalid_token_challenge,
    mcp_token_is_refused,
    token_in_query_or_body_is_no_credential,
    both_path_prefixes_answer_the_same,
);

fn answer_has_every_member_of_the_contract(server: &Server) {
    let agent = server.acme().agent(&["read:a", "tool:b"]);
    let body = agent.userinfo(&agent.token()).ok();
    let expected = json!({
        "sub": format!("agent:{}", agent.slug), "name": agent.name, "agent_id": agent.agent_id,
        "identity_type": "agent", "client_id": agent.client_id, "organization": agent.org.slug(),
        "tenant": agent.org.slug(), "workload_identity": null,
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(body.get(name), Some(value), "{name} in {body}");
    }
    assert_eq!(strings(&body["capabilities"]), ["read:a", "tool:b"]);
    assert!(body["roles"].is_array(), "{body}");
    assert!(agent.agent_id.starts_with("agt_") && agent.agent_id.len() >= 16, "{}", agent.agent_id);
}

fn fixture_agent_is_the_one_of_the_documentation(server: &Server) {
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", server.variable("AGENT_CLIENT_ID")),
        ("client_secret", server.variable("AGENT_CLIENT_SECRET")),
    ];
    let token = server.acme().post("/oauth/token").form(&form).send().ok();
    let body = server.acme().get("/oauth/userinfo").bearer(text(&token["access_token"])).send().ok();
    assert_eq!(body["name"], "Research Assistant Bot");
    assert_eq!(body["sub"], "agent:research-bot");
    assert_eq!(body["organization"], "acme-corp");
    let policy = &body["budget_policy"];
    assert_eq!(int(&policy["max_tokens_per_day"]), 100_000);
    assert_eq!(int(&policy["max_api_calls_per_hour"]), 500);
    assert_eq!(policy["max_cost_per_month_usd"].as_f64(), Some(50.0));
    assert_eq!(policy["require_approval_above_usd"].as_f64(), Some(10.0));
    assert_eq!(strings(&policy["allowed_models"]), ["claude-3-sonnet", "gpt-4"]);
}

fn get_and_post_answer_the_same(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.token();
    let got = agent.userinfo(&token).ok();
    assert_eq!(agent.org.post("/oauth/userinfo").bearer(&token).send().ok(), got);
    assert_eq!(agent.org.post("/oauth/userinfo").bearer(&token).form(&[]).send().ok(), got);
}

fn agent_without_a_policy_has_an_empty_budget(server: &Server) {
    let agent = server.acme().agent(&[]);
    assert_eq!(agent.userinfo(&agent.token()).ok()["budget_policy"], json!({}));
}

fn limits_that_are_not_set_are_omitted(server: &Server) {
    let agent = server.acme().create_agent(json!({ "budgetPolicy": { "max_tokens_per_day": 1000 } }));
    let body = agent.userinfo(&agent.token()).ok();
    let policy = body["budget_policy"].as_object().expect("an object");
    // The SDK compares with `>=`; a null would raise a TypeError.
    assert!(policy.values().all(|value| !value.is_null()), "{body}");
    assert_eq!(int(&policy["max_tokens_per_day"]), 1000);
    assert_eq!(int(&policy["tokens_used_today"]), 0);
    for absent in ["max_api_calls_per_hour", "max_cost_per_month_usd", "require_approval_above_usd"] {
        assert!(!policy.contains_key(absent), "{body}");
    }
}

fn capabilities_are_listed_whatever_the_token_scope(server: &Server) {
    let agent = server.acme().agent(&["read:a", "write:b"]);
    let body = agent.userinfo(&agent.token_for("read:a")).ok();
    let capabilities = strings(&body["capabilities"]);
    assert!(capabilities.contains(&"read:a"), "{body}");
    // A wildcard is listed literally; expansions may follow it.
    let agent = server.acme().agent(&["read:*"]);
    let body = agent.userinfo(&agent.token()).ok();
    assert_eq!(list(&body["capabilities"])[0], "read:*");
}

fn userinfo_does_not_count_as_a_call(server: &Server) {
    let agent = server.acme().create_agent(json!({ "budgetPolicy": { "max_api_calls_per_hour": 5 } }));
    let token = agent.token();
    for _ in 0..8 {
        let body = agent.userinfo(&token).ok();
        assert_eq!(int(&body["budget_policy"]["api_calls_this_hour"]), 0);
    }
}

fn api_key_is_refused(server: &Server) {
    let org = server.acme();
    let response = org.get("/oauth/userinfo").api_key(org.key()).send();
    assert_eq!(response.status, 401, "{response}");
    response.refused_somehow();
    let response = org.get("/oauth/userinfo").bearer(org.key()).send();
    assert_eq!(response.status, 401, "{response}");
}

fn missing_credential_is_refused_with_a_bearer_challenge(server: &Server) {
    let response = server.acme().get("/oauth/userinfo").send();
    assert_eq!(response.status, 401, "{response}");
    response.refused_somehow();
    assert!(response.header("www-authenticate").is_some_and(|it| it.starts_with("Bearer")), "{response}");
}

fn garbage_is_refused_with_an_invalid_token_challenge(server: &Server) {
    for token in ["x", "a.b.c", "agk_unknown", "null"] {
        let response = server.acme().get("/oauth/userinfo").bearer(token).send();
        response.refused(401, "invalid_token");
        let challenge = response.header("www-authenticate").unwrap_or_default();
        assert!(
            challenge.starts_with("Bearer") && challenge.contains("error=\"invalid_token\""),
            "{response}"
        );
    }
}

fn mcp_token_is_refused(server: &Server) {
    let org = server.acme();
    let resource = org.mcp_server(json!({}))["resource_uri"].clone();
    let agent = org.agent(&["read:a"]);
    let body = agent.exchange(&agent.token(), &[("resource", text(&resource))]).ok();
    agent.userinfo(text(&body["access_token"])).refused(401, "invalid_token");
}

fn token_in_query_or_body_is_no_credential(server: &Server) {
    let agent = server.acme().agent(&[]);
    let token = agent.token();
    let response = agent.org.get(&format!("/oauth/userinfo?access_token={token}")).send();
    assert_eq!(response.status, 401, "{response}");
    let response = agent.org.post("/oauth/userinfo").form(&[("access_token", &token)]).send();
    assert_eq!(response.status, 401, "{response}");
}

fn both_path_prefixes_answer_the_same(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.token();
    let path = format!("/t/{}/api/v1/oauth/userinfo", agent.org.slug());
    let aliased = server.request("GET", &path).bearer(&token).send().ok();
    assert_eq!(aliased, agent.userinfo(&token).ok());
}
