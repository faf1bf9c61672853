//! Reservations: amounts that are held before they are used (budgets.md).

use lumoauth_tests::{Agent, Response, Server, at_once, avoid_hour_edge, int, on_each_backend, text, unique};
use serde_json::{Value, json};

on_each_backend!(
    reserved_amount_is_held_and_settled,
    repetition_returns_the_first_outcome,
    same_id_with_other_content_conflicts,
    all_lines_or_none,
    released_amount_is_free_again,
    overshoot_is_recorded_and_blocks_the_next,
    settling_twice_changes_nothing,
    unnamed_meters_are_settled_as_reserved,
    model_outside_the_policy_is_refused,
    bad_requests_reserve_nothing,
    bad_amounts_settle_nothing,
    largest_amount_is_counted,
    lease_that_ended_is_settled_all_the_same,
    exceeded_is_of_ones_own_use,
    amounts_are_exact,
    reservation_is_its_makers_alone,
    exhausted_agent_still_settles,
    held_amounts_are_shown,
    sixty_four_with_one_id_hold_once,
    concurrent_reservations_never_pass_the_limit,
    delegated_call_is_held_of_the_whole_chain,
    budgeted_answers_tell_what_is_left,
);

const RESERVATIONS: &str = "/agents/me/budget/reservations";

fn limited<'a>(server: &'a Server, policy: &Value) -> (Agent<'a>, String) {
    avoid_hour_edge();
    let agent = server.acme().create_agent(json!({ "capabilities": ["read:a"], "budgetPolicy": policy }));
    let token = agent.token();
    (agent, token)
}

pub(crate) fn reserve(agent: &Agent<'_>, token: &str, body: Value) -> Response {
    agent.org.post(RESERVATIONS).bearer(token).json(body).send()
}

pub(crate) fn after(agent: &Agent<'_>, token: &str, id: &str, verb: &str, body: Value) -> Response {
    agent.org.post(&format!("{RESERVATIONS}/{id}/{verb}")).bearer(token).json(body).send()
}

fn read(agent: &Agent<'_>, token: &str, id: &str) -> Response {
    agent.org.get(&format!("{RESERVATIONS}/{id}")).bearer(token).send()
}

fn used(agent: &Agent<'_>, token: &str) -> Value {
    agent.userinfo(token).ok()["budget_policy"].clone()
}

const GENEROUS: &str =
    r#"{"max_tokens_per_day":10000,"max_api_calls_per_hour":50,"max_cost_per_month_usd":5}"#;

fn generous(server: &Server) -> (Agent<'_>, String) {
    limited(server, &serde_json::from_str(GENEROUS).expect("JSON"))
}

fn reserved_amount_is_held_and_settled(server: &Server) {
    let (agent, token) = generous(server);
    let request = json!({
        "id": "r-1", "tokens": 1200, "api_calls": 1, "cost_usd": 0.03, "model": "gpt-4", "lease_seconds": 60,
        "action": "llm.call",
    });
    let answer = reserve(&agent, &token, request).expect(201).json();
    assert_eq!((&answer["id"], &answer["status"]), (&json!("r-1"), &json!("held")));
    assert_eq!(answer["held"], json!({ "tokens": 1200, "api_calls": 1, "cost_usd": "0.03" }));
    assert_eq!(answer["remaining"], json!({ "tokens": 8800, "api_calls": 49, "cost_usd": "4.97" }));
    assert!(text(&answer["expires_at"]).ends_with('Z'));
    assert_eq!(int(&used(&agent, &token)["tokens_used_today"]), 1200, "what is held counts");
    assert_eq!(read(&agent, &token, "r-1").ok()["status"], "held");

    let actual = json!({ "tokens": 980, "api_calls": 1, "cost_usd": "0.0245" });
    let settled = after(&agent, &token, "r-1", "settle", actual).ok();
    assert_eq!(settled["status"], "settled");
    assert_eq!(settled["charged"], json!({ "tokens": 980, "api_calls": 1, "cost_usd": "0.0245" }));
    assert_eq!(settled["exceeded"], json!([]));
    assert_eq!(settled["remaining"], json!({ "tokens": 9020, "api_calls": 49, "cost_usd": "4.9755" }));
    let used = used(&agent, &token);
    assert_eq!((int(&used["tokens_used_today"]), int(&used["api_calls_this_hour"])), (980, 1));
    assert_eq!(used["cost_this_month_usd"].to_string(), "0.0245");
    assert_eq!(read(&agent, &token, "r-1").ok()["status"], "settled");
}

