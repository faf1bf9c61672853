//! People who decide on what agents ask for in tasks (contract 2.8.2, security JI).

use std::{thread::sleep, time::Duration};

use lumoauth_tests::{KeySite, Org, Server, at_once, int, list, on_each_backend, text};
use serde_json::{Value, json};

use crate::{
    jit::{asked, bare, detail, entry, listed, opened, request, reviewer, setting, status},
    policy::some_role,
};

on_each_backend!(
    approved_request_says_so_and_how_long,
    denied_request_gives_the_message_and_not_the_reason,
    pending_list_shows_what_is_asked,
    texts_may_be_left_out,
    agent_approves_nothing_whatever_token_it_holds,
    scope_alone_decides_for_nobody_else,
    role_decides_for_others,
    person_without_the_scope_decides_nothing,
    decided_request_is_not_decided_again,
    many_decisions_at_once_are_one,
    three_denials_suspend_the_task,
    another_hash_is_not_what_was_shown,
    number_is_granted_as_it_was_sent,
    stopped_agent_gets_no_yes,
    whom_it_is_for_decides_or_has_agreed,
    looking_decides_nothing,
    callback_hears_the_answer_once_and_signed,
    callback_that_fails_is_tried_again,
);

fn pending(server: &Server) -> (Org<'_>, lumoauth_tests::Agent<'_>, String, String) {
    let (org, agent, token, task) = setting(server);
    let made = asked(&agent, &token, &task, detail("file_access", &["delete"]));
    let id = text(&made["request_id"]).to_owned();
    (org, agent, token, id)
}

fn says(org: &Org<'_>, token: &str, what: &str, id: &str, body: Value) -> lumoauth_tests::Response {
    org.post(&format!("/jit/{what}/{id}")).bearer(token).json(body).send()
}

fn approved_request_says_so_and_how_long(server: &Server) {
    let (org, agent, token, id) = pending(server);
    let (_, admin) = reviewer(&org);
    let body = json!({ "ttl": 5000, "notes": "known good", "agent_message": "Go ahead." });
    let answer = says(&org, &admin, "approve", &id, body).ok();
    assert_eq!((&answer["status"], &answer["granted_ttl"]), (&json!("approved"), &json!(900)), "{answer}");
    let seen = status(&agent, &token, &id);
    assert_eq!(
        (&seen["status"], &seen["granted_ttl"], &seen["has_notes"]),
        (&json!("approved"), &json!(900), &json!(true))
    );
    assert_eq!(seen["agent_message"], "Go ahead.");
    assert!(!seen.to_string().contains("known good"), "{seen}");
    let row = entry(&org, &format!("action=jit.approved&targetId={id}"));
    assert!(row.to_string().contains("known good"), "{row}");
    assert!(text(&seen["token_url"]).ends_with("/token"));
    bare(&org, &token, &format!("/jit/request/{id}/token")).ok();
}

fn denied_request_gives_the_message_and_not_the_reason(server: &Server) {
    let (org, agent, token, id) = pending(server);
    let (_, admin) = reviewer(&org);
    let body = json!({ "reason": "looks like exfiltration", "agent_message": "Ask Bob." });
    let answer = says(&org, &admin, "deny", &id, body).ok();
    assert_eq!((&answer["request_id"], &answer["status"]), (&json!(id), &json!("denied")));
    let seen = status(&agent, &token, &id);
    assert_eq!(
        (&seen["status"], &seen["deny_reason"], &seen["agent_message"]),
        (&json!("denied"), &json!("Ask Bob."), &json!("Ask Bob."))
    );
    assert!(!seen.to_string().contains("exfiltration"), "{seen}");
    let row = entry(&org, &format!("action=jit.denied&targetId={id}"));
    assert!(row.to_string().contains("looks like exfiltration"), "{row}");
    bare(&org, &token, &format!("/jit/request/{id}/token")).refused(403, "forbidden");
    for (member, value) in [("reason", json!("a\u{0}")), ("agent_message", json!("x".repeat(481)))] {
        let (_, _, _, id) = pending(server);
        assert_eq!(says(&org, &admin, "deny", &id, json!({ member: value })).status, 400);
    }
}

