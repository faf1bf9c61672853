//! A full disk under the database (security ST-11).

use std::{fs, os::unix::fs::symlink, process::Command, thread, time::Duration};

use lumoauth_tests::{
    Server, Stopwatch,
    services::{Postgres, query},
    unique,
};
use serde_json::json;

use crate::{
    answers::{LONGEST, Spread, is_not_now, timed, until},
    deployment::Deployment,
    ledger::Agent,
    small_disk::SmallDisk,
    writers::{Books, Expect, Writer},
};

#[test]
fn writes_are_refused_while_the_data_disk_is_full_and_reads_are_served() {
    let postgres = Postgres::start();
    let disk = SmallDisk::mount(40, &postgres.dir().join("data"));
    // PostgreSQL must be gone before its disk is.
    let postgres = postgres;
    let admin = postgres.url("postgres");
    query(&admin, &format!("CREATE TABLESPACE small LOCATION '{}'", disk.path().display()));
    query(&admin, "CREATE DATABASE on_small_disk TABLESPACE small");
    let deployment = Deployment::of(1);
    let [server] = &*deployment.start(&postgres.url("on_small_disk")) else { panic!("one server") };
    let (spender, books) = (Agent::spender(server), Books::default());
    under_load(server, &books, &spender, 4, || thread::sleep(Duration::from_millis(300)));

    disk.fill();
    let mut refusal = Spread::default();
    let mut written = 0;
    // Pages that are there already have room for some rows.
    let full = Stopwatch::start();
    let mut in_a_row = 0;
    while in_a_row < 5 {
        assert!(full.elapsed() < Duration::from_secs(60), "{written} agents fit on a full disk");
        let (refused, took) = try_to_create(server, &books);
        in_a_row = if refused { in_a_row + 1 } else { 0 };
        written += u64::from(!refused);
        if refused {
            refusal.add(took);
        }
    }
    for request in [
        spender.introspection(server, &spender.token),
        server.acme().admin("GET", "/agents"),
        server.acme().get("/oauth/userinfo").bearer(&spender.token),
        server.acme().get("/.well-known/jwks.json"),
        server.request("GET", "/readyz"),
    ] {
        let (response, took) = timed(server, &request);
        assert_eq!(response.status, 200, "reads are served: {response}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    under_load(server, &books, &spender, 8, || thread::sleep(Duration::from_secs(1)));

    disk.empty();
    let members = json!({ "name": unique("Later"), "capabilities": ["read:a"] });
    let (_, recovery) = until(server, &server.acme().admin("POST", "/agents").json(members), 201);
    assert!(recovery < Duration::from_secs(10), "{recovery:?}");
    under_load(server, &books, &spender, 4, || thread::sleep(Duration::from_millis(300)));

    let mut ledger = books.into_ledger();
    ledger.settle_unknown_charges(server, &spender);
    ledger.check_newest(server, &spender);
    eprintln!(
        "full data disk: {written} agents fitted, then refused, {refusal}; first success {} ms after it was emptied; {}",
        recovery.as_millis(),
        ledger.summary()
    );
    ledger.check_everything(server, &spender);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    drop(postgres);
    drop(disk);
}

#[test]
fn a_database_that_stops_for_want_of_log_space_comes_back_with_all_that_was_acknowledged() {
    let mut postgres = Postgres::start_with(&["max_wal_size=32MB", "min_wal_size=32MB"]);
    let data = postgres.dir().join("data");
    let disk = SmallDisk::mount(150, &data);
    postgres.stop();
    let (wal, kept) = (data.join("pg_wal"), disk.path().join("pg_wal"));
    let copied = Command::new("cp").arg("-a").arg(&wal).arg(&kept).status();
    assert!(copied.is_ok_and(|status| status.success()), "the log can be moved");
    fs::remove_dir_all(&wal).expect("the log can be moved");
    symlink(&kept, &wal).expect("a link");
    postgres.restart();
    query(&postgres.url("postgres"), "CREATE DATABASE with_small_log");
    let url = postgres.url("with_small_log");
    let deployment = Deployment::of(1);
    let [server] = &*deployment.start(&url) else { panic!("one server") };
    let (spender, books) = (Agent::spender(server), Books::default());

    let took = under_load(server, &books, &spender, 8, || {
        thread::sleep(Duration::from_millis(300));
        disk.fill();
        // What goes on until the next piece of the log is needed is nobody's fault; this makes it come soon.
        let filling = Stopwatch::start();
        while books.take_steps() > 0 || !postgres.log().contains("No space left on device") {
            assert!(
                filling.elapsed() < Duration::from_secs(60),
                "the log never gets full: {}",
                postgres.log()
            );
            let _ = Command::new("psql")
                .args(["-X", "-q", "-c", "SELECT pg_switch_wal()", &url])
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .status();
            thread::sleep(Duration::from_millis(200));
        }
        let (response, took) = timed(server, &spender.token_request(server));
        assert!(is_not_now(&response), "{response}");
        disk.empty();
        took
    });
    // It may have come up by itself, or have given up.
    postgres.kill();
    postgres.restart();
    let (_, recovery) = until(server, &spender.charge(server, None), 200);
    assert!(recovery < Duration::from_secs(10), "{recovery:?}");
    books.ledger().attempted_charges += 1;
    books.ledger().charges += 1;
    under_load(server, &books, &spender, 4, || thread::sleep(Duration::from_millis(300)));

    let mut ledger = books.into_ledger();
    ledger.settle_unknown_charges(server, &spender);
    ledger.check_newest(server, &spender);
    eprintln!(
        "full log disk: refused after {} ms; first success {} ms after PostgreSQL accepts again; {}",
        took.as_millis(),
        recovery.as_millis(),
        ledger.summary()
    );
    ledger.check_everything(server, &spender);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    drop(postgres);
    drop(disk);
}

/// Does `work` while writers write.
fn under_load<T>(
    server: &Server,
    books: &Books,
    spender: &Agent,
    writers: u64,
    work: impl FnOnce() -> T,
) -> T {
    thread::scope(|scope| {
        let writing = books.open();
        for number in 0..writers {
            let writer = Writer { server, books, spender, expect: Expect::StoreFails };
            scope.spawn(move || writer.write(number));
        }
        let done = work();
        drop(writing);
        done
    })
}

/// Whether it was refused, and how long that took.
fn try_to_create(server: &Server, books: &Books) -> (bool, Duration) {
    let name = unique("Survivor");
    books.ledger().attempted_agents.push(name.clone());
    // A row that does not fit into what small rows leave.
    let members = json!({ "name": name, "description": "d".repeat(900), "capabilities": ["read:a"] });
    let (response, took) = timed(server, &server.acme().admin("POST", "/agents").json(members));
    assert!(took < LONGEST, "{took:?}: {response}");
    let refused = is_not_now(&response);
    assert!(refused || response.status == 201, "{response}");
    (refused, took)
}
