//! Exchange: an agent that was called needs another resource to serve the call.

use std::{thread, time::Duration};

use lumoauth_tests::{AAuthAgent, AAuthResource, Ed25519, Org, Server, Token, on_each_backend, text};
use serde_json::{Value, json};

use super::refused;

on_each_backend!(
    agents_hand_the_work_on_and_the_chain_is_in_the_token,
    fourth_agent_is_one_too_many,
    nobody_is_in_the_chain_twice,
    scope_only_shrinks,
    life_never_grows,
    upstream_must_be_for_the_caller_and_alive,
    agent_must_be_allowed_to_exchange,
    person_comes_along_and_is_never_made_up,
    person_has_agreed_to_each_scope_where_that_is_demanded,
    delegate_is_named_in_the_chain,
    end_of_any_part_ends_the_rest,
    other_tokens_are_no_upstream,
    subject_token_is_another_name,
);

/// An agent that is a resource as well: it is called, and calls.
struct Service<'a> {
    agent: AAuthAgent<'a>,
}

impl<'a> Service<'a> {
    fn new(org: &Org<'a>) -> Self {
        Self { agent: org.aauth_agent(json!({})) }
    }

    /// The token of `caller` for it.
    #[track_caller]
    fn called_by(&self, caller: &AAuthAgent<'_>, scope: &str) -> Value {
        let door = self.agent.as_resource();
        let token = door.token_saying(caller, json!({ "scope": scope }));
        caller.ask(&json!({ "request_type": "auth", "resource_token": token })).ok()
    }
}

fn auth(body: &Value) -> &str {
    text(&body["auth_token"])
}

/// The agents of the chain, the outermost first.
fn chain(token: &str) -> Vec<String> {
    let claims = Token::parse(token).claims;
    let mut found = Vec::new();
    let mut link = &claims["act"];
    while !link.is_null() {
        assert_eq!(link["sub"], link["agent"]);
        found.push(text(&link["agent"]).to_owned());
        link = &link["act"];
    }
    found
}

fn agents_hand_the_work_on_and_the_chain_is_in_the_token(server: &Server) {
    let org = server.acme();
    let first = org.aauth_agent(json!({}));
    let (second, last) = (Service::new(&org), org.aauth_resource(json!({})));
    let upstream = second.called_by(&first, "read write");
    assert!(Token::parse(auth(&upstream)).claims["act"].is_null());
    let answer = second.agent.exchange(auth(&upstream), &last, "read");
    let body = answer.ok();
    assert_eq!((&body["request_type"], &body["scope"]), (&json!("exchange"), &json!("read")));
    assert!(body["refresh_token"].is_null());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let claims = Token::parse(auth(&body)).claims;
    assert_eq!(
        (&claims["agent"], &claims["aud"]),
        (&json!(second.agent.identifier), &json!(last.identifier))
    );
    assert_eq!(claims["cnf"]["jkt"], *second.agent.key.thumbprint());
    assert!(claims["sub"].is_null());
    assert_eq!(chain(auth(&body)), [first.identifier.clone(), second.agent.identifier.clone()]);
    let seen = last.verify(&body["auth_token"]);
    assert_eq!((&seen["active"], &seen["act"]), (&json!(true), &claims["act"]));
}

fn fourth_agent_is_one_too_many(server: &Server) {
    let org = server.acme();
    let first = org.aauth_agent(json!({}));
    let [second, third, fourth] = [(); 3].map(|()| Service::new(&org));
    let to_second = second.called_by(&first, "read");
    let to_third = second.agent.exchange(auth(&to_second), &third.agent.as_resource(), "read").ok();
    let to_fourth = third.agent.exchange(auth(&to_third), &fourth.agent.as_resource(), "read").ok();
    let agents = [&first.identifier, &second.agent.identifier, &third.agent.identifier];
    assert_eq!(chain(auth(&to_fourth)).iter().collect::<Vec<_>>(), agents);
    let last = org.aauth_resource(json!({}));
    refused(&fourth.agent.exchange(auth(&to_fourth), &last, "read"), 403, "access_denied");
}

