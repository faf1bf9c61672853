//! SIGKILL of a Redis that keeps nothing on disk, under load from two replicas (security ST-06).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use lumoauth_store_redis::{RedisStore, Settings};
use lumoauth_tests::{
    Connection, Server, Stopwatch, avoid_hour_edge,
    services::{Database, Postgres, Redis, query},
};
use serde_json::json;

use crate::{
    answers::{LONGEST, Spread, assert_not_now, is_not_now, on_each, readiness, timed, until},
    counts::count,
    deployment::Deployment,
    ledger::Agent,
    single_use::{Memory, SingleUse},
};

#[test]
fn kills_of_redis_never_overspend_waste_little_and_accept_no_replay() {
    let kills = count("FAULT_REDIS_KILLS", 6);
    let postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    let mut redis = Redis::start();
    let deployment = Deployment::of(2);
    let servers = deployment.start(&format!("{}+{}", database.url(), redis.url()));
    let prober = Agent::create(&servers[0], &json!({ "max_api_calls_per_hour": 1_000_000 }));
    let mut values = SingleUse::of(Memory::Goes, async || {
        RedisStore::connect(&redis.url(), Settings::default()).await.expect("Redis is there")
    });
    let (mut recovery, mut refusal, mut waste) = (Spread::default(), Spread::default(), Vec::new());
    let mut admitted_in_all = 0;

    for round in 0..kills {
        avoid_hour_edge();
        let spender = Agent::create(&servers[0], &json!({ "max_api_calls_per_hour": LIMIT }));
        let admitted = AtomicU64::new(0);
        thread::scope(|scope| {
            let presenting = values.present();
            for server in servers.iter().cycle().take(usize::try_from(CALLERS).expect("a few")) {
                let (spender, admitted) = (&spender, &admitted);
                scope.spawn(move || ask_until_exhausted(server, spender, admitted));
            }
            // From the first slices to the last ones.
            while admitted.load(Ordering::Relaxed) < 1 + round * 61 % (LIMIT * 3 / 4) {
                thread::sleep(Duration::from_millis(1));
            }
            redis.kill();
            for took in on_each(&servers, |server| what_needs_redis_is_refused(server, &prober)) {
                refusal.add(took);
            }
            redis.restart();
            let up = Stopwatch::start();
            for server in &servers {
                until(server, &prober.question(server), 200);
                recovery.add(up.elapsed());
            }
            drop(presenting);
        });

        let admitted = admitted.into_inner();
        assert!(admitted <= LIMIT, "{admitted} of {LIMIT} calls were admitted");
        admitted_in_all += admitted;
        // Now that all is spent, what is debited and was not admitted is waste. Each caller may have had one call
        // under way whose answer is "unknown" and which counts.
        let wasted = LIMIT - admitted;
        waste.push(wasted);
        assert!(wasted <= WASTE + CALLERS, "{wasted} of {LIMIT} calls were wasted by one kill");
        let owner = spender.agent_id.trim_start_matches("agt_");
        let used = format!("SELECT sum(used) FROM budget_counter WHERE owner = '{owner}'");
        let debited = query(database.url(), &used);
        assert_eq!(debited, LIMIT.to_string());
        for server in &servers {
            assert_eq!(spender.calls(server), LIMIT, "what is wasted is shown as used");
            let refused = timed(server, &spender.question(server)).0;
            refused.refused(429, "budget_exceeded");
        }
        values.check();
    }
    eprintln!(
        "{kills} kills of Redis under the load of 2 replicas: {admitted_in_all} of {} calls admitted, \
         wasted per kill {waste:?}; {}; first success after it accepts again: {recovery}; refusals: {refusal}",
        LIMIT * kills,
        values.summary(),
    );
    for server in &servers {
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
    assert!(recovery.max() < Duration::from_secs(10), "{recovery}");
}

/// The calls that are under way when Redis dies reach the new one, which knows nothing: what was accepted a moment before
/// must not be accepted again.
#[test]
fn values_presented_while_redis_restarts_at_once_are_accepted_once() {
    let kills = count("FAULT_REDIS_RESTARTS", 20);
    let mut redis = Redis::start();
    let mut values = SingleUse::of(Memory::Goes, async || {
        RedisStore::connect(&redis.url(), Settings::default()).await.expect("Redis is there")
    });
    let mut gone = Spread::default();
    for round in 0..kills {
        let presenting = values.present();
        thread::sleep(Duration::from_millis(40 + round * 37 % 50));
        let watch = Stopwatch::start();
        redis.kill();
        redis.restart();
        gone.add(watch.elapsed());
        thread::sleep(Duration::from_millis(200));
        drop(presenting);
        values.check();
    }
    eprintln!("{kills} restarts of Redis without a pause, gone for {gone}: {}", values.summary());
}

const LIMIT: u64 = 400;

/// What one kill may waste of `LIMIT` single calls: the slice that is being spent and one that is under way, each at
/// most an eighth of the maximum.
const WASTE: u64 = 2 * LIMIT / 8;

const CALLERS: u64 = 12;

/// Calls until the limit is reached, which no fault may hide.
fn ask_until_exhausted(server: &Server, spender: &Agent, admitted: &AtomicU64) {
    let mut connection = Connection::open(server.authority()).expect("the server listens");
    let request = spender.question(server);
    let start = Stopwatch::start();
    loop {
        let watch = Stopwatch::start();
        let response = connection.send(&request).expect("the server answers");
        assert!(watch.elapsed() < LONGEST, "{:?}: {response}", watch.elapsed());
        match response.status {
            200 => {
                admitted.fetch_add(1, Ordering::Relaxed);
            }
            429 => {
                response.refused(429, "budget_exceeded");
                return;
            }
            _ => {
                assert!(is_not_now(&response), "{response}");
                thread::sleep(Duration::from_millis(10));
            }
        }
        assert!(start.elapsed() < Duration::from_secs(120), "the limit is never reached");
    }
}

/// What counts is refused without Redis; what does not is served.
fn what_needs_redis_is_refused(server: &Server, prober: &Agent) -> Duration {
    let question = assert_not_now(server, &prober.question(server));
    let charge = assert_not_now(server, &prober.charge(server, None));
    let ready = readiness(server, 503);
    assert_eq!((ready.status, &ready.json()["store"]), (503, &json!("redis")), "{ready}");
    timed(server, &prober.token_request(server)).0.ok();
    assert_eq!(timed(server, &prober.introspection(server, &prober.token)).0.ok()["active"], true);
    timed(server, &server.acme().admin("GET", "/agents")).0.ok();
    question.max(charge)
}
