//! SIGKILL of PostgreSQL, all its processes at once, under the writes of two replicas (security ST-01).

use std::{thread, time::Duration};

use lumoauth_store_postgres::{PostgresStore, Settings};
use lumoauth_tests::{
    Server, Stopwatch,
    services::{Database, Postgres},
    text, unique,
};
use serde_json::json;

use crate::{
    answers::{Spread, assert_not_now, on_each, readiness, timed, until},
    counts::count,
    deployment::Deployment,
    ledger::Agent,
    single_use::{Memory, SingleUse},
    writers::{Books, Expect, Writer},
};

#[test]
fn what_was_acknowledged_is_what_is_committed_across_kills_of_postgres() {
    let kills = count("FAULT_POSTGRES_KILLS", 6);
    let mut postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    let deployment = Deployment::of(2);
    let servers = deployment.start(database.url());
    let (spender, prober) = (Agent::spender(&servers[0]), Agent::spender(&servers[0]));
    let settings = Settings::default();
    let mut values = SingleUse::of(Memory::Stays, async || {
        PostgresStore::connect(database.url(), settings).await.expect("the database is there")
    });
    let books = Books::default();
    let (mut recovery, mut refusal) = (Spread::default(), Spread::default());
    let (mut writes, mut writing_time) = (0, Duration::ZERO);

    for round in 0..kills {
        thread::scope(|scope| {
            let presenting = values.present();
            let writing = books.open();
            let start = Stopwatch::start();
            for number in 0..WRITERS {
                for server in &servers {
                    let writer =
                        Writer { server, books: &books, spender: &spender, expect: Expect::StoreFails };
                    scope.spawn(move || writer.write(number));
                }
            }
            let token =
                text(&until(&servers[1], &prober.token_request(&servers[1]), 200).0.json()["access_token"])
                    .to_owned();
            // Different moments of a batch are hit in different rounds; a prime avoids a beat with anything.
            thread::sleep(Duration::from_millis(300 + round * 37 % 400));
            writes += books.take_steps();
            writing_time += start.elapsed();
            postgres.kill();
            for took in
                on_each(&servers, |server| everything_is_refused(server, &books, &spender, &prober, &token))
            {
                refusal.add(took);
            }
            postgres.restart();
            let up = Stopwatch::start();
            for server in &servers {
                until(server, &prober.token_request(server), 200);
                recovery.add(up.elapsed());
            }
            thread::sleep(Duration::from_millis(100));
            drop(writing);
            drop(presenting);
        });
        assert!(books.take_steps() > 0, "nothing was written after kill {round}");
        let mut ledger = books.ledger();
        ledger.settle_unknown_charges(&servers[0], &spender);
        for server in &servers {
            ledger.check_newest(server, &spender);
            ledger.auditor.keep_head(&server.acme());
            readiness(server, 200).expect(200);
        }
        drop(ledger);
        values.check();
    }

    let ledger = books.into_ledger();
    let rate = writes * 1000 / u64::try_from(writing_time.as_millis()).expect("fits").max(1);
    eprintln!(
        "{kills} kills of PostgreSQL under {rate} writes/s from 2 replicas: {}; {}; \
         first success after it accepts again: {recovery}; refusals: {refusal}",
        ledger.summary(),
        values.summary(),
    );
    for server in &servers {
        ledger.check_everything(server, &spender);
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
    assert!(recovery.max() < Duration::from_secs(10), "{recovery}");
}

/// Writers on each replica.
const WRITERS: u64 = 8;

/// While the database is gone nothing is allowed and nothing is promised. Gives how long the slowest answer took.
fn everything_is_refused(
    server: &Server,
    books: &Books,
    spender: &Agent,
    prober: &Agent,
    token: &str,
) -> Duration {
    let (key, name) = (unique("charge"), unique("Survivor"));
    {
        let mut ledger = books.ledger();
        ledger.keys.push(key.clone());
        ledger.unknown_keys.push(key.clone());
        ledger.attempted_agents.push(name.clone());
    }
    let org = server.acme();
    let requests = [
        prober.token_request(server),
        prober.question(server),
        prober.introspection(server, token),
        prober.introspection(server, &prober.token),
        prober.revocation(server, token),
        spender.charge(server, Some(&key)),
        org.admin("POST", "/agents").json(json!({ "name": name, "capabilities": ["read:a"] })),
        org.admin("GET", "/agents"),
        org.admin("GET", "/audit-logs"),
        org.get("/oauth/userinfo").bearer(&prober.token),
        org.get("/agents/me").bearer(&prober.token),
    ];
    let slowest = requests.iter().map(|request| assert_not_now(server, request)).max();
    let ready = readiness(server, 503);
    assert_eq!((ready.status, &ready.json()["store"]), (503, &json!("postgres")), "{ready}");
    assert_not_now(server, &server.request("GET", "/readyz"));
    timed(server, &server.request("GET", "/healthz")).0.expect(200);
    slowest.unwrap_or_default()
}
