//! Deciding on what agents ask (contract 2.8.1, security JI): who may, and that it happens once.

use lumoauth_tests::{Server, at_once, int, list, on_each_backend, text};
use serde_json::{Value, json};

use crate::{
    approvals::{approver, approver_with, decide, listed, opened, poll, setting, status},
    policy::some_role,
};

on_each_backend!(
    approved_request_says_by_whom_and_when,
    denied_request_says_why,
    administrator_decides_for_others,
    role_decides_for_others,
    application_without_the_scope_decides_for_nobody_else,
    wrong_user_cannot_decide,
    second_decision_is_a_conflict,
    many_decisions_at_once_are_one,
    only_people_in_person_decide,
    bad_notes_decide_nothing,
    pending_list_is_of_the_person_and_paged,
    get_decides_nothing,
);

fn approved_request_says_by_whom_and_when(server: &Server) {
    let (_, alice, agent, token) = setting(server);
    let approval = opened(&agent, &token, &alice);
    let answer = alice.says("approve", &approval).ok();
    assert_eq!(answer["status"], "approved");
    let seen = poll(&agent, &token, &approval).ok();
    assert_eq!((&seen["status"], &seen["reason"]), (&json!("approved"), &json!("Pay invoice 88")));
    assert!(text(&seen["responded_at"]).ends_with('Z'), "{seen}");
    assert_eq!(seen["approved_by"], json!({ "user_id": alice.number }));
    assert!(int(&seen["approved_by"]["user_id"]) > 0);
    assert!(!seen.to_string().contains(&alice.person.email));
}

fn denied_request_says_why(server: &Server) {
    let (_, alice, agent, token) = setting(server);
    let approval = opened(&agent, &token, &alice);
    alice.says_with("deny", &approval, json!({ "note": "Not this one." })).ok();
    let seen = poll(&agent, &token, &approval).ok();
    assert_eq!((&seen["status"], &seen["approved_by"]), (&json!("denied"), &Value::Null));
    assert_eq!(
        (&seen["reason"], &seen["decision_note"]),
        (&json!("Pay invoice 88"), &json!("Not this one."))
    );
    assert!(text(&seen["responded_at"]).ends_with('Z'), "{seen}");
}

fn administrator_decides_for_others(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    // Without a channel of their own: nobody is asked but the list shows it.
    let admin = org.person_with(json!({ "isAdmin": true }));
    let number = org.admin("GET", &format!("/users/{}", admin.id)).send().ok()["data"]["userId"].clone();
    for scope in ["openid approvals.manage", "openid admin"] {
        let admin_token = admin.in_person(scope);
        let approval = opened(&agent, &token, &alice);
        assert!(listed(&org, &admin_token, &approval).is_some(), "{scope}");
        decide(&org, &admin_token, "approve", &approval, json!({})).ok();
        assert_eq!(poll(&agent, &token, &approval).ok()["approved_by"], json!({ "user_id": number }));
    }
}

/// What administrators have, others get by a role; the application needs its scope all the same.
fn role_decides_for_others(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let approval = opened(&agent, &token, &alice);
    let desk = org.person();
    let (scoped, plain) = (desk.in_person("openid approvals.manage"), desk.in_person("openid"));
    for held in [&scoped, &plain] {
        decide(&org, held, "approve", &approval, json!({})).refused(403, "forbidden");
    }
    let role = some_role(&org, &["approvals.manage"]);
    org.admin("POST", &format!("/users/{}/roles", desk.id)).json(json!({ "role": role })).send().ok();
    for held in [&scoped, &plain] {
        assert!(listed(&org, held, &approval).is_some());
    }
    // A permission by name is theirs, whatever application they use.
    decide(&org, &plain, "approve", &approval, json!({})).ok();
    assert_eq!(status(&agent, &token, &approval), "approved");
}

/// An administrator's newsletter knows who they are, and no more.
fn application_without_the_scope_decides_for_nobody_else(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let admin = approver_with(&org, json!({ "isAdmin": true }));
    let (of_alice, of_admin) = (opened(&agent, &token, &alice), opened(&agent, &token, &admin));
    let other = admin.person.in_person("openid read:a");
    for held in [&admin.token, &other] {
        for what in ["approve", "deny"] {
            let refused = decide(&org, held, what, &of_alice, json!({})).refused(403, "forbidden");
            let details = &refused["details"];
            assert_eq!(details["required_scopes"], json!(["approvals.manage", "admin"]));
            assert!(list(&details["granted_scopes"]).contains(&json!("openid")), "{refused}");
        }
        let listed = org.get("/approvals/pending").bearer(held).send().ok();
        let tokens: Vec<_> = list(&listed["data"]).iter().map(|item| &item["approval_token"]).collect();
        assert_eq!(tokens, [&json!(of_admin)]);
    }
    // Who is no administrator is none with the scope either.
    let pretender = org.person().in_person("openid approvals.manage");
    decide(&org, &pretender, "approve", &of_alice, json!({})).refused(403, "forbidden");
    assert_eq!(org.get("/approvals/pending").bearer(&pretender).send().ok()["meta"]["total"], 0);
    assert_eq!(status(&agent, &token, &of_alice), "pending");
    // What they are asked themselves they decide anywhere.
    decide(&org, &other, "approve", &of_admin, json!({})).ok();
}

fn wrong_user_cannot_decide(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let bob = approver(&org);
    let approval = opened(&agent, &token, &alice);
    for what in ["approve", "deny"] {
        bob.says(what, &approval).refused(403, "forbidden");
        assert_eq!(org.post(&format!("/approvals/{approval}/{what}")).send().status, 401);
        let with_key = org.post(&format!("/approvals/{approval}/{what}")).api_key(org.key()).send();
        assert_eq!(with_key.status, 401, "{with_key}");
    }
    assert_eq!(status(&agent, &token, &approval), "pending");
    alice.says("approve", &approval).ok();
}

