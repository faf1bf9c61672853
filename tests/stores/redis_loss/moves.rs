//! The address of Redis leads to another server, and a server is no longer what it was at the start.

use std::{sync::Arc, time::Duration};

use lumoauth_core::{
    random::random_bytes,
    store::{Charged, MemoryStore, RateLimit, RateLimitStore, Remembered, ReplayStore, Upkeep},
};
use lumoauth_store_redis::{RedisBudgets, RedisStore, Settings};
use lumoauth_tests::services::{Proxy, Redis};
use tokio::time::{Instant, sleep};

use super::{
    calls, charge, now, org,
    roles::{promised, refuses_old_values, remember},
    rounds, some_account,
};
use crate::redis::store_at;

const GENEROUS: RateLimit = RateLimit { max: 1_000_000, window: Duration::from_secs(60) };

/// A server that takes the same user as its successor.
fn server() -> Redis {
    let redis = Redis::start();
    redis.command(&["ACL", "SETUSER", "lumo", "on", ">secret", "~*", "&*", "+@all"]);
    redis.command(&["CONFIG", "SET", "masteruser", "lumo"]);
    redis.command(&["CONFIG", "SET", "masterauth", "secret"]);
    redis
}

fn replicate(replica: &Redis, master: &Redis) {
    let (host, port) = (master.address().ip().to_string(), master.address().port().to_string());
    assert_eq!(replica.command(&["REPLICAOF", &host, &port]), "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_store_follows_its_address_to_another_master() {
    let (mut master, mut other) = (server(), server());
    let proxy = Proxy::start(master.address());
    let store =
        RedisStore::connect(&format!("redis://lumo:secret@{}", proxy.address()), Settings::default()).await;
    let store = store.unwrap();
    let pool = RedisBudgets::new(&store, Arc::new(MemoryStore::new()));
    for _ in 0..rounds() {
        store.ping().await.unwrap();
        assert!(store.take(&org(), "s", GENEROUS, now()).await.unwrap().admitted);
        let (key, issued) = (random_bytes(), now());
        let until = issued.plus(Duration::from_secs(60));
        promised(&store).await;

        replicate(&master, &other);
        let error = store.ping().await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("READONLY"), "only a replica is reached: {cause}");
        assert!(store.take(&org(), "s", GENEROUS, now()).await.is_err());
        // What the replica is asked meanwhile must not be many connections.
        let before = proxy.accepted();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(500) {
            assert!(store.take(&org(), "s", GENEROUS, now()).await.is_err());
        }
        assert!(proxy.accepted() - before <= 6, "{} connections", proxy.accepted() - before);

        proxy.lead_to(other.address());
        let moved = Instant::now();
        while store.take(&org(), "s", GENEROUS, now()).await.is_err() {
            assert!(moved.elapsed() < Duration::from_secs(3), "the old server is never left");
            sleep(Duration::from_millis(20)).await;
        }
        store.ping().await.unwrap();
        let again = store.remember(&org(), "jti", &key, issued, until, now()).await.unwrap();
        assert_eq!(again, Remembered::TooOld, "another server's memory began later");
        refuses_old_values(&store).await;
        let charged = charge(&pool, calls(some_account(), Some(100), 1)).await;
        assert!(matches!(charged, Charged::Charged(_)), "{charged:?}");

        // The new one is a master of its own, and what was demoted takes part in the next round as its successor.
        assert_eq!(master.command(&["REPLICAOF", "NO", "ONE"]), "OK");
        std::mem::swap(&mut master, &mut other);
    }
}

/// A replica has all that its master was told, but whether it has everything that came last nobody knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_promoted_does_not_keep_the_promise_of_its_master() {
    for _ in 0..rounds() {
        let (mut master, replica) = (server(), server());
        replicate(&replica, &master);
        let proxy = Proxy::start(master.address());
        let store = store_at(&format!("redis://lumo:secret@{}", proxy.address())).await;
        let (seen, issued) = promised(&store).await;
        let size = |redis: &Redis| redis.command(&["DBSIZE"]);
        let start = Instant::now();
        while size(&replica) != size(&master) {
            assert!(start.elapsed() < Duration::from_secs(20), "it does not replicate");
            sleep(Duration::from_millis(20)).await;
        }
        proxy.lead_to(replica.address());
        assert_eq!(replica.command(&["REPLICAOF", "NO", "ONE"]), "OK");
        master.kill();
        while store.ping().await.is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "the replica is not reached");
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(remember(&store, &seen, issued).await, Remembered::Replay);
        refuses_old_values(&store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_is_one_script_and_tells_when_keys_may_be_evicted_or_cannot_be_written() {
    let redis = Redis::start();
    let store = store_at(&redis.url()).await;
    let scripts = || {
        let stats = redis.command(&["INFO", "commandstats"]);
        let calls =
            |line: &str| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse::<u64>().ok();
        stats.lines().find_map(calls).unwrap_or(0)
    };
    let before = scripts();
    store.ping().await.unwrap();
    assert_eq!(scripts() - before, 1);

    redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let error = store.ping().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("`allkeys-lru`"), "{cause}");
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    store.ping().await.unwrap();

    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(store.ping().await.is_err(), "it takes no writes");
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    store.ping().await.unwrap();
}
