//! The instants at which windows, leases and waits end, with the time of every call given (security BU-06, BU-08).

use std::{sync::Arc, time::Duration};

use lumoauth_core::{
    budget::{
        Account, BudgetPolicy, COUNTERS, HeldLine, HoldState, Line, Resolution, Standing, Usage,
        account_lines,
    },
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{BudgetStore, Charge, ChargeId, Charged, HoldId, NewHold, Resolved, conformance::some_org},
};

use super::{race_of, rounds};

/// Ends of hours, days, months and years, of a leap day, and of an hour that is not the same everywhere on that day.
const EDGES: [&str; 6] = [
    "2024-02-29T00:00:00Z",
    "2024-03-01T00:00:00Z",
    "2024-05-15T11:00:00Z",
    "2024-10-27T01:00:00Z",
    "2024-12-01T00:00:00Z",
    "2025-01-01T00:00:00Z",
];

const CALLERS: usize = 48;

/// What fits into each window.
const MAX: u64 = 5;

const ONE: Usage = Usage { tokens: 1, calls: 1, micro_usd: 1 };
const NOTHING: Usage = Usage { tokens: 0, calls: 0, micro_usd: 0 };

fn edges() -> impl Iterator<Item = Timestamp> {
    EDGES.into_iter().map(|edge| edge.parse().unwrap())
}

const MS: Duration = Duration::from_millis(1);

/// The instant before, the instant itself, and the one after.
fn around(edge: Timestamp) -> [Timestamp; 3] {
    [edge.minus(MS), edge, edge.plus(MS)]
}

/// An agent that has the same maximum for everything.
#[derive(Clone)]
struct Spender {
    org: OrgId,
    agent: AgentId,
    policy: BudgetPolicy,
}

impl Spender {
    fn new(max: u64) -> Self {
        let policy = format!(
            r#"{{"max_tokens_per_day":{max},"max_api_calls_per_hour":{max},"max_cost_per_month_usd":"{}"}}"#,
            format_args!("0.{max:06}")
        );
        let policy = serde_json::from_str(&policy).unwrap();
        Self { org: some_org(), agent: AgentId::generate(), policy }
    }

    fn account(&self) -> Account {
        Account::agent(self.agent, 0)
    }

    fn lines(&self, usage: &Usage, at: Timestamp) -> Vec<Line> {
        account_lines(self.account(), &self.policy, usage, Standing::Hold, at)
    }

    async fn charge(&self, store: &impl BudgetStore, at: Timestamp) -> Charged {
        store.charge(&self.org, &Charge::once(&self.lines(&ONE, at)), at).await.unwrap()
    }

    /// Only one line: the counter with this number.
    async fn charge_one(&self, store: &impl BudgetStore, counter: usize, at: Timestamp) -> Charged {
        let line = [self.lines(&ONE, at)[counter]];
        store.charge(&self.org, &Charge::once(&line), at).await.unwrap()
    }

    async fn hold(&self, store: &impl BudgetStore, key: &str, at: Timestamp, hold: NewHold<'_>) -> Charged {
        let keep_until = hold.ends.plus(Duration::from_secs(600));
        let id = ChargeId { actor: self.agent, key, request_hash: [7; 32], keep_until };
        store.charge(&self.org, &Charge::held(id, &self.lines(&ONE, at), hold), at).await.unwrap()
    }

    /// Resolves, at `at`, a hold that was made at `made`.
    async fn resolve(
        &self,
        store: &impl BudgetStore,
        key: &str,
        [made, at]: [Timestamp; 2],
        resolution: Resolution,
    ) -> Resolved {
        let lines: Vec<_> = self.lines(&ONE, made).iter().map(HeldLine::from).collect();
        let id = HoldId { actor: self.agent, key };
        store.resolve(&self.org, Some(id), &lines, resolution, at).await.unwrap()
    }

    async fn state(&self, store: &impl BudgetStore, key: &str, at: Timestamp) -> Option<HoldState> {
        let id = HoldId { actor: self.agent, key };
        store.hold(&self.org, id, at).await.unwrap().map(|hold| hold.state)
    }

    async fn usage(&self, store: &impl BudgetStore, at: Timestamp) -> Usage {
        store.usage(&self.org, self.account(), at).await.unwrap()
    }

    async fn live(&self, store: &impl BudgetStore, at: Timestamp) -> usize {
        store.live_holds(&self.org, self.agent, at, 9).await.unwrap().len()
    }
}

/// The stores in turn, without end.
fn turns<S>(stores: &[Arc<S>]) -> impl Iterator<Item = &S> {
    stores.iter().map(|store| &**store).cycle()
}