fn pending_list_shows_what_is_asked(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let wanted =
        json!({ "type": "payment", "actions": ["initiate"], "amount": "12.50", "creditor": { "iban": "x" } });
    let body = json!({ "task_id": task, "authorization_details": wanted, "justification": "Why\nnot" });
    let made = org.post("/jit/request").bearer(&token).json(body).send().expect(201).json();
    let (_, admin) = reviewer(&org);
    let item = listed(&org, &admin, text(&made["request_id"])).expect("it is listed");
    assert_eq!((&item["status"], &item["risk_level"]), (&json!("pending"), &json!("critical")));
    assert_eq!((&item["agent_id"], &item["agent_name"]), (&json!(agent.agent_id), &json!(agent.name)));
    assert_eq!((&item["authorization_details"], &item["justification"]), (&wanted, &json!("Why\nnot")));
    for member in ["task_id", "requested_ttl", "created_at", "expires_at", "action_hash"] {
        assert!(!item[member].is_null(), "{member}: {item}");
    }
    // Whoever names what they saw decides that, or nothing.
    let id = text(&made["request_id"]);
    says(&org, &admin, "deny", id, json!({ "action_hash": "00" })).refused(403, "forbidden");
    says(&org, &admin, "approve", id, json!({ "action_hash": item["action_hash"] })).ok();
}

/// Whether somebody leaves a text out, writes nothing, or writes what shows nothing: it is not there.
fn texts_may_be_left_out(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let (_, admin) = reviewer(&org);
    for nothing in [Value::Null, json!(""), json!("  "), json!("\u{200d}\u{a0}")] {
        let body = json!({ "name": nothing, "type": nothing });
        let own = org.post("/jit/task").bearer(&token).json(body).send().expect(201).json();
        let delete = detail("file_access", &["delete"]);
        let body = json!({ "task_id": task, "authorization_details": delete, "justification": nothing });
        let made = org.post("/jit/request").bearer(&token).json(body).send().expect(201).json();
        let id = text(&made["request_id"]);
        assert_eq!(listed(&org, &admin, id).expect("it waits")["justification"], Value::Null, "{nothing}");
        says(&org, &admin, "approve", id, json!({ "notes": nothing, "agent_message": nothing })).ok();
        let status = status(&agent, &token, id);
        assert_eq!(status["has_notes"], false, "{status}");
        assert_eq!(status.get("agent_message").unwrap_or(&Value::Null), &Value::Null, "{status}");
        let path = format!("/jit/task/{}/evaluate", text(&own["task_id"]));
        org.post(&path).bearer(&token).json(json!({ "result": "completed", "notes": nothing })).send().ok();
    }
}

fn agent_approves_nothing_whatever_token_it_holds(server: &Server) {
    let (org, agent, token, id) = pending(server);
    // A person who may decide signs in at the agent, which redeems the code: its own token of the would-be approver.
    let owner = org.person_with(json!({ "isAdmin": true, "approver": { "enabled": true } }));
    let of_owner = owner.allow(&agent, "openid").access;
    let delegated = agent.acting_for(&of_owner);
    // It is never granted the scope, whatever it asks for.
    let wanted = owner.ask_for(&agent, "openid jit:approve", &[]);
    assert!(wanted.status >= 400 || !wanted.text().contains("jit:approve"), "{wanted}");
    for held in [&token, &of_owner, &delegated] {
        for what in ["approve", "deny"] {
            says(&org, held, what, &id, json!({})).refused(403, "forbidden");
        }
        org.get("/jit/pending").bearer(held).send().refused(403, "forbidden");
    }
    assert_eq!(org.post(&format!("/jit/approve/{id}")).api_key(org.key()).send().status, 401);
    assert_eq!(org.post(&format!("/jit/approve/{id}")).send().status, 401);
    assert_eq!(status(&agent, &token, &id)["status"], "pending");
}

