//! Asking people to allow something (contract 2.8.1, security JI): who may ask, whom, and what becomes of it.

use lumoauth_tests::{
    Agent, Org, Person, Response, Server, avoid_hour_edge, int, list, on_each_backend, text,
};
use serde_json::{Value, json};

on_each_backend!(
    request_is_answered_with_a_token_to_poll,
    nobody_with_a_channel_means_428_for_everybody_alike,
    agent_that_may_not_delegate_asks_nobody,
    test_token_asks_nobody,
    only_agents_ask,
    status_is_for_the_agent_that_asked,
    unknown_approvals_are_not_found,
    bad_requests_are_refused_by_member,
    what_a_person_reads_is_what_was_written,
    asking_is_charged_and_polling_is_free,
    delegated_agent_asks_in_its_own_name,
    other_organization_sees_nothing,
    every_step_is_in_the_log_without_the_token,
);

/// A person with an approver channel, and their token in person.
pub(crate) struct Approver<'a> {
    pub(crate) person: Person<'a>,
    pub(crate) number: Value,
    pub(crate) token: String,
}

pub(crate) fn approver<'a>(org: &Org<'a>) -> Approver<'a> {
    approver_with(org, json!({}))
}

pub(crate) fn approver_with<'a>(org: &Org<'a>, mut members: Value) -> Approver<'a> {
    members["approver"] = json!({ "enabled": true });
    let person = org.person_with(members);
    let user = org.admin("GET", &format!("/users/{}", person.id)).send().ok()["data"].clone();
    assert_eq!(user["approver"]["enabled"], true, "{user}");
    let token = person.in_person("openid");
    Approver { number: user["userId"].clone(), token, person }
}

impl Approver<'_> {
    pub(crate) fn says(&self, what: &str, approval: &str) -> Response {
        self.says_with(what, approval, json!({}))
    }

    pub(crate) fn says_with(&self, what: &str, approval: &str, body: Value) -> Response {
        decide(&self.person.org, &self.token, what, approval, body)
    }

    pub(crate) fn pending(&self, query: &str) -> Value {
        self.person.org.get(&format!("/approvals/pending{query}")).bearer(&self.token).send().ok()
    }
}

pub(crate) fn decide(org: &Org<'_>, token: &str, what: &str, approval: &str, body: Value) -> Response {
    org.post(&format!("/approvals/{approval}/{what}")).bearer(token).json(body).send()
}

/// This approval as it is shown to `token`, on any page of what is pending.
pub(crate) fn listed(org: &Org<'_>, token: &str, approval: &str) -> Option<Value> {
    let mut page = 1;
    loop {
        let listed = org.get(&format!("/approvals/pending?limit=100&page={page}")).bearer(token).send().ok();
        let found = list(&listed["data"]).iter().find(|item| item["approval_token"] == approval);
        if found.is_some() || listed["meta"]["hasNextPage"] != true {
            return found.cloned();
        }
        page += 1;
    }
}

fn body_for(who: &str) -> Value {
    json!({ "task_id": "t-9", "reason": "Pay invoice 88", "impact": "high", "on_behalf_of": who, "meta": null })
}

fn request(agent: &Agent<'_>, token: &str, body: Value) -> Response {
    agent.org.post("/agents/me/approvals").bearer(token).json(body).send()
}

/// The token of an approval that `agent` asks for.
#[track_caller]
pub(crate) fn opened(agent: &Agent<'_>, token: &str, who: &Approver<'_>) -> String {
    let body = request(agent, token, body_for(&who.person.email)).expect(201).json();
    text(&body["approval_token"]).to_owned()
}

pub(crate) fn poll(agent: &Agent<'_>, token: &str, approval: &str) -> Response {
    agent.org.get(&format!("/agents/me/approvals/{approval}/status")).bearer(token).send()
}

pub(crate) fn status(agent: &Agent<'_>, token: &str, approval: &str) -> String {
    text(&poll(agent, token, approval).ok()["status"]).to_owned()
}

pub(crate) fn setting(server: &Server) -> (Org<'_>, Approver<'_>, Agent<'_>, String) {
    let org = server.acme();
    let (alice, agent) = (approver(&org), org.delegate(&[]));
    let token = agent.token();
    (org, alice, agent, token)
}