fn repetition_returns_the_first_outcome(server: &Server) {
    let (agent, token) = generous(server);
    let request = json!({ "id": "again", "tokens": 10, "api_calls": 1 });
    let first = reserve(&agent, &token, request.clone()).expect(201).json();
    let second = reserve(&agent, &token, request.clone()).expect(200).json();
    assert_eq!(first, second);
    after(&agent, &token, "again", "settle", json!({ "tokens": 4 })).ok();
    let third = reserve(&agent, &token, request).expect(200).json();
    assert_eq!(third["status"], "settled");
    assert_eq!(int(&used(&agent, &token)["tokens_used_today"]), 4);
}

fn same_id_with_other_content_conflicts(server: &Server) {
    let (agent, token) = generous(server);
    reserve(&agent, &token, json!({ "id": "x", "tokens": 10 })).expect(201);
    for other in [
        json!({ "id": "x", "tokens": 11 }),
        json!({ "id": "x", "tokens": 10, "model": "m" }),
        json!({ "id": "x", "tokens": 10, "lease_seconds": 61 }),
        json!({ "id": "x", "tokens": 10, "action": "a" }),
    ] {
        reserve(&agent, &token, other).expect(409);
    }
    assert_eq!(int(&used(&agent, &token)["tokens_used_today"]), 10);
}

fn all_lines_or_none(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_tokens_per_day": 100, "max_cost_per_month_usd": 1 }));
    let refused = reserve(&agent, &token, json!({ "id": "a", "tokens": 50, "cost_usd": "1.000001" }));
    let body = refused.refused(429, "budget_exceeded");
    assert_eq!(body["details"]["limit"], "max_cost_per_month_usd");
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()));
    assert_eq!(int(&used(&agent, &token)["tokens_used_today"]), 0);
    // A refused id is free.
    reserve(&agent, &token, json!({ "id": "a", "tokens": 100, "cost_usd": 1 })).expect(201);
    reserve(&agent, &token, json!({ "id": "b", "tokens": 1 })).refused(429, "budget_exceeded");
}

fn released_amount_is_free_again(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_tokens_per_day": 100 }));
    reserve(&agent, &token, json!({ "id": "a", "tokens": 100 })).expect(201);
    reserve(&agent, &token, json!({ "id": "b", "tokens": 1 })).refused(429, "budget_exceeded");
    for _ in 0..2 {
        assert_eq!(after(&agent, &token, "a", "release", json!({})).ok()["status"], "released");
    }
    after(&agent, &token, "a", "settle", json!({ "tokens": 5 })).expect(409);
    reserve(&agent, &token, json!({ "id": "b", "tokens": 100 })).expect(201);
    after(&agent, &token, "b", "settle", json!({ "tokens": 5 })).ok();
    after(&agent, &token, "b", "release", json!({})).expect(409);
}

fn overshoot_is_recorded_and_blocks_the_next(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_tokens_per_day": 100 }));
    reserve(&agent, &token, json!({ "id": "a", "tokens": 10 })).expect(201);
    let settled = after(&agent, &token, "a", "settle", json!({ "tokens": 250 })).ok();
    assert_eq!(settled["exceeded"], json!(["max_tokens_per_day"]));
    assert_eq!(settled["remaining"]["tokens"], 0);
    assert_eq!(int(&used(&agent, &token)["tokens_used_today"]), 250);
    reserve(&agent, &token, json!({ "id": "b" })).refused(429, "budget_exceeded");
    agent.ask(&token, "read:a").refused(429, "budget_exceeded");
    assert_eq!(agent.org.introspect(&agent, &token)["budget_exceeded"], true);
}

