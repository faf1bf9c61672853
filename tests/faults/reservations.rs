//! Reservations under SIGKILLs of a server, of a replica, of PostgreSQL and of Redis (security BU-08, BU-09, BU-11, ST-01, ST-06): what
//! was acknowledged is known, nothing is counted twice, and never more than fits.
//!
//! `FAULT_RESERVATION_KILLS` says how many kills of each.

use std::{env, fs, thread, time::Duration};

use lumoauth_tests::{
    Request, Server, Stopwatch,
    services::{Database, Postgres, Redis, query},
    unique,
};
use serde_json::json;

use crate::{
    answers::{Spread, until},
    counts::count,
    deployment::Deployment,
    kill::{kill, start},
    ledger::Agent,
    reserver::{Book, Loss, MAX, MAX_MICRO, PARKED, Reserver, THRESHOLD, Tally, park},
    writers::Expect,
};

const KILLS: &str = "FAULT_RESERVATION_KILLS";

/// Reservers in all; what half of them hold is more than fits.
const RESERVERS: usize = 16;

/// An agent whose maximum is reached by what is held at one time.
fn spender(server: &Server) -> Agent {
    let policy = json!({ "max_cost_per_month_usd": MAX, "require_approval_above_usd": THRESHOLD });
    Agent::create(server, &policy)
}

/// Reserves through one server and resolves through another, in every combination, while `fault` runs.
fn under_load(
    servers: &[Server],
    spender: &Agent,
    book: &Book,
    expect: impl Fn(usize) -> Expect + Sync,
    fault: impl FnOnce(),
) {
    thread::scope(|scope| {
        let load = book.open();
        for number in 0..RESERVERS {
            let [one, other] = [number % servers.len(), number / servers.len() % servers.len()];
            let expect = [expect(one), expect(other)];
            let reserver = Reserver { servers: [&servers[one], &servers[other]], spender, book, expect };
            scope.spawn(move || reserver.reserve(number));
        }
        fault();
        drop(load);
    });
}

/// Reservations while a store is away and after it; the time until `probe` succeeds again.
fn across_an_outage(
    servers: &[Server],
    spender: &Agent,
    book: &Book,
    probe: &Request,
    outage: impl FnOnce(),
) -> Duration {
    let mut recovery = Duration::ZERO;
    let fault = || {
        outage();
        let up = Stopwatch::start();
        until(&servers[0], probe, 200);
        recovery = up.elapsed();
        book.take_steps();
        thread::sleep(Duration::from_millis(300));
    };
    under_load(servers, spender, book, |_| Expect::StoreFails, fault);
    assert!(book.take_steps() > 0, "nothing was reserved after it was back");
    recovery
}

#[test]
fn reservations_survive_kills_of_a_server_on_its_file() {
    let kills = count(KILLS, 4);
    let dir = env::temp_dir().join(unique("lumoauth-reservations"));
    let mut servers = vec![start(&dir, "127.0.0.1:0")];
    let address = servers[0].authority().to_owned();
    let mut sum = Tally::default();
    for round in 0..kills {
        let (spender, book) = (spender(&servers[0]), Book::default());
        let parked = park(&servers[0], &spender);
        let expect = |_| Expect::ServerDies;
        under_load(&servers, &spender, &book, expect, || {
            thread::sleep(Duration::from_millis(150 + round * 37 % 300));
            kill(servers[0].pid());
        });
        assert!(book.take_steps() > 0, "round {round} made no progress");
        servers.remove(0).kill();
        servers.push(start(&dir, &address));
        still_parked(&servers, &spender, &parked);
        sum.add(&servers, &spender, book, Loss::Nothing);
    }
    eprintln!("{kills} kills of a server on its file under reservations: {sum}");
    quiet(&servers);
    drop(servers);
    fs::remove_dir_all(&dir).expect("the directory can go");
}