fn request_is_answered_with_a_token_to_poll(server: &Server) {
    let (_, alice, agent, token) = setting(server);
    let mut tokens = Vec::new();
    for who in [&alice.person.email, &alice.person.id, &alice.person.email.to_uppercase()] {
        let response = request(&agent, &token, body_for(who)).expect(201);
        assert_eq!(response.header("cache-control"), Some("no-store"));
        let body = response.json();
        assert_eq!(
            (&body["status"], &body["task_id"], &body["impact"]),
            (&json!("pending"), &json!("t-9"), &json!("high"))
        );
        assert!(text(&body["expires_at"]).ends_with('Z'), "{body}");
        let approval = text(&body["approval_token"]);
        // 256 random bits, as base64url writes them.
        assert!(approval.starts_with("apr_") && approval.len() == 47, "{approval}");
        let seen = poll(&agent, &token, approval).ok();
        for member in ["approval_token", "status", "task_id", "impact", "expires_at"] {
            assert_eq!(seen[member], body[member], "{member}");
        }
        assert_eq!(seen["reason"], "Pay invoice 88");
        for member in ["responded_at", "approved_by", "decision_note"] {
            assert_eq!(seen.get(member), Some(&Value::Null), "{member}");
        }
        tokens.push(approval.to_owned());
    }
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 3);
}

fn nobody_with_a_channel_means_428_for_everybody_alike(server: &Server) {
    let (org, _, agent, token) = setting(server);
    let without = org.person();
    let blocked = approver(&org);
    org.admin("POST", &format!("/users/{}/block", blocked.person.id)).send().ok();
    let nobody = request(&agent, &token, body_for("nobody@people.test"));
    let body = nobody.refused(428, "no_enrolled_device");
    assert_eq!((&body["task_id"], body.get("approval_token")), (&json!("t-9"), None));
    let names = [
        without.email.as_str(),
        &without.id,
        &blocked.person.email,
        &blocked.person.id,
        "00000000-0000-4000-8000-000000000000",
        "42",
    ];
    for who in names {
        let other = request(&agent, &token, body_for(who));
        assert_eq!((other.status, other.json()), (428, body.clone()), "{who}");
    }
}

fn agent_that_may_not_delegate_asks_nobody(server: &Server) {
    let (org, alice, _, _) = setting(server);
    let agent = org.agent(&["read:a"]);
    let response = request(&agent, &agent.token(), body_for(&alice.person.email));
    response.refused(403, "delegation_not_allowed");
    assert_eq!(alice.pending("")["meta"]["total"], 0);
}

fn test_token_asks_nobody(server: &Server) {
    let (_, alice, agent, token) = setting(server);
    let made = agent.admin("POST", "/token").json(json!({})).send().ok();
    let test = text(&made["data"]["accessToken"]);
    let body = request(&agent, test, body_for(&alice.person.email)).refused(403, "test_token_not_accepted");
    assert_eq!(body["code"], "test_token_not_accepted");
    let approval = opened(&agent, &token, &alice);
    poll(&agent, test, &approval).refused(403, "test_token_not_accepted");
}

fn only_agents_ask(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let user_of_agent = alice.person.allow(&agent, "openid").access;
    for user in [&alice.token, &user_of_agent] {
        request(&agent, user, body_for(&alice.person.email)).refused(403, "forbidden");
    }
    let body = body_for(&alice.person.email);
    assert_eq!(org.post("/agents/me/approvals").json(body.clone()).send().status, 401);
    assert_eq!(org.post("/agents/me/approvals").api_key(org.key()).json(body).send().status, 401);
    let approval = opened(&agent, &token, &alice);
    poll(&agent, &alice.token, &approval).refused(403, "forbidden");
    let path = format!("/agents/me/approvals/{approval}/status");
    assert_eq!(org.get(&path).send().status, 401);
    assert_eq!(org.get(&path).api_key(org.key()).send().status, 401);
}

fn status_is_for_the_agent_that_asked(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let other = org.delegate(&[]);
    let approval = opened(&agent, &token, &alice);
    for _ in 0..2 {
        poll(&other, &other.token(), &approval).refused(403, "forbidden");
        // Once it is decided as well.
        alice.says("approve", &approval);
    }
    assert_eq!(status(&agent, &token, &approval), "approved");
}

