//! Clients that send a charge and hang up at once, in the middle of everybody's batches: the honest ones notice nothing,
//! and what the others sent is made once or not at all.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::TcpStream,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use lumoauth_tests::{
    Server, Stopwatch,
    services::{Database, Postgres, query},
    unique,
};

use crate::{
    answers::{LONGEST, Spread, timed},
    counts::count,
    deployment::Deployment,
    ledger::Agent,
};

#[test]
fn clients_that_hang_up_disturb_nobody_and_are_charged_at_most_once() {
    let calls = count("FAULT_HANG_UPS", 300);
    let postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    let deployment = Deployment::of(2);
    let servers = deployment.start(database.url());
    let spender = Agent::spender(&servers[0]);
    let (honest, rude) = (AtomicU64::new(0), AtomicU64::new(0));
    let (keys, took) = (Mutex::new(Vec::new()), Mutex::new(Spread::default()));

    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let server = &servers[usize::try_from(client % 2).expect("fits")];
            let (spender, honest, rude, keys, took) = (&spender, &honest, &rude, &keys, &took);
            scope.spawn(move || {
                for call in 0..calls / CLIENTS {
                    if client % 4 < 2 {
                        let key = unique("honest");
                        let key = (call % 2 == 0).then_some(&*key);
                        let (response, one) = timed(server, &spender.charge(server, key));
                        response.ok();
                        took.lock().expect("no panic").add(one);
                        honest.fetch_add(1, Ordering::Relaxed);
                    } else if call % 2 == 0 {
                        hang_up(server, spender, None, client + call);
                        rude.fetch_add(1, Ordering::Relaxed);
                    } else {
                        let key = unique("rude");
                        hang_up(server, spender, Some(&key), client + call);
                        keys.lock().expect("no panic").push(key);
                    }
                }
            });
        }
    });
    let took = took.into_inner().expect("no panic");
    assert!(took.max() < LONGEST, "{took}");

    // Whatever is under way comes to its end.
    let used = settled(&servers[1], &spender);
    let (honest, rude) = (honest.into_inner(), rude.into_inner());
    let keys = keys.into_inner().expect("no panic");
    let keyed = u64::try_from(keys.len()).expect("fits");
    assert!(
        (honest..=honest + rude + keyed).contains(&used),
        "{used}: {honest} honest, {rude} rude, {keyed} keyed"
    );
    for key in &keys {
        for server in &servers {
            timed(server, &spender.charge(server, Some(key))).0.ok();
        }
    }
    let finally = settled(&servers[0], &spender);
    assert!(
        (honest + keyed..=honest + keyed + rude).contains(&finally) && finally >= used,
        "{finally}: {honest} honest, {rude} rude, {keyed} keyed"
    );
    let stuck = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lumoauth' AND state <> 'idle' \
        AND state_change < clock_timestamp() - interval '5 s'";
    assert_eq!(query(database.url(), stuck), "0", "a session is stuck");
    eprintln!(
        "{} clients hung up, {honest} did not: all of them were charged, {took}; {} of the others were before they \
         repeated, all {keyed} with a key once after",
        rude + keyed,
        used - honest,
    );
    for server in &servers {
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
}

const CLIENTS: u64 = 20;

/// Sends a whole charge, waits for a moment that is another one each time, and closes the connection.
fn hang_up(server: &Server, spender: &Agent, key: Option<&str>, moment: u64) {
    let mut body = r#"{"cost_usd":0.000001"#.to_owned();
    if let Some(key) = key {
        let _ = write!(body, r#","idempotency_key":"{key}""#);
    }
    body.push('}');
    let request = format!(
        "POST /orgs/{}/api/v1/agents/me/usage HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        server.acme().slug(),
        server.authority(),
        spender.token,
        body.len()
    );
    let mut stream = TcpStream::connect(server.authority()).expect("the server listens");
    stream.write_all(request.as_bytes()).expect("the server reads");
    thread::sleep(Duration::from_micros(moment * 397 % 40_000));
}

/// What is shown as used, once it no longer changes.
fn settled(server: &Server, spender: &Agent) -> u64 {
    let watch = Stopwatch::start();
    let mut before = spender.used(server);
    loop {
        thread::sleep(Duration::from_millis(500));
        let used = spender.used(server);
        if used == before {
            return used;
        }
        assert!(watch.elapsed() < Duration::from_secs(30), "it does not come to an end");
        before = used;
    }
}
