//! Reporting and reading usage (contract 2.5).

use lumoauth_tests::{Agent, Response, Server, avoid_hour_edge, int, list, on_each_backend, text, unique};
use serde_json::{Value, json};

use crate::approvals::{approver, decide, opened};

on_each_backend!(
    usage_is_recorded_and_shown,
    overshoot_is_recorded_and_named,
    money_is_exact,
    preflight_records_nothing,
    preflight_refuses_what_does_not_fit,
    model_outside_the_list_is_refused_unless_forced,
    preflight_above_the_threshold_needs_approval,
    preflight_passes_with_an_approval,
    same_idempotency_key_charges_once,
    same_idempotency_key_with_another_body_conflicts,
    fifty_parallel_repeats_charge_once,
    parallel_reports_are_all_counted,
    idempotency_keys_of_two_agents_are_separate,
    impossible_amounts_are_refused,
    report_without_amounts_is_harmless,
    reporting_does_not_count_as_a_call,
    administrator_reports_for_an_agent,
);

fn agent_with<'a>(server: &'a Server, policy: &Value) -> (Agent<'a>, String) {
    avoid_hour_edge();
    let agent = server.acme().create_agent(json!({ "capabilities": ["read:a"], "budgetPolicy": policy }));
    let token = agent.token();
    (agent, token)
}

fn report(agent: &Agent<'_>, token: &str, body: Value) -> Response {
    agent.org.post("/agents/me/usage").bearer(token).json(body).send()
}

fn used(agent: &Agent<'_>, token: &str) -> i64 {
    int(&agent.userinfo(token).ok()["budget_policy"]["tokens_used_today"])
}

fn usage_is_recorded_and_shown(server: &Server) {
    let policy =
        json!({ "max_tokens_per_day": 100_000, "max_api_calls_per_hour": 10, "max_cost_per_month_usd": 50 });
    let (agent, token) = agent_with(server, &policy);
    let body = json!({ "tokens": 1200, "cost_usd": 0.03, "model": "gpt-4", "api_calls": 2 });
    let answer = report(&agent, &token, body).ok();
    assert_eq!((&answer["recorded"], &answer["exceeded"]), (&json!(true), &json!([])));
    assert_eq!(int(&answer["remaining"]["tokens"]), 98_800);
    let shown = agent.userinfo(&token).ok()["budget_policy"].clone();
    assert_eq!(answer["budget_policy"], shown);
    assert_eq!((int(&shown["tokens_used_today"]), int(&shown["api_calls_this_hour"])), (1200, 2));
    assert_eq!(shown["cost_this_month_usd"].as_f64(), Some(0.03));
    let read = agent.org.get("/agents/me/usage").bearer(&token).send().ok();
    assert_eq!(int(&read["budget_policy"]["tokens_used_today"]), 1200);
}

fn overshoot_is_recorded_and_named(server: &Server) {
    let (agent, token) = agent_with(server, &json!({ "max_tokens_per_day": 100 }));
    let answer = report(&agent, &token, json!({ "tokens": 150 })).ok();
    let exceeded: Vec<&str> = list(&answer["exceeded"]).iter().filter_map(Value::as_str).collect();
    assert_eq!(exceeded, ["max_tokens_per_day"]);
    assert_eq!(used(&agent, &token), 150);
    agent.ask(&token, "read:a").refused(429, "budget_exceeded");
}