fn unknown_approvals_are_not_found(server: &Server) {
    let (_, alice, agent, token) = setting(server);
    let unknown = format!("apr_{}", "a".repeat(43));
    for approval in [unknown.as_str(), "apr_", "x", "%00", "..", &"a".repeat(300)] {
        poll(&agent, &token, approval).refused(404, "not_found");
        for what in ["approve", "deny"] {
            alice.says(what, approval).refused(404, "not_found");
        }
    }
}

fn bad_requests_are_refused_by_member(server: &Server) {
    let (_, alice, agent, token) = setting(server);
    let long = |n: usize| "\u{e9}".repeat(n);
    let deep = json!({ "text": "m".repeat(9000) });
    for (member, value) in [
        ("task_id", Value::Null),
        ("task_id", json!("")),
        ("task_id", json!(" ")),
        ("task_id", json!(long(129))),
        ("task_id", json!("a\nb")),
        ("task_id", json!(7)),
        ("reason", Value::Null),
        ("reason", json!("")),
        ("reason", json!(long(481))),
        ("reason", json!("a\u{0}b")),
        ("reason", json!("Pay \u{202e}88")),
        ("reason", json!("\u{3164}")),
        ("reason", json!("\u{200d}\u{fe0f} ")),
        ("task_id", json!("\u{200c}")),
        ("task_id", json!("\u{2800}")),
        ("reason", json!(["Pay"])),
        ("impact", json!("extreme")),
        ("impact", json!("HIGH")),
        ("impact", json!(1)),
        ("on_behalf_of", Value::Null),
        ("on_behalf_of", json!("")),
        ("on_behalf_of", json!("a b@people.test")),
        ("on_behalf_of", json!("\u{202e}a@people.test")),
        ("on_behalf_of", json!(long(255))),
        ("on_behalf_of", json!({ "id": 1 })),
        ("meta", json!("text")),
        ("meta", json!([1])),
        ("meta", deep),
    ] {
        let mut body = body_for(&alice.person.email);
        body[member] = value.clone();
        let refused = request(&agent, &token, body).refused(400, "validation_error");
        assert!(!refused["details"][member].is_null(), "{member} {value}: {refused}");
    }
    for body in ["[]", "{", r#"{"task_id":"a","task_id":"b"}"#] {
        let post = agent.org.post("/agents/me/approvals").bearer(&token);
        let response = post.body("application/json", body).send();
        assert_eq!(response.status, 400, "{response}");
    }
    assert_eq!(alice.pending("")["meta"]["total"], 0);
}

fn what_a_person_reads_is_what_was_written(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let mut body = body_for(&alice.person.email);
    body["task_id"] = json!("\u{e9}".repeat(128));
    body["reason"] = json!(format!("<b>Pay</b>\n*88* \u{1f4b8}{}", "x".repeat(450)));
    body["impact"] = json!("critical");
    body["meta"] = json!({ "amount_usd": "12.500000", "lines": [{ "n": 1 }, null], "\u{1f4b8}": true });
    body["unknown"] = json!("ignored");
    let approval =
        text(&request(&agent, &token, body.clone()).expect(201).json()["approval_token"]).to_owned();
    let pending = alice.pending("");
    let [item] = list(&pending["data"]) else { panic!("one approval: {pending}") };
    for member in ["task_id", "reason", "impact", "meta"] {
        assert_eq!(item[member], body[member], "{member}");
    }
    assert_eq!((&item["approval_token"], &item["status"]), (&json!(approval), &json!("pending")));
    assert_eq!((&item["agent_id"], &item["agent_name"]), (&json!(agent.agent_id), &json!(agent.name)));
    assert_eq!(
        (&item["client_id"], &item["on_behalf_of"]),
        (&json!(agent.client_id), &json!(alice.person.id))
    );
    // A client that says nothing about the impact means a medium one.
    let short = json!({ "task_id": "t", "reason": "r", "on_behalf_of": alice.person.id });
    assert_eq!(request(&agent, &token, short).expect(201).json()["impact"], "medium");
    // The decision's answer shows it once more.
    let answer = org.post(&format!("/approvals/{approval}/approve")).bearer(&alice.token).send().ok();
    assert_eq!((&answer["reason"], &answer["meta"]), (&body["reason"], &body["meta"]));
}

