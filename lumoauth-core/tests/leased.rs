//! Leased budgets: the behaviour suite, and several processes in front of one durable store.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use lumoauth_core::{
    budget::{Account, BudgetPolicy, HeldLine, Hold, Line, Resolution, Standing, Usage, account_lines},
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{
        BudgetStore, Charge, ChargeId, Charged, HoldId, LeasedBudgets, MemoryStore, NewHold, Overdue,
        Resolved, StoreError,
        conformance::{now, some_org},
    },
};
use tokio::{task::JoinSet, time::timeout};

async fn over_memory() -> ((), LeasedBudgets) {
    ((), LeasedBudgets::new(Arc::new(MemoryStore::new()), LeasedBudgets::SLICE))
}

lumoauth_core::store_conformance!(over_memory; roles: budgets);

mod small_slices {
    use super::*;

    async fn make() -> ((), LeasedBudgets) {
        ((), LeasedBudgets::new(Arc::new(MemoryStore::new()), 1))
    }

    lumoauth_core::store_conformance!(make; roles: budgets);
}

/// The most that is left of single calls: `101 a - 1`.
const WASTE: u64 = 100;

fn some_account() -> Account {
    Account::agent(AgentId::generate(), 0)
}

fn calls_at(account: Account, limit: Option<u64>, amount: u64, at: Timestamp) -> Line {
    let policy = BudgetPolicy::default();
    let lines = account_lines(account, &policy, &Usage::ONE_CALL, Standing::MustFit, at);
    let [mut line] = lines.try_into().unwrap();
    (line.limit, line.amount) = (limit, amount);
    line
}

fn calls(account: Account, limit: u64, amount: u64) -> Line {
    calls_at(account, Some(limit), amount, now())
}

async fn charge_all(store: &dyn BudgetStore, org: &OrgId, lines: &[Line]) -> Charged {
    store.charge(org, &Charge::once(lines), now()).await.unwrap()
}

async fn charge(store: &dyn BudgetStore, org: &OrgId, line: Line) -> Charged {
    charge_all(store, org, &[line]).await
}

async fn used(store: &dyn BudgetStore, org: &OrgId, account: Account) -> u64 {
    store.usage(org, account, now()).await.unwrap().calls
}

/// A durable store that counts how often it is asked, and can be told to misbehave.
#[derive(Debug, Default)]
struct Durable {
    store: MemoryStore,
    asked: AtomicU64,
    mood: AtomicU8,
}

const WORKS: u8 = 0;
const FAILS: u8 = 1;
/// It takes a while.
const SLOW: u8 = 2;
/// Counters are read only once something was given back.
const LATE: u8 = 3;
/// The same, and the answer is on its way until somebody changes the mood.
const LONG: u8 = 4;
const LONG_ANSWER: u8 = 5;

impl Durable {
    async fn mood(&self) -> Result<(), StoreError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.mood.load(Ordering::Relaxed) {
            FAILS => return Err(StoreError::unavailable("test", "it fails")),
            SLOW => tokio::time::sleep(Duration::from_micros(300)).await,
            _ => tokio::task::yield_now().await,
        }
        Ok(())
    }
}

#[async_trait]
impl BudgetStore for Durable {
    async fn charge(&self, org: &OrgId, charge: &Charge<'_>, now: Timestamp) -> Result<Charged, StoreError> {
        self.mood().await?;
        let charged = self.store.charge(org, charge, now).await;
        tokio::task::yield_now().await;
        charged
    }

