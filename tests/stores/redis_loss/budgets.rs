//! Budgets: losses of the pool under load.

use std::{sync::Arc, thread, time::Duration};

use lumoauth_core::{
    budget::{Account, BudgetPolicy},
    id::AgentId,
    store::{BudgetStore, Charge, ChargeId, Charged, MemoryStore},
};
use lumoauth_store_redis::RedisBudgets;
use lumoauth_tests::services::{Redis, RedisCluster};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{CALLERS, Load, calls, charge, drain, org, rounds, some_account, used};
use crate::redis::store_at;

/// What is left of single calls in a pool, or on its way into it, is less than a charge and a slice: `(a - 1) + S`, with
/// `S = min(100 × a, room / 8)`. One process fetches one slice at a time for an account.
const fn waste(losses: u64) -> u64 {
    const AMOUNT: u64 = 1;
    losses * (AMOUNT - 1 + 100 * AMOUNT)
}

/// 128 callers over two stores on one limit.
async fn race(url: &str) {
    let durable = Arc::new(MemoryStore::new());
    let mut pools = Vec::new();
    for _ in 0..2 {
        pools.push(Arc::new(RedisBudgets::new(&store_at(url).await, durable.clone())));
    }
    for round in 0..5 * rounds() {
        let account = some_account();
        let (limit, amount) =
            [(40, 1), (100, 3), (1000, 9), (64, 1), (7, 8)][usize::try_from(round % 5).unwrap()];
        let mut callers = JoinSet::new();
        for caller in 0..128 {
            let pool = pools[caller % 2].clone();
            callers.spawn(async move { charge(&*pool, calls(account, Some(limit), amount)).await });
        }
        let outcomes = callers.join_all().await;
        let admitted = outcomes.iter().filter(|outcome| matches!(outcome, Charged::Charged(_))).count();
        let admitted = u64::try_from(admitted).unwrap();
        assert_eq!(admitted, (limit / amount).min(128), "round {round}");
        assert_eq!(used(&*pools[0], account).await, admitted * amount);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_admit_exactly_the_maximum() {
    race(&Redis::start().url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_on_a_cluster_admit_exactly_the_maximum() {
    race(&RedisCluster::start().url()).await;
}

/// SIGKILL under load, and a start with what `lines` have kept.
async fn kills(lines: &[&str]) {
    const LIMIT: u64 = 4000;
    let mut redis = Redis::start_with(lines);
    let durable = Arc::new(MemoryStore::new());
    let pool = Arc::new(RedisBudgets::new(&store_at(&redis.url()).await, durable.clone()));
    for round in 0..rounds() {
        let account = some_account();
        let load = Load::start(&pool, account, LIMIT, Instant::now() + Duration::from_millis(600));
        sleep(Duration::from_millis(20 + round * 7 % 50)).await;
        redis.kill();
        sleep(Duration::from_millis(30)).await;
        redis.restart();
        let acknowledged = load.end().await;
        assert!(used(&*durable, account).await <= LIMIT);
        let charged = acknowledged + drain(&*pool, account, LIMIT).await;
        assert!(charged <= LIMIT, "round {round}: {charged}");
        // Each caller may have had one charge under way that was made, and whose answer was lost.
        assert!(LIMIT - charged <= waste(1) + CALLERS, "round {round}: {charged} of {LIMIT}");
        assert_eq!(used(&*pool, account).await, LIMIT, "waste counts as used");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_wastes_a_slice() {
    kills(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_only_file_brings_no_pool_back() {
    kills(&["appendonly yes", "appendfsync everysec"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_wastes_a_slice() {
    const LIMIT: u64 = 20_000;
    let redis = Redis::start();
    let durable = Arc::new(MemoryStore::new());
    let pool = Arc::new(RedisBudgets::new(&store_at(&redis.url()).await, durable.clone()));
    let account = some_account();
    let flushes = 5 * rounds();
    let length = Duration::from_millis(20 * flushes);
    let load = Load::start(&pool, account, LIMIT, Instant::now() + length);
    let flush = tokio::task::spawn_blocking(move || {
        for _ in 0..flushes {
            thread::sleep(Duration::from_millis(10));
            redis.command(&["FLUSHALL"]);
        }
        redis
    });
    let acknowledged = load.end().await;
    let _redis = flush.await.unwrap();
    let charged = acknowledged + drain(&*pool, account, LIMIT).await;
    assert!(charged <= LIMIT && LIMIT - charged <= waste(flushes), "{charged} of {LIMIT}, {flushes} flushes");
    assert_eq!(used(&*durable, account).await, LIMIT);
}

/// Waits for a replica to have what `main` has.
async fn is_replicated(replica: &Redis, account: Account) {
    let pool = format!("{{acme}}:b:{}:0", account.owner);
    let start = Instant::now();
    while replica.command(&["EXISTS", &pool]) != "1" {
        assert!(start.elapsed() < Duration::from_secs(30), "the replica does not follow");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_replica_that_is_promoted_spends_nothing_twice() {
    const LIMIT: u64 = 1000;
    let mut main = Redis::start_with(&["repl-diskless-sync-delay 0"]);
    let replica = Redis::start();
    let password = main.url();
    let password = password.trim_start_matches("redis://:").split('@').next().unwrap();
    replica.command(&["CONFIG", "SET", "masterauth", password]);
    let port = main.address().port().to_string();
    replica.command(&["REPLICAOF", "127.0.0.1", &port]);

    let durable = Arc::new(MemoryStore::new());
    let account = some_account();
    let pool = RedisBudgets::new(&store_at(&main.url()).await, durable.clone());
    let mut charged = 0;
    for _ in 0..10 {
        assert!(matches!(charge(&pool, calls(account, Some(LIMIT), 1)).await, Charged::Charged(_)));
        charged += 1;
    }
    is_replicated(&replica, account).await;
    // From here on the replica is stale.
    replica.command(&["REPLICAOF", "127.0.0.1", "1"]);
    for _ in 0..50 {
        assert!(matches!(charge(&pool, calls(account, Some(LIMIT), 1)).await, Charged::Charged(_)));
        charged += 1;
    }
    main.kill();
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    let pool = RedisBudgets::new(&store_at(&replica.url()).await, durable.clone());
    charged += drain(&pool, account, LIMIT).await;
    assert!(charged <= LIMIT && LIMIT - charged <= waste(1), "{charged} of {LIMIT}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_known_and_counters_go_on_where_scripts_stop_counting_exactly() {
    let redis = Redis::start();
    let durable = Arc::new(MemoryStore::new());
    let pool = RedisBudgets::new(&store_at(&redis.url()).await, durable.clone());
    let account = some_account();
    let id = ChargeId {
        actor: AgentId::from_uuid(account.owner),
        key: "k",
        request_hash: [7; 32],
        keep_until: super::at().plus(Duration::from_secs(60)),
    };
    for n in 0..40 {
        assert_eq!(charge(&pool, calls(account, Some(1000), 1)).await, Charged::Charged(vec![n + 1]));
    }
    let huge = (1 << 52) + 1;
    let fact = [calls(account, None, huge)];
    let once = async |id, line: &_| {
        pool.charge(&org(), &Charge::repeatable(id, std::slice::from_ref(line)), super::at()).await.unwrap()
    };
    assert_eq!(once(id, &fact[0]).await, Charged::Charged(vec![huge + 40]));
    assert_eq!(once(id, &fact[0]).await, Charged::Repeated);
    let other = ChargeId { request_hash: [8; 32], ..id };
    assert_eq!(once(other, &calls(account, None, 1)).await, Charged::Conflict);
    assert_eq!(used(&pool, account).await, huge + 40);
    let refused = charge(&pool, calls(account, Some(1000), 1)).await;
    assert_eq!(refused, Charged::Exceeded { line: 0, used: huge + 40 });

    // Beyond 2^53 what was left in the pool counts as used, and from then on each charge is debited as it is.
    let left = used(&*durable, account).await - (huge + 40);
    let mut expected = 2 * huge + 40 + left;
    assert!(left <= 100 && expected > BudgetPolicy::MAX_COUNT);
    for amount in [huge, 1, 1 << 51, 3] {
        if amount != huge {
            expected += amount;
        }
        let charged = charge(&pool, calls(account, None, amount)).await;
        assert_eq!(charged, Charged::Charged(vec![expected]), "{amount}");
        assert_eq!(used(&pool, account).await, expected);
        assert_eq!(used(&*durable, account).await, expected);
    }
}
