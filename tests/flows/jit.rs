//! Tasks, and asking for permissions in them (contract 2.8.2, security JI).

use lumoauth_tests::{
    Agent, Org, Person, Response, Server, at_once, avoid_hour_edge, int, list, on_each_backend, text,
};
use serde_json::{Value, json};

on_each_backend!(
    task_is_opened_completed_and_completed_again,
    task_of_another_agent_is_not_touched,
    reading_is_granted_at_once,
    writing_is_granted_at_once_and_on_record,
    deleting_waits_for_a_person,
    organization_says_how_risky_a_type_is,
    amount_above_the_threshold_waits,
    ttl_is_clamped,
    bad_requests_are_refused,
    closed_task_takes_no_request,
    evaluation_closes_with_its_result,
    only_agents_with_real_tokens_open_tasks,
    subtask_ends_with_its_parent,
    waiting_requests_are_bounded,
    many_requests_at_once_are_all_made,
    asking_is_charged_and_looking_is_free,
    other_organization_sees_no_task,
    every_step_is_on_record,
);

pub(crate) fn opened(agent: &Agent<'_>, token: &str) -> String {
    let body = agent.org.post("/jit/task").bearer(token).json(json!({})).send().expect(201).json();
    text(&body["task_id"]).to_owned()
}

pub(crate) fn detail(kind: &str, actions: &[&str]) -> Value {
    json!({ "type": kind, "actions": actions, "identifier": "report_q4.pdf" })
}

pub(crate) fn request(agent: &Agent<'_>, token: &str, task: &str, detail: Value) -> Response {
    let body = json!({ "task_id": task, "authorization_details": detail, "requested_ttl": 300 });
    agent.org.post("/jit/request").bearer(token).json(body).send()
}

pub(crate) fn asked(agent: &Agent<'_>, token: &str, task: &str, detail: Value) -> Value {
    request(agent, token, task, detail).expect(201).json()
}

pub(crate) fn status(agent: &Agent<'_>, token: &str, id: &str) -> Value {
    agent.org.get(&format!("/jit/request/{id}/status")).bearer(token).send().ok()
}

/// POST without a body and without a type, as the SDK does it.
pub(crate) fn bare(org: &Org<'_>, token: &str, path: &str) -> Response {
    org.post(path).bearer(token).send()
}

pub(crate) fn complete(agent: &Agent<'_>, token: &str, task: &str) -> Value {
    bare(&agent.org, token, &format!("/jit/task/{task}/complete")).ok()
}

pub(crate) fn setting(server: &Server) -> (Org<'_>, Agent<'_>, String, String) {
    let org = server.acme();
    let agent = org.delegate(&["read:a"]);
    let token = agent.token();
    let task = opened(&agent, &token);
    (org, agent, token, task)
}

/// Somebody who decides on what agents ask for, and their token.
pub(crate) fn reviewer<'a>(org: &Org<'a>) -> (Person<'a>, String) {
    let person = org.person_with(json!({ "isAdmin": true }));
    let token = person.in_person("openid jit:approve");
    (person, token)
}

/// The request as it is shown to whoever decides, if it waits.
pub(crate) fn listed(org: &Org<'_>, reviewer: &str, id: &str) -> Option<Value> {
    let mut found = None;
    for page in 1.. {
        let shown = org.get(&format!("/jit/pending?limit=100&page={page}")).bearer(reviewer).send().ok();
        assert_eq!(shown["pending_requests"], shown["data"]);
        assert_eq!(shown["count"], shown["pagination"]["total"]);
        found = found.or(list(&shown["data"]).iter().find(|it| it["request_id"] == id).cloned());
        if shown["pagination"]["hasNextPage"] != true {
            break;
        }
    }
    found
}

