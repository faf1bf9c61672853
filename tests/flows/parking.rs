//! Reservations above the approval threshold: held, and waiting for a person (budgets.md, contract 2.8.1).

use lumoauth_tests::{Agent, Person, Response, Server, at_once, avoid_hour_edge, on_each_backend, text};
use serde_json::{Value, json};

use crate::approvals::{decide, listed};

on_each_backend!(
    costly_call_waits_for_a_person,
    denied_call_frees_its_amount,
    agreement_is_to_this_amount_once,
    repetition_asks_nobody_again,
    waiting_call_can_be_given_up,
    waiting_call_cannot_be_settled,
    threshold_looks_at_one_call,
    person_who_is_acted_for_is_asked,
    agent_does_not_agree_with_itself,
    sixteen_answers_are_one,
    giving_up_races_agreement,
    no_room_asks_nobody,
    test_token_asks_nobody,
);

const RESERVATIONS: &str = "/agents/me/budget/reservations";

fn costly(server: &Server) -> (Agent<'_>, String) {
    avoid_hour_edge();
    let policy = json!({ "max_cost_per_month_usd": 50, "require_approval_above_usd": 10 });
    let agent = server.acme().create_agent(json!({ "capabilities": ["read:a"], "budgetPolicy": policy }));
    let token = agent.token();
    (agent, token)
}

fn reserve(agent: &Agent<'_>, token: &str, body: Value) -> Response {
    agent.org.post(RESERVATIONS).bearer(token).json(body).send()
}

fn read(agent: &Agent<'_>, token: &str, id: &str) -> Value {
    agent.org.get(&format!("{RESERVATIONS}/{id}")).bearer(token).send().ok()
}

fn after(agent: &Agent<'_>, token: &str, id: &str, verb: &str, body: Value) -> Response {
    agent.org.post(&format!("{RESERVATIONS}/{id}/{verb}")).bearer(token).json(body).send()
}

/// What the agent used this month, as text.
fn used(agent: &Agent<'_>, token: &str) -> String {
    agent.userinfo(token).ok()["budget_policy"]["cost_this_month_usd"].to_string()
}

/// Reserves 12 dollars; the token of the approval that is open then.
fn parked(agent: &Agent<'_>, token: &str, id: &str) -> String {
    let request = json!({ "id": id, "cost_usd": 12, "model": "gpt-4", "action": "llm.call" });
    let answer = reserve(agent, token, request).expect(202);
    assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()));
    let body = answer.json();
    assert_eq!((&body["id"], &body["status"]), (&json!(id), &json!("pending_approval")));
    let approval = text(&body["approval_token"]).to_owned();
    assert!(
        text(&body["status_url"]).ends_with(&format!("/agents/me/approvals/{approval}/status")),
        "{body}"
    );
    assert!(text(&body["expires_at"]).ends_with('Z'));
    approval
}

fn administrator(agent: &Agent<'_>) -> String {
    agent.org.person_with(json!({ "isAdmin": true })).in_person("openid approvals.manage")
}

fn costly_call_waits_for_a_person(server: &Server) {
    let (agent, token) = costly(server);
    let approval = parked(&agent, &token, "big");
    assert_eq!(used(&agent, &token), "12", "what waits is held");
    assert_eq!(read(&agent, &token, "big")["status"], "pending_approval");
    let status_url = format!("/agents/me/approvals/{approval}/status");
    assert_eq!(agent.org.get(&status_url).bearer(&token).send().ok()["status"], "pending");

    // The person sees exactly what is asked for.
    let admin = administrator(&agent);
    let mine = listed(&agent.org, &admin, &approval).expect("it is listed");
    assert_eq!(mine["meta"]["reserve"]["cost_usd"], "12");
    assert_eq!((&mine["meta"]["model"], &mine["meta"]["action"]), (&json!("gpt-4"), &json!("llm.call")));
    decide(&agent.org, &admin, "approve", &approval, json!({})).ok();

    let held = read(&agent, &token, "big");
    assert_eq!((&held["status"], &held["held"]["cost_usd"]), (&json!("held"), &json!("12")));
    let settled = after(&agent, &token, "big", "settle", json!({ "cost_usd": "11.5" })).ok();
    assert_eq!(settled["charged"]["cost_usd"], "11.5");
    assert_eq!(used(&agent, &token), "11.5");
}