fn money_is_exact(server: &Server) {
    let (agent, token) = agent_with(server, &json!({ "max_cost_per_month_usd": 1000 }));
    for text in ["0.1", "0.2", "0.000001", "0"] {
        let body = format!(r#"{{"cost_usd":{text}}}"#);
        let request = agent.org.post("/agents/me/usage").bearer(&token);
        request.body("application/json", body).send().ok();
    }
    let shown = agent.userinfo(&token).text();
    assert!(shown.contains(r#""cost_this_month_usd":0.300001"#), "{shown}");
}

fn preflight_records_nothing(server: &Server) {
    let (agent, token) = agent_with(server, &json!({ "max_tokens_per_day": 100 }));
    report(&agent, &token, json!({ "tokens": 60, "dry_run": true })).ok();
    report(&agent, &token, json!({ "tokens": 60, "dry_run": true })).ok();
    assert_eq!(used(&agent, &token), 0);
}

fn preflight_refuses_what_does_not_fit(server: &Server) {
    let (agent, token) = agent_with(server, &json!({ "max_tokens_per_day": 100 }));
    report(&agent, &token, json!({ "tokens": 60 })).ok();
    report(&agent, &token, json!({ "tokens": 40, "dry_run": true })).ok();
    let response = report(&agent, &token, json!({ "tokens": 41, "dry_run": true }));
    response.refused(429, "budget_exceeded");
    assert!(response.header("retry-after").is_some_and(|it| it.parse::<u64>().is_ok()), "{response}");
    assert_eq!(used(&agent, &token), 60);
}

fn model_outside_the_list_is_refused_unless_forced(server: &Server) {
    let (agent, token) =
        agent_with(server, &json!({ "max_tokens_per_day": 100, "allowed_models": ["gpt-4"] }));
    for model in ["gpt-5", "GPT-4", "gpt-4 ", "gpt-4\u{200b}", ""] {
        let response = report(&agent, &token, json!({ "tokens": 1, "model": model }));
        assert!(matches!(response.status, 400 | 403), "{model}: {response}");
        response.refused_somehow();
    }
    report(&agent, &token, json!({ "tokens": 1, "model": "gpt-5" })).refused(403, "model_not_allowed");
    assert_eq!(used(&agent, &token), 0);
    report(&agent, &token, json!({ "tokens": 1, "model": "gpt-5", "force": true })).ok();
    report(&agent, &token, json!({ "tokens": 1, "model": "gpt-4" })).ok();
    assert_eq!(used(&agent, &token), 2);
}

fn preflight_above_the_threshold_needs_approval(server: &Server) {
    let (agent, token) = agent_with(server, &json!({ "require_approval_above_usd": 10 }));
    report(&agent, &token, json!({ "cost_usd": 10, "dry_run": true })).ok();
    for body in [
        json!({ "cost_usd": 10.000_001, "dry_run": true }),
        json!({ "cost_usd": 11, "dry_run": true, "approval_token": null }),
        json!({ "cost_usd": 11, "dry_run": true, "approval_token": "apr_made_up" }),
    ] {
        report(&agent, &token, body).refused(403, "approval_required");
    }
}

fn preflight_passes_with_an_approval(server: &Server) {
    let org = server.acme();
    let alice = approver(&org);
    let policy = json!({ "require_approval_above_usd": 10, "max_cost_per_month_usd": 100 });
    let agent =
        org.create_agent(json!({ "capabilities": ["read:a", "delegate:on_behalf"], "budgetPolicy": policy }));
    let token = agent.token();
    let asked = |who: &Agent<'_>, approval: &str, usd: u32| {
        report(who, &who.token(), json!({ "cost_usd": usd, "dry_run": true, "approval_token": approval }))
    };
    let approval = opened(&agent, &token, &alice);
    asked(&agent, &approval, 11).refused(403, "approval_required");
    alice.says("approve", &approval).ok();
    assert_eq!(asked(&agent, &approval, 11).ok()["recorded"], false);
    asked(&agent, &approval, 101).refused(429, "budget_exceeded");
    let denied = opened(&agent, &token, &alice);
    alice.says("deny", &denied).ok();
    asked(&agent, &denied, 11).refused(403, "approval_required");
    // Another agent's is none.
    let other = org.create_agent(json!({ "capabilities": ["read:a"], "budgetPolicy": policy }));
    asked(&other, &approval, 11).refused(403, "approval_required");

    // That of a reservation is to what is held, as long as it is.
    let made = org.post("/agents/me/budget/reservations").bearer(&token);
    let parked = made.json(json!({ "id": "r", "cost_usd": 20 })).send().expect(202).json();
    let approval = text(&parked["approval_token"]);
    asked(&agent, approval, 20).refused(403, "approval_required");
    let manager = org.person_with(json!({ "isAdmin": true })).in_person("openid approvals.manage");
    decide(&org, &manager, "approve", approval, json!({})).ok();
    asked(&agent, approval, 20).ok();
    asked(&agent, approval, 21).refused(403, "approval_required");
    let other_model = json!({ "cost_usd": 20, "dry_run": true, "model": "m", "approval_token": approval });
    report(&agent, &token, other_model).refused(403, "approval_required");
    let settle = org.post("/agents/me/budget/reservations/r/settle").bearer(&token);
    settle.json(json!({ "cost_usd": 1 })).send().ok();
    asked(&agent, approval, 20).refused(403, "approval_required");
}

fn same_idempotency_key_charges_once(server: &Server) {
    let (agent, token) = agent_with(server, &json!({ "max_tokens_per_day": 1000 }));
    let body = json!({ "tokens": 7, "idempotency_key": unique("u") });
    let first = report(&agent, &token, body.clone()).ok();
    let second = report(&agent, &token, body).ok();
    assert_eq!((&first["recorded"], &second["recorded"]), (&json!(true), &json!(true)));
    assert_eq!(used(&agent, &token), 7);
    // Without a key every report is one of its own.
    report(&agent, &token, json!({ "tokens": 7 })).ok();
    report(&agent, &token, json!({ "tokens": 7 })).ok();
    assert_eq!(used(&agent, &token), 21);
}

fn same_idempotency_key_with_another_body_conflicts(server: &Server) {
    let (agent, token) = agent_with(server, &json!({ "max_tokens_per_day": 1000 }));
    let key = unique("u");
    report(&agent, &token, json!({ "tokens": 7, "idempotency_key": key })).ok();
    let response = report(&agent, &token, json!({ "tokens": 8, "idempotency_key": key }));
    assert!(matches!(response.status, 409 | 422), "{response}");
    response.refused_somehow();
    assert_eq!(used(&agent, &token), 7);
}

fn fifty_parallel_repeats_charge_once(server: &Server) {
    let (agent, token) = agent_with(server, &json!({ "max_tokens_per_day": 1000 }));
    let body = json!({ "tokens": 7, "idempotency_key": unique("u") });
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| report(&agent, &token, body.clone()).ok());
        }
    });
    assert_eq!(used(&agent, &token), 7);
}