fn settling_twice_changes_nothing(server: &Server) {
    let (agent, token) = generous(server);
    reserve(&agent, &token, json!({ "id": "a", "tokens": 10 })).expect(201);
    let first = after(&agent, &token, "a", "settle", json!({ "tokens": 7 })).ok();
    let second = after(&agent, &token, "a", "settle", json!({ "tokens": 7 })).ok();
    let other = after(&agent, &token, "a", "settle", json!({ "tokens": 9 })).ok();
    assert_eq!((&first, &first), (&second, &other));
    assert_eq!(int(&used(&agent, &token)["tokens_used_today"]), 7);
    after(&agent, &token, "never-made", "settle", json!({})).expect(404);
    after(&agent, &token, "never-made", "release", json!({})).expect(404);
    read(&agent, &token, "never-made").expect(404);
}

fn unnamed_meters_are_settled_as_reserved(server: &Server) {
    let (agent, token) = generous(server);
    reserve(&agent, &token, json!({ "id": "a", "tokens": 10, "api_calls": 2, "cost_usd": "0.5" }))
        .expect(201);
    let settled = after(&agent, &token, "a", "settle", json!({ "tokens": 3, "api_calls": null })).ok();
    assert_eq!(settled["charged"], json!({ "tokens": 3, "api_calls": 2, "cost_usd": "0.5" }));
}

fn model_outside_the_policy_is_refused(server: &Server) {
    let (agent, token) = limited(server, &json!({ "allowed_models": ["gpt-4"] }));
    reserve(&agent, &token, json!({ "id": "a", "model": "gpt-5" })).refused(403, "model_not_allowed");
    reserve(&agent, &token, json!({ "id": "a", "model": "gpt-4" })).expect(201);
    reserve(&agent, &token, json!({ "id": "b" })).expect(201);
}

fn bad_requests_reserve_nothing(server: &Server) {
    let (agent, token) = generous(server);
    for bad in [
        json!({ "tokens": 1 }),
        json!({ "id": "", "tokens": 1 }),
        json!({ "id": "x".repeat(129), "tokens": 1 }),
        json!({ "id": 7, "tokens": 1 }),
        json!({ "id": "a", "lease_seconds": 0 }),
        json!({ "id": "a", "lease_seconds": 3601 }),
        json!({ "id": "a", "lease_seconds": -1 }),
        json!({ "id": "a", "lease_seconds": "60" }),
        json!({ "id": "a", "tokens": -1 }),
        json!({ "id": "a", "tokens": 1.5 }),
        json!({ "id": "a", "tokens": "ten" }),
        json!({ "id": "a", "tokens": 9_223_372_036_854_775_808_u64 }),
        json!({ "id": "a", "tokens": u64::MAX }),
        json!({ "id": "a", "cost_usd": -0.1 }),
        json!({ "id": "a", "cost_usd": "NaN" }),
        json!({ "id": "a", "cost_usd": "1e3" }),
        json!({ "id": "a", "cost_usd": "0.123456789012345678901234567890123" }),
        json!({ "id": "a", "cost_usd": [1] }),
        json!([]),
    ] {
        let refused = reserve(&agent, &token, bad.clone());
        assert_eq!(refused.status, 400, "{bad}: {refused}");
        let error = refused.refused_somehow()["error"].clone();
        assert!([json!("validation_error"), json!("invalid_request")].contains(&error), "{bad}: {refused}");
    }
    let used = used(&agent, &token);
    assert_eq!((int(&used["tokens_used_today"]), int(&used["api_calls_this_hour"])), (0, 0));
    assert_eq!(
        reserve(&agent, &token, json!({ "id": "a", "unknown": 1 })).status,
        201,
        "unknown members are ignored"
    );
}

