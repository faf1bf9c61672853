//! Budgets as gates: what counts, what is refused, what stays open (contract 2.5).

use lumoauth_tests::{Agent, Response, Server, avoid_hour_edge, int, on_each_backend, text};
use serde_json::{Value, json};

on_each_backend!(
    last_call_passes_and_the_next_is_refused,
    exactly_ten_of_fifty_parallel_calls_pass,
    refusal_tells_limit_use_and_reset,
    counted_routes_are_refused_when_exhausted,
    exempt_routes_stay_open_when_exhausted,
    token_limit_blocks_the_next_call,
    limit_of_zero_allows_nothing,
    raising_the_limit_reopens_at_once,
    lowering_the_limit_below_use_blocks,
    reset_reopens_at_once,
    removing_the_policy_reopens_at_once,
    refused_calls_do_not_count,
    denied_question_counts_as_a_call,
    mcp_exchange_counts_as_a_call,
    administrators_read_and_write_the_budget,
    bad_policies_change_nothing,
    exhaustion_is_audited_once,
    budget_of_one_agent_is_not_spent_by_another,
    suspended_agent_keeps_its_use,
);

fn limited<'a>(server: &'a Server, policy: &Value) -> (Agent<'a>, String) {
    avoid_hour_edge();
    let agent = server.acme().create_agent(json!({ "capabilities": ["read:a"], "budgetPolicy": policy }));
    let token = agent.token();
    (agent, token)
}

fn last_call_passes_and_the_next_is_refused(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_api_calls_per_hour": 3 }));
    for used in 0..3 {
        assert_eq!(int(&agent.userinfo(&token).ok()["budget_policy"]["api_calls_this_hour"]), used);
        agent.ask(&token, "read:a").ok();
    }
    agent.ask(&token, "read:a").refused(429, "budget_exceeded");
    assert_eq!(int(&agent.userinfo(&token).ok()["budget_policy"]["api_calls_this_hour"]), 3);
}

fn exactly_ten_of_fifty_parallel_calls_pass(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_api_calls_per_hour": 10 }));
    let barrier = std::sync::Barrier::new(50);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let call = || {
            barrier.wait();
            agent.ask(&token, "read:a").status
        };
        let handles: Vec<_> = (0..50).map(|_| scope.spawn(call)).collect();
        handles.into_iter().map(|handle| handle.join().expect("no panic")).collect()
    });
    let count = |status: u16| statuses.iter().filter(|&&other| other == status).count();
    assert_eq!((count(200), count(429)), (10, 40), "{statuses:?}");
    assert_eq!(int(&agent.userinfo(&token).ok()["budget_policy"]["api_calls_this_hour"]), 10);
}

fn refusal_tells_limit_use_and_reset(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_api_calls_per_hour": 1 }));
    agent.ask(&token, "read:a").ok();
    let response = agent.ask(&token, "read:a");
    let body = assert_exhausted(&response, 3600);
    assert_eq!(body["status"], 429);
    let details = &body["details"];
    assert_eq!(details["limit"], "max_api_calls_per_hour");
    assert_eq!((int(&details["max"]), int(&details["used"])), (1, 1));
    let resets = text(&details["resets_at"]);
    assert!(resets.ends_with(":00:00Z"), "the top of an hour: {resets}");
    // The SDK reads `code` or `error`; either must say budget_exceeded.
    assert!(body["code"].is_null() || body["code"] == "budget_exceeded", "{body}");
}

fn counted_routes_are_refused_when_exhausted(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_api_calls_per_hour": 0 }));
    let resource = agent.org.mcp_server(json!({}))["resource_uri"].clone();
    assert_exhausted(&agent.ask(&token, "read:a"), 3600);
    let one = json!({ "permission": "read:a" });
    let many = json!({ "permissions": ["read:a"] });
    for (route, body) in [("check", &one), ("check-bulk", &many), ("check-any", &many), ("check-all", &many)]
    {
        let request = server.request("POST", &format!("/api/v1/authz/{route}")).bearer(&token);
        assert_exhausted(&request.json(body.clone()).send(), 3600);
    }
    assert_exhausted(&agent.exchange(&token, &[("resource", text(&resource))]), 3600);
}