fn scope_alone_decides_for_nobody_else(server: &Server) {
    let (org, agent, token, id) = pending(server);
    let stranger = org.person().in_person("openid jit:approve");
    says(&org, &stranger, "approve", &id, json!({})).refused(403, "forbidden");
    assert_eq!(org.get("/jit/pending").bearer(&stranger).send().ok()["count"], 0);
    // That requests for approval reach somebody says nothing about what they decide.
    let reached = org.person_with(json!({ "approver": { "enabled": true } })).in_person("openid jit:approve");
    says(&org, &reached, "approve", &id, json!({})).refused(403, "forbidden");
    assert_eq!(status(&agent, &token, &id)["status"], "pending");
}

fn role_decides_for_others(server: &Server) {
    let (org, agent, token, id) = pending(server);
    let desk = org.person();
    let (scoped, plain) = (desk.in_person("openid jit:approve"), desk.in_person("openid"));
    // The scope by itself is for what is asked of oneself.
    let listed = |held: &str| org.get("/jit/pending").bearer(held).send();
    assert_eq!(listed(&scoped).ok()["count"], 0);
    says(&org, &scoped, "approve", &id, json!({})).refused(403, "forbidden");
    let refused = says(&org, &plain, "approve", &id, json!({})).refused(403, "forbidden");
    assert_eq!(refused["details"]["required_scopes"], json!(["jit:approve"]));
    listed(&plain).refused(403, "forbidden");
    let role = some_role(&org, &["jit.approve"]);
    org.admin("POST", &format!("/users/{}/roles", desk.id)).json(json!({ "role": role })).send().ok();
    for held in [&scoped, &plain] {
        assert!(int(&listed(held).ok()["count"]) > 0);
    }
    // A permission by name is theirs, whatever application they use.
    says(&org, &plain, "approve", &id, json!({})).ok();
    assert_eq!(status(&agent, &token, &id)["status"], "approved");
    // It is for this and nothing else.
    let approvals = org.get("/approvals/pending").bearer(&plain).send().ok();
    assert_eq!(approvals["meta"]["total"], 0);
}

fn person_without_the_scope_decides_nothing(server: &Server) {
    let (org, agent, token, id) = pending(server);
    let admin = org.person_with(json!({ "isAdmin": true })).in_person("openid approvals.manage");
    for response in [
        says(&org, &admin, "approve", &id, json!({})),
        says(&org, &admin, "deny", &id, json!({})),
        org.get("/jit/pending").bearer(&admin).send(),
    ] {
        let body = response.refused(403, "forbidden");
        assert_eq!(body["details"]["required_scopes"], json!(["jit:approve"]), "{body}");
    }
    assert_eq!(status(&agent, &token, &id)["status"], "pending");
}

fn decided_request_is_not_decided_again(server: &Server) {
    let (org, agent, token, id) = pending(server);
    let (_, admin) = reviewer(&org);
    says(&org, &admin, "deny", &id, json!({})).ok();
    for what in ["approve", "deny"] {
        says(&org, &admin, what, &id, json!({})).refused(400, "invalid_request");
    }
    assert_eq!(status(&agent, &token, &id)["status"], "denied");
    assert_eq!(org.audit(&format!("targetId={id}&category=jit")).len(), 2);
}

fn many_decisions_at_once_are_one(server: &Server) {
    let (org, agent, token, id) = pending(server);
    let (_, admin) = reviewer(&org);
    let statuses = at_once(16, |n| {
        let what = if n % 2 == 0 { "approve" } else { "deny" };
        says(&org, &admin, what, &id, json!({})).status
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 400)), "{statuses:?}");
    assert_ne!(status(&agent, &token, &id)["status"], "pending");
    assert_eq!(org.audit(&format!("targetId={id}")).len(), 2);
}

