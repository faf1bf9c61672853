//! Whose authority and whose money a task goes on with (contract 2.8.2, security JI).

use lumoauth_tests::{Agent, DpopKey, Org, Response, Server, Token, on_each_backend, text};
use serde_json::{Value, json};

use crate::{
    jit::{asked, bare, detail, opened, request, status},
    reservations::delegated,
};

on_each_backend!(
    whoever_agreed_by_handing_on_a_token_must_hand_one_on,
    amount_is_compared_with_all_who_pay,
    task_of_a_chain_goes_on_with_the_chain,
    task_of_a_key_goes_on_with_the_key,
    test_token_ends_no_task,
);

fn whoever_agreed_by_handing_on_a_token_must_hand_one_on(server: &Server) {
    let org = server.acme();
    let agent = org.create_agent(json!({
        "capabilities": ["delegate:on_behalf"], "delegationPolicy": { "consent": "implicit" },
    }));
    let token = agent.token();
    let stranger = org.person();
    let open = |who: &str| org.post("/jit/task").bearer(&token).json(json!({ "on_behalf_of": who })).send();
    // The same answer as for nobody.
    let nobody = open("nobody@people.test").refused(400, "validation_error");
    for name in [&stranger.email, &stranger.id] {
        assert_eq!(open(name).refused(400, "validation_error")["details"], nobody["details"]);
    }
    // With a token of theirs, it is for them.
    let hers = agent.acting_for(&stranger.in_person("openid"));
    let made = org.post("/jit/task").bearer(&hers).json(json!({})).send().expect(201).json();
    assert_eq!(made["on_behalf_of"], stranger.id.as_str());
}

fn order(amount: u32) -> Value {
    let mut order = detail("order", &["read"]);
    order["amount"] = amount.into();
    order
}

/// Two agents, the first of which has this budget.
fn pair<'a>(org: &Org<'a>, budget: Value) -> (Agent<'a>, Agent<'a>) {
    let capabilities = ["read:a", "delegate:on_behalf"];
    let first = org.create_agent(json!({ "capabilities": capabilities, "budgetPolicy": budget }));
    (first, org.agent(&capabilities))
}

fn amount_is_compared_with_all_who_pay(server: &Server) {
    let org = server.acme();
    let threshold = r#"{"require_approval_above_usd":10}"#;
    let policy: Value = serde_json::from_str(threshold).expect("JSON");
    let (spender, child) = pair(&org, policy);
    let (open_handed, other) = pair(&org, json!({}));
    for (name, child, token) in [
        ("chain", &child, delegated(&spender.token(), &child, &child.token(), &[])),
        (
            "envelope",
            &other,
            delegated(&open_handed.token(), &other, &other.token(), &[("budget", threshold)]),
        ),
    ] {
        let task = opened(child, &token);
        assert_eq!(asked(child, &token, &task, order(10))["status"], "approved", "{name}");
        assert_eq!(asked(child, &token, &task, order(5000))["status"], "pending", "{name}");
    }
}

fn task_of_a_chain_goes_on_with_the_chain(server: &Server) {
    let org = server.acme();
    let (parent, child) = pair(&org, json!({ "require_approval_above_usd": 10 }));
    let (parents, own) = (parent.token(), child.token());
    let token = delegated(&parents, &child, &own, &[]);
    let task = opened(&child, &token);
    let granted = asked(&child, &token, &task, order(1));
    let id = text(&granted["request_id"]);
    let mint = |token: &str| bare(&org, token, &format!("/jit/request/{id}/token"));
    // The agent's own token is not asked what its principal pays for.
    request(&child, &own, &task, order(5000)).refused(403, "forbidden");
    mint(&own).refused(403, "forbidden");
    let (stranger, _) = pair(&org, json!({}));
    let of_another = delegated(&stranger.token(), &child, &own, &[]);
    request(&child, &of_another, &task, order(5000)).refused(403, "forbidden");
    mint(&of_another).refused(403, "forbidden");
    // Looking is free, and another token of the same chain is as good.
    assert_eq!(status(&child, &own, id)["status"], "approved");
    let again = delegated(&parents, &child, &own, &[]);
    assert_eq!(asked(&child, &again, &task, order(5000))["status"], "pending");
    let jit = Token::parse(text(&mint(&again).ok()["access_token"]));
    assert_eq!(jit.claims["act"], Token::parse(&token).claims["act"]);
    // So is a budget that the token carries.
    let budget = [("budget", r#"{"max_api_calls_per_hour":50}"#)];
    let limited = delegated(&parents, &child, &own, &budget);
    let task = opened(&child, &limited);
    request(&child, &again, &task, order(1)).refused(403, "forbidden");
    assert_eq!(asked(&child, &limited, &task, order(1))["status"], "approved");
}

fn task_of_a_key_goes_on_with_the_key(server: &Server) {
    let org = server.acme();
    let (key, agent) = (DpopKey::generate(), org.agent(&["read:a"]));
    let url = |path: &str| format!("{}{path}", org.issuer());
    let proof = key.proof("POST", &url("/oauth/token"), None);
    let answer = agent.token_request(&agent.secret, &[]).header("DPoP", &proof).send().ok();
    let bound = text(&answer["access_token"]);
    let post = |path: &str, body: Value| -> Response {
        org.post(path).dpop(bound, &key.proof("POST", &url(path), Some(bound))).json(body).send()
    };
    let task = text(&post("/jit/task", json!({})).expect(201).json()["task_id"]).to_owned();
    let body = json!({ "task_id": task, "authorization_details": detail("file_access", &["read"]) });
    let plain = agent.token();
    request(&agent, &plain, &task, detail("file_access", &["read"])).refused(403, "forbidden");
    let made = post("/jit/request", body).expect(201).json();
    let path = format!("/jit/request/{}/token", text(&made["request_id"]));
    bare(&org, &plain, &path).refused(403, "forbidden");
    let issued = post(&path, json!({})).ok();
    assert_eq!(issued["token_type"], "DPoP");
    let jit = Token::parse(text(&issued["access_token"]));
    assert_eq!(jit.claims["cnf"], json!({ "jkt": key.thumbprint() }));
}

fn test_token_ends_no_task(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&[]);
    let token = agent.token();
    let task = opened(&agent, &token);
    let made = agent.admin("POST", "/token").json(json!({})).send().ok();
    let test = text(&made["data"]["accessToken"]);
    let path = format!("/jit/task/{task}/complete");
    bare(&org, test, &path).refused(403, "test_token_not_accepted");
    assert_eq!(bare(&org, &token, &path).ok()["status"], "completed");
}
