//! What ends the tokens that stand on it.

use std::{fs, time::Duration};

use lumoauth_tests::{
    AAuthAgent, AAuthResource, Backend, Org, ServeOptions, Server, Stopwatch, on_each_backend, run_server,
    text, unique,
};
use serde_json::{Value, json};

use super::{refused, unauthenticated};

on_each_backend!(
    agent_that_is_suspended_or_deleted_has_no_tokens,
    agent_that_leaves_aauth_has_no_tokens_and_stays,
    agent_under_a_new_name_has_nothing_of_the_old_one,
    resource_that_is_switched_off_or_removed_has_no_tokens,
    consent_that_is_withdrawn_ends_what_stands_on_it,
    person_who_is_gone_ends_what_they_gave,
    budget_that_is_used_up_is_heeded,
    reregistered_party_inherits_nothing,
);

fn granted<'a>(org: &Org<'a>) -> (AAuthAgent<'a>, AAuthResource<'a>, Value) {
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let body = agent.tokens(&resource);
    (agent, resource, body)
}

#[track_caller]
fn dead(resource: &AAuthResource<'_>, body: &Value) {
    let seen = resource.verify(&body["auth_token"]);
    assert_eq!((&seen["active"], &seen["pop_required"]), (&json!(false), &json!(true)));
    assert!(seen["error"].is_string() && seen["agent"].is_null() && seen["scope"].is_null(), "{seen}");
}

fn agent_that_is_suspended_or_deleted_has_no_tokens(server: &Server) {
    let org = server.acme();
    for action in ["deactivate", "revoke"] {
        let (agent, resource, body) = granted(&org);
        agent.admin("POST", &format!("/{action}")).send().ok();
        dead(&resource, &body);
        unauthenticated(&agent.ask_for(&resource), "invalid_agent_token");
        agent.admin("POST", "/activate").send();
        dead(&resource, &body);
    }
    let (agent, resource, body) = granted(&org);
    agent.admin("DELETE", "").send().ok();
    dead(&resource, &body);
}

fn agent_that_leaves_aauth_has_no_tokens_and_stays(server: &Server) {
    let org = server.acme();
    let core = org.agent(&["read:a"]);
    let (agent, resource) = (core.in_aauth(), org.aauth_resource(json!({})));
    let (body, ordinary) = (agent.tokens(&resource), core.token());
    org.admin("DELETE", &format!("/aauth/agents/{}", agent.id)).send().ok();
    dead(&resource, &body);
    unauthenticated(&agent.ask_for(&resource), "invalid_agent_token");
    core.userinfo(&ordinary).refused_somehow();
    core.userinfo(&core.token()).ok();
    // It comes back as another one.
    let again = org.aauth_agent(json!({
        "agent_id": core.agent_id, "name": null, "agent_identifier": agent.identifier,
    }));
    dead(&resource, &body);
    refused(&again.refresh(&body["refresh_token"], &resource), 400, "invalid_grant");
    again.tokens(&resource);
}

fn agent_under_a_new_name_has_nothing_of_the_old_one(server: &Server) {
    let org = server.acme();
    let (agent, resource, body) = granted(&org);
    let name = format!("https://{}.agents.test", unique("renamed"));
    let path = format!("/aauth/agents/{}", agent.id);
    let answer = org.admin("PATCH", &path).json(json!({ "agent_identifier": name })).send();
    if answer.status == 200 {
        // Its name is in its tokens, and may be another's tomorrow.
        dead(&resource, &body);
    } else {
        answer.refused_somehow();
        assert!(resource.sees_alive(&body["auth_token"]));
    }
}

fn resource_that_is_switched_off_or_removed_has_no_tokens(server: &Server) {
    let org = server.acme();
    let (agent, resource, body) = granted(&org);
    resource.admin("PATCH").json(json!({ "status": "inactive" })).send().ok();
    let post = || resource.post("/aauth/auth/token/verify", &json!({ "auth_token": body["auth_token"] }));
    unauthenticated(&post(), "invalid_agent_token");
    resource.admin("PATCH").json(json!({ "status": "active" })).send().ok();
    dead(&resource, &body);
    refused(&agent.refresh(&body["refresh_token"], &resource), 400, "invalid_grant");
    agent.tokens(&resource);
    resource.admin("DELETE").send().ok();
    unauthenticated(&post(), "invalid_agent_token");
}