fn bad_amounts_settle_nothing(server: &Server) {
    let (agent, token) = generous(server);
    reserve(&agent, &token, json!({ "id": "a", "tokens": 10, "cost_usd": 1 })).expect(201);
    for (member, bad) in [
        ("tokens", json!(-1)),
        ("tokens", json!(1.5)),
        ("tokens", json!("ten")),
        ("tokens", json!(LARGEST + 1)),
        ("tokens", json!(u64::MAX)),
        ("api_calls", json!(-1)),
        ("api_calls", json!([1])),
        ("cost_usd", json!(-0.1)),
        ("cost_usd", json!("NaN")),
        ("cost_usd", json!("1e3")),
        ("cost_usd", json!("0.123456789012345678901234567890123")),
        ("cost_usd", json!([1])),
    ] {
        let mut body = json!({ "tokens": 1 });
        body[member] = bad;
        let refused = after(&agent, &token, "a", "settle", body.clone()).refused(400, "validation_error");
        assert!(refused["details"][member].is_string(), "{body}: {refused}");
    }
    assert_eq!(read(&agent, &token, "a").ok()["status"], "held");
    assert_eq!(int(&used(&agent, &token)["tokens_used_today"]), 10);
}

/// The largest amount there is: 2^53.
const LARGEST: u64 = 9_007_199_254_740_992;

fn largest_amount_is_counted(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_tokens_per_day": LARGEST }));
    for id in ["a", "b"] {
        reserve(&agent, &token, json!({ "id": id })).expect(201);
    }
    for (id, sum) in [("a", LARGEST), ("b", 2 * LARGEST)] {
        let settled = after(&agent, &token, id, "settle", json!({ "tokens": LARGEST })).ok();
        assert_eq!(settled["charged"]["tokens"], LARGEST);
        assert_eq!(used(&agent, &token)["tokens_used_today"], sum);
    }
    reserve(&agent, &token, json!({ "id": "c" })).refused(429, "budget_exceeded");
}

fn lease_that_ended_is_settled_all_the_same(server: &Server) {
    let (agent, token) = generous(server);
    for id in ["a", "b"] {
        reserve(&agent, &token, json!({ "id": id, "tokens": 100, "lease_seconds": 1 })).expect(201);
    }
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(int(&used(&agent, &token)["tokens_used_today"]), 200, "it counts as used");
    for _ in 0..2 {
        let settled = after(&agent, &token, "a", "settle", json!({ "tokens": 30 })).ok();
        assert_eq!((&settled["status"], &settled["charged"]["tokens"]), (&json!("settled"), &json!(30)));
        assert_eq!(int(&used(&agent, &token)["tokens_used_today"]), 130);
    }
    assert_eq!(after(&agent, &token, "b", "release", json!({})).ok()["status"], "released");
    assert_eq!(int(&used(&agent, &token)["tokens_used_today"]), 30);
}

fn exceeded_is_of_ones_own_use(server: &Server) {
    avoid_hour_edge();
    let org = server.acme();
    let agent = |policy: Value| {
        let capabilities = ["read:a", "delegate:on_behalf"];
        org.create_agent(json!({ "capabilities": capabilities, "budgetPolicy": policy }))
    };
    let parent = agent(json!({ "max_tokens_per_day": 100 }));
    let parents = parent.token();
    for (policy, own) in [
        // Far from its own maximum.
        (json!({ "max_tokens_per_day": 1000 }), json!([])),
        (json!({}), json!([])),
        (json!({ "max_tokens_per_day": 10, "max_api_calls_per_hour": 9 }), json!(["max_tokens_per_day"])),
    ] {
        parent.admin("POST", "/budget/reset").send().ok();
        let child = agent(policy.clone());
        let token = delegated(&parents, &child, &child.token(), &[]);
        reserve(&child, &token, json!({ "id": "a", "tokens": 1 })).expect(201);
        let settled = after(&child, &token, "a", "settle", json!({ "tokens": 100 })).ok();
        assert_eq!(settled["remaining"]["tokens"], 0, "{policy}");
        assert_eq!(settled["exceeded"], own, "{policy}");
    }
}

