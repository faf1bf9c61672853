//! Replicas whose machines' clocks are wrong by half a minute: they go by the clock of the database (security ST-08).

use std::{path::Path, thread, time::Duration};

use lumoauth_tests::{
    Server, Token, avoid_hour_edge, int,
    services::{Database, Postgres, query},
    text, unix_now,
};
use serde_json::json;

use crate::{
    answers::timed,
    counts::count,
    deployment::Deployment,
    ledger::{Agent, DAY},
};

/// How far the clocks of the replicas are off.
const SKEWS: [i64; 3] = [0, -30, 30];

#[test]
fn replicas_whose_clocks_are_wrong_agree_on_the_time_of_the_database() {
    avoid_hour_edge();
    let postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    let deployment = Deployment::of(SKEWS.len());
    let servers: Vec<Server> = SKEWS
        .iter()
        .enumerate()
        .map(|(number, skew)| {
            let options = deployment.options(number, database.url());
            Server::start(&match skew {
                0 => options,
                _ => options
                    .variable("LD_PRELOAD", library())
                    .variable("FAKETIME", &format!("{skew:+}s"))
                    .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            })
        })
        .collect();
    let agent = Agent::create(&servers[0], &json!({ "max_api_calls_per_hour": LIMIT }));

    for (server, skew) in servers.iter().zip(SKEWS) {
        let ready = timed(server, &server.request("GET", "/readyz")).0.ok();
        let warning = ready["warnings"][0].as_str().unwrap_or_default();
        let expected: &[&str] = match skew {
            0 => &[""],
            _ => &["clock drift of 29 s", "clock drift of 30 s", "clock drift of 31 s"],
        };
        assert!(expected.contains(&warning), "a clock off by {skew} s: {ready}");
    }

    // The machine's clock is that of the database.
    for issuer in &servers {
        let before = unix_now();
        let token = text(&agent.token_request(issuer).send().ok()["access_token"]).to_owned();
        let after = unix_now();
        let claims = Token::parse(&token).claims;
        let issued = int(&claims["iat"]);
        assert!((before - 2..=after + 2).contains(&issued), "{issued} between {before} and {after}");
        assert_eq!(int(&claims["exp"]) - issued, DAY, "{claims}");
        for server in &servers {
            let answer = agent.introspection(server, &token).send().ok();
            assert_eq!((&answer["active"], int(&answer["iat"])), (&json!(true), issued), "{answer}");
            server.acme().get("/oauth/userinfo").bearer(&token).send().ok();
        }
    }

    // One budget for all, to the last call.
    for number in 0..LIMIT {
        agent.question(&servers[usize::try_from(number).expect("fits") % servers.len()]).send().ok();
    }
    for server in &servers {
        agent.question(server).send().refused(429, "budget_exceeded");
        assert_eq!(agent.calls(server), LIMIT);
    }
    let owner = agent.agent_id.trim_start_matches("agt_");
    let windows =
        query(database.url(), &format!("SELECT count(*) FROM budget_counter WHERE owner = '{owner}'"));
    assert_eq!(windows, "1", "every replica counts in the same window");

    // What one revokes is revoked everywhere, and events are in the order and at the time of the database.
    let token = text(&agent.token_request(&servers[1]).send().ok()["access_token"]).to_owned();
    agent.revocation(&servers[2], &token).send().expect(200);
    for server in &servers {
        assert_eq!(agent.introspection(server, &token).send().ok(), json!({ "active": false }));
    }
    let off = "SELECT count(*) FROM audit_log \
        WHERE abs(at - extract(epoch FROM now()) * 1000) > 25000 AND kind LIKE 'token.%'";
    servers[0].acme().audit("action=token.revoked");
    assert_eq!(query(database.url(), off), "0", "an event has the time of a wrong clock");

    let watched = count("FAULT_EXPIRY", 0);
    if watched > 0 {
        tokens_end_when_the_database_says_so(&servers);
    }
    eprintln!(
        "3 replicas with clocks off by {SKEWS:?} s: one time for tokens, budgets and events; tokens watched until \
         their end: {}",
        if watched > 0 { servers.len() } else { 0 }
    );
    for server in &servers {
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
}

const LIMIT: u64 = 12;

/// A token of each replica is good at every replica until its `exp`, and at none from then on.
fn tokens_end_when_the_database_says_so(servers: &[Server]) {
    // The shortest life that there is: one minute, for an MCP server.
    let mcp = servers[0].acme().mcp_server(json!({ "token_lifetime": 60 }));
    let agent = servers[0].acme().agent(&["read:a"]);
    let tokens: Vec<String> = servers
        .iter()
        .map(|server| {
            let agent = agent.at(server);
            let answer = agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]).ok();
            text(&answer["access_token"]).to_owned()
        })
        .collect();
    let ends: Vec<i64> = tokens.iter().map(|token| int(&Token::parse(token).claims["exp"])).collect();
    let (first, last) = (ends.iter().min().expect("tokens"), ends.iter().max().expect("tokens"));
    let all_are = |active: bool| {
        for server in servers {
            for token in &tokens {
                let answer = server.acme().introspect(&agent.at(server), token);
                assert_eq!(answer["active"], active, "{answer} at {}", unix_now());
            }
        }
    };
    all_are(true);
    wait_until(first - 3);
    all_are(true);
    wait_until(last + 2);
    all_are(false);
}

fn wait_until(second: i64) {
    if let Ok(left @ 1..) = u64::try_from(second - unix_now()) {
        thread::sleep(Duration::from_secs(left));
    }
}

/// The library that moves a process's clock.
pub(crate) fn library() -> &'static str {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/faketime/libfaketimeMT.so.1",
        "/usr/local/lib/faketime/libfaketimeMT.so.1",
    ];
    let found = places.into_iter().find(|place| Path::new(place).is_file());
    found.expect("libfaketime is missing; `tests/faults/run` installs the Debian package `faketime`")
}