/// Each charge is in exactly one window of each counter: the one that its time is in, also if a charge of the next window
/// came before it, as from a server whose clock is behind.
pub(crate) async fn edges_windows<S: BudgetStore>(stores: Vec<Arc<S>>) {
    let mut turns = turns(&stores);
    let mut next = || turns.next().unwrap();
    for edge in edges() {
        let spender = Spender::new(MAX);
        let [before, at, after] = around(edge);
        for (counter, (_, window)) in COUNTERS.into_iter().enumerate() {
            // All of the windows before, one by one: the maximum holds to their last instant.
            for n in 1..=MAX {
                assert_eq!(spender.charge_one(next(), counter, before).await, Charged::Charged(vec![n]));
            }
            let full = Charged::Exceeded { line: 0, used: MAX };
            assert_eq!(spender.charge_one(next(), counter, before).await, full);
            let is_over = window.start(at) == edge;
            for instant in [at, after] {
                let first = spender.charge_one(next(), counter, instant).await;
                match (is_over, instant == at) {
                    (false, _) => assert_eq!(first, full, "{edge}: {window:?}"),
                    (true, true) => assert_eq!(first, Charged::Charged(vec![1]), "{edge}: {window:?}"),
                    (true, false) => assert_eq!(first, Charged::Charged(vec![2]), "{edge}: {window:?}"),
                }
            }
            assert_eq!(spender.charge_one(next(), counter, before).await, full, "the old window stays full");
        }
        for (meter, window) in COUNTERS {
            let then = if window.start(at) == edge { 2 } else { MAX };
            for store in &stores {
                assert_eq!(spender.usage(&**store, before).await.of(meter), MAX);
                assert_eq!(spender.usage(&**store, after).await.of(meter), then, "{edge}: {window:?}");
            }
        }
    }
}

/// Callers on both sides of the edge at once: each window admits its maximum.
pub(crate) async fn edges_races<S: BudgetStore>(stores: Vec<Arc<S>>) {
    for round in 0..rounds() {
        let edge = edges().nth(round % EDGES.len()).unwrap();
        let spender = Spender::new(MAX);
        let [before, _, after] = around(edge);
        let charged = race_of(CALLERS, &stores, |caller, store| {
            let spender = spender.clone();
            let at = around(edge)[caller / stores.len() % 3];
            async move {
                // The calls of an hour: only they always have another window after the edge.
                match spender.charge_one(&*store, 1, at).await {
                    Charged::Charged(_) => [u64::from(at < edge), u64::from(at >= edge)],
                    Charged::Exceeded { used: MAX, .. } => [0, 0],
                    other => panic!("{other:?}"),
                }
            }
        })
        .await;
        let sum = |side: usize| charged.iter().map(|counts| counts[side]).sum::<u64>();
        assert_eq!([sum(0), sum(1)], [MAX; 2], "round {round}");
        for store in &stores {
            let shown = [before, after].map(|at| spender.usage(&**store, at));
            let [old, new] = shown;
            assert_eq!([old.await.calls, new.await.calls], [MAX; 2]);
        }
    }
}

/// A lease that ends with its window. Settled at that instant or later it is late, and the counters of the window that it
/// was made in are corrected; of settling and releasing around that instant one happens.
pub(crate) async fn edges_leases<S: BudgetStore>(stores: Vec<Arc<S>>) {
    let mut turns = turns(&stores);
    let mut next = || turns.next().unwrap();
    for edge in edges() {
        let [before, at, after] = around(edge);
        let made = edge.minus(Duration::from_secs(60));
        let lease = NewHold { parked: false, ends: edge, note: "" };
        for (instant, is_late) in [(before, false), (at, true), (after, true)] {
            let spender = Spender::new(MAX);
            assert_eq!(spender.hold(next(), "k", made, lease).await, Charged::Charged(vec![1; 3]));
            assert_eq!(spender.hold(next(), "k", instant, lease).await, Charged::Repeated);
            assert_eq!([spender.live(next(), before).await, spender.live(next(), at).await], [1, 0]);
            assert_eq!(spender.usage(next(), before).await, ONE, "it counts, held or ended");
            // The next windows are not its own.
            assert_eq!(spender.charge_one(next(), 1, at).await, Charged::Charged(vec![1]));
            let used = Usage { tokens: 3, calls: 4, micro_usd: 5 };
            let settled = spender.resolve(next(), "k", [made, instant], Resolution::Settle(used)).await;
            assert_eq!(settled, Resolved::Done { counters: vec![3, 4, 5], late: is_late }, "{edge}");
            assert_eq!(spender.usage(next(), before).await, used);
            assert_eq!(spender.usage(next(), at).await.calls, 1);
        }
    }
    for round in 0..rounds() {
        let edge = edges().nth(round % EDGES.len()).unwrap();
        let (spender, made) = (Spender::new(MAX), edge.minus(Duration::from_secs(60)));
        let lease = NewHold { parked: false, ends: edge, note: "" };
        assert_eq!(spender.hold(next(), "k", made, lease).await, Charged::Charged(vec![1; 3]));
        let instant = |caller: usize| around(edge)[caller / stores.len() % 3];
        let outcomes = race_of(CALLERS, &stores, |caller, store| {
            let (spender, at) = (spender.clone(), instant(caller));
            async move {
                let used = Usage { calls: 2, ..ONE };
                let resolution =
                    if caller / 12 % 2 == 0 { Resolution::Settle(used) } else { Resolution::Release };
                spender.resolve(&*store, "k", [made, at], resolution).await
            }
        })
        .await;
        let state = spender.state(next(), "k", edge).await.unwrap();
        let used = if let HoldState::Settled(used) = state { used } else { NOTHING };
        one_done(&outcomes, state, |winner| {
            let counters = vec![used.tokens, used.calls, used.micro_usd];
            Resolved::Done { counters, late: instant(winner) >= edge }
        });
        for store in &stores {
            assert_eq!(spender.usage(&**store, made).await, used);
        }
    }
}