fn task_is_opened_completed_and_completed_again(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&[]);
    let token = agent.token();
    let body = json!({ "name": "Analyse Q4", "type": "analysis", "parent_task_id": null });
    let made = org.post("/jit/task").bearer(&token).json(body).send().expect(201).json();
    assert_eq!((&made["name"], &made["type"]), (&json!("Analyse Q4"), &json!("analysis")));
    assert!(
        text(&made["task_id"]).starts_with("task_") && text(&made["caep_session_id"]).starts_with("caep_")
    );
    assert!(text(&made["expires_at"]).ends_with('Z'));
    assert_eq!((&made["agent_id"], &made["on_behalf_of"]), (&json!(agent.agent_id), &Value::Null));
    assert_eq!(made["agent"], json!({ "id": agent.agent_id, "name": agent.name }));
    let task = text(&made["task_id"]);
    let first = complete(&agent, &token, task);
    assert_eq!((&first["task_id"], &first["status"]), (&made["task_id"], &json!("completed")));
    assert!(text(&first["completed_at"]).ends_with('Z'));
    assert_eq!(complete(&agent, &token, task), first);
}

fn task_of_another_agent_is_not_touched(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let asked = asked(&agent, &token, &task, detail("file_access", &["read"]));
    let other = org.agent(&[]);
    let theirs = other.token();
    for path in ["complete", "evaluate"] {
        bare(&org, &theirs, &format!("/jit/task/{task}/{path}")).refused(403, "forbidden");
        for unknown in ["task_000000000000000000000000", "x", "%2E%2E"] {
            bare(&org, &token, &format!("/jit/task/{unknown}/{path}")).refused(404, "not_found");
        }
    }
    request(&other, &theirs, &task, detail("file_access", &["read"])).refused(403, "forbidden");
    let id = text(&asked["request_id"]);
    org.get(&format!("/jit/request/{id}/status")).bearer(&theirs).send().refused(403, "forbidden");
    bare(&org, &theirs, &format!("/jit/request/{id}/token")).refused(403, "forbidden");
    for unknown in ["jit_000000000000000000000000", "x"] {
        org.get(&format!("/jit/request/{unknown}/status")).bearer(&token).send().refused(404, "not_found");
        bare(&org, &token, &format!("/jit/request/{unknown}/token")).refused(404, "not_found");
    }
    request(&agent, &token, "task_000000000000000000000000", detail("a", &["read"]))
        .refused(404, "not_found");
}

fn reading_is_granted_at_once(server: &Server) {
    let (_, agent, token, task) = setting(server);
    let made = asked(&agent, &token, &task, detail("file_access", &["read"]));
    assert_eq!((&made["status"], &made["risk_level"]), (&json!("approved"), &json!("low")), "{made}");
    assert_eq!((&made["task_id"], &made["granted_ttl"]), (&json!(task), &json!(300)));
    let id = text(&made["request_id"]);
    assert!(id.starts_with("jit_"));
    let prefix = format!("/orgs/{}/api/v1", agent.org.slug());
    assert_eq!(made["token_url"], format!("{prefix}/jit/request/{id}/token"));
    // A list of one is one.
    let listed = asked(&agent, &token, &task, json!([detail("file_access", &["read"])]));
    assert_eq!(listed["status"], "approved");
    let seen = status(&agent, &token, id);
    assert_eq!((&seen["status"], &seen["granted_ttl"]), (&json!("approved"), &json!(300)));
}

fn writing_is_granted_at_once_and_on_record(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let made = asked(&agent, &token, &task, detail("file_access", &["write"]));
    assert_eq!((&made["status"], &made["risk_level"]), (&json!("approved"), &json!("medium")));
    let rows = org.audit(&format!("action=jit.requested&targetId={}", text(&made["request_id"])));
    assert_eq!(rows.len(), 1, "{rows:?}");
}

fn deleting_waits_for_a_person(server: &Server) {
    let (_, agent, token, task) = setting(server);
    for (kind, actions, risk) in [
        ("file_access", &["delete"][..], "high"),
        ("user_data", &["read"], "high"),
        ("payment", &["initiate"], "critical"),
        ("file_access", &["frobnicate"], "high"),
    ] {
        let made = asked(&agent, &token, &task, detail(kind, actions));
        assert_eq!((&made["status"], &made["risk_level"]), (&json!("pending"), &json!(risk)), "{made}");
        let id = text(&made["request_id"]);
        assert!(text(&made["status_url"]).ends_with(&format!("/jit/request/{id}/status")));
        assert!(text(&made["status_url"]).starts_with('/') && !text(&made["expires_at"]).is_empty());
        assert_eq!(made.get("token_url"), None);
        let seen = server.request("GET", text(&made["status_url"])).bearer(&token).send().ok();
        assert_eq!(
            (&seen["status"], &seen["delegation_consent_required"]),
            (&json!("pending"), &json!(false))
        );
        bare(&agent.org, &token, &format!("/jit/request/{id}/token")).refused(403, "forbidden");
    }
    // The other prefix answers with itself.
    let body = json!({ "task_id": task, "authorization_details": detail("file_access", &["drop"]) });
    let path = format!("/t/{}/api/v1/jit/request", agent.org.slug());
    let made = server.request("POST", &path).bearer(&token).json(body).send().expect(201).json();
    assert!(text(&made["status_url"]).starts_with("/t/"), "{made}");
}