fn asking_is_charged_and_polling_is_free(server: &Server) {
    avoid_hour_edge();
    let org = server.acme();
    let alice = approver(&org);
    let agent = org.create_agent(json!({
        "capabilities": ["delegate:on_behalf"], "budgetPolicy": { "max_api_calls_per_hour": 2 },
    }));
    let token = agent.token();
    let used = || int(&agent.userinfo(&token).ok()["budget_policy"]["api_calls_this_hour"]);
    // What is no request costs nothing; what reaches nobody costs as much as what reaches somebody.
    request(&agent, &token, json!({})).refused(400, "validation_error");
    assert_eq!(used(), 0);
    request(&agent, &token, body_for("nobody@people.test")).refused(428, "no_enrolled_device");
    let approval = opened(&agent, &token, &alice);
    assert_eq!(used(), 2);
    for who in [alice.person.email.as_str(), "nobody@people.test"] {
        let refused = request(&agent, &token, body_for(who));
        refused.refused(429, "budget_exceeded");
        assert!(refused.header("retry-after").is_some_and(|value| value.parse::<u64>().is_ok()), "{refused}");
    }
    for _ in 0..5 {
        assert_eq!(status(&agent, &token, &approval), "pending");
    }
    assert_eq!(used(), 2);
    assert_eq!(alice.pending("")["meta"]["total"], 1);
}

fn delegated_agent_asks_in_its_own_name(server: &Server) {
    let (_, alice, agent, token) = setting(server);
    let delegated = agent.acting_for(&alice.person.allow(&agent, "openid").access);
    let approval = opened(&agent, &delegated, &alice);
    alice.says("approve", &approval).ok();
    for held in [&delegated, &token] {
        assert_eq!(status(&agent, held, &approval), "approved");
    }
    let rows = agent.org.audit(&format!("action=approval.requested&actor={}", agent.agent_id));
    let row = agent.org.admin("GET", &format!("/audit-logs/{}", int(&rows[0]["id"]))).send().ok();
    let row = if row["data"].is_object() { row["data"].clone() } else { row };
    assert_eq!(row["context"]["principal"]["subject"], alice.person.id.as_str(), "{row}");
}

fn other_organization_sees_nothing(server: &Server) {
    let (_, alice, agent, token) = setting(server);
    let globex = server.globex();
    let approval = opened(&agent, &token, &alice);
    let theirs = approver_with(&globex, json!({ "isAdmin": true }));
    for what in ["approve", "deny"] {
        theirs.says(what, &approval).refused(404, "not_found");
        // A person of ours at their door.
        let response = decide(&globex, &alice.token, what, &approval, json!({}));
        assert!(matches!(response.status, 401 | 403), "{response}");
    }
    let spy = globex.delegate(&[]);
    poll(&spy, &spy.token(), &approval).refused(404, "not_found");
    let listed = theirs.pending("?limit=100");
    assert!(list(&listed["data"]).iter().all(|item| item["approval_token"] != approval.as_str()));
    // Nor can their agents ask people of ours.
    request(&spy, &spy.token(), body_for(&alice.person.email)).refused(428, "no_enrolled_device");
    assert_eq!(status(&agent, &token, &approval), "pending");
}

fn every_step_is_in_the_log_without_the_token(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let (yes, no) = (opened(&agent, &token, &alice), opened(&agent, &token, &alice));
    let target = text(&alice.says("approve", &yes).ok()["audit_target"]).to_owned();
    alice.says("deny", &no).ok();
    alice.says("deny", &no);
    let asked = org.audit(&format!("action=approval.requested&actor={}", agent.agent_id));
    assert_eq!(asked.len(), 2, "{asked:?}");
    let approved = org.audit(&format!("action=approval.approved&actor={}", alice.person.id));
    assert_eq!((approved.len(), &approved[0]["actorType"]), (1, &json!("user")));
    assert_eq!((&approved[0]["targetType"], &approved[0]["targetId"]), (&json!("approval"), &json!(target)));
    assert_eq!(org.audit(&format!("action=approval.denied&actor={}", alice.person.id)).len(), 1);
    for row in org.audit(&format!("targetId={target}")) {
        let row = org.admin("GET", &format!("/audit-logs/{}", int(&row["id"]))).send().ok();
        assert!(!row.to_string().contains("apr_") && !row.to_string().contains("invoice"), "{row}");
    }
    assert!(!server.log().contains(&yes) && !server.log().contains(&no));
}