/// The wait of something parked: agreed to before its end, or expired from there on, never both, and denied at any time.
pub(crate) async fn edges_waits<S: BudgetStore>(stores: Vec<Arc<S>>) {
    let mut turns = turns(&stores);
    let mut next = || turns.next().unwrap();
    for round in 0..rounds() {
        let edge = edges().nth(round % EDGES.len()).unwrap();
        let (spender, made) = (Spender::new(MAX), edge.minus(Duration::from_secs(60)));
        let [before, at, after] = around(edge);
        let wait = NewHold { parked: true, ends: edge, note: "" };
        assert_eq!(spender.hold(next(), "k", made, wait).await, Charged::Charged(vec![1; 3]));
        let stays = Resolved::Stays(HoldState::Parked);
        for (instant, resolution) in
            [(before, Resolution::Expire), (at, Resolution::Unpark(after)), (at, Resolution::Settle(ONE))]
        {
            assert_eq!(spender.resolve(next(), "k", [made, instant], resolution).await, stays);
        }
        let mine = async |store: &S, at| {
            let overdue = store.overdue(at, 10_000).await.unwrap();
            overdue.into_iter().filter(|overdue| overdue.org == spender.org).count()
        };
        assert_eq!([mine(next(), before).await, mine(next(), at).await], [0, 1]);

        // Two servers whose clocks differ by a millisecond: to one it is in time, to the other it is over.
        let later = edge.plus(Duration::from_secs(60));
        let outcomes = race_of(CALLERS, &stores, |caller, store| {
            let spender = spender.clone();
            let (at, resolution) = match caller / stores.len() % 3 {
                0 => (before, Resolution::Unpark(later)),
                1 => (at, Resolution::Expire),
                _ => (at, Resolution::Deny),
            };
            async move { spender.resolve(&*store, "k", [made, at], resolution).await }
        })
        .await;
        let state = spender.state(next(), "k", before).await.unwrap();
        let used = if state == HoldState::Held { ONE } else { NOTHING };
        one_done(&outcomes, state, |_| {
            let counters = vec![used.tokens, used.calls, used.micro_usd];
            Resolved::Done { counters, late: false }
        });
        for store in &stores {
            assert_eq!(spender.usage(&**store, made).await, used);
            assert_eq!(mine(&**store, after).await, 0);
            // Whatever became of it, there is room for what is counted and no more.
            assert_eq!(spender.live(&**store, at).await, usize::from(state == HoldState::Held));
        }
        assert_eq!(spender.charge(next(), made).await, charged_after(used));
    }
}

fn charged_after(used: Usage) -> Charged {
    Charged::Charged(vec![used.tokens + 1, used.calls + 1, used.micro_usd + 1])
}

/// One call did what `done` says of it, and all others say where that left the hold.
#[track_caller]
fn one_done(outcomes: &[Resolved], state: HoldState, done: impl Fn(usize) -> Resolved) {
    let winners: Vec<_> =
        (0..outcomes.len()).filter(|n| matches!(outcomes[*n], Resolved::Done { .. })).collect();
    let [winner] = *winners else { panic!("{outcomes:?}") };
    assert_eq!(outcomes[winner], done(winner));
    let stays = outcomes.iter().filter(|outcome| **outcome == Resolved::Stays(state)).count();
    assert_eq!(stays, outcomes.len() - 1, "{state:?}: {outcomes:?}");
}
