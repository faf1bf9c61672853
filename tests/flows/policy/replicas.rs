//! Policy on two servers with one database: at once where it was written, within the bound elsewhere.

use std::{thread, time::Duration};

use lumoauth_tests::{Backend, Replicas, Stopwatch, on_shared_backends, text, unique};
use serde_json::json;

use super::{admin, relate, some_action, some_policy, some_role};

on_shared_backends!(changes_of_policy_reach_the_other_replica, a_consistency_token_reaches_it_at_once);

/// The bound is a second; a busy machine adds to it.
const PATIENCE: Duration = Duration::from_secs(3);

#[track_caller]
fn soon(what: &str, mut is: impl FnMut() -> bool) {
    let watch = Stopwatch::start();
    while !is() {
        assert!(watch.elapsed() < PATIENCE, "{what} is not there after {:?}", watch.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    eprintln!("{what}: after {:?}", watch.elapsed());
}

fn changes_of_policy_reach_the_other_replica(backend: Backend) {
    let replicas = Replicas::start(backend);
    let org = replicas.a.acme();
    let (action, kind) = some_action();
    let here = org.agent(&[]);
    let there = here.at(&replicas.b);
    let token = here.token();
    let asked = |agent: &lumoauth_tests::Agent<'_>| agent.ask(&token, &action).ok()["allowed"] == true;
    assert!(!asked(&here) && !asked(&there));

    let role = some_role(&org, &[&action]);
    here.admin("POST", "/roles").json(json!({ "role": role })).send().ok();
    assert!(asked(&here), "at once where it was written");
    soon("a role", || asked(&there));
    let deny = some_policy(&org, json!({ "resourceType": kind, "action": "read", "effect": "deny" }));
    assert!(!asked(&here));
    soon("a denial", || !asked(&there));
    admin(&org, "DELETE", &format!("/abac/policies/{}", deny["id"])).send().ok();
    assert!(asked(&here));
    soon("the end of a denial", || asked(&there));
    here.admin("DELETE", &format!("/roles/{role}")).send().ok();
    assert!(!asked(&here));
    soon("the end of a role", || !asked(&there));
    // Written on the one and on the other in turn, nothing is lost.
    let elsewhere = replicas.b.acme();
    let object = format!("document:{}", unique("d"));
    for n in 0..10 {
        relate(if n % 2 == 0 { &org } else { &elsewhere }, &format!("{object}#viewer@user:{n}"));
    }
    for server in [&replicas.a, &replicas.b] {
        let path = format!("/zanzibar/tuples?object={object}");
        soon("every tuple", || admin(&server.acme(), "GET", &path).send().ok()["meta"]["total"] == 10);
    }
    replicas.end();
}

fn a_consistency_token_reaches_it_at_once(backend: Backend) {
    let replicas = Replicas::start(backend);
    let (here, there) = (replicas.a.acme(), replicas.b.acme());
    for n in 0..10 {
        let body = json!({ "tuple": format!("document:{n}#viewer@user:a") });
        let written = admin(&here, "POST", "/zanzibar/tuples").json(body).send().expect(201).json();
        let token = text(&written["consistency_token"]).to_owned();
        let body = json!({
            "object": format!("document:{n}"), "relation": "viewer", "subject": "user:a", "consistency_token": token,
        });
        assert_eq!(admin(&there, "POST", "/zanzibar/check").json(body).send().ok()["allowed"], true);
    }
    replicas.end();
}
