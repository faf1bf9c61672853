//! Holds whose memory is lost.

use std::{slice, sync::Arc, time::Duration};

use lumoauth_core::{
    budget::{HeldLine, Hold, HoldState, Line, Resolution, Usage},
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{BudgetStore, Charge, ChargeId, Charged, HoldId, MemoryStore, NewHold, Resolved},
};
use lumoauth_store_redis::RedisBudgets;
use lumoauth_tests::services::{Redis, RedisCluster};
use tokio::task::JoinSet;

use super::{at, calls, charge, drain, org, rounds, some_account, used};
use crate::redis::store_at;

const KEY: &str = "k";

/// When the wait of what is held here is over.
pub(super) fn over() -> Timestamp {
    at().plus(Duration::from_secs(60))
}

const fn id(actor: AgentId) -> HoldId<'static> {
    HoldId { actor, key: KEY }
}

async fn make_in(
    pool: &dyn BudgetStore,
    org: &OrgId,
    actor: AgentId,
    parked: bool,
    lines: &[Line],
) -> Charged {
    let keep_until = over().plus(Duration::from_secs(600));
    let id = ChargeId { actor, key: KEY, request_hash: [1; 32], keep_until };
    let hold = NewHold { parked, ends: over(), note: "" };
    pool.charge(org, &Charge::held(id, lines, hold), at()).await.unwrap()
}

pub(super) async fn make(pool: &dyn BudgetStore, actor: AgentId, parked: bool, lines: &[Line]) {
    let made = make_in(pool, &org(), actor, parked, lines).await;
    assert!(matches!(made, Charged::Charged(_)), "{made:?}");
}

pub(super) async fn hold(pool: &dyn BudgetStore, actor: AgentId) -> Option<Hold> {
    pool.hold(&org(), id(actor), at()).await.unwrap()
}

pub(super) async fn resolve(
    pool: &dyn BudgetStore,
    actor: AgentId,
    line: &Line,
    resolution: Resolution,
) -> Resolved {
    let held = HeldLine::from(line);
    pool.resolve(&org(), Some(id(actor)), slice::from_ref(&held), resolution, at()).await.unwrap()
}

const fn settled(calls: u64) -> Resolution {
    Resolution::Settle(Usage { tokens: 0, calls, micro_usd: 0 })
}

/// Holds of a lost memory are unknown, and what they held counts as spent, also where their records survive: one of them
/// may have been released, and its units used, after the record was written.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_hold_is_unknown_and_counts_as_spent() {
    const LIMIT: u64 = 2000;
    for lines in [&[][..], &["appendonly yes", "appendfsync always"][..]] {
        let mut redis = Redis::start_with(lines);
        let durable = Arc::new(MemoryStore::new());
        let pool = RedisBudgets::new(&store_at(&redis.url()).await, durable.clone());
        for round in 0..rounds() {
            let (account, actors) = (some_account(), [0; 3].map(|_| AgentId::generate()));
            let line = calls(account, Some(LIMIT), 300);
            for actor in actors {
                make(&pool, actor, actor == actors[2], &[line]).await;
            }
            let freed = resolve(&pool, actors[0], &line, Resolution::Release).await;
            assert_eq!(freed, Resolved::Done { counters: vec![600], late: false });
            if round % 2 == 0 {
                redis.kill();
                redis.restart();
            } else {
                redis.command(&["FLUSHALL"]);
            }
            for actor in actors {
                for resolution in [Resolution::Release, Resolution::Deny, settled(1), settled(5000)] {
                    assert_eq!(resolve(&pool, actor, &line, resolution).await, Resolved::Unknown);
                }
                assert_eq!(hold(&pool, actor).await, None);
                assert!(pool.live_holds(&org(), actor, at(), 9).await.unwrap().is_empty());
            }
            assert_eq!(pool.overdue(over(), 9).await.unwrap(), []);
            let charged = 600 + drain(&pool, account, LIMIT).await;
            // What was released lay in the pool.
            assert!((LIMIT - 300 - 300..=LIMIT).contains(&charged), "{charged}");
            assert_eq!(used(&*durable, account).await, LIMIT);
        }
    }
}