    async fn resolve(
        &self,
        org: &OrgId,
        id: Option<HoldId<'_>>,
        lines: &[HeldLine],
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<Resolved, StoreError> {
        self.mood().await?;
        let resolved = self.store.resolve(org, id, lines, resolution, now).await;
        if self.mood.load(Ordering::Relaxed) == LATE {
            self.mood.store(WORKS, Ordering::Relaxed);
        }
        let _ = self.mood.compare_exchange(LONG, LONG_ANSWER, Ordering::Relaxed, Ordering::Relaxed);
        tokio::task::yield_now().await;
        resolved
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
        while [LATE, LONG].contains(&self.mood.load(Ordering::Relaxed)) {
            tokio::task::yield_now().await;
        }
        let usage = self.store.usage(org, account, now).await;
        while self.mood.load(Ordering::Relaxed) == LONG_ANSWER {
            tokio::task::yield_now().await;
        }
        usage
    }
}

fn processes(durable: &Arc<Durable>, count: usize) -> Vec<LeasedBudgets> {
    let slice = LeasedBudgets::SLICE;
    (0..count).map(|_| LeasedBudgets::new(durable.clone(), slice)).collect()
}

/// Charges until nobody is served any more; how many charges were made.
async fn until_refused(processes: &[LeasedBudgets], org: &OrgId, lines: &[Line], chargers: usize) -> u64 {
    let mut charged = 0;
    loop {
        let mut tasks = JoinSet::new();
        for charger in 0..chargers {
            let (store, org) = (processes[charger % processes.len()].clone(), org.clone());
            let mut lines = lines.to_vec();
            if charger % 3 == 0 {
                lines.reverse();
            }
            tasks.spawn(async move {
                let mut made = 0;
                loop {
                    match charge_all(&store, &org, &lines).await {
                        Charged::Charged(_) => made += 1,
                        Charged::Exceeded { .. } => return made,
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
        let more: u64 = tasks.join_all().await.into_iter().sum();
        charged += more;
        if more == 0 {
            return charged;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_processes_admit_exactly_the_maximum() {
    const CAP: u64 = 1000;
    let durable = Arc::new(Durable::default());
    for round in 0..100 {
        let (org, account) = (some_org(), some_account());
        let processes = processes(&durable, 4);
        let amount = [1, 1, 3, 7][round % 4];
        let charged = until_refused(&processes, &org, &[calls(account, CAP, amount)], 256).await;
        assert_eq!(charged, CAP / amount, "round {round}");
        assert_eq!(used(&*durable, &org, account).await, charged * amount, "nothing is left over");
        for process in &processes {
            assert_eq!(used(process, &org, account).await, charged * amount);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_maximum_is_met_exactly_too() {
    const CAP: u64 = 20_000;
    let durable = Arc::new(Durable::default());
    durable.mood.store(SLOW, Ordering::Relaxed);
    let (org, account) = (some_org(), some_account());
    let processes = processes(&durable, 4);
    assert_eq!(until_refused(&processes, &org, &[calls(account, CAP, 1)], 64).await, CAP);
    assert_eq!(used(&*durable, &org, account).await, CAP);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_over_two_accounts_is_charged_to_both_or_none() {
    let durable = Arc::new(Durable::default());
    for _ in 0..20 {
        let (org, [parent, child]) = (some_org(), [some_account(), some_account()]);
        let processes = processes(&durable, 4);
        let lines = [calls(parent, 5000, 1), calls(child, 3000, 1)];
        assert_eq!(until_refused(&processes, &org, &lines, 64).await, 3000);
        for process in &processes {
            process.give_back(now()).await.unwrap();
        }
        for account in [parent, child] {
            assert_eq!(used(&*durable, &org, account).await, 3000);
        }
    }
}

#[tokio::test]
async fn most_charges_and_settlements_ask_nobody() {
    let durable = Arc::new(Durable::default());
    let (org, account) = (some_org(), some_account());
    let process = &processes(&durable, 1)[0];
    let line = calls(account, 1_000_000, 5);
    let held = [HeldLine::from(&line)];
    for n in 1..=1000u64 {
        assert_eq!(charge(process, &org, line).await, Charged::Charged(vec![n * 2 + 3]));
        let settled = process
            .resolve(&org, None, &held, Resolution::Settle(Usage { calls: 2, ..Usage::default() }), now())
            .await
            .unwrap();
        assert_eq!(settled, Resolved::Done { counters: vec![n * 2], late: false });
        assert_eq!(used(process, &org, account).await, n * 2);
    }
    let asked = durable.asked.load(Ordering::Relaxed);
    // The first charge and its settlement, then a slice for every 500 units, and now and then a unit that no longer fits.
    assert!(asked <= 2 + 2 * 2000 / 500 + 2, "{asked}");
    let left = used(&*durable, &org, account).await - 2000;
    assert!(left < 5 * (WASTE + 1), "{left}");
}

#[tokio::test]
async fn an_overshoot_is_counted_with_the_durable_store() {
    let durable = Arc::new(Durable::default());
    let (org, account) = (some_org(), some_account());
    let process = &processes(&durable, 1)[0];
    let line = calls(account, 1000, 1);
    for n in 1..=3 {
        assert_eq!(charge(process, &org, line).await, Charged::Charged(vec![n]));
    }
    let much = Resolution::Settle(Usage { calls: 2000, ..Usage::default() });
    let settled = process.resolve(&org, None, &[HeldLine::from(&line)], much, now()).await.unwrap();
    assert_eq!(settled, Resolved::Done { counters: vec![2002], late: false });
    // What is left of the slice is not used for a limit that was passed.
    assert_eq!(charge(process, &org, line).await, Charged::Exceeded { line: 0, used: 2002 });
    assert_eq!(used(&*durable, &org, account).await, 2002);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_go_away_waste_nothing() {
    const CAP: u64 = 3000;
    let durable = Arc::new(Durable::default());
    durable.mood.store(SLOW, Ordering::Relaxed);
    for _ in 0..5 {
        let (org, account) = (some_org(), some_account());
        let processes = processes(&durable, 2);
        let mut tasks = JoinSet::new();
        for caller in 0..32u64 {
            let (process, org) = (processes[usize::try_from(caller % 2).unwrap()].clone(), org.clone());
            tasks.spawn(async move {
                let mut acknowledged = 0;
                for call in 0..30 {
                    let patience = Duration::from_micros((caller * 37 + call * 53) % 1500);
                    let line = calls(account, CAP, 1);
                    if let Ok(charged) = timeout(patience, charge(&process, &org, line)).await {
                        assert!(matches!(charged, Charged::Charged(_)), "{charged:?}");
                        acknowledged += 1;
                    }
                }
                acknowledged
            });
        }
        let acknowledged: u64 = tasks.join_all().await.into_iter().sum();
        for process in &processes {
            process.give_back(now()).await.unwrap();
        }
        let made = used(&*durable, &org, account).await;
        assert!((acknowledged..=960).contains(&made), "{acknowledged} {made}");
        assert_eq!(made + until_refused(&processes, &org, &[calls(account, CAP, 1)], 8).await, CAP);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_wastes_no_more_than_is_said() {
    const CAP: u64 = 5000;
    let durable = Arc::new(Durable::default());
    let (org, account) = (some_org(), some_account());
    let mut charged = 0;
    for crash in 1..=10u64 {
        let process = &processes(&durable, 1)[0];
        for _ in 0..150 {
            assert!(matches!(charge(process, &org, calls(account, CAP, 1)).await, Charged::Charged(_)));
            charged += 1;
        }
        let counted = used(&*durable, &org, account).await;
        assert!(counted - charged <= crash * WASTE, "{counted} {charged}");
    }
    charged += until_refused(&processes(&durable, 1), &org, &[calls(account, CAP, 1)], 8).await;
    assert!(charged <= CAP && CAP - charged <= 10 * WASTE, "{charged}");
}

#[tokio::test]
async fn a_raised_and_a_lowered_maximum_hold_at_once() {
    let durable = Arc::new(Durable::default());
    let (org, account) = (some_org(), some_account());
    let processes = processes(&durable, 2);
    for _ in 0..50 {
        for process in &processes {
            assert!(matches!(charge(process, &org, calls(account, 10_000, 1)).await, Charged::Charged(_)));
        }
    }
    assert!(used(&*durable, &org, account).await > 200, "both have some left");
    // 100 are used. What each has left was taken under a higher maximum.
    for process in &processes {
        let refused = charge(process, &org, calls(account, 90, 1)).await;
        assert!(matches!(refused, Charged::Exceeded { line: 0, .. }), "{refused:?}");
    }
    assert_eq!(used(&*durable, &org, account).await, 100, "both gave back");
    assert_eq!(until_refused(&processes, &org, &[calls(account, 150, 1)], 4).await, 50);
    assert_eq!(until_refused(&processes, &org, &[calls(account, 2000, 1)], 4).await, 1850);
    let refused = charge(&processes[0], &org, calls(account, 2000, 0)).await;
    assert_eq!(refused, Charged::Exceeded { line: 0, used: 2000 });
}

#[tokio::test]
async fn what_was_counted_without_a_maximum_is_not_used_under_one() {
    let durable = Arc::new(Durable::default());
    let (org, account) = (some_org(), some_account());
    let process = &processes(&durable, 1)[0];
    for n in 1..=20 {
        let fact = calls_at(account, None, 1, now());
        assert_eq!(charge(process, &org, fact).await, Charged::Charged(vec![n]));
    }
    let lines = [calls(account, 20, 1), calls(account, 21, 1), calls(account, 21, 0)];
    let exceeded = |used| Charged::Exceeded { line: 0, used };
    assert_eq!(charge(process, &org, lines[0]).await, exceeded(20));
    assert_eq!(charge(process, &org, lines[1]).await, Charged::Charged(vec![21]));
    assert_eq!(charge(process, &org, lines[2]).await, exceeded(21));
}

#[tokio::test]
async fn windows_roll_over() {
    let durable = Arc::new(Durable::default());
    let (org, account) = (some_org(), some_account());
    let process = &processes(&durable, 1)[0];
    for hour in 0..50 {
        let at = now().plus(Duration::from_secs(3600 * hour));
        let lines = [calls_at(account, Some(1000), 1, at)];
        for n in 1..=600 {
            let charged = process.charge(&org, &Charge::once(&lines), at).await.unwrap();
            assert_eq!(charged, Charged::Charged(vec![n]), "hour {hour}");
        }
        assert_eq!(process.usage(&org, account, at).await.unwrap().calls, 600);
    }
}

#[tokio::test]
async fn a_charge_with_an_id_gets_what_was_left_over() {
    let durable = Arc::new(Durable::default());
    let (org, account) = (some_org(), some_account());
    let process = &processes(&durable, 1)[0];
    for _ in 0..30 {
        assert!(matches!(charge(process, &org, calls(account, 1000, 1)).await, Charged::Charged(_)));
    }
    assert!(used(&*durable, &org, account).await > 30);
    let actor = AgentId::from_uuid(account.owner);
    let keep_until = now().plus(Duration::from_secs(60));
    let id = ChargeId { actor, key: "k", request_hash: [1; 32], keep_until };
    let lines = [calls(account, 1000, 970)];
    let hold = NewHold { parked: false, ends: keep_until, note: "" };
    let held = Charge::held(id, &lines, hold);
    assert_eq!(process.charge(&org, &held, now()).await.unwrap(), Charged::Charged(vec![1000]));
    assert_eq!(process.charge(&org, &held, now()).await.unwrap(), Charged::Repeated);
    let released = process
        .resolve(
            &org,
            Some(HoldId { actor, key: "k" }),
            &[HeldLine::from(&lines[0])],
            Resolution::Release,
            now(),
        )
        .await
        .unwrap();
    assert_eq!(released, Resolved::Done { counters: vec![30], late: false });
    assert_eq!(until_refused(&processes(&durable, 1), &org, &[calls(account, 1000, 1)], 1).await, 970);
}

#[tokio::test]
async fn a_durable_store_that_fails_refuses_what_is_not_left() {
    let durable = Arc::new(Durable::default());
    let (org, account) = (some_org(), some_account());
    let process = &processes(&durable, 1)[0];
    let line = [calls(account, 10_000, 1)];
    for _ in 0..2 {
        assert!(matches!(charge_all(process, &org, &line).await, Charged::Charged(_)));
    }
    durable.mood.store(FAILS, Ordering::Relaxed);
    for _ in 0..99 {
        assert!(matches!(charge_all(process, &org, &line).await, Charged::Charged(_)));
    }
    for _ in 0..3 {
        assert!(process.charge(&org, &Charge::once(&line), now()).await.unwrap_err().is_retryable());
    }
    durable.mood.store(WORKS, Ordering::Relaxed);
    assert_eq!(charge_all(process, &org, &line).await, Charged::Charged(vec![102]));
    durable.mood.store(FAILS, Ordering::Relaxed);
    assert!(process.give_back(now()).await.is_err());
    assert!(process.give_back(now()).await.is_ok(), "there is nothing left to give back");
}

#[tokio::test]
async fn what_is_given_back_meanwhile_is_not_subtracted_twice() {
    let durable = Arc::new(Durable::default());
    let (org, account) = (some_org(), some_account());
    let [process] = processes(&durable, 1).try_into().unwrap();
    for _ in 0..10 {
        assert!(matches!(charge(&process, &org, calls(account, 1000, 1)).await, Charged::Charged(_)));
    }
    assert!(used(&*durable, &org, account).await > 10, "something is left here");
    durable.mood.store(LATE, Ordering::Relaxed);
    let (shown, given) = tokio::join!(used(&process, &org, account), process.give_back(now()));
    given.unwrap();
    assert_eq!(used(&*durable, &org, account).await, 10);
    assert_eq!(shown, 10);
}

#[tokio::test]
async fn what_is_given_back_and_taken_again_meanwhile_is_not_subtracted() {
    let durable = Arc::new(Durable::default());
    let (org, account) = (some_org(), some_account());
    let [process] = processes(&durable, 1).try_into().unwrap();
    for _ in 0..10 {
        assert!(matches!(charge(&process, &org, calls(account, 1000, 1)).await, Charged::Charged(_)));
    }
    durable.mood.store(LONG, Ordering::Relaxed);
    let (shown, ()) = tokio::join!(used(&process, &org, account), async {
        process.give_back(now()).await.unwrap();
        // It is read now.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(charge(&process, &org, calls(account, 1000, 1)).await, Charged::Charged(_)));
        durable.mood.store(WORKS, Ordering::Relaxed);
    });
    assert!(used(&*durable, &org, account).await > 11, "something is left here again");
    assert_eq!(shown, 10);
    assert_eq!(used(&process, &org, account).await, 11);
}
