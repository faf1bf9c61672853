//! People who answer at the same moment on two servers with one database (security JI-01 and JI-02): one answer, which
//! everybody sees, one event about it, and one word to whoever wants to hear.

use std::{env, thread::sleep, time::Duration};

use lumoauth_tests::{
    Backend, KeyPage, KeySite, Replicas, Server, Stopwatch, at_once, on_shared_backends, text,
};
use serde_json::{Value, json};

use crate::{
    approvals::{approver, opened as asked_to_allow},
    jit::{detail, opened, reviewer},
};

on_shared_backends!(one_answer_to_an_approval_of_64, one_answer_to_a_permission_of_64);

/// How many answer at once.
const DECIDERS: usize = 64;

/// How often; a thousand times find what is rare.
fn rounds() -> usize {
    env::var("LUMOAUTH_RACE_ROUNDS")
        .map_or(3, |rounds| rounds.parse().expect("LUMOAUTH_RACE_ROUNDS is a number"))
}

/// Half of them say yes and half of them no, each half on both servers.
fn said(n: usize) -> &'static str {
    if n % 4 < 2 { "approve" } else { "deny" }
}

/// All at once post to `path`, which takes what they say. Gives the state that the one who won made.
fn race(replicas: &Replicas, token: &str, lost: u16, path: impl Fn(&str) -> String + Sync) -> &'static str {
    let answers = at_once(DECIDERS, |n| {
        let server = if n % 2 == 0 { &replicas.a } else { &replicas.b };
        let answer = server.acme().post(&path(said(n))).bearer(token).json(json!({})).send();
        (said(n), answer.status)
    });
    let won: Vec<_> = answers.iter().filter(|(_, status)| *status == 200).collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|(_, status)| *status == 200 || *status == lost), "{answers:?}");
    if won[0].0 == "approve" { "approved" } else { "denied" }
}

/// What both servers say at `path`.
fn seen(replicas: &Replicas, token: &str, path: &str) -> [Value; 2] {
    let status = |server: &Server| server.acme().get(path).bearer(token).send().ok()["status"].clone();
    [status(&replicas.a), status(&replicas.b)]
}

/// The kinds of the events about `target`, as both servers tell them.
fn events(replicas: &Replicas, target: &str) -> [Vec<String>; 2] {
    [&replicas.a, &replicas.b].map(|server| {
        let rows = server.acme().audit(&format!("targetId={target}"));
        rows.iter().map(|row| text(&row["action"]).to_owned()).collect()
    })
}

fn one_answer_to_an_approval_of_64(backend: Backend) {
    let replicas = Replicas::start(backend);
    let org = replicas.a.acme();
    let alice = approver(&org);
    let mut yes = 0;
    for round in 0..rounds() {
        // An agent has few that wait, and is charged for each.
        let agent = org.delegate(&[]);
        let token = agent.token();
        let approval = asked_to_allow(&agent, &token, &alice);
        let state = race(&replicas, &alice.token, 409, |what| format!("/approvals/{approval}/{what}"));
        yes += usize::from(state == "approved");
        let path = format!("/agents/me/approvals/{approval}/status");
        assert_eq!(seen(&replicas, &token, &path), [state; 2], "round {round}");
        let asked = format!("actor={}&action=approval.requested", agent.agent_id);
        let asked = org.audit(&asked);
        let [asked] = asked.as_slice() else { panic!("one request: {asked:?}") };
        for kinds in events(&replicas, text(&asked["targetId"])) {
            assert_eq!(kinds.len(), 2, "{kinds:?}");
            assert!(kinds.contains(&format!("approval.{state}")), "{state}: {kinds:?}");
        }
    }
    eprintln!("{} approvals, {DECIDERS} answers to each: {yes} were approved", rounds());
    replicas.end();
}

fn one_answer_to_a_permission_of_64(backend: Backend) {
    let replicas = Replicas::with(backend, lumoauth_tests::ServeOptions::knowing_our_sites);
    let org = replicas.a.acme();
    let (_, admin) = reviewer(&org);
    let mut heard: Vec<(KeyPage<'_>, String, &str)> = Vec::new();
    for round in 0..rounds() {
        let agent = org.delegate(&[]);
        let token = agent.token();
        let task = opened(&agent, &token);
        let page = KeySite::trusted().page();
        page.show(json!({}));
        let body = json!({
            "task_id": task, "authorization_details": detail("file_access", &["delete"]), "callback_url": page.uri(),
        });
        let made = org.post("/jit/request").bearer(&token).json(body).send().expect(201).json();
        let id = text(&made["request_id"]).to_owned();
        let state = race(&replicas, &admin, 400, |what| format!("/jit/{what}/{id}"));
        assert_eq!(
            seen(&replicas, &token, &format!("/jit/request/{id}/status")),
            [state; 2],
            "round {round}"
        );
        for kinds in events(&replicas, &id) {
            assert_eq!(kinds.len(), 2, "{kinds:?}");
            assert!(kinds.contains(&format!("jit.{state}")), "{state}: {kinds:?}");
        }
        let issued = replicas.b.acme().post(&format!("/jit/request/{id}/token")).bearer(&token).send();
        assert_eq!(issued.status, if state == "approved" { 200 } else { 403 }, "{issued}");
        heard.push((page, id, state));
    }
    let watch = Stopwatch::start();
    while heard.iter().any(|(page, _, _)| page.posted().is_empty()) {
        assert!(watch.elapsed() < Duration::from_secs(60), "somebody is not told");
        sleep(Duration::from_millis(50));
    }
    // Time for both servers to tell it again.
    sleep(Duration::from_secs(3));
    for (page, id, state) in &heard {
        let posted = page.posted();
        let [post] = posted.as_slice() else { panic!("told once: {posted:?}") };
        let body: Value = serde_json::from_str(&post.body).expect("JSON");
        assert_eq!((&body["request_id"], &body["status"]), (&json!(id), &json!(state)));
    }
    eprintln!("{} permissions, {DECIDERS} answers to each, and each answer told once", heard.len());
    replicas.end();
}
