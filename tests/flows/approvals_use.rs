//! What an approval is good for: whoever is shown one can ask what was agreed to, and use it up (contract 2.8.1, security JI).

use lumoauth_tests::{Agent, Server, at_once, int, on_each_backend, text, unix_now};
use serde_json::{Value, json};

use crate::approvals::{Approver, approver, decide, opened, poll, setting, status};

on_each_backend!(
    approved_request_is_active_with_what_was_agreed_to,
    nothing_else_is_active,
    it_is_used_once,
    many_uses_at_once_are_one,
    it_is_about_one_action,
    what_was_not_shown_is_not_decided,
    webhook_is_a_channel,
    webhook_tells_of_reservations,
    channel_of_a_person_is_changed,
    administrator_agrees_for_whom_it_is_for,
    agreement_ends_with_whoever_agreed,
    log_names_what_was_agreed_to,
    so_many_wait_for_one_person,
    own_code_flow_token_of_the_agent_approves_nothing,
);

fn introspect(asker: &Agent<'_>, extra: &[(&str, &str)], approval: &str) -> lumoauth_tests::Response {
    let mut form = vec![
        ("token", approval),
        ("client_id", asker.client_id.as_str()),
        ("client_secret", asker.secret.as_str()),
    ];
    form.extend_from_slice(extra);
    asker.org.post("/oauth/introspect").form(&form).send()
}

fn approved<'a>(alice: &Approver<'_>, agent: &Agent<'a>, token: &str) -> String {
    let approval = opened(agent, token, alice);
    alice.says("approve", &approval).ok();
    approval
}

fn approved_request_is_active_with_what_was_agreed_to(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let resource = org.agent(&[]);
    let approval = approved(&alice, &agent, &token);
    let answer = introspect(&resource, &[], &approval);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let seen = answer.ok();
    for (member, value) in [
        ("active", json!(true)),
        ("token_type", json!("approval")),
        ("status", json!("approved")),
        ("task_id", json!("t-9")),
        ("agent_id", json!(agent.agent_id)),
        ("sub", json!(alice.person.id)),
        ("reason", json!("Pay invoice 88")),
        ("consumed", json!(false)),
    ] {
        assert_eq!(seen[member], value, "{member}: {seen}");
    }
    assert!((240..=300).contains(&(int(&seen["exp"]) - unix_now())), "{seen}");
    assert_eq!(seen["action_hash"], poll(&agent, &token, &approval).ok()["action_hash"]);
}

fn nothing_else_is_active(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let inactive = json!({ "active": false });
    let (open, denied) = (opened(&agent, &token, &alice), opened(&agent, &token, &alice));
    alice.says("deny", &denied).ok();
    for approval in [&open, &denied, &format!("apr_{}", "a".repeat(43)), "apr_"] {
        assert_eq!(introspect(&agent, &[], approval).ok(), inactive);
        assert_eq!(introspect(&agent, &[("consume", "true")], approval).ok(), inactive);
    }
    let good = approved(&alice, &agent, &token);
    let stranger = server.globex().agent(&[]);
    assert_eq!(introspect(&stranger, &[], &good).ok(), inactive);
    introspect(&agent, &[("consume", "perhaps")], &good).refused(400, "invalid_request");
    assert_eq!(org.post("/oauth/introspect").form(&[("token", &good)]).send().status, 401);
    // What an agent was allowed ends with the agent.
    let resource = org.agent(&[]);
    assert_eq!(introspect(&resource, &[], &good).ok()["active"], true);
    agent.admin("POST", "/deactivate").send().ok();
    assert_eq!(introspect(&resource, &[], &good).ok(), inactive);
    // For good, as with its tokens.
    agent.admin("POST", "/activate").send().ok();
    assert_eq!(introspect(&resource, &[], &good).ok(), inactive);
    assert_eq!(introspect(&resource, &[("consume", "true")], &good).ok(), inactive);
    alice.says("approve", &open).refused(409, "duplicate_resource");
}

