//! Policies as administrators write and read them, and amounts as clients read them.

use lumoauth_tests::{Agent, Server, avoid_hour_edge, int, on_each_backend};
use serde_json::{Value, json};

on_each_backend!(
    body_that_holds_no_policy_is_refused,
    policy_that_was_read_can_be_written_back,
    large_costs_are_plain_numbers,
    model_of_a_question_must_be_a_name,
);

const COUNTERS: [&str; 3] = ["tokens_used_today", "api_calls_this_hour", "cost_this_month_usd"];

fn limited<'a>(server: &'a Server, policy: &Value) -> (Agent<'a>, String) {
    avoid_hour_edge();
    let agent = server.acme().create_agent(json!({ "capabilities": ["read:a"], "budgetPolicy": policy }));
    let token = agent.token();
    (agent, token)
}

fn policy_of(agent: &Agent<'_>) -> Value {
    agent.admin("GET", "/budget").send().ok()["data"]["budgetPolicy"].clone()
}

fn body_that_holds_no_policy_is_refused(server: &Server) {
    let (agent, _) = limited(server, &json!({ "max_tokens_per_day": 100 }));
    let whole = agent.admin("GET", "/budget").send().ok();
    agent.admin("PUT", "/budget").send().expect(400).refused_somehow();
    for body in [
        "",
        "  ",
        "null",
        "[]",
        r#"{"budgetPolicy":null}"#,
        r#"{"budget_policy":null}"#,
        r#"{"budgetPolicy":[]}"#,
        r#"{"data":{}}"#,
        r#"{"data":{"budgetPolicy":{"max_tokens_per_day":5}}}"#,
        &whole.to_string(),
    ] {
        let response = agent.admin("PUT", "/budget").body("application/json", body).send();
        assert_eq!(response.status, 400, "{body}: {response}");
        response.refused_somehow();
    }
    assert_eq!(int(&policy_of(&agent)["max_tokens_per_day"]), 100);
}

fn policy_that_was_read_can_be_written_back(server: &Server) {
    let written = json!({ "max_tokens_per_day": 100, "max_api_calls_per_hour": 9, "team": "blue" });
    let (agent, token) = limited(server, &written);
    let usage = json!({ "tokens": 7, "cost_usd": 0.25 });
    agent.org.post("/agents/me/usage").bearer(&token).json(usage).send().ok();
    let read = policy_of(&agent);
    assert_eq!(int(&read["tokens_used_today"]), 7);
    for body in [read.clone(), json!({ "budgetPolicy": read }), json!({ "budget_policy": read })] {
        agent.admin("PUT", "/budget").json(body).send().ok();
        let stored = agent.admin("GET", "").send().ok()["data"]["budgetPolicy"].clone();
        assert_eq!(stored, written, "the counters are no part of the policy");
        assert_eq!(policy_of(&agent), read, "and they still count");
    }
    // A counter alone is no policy that could be stored.
    let body = json!({ "tokens_used_today": 0, "max_tokens_per_day": 100 });
    agent.admin("PUT", "/budget").json(body).send().ok();
    assert_eq!(int(&policy_of(&agent)["tokens_used_today"]), 7, "nor does it change a counter");
    agent.admin("PUT", "/budget").json(json!({})).send().ok();
    for counter in COUNTERS {
        assert!(policy_of(&agent).get(counter).is_none(), "{counter}");
    }
}

fn large_costs_are_plain_numbers(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_cost_per_month_usd": 1_000_000_000 }));
    for _ in 0..2 {
        let usage = json!({ "cost_usd": 1_000_000_000 });
        agent.org.post("/agents/me/usage").bearer(&token).json(usage).send().ok();
    }
    let shown = agent.userinfo(&token);
    assert_eq!(shown.ok()["budget_policy"]["cost_this_month_usd"].as_u64(), Some(2_000_000_000));
    assert!(!shown.text().contains("2000000000."), "not a fraction either: {shown}");
    let refusal = agent.ask(&token, "read:a").refused(429, "budget_exceeded");
    assert_eq!(refusal["details"]["limit"], "max_cost_per_month_usd");
    assert_eq!(refusal["details"]["used"].as_u64(), Some(2_000_000_000), "{refusal}");
}

fn model_of_a_question_must_be_a_name(server: &Server) {
    let (agent, token) =
        limited(server, &json!({ "allowed_models": ["gpt-4"], "max_api_calls_per_hour": 9 }));
    let ask = |model: Value| {
        let body = json!({ "action": "read:a", "context": { "model": model } });
        agent.org.post("/agents/ask").bearer(&token).json(body).send()
    };
    for model in [json!(["gpt-4"]), json!([]), json!({ "name": "gpt-4" }), json!(4), json!(true)] {
        ask(model).expect(400).refused_somehow();
    }
    assert_eq!(int(&agent.userinfo(&token).ok()["budget_policy"]["api_calls_this_hour"]), 0);
    assert_eq!(ask(json!("gpt-4")).ok()["allowed"], true);
    assert_eq!(ask(json!("gpt-5")).ok()["allowed"], false);
    assert_eq!(ask(Value::Null).ok()["allowed"], true);
}
