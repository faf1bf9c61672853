//! Replay marks, notices, and what is demanded of a server.

use std::{sync::Arc, time::Duration};

use lumoauth_core::{
    budget::Resolution,
    clock::Timestamp,
    id::{AgentId, OrgId},
    random::random_bytes,
    store::{
        BudgetStore, Change, ChangeFeed, ChangedRecord, Charged, MemoryStore, Notice, RateLimit,
        RateLimitStore, Remembered, ReplayStore, Resolved, Upkeep,
    },
};
use lumoauth_store_redis::{OpenError, RedisBudgets, RedisStore, Settings};
use lumoauth_tests::services::{Redis, RedisCluster};
use tokio::time::{Instant, sleep};

use super::{at, calls, charge, holds, now, org, rounds, some_account};
use crate::redis::store_at;

const GENEROUS: RateLimit = RateLimit { max: 1_000_000, window: Duration::from_secs(60) };

pub(super) async fn remember(store: &RedisStore, key: &[u8; 32], issued: Timestamp) -> Remembered {
    let until = issued.plus(Duration::from_secs(3600));
    store.remember(&org(), "jti", key, issued, until, now()).await.unwrap()
}

/// Values that may have been accepted long before any memory of these tests began, of as many buckets as it takes to be in
/// all of them.
pub(super) fn old_values() -> (Vec<[u8; 32]>, Timestamp) {
    ((0..64).map(|n| with_first_byte(n, random_bytes())).collect(), now().minus(Duration::from_secs(600)))
}

/// It decides the bucket.
fn with_first_byte(byte: u8, mut value: [u8; 32]) -> [u8; 32] {
    value[0] = byte;
    value
}

/// Says that nothing came before, from which on every bucket takes old values, each once. Gives one that was taken.
pub(super) async fn promised(store: &RedisStore) -> ([u8; 32], Timestamp) {
    store.nothing_came_before(&store.memory().await.unwrap()).await.unwrap();
    let (values, issued) = old_values();
    for value in &values {
        assert_eq!(remember(store, value, issued).await, Remembered::First);
        assert_eq!(remember(store, value, issued).await, Remembered::Replay);
    }
    (values[7], issued)
}

/// That no bucket takes old values.
pub(super) async fn refuses_old_values(store: &RedisStore) {
    let (values, issued) = old_values();
    for value in values {
        assert_eq!(remember(store, &value, issued).await, Remembered::TooOld);
    }
}

