//! A signed request counts once: here, on another replica, after a restart, and after Redis lost its memory (security HS-04).

use std::{env, fs, iter, thread, time::Duration};

use lumoauth_tests::{
    AAuthAgent, AAuthResource, Backend, CALLBACK, Options, Person, Response, Sent, ServeOptions, Server,
    on_each_backend,
    services::{Database, Redis},
    text, unique,
};
use serde_json::json;

use super::unauthenticated;

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

fn once(answers: &[Response]) {
    let (yes, no): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(yes.len(), 1);
    for answer in no {
        answer.refused_somehow();
    }
}

fn request_of_many_at_once_counts_once(server: &Server) {
    let (agent, resource) = both(server);
    let sent = sent(&agent, &resource);
    let answers: Vec<_> = thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| sent.send())).collect();
        calls.into_iter().map(|call| call.join().expect("an answer")).collect()
    });
    once(&answers);
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
    let token = resource.token_for(&agent);
    let answers: Vec<_> = thread::scope(|scope| {
        let ask = || agent.ask(&json!({ "request_type": "auth", "resource_token": token }));
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        calls.into_iter().map(|call| call.join().expect("an answer")).collect()
    });
    once(&answers);
}

/// How often two replicas get the same thing at the same time.
const ROUNDS: usize = 10;

#[test]
fn what_counts_once_counts_once_on_all_replicas() {
    for backend in Backend::SHARED {
        let first = ServeOptions::new().on(backend).line("rate_limits = false");
        let options = [first.replica(), first];
        options[1].migrate();
        let replicas = [&options[1], &options[0]].map(Server::serve);
        let [a, b] = &replicas;
        let accepted = |sent: &Sent| {
            thread::scope(|scope| {
                let servers = replicas.iter().flat_map(|server| iter::repeat_n(server, 4));
                let calls: Vec<_> =
                    servers.map(|server| scope.spawn(|| sent.clone().to(server).send())).collect();
                let answers = calls.into_iter().map(|call| call.join().expect("an answer"));
                answers.filter(|answer| answer.status == 200 || !answer.refused_somehow().is_object()).count()
            })
        };
        let (agent, resource) = both(a);
        for round in 0..ROUNDS {
            let sent = sent(&agent, &resource);
            assert_eq!(accepted(&sent), 1, "{backend:?} {round}");
            unauthenticated(&sent.to(b).send(), "invalid_signature");
        }
        // One resource token in requests of their own.
        for _ in 0..ROUNDS {
            let body = json!({ "request_type": "auth", "resource_token": resource.token_for(&agent) });
            let answers: Vec<_> = thread::scope(|scope| {
                let servers = replicas.iter().flat_map(|server| iter::repeat_n(server, 3));
                let calls: Vec<_> =
                    servers.map(|server| scope.spawn(|| agent.sent(&body).to(server).send())).collect();
                calls.into_iter().map(|call| call.join().expect("an answer")).collect()
            });
            once(&answers);
        }
        // What one of them gave the other one knows, and takes back.
        let given = agent.tokens(&resource);
        let refresh = json!({
            "request_type": "refresh", "refresh_token": given["refresh_token"],
            "resource_token": resource.token_for(&agent),
        });
        agent.sent(&refresh).to(b).send().ok();
        codes_on(a, b);
        for server in replicas {
            assert!(!server.log().contains("panicked"), "{}", server.log());
            assert_eq!(server.terminate(), Some(0));
        }
        for options in options {
            fs::remove_dir_all(options.dir()).expect("the directory can go");
        }
    }
}

/// A question that one replica asked is answered at the other, and its code is redeemed once on both.
fn codes_on(a: &Server, b: &Server) {
    let org = a.acme();
    let (agent, resource, alice) =
        (org.aauth_agent(json!({})), org.aauth_resource_of("authorized"), org.person());
    let bearer = alice.in_person("openid");
    for _ in 0..3 {
        let body = json!({ "request_token": agent.question(&resource, "read"), "decision": "approve" });
        let there: Person<'_> = alice.at(b);
        let decided = there.org.post("/aauth/consent").bearer(&bearer).json(body.clone()).send().ok();
        alice.org.post("/aauth/consent").bearer(&bearer).json(body).send().refused(409, "conflict");
        let redeem = json!({ "request_type": "code", "code": decided["code"], "redirect_uri": CALLBACK });
        let answers: Vec<_> = thread::scope(|scope| {
            let servers = [a, b].into_iter().flat_map(|server| iter::repeat_n(server, 3));
            let calls: Vec<_> =
                servers.map(|server| scope.spawn(|| agent.sent(&redeem).to(server).send())).collect();
            calls.into_iter().map(|call| call.join().expect("an answer")).collect()
        });
        assert!(answers.iter().filter(|answer| answer.status == 200).count() <= 1);
    }
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
