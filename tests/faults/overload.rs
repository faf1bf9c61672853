//! A database that is slow, stalls, or has no connection left: every answer comes in time, and when it is over
//! everything is as before (security ST-07, ST-12, ST-13).

use std::{
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use lumoauth_core::{
    id::OrgId,
    store::{OrganizationStore, StoreError},
};
use lumoauth_store_postgres::{PostgresStore, Settings};
use lumoauth_tests::{
    Server, Stopwatch,
    services::{Database, Postgres, Proxy, Redis, query},
    unique,
};
use tokio::runtime::Runtime;

use crate::{
    answers::{LONGEST, Spread, is_not_now, timed, until},
    counts::count,
    deployment::Deployment,
    ledger::Agent,
    single_use::assert_unavailable,
};

#[test]
fn five_hundred_callers_of_five_stalled_connections_are_answered_in_time() {
    let callers = count("FAULT_CALLERS", 500);
    let postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    let proxy = Proxy::start(postgres.address());
    let url = postgres.url_at(proxy.address(), database.name());
    let settings = Settings::default().with_max_connections(5);
    let org = OrgId::parse(&unique("pool")).expect("letters, digits and `-`");
    Runtime::new().expect("a runtime").block_on(async {
        PostgresStore::migrate(&url).await.expect("the database is there");
        let store = Arc::new(PostgresStore::connect(&url, settings).await.expect("the database is there"));
        assert_eq!(all_ask(&store, &org, callers).await.0, callers);
        proxy.stall();
        let (served, took) = all_ask(&store, &org, callers).await;
        proxy.resume();
        assert_eq!(served, 0, "nobody can have been served");
        let limit = settings.acquire_timeout * 2 + settings.statement_timeout * 2 + Duration::from_secs(4);
        assert!(took.max() < limit, "{took}");

        let watch = Stopwatch::start();
        while let Err(error) = OrganizationStore::find(&*store, &org).await {
            assert_unavailable(&error);
            assert!(watch.elapsed() < Duration::from_secs(10), "it does not recover");
        }
        let recovery = watch.elapsed();
        assert_eq!(all_ask(&store, &org, callers).await.0, callers);
        eprintln!(
            "{callers} callers of 5 stalled connections: all refused, {took}; first success {} ms later",
            recovery.as_millis()
        );
    });
    let sessions =
        query(database.url(), "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lumoauth'");
    assert!(sessions.parse::<u32>().expect("a number") <= 6, "{sessions} sessions");
}

/// Has `callers` ask the store at the same time. Gives how many were served, and how long they waited.
async fn all_ask(store: &Arc<PostgresStore>, org: &OrgId, callers: u64) -> (u64, Spread) {
    let calls = (0..callers).map(|_| {
        let (store, org) = (store.clone(), org.clone());
        tokio::spawn(async move {
            let watch = Stopwatch::start();
            let answer: Result<_, StoreError> = OrganizationStore::find(&*store, &org).await;
            if let Err(error) = &answer {
                assert_unavailable(error);
            }
            (answer.is_ok(), watch.elapsed())
        })
    });
    let (mut served, mut took) = (0, Spread::default());
    for call in calls.collect::<Vec<_>>() {
        let (ok, elapsed) = call.await.expect("no panic");
        served += u64::from(ok);
        took.add(elapsed);
    }
    (served, took)
}

/// A server on a database that a proxy can disturb.
struct Disturbed {
    server: Server,
    proxy: Proxy,
    database: Database,
    _deployment: Deployment,
    _postgres: Postgres,
    spender: Agent,
}

impl Disturbed {
    fn start() -> Self {
        let postgres = Postgres::start();
        let database = Database::create_in(&postgres);
        let proxy = Proxy::start(postgres.address());
        let deployment = Deployment::of(1);
        let server = deployment.start(&postgres.url_at(proxy.address(), database.name())).remove(0);
        let spender = Agent::spender(&server);
        Self { server, proxy, database, _deployment: deployment, _postgres: postgres, spender }
    }

    /// Has `callers` ask for a token, make a charge or look at the list of agents, all at the same time. Gives how
    /// many were served, and how long they waited.
    fn all_ask(&self, callers: u64) -> (u64, Spread) {
        let barrier = Barrier::new(usize::try_from(callers).expect("fits"));
        thread::scope(|scope| {
            let call = |number: u64| {
                let request = match number % 4 {
                    0 => self.spender.token_request(&self.server),
                    1 => self.spender.charge(&self.server, None),
                    2 => self.spender.introspection(&self.server, &self.spender.token),
                    _ => self.server.acme().admin("GET", "/agents"),
                };
                barrier.wait();
                let (response, took) = timed(&self.server, &request);
                let refused = is_not_now(&response);
                assert!(refused || response.status == 200, "{response}");
                (!refused, took)
            };
            let handles: Vec<_> = (0..callers).map(|number| scope.spawn(move || call(number))).collect();
            let (mut served, mut took) = (0, Spread::default());
            for handle in handles {
                let (ok, elapsed) = handle.join().expect("no panic");
                served += u64::from(ok);
                took.add(elapsed);
            }
            (served, took)
        })
    }

    /// After the fault: how long until the first success, and then everybody is served, and nothing is left over.
    fn recovers(&self, callers: u64) -> Duration {
        let (_, recovery) = until(&self.server, &self.spender.token_request(&self.server), 200);
        assert!(recovery < Duration::from_secs(10), "{recovery:?}");
        until(&self.server, &self.spender.charge(&self.server, None), 200);
        let (served, took) = self.all_ask(callers);
        assert_eq!(served, callers, "{took}");
        let stuck = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lumoauth' \
            AND state <> 'idle' AND state_change < clock_timestamp() - interval '5 s'";
        assert_eq!(query(self.database.url(), stuck), "0", "a session is stuck");
        let all = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lumoauth'";
        let sessions: u32 = query(self.database.url(), all).parse().expect("a number");
        assert!(sessions <= 20, "{sessions} sessions");
        assert!(!self.server.log().contains("panicked"), "{}", self.server.log());
        recovery
    }
}

#[test]
fn a_stalled_database_is_answered_with_503_in_time_to_five_hundred_callers() {
    let callers = count("FAULT_CALLERS", 500);
    let disturbed = Disturbed::start();
    disturbed.proxy.stall();
    let (served, took) = disturbed.all_ask(callers);
    assert_eq!(served, 0, "nobody can have been served");
    assert!(took.max() < LONGEST, "{took}");
    timed(&disturbed.server, &disturbed.server.request("GET", "/healthz")).0.expect(200);
    disturbed.proxy.resume();
    let recovery = disturbed.recovers(callers.min(100));
    eprintln!(
        "{callers} callers of a server on a stalled database: all refused, {took}; first success {} ms later",
        recovery.as_millis()
    );
}

#[test]
fn a_database_that_answers_five_seconds_late_is_answered_with_503_in_time() {
    let disturbed = Disturbed::start();
    disturbed.proxy.delay(Duration::from_secs(5));
    let (served, took) = disturbed.all_ask(40);
    assert_eq!(served, 0, "nobody can have been served");
    assert!(took.max() < LONGEST, "{took}");
    disturbed.proxy.delay(Duration::ZERO);
    let recovery = disturbed.recovers(40);
    eprintln!(
        "a database that is 5 s late: 40 callers refused, {took}; first success {} ms later",
        recovery.as_millis()
    );
}

#[test]
fn a_row_that_is_locked_for_five_seconds_holds_up_only_those_who_need_it() {
    let disturbed = Disturbed::start();
    let (server, spender) = (&disturbed.server, &disturbed.spender);
    timed(server, &spender.charge(server, None)).0.ok();
    thread::scope(|scope| {
        let lock =
            "SELECT count(*) FROM (SELECT 1 FROM budget_counter FOR UPDATE) AS locked; SELECT pg_sleep(5)";
        let holder = scope.spawn(|| query(disturbed.database.url(), lock));
        let locked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        while query(disturbed.database.url(), locked) == "0" {
            assert!(!holder.is_finished(), "the row is not locked");
        }
        let (response, took) = timed(server, &spender.charge(server, None));
        assert!(is_not_now(&response), "{response}");
        assert!(took < LONGEST, "{took:?}");
        // Another batch, another row, and what only reads.
        for request in [
            spender.token_request(server),
            spender.introspection(server, &spender.token),
            server.acme().admin("GET", "/agents"),
        ] {
            let (response, took) = timed(server, &request);
            assert_eq!(response.status, 200, "{response}");
            assert!(took < Duration::from_secs(2), "{took:?}: {response}");
        }
        holder.join().expect("the lock is released");
        let (_, recovery) = until(server, &spender.charge(server, None), 200);
        eprintln!(
            "a counter that is locked for 5 s: refused after {} ms, charged {} ms after its release",
            took.as_millis(),
            recovery.as_millis()
        );
    });
    disturbed.recovers(40);
    // The refused charge was never made: its transaction was given up while it waited.
    let used = spender.used(server);
    let made = 1 + 1 + 1 + 10;
    assert!((made..=made + 1).contains(&used), "{used} used");
}

#[test]
fn a_stalled_redis_holds_up_only_what_counts() {
    let callers = count("FAULT_CALLERS", 500);
    let postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    let redis = Redis::start();
    let proxy = Proxy::start(redis.address());
    let deployment = Deployment::of(1);
    let store = format!("{}+{}", database.url(), redis.url_at(proxy.address()));
    let server = &deployment.start(&store)[0];
    let spender = Agent::spender(server);
    timed(server, &spender.charge(server, None)).0.ok();
    proxy.stall();
    let waits = thread::scope(|scope| {
        let charge = || {
            let (response, took) = timed(server, &spender.charge(server, None));
            assert!(is_not_now(&response), "{response}");
            took
        };
        let charges: Vec<_> = (0..callers / 5).map(|_| scope.spawn(charge)).collect();
        for request in [
            spender.token_request(server),
            spender.introspection(server, &spender.token),
            server.acme().admin("GET", "/agents"),
        ] {
            timed(server, &request).0.ok();
        }
        let mut waits = Spread::default();
        charges.into_iter().for_each(|charge| waits.add(charge.join().expect("no panic")));
        waits
    });
    assert!(waits.max() < LONGEST, "{waits}");
    proxy.resume();
    let (_, recovery) = until(server, &spender.charge(server, None), 200);
    assert!(recovery < Duration::from_secs(10), "{recovery:?}");
    eprintln!(
        "{} charges on a stalled Redis: all refused, {waits}; first success {} ms later",
        callers / 5,
        recovery.as_millis()
    );
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
