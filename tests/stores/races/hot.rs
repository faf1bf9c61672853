//! Races of the roles without events.

use std::{sync::Arc, time::Duration};

use lumoauth_core::{
    budget::{
        Account, BudgetPolicy, HeldLine, HoldState, Line, Meter, Resolution, Standing, Usage, Window,
        account_lines,
    },
    clock::Timestamp,
    id::{AgentId, OrgId},
    random::random_bytes,
    store::{
        BudgetStore, Charge, ChargeId, Charged, HoldId, NewHold, RateLimit, RateLimitStore, Remembered,
        ReplayStore, Resolved,
        conformance::{now, some_org},
    },
};

use super::{CALLERS, Two, one_winner, race, rounds};

/// API calls of the present hour.
pub(super) fn calls(account: Account, limit: Option<u64>, amount: u64) -> Line {
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

/// What a hold of the races holds, and what was used in the end.
const HELD: Usage = Usage { tokens: 100, calls: 3, micro_usd: 5_000 };
const USED: Usage = Usage { tokens: 40, calls: 1, micro_usd: 0 };

/// An agent, its lines, and how it makes holds.
#[derive(Clone)]
struct Holder {
    org: OrgId,
    actor: AgentId,
    lines: Vec<Line>,
}

fn later(seconds: u64) -> Timestamp {
    now().plus(Duration::from_secs(seconds))
}

impl Holder {
    /// One with room for `max_calls` in the present hour.
    fn new(max_calls: Option<u64>) -> Self {
        let (org, actor) = (some_org(), AgentId::generate());
        let mut policy = BudgetPolicy::default();
        policy.max_api_calls_per_hour = max_calls;
        let lines = account_lines(Account::agent(actor, 0), &policy, &HELD, Standing::Hold, now());
        Self { org, actor, lines }
    }

    async fn make(&self, store: &impl BudgetStore, key: &str, parked: bool) -> Charged {
        let id = ChargeId { actor: self.actor, key, request_hash: [7; 32], keep_until: later(600) };
        let hold = NewHold { parked, ends: later(60), note: "{}" };
        store.charge(&self.org, &Charge::held(id, &self.lines, hold), now()).await.unwrap()
    }

    async fn resolve(&self, store: &impl BudgetStore, key: &str, resolution: Resolution) -> Resolved {
        let lines: Vec<_> = self.lines.iter().map(HeldLine::from).collect();
        let id = HoldId { actor: self.actor, key };
        store.resolve(&self.org, Some(id), &lines, resolution, now()).await.unwrap()
    }

    async fn usage(&self, store: &impl BudgetStore) -> Usage {
        store.usage(&self.org, Account::agent(self.actor, 0), now()).await.unwrap()
    }

    async fn state(&self, store: &impl BudgetStore, key: &str) -> HoldState {
        let id = HoldId { actor: self.actor, key };
        store.hold(&self.org, id, now()).await.unwrap().unwrap().state
    }
}

/// One of `outcomes` is [`Resolved::Done`], and the others say in which state that left the hold, which both stores show.
async fn one_ended<S: BudgetStore>(stores: &Two<S>, holder: &Holder, key: &str, outcomes: &[Resolved]) {
    let state = holder.state(&*stores[0], key).await;
    let done = outcomes.iter().filter(|outcome| matches!(outcome, Resolved::Done { .. })).count();
    let stays = outcomes.iter().filter(|outcome| **outcome == Resolved::Stays(state)).count();
    assert_eq!((done, stays), (1, CALLERS - 1), "{outcomes:?}");
    let used = match state {
        HoldState::Held | HoldState::Parked => HELD,
        HoldState::Settled(usage) => usage,
        HoldState::Released | HoldState::Denied | HoldState::Expired => Usage::default(),
    };
    for store in stores {
        assert_eq!(holder.state(&**store, key).await, state);
        assert_eq!(holder.usage(&**store).await, used);
    }
}

/// What is held is settled or released by one caller.
pub(crate) async fn budgets_settle<S: BudgetStore>(stores: Two<S>) {
    for _ in 0..rounds() {
        let holder = Holder::new(Some(3));
        assert!(matches!(holder.make(&*stores[0], "hold", false).await, Charged::Charged(_)));
        let outcomes = race(&stores, |caller, store| {
            let holder = holder.clone();
            async move {
                let resolution = if caller % 4 < 2 { Resolution::Settle(USED) } else { Resolution::Release };
                holder.resolve(&*store, "hold", resolution).await
            }
        })
        .await;
        one_ended(&stores, &holder, "hold", &outcomes).await;
    }
}

/// What is parked is agreed to or denied by one caller, and nobody settles it before.
pub(crate) async fn budgets_unpark<S: BudgetStore>(stores: Two<S>) {
    for _ in 0..rounds() {
        let holder = Holder::new(Some(3));
        assert!(matches!(holder.make(&*stores[1], "hold", true).await, Charged::Charged(_)));
        let outcomes = race(&stores, |caller, store| {
            let holder = holder.clone();
            async move {
                let resolution =
                    if caller % 4 < 2 { Resolution::Unpark(later(90)) } else { Resolution::Deny };
                holder.resolve(&*store, "hold", resolution).await
            }
        })
        .await;
        one_ended(&stores, &holder, "hold", &outcomes).await;
        let overdue = stores[0].overdue(later(60), 10_000).await.unwrap();
        assert!(overdue.iter().all(|overdue| overdue.org != holder.org));
    }
}

/// Holds come and go at once: never is more held than there is room for, and what was settled or released is counted once.
pub(crate) async fn budgets_hold<S: BudgetStore>(stores: Two<S>) {
    for _ in 0..rounds() {
        // Room for ten at a time.
        let holder = Holder::new(Some(30));
        let outcomes = race(&stores, |caller, store| {
            let holder = holder.clone();
            async move {
                let key = format!("hold {caller}");
                match holder.make(&*store, &key, false).await {
                    Charged::Charged(counters) => assert!(counters[1] <= 30, "{counters:?}"),
                    Charged::Exceeded { .. } => return 0,
                    other => panic!("{other:?}"),
                }
                let settle = caller % 2 == 0;
                let resolution = if settle { Resolution::Settle(USED) } else { Resolution::Release };
                let resolved = holder.resolve(&*store, &key, resolution).await;
                assert!(matches!(resolved, Resolved::Done { late: false, .. }), "{resolved:?}");
                u64::from(settle)
            }
        })
        .await;
        let settled: u64 = outcomes.iter().sum();
        let used = Usage { tokens: USED.tokens * settled, calls: settled, micro_usd: 0 };
        for store in &stores {
            assert_eq!(holder.usage(&**store).await, used);
            assert!(store.live_holds(&holder.org, holder.actor, now(), 99).await.unwrap().is_empty());
        }
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