fn organization_says_how_risky_a_type_is(server: &Server) {
    // The other organization: the table is of all of it, and other tests are in this one.
    let org = server.globex();
    let agent = org.agent(&[]);
    let token = agent.token();
    let task = opened(&agent, &token);
    let types = json!({ "weather": "critical", "payment": "low", "weapon": "denied" });
    let put = |types: &Value| org.admin("PUT", "/jit/risk").json(json!({ "types": types })).send();
    put(&types).ok();
    assert_eq!(org.admin("GET", "/jit/risk").send().ok()["data"]["types"], types);
    let of = |kind| asked(&agent, &token, &task, detail(kind, &["read"]));
    let weather = of("weather");
    assert_eq!((&weather["status"], &weather["risk_level"]), (&json!("pending"), &json!("critical")));
    assert_eq!(of("payment")["status"], "approved");
    let weapon = of("weapon");
    assert_eq!(weapon["status"], "denied", "{weapon}");
    assert!(text(&weapon["deny_reason"]).contains("policy"), "{weapon}");
    bare(&org, &token, &format!("/jit/request/{}/token", text(&weapon["request_id"])))
        .refused(403, "forbidden");
    assert_eq!(put(&json!({ "a": "harmless" })).status, 400);
    assert_eq!(put(&json!({ "": "low" })).status, 400);
    org.request("PUT", "/admin/jit/risk")
        .bearer(&token)
        .json(json!({ "types": {} }))
        .send()
        .refused_somehow();
    put(&json!({})).ok();
    let updated = org.audit("action=jit.policy_updated");
    assert!(updated.len() >= 2, "{updated:?}");
}

fn amount_above_the_threshold_waits(server: &Server) {
    let org = server.acme();
    let agent = org.create_agent(json!({ "budgetPolicy": { "require_approval_above_usd": 10 } }));
    let token = agent.token();
    let task = opened(&agent, &token);
    for (amount, expected) in [
        (json!(10), "approved"),
        (json!("10.000000"), "approved"),
        (json!(10.01), "pending"),
        (json!("1000"), "pending"),
        (json!("a lot"), "pending"),
    ] {
        let mut wanted = detail("order", &["read"]);
        wanted["amount"] = amount.clone();
        assert_eq!(asked(&agent, &token, &task, wanted)["status"], expected, "{amount}");
    }
}

fn ttl_is_clamped(server: &Server) {
    let (_, agent, token, task) = setting(server);
    for (wanted, granted) in [
        (json!(5000), 900),
        (json!(u64::MAX), 900),
        (json!(1), 60),
        (json!(0), 60),
        (Value::Null, 600),
        (json!(120), 120),
    ] {
        let body = json!({
            "task_id": task, "authorization_details": detail("file_access", &["list"]), "requested_ttl": wanted,
        });
        let made = agent.org.post("/jit/request").bearer(&token).json(body).send().expect(201).json();
        assert_eq!(made["granted_ttl"], granted, "{wanted}");
    }
}