fn consent_that_is_withdrawn_ends_what_stands_on_it(server: &Server) {
    let org = server.acme();
    let (agent, resource, alice) =
        (org.aauth_agent(json!({})), org.aauth_resource_of("authorized"), org.person());
    let body = alice.give(&agent, &resource, "read");
    let bob = org.person();
    let other = bob.give(&agent, &resource, "read");
    super::codes::withdraw(&alice, &agent);
    dead(&resource, &body);
    assert!(resource.sees_alive(&other["auth_token"]));
}

fn person_who_is_gone_ends_what_they_gave(server: &Server) {
    let org = server.acme();
    let (agent, resource, alice) =
        (org.aauth_agent(json!({})), org.aauth_resource_of("authorized"), org.person());
    let body = alice.give(&agent, &resource, "read");
    for verb in ["block", "unblock"] {
        org.admin("POST", &format!("/users/{}/{verb}", alice.id)).send().ok();
        dead(&resource, &body);
    }
}

fn budget_that_is_used_up_is_heeded(server: &Server) {
    lumoauth_tests::avoid_hour_edge();
    let org = server.acme();
    let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let policy = json!({ "max_api_calls_per_hour": 2 });
    agent.admin("PATCH", "").json(json!({ "budgetPolicy": policy })).send().ok();
    let body = agent.tokens(&resource);
    agent.refresh(&body["refresh_token"], &resource).ok();
    refused(&agent.ask_for(&resource), 429, "budget_exceeded");
    refused(&agent.refresh(&body["refresh_token"], &resource), 429, "budget_exceeded");
    // What was given is as good as it was.
    assert!(resource.sees_alive(&body["auth_token"]));
}

fn reregistered_party_inherits_nothing(server: &Server) {
    let org = server.acme();
    let (agent, resource, body) = granted(&org);
    agent.admin("DELETE", "").send().ok();
    let next = org.aauth_agent(json!({ "agent_identifier": agent.identifier, "jwks": agent.key.jwks() }));
    dead(&resource, &body);
    let refresh = json!({
        "request_type": "refresh", "refresh_token": body["refresh_token"],
        "resource_token": resource.token_for(&agent),
    });
    refused(&next.call(&refresh).by(&agent.token()).signed(&agent.key).send(), 400, "invalid_grant");
    let (agent, resource, body) = granted(&org);
    resource.admin("DELETE").send().ok();
    let key = json!({ "resource_identifier": resource.identifier, "jwks": resource.key.jwks() });
    let mut again = org.aauth_resource(key);
    again.key = resource.key.called(resource.key.kid());
    dead(&again, &body);
    let answer = agent.refresh(&body["refresh_token"], &resource);
    assert!(matches!(text(&answer.json()["error"]), "invalid_grant" | "invalid_target"), "{answer}");
}

/// Organizations are switched off beside the server.
#[test]
fn organization_that_is_switched_off_answers_nobody() {
    let options = ServeOptions::new().on(Backend::Postgres).line("rate_limits = false");
    options.migrate();
    let server = Server::serve(&options);
    let org = server.acme();
    let (agent, resource, body) = granted(&org);
    let switch = |verb: &str| {
        let (code, text) = run_server(&["org", verb, org.slug(), "--store", options.store()], &[]);
        assert_eq!(code, Some(0), "{text}");
    };
    switch("disable");
    let watch = Stopwatch::start();
    while agent.ask_for(&resource).status == 200 {
        assert!(watch.elapsed() < Duration::from_secs(3));
    }
    agent.ask_for(&resource).refused_somehow();
    resource.post("/aauth/auth/token/verify", &json!({ "auth_token": body["auth_token"] })).refused_somehow();
    switch("enable");
    while agent.ask_for(&resource).status != 200 {
        assert!(watch.elapsed() < Duration::from_secs(10));
    }
    dead(&resource, &body);
    refused(&agent.refresh(&body["refresh_token"], &resource), 400, "invalid_grant");
    assert_eq!(server.terminate(), Some(0));
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}
