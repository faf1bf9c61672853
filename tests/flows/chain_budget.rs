//! The budget of every agent of a chain holds for what any of them does (security TX-31).

use lumoauth_tests::{Agent, CALLBACK, Server, on_each_backend};
use serde_json::json;

on_each_backend!(
    budget_of_an_earlier_agent_holds_for_those_after_it,
    budget_of_a_later_agent_is_nobody_elses,
    chain_that_one_agent_cannot_pay_costs_nobody,
);

/// An agent that may act for others, so many times an hour.
fn limited<'a>(server: &'a Server, calls: u32) -> Agent<'a> {
    lumoauth_tests::avoid_hour_edge();
    server.acme().create_agent(json!({
        "capabilities": ["read:a", "delegate:on_behalf"], "redirectUris": [CALLBACK],
        "budgetPolicy": { "max_api_calls_per_hour": calls },
    }))
}

fn budget_of_an_earlier_agent_holds_for_those_after_it(server: &Server) {
    let (first, second) = (limited(server, 3), limited(server, 100));
    let user = server.acme().person().allow(&first, "read:a");
    let delegated = first.acting_for(&user.access);
    let actor = second.token();
    // One was the first agent's own; two are left.
    second.act_for(&delegated, &actor, &[]).ok();
    let nested = second.acting_for(&delegated);
    let over = second.act_for(&delegated, &actor, &[]);
    over.refused(429, "budget_exceeded");
    assert!(over.header("retry-after").is_some_and(|value| value.parse::<u32>().is_ok()), "{over}");
    // Nor does the chain do anything else at its expense, and alone the second one goes on.
    second.ask(&nested, "read:a").refused(429, "budget_exceeded");
    assert_eq!(second.ask(&actor, "read:a").ok()["allowed"], true);
}

fn budget_of_a_later_agent_is_nobody_elses(server: &Server) {
    let (first, second) = (limited(server, 100), limited(server, 1));
    let user = server.acme().person().allow(&first, "read:a");
    let delegated = first.acting_for(&user.access);
    let actor = second.token();
    second.act_for(&delegated, &actor, &[]).ok();
    second.act_for(&delegated, &actor, &[]).refused(429, "budget_exceeded");
    // The one before it is not out of budget because of that.
    first.act_for(&user.access, &first.token(), &[]).ok();
    assert_eq!(first.ask(&delegated, "read:a").ok()["allowed"], true);
}

fn chain_that_one_agent_cannot_pay_costs_nobody(server: &Server) {
    let (first, second) = (limited(server, 1), limited(server, 2));
    let user = server.acme().person().allow(&first, "read:a");
    let delegated = first.acting_for(&user.access);
    let actor = second.token();
    for _ in 0..5 {
        second.act_for(&delegated, &actor, &[]).refused(429, "budget_exceeded");
    }
    // The second one has all of its own.
    for _ in 0..2 {
        second.ask(&actor, "read:a").ok();
    }
    second.ask(&actor, "read:a").refused(429, "budget_exceeded");
}