fn exempt_routes_stay_open_when_exhausted(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_api_calls_per_hour": 0, "max_tokens_per_day": 0 }));
    agent.ask_token(&[]).ok();
    agent.userinfo(&token).ok();
    agent.org.get("/agents/me").bearer(&token).send().ok();
    agent.org.get("/agents/me/usage").bearer(&token).send().ok();
    agent.org.post("/agents/me/usage").bearer(&token).json(json!({ "tokens": 1 })).send().ok();
    assert_eq!(agent.org.introspect(&agent, &token)["active"], true);
    agent.org.get("/.well-known/jwks.json").bearer(&token).send().ok();
    let form = [("token", token.as_str()), ("client_id", &agent.client_id), ("client_secret", &agent.secret)];
    agent.org.post("/oauth/revoke").form(&form).send().expect(200);
}

fn token_limit_blocks_the_next_call(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_tokens_per_day": 1000 }));
    use_tokens(&agent, &token, 999);
    agent.ask(&token, "read:a").ok();
    use_tokens(&agent, &token, 1);
    let body = assert_exhausted(&agent.ask(&token, "read:a"), 86_400);
    assert_eq!(body["details"]["limit"], "max_tokens_per_day");
    assert!(text(&body["details"]["resets_at"]).ends_with("T00:00:00Z"), "{body}");
}

fn limit_of_zero_allows_nothing(server: &Server) {
    for policy in [
        json!({ "max_api_calls_per_hour": 0 }),
        json!({ "max_tokens_per_day": 0 }),
        json!({ "max_cost_per_month_usd": 0 }),
    ] {
        let (agent, token) = limited(server, &policy);
        assert_exhausted(&agent.ask(&token, "read:a"), 31 * 86_400);
    }
}

fn raising_the_limit_reopens_at_once(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_api_calls_per_hour": 1 }));
    agent.ask(&token, "read:a").ok();
    agent.ask(&token, "read:a").refused(429, "budget_exceeded");
    agent.admin("PUT", "/budget").json(json!({ "max_api_calls_per_hour": 2 })).send().ok();
    agent.ask(&token, "read:a").ok();
    agent.ask(&token, "read:a").refused(429, "budget_exceeded");
}

fn lowering_the_limit_below_use_blocks(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_api_calls_per_hour": 10 }));
    for _ in 0..3 {
        agent.ask(&token, "read:a").ok();
    }
    agent.admin("PATCH", "").json(json!({ "budgetPolicy": { "max_api_calls_per_hour": 2 } })).send().ok();
    let body = assert_exhausted(&agent.ask(&token, "read:a"), 3600);
    assert_eq!((int(&body["details"]["max"]), int(&body["details"]["used"])), (2, 3));
}

fn reset_reopens_at_once(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_api_calls_per_hour": 1, "max_tokens_per_day": 5 }));
    agent.ask(&token, "read:a").ok();
    use_tokens(&agent, &token, 7);
    agent.ask(&token, "read:a").refused(429, "budget_exceeded");
    agent.admin("POST", "/budget/reset").send().expect(200);
    let policy = agent.userinfo(&token).ok()["budget_policy"].clone();
    assert_eq!((int(&policy["api_calls_this_hour"]), int(&policy["tokens_used_today"])), (0, 0));
    agent.ask(&token, "read:a").ok();
}

fn removing_the_policy_reopens_at_once(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_api_calls_per_hour": 0 }));
    agent.ask(&token, "read:a").refused(429, "budget_exceeded");
    agent.admin("PUT", "/budget").json(json!({})).send().ok();
    agent.ask(&token, "read:a").ok();
    assert_eq!(agent.userinfo(&token).ok()["budget_policy"], json!({}));
}

fn refused_calls_do_not_count(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_api_calls_per_hour": 5 }));
    let post = |body: Value| agent.org.post("/agents/ask").bearer(&token).json(body).send();
    post(json!({})).expect(400);
    post(json!([])).expect(400);
    agent.org.post("/agents/ask").bearer("nonsense").json(json!({ "action": "read:a" })).send().expect(401);
    assert_eq!(int(&agent.userinfo(&token).ok()["budget_policy"]["api_calls_this_hour"]), 0);
}

