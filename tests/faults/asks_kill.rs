//! SIGKILL right after an answer of a person is written, and right before (security JI-12): the agent sees the answer, or
//! that there is none, and never half of it.

use std::{env, thread, time::Duration};

use lumoauth_tests::{
    Auditor, Backend, Options, Server, Stopwatch,
    services::{Database, Postgres, query},
    unique,
};

use crate::{
    answers::readiness,
    asks::{Asks, Fates},
    counts::count,
    deployment::Deployment,
    kill::kill,
};

/// How many answers are acknowledged before the kill: another number in each round, from none to nearly all.
fn acknowledged(round: u64) -> usize {
    usize::try_from(round * 7 % 20).expect("small")
}

#[test]
fn answers_of_people_are_there_or_not_across_kills_of_the_server() {
    let kills = count("FAULT_ANSWER_KILLS", 6);
    let dir = env::temp_dir().join(unique("lumoauth-answers"));
    let options =
        |address: &str| Options::new(Backend::Embedded).dir(&dir).listen(address).knowing_our_sites();
    let mut server = Server::start(&options("127.0.0.1:0"));
    let address = server.authority().to_owned();
    let (mut auditor, mut fates) = (Auditor::default(), Fates::default());
    for round in 0..kills {
        let mut asks = Asks::ask(&server);
        auditor.keep_head(&server.acme());
        asks.answer(&server, acknowledged(round), || kill(server.pid()));
        server.kill();
        server = Server::start(&options(&address));
        fates.add(&asks.check(&server, &auditor));
    }
    eprintln!("{kills} kills of a server on its file: {fates}");
    assert!(!server.log().contains("panicked"), "{}", server.log());
    drop(server);
    std::fs::remove_dir_all(&dir).expect("the directory can go");
}

#[test]
fn answers_of_people_are_there_or_not_across_kills_of_a_replica() {
    let kills = count("FAULT_ANSWER_KILLS", 6);
    let postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    let deployment = Deployment::of(2);
    let options = |number: usize| deployment.options(number, database.url()).knowing_our_sites();
    let mut servers: Vec<Server> = (0..2).map(|number| Server::start(&options(number))).collect();
    let (mut auditor, mut fates) = (Auditor::default(), Fates::default());
    for round in 0..kills {
        let victim = usize::from(round % 2 == 1);
        let mut asks = Asks::ask(&servers[0]);
        auditor.keep_head(&servers[1].acme());
        let dying = &servers[victim];
        asks.answer(dying, acknowledged(round), || kill(dying.pid()));
        servers.remove(victim).kill();
        // The other one is asked first: it was never away.
        fates.add(&asks.check(&servers[0], &auditor));
        servers.insert(victim, Server::start(&options(victim)));
        assert!(!servers[1 - victim].log().contains("panicked"), "{}", servers[1 - victim].log());
    }
    eprintln!("{kills} kills of one of 2 replicas: {fates}");
}

#[test]
fn answers_of_people_are_there_or_not_across_kills_of_postgres() {
    let kills = count("FAULT_ANSWER_KILLS", 6);
    let mut postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    let server = Server::start(&Options::new(Backend::Memory).store(database.url()).knowing_our_sites());
    let (mut auditor, mut fates) = (Auditor::default(), Fates::default());
    for round in 0..kills {
        let mut asks = Asks::ask(&server);
        auditor.keep_head(&server.acme());
        asks.answer(&server, acknowledged(round), || postgres.kill());
        postgres.restart();
        readiness(&server, 200).expect(200);
        fates.add(&asks.check(&server, &auditor));
    }
    eprintln!("{kills} kills of PostgreSQL: {fates}");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// The answers wait in the database, in the statement that writes them, when the server dies and its sessions with it.
#[test]
fn what_is_killed_before_its_commit_is_pending() {
    let postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    let deployment = Deployment::of(2);
    let options = |number: usize| deployment.options(number, database.url()).knowing_our_sites();
    let (dying, other) = (Server::start(&options(0)), Server::start(&options(1)));
    let mut auditor = Auditor::default();
    let mut asks = Asks::ask(&dying);
    auditor.keep_head(&other.acme());
    thread::scope(|scope| {
        // Whoever reads goes on, whoever writes waits.
        let held = "BEGIN; LOCK TABLE approval, jit_request IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep(6)";
        let holding = scope.spawn(|| query(database.url(), held));
        until_there_is(&database, "wait_event = 'PgSleep'");
        asks.answer(&dying, 0, || {
            until_there_is(&database, "wait_event_type = 'Lock' AND query LIKE '%UPDATE approval %'");
            until_there_is(&database, "wait_event_type = 'Lock' AND query LIKE 'UPDATE jit_request %'");
            kill(dying.pid());
            // A session that waits does not notice that nobody is there any more.
            let waiting =
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            assert!(query(database.url(), waiting).contains('t'));
            assert!(!holding.is_finished(), "the tables were not held to the end");
        });
        holding.join().expect("no panic");
    });
    dying.kill();
    let fates = asks.check(&other, &auditor);
    eprintln!("killed before the commit: {fates}");
    assert_eq!((fates.told, fates.unknown_done), (0, 0), "{fates}");
    assert!(fates.unknown_pending >= 2, "{fates}");
}

/// Waits for a session that is so.
fn until_there_is(database: &Database, session: &str) {
    let there = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND {session}"
    );
    let watch = Stopwatch::start();
    while query(database.url(), &there) == "0" {
        assert!(watch.elapsed() < Duration::from_secs(5), "no session: {session}");
        thread::sleep(Duration::from_millis(10));
    }
}