/// A value that was accepted, and when it was issued. A server that has just begun to remember may refuse some.
async fn new_value(store: &RedisStore) -> ([u8; 32], Timestamp) {
    let start = Instant::now();
    loop {
        let (key, issued) = (random_bytes(), now());
        match remember(store, &key, issued).await {
            Remembered::First => return (key, issued),
            refused => assert_eq!(refused, Remembered::TooOld),
        }
        assert!(start.elapsed() < Duration::from_secs(10), "no new value is accepted");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A value seen before `lose`, and one issued before it, are refused afterwards.
async fn is_refused_after(store: &RedisStore, lose: impl AsyncFnOnce(), seen_again: Remembered) {
    let (seen, issued) = new_value(store).await;
    let unseen = random_bytes();
    lose().await;
    assert_eq!(remember(store, &seen, issued).await, seen_again);
    assert_eq!(remember(store, &unseen, issued).await, Remembered::TooOld);
    new_value(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_from_before_a_loss_is_refused() {
    for (lines, seen_again) in
        [(&[][..], Remembered::TooOld), (&["appendonly yes", "appendfsync always"][..], Remembered::Replay)]
    {
        let mut redis = Redis::start_with(lines);
        let store = store_at(&redis.url()).await;
        for _ in 0..rounds() {
            let restart = async || {
                redis.kill();
                redis.restart();
                store.ping().await.unwrap();
            };
            is_refused_after(&store, restart, seen_again).await;
            let flush = async || {
                redis.command(&["FLUSHALL"]);
                store.ping().await.unwrap();
            };
            is_refused_after(&store, flush, Remembered::TooOld).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_about_a_memory_that_was_lost_is_about_no_other() {
    for lines in [&[][..], &["appendonly yes", "appendfsync always"]] {
        let mut redis = Redis::start_with(lines);
        let store = store_at(&redis.url()).await;
        let before = store.memory().await.unwrap();
        redis.command(&["FLUSHALL"]);
        // Also where nobody has looked at what is there now.
        store.nothing_came_before(&before).await.unwrap();
        refuses_old_values(&store).await;

        let before = store.memory().await.unwrap();
        redis.kill();
        redis.restart();
        store.nothing_came_before(&before).await.unwrap();
        refuses_old_values(&store).await;
        promised(&store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_that_nothing_came_before_ends_with_the_memory() {
    for (lines, seen_again) in
        [(&[][..], Remembered::TooOld), (&["appendonly yes", "appendfsync always"][..], Remembered::Replay)]
    {
        let mut redis = Redis::start_with(lines);
        let store = store_at(&redis.url()).await;
        refuses_old_values(&store).await;
        let (seen, issued) = promised(&store).await;
        // Neither a look at it nor another server takes it back.
        store.ping().await.unwrap();
        let other = store_at(&redis.url()).await;
        let (values, old) = old_values();
        assert_eq!(remember(&other, &values[0], old).await, Remembered::First);
        assert_eq!(remember(&store, &values[0], old).await, Remembered::Replay);
        assert_eq!(remember(&other, &seen, issued).await, Remembered::Replay);

        redis.kill();
        redis.restart();
        store.ping().await.unwrap();
        assert_eq!(remember(&store, &seen, issued).await, seen_again);
        refuses_old_values(&store).await;

        promised(&store).await;
        redis.command(&["FLUSHALL"]);
        assert_eq!(remember(&store, &seen, issued).await, Remembered::TooOld);
        refuses_old_values(&store).await;
        refuses_old_values(&other).await;
        new_value(&store).await;
    }
}

/// What the refusal of one value tells of the loss, all buckets are told.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_loss_all_buckets_begin_with_the_first_refusal() {
    let redis = Redis::start();
    let store = store_at(&redis.url()).await;
    for _ in 0..rounds() {
        redis.command(&["FLUSHALL"]);
        let before = now().minus(Duration::from_secs(5));
        assert_eq!(remember(&store, &random_bytes(), before).await, Remembered::TooOld);
        // Longer than any of the following calls takes.
        sleep(Duration::from_secs(2)).await;
        for bucket in 0..64 {
            let value = with_first_byte(bucket, random_bytes());
            assert_eq!(remember(&store, &value, now()).await, Remembered::First, "{bucket}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn service_is_back_within_a_second_of_redis() {
    let mut redis = Redis::start();
    let store = RedisStore::connect(&redis.url(), Settings::default()).await.unwrap();
    for idle in [0, 1500] {
        redis.kill();
        sleep(Duration::from_millis(idle)).await;
        let error = store.take(&org(), "s", GENEROUS, now()).await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.to_lowercase().contains("connection refused") || cause.contains("in time"), "{cause}");
        redis.restart();
        let up = Instant::now();
        while store.take(&org(), "s", GENEROUS, now()).await.is_err() {
            assert!(up.elapsed() < Duration::from_secs(1), "{:?}", up.elapsed());
            sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_hears_of_its_gaps() {
    let mut redis = Redis::start();
    let store = store_at(&redis.url()).await;
    let change = Change { org: org(), record: ChangedRecord::Agent(AgentId::generate()) };
    assert_eq!(store.next().await.unwrap(), Notice::Gap);
    store.publish(&change).await.unwrap();
    assert_eq!(store.next().await.unwrap(), Notice::Changed(change.clone()));
    redis.command(&["PUBLISH", "lumoauth:changes", "nonsense"]);
    assert_eq!(store.next().await.unwrap(), Notice::Gap);
    redis.kill();
    assert!(store.next().await.is_err());
    redis.restart();
    assert_eq!(store.next().await.unwrap(), Notice::Gap);
    store.ping().await.unwrap();
    store.publish(&change).await.unwrap();
    assert_eq!(store.next().await.unwrap(), Notice::Changed(change));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_evicts_is_refused() {
    let redis = Redis::start_with(&["maxmemory-policy allkeys-lru"]);
    let refused = RedisStore::connect(&redis.url(), Settings::default()).await;
    assert!(matches!(refused, Err(OpenError::Eviction { .. })), "{refused:?}");
    redis.command(&["ACL", "SETUSER", "lumo", "on", ">secret", "~*", "&*", "+@all", "-config"]);
    let url = |password| format!("redis://lumo:{password}@{}", redis.address());
    let refused = RedisStore::connect(&url("secret"), Settings::default()).await;
    assert!(matches!(refused, Err(OpenError::Eviction { .. })), "without CONFIG: {refused:?}");
    let refused = RedisStore::connect(&url("hush"), Settings::default()).await.unwrap_err();
    assert!(!format!("{refused:?} {refused}").contains("hush"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_rights_of_the_readme_are_enough() {
    let redis = Redis::start();
    let readme = include_str!("../../../lumoauth-store-redis/README.md");
    let (_, rights) = readme.split_once("ACL SETUSER").expect("the README names the rights");
    let (rights, _) = rights.split_once("```").expect("in a block of its own");
    let words: Vec<_> = ["ACL", "SETUSER"].into_iter().chain(rights.split_whitespace()).collect();
    assert_eq!(redis.command(&words), "OK");
    let store = store_at(&format!("redis://lumoauth:password@{}", redis.address())).await;
    assert_eq!(store.next().await.unwrap(), Notice::Gap);
    let pool = RedisBudgets::new(&store, Arc::new(MemoryStore::new()));
    let account = some_account();
    for _ in 0..50 {
        let charged = charge(&pool, calls(account, Some(100), 1)).await;
        assert!(matches!(charged, Charged::Charged(_)), "{charged:?}");
    }
    let actor = AgentId::generate();
    for parked in [false, true] {
        holds::make(&pool, actor, parked, &[calls(account, Some(100), 1)]).await;
        assert_eq!(holds::hold(&pool, actor).await.map(|hold| hold.lines.len()), Some(1));
        assert_eq!(pool.overdue(holds::over(), 9).await.unwrap().len(), usize::from(parked));
        assert_eq!(pool.live_holds(&org(), actor, at(), 9).await.unwrap().len(), 1);
        let freed = holds::resolve(&pool, actor, &calls(account, None, 1), Resolution::Release).await;
        assert!(matches!(freed, Resolved::Done { .. }), "{freed:?}");
        redis.command(&["FLUSHALL"]);
    }
    assert_eq!(pool.overdue(holds::over(), 9).await.unwrap(), []);
    assert!(store.take(&org(), "s", GENEROUS, now()).await.unwrap().admitted);
    new_value(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_that_lost_its_memory_keeps_no_promise() {
    let mut cluster = RedisCluster::start();
    let store = store_at(&cluster.url()).await;
    refuses_old_values(&store).await;
    promised(&store).await;
    cluster.nodes()[1].command(&["FLUSHALL"]);
    let (values, issued) = old_values();
    let mut taken = 0;
    for value in &values {
        match remember(&store, value, issued).await {
            Remembered::First => taken += 1,
            refused => assert_eq!(refused, Remembered::TooOld),
        }
    }
    // The others know all that they were told.
    assert!(taken > 0 && taken < values.len(), "{taken}");
    promised(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_serves_without_a_node_and_heals() {
    let mut cluster = RedisCluster::start();
    for node in cluster.nodes() {
        node.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let store = RedisStore::connect(&cluster.url(), Settings::default()).await.unwrap();
    let orgs: Vec<_> = (0..12).map(|n| OrgId::parse(&format!("org-{n}")).unwrap()).collect();
    let served = async || {
        let mut served = 0;
        for org in &orgs {
            let start = Instant::now();
            served += usize::from(store.take(org, "s", GENEROUS, now()).await.is_ok());
            assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        }
        served
    };
    assert_eq!(served().await, orgs.len());
    cluster.nodes()[1].kill();
    let others = served().await;
    assert!(others > 0 && others < orgs.len(), "{others}");
    cluster.nodes()[1].restart();
    let up = Instant::now();
    while served().await < orgs.len() {
        assert!(up.elapsed() < Duration::from_secs(20), "it does not heal");
        sleep(Duration::from_millis(20)).await;
    }
}