fn nobody_is_in_the_chain_twice(server: &Server) {
    let org = server.acme();
    let (first, second) = (Service::new(&org), Service::new(&org));
    let door = first.agent.as_resource();
    let to_second = second.called_by(&first.agent, "read");
    let back = second.agent.exchange(auth(&to_second), &door, "read").ok();
    refused(
        &first.agent.exchange(auth(&back), &org.aauth_resource(json!({})), "read"),
        400,
        "invalid_request",
    );
}

fn scope_only_shrinks(server: &Server) {
    let org = server.acme();
    let first = org.aauth_agent(json!({}));
    let (second, last) = (Service::new(&org), org.aauth_resource(json!({})));
    let upstream = second.called_by(&first, "read");
    refused(&second.agent.exchange(auth(&upstream), &last, "write"), 400, "invalid_scope");
    refused(&second.agent.exchange(auth(&upstream), &last, "read write"), 400, "invalid_scope");
    assert_eq!(second.agent.exchange(auth(&upstream), &last, "read").ok()["scope"], "read");
    assert_eq!(second.agent.exchange(auth(&upstream), &last, "").ok()["scope"], "");
    let ask = |asked: &str, scope: &str| {
        let token = last.token_saying(&second.agent, json!({ "scope": asked }));
        second.agent.ask(&json!({
            "request_type": "exchange", "auth_token": upstream["auth_token"], "resource_token": token,
            "scope": scope,
        }))
    };
    assert_eq!(ask("read write", "read").ok()["scope"], "read");
    refused(&ask("read write", "write"), 400, "invalid_scope");
    refused(&ask("", "read"), 400, "invalid_scope");
}

fn life_never_grows(server: &Server) {
    let org = server.acme();
    let end = |token: &Value| Token::parse(auth(token)).claims["exp"].as_u64().expect("exp");
    // Two tokens that live an hour each, of which the second is made some seconds later.
    let (first, second) = (org.aauth_agent(json!({})), Service::new(&org));
    let upstream = second.called_by(&first, "read");
    assert_eq!(upstream["expires_in"], 3600);
    thread::sleep(Duration::from_millis(2100));
    let last = org.aauth_resource(json!({}));
    let body = second.agent.exchange(auth(&upstream), &last, "read").ok();
    assert_eq!(end(&body), end(&upstream));
    assert!(body["expires_in"].as_u64().expect("seconds") <= 3598, "{body}");
    // One that lives five minutes for its level gives no more than that.
    let (second, alice) = (Service::new(&org), org.person());
    let door = org.aauth_resource(json!({
        "resource_identifier": second.agent.identifier, "default_auth_level": "user",
    }));
    let upstream = alice.give(&first, &door, "read");
    let body = second.agent.exchange(auth(&upstream), &last, "read").ok();
    assert!(end(&body) <= end(&upstream));
    assert!(body["expires_in"].as_u64().expect("seconds") <= 300);
    // She is there, and not further on.
    assert_eq!(Token::parse(auth(&upstream)).claims["auth_level"], "user");
    assert_eq!(Token::parse(auth(&body)).claims["auth_level"], "authorized");
}

fn upstream_must_be_for_the_caller_and_alive(server: &Server) {
    let org = server.acme();
    let (first, thief) = (org.aauth_agent(json!({})), org.aauth_agent(json!({})));
    let (second, last) = (Service::new(&org), org.aauth_resource(json!({})));
    let upstream = second.called_by(&first, "read");
    refused(&thief.exchange(auth(&upstream), &last, "read"), 400, "invalid_grant");
    // Who got it is not who was called with it.
    refused(&first.exchange(auth(&upstream), &last, "read"), 400, "invalid_grant");
    let body = json!({ "token": upstream["auth_token"] });
    first.post("/aauth/token/revoke", &body).ok();
    refused(&second.agent.exchange(auth(&upstream), &last, "read"), 400, "invalid_grant");
}