fn bad_requests_are_refused(server: &Server) {
    let (_, agent, token, task) = setting(server);
    let send = |body: Value| agent.org.post("/jit/request").bearer(&token).json(body).send();
    let good = json!({ "task_id": task, "authorization_details": detail("file_access", &["delete"]) });
    for (member, value) in [
        ("task_id", Value::Null),
        ("task_id", json!("")),
        ("authorization_details", Value::Null),
        ("authorization_details", json!([])),
        ("authorization_details", json!([detail("a", &[]), detail("b", &[])])),
        ("authorization_details", json!({ "actions": ["read"] })),
        ("authorization_details", json!({ "type": "" })),
        ("authorization_details", json!({ "type": "\u{200d}" })),
        ("authorization_details", json!({ "type": "a", "actions": ["\u{200d}"] })),
        ("authorization_details", json!({ "type": "a", "actions": "read" })),
        ("authorization_details", json!({ "type": "a", "note": "\u{202e}txt" })),
        ("authorization_details", json!({ "type": "a", "note": "x".repeat(9000) })),
        ("authorization_details", json!("read")),
        ("requested_ttl", json!(-1)),
        ("requested_ttl", json!("300")),
        ("justification", json!("a\u{0}b")),
        ("justification", json!("\u{202e}")),
        ("justification", json!("x".repeat(481))),
        ("callback_url", json!("http://cb.test")),
        ("callback_url", json!("https://user@cb.test")),
        ("callback_url", json!("https://cb.test/#x")),
        ("callback_url", json!("javascript:alert(1)")),
        ("callback_url", json!("https://10.0.0.1/cb")),
        ("callback_url", json!("https://169.254.169.254/cb")),
        ("callback_url", json!("https://[::1]/cb")),
        ("callback_url", json!("https://localhost./cb")),
        ("callback_url", json!("http://127.0.0.1:1/cb")),
    ] {
        let mut body = good.clone();
        body[member] = value.clone();
        assert_eq!(send(body).status, 400, "{member} {value}");
    }
    for body in ["[]", "{", r#"{"task_id":"a","task_id":"b"}"#] {
        let response = agent.org.post("/jit/request").bearer(&token).body("application/json", body).send();
        assert_eq!(response.status, 400, "{response}");
    }
    let open = |body: Value| agent.org.post("/jit/task").bearer(&token).json(body).send();
    for (member, value) in [("name", json!("a\nb")), ("name", json!("x".repeat(129))), ("type", json!(1))] {
        assert_eq!(open(json!({ member: value })).status, 400, "{member}");
    }
    let nobody = json!({ "on_behalf_of": "nobody@people.test" });
    assert_eq!(agent.org.post("/jit/task").bearer(&token).json(nobody).send().status, 400);
    assert_eq!(status_of_task(&agent, &token, &task)["risk_score"], 0);
}

fn status_of_task(agent: &Agent<'_>, token: &str, task: &str) -> Value {
    bare(&agent.org, token, &format!("/jit/task/{task}/evaluate")).ok()
}

fn closed_task_takes_no_request(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let made = asked(&agent, &token, &task, detail("file_access", &["delete"]));
    complete(&agent, &token, &task);
    request(&agent, &token, &task, detail("file_access", &["read"])).refused(400, "invalid_request");
    // What waited in it waits no more.
    assert_eq!(status(&agent, &token, text(&made["request_id"]))["status"], "expired");
    let (_, admin) = reviewer(&org);
    for what in ["approve", "deny"] {
        let path = format!("/jit/{what}/{}", text(&made["request_id"]));
        bare(&org, &admin, &path).refused(400, "invalid_request");
    }
}

fn evaluation_closes_with_its_result(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&[]);
    let token = agent.token();
    for result in ["completed", "failed", "cancelled"] {
        let task = opened(&agent, &token);
        let open = status_of_task(&agent, &token, &task);
        assert_eq!(
            (&open["status"], &open["active"], &open["action"]),
            (&json!("active"), &json!(true), &json!("none"))
        );
        let path = format!("/jit/task/{task}/evaluate");
        let body = json!({ "result": result, "notes": "for the record" });
        let closed = org.post(&path).bearer(&token).json(body).send().ok();
        assert_eq!(
            (&closed["status"], &closed["result"], &closed["active"]),
            (&json!(result), &json!(result), &json!(false))
        );
        assert!(list(&closed["events"]).len() == 2 && text(&closed["evaluated_at"]).ends_with('Z'));
        // Whatever is said later.
        assert_eq!(complete(&agent, &token, &task)["status"], result);
        let body = json!({ "result": "perfect" });
        assert_eq!(org.post(&path).bearer(&token).json(body).send().status, 400);
        let row = entry(&org, &format!("action=jit.task_closed&targetId={task}"));
        assert!(row.to_string().contains("for the record"), "{row}");
    }
    // A person who decides on what it asks may end it too, and no other.
    let task = opened(&agent, &token);
    let path = format!("/jit/task/{task}/evaluate");
    let body = json!({ "result": "cancelled" });
    let stranger = org.person().in_person("openid jit:approve");
    org.post(&path).bearer(&stranger).json(body.clone()).send().refused(403, "forbidden");
    let (_, admin) = reviewer(&org);
    assert_eq!(org.post(&path).bearer(&admin).json(body).send().ok()["status"], "cancelled");
}

