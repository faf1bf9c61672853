//! Races of the roles without events.

use std::{sync::Arc, time::Duration};

use lumoauth_core::{
    budget::{Account, BudgetPolicy, Line, Meter, Standing, Usage, Window, account_lines},
    id::AgentId,
    random::random_bytes,
    store::{
        BudgetStore, Charge, ChargeId, Charged, RateLimit, RateLimitStore, Remembered, ReplayStore,
        conformance::{now, some_org},
    },
};

use super::{CALLERS, Two, one_winner, race, rounds};

/// API calls of the present hour.
fn calls(account: Account, limit: Option<u64>, amount: u64) -> Line {
    let mut policy = BudgetPolicy::default();
    policy.max_api_calls_per_hour = limit;
    let lines = account_lines(account, &policy, &Usage::ONE_CALL, Standing::MustFit, now());
    let mut line =
        lines.into_iter().find(|line| (line.meter, line.window) == (Meter::Calls, Window::Hour)).unwrap();
    (line.limit, line.amount) = (limit, amount);
    line
}

fn charged(outcomes: &[Charged]) -> usize {
    outcomes.iter().filter(|outcome| matches!(outcome, Charged::Charged(_))).count()
}

/// Exactly as many are served as the limit has room for.
pub(crate) async fn budgets_limit<S: BudgetStore>(stores: Two<S>) {
    for round in 0..rounds() {
        let (org, account) = (some_org(), Account::agent(AgentId::generate(), 0));
        // One, half, and nearly all of them.
        let room = [1, CALLERS / 2, CALLERS - 1][round % 3];
        let limit = u64::try_from(room).unwrap() * 3;
        let outcomes = race(&stores, |_, store| {
            let org = org.clone();
            async move {
                let lines = [calls(account, Some(limit), 3)];
                store.charge(&org, &Charge::once(&lines), now()).await.unwrap()
            }
        })
        .await;
        assert_eq!(charged(&outcomes), room, "{outcomes:?}");
        for store in &stores {
            assert_eq!(store.usage(&org, account, now()).await.unwrap().calls, limit);
        }
    }
}

/// All lines or none, in whatever order they are named.
pub(crate) async fn budgets_chain<S: BudgetStore>(stores: Two<S>) {
    for _ in 0..rounds() {
        let org = some_org();
        let accounts = [0; 3].map(|_| Account::agent(AgentId::generate(), 0));
        let outcomes = race(&stores, |caller, store| {
            let org = org.clone();
            async move {
                let mut lines = [(0, None), (1, Some(20)), (2, Some(30))]
                    .map(|(account, limit)| calls(accounts[account], limit, 1));
                lines.rotate_left(caller % 3);
                store.charge(&org, &Charge::once(&lines), now()).await.unwrap()
            }
        })
        .await;
        assert_eq!(charged(&outcomes), 20, "{outcomes:?}");
        for account in accounts {
            assert_eq!(stores[1].usage(&org, account, now()).await.unwrap().calls, 20);
        }
    }
}

/// A charge with an id counts once, however many repeat it.
pub(crate) async fn budgets_id<S: BudgetStore>(stores: Two<S>) {
    for _ in 0..rounds() {
        let (org, actor) = (some_org(), AgentId::generate());
        let account = Account::agent(actor, 0);
        let outcomes = race(&stores, |_, store| {
            let org = org.clone();
            async move {
                let keep_until = now().plus(Duration::from_secs(60));
                let id = ChargeId { actor, key: "race", request_hash: [7; 32], keep_until };
                let lines = [calls(account, Some(1000), 5)];
                store.charge(&org, &Charge::repeatable(id, &lines), now()).await.unwrap()
            }
        })
        .await;
        one_winner(&outcomes, &Charged::Charged(vec![5]), &Charged::Repeated);
        assert_eq!(stores[0].usage(&org, account, now()).await.unwrap().calls, 5);
    }
}

/// A window admits its limit, and each admission is told apart.
pub(crate) async fn rate_limits_take<S: RateLimitStore>(stores: Two<S>) {
    for round in 0..rounds() {
        let org = some_org();
        let max = u32::try_from([1, CALLERS / 2, CALLERS - 1][round % 3]).unwrap();
        let outcomes = race(&stores, |_, store: Arc<S>| {
            let org = org.clone();
            async move {
                let limit = RateLimit { max, window: Duration::from_secs(60) };
                store.take(&org, "192.0.2.1", limit, now()).await.unwrap()
            }
        })
        .await;
        let mut left: Vec<_> = outcomes.iter().filter(|one| one.admitted).map(|one| one.remaining).collect();
        left.sort_unstable();
        assert_eq!(left, (0..max).collect::<Vec<_>>(), "{outcomes:?}");
    }
}

/// A single-use value is new to one caller.
pub(crate) async fn replay_remember<S: ReplayStore>(stores: Two<S>) {
    for _ in 0..rounds() {
        let (org, key) = (some_org(), random_bytes());
        let outcomes = race(&stores, |_, store: Arc<S>| {
            let org = org.clone();
            async move {
                let until = now().plus(Duration::from_secs(60));
                store.remember(&org, "race", &key, now(), until, now()).await.unwrap()
            }
        })
        .await;
        one_winner(&outcomes, &Remembered::First, &Remembered::Replay);
    }
}