#[test]
fn reservations_survive_kills_of_a_replica() {
    let kills = count(KILLS, 4);
    let postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    let deployment = Deployment::of(2);
    let mut servers = deployment.start(database.url());
    let mut sum = Tally::default();
    for round in 0..kills {
        let victim = usize::from(round % 2 == 1);
        let (spender, book) = (spender(&servers[0]), Book::default());
        let expect = |server| if server == victim { Expect::ServerDies } else { Expect::Nothing };
        under_load(&servers, &spender, &book, expect, || {
            thread::sleep(Duration::from_millis(200 + round * 37 % 300));
            kill(servers[victim].pid());
            book.take_steps();
            thread::sleep(Duration::from_millis(200));
            assert!(book.take_steps() > 0, "the other replica stands still after kill {round}");
        });
        servers.remove(victim).kill();
        servers.insert(victim, Server::start(&deployment.options(victim, database.url())));
        sum.add(&servers, &spender, book, Loss::Nothing);
    }
    eprintln!("{kills} kills of one of 2 replicas under reservations: {sum}");
    quiet(&servers);
}

#[test]
fn reservations_survive_kills_of_postgres() {
    let kills = count(KILLS, 4);
    let mut postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    let deployment = Deployment::of(2);
    let servers = deployment.start(database.url());
    let (mut sum, mut recovery) = (Tally::default(), Spread::default());
    for round in 0..kills {
        let (spender, book) = (spender(&servers[0]), Book::default());
        let parked = park(&servers[0], &spender);
        let probe = spender.token_request(&servers[0]);
        recovery.add(across_an_outage(&servers, &spender, &book, &probe, || {
            thread::sleep(Duration::from_millis(200 + round * 37 % 300));
            postgres.kill();
            thread::sleep(Duration::from_millis(50));
            postgres.restart();
        }));
        still_parked(&servers, &spender, &parked);
        sum.add(&servers, &spender, book, Loss::Nothing);
    }
    eprintln!(
        "{kills} kills of PostgreSQL under reservations of 2 replicas: {sum}; \
         first success after it accepts again: {recovery}"
    );
    quiet(&servers);
}

#[test]
fn reservations_are_never_overspent_across_kills_of_redis() {
    let kills = count(KILLS, 4);
    let postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    let mut redis = Redis::start();
    let deployment = Deployment::of(2);
    let servers = deployment.start(&format!("{}+{}", database.url(), redis.url()));
    let prober = Agent::spender(&servers[0]);
    let (mut sum, mut recovery) = (Tally::default(), Spread::default());
    for round in 0..kills {
        let (spender, book) = (spender(&servers[0]), Book::default());
        let parked = park(&servers[0], &spender);
        let probe = prober.charge(&servers[0], None);
        recovery.add(across_an_outage(&servers, &spender, &book, &probe, || {
            thread::sleep(Duration::from_millis(200 + round * 37 % 300));
            redis.kill();
            thread::sleep(Duration::from_millis(50));
            redis.restart();
        }));
        for server in &servers {
            until(server, &spender.reservation(server, "GET", &parked, ""), 404);
            until(server, &spender.reservation(server, "POST", &parked, "/release"), 404);
            assert!(spender.used(server) >= PARKED, "what is lost counts as spent");
        }
        sum.add(&servers, &spender, book, Loss::OfWhatWasThere);
        let owner = spender.agent_id.trim_start_matches("agt_");
        let debited = format!("SELECT sum(used) FROM budget_counter WHERE owner = '{owner}' AND meter = 3");
        let debited: u64 = query(database.url(), &debited).parse().expect("a number");
        assert!(debited <= MAX_MICRO, "{debited}");
    }
    eprintln!(
        "{kills} kills of Redis under reservations of 2 replicas: {sum}; \
         first success after it accepts again: {recovery}"
    );
    quiet(&servers);
}

/// What waits for a human still waits, and still holds its amount, until it is freed.
fn still_parked(servers: &[Server], spender: &Agent, parked: &str) {
    for server in servers {
        let found = until(server, &spender.reservation(server, "GET", parked, ""), 200).0.json();
        assert_eq!(found["status"], "pending_approval", "{found}");
        assert!(spender.used(server) >= PARKED, "what is parked is held");
    }
    let server = &servers[servers.len() - 1];
    until(server, &spender.reservation(server, "POST", parked, "/release"), 200);
}

/// Nothing went wrong that no client was told of.
fn quiet(servers: &[Server]) {
    for server in servers {
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
}