fn agreement_ends_with_whoever_agreed(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let resource = org.agent(&[]);
    let approval = approved(&alice, &agent, &token);
    for verb in ["block", "unblock"] {
        org.admin("POST", &format!("/users/{}/{verb}", alice.person.id)).send().ok();
        assert_eq!(introspect(&resource, &[], &approval).ok(), json!({ "active": false }), "{verb}");
    }
}

fn administrator_agrees_for_whom_it_is_for(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let resource = org.agent(&[]);
    let approval = opened(&agent, &token, &alice);
    let admin = org.person_with(json!({ "isAdmin": true }));
    let number = org.admin("GET", &format!("/users/{}", admin.id)).send().ok()["data"]["userId"].clone();
    decide(&org, &admin.in_person("openid approvals.manage"), "approve", &approval, json!({})).ok();
    let seen = introspect(&resource, &[], &approval).ok();
    assert_eq!((&seen["active"], &seen["sub"]), (&json!(true), &json!(alice.person.id)), "{seen}");
    assert_eq!((&seen["on_behalf_of"], &seen["approved_by"]["user_id"]), (&seen["sub"], &number), "{seen}");
}

fn log_names_what_was_agreed_to(server: &Server) {
    let (org, alice, _, token) = setting(server);
    let body = json!({
        "task_id": "t", "reason": "Delete production", "impact": "critical", "on_behalf_of": alice.person.email,
    });
    let made = org.post("/agents/me/approvals").bearer(&token).json(body).send().expect(201).json();
    let approval = text(&made["approval_token"]);
    let pending = alice.pending("");
    let shown = json!({ "action_hash": pending["data"][0]["action_hash"] });
    alice.says_with("approve", approval, shown).ok();
    let rows = org.audit(&format!("action=approval.approved&actor={}", alice.person.id));
    let row = org.admin("GET", &format!("/audit-logs/{}", int(&rows[0]["id"]))).send().ok();
    let row = if row["data"].is_object() { row["data"].clone() } else { row };
    assert_eq!(row["context"]["action_hash"], made["action_hash"], "{row}");
}

fn so_many_wait_for_one_person(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let mut last = String::new();
    for _ in 0..100 {
        last = opened(&agent, &token, &alice);
    }
    let body = json!({ "task_id": "t", "reason": "r", "on_behalf_of": alice.person.email });
    let ask = || org.post("/agents/me/approvals").bearer(&token).json(body.clone()).send();
    let refused = ask();
    refused.refused(429, "rate_limit_exceeded");
    assert!(refused.header("retry-after").is_some(), "{refused}");
    assert_eq!(alice.pending("")["meta"]["total"], 100);
    // Others are asked, others ask, and what was answered makes room.
    let (bob, other) = (approver(&org), org.delegate(&[]));
    opened(&agent, &token, &bob);
    opened(&other, &other.token(), &alice);
    alice.says("deny", &last).ok();
    ask().expect(201);
}

