//! Open bugs of a widely used proxy with budgets (github.com/BerriAI/litellm), as scenarios here. Each names its issue.

use lumoauth_tests::{Agent, Server, at_once, avoid_hour_edge, int, on_each_backend};
use serde_json::{Value, json};

on_each_backend!(
    issue_34732_calls_at_once_do_not_pass_one_check_together,
    issue_35524_call_without_an_estimate_is_no_way_around,
    issue_40095_first_calls_of_a_new_agent_have_its_budget,
    issue_26672_use_above_the_limit_blocks_the_next_call,
);

fn limited<'a>(server: &'a Server, policy: Value) -> (Agent<'a>, String) {
    avoid_hour_edge();
    let agent = server.acme().create_agent(json!({ "capabilities": ["read:a"], "budgetPolicy": policy }));
    let token = agent.token();
    (agent, token)
}

fn reserve(agent: &Agent<'_>, token: &str, body: Value) -> u16 {
    agent.org.post("/agents/me/budget/reservations").bearer(token).json(body).send().status
}

/// How many of `count` reservations, all made at once, are held.
fn held_at_once(agent: &Agent<'_>, token: &str, count: usize, amounts: &Value) -> usize {
    let statuses = at_once(count, |n| {
        let mut body = amounts.clone();
        body["id"] = format!("call {n}").into();
        reserve(agent, token, body)
    });
    assert!(statuses.iter().all(|status| [201, 429].contains(status)), "{statuses:?}");
    statuses.into_iter().filter(|status| *status == 201).count()
}

/// Calls that are admitted before any of them has recorded its cost.
fn issue_34732_calls_at_once_do_not_pass_one_check_together(server: &Server) {
    let (agent, token) = limited(server, json!({ "max_cost_per_month_usd": "0.45" }));
    assert_eq!(held_at_once(&agent, &token, 40, &json!({ "cost_usd": "0.15" })), 3);
    let policy = &agent.userinfo(&token).ok()["budget_policy"];
    assert_eq!(policy["cost_this_month_usd"].to_string(), "0.45");
}

/// A call whose cost nobody can tell in advance reserves nothing; it must still not begin when nothing is left, and what it
/// cost in the end counts.
fn issue_35524_call_without_an_estimate_is_no_way_around(server: &Server) {
    let (agent, token) = limited(server, json!({ "max_cost_per_month_usd": 1, "max_tokens_per_day": 100 }));
    assert_eq!(reserve(&agent, &token, json!({ "id": "unknown" })), 201);
    let settle = agent.org.post("/agents/me/budget/reservations/unknown/settle").bearer(&token);
    let settled = settle.json(json!({ "cost_usd": "1.5" })).send().ok();
    assert_eq!(settled["exceeded"], json!(["max_cost_per_month_usd"]));
    assert_eq!(held_at_once(&agent, &token, 16, &json!({})), 0);
    agent.ask(&token, "read:a").refused(429, "budget_exceeded");
}

/// Nothing was ever counted for the agent, and all of its first calls come together.
fn issue_40095_first_calls_of_a_new_agent_have_its_budget(server: &Server) {
    let (agent, token) = limited(server, json!({ "max_cost_per_month_usd": "0.000001" }));
    assert_eq!(held_at_once(&agent, &token, 8, &json!({ "cost_usd": "0.000033" })), 0);
    let (agent, token) = limited(server, json!({ "max_tokens_per_day": 640 }));
    assert_eq!(held_at_once(&agent, &token, 64, &json!({ "tokens": 64 })), 10);
    assert_eq!(int(&agent.userinfo(&token).ok()["budget_policy"]["tokens_used_today"]), 640);
}

/// What was used is above the maximum, and calls go on being admitted.
fn issue_26672_use_above_the_limit_blocks_the_next_call(server: &Server) {
    let (agent, token) = limited(server, json!({ "max_cost_per_month_usd": 50 }));
    let report = json!({ "cost_usd": 69 });
    agent.org.post("/agents/me/usage").bearer(&token).json(report).send().ok();
    agent.ask(&token, "read:a").refused(429, "budget_exceeded");
    assert_eq!(held_at_once(&agent, &token, 8, &json!({ "cost_usd": "0.000001" })), 0);
    // Also after a new token, and until the limit is raised.
    let again = agent.token();
    agent.ask(&again, "read:a").refused(429, "budget_exceeded");
    let raised =
        |max: u32| agent.admin("PUT", "/budget").json(json!({ "max_cost_per_month_usd": max })).send();
    raised(69).ok();
    agent.ask(&again, "read:a").refused(429, "budget_exceeded");
    raised(100).ok();
    agent.ask(&again, "read:a").ok();
    // Of what is left, 31 dollars.
    assert_eq!(held_at_once(&agent, &again, 8, &json!({ "cost_usd": 10 })), 3);
}