fn denied_call_frees_its_amount(server: &Server) {
    let (agent, token) = costly(server);
    let approval = parked(&agent, &token, "big");
    decide(&agent.org, &administrator(&agent), "deny", &approval, json!({})).ok();
    assert_eq!(used(&agent, &token), "0");
    assert_eq!(read(&agent, &token, "big")["status"], "denied");
    after(&agent, &token, "big", "settle", json!({ "cost_usd": 12 })).expect(409);
    let again = reserve(
        &agent,
        &token,
        json!({ "id": "big", "cost_usd": 12, "model": "gpt-4", "action": "llm.call" }),
    );
    assert_eq!(again.expect(200).json()["status"], "denied", "the same id is the same question");
}

fn agreement_is_to_this_amount_once(server: &Server) {
    let (agent, token) = costly(server);
    let approval = parked(&agent, &token, "one");
    let other = parked(&agent, &token, "two");
    assert_ne!(approval, other);
    decide(&agent.org, &administrator(&agent), "approve", &approval, json!({})).ok();
    assert_eq!(read(&agent, &token, "two")["status"], "pending_approval");
    reserve(&agent, &token, json!({ "id": "one", "cost_usd": 13, "model": "gpt-4", "action": "llm.call" }))
        .expect(409);
    after(&agent, &token, "one", "settle", json!({ "cost_usd": 12 })).ok();
    // Agreed to once: the same call under another id waits again.
    parked(&agent, &token, "three");
}

fn repetition_asks_nobody_again(server: &Server) {
    let (agent, token) = costly(server);
    let approval = parked(&agent, &token, "big");
    assert_eq!(parked(&agent, &token, "big"), approval);
    decide(&agent.org, &administrator(&agent), "approve", &approval, json!({})).ok();
    let request = json!({ "id": "big", "cost_usd": 12, "model": "gpt-4", "action": "llm.call" });
    assert_eq!(reserve(&agent, &token, request).expect(200).json()["status"], "held");
    assert_eq!(used(&agent, &token), "12");
}

fn waiting_call_can_be_given_up(server: &Server) {
    let (agent, token) = costly(server);
    let approval = parked(&agent, &token, "big");
    assert_eq!(after(&agent, &token, "big", "release", json!({})).ok()["status"], "released");
    assert_eq!(used(&agent, &token), "0");
    // Nobody is asked any more for what nothing waits for.
    let admin = administrator(&agent);
    assert_eq!(listed(&agent.org, &admin, &approval), None);
    for what in ["approve", "deny"] {
        decide(&agent.org, &admin, what, &approval, json!({})).expect(409);
    }
    let status = format!("/agents/me/approvals/{approval}/status");
    let seen = agent.org.get(&status).bearer(&token).send().ok();
    assert_eq!((&seen["status"], &seen["approved_by"]), (&json!("denied"), &Value::Null));
    for _ in 0..2 {
        assert_eq!(after(&agent, &token, "big", "release", json!({})).ok()["status"], "released");
    }
    assert_eq!(agent.org.audit(&format!("action=approval.withdrawn&actor={}", agent.agent_id)).len(), 1);
    assert_eq!(used(&agent, &token), "0");

    // What was agreed to before is given up all the same.
    let approval = parked(&agent, &token, "agreed");
    decide(&agent.org, &admin, "approve", &approval, json!({})).ok();
    assert_eq!(after(&agent, &token, "agreed", "release", json!({})).ok()["status"], "released");
    assert_eq!(used(&agent, &token), "0");
}

fn waiting_call_cannot_be_settled(server: &Server) {
    let (agent, token) = costly(server);
    parked(&agent, &token, "big");
    after(&agent, &token, "big", "settle", json!({ "cost_usd": 1 })).expect(409);
    assert_eq!(read(&agent, &token, "big")["status"], "pending_approval");
    assert_eq!(used(&agent, &token), "12");
}

fn threshold_looks_at_one_call(server: &Server) {
    let (agent, token) = costly(server);
    for id in ["a", "b", "c"] {
        reserve(&agent, &token, json!({ "id": id, "cost_usd": 10 })).expect(201);
    }
    reserve(&agent, &token, json!({ "id": "d", "cost_usd": "10.000001" })).expect(202);
}

/// A costly agent, a person, and the token by which it acts for them.
fn acting_for_a_person(server: &Server) -> (Agent<'_>, Person<'_>, String) {
    avoid_hour_edge();
    let org = server.acme();
    let agent = org.create_agent(json!({
        "capabilities": ["read:a", "delegate:on_behalf"],
        "redirectUris": [lumoauth_tests::CALLBACK],
        "budgetPolicy": { "max_cost_per_month_usd": 50, "require_approval_above_usd": 10 },
    }));
    let person = org.person();
    let token = agent.acting_for(&person.allow(&agent, "read:a").access);
    (agent, person, token)
}

