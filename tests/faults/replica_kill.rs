//! SIGKILL of one of two replicas under load: the other one notices nothing (security ST-09).

use std::{thread, time::Duration};

use lumoauth_tests::{
    Server, Stopwatch,
    services::{Database, Postgres},
};

use crate::{
    answers::Spread,
    counts::count,
    deployment::Deployment,
    kill::kill,
    ledger::Agent,
    writers::{Books, Expect, Writer},
};

#[test]
fn nothing_acknowledged_is_lost_across_kills_of_a_replica_and_the_other_one_serves_on() {
    let kills = count("FAULT_REPLICA_KILLS", 5);
    let postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    let deployment = Deployment::of(2);
    let mut servers = deployment.start(database.url());
    let variables = servers[0].variables().clone();
    let spender = Agent::spender(&servers[0]);
    let books = Books::default();
    let (mut writes, mut restart) = (0, Spread::default());

    for round in 0..kills {
        let victim = usize::from(round % 2 == 1);
        thread::scope(|scope| {
            let writing = books.open();
            for number in 0..WRITERS {
                for (place, server) in servers.iter().enumerate() {
                    let expect = if place == victim { Expect::ServerDies } else { Expect::Nothing };
                    let writer = Writer { server, books: &books, spender: &spender, expect };
                    scope.spawn(move || writer.write(number));
                }
            }
            thread::sleep(Duration::from_millis(250 + round * 37 % 400));
            kill(servers[victim].pid());
            books.take_steps();
            // What the dead one left half done must not hold up the living one.
            thread::sleep(Duration::from_millis(250));
            let steps = books.take_steps();
            assert!(steps > 0, "the other replica stands still after kill {round}");
            writes += steps;
            drop(writing);
        });
        servers.remove(victim).kill();
        let watch = Stopwatch::start();
        servers.insert(victim, Server::start(&deployment.options(victim, database.url())));
        restart.add(watch.elapsed());
        assert_eq!(servers[victim].variables(), &variables, "the same credentials after kill {round}");
        let mut ledger = books.ledger();
        ledger.settle_unknown_charges(&servers[victim], &spender);
        for server in &servers {
            ledger.check_newest(server, &spender);
            ledger.auditor.keep_head(&server.acme());
        }
    }

    let ledger = books.into_ledger();
    eprintln!(
        "{kills} kills of one of 2 replicas: {}; {writes} writes in the quarter of a second after; \
         started again within: {restart}",
        ledger.summary()
    );
    for server in &servers {
        ledger.check_everything(server, &spender);
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
}

/// Writers on each replica.
const WRITERS: u64 = 6;