/// What a page was sent, once it was.
fn posted(page: &lumoauth_tests::KeyPage<'_>) -> Value {
    for _ in 0..100 {
        if let Some(first) = page.posted().first() {
            return serde_json::from_str(&first.body).expect("JSON");
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("nobody was told");
}

fn webhook_tells_of_reservations(server: &Server) {
    let org = server.acme();
    let page = lumoauth_tests::KeySite::trusted().page();
    page.show(json!({}));
    let person = org.person_with(json!({ "approver": { "webhook": page.uri() } }));
    let agent = org.create_agent(json!({
        "capabilities": ["read:a", "delegate:on_behalf"], "redirectUris": [lumoauth_tests::CALLBACK],
        "budgetPolicy": { "require_approval_above_usd": 10 },
    }));
    let token = agent.acting_for(&person.allow(&agent, "read:a").access);
    for _ in 0..2 {
        // A repetition asks nobody again.
        let body = json!({ "id": "r", "cost_usd": 12, "action": "llm.call" });
        org.post("/agents/me/budget/reservations").bearer(&token).json(body).send().expect(202);
    }
    let told = posted(&page);
    assert_eq!((&told["type"], &told["user_id"]), (&json!("approval.requested"), &json!(person.id)));
    assert!(text(&told["summary"]).contains("llm.call for 12 USD"), "{told}");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(page.posted().len(), 1);
}

fn channel_of_a_person_is_changed(server: &Server) {
    let org = server.acme();
    let person = org.person();
    let path = format!("/users/{}", person.id);
    let change = |body: Value| org.admin("PATCH", &path).json(body).send();
    let agent = org.delegate(&[]);
    let token = agent.token();
    let body = json!({ "task_id": "t", "reason": "r", "on_behalf_of": person.email });
    let ask = || org.post("/agents/me/approvals").bearer(&token).json(body.clone()).send().status;
    assert_eq!(ask(), 428);
    let seen = change(json!({ "approver": { "enabled": true }, "name": "Al" })).ok();
    assert_eq!((&seen["data"]["name"], &seen["data"]["approver"]["enabled"]), (&json!("Al"), &json!(true)));
    assert_eq!(ask(), 201);
    let seen = change(json!({ "approver": { "webhook": "https://hook.test/secret" }, "name": null })).ok();
    assert_eq!(seen["data"]["approver"], json!({ "enabled": false, "hasWebhook": true }));
    assert_eq!(seen["data"]["name"], "Al");
    change(json!({ "approver": { "enabled": false } })).ok();
    change(json!({ "approver": { "enabled": false } })).ok();
    assert_eq!(ask(), 428);
    for bad in [json!({ "enabled": false, "webhook": "https://hook.test" }), json!({ "webhook": "x" })] {
        let refused = change(json!({ "approver": bad })).refused(400, "validation_error");
        assert!(!refused["details"]["approver"].is_null(), "{refused}");
    }
    let unknown = org.admin("PATCH", "/users/00000000-0000-4000-8000-000000000000").json(json!({})).send();
    unknown.refused(404, "not_found");
    // Who changed what to what, without what it takes to write there.
    let rows = org.audit(&format!("action=user.updated&targetId={}", person.id));
    assert_eq!(rows.len(), 3, "{rows:?}");
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let row = org.admin("GET", &format!("/audit-logs/{}", int(&row["id"]))).send().ok();
            if row["data"].is_object() { row["data"].clone() } else { row }
        })
        .collect();
    let webhooks: Vec<_> = rows.iter().map(|row| &row["context"]["after"]["approver"]["webhook"]).collect();
    assert!(webhooks.contains(&&json!("https://hook.test")), "{rows:?}");
    assert!(!json!(rows).to_string().contains("/secret"), "{rows:?}");
}

fn it_is_used_once(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let resource = org.agent(&[]);
    let approval = approved(&alice, &agent, &token);
    for _ in 0..2 {
        assert_eq!(introspect(&resource, &[("consume", "false")], &approval).ok()["active"], true);
    }
    assert_eq!(introspect(&resource, &[("consume", "true")], &approval).ok()["consumed"], true);
    for extra in [&[][..], &[("consume", "true")]] {
        assert_eq!(introspect(&resource, extra, &approval).ok(), json!({ "active": false }));
    }
    // Its agent still hears what was decided.
    assert_eq!(status(&agent, &token, &approval), "approved");
    let rows = org.audit(&format!("action=approval.consumed&actor={}", resource.agent_id));
    assert_eq!(rows.len(), 1, "{rows:?}");
}

fn many_uses_at_once_are_one(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let resource = org.agent(&[]);
    let approval = approved(&alice, &agent, &token);
    let used =
        at_once(16, |_| introspect(&resource, &[("consume", "true")], &approval).ok()["active"] == true);
    assert_eq!(used.iter().filter(|used| **used).count(), 1, "{used:?}");
}

