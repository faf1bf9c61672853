//! PostgreSQL: callers that hang up, and rows that somebody else holds, cost nobody else anything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lumoauth_core::{
    budget::{Account, BudgetPolicy, Line, Meter, Standing, Usage, account_lines},
    id::{AgentId, OrgId},
    store::{
        BudgetStore, Charge, Charged, GrantStore, Handle, RateLimit, RateLimitStore, StoreErrorKind,
        conformance::{now, some_org},
    },
};
use lumoauth_store_postgres::{PostgresStore, Settings};
use lumoauth_tests::services::{Database, query};
use sqlx::{Connection, Executor, PgConnection};
use tokio::time::{Instant, sleep, timeout};

async fn open() -> (Database, Arc<PostgresStore>) {
    let database = Database::create();
    PostgresStore::migrate(database.url()).await.unwrap();
    let store = PostgresStore::connect(database.url(), Settings::default()).await.unwrap();
    (database, Arc::new(store))
}

/// How many sessions were ever begun.
fn sessions(database: &Database) -> i64 {
    let count = format!("SELECT sessions FROM pg_stat_database WHERE datname = '{}'", database.name());
    query(database.url(), &count).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_hang_up_close_no_connections() {
    let (database, store) = open().await;
    let (org, stop) = (some_org(), Arc::new(AtomicBool::new(false)));
    let before = sessions(&database);
    let rude: Vec<_> = (0..40_u64)
        .map(|caller| {
            let (store, org, stop) = (store.clone(), org.clone(), stop.clone());
            tokio::spawn(async move {
                let mut calls = 0;
                while !stop.load(Ordering::Relaxed) {
                    let patience = Duration::from_millis(1 + (caller + calls) % 5);
                    let handles = [Handle::from_bytes([1; 12])];
                    let _ = timeout(patience, store.any_revoked(&org, &handles)).await;
                    calls += 1;
                }
                calls
            })
        })
        .collect();

    let end = Instant::now() + Duration::from_secs(2);
    let mut honest = 0;
    while Instant::now() < end {
        assert!(!store.any_revoked(&org, &[Handle::from_bytes([2; 12])]).await.unwrap());
        honest += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let mut calls = 0;
    for task in rude {
        calls += task.await.unwrap();
    }
    assert!(honest > 0 && calls > 40, "{honest} {calls}");

    // PostgreSQL counts a session a moment later.
    sleep(Duration::from_millis(1500)).await;
    let begun = sessions(&database) - before;
    // One for each place in the pool, and those of this test.
    assert!(begun < 40, "{begun} sessions for {calls} calls");
}

fn call(agent: AgentId) -> Line {
    let account = Account::agent(agent, 0);
    let lines = account_lines(account, &BudgetPolicy::default(), &Usage::ONE_CALL, Standing::MustFit, now());
    lines.into_iter().find(|line| line.meter == Meter::Calls).unwrap()
}

async fn charge(store: Arc<PostgresStore>, org: OrgId, agent: AgentId) -> Result<Charged, StoreErrorKind> {
    store.charge(&org, &Charge::once(&[call(agent)]), now()).await.map_err(|error| error.kind())
}

#[tokio::test]
async fn a_locked_counter_fails_its_organization_only() {
    let (database, store) = open().await;
    let (locked, free, agent) = (some_org(), some_org(), AgentId::generate());
    for org in [&locked, &free] {
        assert_eq!(charge(store.clone(), org.clone(), agent).await, Ok(Charged::Charged(vec![1])));
    }
    let mut holder = PgConnection::connect(database.url()).await.unwrap();
    holder.execute("BEGIN").await.unwrap();
    let hold = "SELECT 1 FROM budget_counter WHERE org_id = $1 FOR UPDATE";
    sqlx::query(hold).bind(locked.as_str()).execute(&mut holder).await.unwrap();

    // On one thread, all of them queue before the batcher has its turn.
    let calls: Vec<_> = (0..12)
        .map(|nth| {
            let org = if nth % 2 == 0 { &locked } else { &free };
            tokio::spawn(charge(store.clone(), org.clone(), agent))
        })
        .collect();
    let mut free_calls = 0;
    for (nth, call) in calls.into_iter().enumerate() {
        let outcome = call.await.unwrap();
        if nth % 2 == 0 {
            assert_eq!(outcome, Err(StoreErrorKind::Unavailable));
        } else {
            free_calls += 1;
            assert_eq!(outcome, Ok(Charged::Charged(vec![1 + free_calls])));
        }
    }

    // Nothing of the others was counted.
    holder.execute("ROLLBACK").await.unwrap();
    assert_eq!(charge(store.clone(), locked, agent).await, Ok(Charged::Charged(vec![2])));
    assert_eq!(charge(store, free, agent).await, Ok(Charged::Charged(vec![2 + free_calls])));
    holder.close().await.unwrap();
}

/// Only reads pass a row that somebody holds.
#[tokio::test]
async fn a_spent_window_is_only_read() {
    let (database, store) = open().await;
    let (org, limit) = (some_org(), RateLimit { max: 1, window: Duration::from_secs(3600) });
    assert!(store.take(&org, "s", limit, now()).await.unwrap().admitted);
    let mut holder = PgConnection::connect(database.url()).await.unwrap();
    holder.execute("BEGIN").await.unwrap();
    let hold = "SELECT 1 FROM rate_limit WHERE org_id = $1 FOR UPDATE";
    sqlx::query(hold).bind(org.as_str()).execute(&mut holder).await.unwrap();
    assert!(!store.take(&org, "s", limit, now()).await.unwrap().admitted);
    holder.close().await.unwrap();
}