fn parallel_reports_are_all_counted(server: &Server) {
    let (agent, token) = agent_with(server, &json!({ "max_tokens_per_day": 1000 }));
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| report(&agent, &token, json!({ "tokens": 3 })).ok());
        }
    });
    assert_eq!(used(&agent, &token), 120);
}

fn idempotency_keys_of_two_agents_are_separate(server: &Server) {
    let (one, token) = agent_with(server, &json!({ "max_tokens_per_day": 1000 }));
    let (two, other) = agent_with(server, &json!({ "max_tokens_per_day": 1000 }));
    let body = json!({ "tokens": 5, "idempotency_key": unique("u") });
    report(&one, &token, body.clone()).ok();
    report(&two, &other, body).ok();
    assert_eq!((used(&one, &token), used(&two, &other)), (5, 5));
}

fn impossible_amounts_are_refused(server: &Server) {
    let (agent, token) =
        agent_with(server, &json!({ "max_tokens_per_day": 1000, "max_cost_per_month_usd": 10 }));
    for text in [
        r#"{"tokens":-1}"#,
        r#"{"tokens":1.5}"#,
        r#"{"tokens":"many"}"#,
        r#"{"tokens":9223372036854775808}"#,
        r#"{"tokens":18446744073709551616}"#,
        r#"{"tokens":1e400}"#,
        r#"{"api_calls":-1}"#,
        r#"{"api_calls":99999999999999999999}"#,
        r#"{"cost_usd":-0.01}"#,
        r#"{"cost_usd":1e308}"#,
        r#"{"cost_usd":"NaN"}"#,
        r#"{"cost_usd":"Infinity"}"#,
        r#"{"cost_usd":0.0000001}"#,
        r#"{"cost_usd":0.123456789012345678901234567890123}"#,
        r#"{"cost_usd":[]}"#,
        r#"{"idempotency_key":7}"#,
        r#"{"dry_run":"yes","tokens":1}"#,
        "[]",
        "{",
    ] {
        let request = agent.org.post("/agents/me/usage").bearer(&token);
        let response = request.body("application/json", text).send();
        assert_eq!(response.status, 400, "{text}: {response}");
        response.refused_somehow();
    }
    let long = json!({ "tokens": 1, "idempotency_key": "k".repeat(10_000) });
    report(&agent, &token, long).expect(400).refused_somehow();
    assert_eq!(used(&agent, &token), 0);
}

fn report_without_amounts_is_harmless(server: &Server) {
    let (agent, token) = agent_with(server, &json!({ "max_tokens_per_day": 1000 }));
    report(&agent, &token, json!({ "tokens": 0, "cost_usd": 0 })).ok();
    assert_eq!(used(&agent, &token), 0);
}

fn reporting_does_not_count_as_a_call(server: &Server) {
    let (agent, token) =
        agent_with(server, &json!({ "max_api_calls_per_hour": 5, "max_tokens_per_day": 1000 }));
    for _ in 0..7 {
        report(&agent, &token, json!({ "tokens": 1 })).ok();
    }
    assert_eq!(int(&agent.userinfo(&token).ok()["budget_policy"]["api_calls_this_hour"]), 0);
}

fn administrator_reports_for_an_agent(server: &Server) {
    let (agent, token) = agent_with(server, &json!({ "max_tokens_per_day": 1000 }));
    let body = json!({ "tokens": 9, "idempotency_key": unique("u") });
    agent.admin("POST", "/usage").json(body.clone()).send().ok();
    agent.admin("POST", "/usage").json(body).send().ok();
    assert_eq!(used(&agent, &token), 9);
}
