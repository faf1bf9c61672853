//! A durable store that fails or hangs, and callers that go away.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use lumoauth_core::{
    budget::{Account, HeldLine, Hold, Resolution, Usage},
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{
        BudgetStore, Charge, Charged, HoldId, MemoryStore, Overdue, Resolved, StoreError, StoreErrorKind,
    },
};
use lumoauth_store_redis::RedisBudgets;
use lumoauth_tests::services::Redis;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{at, calls, charge, drain, org, rounds, some_account, used};
use crate::redis::store_at;

const WORKS: u8 = 0;
const FAILS: u8 = 1;
/// It has counted, and does not answer.
const HANGS: u8 = 2;

/// A durable store that can be told to misbehave.
#[derive(Debug, Default)]
struct Moody {
    store: MemoryStore,
    mood: AtomicU8,
}

#[async_trait]
impl BudgetStore for Moody {
    async fn charge(&self, org: &OrgId, charge: &Charge<'_>, now: Timestamp) -> Result<Charged, StoreError> {
        match self.mood.load(Ordering::Relaxed) {
            FAILS => Err(StoreError::unavailable("test", "it fails")),
            HANGS => {
                let _ = self.store.charge(org, charge, now).await?;
                pending().await
            }
            _ => self.store.charge(org, charge, now).await,
        }
    }

    async fn resolve(
        &self,
        org: &OrgId,
        id: Option<HoldId<'_>>,
        lines: &[HeldLine],
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<Resolved, StoreError> {
        self.store.resolve(org, id, lines, resolution, now).await
    }

    async fn hold(&self, org: &OrgId, id: HoldId<'_>, now: Timestamp) -> Result<Option<Hold>, StoreError> {
        self.store.hold(org, id, now).await
    }

    async fn live_holds(
        &self,
        org: &OrgId,
        actor: AgentId,
        now: Timestamp,
        max: u32,
    ) -> Result<Vec<Hold>, StoreError> {
        self.store.live_holds(org, actor, now, max).await
    }

    async fn overdue(&self, now: Timestamp, max: u32) -> Result<Vec<Overdue>, StoreError> {
        self.store.overdue(now, max).await
    }

    async fn usage(&self, org: &OrgId, account: Account, now: Timestamp) -> Result<Usage, StoreError> {
        self.store.usage(org, account, now).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_store_that_fails_or_hangs_holds_nobody_up() {
    const LIMIT: u64 = 800;
    let redis = Redis::start();
    let durable = Arc::new(Moody::default());
    let ours = RedisBudgets::new(&store_at(&redis.url()).await, durable.clone());
    let theirs = RedisBudgets::new(&store_at(&redis.url()).await, durable.clone());
    let account = some_account();
    let line = [calls(account, Some(LIMIT), 1)];
    for (mood, longest) in [(FAILS, 1), (HANGS, 5)] {
        // So that the next charge needs a slice.
        redis.command(&["FLUSHALL"]);
        durable.mood.store(mood, Ordering::Relaxed);
        let start = Instant::now();
        let error = ours.charge(&org(), &Charge::once(&line), at()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert!(start.elapsed() < Duration::from_secs(longest), "{mood}: {:?}", start.elapsed());

        durable.mood.store(WORKS, Ordering::Relaxed);
        for pool in [&theirs, &ours] {
            let start = Instant::now();
            assert!(matches!(charge(pool, line[0]).await, Charged::Charged(_)), "{mood}");
            assert!(start.elapsed() < Duration::from_secs(2), "{mood}: {:?}", start.elapsed());
        }
    }
    let charged = 4 + drain(&ours, account, LIMIT).await;
    // The slice that the second flush took away, and the first one after it, which hung: as large as one charge.
    assert!(charged <= LIMIT && LIMIT - charged <= 100 + 1, "{charged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_go_away_are_charged_once_or_not_at_all() {
    const LIMIT: u64 = 2000;
    const CALLERS: u64 = 32;
    let redis = Redis::start();
    let durable = Arc::new(MemoryStore::new());
    let pool = Arc::new(RedisBudgets::new(&store_at(&redis.url()).await, durable.clone()));
    for _ in 0..rounds() {
        let account = some_account();
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let pool = pool.clone();
            callers.spawn(async move {
                let (mut acknowledged, mut abandoned) = (0, 0);
                for call in 0..30 {
                    // From "never sent" to "nearly answered".
                    let patience = Duration::from_micros((caller * 37 + call * 53) % 1500);
                    let line = calls(account, Some(LIMIT), 1);
                    match timeout(patience, charge(&*pool, line)).await {
                        Ok(Charged::Charged(_)) => acknowledged += 1,
                        Ok(other) => panic!("{other:?}"),
                        Err(_) => abandoned += 1,
                    }
                }
                (acknowledged, abandoned)
            });
        }
        let (mut acknowledged, mut abandoned) = (0, 0);
        for (more, gone) in callers.join_all().await {
            acknowledged += more;
            abandoned += gone;
        }
        // What was begun for those who went away is still being made.
        let mut charged = used(&*pool, account).await;
        loop {
            sleep(Duration::from_millis(200)).await;
            let later = used(&*pool, account).await;
            if later == charged {
                break;
            }
            charged = later;
        }
        assert!((acknowledged..=acknowledged + abandoned).contains(&charged), "{charged}: {acknowledged}");
        let rest = drain(&*pool, account, LIMIT).await;
        assert_eq!(charged + rest, LIMIT, "nothing is wasted");
    }
}