fn person_who_is_acted_for_is_asked(server: &Server) {
    let (agent, person, token) = acting_for_a_person(server);
    let org = &agent.org;
    let approval = parked(&agent, &token, "big");
    let theirs = person.in_person("openid");
    let bobs = org.person().in_person("openid");
    decide(org, &bobs, "approve", &approval, json!({})).refused(403, "forbidden");
    decide(org, &theirs, "approve", &approval, json!({})).ok();
    assert_eq!(read(&agent, &token, "big")["status"], "held");
}

fn agent_does_not_agree_with_itself(server: &Server) {
    let (agent, token) = costly(server);
    let approval = parked(&agent, &token, "big");
    let refused = decide(&agent.org, &token, "approve", &approval, json!({}));
    assert!([401, 403].contains(&refused.status), "{refused}");
    assert_eq!(read(&agent, &token, "big")["status"], "pending_approval");
}

fn sixteen_answers_are_one(server: &Server) {
    let (agent, token) = costly(server);
    let admin = administrator(&agent);
    let approval = parked(&agent, &token, "big");
    let answers = at_once(16, |n| {
        let approve = n.is_multiple_of(2);
        let what = if approve { "approve" } else { "deny" };
        (approve, decide(&agent.org, &admin, what, &approval, json!({})).status)
    });
    let won: Vec<_> = answers.iter().filter(|(_, status)| *status == 200).collect();
    let [(approved, _)] = won[..] else { panic!("{answers:?}") };
    let (status, amount) = if *approved { ("held", "12") } else { ("denied", "0") };
    assert_eq!(read(&agent, &token, "big")["status"], status);
    assert_eq!(used(&agent, &token), amount);
}

fn giving_up_races_agreement(server: &Server) {
    let (agent, token) = costly(server);
    let admin = administrator(&agent);
    for id in ["a", "b", "c", "d"] {
        let approval = parked(&agent, &token, id);
        let answers = at_once(8, |n| {
            let approve = n.is_multiple_of(2);
            let answer = if approve {
                decide(&agent.org, &admin, "approve", &approval, json!({}))
            } else {
                after(&agent, &token, id, "release", json!({}))
            };
            (approve, answer.status)
        });
        // Whoever was first: it is given up, and what is said about the approval is what was done.
        let agreed = answers.iter().filter(|(approve, status)| *approve && *status == 200).count();
        let expected = |(approve, status): &(bool, u16)| *status == 200 || (*approve && *status == 409);
        assert!(agreed <= 1 && answers.iter().all(expected), "{answers:?}");
        let status = format!("/agents/me/approvals/{approval}/status");
        let said = if agreed == 1 { "approved" } else { "denied" };
        assert_eq!(agent.org.get(&status).bearer(&token).send().ok()["status"], said);
        assert_eq!(read(&agent, &token, id)["status"], "released");
        assert_eq!(used(&agent, &token), "0");
    }
}

fn no_room_asks_nobody(server: &Server) {
    let (agent, person, token) = acting_for_a_person(server);
    reserve(&agent, &token, json!({ "id": "far beyond", "cost_usd": 51 })).refused(429, "budget_exceeded");
    // Their list is their own.
    let theirs = person.in_person("openid");
    let asked = || agent.org.get("/approvals/pending").bearer(&theirs).send().ok()["meta"]["total"].clone();
    assert_eq!(asked(), 0);
    parked(&agent, &token, "fits");
    assert_eq!(asked(), 1);
}

fn test_token_asks_nobody(server: &Server) {
    let (agent, _) = costly(server);
    let made = agent.admin("POST", "/token").json(json!({})).send().ok();
    let test = text(&made["data"]["accessToken"]);
    let costs = |usd: u32| reserve(&agent, test, json!({ "id": format!("{usd}"), "cost_usd": usd }));
    costs(12).refused(403, "test_token_not_accepted");
    assert_eq!(used(&agent, test), "0");
    let admin = administrator(&agent);
    let pending = agent.org.get("/approvals/pending?limit=100").bearer(&admin).send().ok();
    assert!(!pending.to_string().contains(&agent.agent_id), "{pending}");
    costs(9).expect(201);
}
