//! What waits for a person ends in time, on every store: the clock of the machine, or of the database, is moved past the
//! end of an approval, a permission and a task (contract 2.8, security JI-04).

use std::{thread, time::Duration};

use lumoauth_tests::{
    Agent, Backend, Options, Org, Server, Token, int,
    services::{Database, Postgres},
    text,
};
use serde_json::{Value, json};

use crate::{clock::Clock, deployment::Deployment};

#[test]
fn nothing_is_decided_or_used_after_its_end_in_memory() {
    let clock = Clock::new();
    let server = Server::start(&clock.on(Options::new(Backend::Memory)));
    everything_ends(&server, &clock);
}

#[test]
fn nothing_is_decided_or_used_after_its_end_in_a_file() {
    let clock = Clock::new();
    let server = Server::start(&clock.on(Options::new(Backend::Embedded)));
    everything_ends(&server, &clock);
}

/// The clock that counts is that of the database; that of the server's machine stays where it is.
#[test]
fn nothing_is_decided_or_used_after_its_end_in_a_database() {
    let clock = Clock::new();
    let postgres = Postgres::start_under(&clock.variables());
    let database = Database::create_in(&postgres);
    let deployment = Deployment::of(1);
    let server = Server::start(&deployment.options(0, database.url()));
    everything_ends(&server, &clock);
}

/// The second that RFC 3339 text names.
fn second(text: &str) -> i64 {
    let part = |from: usize, to: usize| text[from..to].parse::<i64>().expect("a number");
    let (year, month) = (part(0, 4), part(5, 7));
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days =
        year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + part(8, 10) - 719_469;
    days * 86_400 + part(11, 13) * 3600 + part(14, 16) * 60 + part(17, 19)
}

fn ask_approval(agent: &Agent<'_>, token: &str, whom: &str) -> Value {
    let body = json!({ "task_id": "t", "reason": "Pay", "impact": "high", "on_behalf_of": whom });
    agent.org.post("/agents/me/approvals").bearer(token).json(body).send().expect(201).json()
}

fn ask_permission(agent: &Agent<'_>, token: &str, task: &str, action: &str) -> Value {
    let detail = json!({ "type": "file_access", "actions": [action], "identifier": "a" });
    let body = json!({ "task_id": task, "authorization_details": detail, "requested_ttl": 120 });
    agent.org.post("/jit/request").bearer(token).json(body).send().expect(201).json()
}

fn get(org: &Org<'_>, token: &str, path: &str) -> Value {
    org.get(path).bearer(token).send().ok()
}

/// How often `kind` is in the log about `target`.
fn told(org: &Org<'_>, kind: &str, target: &str) -> usize {
    org.audit(&format!("action={kind}&targetId={target}")).len()
}

fn everything_ends(server: &Server, clock: &Clock) {
    let org = server.acme();
    let person = org.person_with(json!({ "isAdmin": true, "approver": { "enabled": true } }));
    let agent = org.delegate(&["read:a"]);
    let (token, decider) = (agent.token(), || person.in_person("openid jit:approve"));
    let alice = decider();
    let task = org.post("/jit/task").bearer(&token).json(json!({})).send().expect(201).json();
    let task_id = text(&task["task_id"]);

    // A permission, and a token of it.
    let granted = ask_permission(&agent, &token, task_id, "read");
    let redeem =
        |id: &Value, by: &str| org.post(&format!("/jit/request/{}/token", text(id))).bearer(by).send();
    let jit = redeem(&granted["request_id"], &token).ok();
    let jit = text(&jit["access_token"]);
    let ends = int(&Token::parse(jit).claims["exp"]);
    clock.pass(server, ends, -20);
    assert_eq!(org.introspect(&agent, jit)["active"], true);
    redeem(&granted["request_id"], &token).ok();
    clock.pass(server, ends, 1);
    assert_eq!(org.introspect(&agent, jit), json!({ "active": false }));
    redeem(&granted["request_id"], &token).refused(403, "forbidden");

    // What waits for a person.
    let approval = ask_approval(&agent, &token, &person.email);
    let waiting = ask_permission(&agent, &token, task_id, "delete");
    let (approval_token, request) = (text(&approval["approval_token"]), text(&waiting["request_id"]));
    let status = || {
        let of_approval = get(&org, &token, &format!("/agents/me/approvals/{approval_token}/status"));
        let of_request = get(&org, &token, &format!("/jit/request/{request}/status"));
        (text(&of_approval["status"]).to_owned(), text(&of_request["status"]).to_owned())
    };
    let ends = second(text(&approval["expires_at"])).max(second(text(&waiting["expires_at"])));
    clock.pass(server, ends, -20);
    assert_eq!(status(), ("pending".into(), "pending".into()));
    let listed = get(&org, &alice, "/approvals/pending?limit=100")["data"].to_string();
    assert!(listed.contains(approval_token), "{listed}");
    clock.pass(server, ends, 1);
    assert_eq!(status(), ("expired".into(), "expired".into()));
    for what in ["approve", "deny"] {
        let decide = |path: String| org.post(&path).bearer(&alice).json(json!({})).send();
        decide(format!("/approvals/{approval_token}/{what}")).refused(409, "duplicate_resource");
        decide(format!("/jit/{what}/{request}")).refused(400, "invalid_request");
    }
    assert_eq!(status(), ("expired".into(), "expired".into()));
    redeem(&waiting["request_id"], &token).refused(403, "forbidden");
    assert_eq!(org.introspect(&agent, approval_token), json!({ "active": false }));
    for path in ["/approvals/pending?limit=100", "/jit/pending?limit=100"] {
        let listed = get(&org, &alice, path).to_string();
        assert!(!listed.contains(approval_token) && !listed.contains(request), "{listed}");
    }

    // The log says so once, however often somebody looks.
    let expired = || org.audit("action=approval.expired");
    let mut target = String::new();
    for _ in 0..900 {
        if let [row] = expired().as_slice() {
            text(&row["targetId"]).clone_into(&mut target);
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    assert!(!target.is_empty(), "the end is not in the log: {:?}", expired());
    assert_eq!(told(&org, "approval.requested", &target), 1);
    assert_eq!((told(&org, "approval.approved", &target), told(&org, "approval.denied", &target)), (0, 0));
    assert_eq!((told(&org, "jit.approved", request), told(&org, "jit.denied", request)), (0, 0));

    // The task.
    let ends = second(text(&task["expires_at"]));
    clock.pass(server, ends, -20);
    let token = agent.token();
    let last = ask_permission(&agent, &token, task_id, "read");
    let jit = redeem(&last["request_id"], &token).ok();
    assert_eq!(org.introspect(&agent, text(&jit["access_token"]))["active"], true);
    clock.pass(server, ends, 1);
    assert_eq!(org.introspect(&agent, text(&jit["access_token"])), json!({ "active": false }));
    redeem(&last["request_id"], &token).refused(403, "forbidden");
    let detail = json!({ "type": "file_access", "actions": ["read"] });
    let body = json!({ "task_id": task_id, "authorization_details": detail });
    org.post("/jit/request").bearer(&token).json(body).send().refused(400, "invalid_request");
    // Who looked since, and what ended since, made no other one of it.
    assert_eq!(expired().len(), 1, "{:?}", expired());
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn seconds_are_read_from_text() {
    for seconds in [0, 951_782_399, 951_782_400, 1_790_000_000] {
        assert_eq!(second(&lumoauth_tests::rfc3339(seconds)), seconds);
    }
}
