//! What a person agreed to, and the code that stands for it.

use lumoauth_tests::{
    AAuthAgent, AAuthResource, CALLBACK, Ed25519, Person, Response, Server, Token, at_once, on_each_backend,
    text,
};
use serde_json::{Value, json};

use super::refused;

on_each_backend!(
    code_gives_tokens_for_the_person,
    code_works_once_and_its_second_use_ends_what_it_gave,
    code_of_many_at_once_is_redeemed_by_one,
    code_that_comes_from_elsewhere_is_used_up,
    request_token_that_is_given_must_fit,
    code_is_bound_to_the_delegate_and_the_key,
    request_tokens_are_no_codes_and_oauth_codes_neither,
    code_of_a_consent_that_is_withdrawn_gives_nothing,
    code_gives_nothing_that_is_not_allowed_any_more,
    level_user_gives_no_refresh_token_and_a_short_life,
    scope_is_what_was_asked,
);

fn all<'a>(server: &'a Server) -> (AAuthAgent<'a>, AAuthResource<'a>, Person<'a>) {
    let org = server.acme();
    (org.aauth_agent(json!({})), org.aauth_resource_of("authorized"), org.person())
}

fn code(agent: &AAuthAgent<'_>, resource: &AAuthResource<'_>, person: &Person<'_>) -> String {
    person.agree(&agent.question(resource, "read"))
}

fn code_gives_tokens_for_the_person(server: &Server) {
    let (agent, resource, alice) = all(server);
    let body = agent.redeem(&code(&agent, &resource, &alice)).ok();
    assert_eq!((&body["request_type"], &body["scope"]), (&json!("code"), &json!("read")));
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("auth+jwt"), &json!(3600)));
    assert!(text(&body["refresh_token"]).starts_with("aauth_refresh_"));
    let claims = Token::parse(text(&body["auth_token"])).claims;
    assert_eq!((&claims["sub"], &claims["auth_level"]), (&json!(alice.id), &json!("authorized")));
    let seen = resource.verify(&body["auth_token"]);
    assert_eq!((&seen["active"], &seen["sub"]), (&json!(true), &json!(alice.id)));
}

fn code_works_once_and_its_second_use_ends_what_it_gave(server: &Server) {
    let (agent, resource, alice) = all(server);
    let code = code(&agent, &resource, &alice);
    let first = agent.redeem(&code).ok();
    let again = agent.refresh_with(&first["refresh_token"], &read_token(&resource, &agent)).ok();
    refused(&agent.redeem(&code), 400, "invalid_grant");
    assert!(!resource.sees_alive(&first["auth_token"]));
    assert!(!resource.sees_alive(&again["auth_token"]));
    let answer = agent.refresh_with(&first["refresh_token"], &read_token(&resource, &agent));
    refused(&answer, 400, "invalid_grant");
}

fn read_token(resource: &AAuthResource<'_>, agent: &AAuthAgent<'_>) -> String {
    resource.token_saying(agent, json!({ "scope": "read" }))
}

fn code_of_many_at_once_is_redeemed_by_one(server: &Server) {
    let (agent, resource, alice) = all(server);
    for _ in 0..5 {
        let code = code(&agent, &resource, &alice);
        // Whoever comes second ends what the first one is about to get, and may be quicker: then nobody gets anything.
        if let Some(given) = redeemed_by_one(&at_once(8, |_| agent.redeem(&code))) {
            assert!(!resource.sees_alive(&given["auth_token"]), "it was used again");
        }
    }
}

/// What the one got, if any, of those who redeemed a code at once. All others were told that it is good for nothing.
#[track_caller]
pub(super) fn redeemed_by_one(answers: &[Response]) -> Option<Value> {
    let (yes, no): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!(yes.len() <= 1, "{yes:?}");
    for answer in no {
        refused(answer, 400, "invalid_grant");
    }
    yes.first().map(|answer| answer.ok())
}

fn code_that_comes_from_elsewhere_is_used_up(server: &Server) {
    let (agent, resource, alice) = all(server);
    for uri in [
        "https://agent.example.test/callback/",
        "https://evil.test/",
        "",
        "HTTPS://agent.example.test/callback",
    ] {
        let code = code(&agent, &resource, &alice);
        let body = json!({ "request_type": "code", "code": code, "redirect_uri": uri });
        refused(&agent.ask(&body), 400, "invalid_grant");
        refused(&agent.redeem(&code), 400, "invalid_grant");
    }
    // Another agent has what it should not.
    let thief = agent.org.aauth_agent(json!({}));
    let code = code(&agent, &resource, &alice);
    refused(&thief.redeem(&code), 400, "invalid_grant");
    refused(&agent.redeem(&code), 400, "invalid_grant");
}

fn request_token_that_is_given_must_fit(server: &Server) {
    let (agent, resource, alice) = all(server);
    let redeem = |asked: &str, said: Value| {
        let body = json!({
            "request_type": "code", "code": alice.agree(asked), "redirect_uri": CALLBACK, "request_token": said,
        });
        agent.ask(&body)
    };
    let asked = agent.question(&resource, "read");
    redeem(&asked, json!(asked)).ok();
    let asked = agent.question(&resource, "read");
    refused(&redeem(&asked, json!(agent.question(&resource, "read"))), 400, "invalid_grant");
}