fn three_denials_suspend_the_task(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let (_, admin) = reviewer(&org);
    let granted = asked(&agent, &token, &task, detail("file_access", &["read"]));
    let path = format!("/jit/request/{}/token", text(&granted["request_id"]));
    let issued = bare(&org, &token, &path).ok();
    let mut denied = Vec::new();
    for n in 0..3 {
        let made = asked(&agent, &token, &task, detail("file_access", &["delete"]));
        assert_eq!(made["status"], "pending", "{n}: {made}");
        says(&org, &admin, "deny", text(&made["request_id"]), json!({})).ok();
        denied.push(text(&made["request_id"]).to_owned());
    }
    request(&agent, &token, &task, detail("file_access", &["read"])).refused(400, "invalid_request");
    let seen = bare(&org, &token, &format!("/jit/task/{task}/evaluate")).ok();
    assert_eq!(
        (&seen["status"], &seen["action"], &seen["risk_score"]),
        (&json!("suspended"), &json!("suspended"), &json!(45))
    );
    assert_eq!(org.introspect(&agent, text(&issued["access_token"])), json!({ "active": false }));
    for (n, id) in denied.iter().enumerate() {
        let row = entry(&org, &format!("action=jit.denied&targetId={id}"));
        assert_eq!(row.to_string().contains("task_suspended"), n == 2, "{row}");
    }
    // Another task of the agent begins anew.
    let fresh = opened(&agent, &token);
    assert_eq!(asked(&agent, &token, &fresh, detail("file_access", &["read"]))["status"], "approved");
}

fn another_hash_is_not_what_was_shown(server: &Server) {
    let (org, agent, token, id) = pending(server);
    let (_, admin) = reviewer(&org);
    let body = json!({ "action_hash": "0".repeat(64) });
    says(&org, &admin, "approve", &id, body).refused(403, "forbidden");
    let hash = status(&agent, &token, &id)["action_hash"].clone();
    says(&org, &admin, "approve", &id, json!({ "action_hash": hash })).ok();
}

