//! A signed request counts once: also after a restart, and after Redis lost its memory (security HS-04).

use std::{env, fs, thread, time::Duration};

use lumoauth_tests::{
    AAuthAgent, AAuthResource, Backend, Options, Response, Sent, Server, at_once, on_each_backend,
    services::{Database, Redis},
    text, unique,
};
use serde_json::json;

use super::{refused, unauthenticated};

on_each_backend!(
    request_counts_once,
    request_of_many_at_once_counts_once,
    nonce_counts_once_for_its_key,
    resource_token_of_many_at_once_gives_one_token,
);

fn both<'a>(server: &'a Server) -> (AAuthAgent<'a>, AAuthResource<'a>) {
    let org = server.acme();
    (org.aauth_agent(json!({})), org.aauth_resource(json!({})))
}

fn sent(agent: &AAuthAgent<'_>, resource: &AAuthResource<'_>) -> Sent {
    agent.sent(&json!({ "request_type": "auth", "resource_token": resource.token_for(agent) }))
}

fn request_counts_once(server: &Server) {
    let (agent, resource) = both(server);
    let sent = sent(&agent, &resource);
    sent.send().ok();
    for _ in 0..3 {
        unauthenticated(&sent.send(), "invalid_signature");
    }
    // Also one that was refused for what it asks.
    let sent = agent.sent(&json!({ "request_type": "auth", "resource_token": "x" }));
    sent.send().refused(400, "invalid_resource_token");
    unauthenticated(&sent.send(), "invalid_signature");
}

/// That one of them was accepted, and the others were refused as `refused` says.
#[track_caller]
pub(super) fn once(answers: &[Response], refused: impl Fn(&Response)) {
    let (yes, no): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(yes.len(), 1);
    no.into_iter().for_each(refused);
}

fn request_of_many_at_once_counts_once(server: &Server) {
    let (agent, resource) = both(server);
    let sent = sent(&agent, &resource);
    once(&at_once(8, |_| sent.send()), |answer| drop(unauthenticated(answer, "invalid_signature")));
}

fn nonce_counts_once_for_its_key(server: &Server) {
    let (agent, resource) = both(server);
    let params = format!(";created={};nonce=\"{}\"", lumoauth_tests::unix_now(), unique("one-nonce-twice"));
    let ask = |agent: &AAuthAgent<'_>| {
        let body = json!({ "request_type": "auth", "resource_token": resource.token_for(agent) });
        agent.call(&body).saying(&params).signed(&agent.key).send()
    };
    ask(&agent).ok();
    unauthenticated(&ask(&agent), "invalid_signature");
    // It is another key's own.
    ask(&agent.org.aauth_agent(json!({}))).ok();
}

fn resource_token_of_many_at_once_gives_one_token(server: &Server) {
    let (agent, resource) = both(server);
    let body = json!({ "request_type": "auth", "resource_token": resource.token_for(&agent) });
    once(&at_once(8, |_| agent.ask(&body)), |answer| refused(answer, 400, "invalid_resource_token"));
}

#[test]
fn request_of_before_a_restart_does_not_count_after_it() {
    for backend in Backend::DURABLE {
        let dir = env::temp_dir().join(unique("lumoauth-restart"));
        let options = Options::new(backend).dir(&dir);
        let server = Server::start(&options);
        let address = server.authority().to_owned();
        let (agent, resource) = both(&server);
        let sent = sent(&agent, &resource);
        sent.send().ok();
        let given = agent.tokens(&resource);
        let refresh = agent.sent(&json!({
            "request_type": "refresh", "refresh_token": given["refresh_token"],
            "resource_token": resource.token_for(&agent),
        }));
        server.kill();
        let server = Server::start(&options.clone().listen(&address));
        unauthenticated(&sent.send(), "invalid_signature");
        // What was given before is as good as it was, and what was signed before and not sent counts.
        refresh.send().ok();
        unauthenticated(&refresh.send(), "invalid_signature");
        server.kill();
        fs::remove_dir_all(&dir).expect("the directory can go");
    }
}

/// When Redis has lost what it remembered, nothing counts that may have counted before.
#[test]
fn request_of_before_redis_lost_its_memory_does_not_count_after_it() {
    let (database, redis) = (Database::create(), Redis::start());
    let store = format!("{}+{}", database.url(), redis.url());
    let server = Server::start(&Options::new(Backend::Memory).store(&store));
    let (agent, resource) = both(&server);
    let used = sent(&agent, &resource);
    used.send().ok();
    let unused = sent(&agent, &resource);
    redis.command(&["FLUSHALL"]);
    unauthenticated(&used.send(), "invalid_signature");
    unauthenticated(&unused.send(), "invalid_signature");
    let answer = sent(&agent, &resource).send();
    unauthenticated(&answer, "invalid_signature");
    // A minute later everybody knows again.
    thread::sleep(Duration::from_secs(62));
    unauthenticated(&used.send(), "invalid_signature");
    assert!(!text(&agent.tokens(&resource)["auth_token"]).is_empty());
}
