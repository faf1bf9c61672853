//! A maximum under 256 chargers, on one store and on several that share their data (security BU-01 to BU-03, BU-12).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use embedded_store::EmbeddedStore;
use lumoauth_core::{
    budget::{
        Account, BudgetPolicy, COUNTERS, HeldLine, Line, Meter, Resolution, Standing, Usage, account_lines,
    },
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{
        BudgetStore, Charge, ChargeId, Charged, HoldId, LeasedBudgets, MemoryStore, NewHold, Resolved,
        StoreError, StoreErrorKind,
        conformance::{now, some_org},
    },
};
use lumoauth_store_postgres::PostgresStore;
use lumoauth_store_redis::RedisBudgets;

use super::{hot::calls, race_of, rounds_or};

const CHARGERS: usize = 256;

/// How often each of them tries.
const TRIES: usize = 40;

const CAP: u64 = 1000;

/// A budget store as one process of several has it.
pub(crate) trait Replica: BudgetStore {
    /// What its process does last.
    async fn end(&self) {}
}

impl Replica for MemoryStore {}
impl Replica for EmbeddedStore {}
impl Replica for PostgresStore {}
impl Replica for RedisBudgets {}
impl Replica for LeasedBudgets {
    async fn end(&self) {
        self.give_back(now()).await.unwrap();
    }
}

/// As many are served as there is room for, and no counter shows more at any time.
pub(crate) async fn caps_exact<S: BudgetStore>(stores: Vec<Arc<S>>) {
    for round in 0..rounds_or(2) {
        let (org, account) = (some_org(), Account::agent(AgentId::generate(), 0));
        let amount = [1, 3, 1, 7][round % 4];
        let served = race_of(CHARGERS, &stores, |_, store| {
            let org = org.clone();
            async move {
                let lines = [calls(account, Some(CAP), amount)];
                let mut served = 0;
                for _ in 0..TRIES {
                    match store.charge(&org, &Charge::once(&lines), now()).await.unwrap() {
                        Charged::Charged(counters) => {
                            assert!(counters[0] <= CAP, "{counters:?}");
                            served += 1;
                        }
                        Charged::Exceeded { line: 0, used } => assert!(used <= CAP, "{used}"),
                        other => panic!("{other:?}"),
                    }
                }
                served
            }
        })
        .await;
        let served: u64 = served.into_iter().sum();
        assert_eq!(served, CAP / amount, "round {round}");
        for store in &stores {
            assert_eq!(store.usage(&org, account, now()).await.unwrap().calls, served * amount);
        }
    }
}

/// The first charges of an account, all at once: its counter is not there yet.
pub(crate) async fn caps_first<S: BudgetStore>(stores: Vec<Arc<S>>) {
    for round in 0..rounds_or(4) {
        let (org, account) = (some_org(), Account::agent(AgentId::generate(), 0));
        let cap = [1, 100, 255, CAP][round % 4];
        let outcomes = race_of(CHARGERS, &stores, |_, store| {
            let org = org.clone();
            async move {
                let lines = [calls(account, Some(cap), 1)];
                store.charge(&org, &Charge::once(&lines), now()).await.unwrap()
            }
        })
        .await;
        let served = outcomes.iter().filter(|outcome| matches!(outcome, Charged::Charged(_))).count();
        assert_eq!(u64::try_from(served).unwrap(), cap.min(256), "round {round}: {outcomes:?}");
    }
}

/// An agent and the one it acts for, with a maximum each that is soon reached.
struct Chain {
    org: OrgId,
    actor: AgentId,
    accounts: [Account; 2],
    policies: [BudgetPolicy; 2],
    /// What was acknowledged and is not about to be freed: never more than what is counted.
    calls: AtomicU64,
    tokens: AtomicU64,
    refused: AtomicU64,
    unanswered: AtomicU64,
    over: AtomicBool,
}

const MAX_TOKENS: u64 = 9_000;

