//! How many requests a party may make, with the standard limits. They count by clock minutes, so each test has a server and a
//! minute of its own.

use std::fs;

use lumoauth_tests::{
    AAuthAgent, AAuthResource, Call, EXCHANGE, Ed25519, JWT, Response, ServeOptions, Server,
    avoid_minute_edge, text, unique,
};
use serde_json::json;

fn number(response: &Response, name: &str) -> u64 {
    let value = response.header(name).unwrap_or_else(|| panic!("{name} is missing: {response}"));
    value.parse().unwrap_or_else(|_| panic!("{name} is no plain number: {response}"))
}

#[track_caller]
fn assert_slowed_down(response: &Response) {
    response.refused(429, "rate_limit_exceeded");
    assert!((1..=60).contains(&number(response, "retry-after")), "{response}");
}

#[track_caller]
fn assert_share(response: &Response, limit: u64, remaining: u64) {
    let share = ["x-ratelimit-limit", "x-ratelimit-remaining"].map(|name| number(response, name));
    assert_eq!(share, [limit, remaining], "{response}");
}

/// Runs `test` with a server of its own, at the beginning of a minute.
fn with_limits(test: impl FnOnce(&Server)) {
    let options = ServeOptions::new();
    let server = Server::serve(&options);
    avoid_minute_edge();
    test(&server);
    drop(server);
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

/// The ways to get something as an agent, each time with an agent token that was never seen before.
fn ways(agent: &AAuthAgent<'_>, resource: &AAuthResource<'_>) -> [Response; 4] {
    let asked = || json!({ "request_type": "auth", "resource_token": resource.token_for(agent) });
    let mut in_body = asked();
    in_body["agent_token"] = json!(agent.token());
    let exchange = json!({
        "grant_type": EXCHANGE, "subject_token": agent.token(), "subject_token_type": JWT,
    });
    let delegate =
        json!({ "delegate_sub": unique("d"), "delegate_public_key": Ed25519::generate("d").jwk() });
    [
        agent.ask(&asked()),
        // The field in another form says nothing about who signs.
        Call::sdk(&agent.org, "/aauth/agent/token", &in_body)
            .with("Agent-Auth", &unique("x"))
            .signed(&agent.key)
            .send(),
        Call::sdk(&agent.org, "/aauth/agent/platform-token", &exchange).signed(&agent.key).send(),
        agent.post("/aauth/agent/issue", &delegate),
    ]
}

#[test]
fn agent_is_counted_by_its_name_and_not_by_what_it_signs_anew() {
    with_limits(|server| {
        let org = server.acme();
        let (busy, calm, resource) =
            (org.aauth_agent(json!({})), org.aauth_agent(json!({})), org.aauth_resource(json!({})));
        let first = busy.tokens(&resource);
        let mut left = 29;
        for _ in 0..7 {
            for response in ways(&busy, &resource) {
                response.ok();
                left -= 1;
                assert_share(&response, 30, left);
            }
        }
        busy.tokens(&resource);
        for response in ways(&busy, &resource) {
            assert_slowed_down(&response);
            assert_share(&response, 30, 0);
        }
        // What it has goes on working, and can be taken back; others get what they ask for.
        assert!(resource.sees_alive(&first["auth_token"]));
        let back = busy.post("/aauth/token/revoke", &json!({ "token": first["auth_token"] }));
        back.ok();
        assert_share(&back, 30, 29);
        assert!(!resource.sees_alive(&first["auth_token"]));
        for response in ways(&calm, &resource) {
            response.ok();
        }
    });
}

#[test]
fn questions_to_people_are_counted() {
    with_limits(|server| {
        let org = server.acme();
        let (agent, resource) = (org.aauth_agent(json!({})), org.aauth_resource_of("authorized"));
        for _ in 0..30 {
            agent.question(&resource, "read");
        }
        assert_slowed_down(&agent.ask_for(&resource));
    });
}

#[test]
fn tokens_are_taken_back_thirty_times_a_minute() {
    with_limits(|server| {
        let org = server.acme();
        let agent = org.aauth_agent(json!({}));
        let path = "/aauth/token/revoke";
        for n in 0..30_u64 {
            let body = json!({ "token": unique("x") });
            // By a registered key, or by an agent token.
            let response = if n % 2 == 0 {
                agent.post(path, &body)
            } else {
                Call::sdk(&org, path, &body).by(&agent.token()).signed(&agent.key).send()
            };
            response.ok();
            assert_share(&response, 30, 29 - n);
        }
        assert_slowed_down(&agent.post(path, &json!({ "token": "x" })));
    });
}

#[test]
fn resources_are_counted_by_their_names() {
    with_limits(|server| {
        let org = server.acme();
        let (agent, resource, other) =
            (org.aauth_agent(json!({})), org.aauth_resource(json!({})), org.aauth_resource(json!({})));
        let body = json!({ "agent": agent.identifier, "agent_jkt": agent.key.thumbprint() });
        for left in [999, 998] {
            // An agent token says nothing about a resource.
            let call = resource.call("/aauth/resource/token", &body).by(&agent.token());
            let response = call.signed(&resource.key).send();
            response.ok();
            assert_share(&response, 1000, left);
        }
        assert_share(&other.post("/aauth/resource/token", &body), 1000, 999);
        let given = agent.tokens(&resource);
        let about = json!({
            "resource_token": resource.token_for(&agent), "agent": agent.identifier,
            "agent_jkt": agent.key.thumbprint(),
        });
        let first = resource.post("/aauth/auth/token/verify", &json!({ "auth_token": given["auth_token"] }));
        assert_share(&first, 6000, 5999);
        assert_share(&resource.post("/aauth/resource/token/verify", &about), 6000, 5998);
        assert!(text(&first.ok()["scope"]).contains("read"));
    });
}