/// Resolutions while Redis loses its memory: each hold is freed once at most.
#[tokio::test(flavor = "multi_thread")]
async fn no_loss_frees_a_hold_twice() {
    const LIMIT: u64 = 3000;
    let redis = Arc::new(Redis::start());
    let durable = Arc::new(MemoryStore::new());
    let pool = Arc::new(RedisBudgets::new(&store_at(&redis.url()).await, durable.clone()));
    for _ in 0..rounds() {
        let account = some_account();
        let mut callers = JoinSet::new();
        for caller in 0..16u64 {
            let pool = pool.clone();
            callers.spawn(async move {
                let mut spent = 0;
                for _ in 0..20 {
                    let (actor, line) = (AgentId::generate(), calls(account, Some(LIMIT), 7));
                    match make_in(&*pool, &org(), actor, false, &[line]).await {
                        Charged::Charged(_) => spent += 7,
                        Charged::Exceeded { .. } => continue,
                        other => panic!("{other:?}"),
                    }
                    match resolve(&*pool, actor, &line, settled(caller % 8)).await {
                        Resolved::Done { .. } => spent -= 7 - caller % 8,
                        Resolved::Unknown => {}
                        Resolved::Stays(state) => panic!("{state:?}"),
                    }
                }
                spent
            });
        }
        let flush = redis.clone();
        let flush = tokio::task::spawn_blocking(move || {
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(5));
                flush.command(&["FLUSHALL"]);
            }
        });
        let spent: u64 = callers.join_all().await.into_iter().sum();
        flush.await.unwrap();
        let charged = spent + drain(&*pool, account, LIMIT).await;
        assert!(charged <= LIMIT, "{charged}");
        assert_eq!(used(&*durable, account).await, LIMIT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overshoot_is_debited_before_it_is_acknowledged() {
    const LIMIT: u64 = 1000;
    let redis = Redis::start();
    let durable = Arc::new(MemoryStore::new());
    let pool = RedisBudgets::new(&store_at(&redis.url()).await, durable.clone());
    let (account, actor) = (some_account(), AgentId::generate());
    let line = calls(account, Some(LIMIT), 10);
    make(&pool, actor, false, &[line]).await;
    let done = resolve(&pool, actor, &line, settled(5000)).await;
    assert_eq!(done, Resolved::Done { counters: vec![5000], late: false });
    assert_eq!(used(&*durable, account).await, 5000);
    redis.command(&["FLUSHALL"]);
    assert_eq!(used(&pool, account).await, 5000, "a fact outlives Redis");
    let refused = charge(&pool, calls(account, Some(LIMIT), 1)).await;
    assert_eq!(refused, Charged::Exceeded { line: 0, used: 5000 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_without_id_is_corrected_also_after_a_loss() {
    const LIMIT: u64 = 1000;
    let redis = Redis::start();
    let durable = Arc::new(MemoryStore::new());
    let pool = RedisBudgets::new(&store_at(&redis.url()).await, durable.clone());
    let account = some_account();
    let line = calls(account, Some(LIMIT), 100);
    assert_eq!(charge(&pool, line).await, Charged::Charged(vec![100]));
    redis.command(&["FLUSHALL"]);
    let held = [HeldLine::from(&line)];
    let freed = pool.resolve(&org(), None, &held, settled(30), at()).await.unwrap();
    assert_eq!(freed, Resolved::Done { counters: vec![30], late: false });
    assert_eq!(drain(&pool, account, LIMIT).await, LIMIT - 30, "it can be used again");
}

/// The list of those who park is in one slot, what they parked in others.
#[tokio::test(flavor = "multi_thread")]
async fn overdue_holds_are_found_on_every_node_of_a_cluster() {
    let cluster = RedisCluster::start();
    let pool = RedisBudgets::new(&store_at(&cluster.url()).await, Arc::new(MemoryStore::new()));
    let orgs: Vec<_> = (0..20).map(|n| OrgId::parse(&format!("org-{n}")).unwrap()).collect();
    let actor = AgentId::generate();
    let line = calls(some_account(), None, 1);
    for org in &orgs {
        assert!(matches!(make_in(&pool, org, actor, true, &[line]).await, Charged::Charged(_)));
    }
    assert_eq!(pool.overdue(at(), 99).await.unwrap(), []);
    let overdue = pool.overdue(over(), 99).await.unwrap();
    assert_eq!(overdue.len(), orgs.len());
    assert!(overdue.iter().all(|overdue| overdue.hold.state == HoldState::Parked && overdue.actor == actor));
    assert_eq!(pool.overdue(over(), 3).await.unwrap().len(), 3);
    for found in overdue {
        let id = HoldId { actor: found.actor, key: &found.key };
        let freed = pool.resolve(&found.org, Some(id), &found.hold.lines, Resolution::Expire, over()).await;
        assert_eq!(freed.unwrap(), Resolved::Done { counters: vec![0], late: false });
    }
    assert_eq!(pool.overdue(over(), 99).await.unwrap(), []);
}