fn denied_question_counts_as_a_call(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_api_calls_per_hour": 1 }));
    assert_eq!(agent.ask(&token, "write:b").ok()["allowed"], false);
    agent.ask(&token, "read:a").refused(429, "budget_exceeded");
}

fn mcp_exchange_counts_as_a_call(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_api_calls_per_hour": 1 }));
    let resource = agent.org.mcp_server(json!({}))["resource_uri"].clone();
    agent.exchange(&token, &[("resource", text(&resource))]).ok();
    agent.ask(&token, "read:a").refused(429, "budget_exceeded");
}

fn administrators_read_and_write_the_budget(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_tokens_per_day": 100 }));
    use_tokens(&agent, &token, 30);
    let body = agent.admin("GET", "/budget").send().ok();
    let policy = policy_in(&body);
    assert_eq!((int(&policy["max_tokens_per_day"]), int(&policy["tokens_used_today"])), (100, 30));
    agent.admin("PUT", "/budget").json(json!({ "max_cost_per_month_usd": 12.5 })).send().ok();
    let policy = agent.userinfo(&token).ok()["budget_policy"].clone();
    assert_eq!(policy["max_cost_per_month_usd"].as_f64(), Some(12.5));
    assert!(policy.get("max_tokens_per_day").is_none(), "PUT replaces the policy: {policy}");
    let unknown = agent.org.admin("GET", "/agents/agt_doesnotexist/budget").send();
    assert_eq!(unknown.status, 404, "{unknown}");
}

fn bad_policies_change_nothing(server: &Server) {
    let (agent, _) = limited(server, &json!({ "max_tokens_per_day": 100 }));
    for bad in [r#"{"max_tokens_per_day":-1}"#, r#"{"max_cost_per_month_usd":1e308}"#, "[]", "{", "null"] {
        let response = agent.admin("PUT", "/budget").body("application/json", bad).send();
        assert_eq!(response.status, 400, "{bad}: {response}");
        response.refused_somehow();
    }
    assert_eq!(int(&policy_in(&agent.admin("GET", "/budget").send().ok())["max_tokens_per_day"]), 100);
}

fn exhaustion_is_audited_once(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_api_calls_per_hour": 1 }));
    for _ in 0..5 {
        agent.ask(&token, "read:a");
    }
    let entries = agent.org.audit(&format!("actorId={}&action=budget.exceeded", agent.agent_id));
    assert_eq!(entries.len(), 1, "once per agent, limit and window: {entries:?}");
}

fn budget_of_one_agent_is_not_spent_by_another(server: &Server) {
    let (one, token) = limited(server, &json!({ "max_api_calls_per_hour": 1 }));
    let (two, other) = limited(server, &json!({ "max_api_calls_per_hour": 1 }));
    one.ask(&token, "read:a").ok();
    two.ask(&other, "read:a").ok();
    one.ask(&token, "read:a").refused(429, "budget_exceeded");
}

fn suspended_agent_keeps_its_use(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_api_calls_per_hour": 1 }));
    agent.ask(&token, "read:a").ok();
    agent.admin("POST", "/deactivate").send().ok();
    agent.admin("POST", "/activate").send().ok();
    agent.ask(&agent.token(), "read:a").refused(429, "budget_exceeded");
}

fn use_tokens(agent: &Agent<'_>, token: &str, tokens: u64) {
    let body = json!({ "tokens": tokens });
    assert_eq!(agent.org.post("/agents/me/usage").bearer(token).json(body).send().ok()["recorded"], true);
}

/// A 429 whose `Retry-After` is a plain number of seconds within the window: the SDK drops anything else.
#[track_caller]
fn assert_exhausted(response: &Response, window: u64) -> Value {
    let body = response.refused(429, "budget_exceeded");
    let seconds: u64 = response.header("retry-after").expect("Retry-After").parse().expect("plain seconds");
    assert!((1..=window).contains(&seconds), "{response}");
    body
}

/// The policy, whether the answer wraps it or not.
fn policy_in(body: &Value) -> &Value {
    let data = &body["data"];
    [&data["budget_policy"], &data["budgetPolicy"]].into_iter().find(|it| it.is_object()).unwrap_or(data)
}