fn amounts_are_exact(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_cost_per_month_usd": "0.3" }));
    reserve(&agent, &token, json!({ "id": "a", "cost_usd": 0.1 })).expect(201);
    let rest = reserve(&agent, &token, json!({ "id": "b", "cost_usd": 0.2 })).expect(201).json();
    assert_eq!(rest["remaining"]["cost_usd"], "0");
    assert_eq!(used(&agent, &token)["cost_this_month_usd"].to_string(), "0.3");
    reserve(&agent, &token, json!({ "id": "c", "cost_usd": "0.000001" })).refused(429, "budget_exceeded");
    after(&agent, &token, "a", "settle", json!({ "cost_usd": "0.099999" })).ok();
    reserve(&agent, &token, json!({ "id": "c", "cost_usd": "0.000001" })).expect(201);
}

fn reservation_is_its_makers_alone(server: &Server) {
    let (agent, token) = generous(server);
    let (stranger, theirs) = generous(server);
    reserve(&agent, &token, json!({ "id": "mine", "tokens": 10 })).expect(201);
    read(&stranger, &theirs, "mine").expect(404);
    after(&stranger, &theirs, "mine", "settle", json!({ "tokens": 0 })).expect(404);
    after(&stranger, &theirs, "mine", "release", json!({})).expect(404);
    // The same text is another id of another agent.
    reserve(&stranger, &theirs, json!({ "id": "mine", "tokens": 1 })).expect(201);
    assert_eq!(int(&used(&agent, &token)["tokens_used_today"]), 10);
    agent.org.post(RESERVATIONS).json(json!({ "id": "a" })).send().expect(401);
    agent.org.post(RESERVATIONS).api_key(agent.org.key()).json(json!({ "id": "a" })).send().expect(401);
}

fn exhausted_agent_still_settles(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_api_calls_per_hour": 1 }));
    reserve(&agent, &token, json!({ "id": "a", "api_calls": 1 })).expect(201);
    agent.ask(&token, "read:a").refused(429, "budget_exceeded");
    agent.org.get("/agents/me/budget").bearer(&token).send().ok();
    after(&agent, &token, "a", "settle", json!({ "api_calls": 0 })).ok();
    agent.ask(&token, "read:a").ok();
}

fn held_amounts_are_shown(server: &Server) {
    let (agent, token) = generous(server);
    let budget = || agent.org.get("/agents/me/budget").bearer(&token).send().ok();
    assert_eq!(budget()["held"], json!({ "tokens": 0, "api_calls": 0, "cost_usd": "0" }));
    reserve(&agent, &token, json!({ "id": "a", "tokens": 10, "api_calls": 1 })).expect(201);
    reserve(&agent, &token, json!({ "id": "b", "tokens": 5, "cost_usd": "0.25" })).expect(201);
    let shown = budget();
    assert_eq!(shown["held"], json!({ "tokens": 15, "api_calls": 1, "cost_usd": "0.25" }));
    assert_eq!((int(&shown["max_tokens_per_day"]), int(&shown["tokens_used_today"])), (10_000, 15));
    for meter in ["tokens", "api_calls", "cost_usd"] {
        assert!(text(&shown["resets_at"][meter]).ends_with(":00:00Z"), "{shown}");
    }
    after(&agent, &token, "a", "settle", json!({ "tokens": 8 })).ok();
    after(&agent, &token, "b", "release", json!({})).ok();
    let shown = budget();
    assert_eq!(shown["held"], json!({ "tokens": 0, "api_calls": 0, "cost_usd": "0" }));
    assert_eq!(int(&shown["tokens_used_today"]), 8);
}

fn sixty_four_with_one_id_hold_once(server: &Server) {
    let (agent, token) = generous(server);
    let statuses = at_once(64, |_| reserve(&agent, &token, json!({ "id": "one", "tokens": 10 })).status);
    let count = |status| statuses.iter().filter(|other| **other == status).count();
    assert_eq!((count(201), count(200)), (1, 63), "{statuses:?}");
    assert_eq!(int(&used(&agent, &token)["tokens_used_today"]), 10);
    let statuses = at_once(64, |n| after(&agent, &token, "one", "settle", json!({ "tokens": n % 2 })).status);
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let settled = int(&read(&agent, &token, "one").ok()["charged"]["tokens"]);
    assert_eq!(int(&used(&agent, &token)["tokens_used_today"]), settled);
}

