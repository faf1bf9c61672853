//! Who is in the audit log for what: those who did it, and nobody who did not.

use lumoauth_tests::{Org, Server, on_each_backend, text};
use serde_json::{Value, json};

use super::refused;

on_each_backend!(
    answer_that_is_remembered_is_not_one_that_was_given,
    answer_that_came_too_late_is_no_answer,
    resource_that_proved_itself_is_the_actor,
    resource_that_only_claims_is_not_the_actor,
);

fn rows(org: &Org<'_>, action: &str, about: &str) -> Vec<Value> {
    let rows = org.audit(&format!("action={action}"));
    rows.into_iter().filter(|row| row.to_string().contains(about)).collect()
}

fn answer_that_is_remembered_is_not_one_that_was_given(server: &Server) {
    let org = server.acme();
    let (agent, resource, alice) =
        (org.aauth_agent(json!({})), org.aauth_resource_of("authorized"), org.person());
    alice.give(&agent, &resource, "read");
    let rows = || rows(&org, "aauth.authorization_decided", &resource.id);
    let given = rows();
    assert_eq!(given.len(), 1);
    assert!(given[0]["context"]["remembered"].is_null(), "{given:?}");
    // The next one is answered by what she said, and that is where she came by.
    let token = agent.question(&resource, "read");
    let entered = org.get(&format!("/aauth/agent/auth?request_token={token}")).send();
    let location = entered.header("location").expect("a location");
    let path = location.strip_prefix(&server.url()).unwrap_or(location);
    let sent_on = server.request("GET", path).header("Cookie", &alice.cookie).header("User-Agent", "Her/1.0");
    let sent_on = sent_on.send();
    assert!(sent_on.header("location").is_some_and(|to| to.contains("code=")), "{sent_on}");
    let all = rows();
    let remembered: Vec<_> = all.iter().filter(|row| row["context"]["remembered"] == true).collect();
    assert_eq!((all.len(), remembered.len()), (2, 1), "{all:?}");
    let row = remembered[0];
    assert_eq!((&row["actorId"], &row["ipAddress"]), (&json!(alice.id), &json!("127.0.0.1")), "{row}");
    assert_eq!(row["userAgent"], "Her/1.0", "{row}");
}

fn answer_that_came_too_late_is_no_answer(server: &Server) {
    let org = server.acme();
    let (agent, resource, alice) =
        (org.aauth_agent(json!({})), org.aauth_resource_of("authorized"), org.person());
    let token = agent.question(&resource, "read");
    let entered = org.get(&format!("/aauth/agent/auth?request_token={token}")).send();
    let location = entered.header("location").expect("a location");
    let path = location.strip_prefix(&server.url()).unwrap_or(location);
    let page = server.request("GET", path).header("Cookie", &alice.cookie);
    let challenge = page.header("Accept", "application/json").send().ok();
    // A program answers first.
    alice.decide_aauth(&token, "deny").ok();
    alice.decide(&challenge, "approve", &[]).refused(409, "conflict");
    let answered = rows(&org, "authorization.decided", &agent.id);
    assert!(answered.is_empty(), "it had no effect: {answered:?}");
    assert_eq!(rows(&org, "aauth.authorization_decided", &resource.id).len(), 1);
}

fn resource_that_proved_itself_is_the_actor(server: &Server) {
    let org = server.acme();
    let (agent, resource, other) =
        (org.aauth_agent(json!({})), org.aauth_resource(json!({})), org.aauth_resource(json!({})));
    let given = agent.tokens(&other);
    let ask = json!({ "auth_token": given["auth_token"] });
    refused(&resource.post("/aauth/auth/token/verify", &ask), 403, "access_denied");
    let refusals = rows(&org, "aauth.refused", &resource.id);
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert_eq!(
        (&refusals[0]["actorType"], &refusals[0]["actorId"]),
        (&json!("resource"), &json!(resource.id))
    );
    // So it is for the tokens that are made for it.
    let body = json!({ "agent": agent.identifier, "agent_jkt": agent.key.thumbprint(), "scope": "read" });
    let made = resource.post("/aauth/resource/token", &body).ok();
    let made_for = rows(&org, "aauth.token_issued", &resource.id);
    assert_eq!(made_for.len(), 1, "{made_for:?}");
    let row = &made_for[0];
    assert_eq!((&row["actorType"], &row["actorId"]), (&json!("resource"), &json!(resource.id)));
    assert!(row.to_string().contains(&agent.key.thumbprint()), "{row}");
    assert!(!row.to_string().contains(text(&made["resource_token"])));
}

fn resource_that_only_claims_is_not_the_actor(server: &Server) {
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let call = resource.call("/aauth/auth/token/verify", &json!({ "auth_token": "x" }));
    call.signed(&agent.key).send().refused(401, "authentication_required");
    let refusals = rows(&org, "aauth.refused", &resource.identifier);
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert_eq!(refusals[0]["actorType"], "unknown", "{refusals:?}");
}