fn agent_must_be_allowed_to_exchange(server: &Server) {
    let org = server.acme();
    let first = org.aauth_agent(json!({}));
    let second = Service { agent: org.aauth_agent(json!({ "token_exchange": false })) };
    let upstream = second.called_by(&first, "read");
    let answer = second.agent.exchange(auth(&upstream), &org.aauth_resource(json!({})), "read");
    refused(&answer, 403, "access_denied");
}

fn person_comes_along_and_is_never_made_up(server: &Server) {
    let org = server.acme();
    let (first, alice) = (org.aauth_agent(json!({})), org.person());
    let second = Service::new(&org);
    let nobody = second.called_by(&first, "read");
    for level in ["authenticated", "authorized", "user"] {
        let last = org.aauth_resource_of(level);
        refused(&second.agent.exchange(auth(&nobody), &last, "read"), 403, "access_denied");
    }
    let second = Service::new(&org);
    let door = org.aauth_resource(json!({
        "resource_identifier": second.agent.identifier, "default_auth_level": "authorized",
    }));
    let upstream = alice.give(&first, &door, "read");
    for level in ["none", "authenticated"] {
        let body = second.agent.exchange(auth(&upstream), &org.aauth_resource_of(level), "read").ok();
        assert_eq!(Token::parse(auth(&body)).claims["sub"], *alice.id);
    }
    let answer = second.agent.exchange(auth(&upstream), &org.aauth_resource_of("user"), "read");
    refused(&answer, 403, "access_denied");
    // Whoever has agreed to one thing once has not agreed to each.
    let second = Service::new(&org);
    let door = org.aauth_resource(json!({
        "resource_identifier": second.agent.identifier, "default_auth_level": "authenticated",
    }));
    let upstream = alice.give(&first, &door, "read");
    let answer = second.agent.exchange(auth(&upstream), &org.aauth_resource_of("authorized"), "read");
    refused(&answer, 403, "access_denied");
}

fn person_has_agreed_to_each_scope_where_that_is_demanded(server: &Server) {
    let org = server.acme();
    let alice = org.person();
    // She allowed this everywhere before it became an agent of AAuth.
    let first = org.delegate(&["read:own"]);
    alice.allow(&first, "read:own");
    let (first, second) = (first.in_aauth(), Service::new(&org));
    let of = |identifier: &str| {
        org.aauth_resource(json!({
            "resource_identifier": identifier, "default_auth_level": "authorized",
            "supported_scopes": ["read", "write", "read:own"],
        }))
    };
    let door = of(&second.agent.identifier);
    let (last, other) = (of("https://last.resources.test"), of("https://other.resources.test"));
    let upstream = alice.give(&first, &door, "read write read:own");
    let denied = |resource: &AAuthResource<'_>, scope: &str| {
        refused(&second.agent.exchange(auth(&upstream), resource, scope), 403, "access_denied");
    };
    let given = |resource: &AAuthResource<'_>, scope: &str| {
        let body = second.agent.exchange(auth(&upstream), resource, scope).ok();
        let claims = Token::parse(auth(&body)).claims;
        assert_eq!((&claims["sub"], &claims["scope"]), (&json!(alice.id), &json!(scope)));
    };
    for scope in ["read", "read write", "read read:own", ""] {
        denied(&last, scope);
    }
    given(&last, "read:own");
    // What the agent asks her for there, and not somebody else, and not for somewhere else.
    alice.give(&second.agent, &last, "read");
    org.person().give(&first, &last, "read");
    denied(&last, "read");
    alice.give(&first, &last, "read");
    given(&last, "read");
    given(&last, "read read:own");
    denied(&last, "read write");
    denied(&other, "read");
    // Where the resource wants less, she need not have.
    last.admin("PATCH").json(json!({ "default_auth_level": "authenticated" })).send().ok();
    given(&last, "write");
}