fn second_decision_is_a_conflict(server: &Server) {
    let (_, alice, agent, token) = setting(server);
    for (first, state) in [("approve", "approved"), ("deny", "denied")] {
        let approval = opened(&agent, &token, &alice);
        alice.says(first, &approval).ok();
        let decided = poll(&agent, &token, &approval).ok();
        for again in ["approve", "deny"] {
            let response = alice.says(again, &approval);
            assert_eq!(response.status, 409, "{response}");
            response.refused_somehow();
        }
        assert_eq!(poll(&agent, &token, &approval).ok(), decided);
        assert_eq!(decided["status"], state);
    }
}

fn many_decisions_at_once_are_one(server: &Server) {
    const DECIDERS: usize = 16;
    let (org, alice, agent, token) = setting(server);
    let admin_token = org.person_with(json!({ "isAdmin": true })).in_person("openid approvals.manage");
    for _ in 0..5 {
        let approval = opened(&agent, &token, &alice);
        let answers = at_once(DECIDERS, |n| {
            let who = if n.is_multiple_of(3) { &admin_token } else { &alice.token };
            let what = if n.is_multiple_of(2) { "approve" } else { "deny" };
            (what, decide(&org, who, what, &approval, json!({})).status)
        });
        let won: Vec<_> = answers.iter().filter(|(_, status)| *status == 200).collect();
        assert_eq!(won.len(), 1, "{answers:?}");
        assert!(answers.iter().all(|(_, status)| matches!(status, 200 | 409)), "{answers:?}");
        let state = if won[0].0 == "approve" { "approved" } else { "denied" };
        assert_eq!(status(&agent, &token, &approval), state);
    }
}

fn only_people_in_person_decide(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let (admin, other) = (approver_with(&org, json!({ "isAdmin": true })), org.delegate(&[]));
    let approval = opened(&agent, &token, &alice);
    // What agents hold of people: by code, delegated, and handed on.
    let user = alice.person.allow(&agent, "openid").access;
    let delegated = agent.acting_for(&user);
    let nested = other.acting_for(&delegated);
    let of_admin = admin.person.allow(&other, "openid").access;
    for (who, held) in [
        ("itself", &token),
        ("another agent", &other.token()),
        ("a person through the agent", &user),
        ("the agent for the person", &delegated),
        ("another for the agent for the person", &nested),
        ("an administrator through an agent", &of_admin),
    ] {
        for what in ["approve", "deny"] {
            let response = decide(&org, held, what, &approval, json!({}));
            assert_eq!(response.status, 403, "{who}: {response}");
            response.refused_somehow();
        }
        org.get("/approvals/pending").bearer(held).send().refused(403, "forbidden");
    }
    assert_eq!(status(&agent, &token, &approval), "pending");
    // An agent is not even given the scope for it.
    let asked = alice.person.ask_for(&agent, "openid approvals.manage", &[]);
    assert_ne!(asked.status, 200, "{asked}");
}

fn bad_notes_decide_nothing(server: &Server) {
    let (_, alice, agent, token) = setting(server);
    let approval = opened(&agent, &token, &alice);
    for note in [json!("n".repeat(481)), json!("a\u{7}b"), json!(7)] {
        alice.says_with("approve", &approval, json!({ "note": note })).refused(400, "validation_error");
    }
    assert_eq!(status(&agent, &token, &approval), "pending");
    alice.says_with("approve", &approval, json!({ "note": "" })).ok();
    assert_eq!(poll(&agent, &token, &approval).ok()["decision_note"], Value::Null);
}

fn pending_list_is_of_the_person_and_paged(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let bob = approver(&org);
    let approvals: Vec<_> = (0..3).map(|_| opened(&agent, &token, &alice)).collect();
    opened(&agent, &token, &bob);
    let (first, second) = (alice.pending("?limit=2"), alice.pending("?limit=2&page=2"));
    assert_eq!((&first["meta"]["total"], &first["meta"]["hasNextPage"]), (&json!(3), &json!(true)));
    assert_eq!((&first["pagination"], &first["resourceType"]), (&first["meta"], &json!("approvals")));
    let listed: Vec<_> = [&first, &second]
        .iter()
        .flat_map(|page| list(&page["data"]))
        .map(|item| text(&item["approval_token"]).to_owned())
        .collect();
    let (mut listed, mut wanted) = (listed, approvals.clone());
    listed.sort();
    wanted.sort();
    assert_eq!(listed, wanted);
    alice.says("approve", &approvals[0]).ok();
    alice.says("deny", &approvals[1]).ok();
    let left = alice.pending("");
    assert_eq!(
        (&left["meta"]["total"], &left["data"][0]["approval_token"]),
        (&json!(1), &json!(approvals[2]))
    );
    assert_eq!(bob.pending("")["meta"]["total"], 1);
    assert_eq!(org.get("/approvals/pending").send().status, 401);
    assert_eq!(org.get("/approvals/pending").api_key(org.key()).send().status, 401);
    org.get("/approvals/pending?page=0").bearer(&alice.token).send().refused(400, "invalid_request");
}

fn get_decides_nothing(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let approval = opened(&agent, &token, &alice);
    for what in ["approve", "deny"] {
        let response = org.get(&format!("/approvals/{approval}/{what}")).bearer(&alice.token).send();
        assert_eq!(response.status, 405, "{response}");
        // A browser's session is no credential here, so no page of another site can decide.
        let post = org.post(&format!("/approvals/{approval}/{what}"));
        assert_eq!(post.header("Cookie", &alice.person.cookie).send().status, 401);
    }
    assert_eq!(status(&agent, &token, &approval), "pending");
}