fn number_is_granted_as_it_was_sent(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let (_, admin) = reviewer(&org);
    let wanted = r#"{"type":"transfer","actions":["initiate"],"rate":122.558238113021936,"least":9.970685969649458e-10}"#;
    let body = format!(r#"{{"task_id":"{task}","authorization_details":{wanted}}}"#);
    let made = org.post("/jit/request").bearer(&token).body("application/json", body).send().expect(201);
    let id = text(&made.json()["request_id"]).to_owned();
    says(&org, &admin, "approve", &id, json!({})).ok();
    let issued = bare(&org, &token, &format!("/jit/request/{id}/token")).ok();
    let wanted: Value = serde_json::from_str(wanted).expect("JSON");
    assert_eq!(issued["authorization_details"], json!([wanted]));
    assert_eq!(status(&agent, &token, &id)["status"], "approved");
}

fn stopped_agent_gets_no_yes(server: &Server) {
    let (org, agent, _, id) = pending(server);
    let (_, admin) = reviewer(&org);
    agent.admin("POST", "/deactivate").send().ok();
    says(&org, &admin, "approve", &id, json!({})).refused(400, "invalid_request");
    agent.admin("POST", "/activate").send().ok();
    // What it stands on is gone for good: a yes gives no token.
    says(&org, &admin, "approve", &id, json!({})).ok();
    bare(&org, &agent.token(), &format!("/jit/request/{id}/token")).refused(403, "forbidden");
}

fn whom_it_is_for_decides_or_has_agreed(server: &Server) {
    let org = server.acme();
    let agent = org.delegate(&[]);
    let alice = org.person();
    let delegated = agent.acting_for(&alice.allow(&agent, "openid").access);
    let task = opened(&agent, &delegated);
    let made = asked(&agent, &delegated, &task, detail("file_access", &["delete"]));
    let id = text(&made["request_id"]).to_owned();
    // She sees and decides it herself, with the scope and no more.
    let hers = alice.in_person("openid jit:approve");
    let listed = org.get("/jit/pending").bearer(&hers).send().ok();
    assert_eq!((&listed["count"], &listed["data"][0]["request_id"]), (&json!(1), &json!(id)));
    assert_eq!(listed["data"][0]["on_behalf_of"], alice.id.as_str());
    says(&org, &hers, "approve", &id, json!({})).ok();
    // An administrator decides for her as long as she allows the agent.
    let made = asked(&agent, &delegated, &task, detail("file_access", &["delete"]));
    let id = text(&made["request_id"]).to_owned();
    let (_, admin) = reviewer(&org);
    let withdraw = format!("/me/consents/{}", agent.client_id);
    let own = alice.in_person("openid consents");
    org.request("DELETE", &withdraw).bearer(&own).send().ok();
    says(&org, &admin, "approve", &id, json!({})).refused(403, "forbidden");
    let stands_on_nothing = asked_status(&org, &agent.token(), &id);
    assert_eq!(stands_on_nothing["delegation_consent_required"], true, "{stands_on_nothing}");
}

fn asked_status(org: &Org<'_>, token: &str, id: &str) -> Value {
    org.get(&format!("/jit/request/{id}/status")).bearer(token).send().ok()
}

fn looking_decides_nothing(server: &Server) {
    let (org, agent, token, id) = pending(server);
    let (_, admin) = reviewer(&org);
    for what in ["approve", "deny"] {
        assert_eq!(org.get(&format!("/jit/{what}/{id}")).bearer(&admin).send().status, 405);
    }
    assert_eq!(status(&agent, &token, &id)["status"], "pending");
}

fn callback_hears_the_answer_once_and_signed(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let page = KeySite::trusted().page();
    page.show(json!({}));
    let body = json!({
        "task_id": task, "authorization_details": detail("file_access", &["delete"]), "callback_url": page.uri(),
    });
    let made = org.post("/jit/request").bearer(&token).json(body).send().expect(201).json();
    let id = text(&made["request_id"]);
    let (_, admin) = reviewer(&org);
    says(&org, &admin, "deny", id, json!({ "reason": "for people only", "agent_message": "No." })).ok();
    for _ in 0..100 {
        if !page.posted().is_empty() {
            break;
        }
        sleep(Duration::from_millis(100));
    }
    sleep(Duration::from_millis(1500));
    let posted = page.posted();
    let [post] = posted.as_slice() else { panic!("one post: {posted:?}") };
    let body: Value = serde_json::from_str(&post.body).expect("JSON");
    assert_eq!(
        (&body["request_id"], &body["status"], &body["deny_reason"]),
        (&json!(id), &json!("denied"), &json!("No."))
    );
    assert!(!post.body.contains("for people only"));
    let header = |name: &str| {
        let found = post.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    };
    let keys = server.request("GET", &format!("/orgs/{}/api/v1/aauth/jwks.json", org.slug())).send().ok();
    let kids: Vec<_> = list(&keys["keys"]).iter().map(|key| text(&key["kid"])).collect();
    let input = header("signature-input");
    assert!(kids.iter().any(|kid| input.contains(&format!("keyid=\"{kid}\""))), "{input} {kids:?}");
    assert!(
        input.contains("\"content-digest\"") && input.contains("created=") && !header("signature").is_empty()
    );
    assert_eq!(agent.org.audit(&format!("action=jit.denied&targetId={id}")).len(), 1);
}

fn callback_that_fails_is_tried_again(server: &Server) {
    let (org, _, token, task) = setting(server);
    let page = KeySite::trusted().page();
    page.fail(500, None);
    let body = json!({
        "task_id": task, "authorization_details": detail("file_access", &["delete"]), "callback_url": page.uri(),
    });
    let made = org.post("/jit/request").bearer(&token).json(body).send().expect(201).json();
    let (_, admin) = reviewer(&org);
    says(&org, &admin, "approve", text(&made["request_id"]), json!({})).ok();
    for n in 0..300 {
        match page.posted().len() {
            0 => {}
            1 => page.show(json!({})),
            _ => break,
        }
        assert!(n < 299, "it was tried once only");
        sleep(Duration::from_millis(100));
    }
    sleep(Duration::from_millis(1500));
    assert_eq!(page.posted().len(), 2);
}