/// The one entry of the log that this finds, as a whole.
pub(crate) fn entry(org: &Org<'_>, query: &str) -> Value {
    let rows = org.audit(query);
    let [row] = rows.as_slice() else { panic!("one entry: {rows:?}") };
    org.admin("GET", &format!("/audit-logs/{}", int(&row["id"]))).send().ok()
}

fn only_agents_with_real_tokens_open_tasks(server: &Server) {
    let (org, agent, _, task) = setting(server);
    let person = org.person();
    let body = json!({ "task_id": task, "authorization_details": detail("a", &["read"]) });
    for token in [person.in_person("openid"), person.allow(&agent, "openid").access] {
        org.post("/jit/task").bearer(&token).json(json!({})).send().refused(403, "forbidden");
        org.post("/jit/request").bearer(&token).json(body.clone()).send().refused(403, "forbidden");
    }
    assert_eq!(org.post("/jit/task").json(json!({})).send().status, 401);
    assert_eq!(org.post("/jit/task").api_key(org.key()).json(json!({})).send().status, 401);
    let made = agent.admin("POST", "/token").json(json!({})).send().ok();
    let test = text(&made["data"]["accessToken"]);
    org.post("/jit/task").bearer(test).json(json!({})).send().refused(403, "test_token_not_accepted");
    org.post("/jit/request").bearer(test).json(body).send().refused(403, "test_token_not_accepted");
}

fn subtask_ends_with_its_parent(server: &Server) {
    let (org, agent, token, parent) = setting(server);
    let open =
        |parent: &str| org.post("/jit/task").bearer(&token).json(json!({ "parent_task_id": parent })).send();
    let child = open(&parent).expect(201).json();
    assert_eq!(child["parent_task_id"], parent.as_str());
    let child = text(&child["task_id"]);
    let made = asked(&agent, &token, child, detail("file_access", &["read"]));
    let waiting = asked(&agent, &token, child, detail("file_access", &["delete"]));
    let id = text(&made["request_id"]);
    let issued = bare(&org, &token, &format!("/jit/request/{id}/token")).ok();
    assert_eq!(agent.org.introspect(&agent, text(&issued["access_token"]))["active"], true);
    let other = org.agent(&[]);
    let theirs = json!({ "parent_task_id": parent });
    org.post("/jit/task").bearer(&other.token()).json(theirs).send().refused(403, "forbidden");
    complete(&agent, &token, &parent);
    assert_eq!(agent.org.introspect(&agent, text(&issued["access_token"])), json!({ "active": false }));
    bare(&org, &token, &format!("/jit/request/{id}/token")).refused(403, "forbidden");
    request(&agent, &token, child, detail("file_access", &["read"])).refused(400, "invalid_request");
    let waiting = text(&waiting["request_id"]);
    assert_eq!(status(&agent, &token, waiting)["status"], "expired");
    let seen = status_of_task(&agent, &token, child);
    assert_eq!(
        (&seen["status"], &seen["active"], &seen["action"]),
        (&json!("closed"), &json!(false), &json!("closed"))
    );
    let (_, admin) = reviewer(&org);
    assert_eq!(listed(&org, &admin, waiting), None);
    open(&parent).refused(400, "invalid_request");
    open("task_000000000000000000000000").refused(404, "not_found");
}