fn it_is_about_one_action(server: &Server) {
    let (org, alice, _, token) = setting(server);
    let resource = org.agent(&[]);
    let ask = |reason: &str, meta: Value| {
        let body =
            json!({ "task_id": "t", "reason": reason, "on_behalf_of": alice.person.email, "meta": meta });
        org.post("/agents/me/approvals").bearer(&token).json(body).send().expect(201).json()
    };
    let hash = |opened: &Value| text(&opened["action_hash"]).to_owned();
    let one = ask("Pay", json!({ "amount": "10", "to": ["a", "b"] }));
    for other in [
        ask("Pay", json!({ "amount": "10.0", "to": ["a", "b"] })),
        ask("Pay", json!({ "amount": "10", "to": ["b", "a"] })),
        ask("pay", json!({ "amount": "10", "to": ["a", "b"] })),
        ask("Pay", json!({})),
    ] {
        assert_ne!(hash(&one), hash(&other));
    }
    let same = ask("Pay", json!({ "to": ["a", "b"], "amount": "10" }));
    assert_eq!(hash(&one), hash(&same), "the order of members is none of the action");
    let approval = text(&one["approval_token"]);
    alice.says("approve", approval).ok();
    let zeros = "0".repeat(64);
    for named in [zeros.as_str(), "x"] {
        let extra = [("action_hash", named), ("consume", "true")];
        assert_eq!(introspect(&resource, &extra, approval).ok(), json!({ "active": false }));
    }
    let good = hash(&one);
    let extra = [("action_hash", good.as_str()), ("consume", "true")];
    assert_eq!(introspect(&resource, &extra, approval).ok()["active"], true);
}

fn what_was_not_shown_is_not_decided(server: &Server) {
    let (_, alice, agent, token) = setting(server);
    let approval = opened(&agent, &token, &alice);
    let other = json!({ "action_hash": "0".repeat(64) });
    alice.says_with("approve", &approval, other).refused(403, "forbidden");
    assert_eq!(status(&agent, &token, &approval), "pending");
    let hash = poll(&agent, &token, &approval).ok()["action_hash"].clone();
    alice.says_with("approve", &approval, json!({ "action_hash": hash })).ok();
}

fn webhook_is_a_channel(server: &Server) {
    let org = server.acme();
    let page = lumoauth_tests::KeySite::trusted().page();
    page.show(json!({}));
    let person = org.person_with(json!({ "approver": { "webhook": page.uri() } }));
    let agent = org.delegate(&[]);
    let body = json!({ "task_id": "t", "reason": "Pay invoice 89", "on_behalf_of": person.email });
    let made = org.post("/agents/me/approvals").bearer(&agent.token()).json(body).send().expect(201).json();
    let told = posted(&page);
    let posted = page.posted();
    assert_eq!((&told["type"], &told["summary"]), (&json!("approval.requested"), &json!("Pay invoice 89")));
    assert!(text(&told["page"]).ends_with("/oauth/approvals"), "{told}");
    // What it tells decides nothing and asks nothing.
    assert!(!posted[0].body.contains(text(&made["approval_token"])));
    assert!(posted[0].headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("signature")));
    for bad in ["http://hook.test", "ftp://hook.test", "https://u@hook.test", "x"] {
        let body = json!({ "email": "somebody@people.test", "approver": { "webhook": bad } });
        let refused = org.admin("POST", "/users").json(body).send().refused(400, "validation_error");
        assert!(!refused["details"]["approver"].is_null(), "{bad}: {refused}");
    }
}

fn own_code_flow_token_of_the_agent_approves_nothing(server: &Server) {
    let (org, alice, agent, token) = setting(server);
    let approval = opened(&agent, &token, &alice);
    // Alice signed in at the agent, which holds a token of hers that it may hold.
    let hers = alice.person.allow(&agent, "openid").access;
    let acting = agent.acting_for(&hers);
    for held in [&hers, &acting, &token] {
        for what in ["approve", "deny"] {
            decide(&org, held, what, &approval, json!({})).refused(403, "forbidden");
        }
        org.get("/approvals/pending").bearer(held).send().refused(403, "forbidden");
    }
    let other = approver(&org);
    other.says("approve", &approval).refused(403, "forbidden");
    assert_eq!(status(&agent, &token, &approval), "pending");
}