fn concurrent_reservations_never_pass_the_limit(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_tokens_per_day": 100 }));
    let statuses =
        at_once(64, |n| reserve(&agent, &token, json!({ "id": format!("r{n}"), "tokens": 7 })).status);
    let count = |status| statuses.iter().filter(|other| **other == status).count();
    assert_eq!((count(201), count(429)), (14, 50), "{statuses:?}");
    assert_eq!(int(&used(&agent, &token)["tokens_used_today"]), 98);
}

fn delegated_call_is_held_of_the_whole_chain(server: &Server) {
    avoid_hour_edge();
    let org = server.acme();
    let members = |tokens: u64| {
        json!({
            "capabilities": ["read:a", "delegate:on_behalf"],
            "budgetPolicy": { "max_tokens_per_day": tokens },
        })
    };
    let (parent, child) = (org.create_agent(members(100)), org.create_agent(members(1000)));
    let (parents, own) = (parent.token(), child.token());
    let delegated = delegated(&parents, &child, &own, &[]);
    let answer = reserve(&child, &delegated, json!({ "id": "a", "tokens": 60 })).expect(201).json();
    assert_eq!(answer["remaining"]["tokens"], 40, "the least of the chain");
    assert_eq!(int(&used(&parent, &parents)["tokens_used_today"]), 60);
    assert_eq!(int(&used(&child, &own)["tokens_used_today"]), 60);
    // The parent has no room, so nobody is charged; by itself the child has.
    reserve(&child, &delegated, json!({ "id": "b", "tokens": 41 })).refused(429, "budget_exceeded");
    assert_eq!(int(&used(&child, &own)["tokens_used_today"]), 60);
    reserve(&child, &own, json!({ "id": "b", "tokens": 41 })).expect(201);
    after(&child, &delegated, "a", "settle", json!({ "tokens": 10 })).ok();
    assert_eq!(int(&used(&parent, &parents)["tokens_used_today"]), 10);
    assert_eq!(int(&used(&child, &own)["tokens_used_today"]), 51);
    // What a sub-agent reports is its parents' use too.
    org.post("/agents/me/usage").bearer(&delegated).json(json!({ "tokens": 5 })).send().ok();
    assert_eq!(int(&used(&parent, &parents)["tokens_used_today"]), 15);
}

/// The token by which `child` acts for the agent of the token `subject`.
pub(crate) fn delegated(subject: &str, child: &Agent<'_>, own: &str, more: &[(&str, &str)]) -> String {
    let form = [
        ("subject_token", subject),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("actor_token", own),
        ("actor_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
    ];
    let form: Vec<_> = form.into_iter().chain(more.iter().copied()).collect();
    text(&child.org.post("/oauth/token").form(&form).send().ok()["access_token"]).to_owned()
}

fn budgeted_answers_tell_what_is_left(server: &Server) {
    let (agent, token) = limited(server, &json!({ "max_api_calls_per_hour": 3 }));
    let left = |response: &Response| {
        assert_eq!(response.header("ratelimit-policy"), Some("\"calls\";q=3;w=3600"));
        let limit = response.header("ratelimit").expect("RateLimit").to_owned();
        let (rest, reset) = limit.split_once(";t=").expect("a reset");
        let seconds: u64 = reset.parse().expect("seconds");
        assert!((1..=3600).contains(&seconds), "{limit}");
        rest.to_owned()
    };
    assert_eq!(left(&agent.ask(&token, "read:a").expect(200)), "\"calls\";r=2");
    let check = agent.org.post("/authz/check").bearer(&token).json(json!({ "permission": "read:a" })).send();
    assert_eq!(left(&check.expect(200)), "\"calls\";r=1");
    let reserved = reserve(&agent, &token, json!({ "id": unique("r"), "api_calls": 1 }));
    assert_eq!(left(&reserved.expect(201)), "\"calls\";r=0");
    let refused = agent.ask(&token, "read:a").expect(429);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(left(&refused), "\"calls\";r=0");
}