fn delegate_is_named_in_the_chain(server: &Server) {
    let org = server.acme();
    let (first, key) = (org.aauth_agent(json!({})), Ed25519::generate("d"));
    let (second, last) = (Service::new(&org), org.aauth_resource(json!({})));
    let door = second.agent.as_resource();
    let token = door.token_saying(&first, json!({ "agent_jkt": key.thumbprint() }));
    let body = json!({ "request_type": "auth", "resource_token": token });
    let upstream = first.ask_as("worker", &key, &body).ok();
    let body = second.agent.exchange(auth(&upstream), &last, "read").ok();
    let act = Token::parse(auth(&body)).claims["act"].clone();
    assert_eq!((&act["agent"], &act["agent_delegate"]), (&json!(first.identifier), &json!("worker")));
    assert!(act["act"]["agent_delegate"].is_null());
}

/// Ends something of what two agents hold: the first one, the second one, and the answer that the first one got.
type End<'f> = dyn Fn(&AAuthAgent<'_>, &AAuthAgent<'_>, &Value) + 'f;

fn end_of_any_part_ends_the_rest(server: &Server) {
    let org = server.acme();
    let alice = org.person();
    let ends: [&End<'_>; 5] = [
        &|first, _, upstream| {
            first.post("/aauth/token/revoke", &json!({ "token": upstream["auth_token"] })).ok();
        },
        &|first, _, upstream| {
            let body = json!({ "token": upstream["refresh_token"], "token_type": "refresh_token" });
            first.post("/aauth/token/revoke", &body).ok();
        },
        &|first, _, _| drop(first.admin("POST", "/deactivate").send().ok()),
        &|_, second, _| drop(second.admin("POST", "/deactivate").send().ok()),
        &|first, _, _| super::codes::withdraw(&alice, first),
    ];
    for (n, end) in ends.iter().enumerate() {
        let first = org.aauth_agent(json!({}));
        let (second, last) = (Service::new(&org), org.aauth_resource(json!({})));
        let door = org.aauth_resource(json!({
            "resource_identifier": second.agent.identifier, "default_auth_level": "authorized",
        }));
        let upstream = alice.give(&first, &door, "read");
        let body = second.agent.exchange(auth(&upstream), &last, "read").ok();
        assert!(last.sees_alive(&body["auth_token"]));
        end(&first, &second.agent, &upstream);
        assert!(!last.sees_alive(&body["auth_token"]), "{n}");
    }
    // Also the resource that it came through.
    let first = org.aauth_agent(json!({}));
    let (second, last) = (Service::new(&org), org.aauth_resource(json!({})));
    let door = second.agent.as_resource();
    let token = door.token_for(&first);
    let upstream = first.ask(&json!({ "request_type": "auth", "resource_token": token })).ok();
    let body = second.agent.exchange(auth(&upstream), &last, "read").ok();
    door.admin("DELETE").send().ok();
    assert!(!last.sees_alive(&body["auth_token"]));
}

fn other_tokens_are_no_upstream(server: &Server) {
    let org = server.acme();
    let (second, last) = (Service::new(&org), org.aauth_resource(json!({})));
    let oauth = org.agent(&["read:a"]);
    let alice = org.person();
    for token in [
        oauth.token(),
        alice.in_person("openid"),
        second.agent.token(),
        last.token_for(&second.agent),
        "x".to_owned(),
        "a.b.c".to_owned(),
        String::new(),
    ] {
        refused(&second.agent.exchange(&token, &last, "read"), 400, "invalid_grant");
    }
}

fn subject_token_is_another_name(server: &Server) {
    let org = server.acme();
    let first = org.aauth_agent(json!({}));
    let (second, last) = (Service::new(&org), org.aauth_resource(json!({})));
    let upstream = second.called_by(&first, "read");
    let token = last.token_saying(&second.agent, json!({ "scope": "read" }));
    let body = json!({
        "request_type": "exchange", "subject_token": upstream["auth_token"], "resource_token": token,
    });
    second.agent.ask(&body).ok();
}