fn code_is_bound_to_the_delegate_and_the_key(server: &Server) {
    let (agent, resource, alice) = all(server);
    let (old, new) = (Ed25519::generate("old"), Ed25519::generate("new"));
    let ask = || {
        let token = resource.token_saying(&agent, json!({ "agent_jkt": old.thumbprint(), "scope": "read" }));
        let body = json!({ "request_type": "auth", "resource_token": token });
        let answer = agent.ask_as("d1", &old, &body).refused(401, "authorization_required");
        alice.agree(text(&answer["request_token"]))
    };
    let redeem = |code: &str| json!({ "request_type": "code", "code": code, "redirect_uri": CALLBACK });
    let body = agent.ask_as("d1", &old, &redeem(&ask())).ok();
    let claims = Token::parse(text(&body["auth_token"])).claims;
    assert_eq!(claims["agent_delegate"], "d1");
    assert_eq!(claims["cnf"]["jkt"], *old.thumbprint(), "bound to the key that signs");
    // Another key of the same delegate is that of somebody else for all that is known.
    let code = ask();
    refused(&agent.ask_as("d1", &new, &redeem(&code)), 400, "invalid_grant");
    refused(&agent.ask_as("d1", &old, &redeem(&code)), 400, "invalid_grant");
    let code = ask();
    refused(&agent.ask_as("d2", &old, &redeem(&code)), 400, "invalid_grant");
    refused(&agent.ask_as("d1", &old, &redeem(&code)), 400, "invalid_grant");
    refused(&agent.redeem(&ask()), 400, "invalid_grant");
}

fn request_tokens_are_no_codes_and_oauth_codes_neither(server: &Server) {
    let (agent, resource, alice) = all(server);
    refused(&agent.redeem(&agent.question(&resource, "read")), 400, "invalid_grant");
    let other = agent.org.delegate(&["read:a"]);
    let oauth = alice.code_for(&other, "read:a");
    refused(&agent.redeem(&oauth), 400, "invalid_grant");
    other.redeem(&oauth, &[]).ok();
    let code = code(&agent, &resource, &alice);
    other.redeem(&code, &[]).refused(400, "invalid_grant");
    agent.redeem(&code).ok();
    for nonsense in ["aac_", "x", &"x".repeat(5000)] {
        refused(&agent.redeem(nonsense), 400, "invalid_grant");
    }
}

fn code_of_a_consent_that_is_withdrawn_gives_nothing(server: &Server) {
    let (agent, resource, alice) = all(server);
    let code = code(&agent, &resource, &alice);
    withdraw(&alice, &agent);
    refused(&agent.redeem(&code), 400, "invalid_grant");
}

fn code_gives_nothing_that_is_not_allowed_any_more(server: &Server) {
    for (of_agent, change, status, error) in [
        (true, json!({ "allowed_scopes": ["write"] }), 400, "invalid_scope"),
        (true, json!({ "user_authorization": false }), 403, "access_denied"),
        (false, json!({ "supported_scopes": ["write"] }), 400, "invalid_scope"),
        (false, json!({ "default_auth_level": "user" }), 403, "access_denied"),
    ] {
        let (agent, resource, alice) = all(server);
        let (code, waiting) = (code(&agent, &resource, &alice), agent.question(&resource, "read"));
        if of_agent {
            agent.org.admin("PATCH", &format!("/aauth/agents/{}", agent.id)).json(change).send().ok();
        } else {
            resource.admin("PATCH").json(change).send().ok();
        }
        refused(&agent.redeem(&code), status, error);
        refused(&agent.redeem(&code), 400, "invalid_grant");
        // Nor is anybody asked for it.
        alice.decide_aauth(&waiting, "approve").refused(400, "invalid_request");
    }
    // Who agreed once, at a resource that asked no more, has not agreed to each scope.
    let (agent, _, alice) = all(server);
    let resource = agent.org.aauth_resource_of("authenticated");
    let code = code(&agent, &resource, &alice);
    resource.admin("PATCH").json(json!({ "default_auth_level": "authorized" })).send().ok();
    refused(&agent.redeem(&code), 403, "access_denied");
}

/// Takes back what the person allowed the agent.
#[track_caller]
pub(super) fn withdraw(person: &Person<'_>, agent: &AAuthAgent<'_>) {
    let client = agent.admin("GET", "").send().ok()["data"]["clientId"].clone();
    let path = format!("/users/{}/consents/{}", person.id, text(&client));
    person.org.admin("DELETE", &path).send().ok();
}

fn level_user_gives_no_refresh_token_and_a_short_life(server: &Server) {
    let org = server.acme();
    let (agent, resource, alice) = (org.aauth_agent(json!({})), org.aauth_resource_of("user"), org.person());
    for _ in 0..2 {
        let body = alice.give(&agent, &resource, "read");
        assert_eq!(body["expires_in"], 300);
        assert!(body["refresh_token"].is_null());
        assert_eq!(Token::parse(text(&body["auth_token"])).claims["auth_level"], "user");
    }
}

fn scope_is_what_was_asked(server: &Server) {
    let (agent, resource, alice) = all(server);
    let token = resource.token_saying(&agent, json!({ "scope": "read write" }));
    let body = json!({ "request_type": "auth", "resource_token": token, "scope": "write" });
    let asked = agent.ask(&body).refused(401, "authorization_required");
    let code = alice.agree(text(&asked["request_token"]));
    // A scope at the code changes nothing.
    let body = json!({ "request_type": "code", "code": code, "redirect_uri": CALLBACK, "scope": "admin" });
    assert_eq!(agent.ask(&body).ok()["scope"], "write");
}
