//! Connections of the stores cut after n bytes, for many n, in both directions (security ST-02): what became of a call
//! is found out by repeating it with its id.

use std::{sync::Arc, time::Duration};

use lumoauth_core::{
    agent::Agent,
    audit::{Actor, Event, EventKind},
    budget::{Account, BudgetPolicy, Line, Meter, Standing, Usage, Window, account_lines},
    clock::{Clock, SystemClock, Timestamp},
    id::{AgentId, OrgId, Slug},
    random::random_bytes,
    store::{
        AgentStore, BudgetStore, Charge, ChargeId, Charged, Insert, MemoryStore, Remembered, ReplayStore,
        StoreError, Upkeep,
    },
};
use lumoauth_store_postgres::{PostgresStore, Settings};
use lumoauth_store_redis::{RedisBudgets, RedisStore};
use lumoauth_tests::{
    Stopwatch,
    services::{Database, Direction, Postgres, Proxy, Redis, query},
    unique,
};
use tokio::runtime::Runtime;

use crate::{answers::LONGEST, counts::count, single_use::assert_unavailable};

/// Where connections are cut: so many bytes from now, in this direction, of a connection that is there already or of
/// one that is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) direction: Direction,
    pub(crate) bytes: u64,
    pub(crate) fresh: bool,
}

/// Cuts after 0 to `to_service` or `to_client` bytes. `FAULT_CUT_STEP` says how many bytes they are apart;
/// otherwise there are about twenty in each direction.
pub(crate) fn cuts(to_service: u64, to_client: u64) -> Vec<Cut> {
    let mut cuts = Vec::new();
    for (direction, most) in [(Direction::ToService, to_service), (Direction::ToClient, to_client)] {
        let step = count("FAULT_CUT_STEP", most / 20);
        for (nth, bytes) in (0..most).step_by(usize::try_from(step.max(1)).expect("fits")).enumerate() {
            cuts.push(Cut { direction, bytes, fresh: nth % 2 == 1 });
        }
    }
    cuts
}

impl Cut {
    /// Makes the proxy do it.
    pub(crate) fn arm(self, proxy: &Proxy) {
        if self.fresh {
            proxy.cut_all();
        }
        proxy.cut_after(self.direction, self.bytes);
    }
}

/// How many calls had an unknown outcome, and how long things took.
#[derive(Debug, Default)]
struct Calls {
    unknown: u64,
    longest: Duration,
    resolved: Duration,
}

impl Calls {
    /// The answer, once there is one: an unknown outcome is resolved by the same call again.
    async fn insist<T>(&mut self, call: impl AsyncFn() -> Result<T, StoreError>) -> T {
        let begin = Stopwatch::start();
        let mut errors = Vec::new();
        while begin.elapsed() < Duration::from_secs(10) {
            let watch = Stopwatch::start();
            let answer = call().await;
            self.longest = self.longest.max(watch.elapsed());
            assert!(self.longest < LONGEST, "{:?}", self.longest);
            match answer {
                Ok(answer) => {
                    self.resolved = self.resolved.max(begin.elapsed());
                    return answer;
                }
                Err(error) => {
                    assert_unavailable(&error);
                    errors.push(error);
                }
            }
            self.unknown += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the store does not recover from a cut: {errors:#?}");
    }
}

impl std::fmt::Display for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} calls failed, the longest call took {} ms, the longest time until an answer was {} ms",
            self.unknown,
            self.longest.as_millis(),
            self.resolved.as_millis()
        )
    }
}

fn now() -> Timestamp {
    SystemClock::new().now()
}

/// One unit in the month, without a limit.
fn line(account: Account) -> Vec<Line> {
    let usage = Usage { micro_usd: 1, ..Usage::default() };
    let lines = account_lines(account, &BudgetPolicy::default(), &usage, Standing::Fact, now());
    assert_eq!((lines.len(), lines[0].meter, lines[0].window), (1, Meter::MicroUsd, Window::Month));
    lines
}

fn agent() -> Agent {
    let slug = unique("cut").to_lowercase();
    Agent::new(&*slug, Slug::parse(&slug).expect("letters, digits and `-`"), now())
}

async fn charge(
    store: &impl BudgetStore,
    org: &OrgId,
    account: Account,
    key: &str,
) -> Result<Charged, StoreError> {
    let keep_until = now().plus(Duration::from_secs(3600));
    let id = ChargeId { actor: AgentId::from_uuid(account.owner), key, request_hash: [7; 32], keep_until };
    store.charge(org, &Charge::repeatable(id, &line(account)), now()).await
}