fn waiting_requests_are_bounded(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&[]);
    let token = agent.token();
    let tasks: Vec<_> = (0..2).map(|_| opened(&agent, &token)).collect();
    let statuses = at_once(8, |caller| {
        let task = &tasks[caller % 2];
        let ask = |_| request(&agent, &token, task, detail("file_access", &["delete"])).status;
        (0..8).map(ask).collect::<Vec<_>>()
    });
    let all: Vec<_> = statuses.concat();
    assert_eq!(all.iter().filter(|status| **status == 201).count(), 40, "{all:?}");
    assert!(all.iter().all(|status| matches!(status, 201 | 429)), "{all:?}");
    let refused = request(&agent, &token, &tasks[0], detail("file_access", &["delete"]));
    refused.refused(429, "rate_limit_exceeded");
    assert!(refused.header("retry-after").is_some_and(|value| value.parse::<u64>().is_ok()), "{refused}");
}

fn many_requests_at_once_are_all_made(server: &Server) {
    let (_, agent, token, task) = setting(server);
    let statuses = at_once(16, |_| request(&agent, &token, &task, detail("file_access", &["read"])).status);
    assert_eq!(statuses, [201; 16]);
}

fn asking_is_charged_and_looking_is_free(server: &Server) {
    avoid_hour_edge();
    let org = server.acme();
    let agent = org.create_agent(json!({ "budgetPolicy": { "max_api_calls_per_hour": 3 } }));
    let token = agent.token();
    let used = || int(&agent.userinfo(&token).ok()["budget_policy"]["api_calls_this_hour"]);
    let task = opened(&agent, &token);
    let made = asked(&agent, &token, &task, detail("file_access", &["read"]));
    let id = text(&made["request_id"]);
    bare(&org, &token, &format!("/jit/request/{id}/token")).ok();
    assert_eq!(used(), 3);
    for _ in 0..3 {
        status(&agent, &token, id);
        status_of_task(&agent, &token, &task);
    }
    assert_eq!(used(), 3);
    bare(&org, &token, &format!("/jit/request/{id}/token")).refused(429, "budget_exceeded");
    request(&agent, &token, &task, detail("file_access", &["read"])).refused(429, "budget_exceeded");
    org.post("/jit/task").bearer(&token).json(json!({})).send().refused(429, "budget_exceeded");
    assert_eq!(complete(&agent, &token, &task)["status"], "completed");
}

fn other_organization_sees_no_task(server: &Server) {
    let (_, agent, token, task) = setting(server);
    let made = asked(&agent, &token, &task, detail("file_access", &["delete"]));
    let id = text(&made["request_id"]);
    let globex = server.globex();
    let spy = globex.agent(&[]);
    let theirs = spy.token();
    bare(&globex, &theirs, &format!("/jit/task/{task}/complete")).refused(404, "not_found");
    request(&spy, &theirs, &task, detail("file_access", &["read"])).refused(404, "not_found");
    globex.get(&format!("/jit/request/{id}/status")).bearer(&theirs).send().refused(404, "not_found");
    let (_, admin) = reviewer(&globex);
    bare(&globex, &admin, &format!("/jit/approve/{id}")).refused(404, "not_found");
    assert_eq!(status(&agent, &token, id)["status"], "pending");
}

fn every_step_is_on_record(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let (person, admin) = reviewer(&org);
    let made = asked(&agent, &token, &task, detail("file_access", &["delete"]));
    let id = text(&made["request_id"]);
    bare(&org, &admin, &format!("/jit/approve/{id}")).ok();
    let issued = bare(&org, &token, &format!("/jit/request/{id}/token")).ok();
    complete(&agent, &token, &task);
    let rows = org.audit(&format!("targetId={id}"));
    let mut actions: Vec<_> = rows.iter().map(|row| text(&row["action"]).to_owned()).collect();
    actions.sort();
    assert_eq!(actions, ["jit.approved", "jit.requested", "jit.token_issued"]);
    assert_eq!(org.audit(&format!("action=jit.approved&targetId={id}&actor={}", person.id)).len(), 1);
    let mut of_task: Vec<_> =
        org.audit(&format!("targetId={task}")).iter().map(|row| text(&row["action"]).to_owned()).collect();
    of_task.sort();
    assert_eq!(of_task, ["jit.task_closed", "jit.task_created"]);
    for row in &rows {
        let row = org.admin("GET", &format!("/audit-logs/{}", int(&row["id"]))).send().ok();
        assert!(!row.to_string().contains(text(&issued["access_token"])), "{row}");
    }
    assert!(!server.log().contains(text(&issued["access_token"])));
}
