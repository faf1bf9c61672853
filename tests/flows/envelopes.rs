//! Budgets that a token carries, smaller than those of whoever uses it (budgets.md).

use lumoauth_tests::{
    ACCESS_TOKEN, Agent, Org, Response, Server, acted_by, avoid_hour_edge, on_each_backend, text,
};
use serde_json::{Value, json};

use crate::reservations::{after, delegated, reserve};

on_each_backend!(
    envelope_limits_the_family_of_a_token,
    envelope_only_narrows,
    envelope_is_within_the_one_before,
    envelope_limits_calls_and_cost,
    token_carries_three_envelopes,
);

fn envelope_limits_the_family_of_a_token(server: &Server) {
    avoid_hour_edge();
    let org = server.acme();
    let members = json!({ "capabilities": ["read:a", "delegate:on_behalf"] });
    let (parent, child) = (org.create_agent(members.clone()), org.create_agent(members.clone()));
    let (parents, own) = (parent.token(), child.token());
    let budget = r#"{"max_tokens_per_day": 50, "allowed_models": ["gpt-4"]}"#;
    let token = delegated(&parents, &child, &own, &[("budget", budget)]);
    reserve(&child, &token, json!({ "id": "m", "model": "gpt-5" })).refused(403, "model_not_allowed");
    let answer = reserve(&child, &token, json!({ "id": "a", "tokens": 30 })).expect(201).json();
    assert_eq!(answer["remaining"]["tokens"], 20);
    let refused = reserve(&child, &token, json!({ "id": "b", "tokens": 21 }));
    assert_eq!(refused.refused(429, "budget_exceeded")["details"]["max"], 50);
    // What comes of the token shares its envelope; another token of the same agents has none.
    let third = org.create_agent(members);
    let below = delegated(&token, &third, &third.token(), &[]);
    reserve(&third, &below, json!({ "id": "c", "tokens": 21 })).refused(429, "budget_exceeded");
    reserve(&third, &below, json!({ "id": "c", "tokens": 20 })).expect(201);
    let open = delegated(&parents, &child, &own, &[]);
    reserve(&child, &open, json!({ "id": "d", "tokens": 5000 })).expect(201);
    assert_eq!(org.introspect(&child, &token)["budget_exceeded"], true);
    assert!(org.introspect(&child, &open)["budget_exceeded"].is_null());
}

fn envelope_only_narrows(server: &Server) {
    let org = server.acme();
    let members = json!({
        "capabilities": ["read:a", "delegate:on_behalf"],
        "budgetPolicy": { "max_tokens_per_day": 100, "allowed_models": ["gpt-4"] },
    });
    let (parent, child) = (org.create_agent(members), org.agent(&["read:a", "delegate:on_behalf"]));
    let (parents, own) = (parent.token(), child.token());
    let exchange = |budget: &str| {
        let fields: Vec<_> = acted_by(&own).into_iter().chain([("budget", budget)]).collect();
        org.exchange(&parents, ACCESS_TOKEN, &fields)
    };
    for wider in [
        r#"{"max_tokens_per_day":101}"#,
        r#"{"allowed_models":["gpt-5"]}"#,
        r#"{"max_tokens_per_day":-1}"#,
        r#"{"max_tokens_per_day":1,"max_tokens_per_day":2}"#,
        "[]",
        "100",
        "{",
    ] {
        exchange(wider).refused(400, "invalid_request");
    }
    exchange(r#"{"max_tokens_per_day":100,"max_api_calls_per_hour":7}"#).ok();
}

/// A token by which a new agent acts for a new one, with this budget.
fn with_envelope<'a>(org: &Org<'a>, budget: &str) -> (Agent<'a>, String) {
    let members = json!({ "capabilities": ["read:a", "delegate:on_behalf"] });
    let (parent, child) = (org.create_agent(members.clone()), org.create_agent(members));
    let token = delegated(&parent.token(), &child, &child.token(), &[("budget", budget)]);
    (child, token)
}

/// What `agent` gets that makes a token of this one for itself, with this budget.
fn narrowed(agent: &Agent<'_>, token: &str, budget: &str) -> Response {
    let (id, secret) = (&*agent.client_id, &*agent.secret);
    let fields = [("client_id", id), ("client_secret", secret), ("scope", "read:a"), ("budget", budget)];
    agent.org.exchange(token, ACCESS_TOKEN, &fields)
}

fn envelope_is_within_the_one_before(server: &Server) {
    let org = server.acme();
    let (child, token) = with_envelope(&org, r#"{"max_tokens_per_day":50,"allowed_models":["gpt-4"]}"#);
    let third = org.agent(&["read:a", "delegate:on_behalf"]);
    let own = third.token();
    for wider in [r#"{"max_tokens_per_day":51}"#, r#"{"max_tokens_per_day":9,"allowed_models":["gpt-5"]}"#] {
        let fields: Vec<_> = acted_by(&own).into_iter().chain([("budget", wider)]).collect();
        org.exchange(&token, ACCESS_TOKEN, &fields).refused(400, "invalid_request");
        narrowed(&child, &token, wider).refused(400, "invalid_request");
    }
    let within = r#"{"max_tokens_per_day":50,"allowed_models":["gpt-4"]}"#;
    delegated(&token, &third, &own, &[("budget", within)]);
    narrowed(&child, &token, within).ok();
}

fn envelope_limits_calls_and_cost(server: &Server) {
    avoid_hour_edge();
    let org = server.acme();
    for (budget, fits, beyond) in [
        // The exchange is a call as well.
        (r#"{"max_api_calls_per_hour":3}"#, json!({ "api_calls": 2 }), json!({ "api_calls": 1 })),
        (
            r#"{"max_cost_per_month_usd":"0.3"}"#,
            json!({ "cost_usd": "0.3" }),
            json!({ "cost_usd": "0.000001" }),
        ),
    ] {
        let (child, token) = with_envelope(&org, budget);
        let call = |id: &str, mut amounts: Value| {
            amounts["id"] = id.into();
            reserve(&child, &token, amounts)
        };
        call("fits", fits).expect(201);
        call("beyond", beyond).refused(429, "budget_exceeded");
        after(&child, &token, "fits", "release", json!({})).ok();
        call("free again", json!({})).expect(201);
    }
}

fn token_carries_three_envelopes(server: &Server) {
    let org = server.acme();
    let (child, mut token) = with_envelope(&org, r#"{"max_tokens_per_day":50}"#);
    for budget in [r#"{"max_tokens_per_day":40}"#, r#"{"max_tokens_per_day":30}"#] {
        token = text(&narrowed(&child, &token, budget).ok()["access_token"]).to_owned();
    }
    narrowed(&child, &token, r#"{"max_tokens_per_day":20}"#).refused(400, "invalid_request");
    reserve(&child, &token, json!({ "id": "a", "tokens": 31 })).refused(429, "budget_exceeded");
    reserve(&child, &token, json!({ "id": "a", "tokens": 30 })).expect(201);
}