#[test]
fn a_postgres_connection_cut_anywhere_doubles_and_loses_nothing() {
    let postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    let proxy = Proxy::start(postgres.address());
    let url = postgres.url_at(proxy.address(), database.name());
    let org = OrgId::parse(&unique("cuts")).expect("letters, digits and `-`");
    let account = agent().account();
    let mut calls = Calls::default();
    let cuts = cuts(3000, 3000);
    Runtime::new().expect("a runtime").block_on(async {
        PostgresStore::migrate(&url).await.expect("the database is there");
        let settings = Settings::default().with_max_connections(3);
        let store = PostgresStore::connect(&url, settings).await.expect("the database is there");
        let mut charged = 0;
        for cut in &cuts {
            // So that the cut hits the calls and not the making of their connection, unless that is wanted.
            calls.insist(async || store.ping().await).await;
            let key = unique("charge");
            cut.arm(&proxy);
            match calls.insist(async || charge(&store, &org, account, &key).await).await {
                Charged::Charged(counters) => {
                    charged += 1;
                    assert_eq!(counters, [charged], "{cut:?}");
                }
                Charged::Repeated => charged += 1,
                other => panic!("{cut:?}: {other:?}"),
            }

            let (agent, event) =
                (agent(), Event::new(EventKind::AgentCreated, Actor::system(), "made", now()));
            cut.arm(&proxy);
            let outcome = calls.insist(async || store.insert(&org, &agent, &event).await).await;
            assert!(matches!(outcome, Insert::Inserted | Insert::Taken(_)), "{cut:?}: {outcome:?}");

            let (key, issued) = (random_bytes(), now());
            let until = issued.plus(Duration::from_secs(3600));
            cut.arm(&proxy);
            let mut firsts = 0;
            for _ in 0..3 {
                let call = async || store.remember(&org, "fault", &key, issued, until, now()).await;
                firsts += u32::from(calls.insist(call).await == Remembered::First);
            }
            assert!(firsts <= 1, "{cut:?}: accepted {firsts} times");
            proxy.do_not_cut();
        }
        let usage = calls.insist(async || store.usage(&org, account, now()).await).await;
        assert_eq!(usage.micro_usd, u64::try_from(cuts.len()).expect("fits"), "each id is charged once");
    });
    for (table, what) in [("agent", "an agent"), ("outbox", "an event")] {
        let rows = query(database.url(), &format!("SELECT count(*) FROM {table} WHERE org_id = '{org}'"));
        assert_eq!(rows, cuts.len().to_string(), "{what} is lost or doubled");
    }
    eprintln!(
        "{} places in 3 calls of the PostgreSQL store: {} connections cut; {calls}",
        cuts.len(),
        proxy.cuts()
    );
    assert!(proxy.cuts() > 0 && calls.unknown > 0, "nothing was cut");
}

#[test]
fn a_redis_connection_cut_anywhere_doubles_nothing() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.address());
    let org = OrgId::parse(&unique("cuts")).expect("letters, digits and `-`");
    let mut calls = Calls::default();
    let (mut charged_at_once, mut wasted) = (0, 0);
    let cuts = cuts(1500, 500);
    Runtime::new().expect("a runtime").block_on(async {
        let settings = lumoauth_store_redis::Settings::default();
        let connect = async |url: &str| RedisStore::connect(url, settings).await.expect("Redis is there");
        let (store, direct) = (connect(&redis.url_at(proxy.address())).await, connect(&redis.url()).await);
        let durable = Arc::new(MemoryStore::new());
        let budgets = RedisBudgets::new(&store, durable.clone());
        let direct = RedisBudgets::new(&direct, durable.clone());
        for cut in &cuts {
            // With units in the pool, so that a charge is one script.
            let filled = agent().account();
            for _ in 0..2 {
                let done = charge(&direct, &org, filled, &unique("charge")).await.expect("Redis is there");
                assert!(matches!(done, Charged::Charged(_)), "{done:?}");
            }
            calls.insist(async || store.ping().await).await;
            let key = unique("charge");
            cut.arm(&proxy);
            let done = calls.insist(async || charge(&budgets, &org, filled, &key).await).await;
            assert!(matches!(done, Charged::Charged(_) | Charged::Repeated), "{cut:?}: {done:?}");
            proxy.do_not_cut();
            let usage = direct.usage(&org, filled, now()).await.expect("Redis is there");
            assert_eq!(usage.micro_usd, 3, "{cut:?}: charged twice, or not at all: {done:?}");
            charged_at_once += u64::from(matches!(done, Charged::Charged(_)));

            // Without units, so that one is fetched from the durable store first. If nobody knows whether it reached the
            // pool, it is wasted.
            let (empty, key) = (agent().account(), unique("charge"));
            cut.arm(&proxy);
            let before = calls.unknown;
            let done = calls.insist(async || charge(&budgets, &org, empty, &key).await).await;
            assert!(matches!(done, Charged::Charged(_) | Charged::Repeated), "{cut:?}: {done:?}");
            proxy.do_not_cut();
            let usage = direct.usage(&org, empty, now()).await.expect("Redis is there").micro_usd;
            assert!((1..=1 + calls.unknown - before).contains(&usage), "{cut:?}: {usage} used: {done:?}");
            wasted += usage - 1;

            let (key, issued) = (random_bytes(), now());
            let until = issued.plus(Duration::from_secs(3600));
            cut.arm(&proxy);
            let mut firsts = 0;
            for _ in 0..3 {
                let call = async || store.remember(&org, "fault", &key, issued, until, now()).await;
                firsts += u32::from(calls.insist(call).await == Remembered::First);
            }
            assert!(firsts <= 1, "{cut:?}: accepted {firsts} times");
            proxy.do_not_cut();
        }
    });
    eprintln!(
        "{} places in 3 calls of the Redis store: {} connections cut; {calls}; {charged_at_once} charges known at \
         once, {wasted} units wasted",
        cuts.len(),
        proxy.cuts()
    );
    assert!(proxy.cuts() > 0 && calls.unknown > 0, "nothing was cut");
}