impl Chain {
    fn new() -> Self {
        let actor = AgentId::generate();
        let mut policies = [BudgetPolicy::default(), BudgetPolicy::default()];
        policies[0].max_api_calls_per_hour = Some(CAP);
        policies[1].max_tokens_per_day = Some(MAX_TOKENS);
        Self {
            org: some_org(),
            actor,
            accounts: [Account::agent(actor, 0), Account::agent(AgentId::generate(), 0)],
            policies,
            calls: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    fn lines(&self, usage: &Usage) -> Vec<Line> {
        let each = self.accounts.iter().zip(&self.policies);
        each.flat_map(|(account, policy)| account_lines(*account, policy, usage, Standing::Hold, now()))
            .collect()
    }

    /// Notes an answer to a charge; whether it was made.
    fn made(&self, lines: &[Line], usage: &Usage, charged: Charged) -> bool {
        match charged {
            Charged::Charged(counters) => {
                fit(lines, &counters);
                let calls = self.calls.fetch_add(usage.calls, Ordering::SeqCst) + usage.calls;
                let tokens = self.tokens.fetch_add(usage.tokens, Ordering::SeqCst) + usage.tokens;
                assert!(calls <= CAP && tokens <= MAX_TOKENS, "{calls} calls, {tokens} tokens");
                true
            }
            Charged::Exceeded { line, used } => {
                assert!(lines[line].limit.is_some_and(|max| used <= max), "line {line}: {used}");
                self.refused.fetch_add(1, Ordering::SeqCst);
                false
            }
            // Every id is used for one charge: an earlier try was made.
            Charged::Repeated => self.made(&[], usage, Charged::Charged(Vec::new())),
            other @ Charged::Conflict => panic!("{other:?}"),
        }
    }

    /// The answer to a call, if the machine was not too busy for one in time.
    fn answer<T>(&self, answer: Result<T, StoreError>) -> Option<T> {
        if let Err(error) = &answer {
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
            let unanswered = self.unanswered.fetch_add(1, Ordering::SeqCst);
            assert!(unanswered < 5000, "the store does not answer");
        }
        answer.ok()
    }

    /// One of the things that a caller may do; what it counts in the end, and what of that is still held. A call that
    /// has an id is made until it is answered.
    async fn step(&self, store: &impl BudgetStore, kind: usize, key: &str, usage: &Usage) -> [Usage; 2] {
        let lines = self.lines(usage);
        let nothing = Usage::default();
        if kind == 0 {
            let charged = self.answer(store.charge(&self.org, &Charge::once(&lines), now()).await);
            let made = charged.is_some_and(|charged| self.made(&lines, usage, charged));
            return if made { [*usage, nothing] } else { [nothing; 2] };
        }
        let parked = kind > 4;
        let id = ChargeId { actor: self.actor, key, request_hash: [7; 32], keep_until: later(600) };
        let hold = NewHold { parked, ends: later(60), note: "{}" };
        let charge = Charge::held(id, &lines, hold);
        let charged = loop {
            if let Some(charged) = self.answer(store.charge(&self.org, &charge, now()).await) {
                break charged;
            }
        };
        if !self.made(&lines, usage, charged) {
            return [nothing; 2];
        }
        let less = Usage { tokens: usage.tokens / 2, calls: usage.calls - 1, micro_usd: 1 };
        let (resolutions, counted): (&[Resolution], _) = match kind {
            1 => (&[Resolution::Settle(less)], less),
            2 => (&[Resolution::Settle(*usage)], *usage),
            3 => (&[Resolution::Release], nothing),
            4 => return [*usage; 2],
            5 => (&[Resolution::Unpark(later(90)), Resolution::Settle(less)], less),
            _ => (&[Resolution::Deny], nothing),
        };
        // From before the call on it may be free for others.
        self.calls.fetch_sub(usage.calls - counted.calls, Ordering::SeqCst);
        self.tokens.fetch_sub(usage.tokens - counted.tokens, Ordering::SeqCst);
        let held: Vec<_> = lines.iter().map(HeldLine::from).collect();
        let id = HoldId { actor: self.actor, key };
        for resolution in resolutions {
            let mut tries = 0;
            let resolved = loop {
                tries += 1;
                let answer = store.resolve(&self.org, Some(id), &held, *resolution, now()).await;
                if let Some(resolved) = self.answer(answer) {
                    break resolved;
                }
            };
            match resolved {
                Resolved::Done { counters, late: false } => fit(&lines, &counters),
                Resolved::Stays(_) if tries > 1 => {}
                other => panic!("{key}: {resolution:?}: {other:?}"),
            }
        }
        [counted, nothing]
    }

    /// Looks at the counters until all is over.
    async fn watch(&self, store: &impl BudgetStore) -> u64 {
        let mut looks = 0;
        while !self.over.load(Ordering::SeqCst) {
            let [own, parents] = self.usage(store).await;
            assert!(own.calls <= CAP && parents.tokens <= MAX_TOKENS, "{own:?}, {parents:?}");
            looks += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        looks
    }

    async fn usage(&self, store: &impl BudgetStore) -> [Usage; 2] {
        let [own, parents] = self.accounts.map(|account| store.usage(&self.org, account, now()));
        [own.await.unwrap(), parents.await.unwrap()]
    }
}

fn later(seconds: u64) -> Timestamp {
    now().plus(Duration::from_secs(seconds))
}

/// No counter of `lines` is above its maximum.
fn fit(lines: &[Line], counters: &[u64]) {
    assert_eq!(lines.len(), counters.len());
    let fits = |(line, counter): (&Line, &u64)| line.limit.is_none_or(|max| *counter <= max);
    assert!(lines.iter().zip(counters).all(fits), "{counters:?}");
}

/// Plain charges and holds that are settled, released, parked, agreed to, denied or left alone: what is settled and what
/// is held never pass a maximum together, and in the end nothing is lost and nothing counted twice.
pub(crate) async fn caps_mixed<S: Replica>(stores: Vec<Arc<S>>) {
    for round in 0..rounds_or(1) {
        let chain = Arc::new(Chain::new());
        let watchers: Vec<_> = stores
            .iter()
            .map(|store| {
                let (chain, store) = (chain.clone(), store.clone());
                tokio::spawn(async move { chain.watch(&*store).await })
            })
            .collect();
        let sums = race_of(CHARGERS, &stores, |caller, store| {
            let chain = chain.clone();
            async move {
                let mut sums = [Usage::default(); 2];
                for step in 0..6 {
                    let size = u64::try_from((caller * 7 + step * 3 + round) % 4).unwrap() + 1;
                    let usage = Usage { tokens: 10 * size, calls: size, micro_usd: 100 };
                    let key = format!("{caller} {step}");
                    let counted = chain.step(&*store, (caller + step) % 7, &key, &usage).await;
                    for (sum, counted) in sums.iter_mut().zip(counted) {
                        *sum = plus(*sum, counted);
                    }
                }
                sums
            }
        })
        .await;
        chain.over.store(true, Ordering::SeqCst);
        for watcher in watchers {
            assert!(watcher.await.unwrap() > 0);
        }
        for store in &stores {
            store.end().await;
        }

        let [used, held] =
            sums.into_iter().fold([Usage::default(); 2], |sums, more| [0, 1].map(|n| plus(sums[n], more[n])));
        // What was not answered may be counted, and so may a slice that was fetched for it.
        let unanswered = chain.unanswered.load(Ordering::SeqCst);
        assert!(chain.refused.load(Ordering::SeqCst) > 0, "the maximum was reached: {used:?}");
        assert_eq!(chain.calls.load(Ordering::SeqCst), used.calls);
        for store in &stores {
            for shown in chain.usage(&**store).await {
                let is_known = COUNTERS.into_iter().all(|(meter, _)| shown.of(meter) >= used.of(meter));
                assert!(
                    is_known && (shown == used || unanswered > 0),
                    "round {round}: {shown:?}, not {used:?}"
                );
            }
            let live = store.live_holds(&chain.org, chain.actor, now(), 10_000).await.unwrap();
            let lines = live.iter().flat_map(|hold| &hold.lines);
            let own = lines.filter(|line| line.account == chain.accounts[0]);
            let shown = own.fold(Usage::default(), |sum, line| plus(sum, of(line)));
            assert_eq!(shown, held, "round {round}");
        }
    }
}

fn of(line: &HeldLine) -> Usage {
    let mut usage = Usage::default();
    match line.meter {
        Meter::Tokens => usage.tokens = line.amount,
        Meter::Calls => usage.calls = line.amount,
        Meter::MicroUsd => usage.micro_usd = line.amount,
    }
    usage
}

fn plus(one: Usage, other: Usage) -> Usage {
    Usage {
        tokens: one.tokens + other.tokens,
        calls: one.calls + other.calls,
        micro_usd: one.micro_usd + other.micro_usd,
    }
}
