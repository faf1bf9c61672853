//! G7: strict budget charges on PostgreSQL against bare counters in it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lumoauth_core::{
    budget::{Account, BudgetPolicy, HeldLine, MicroUsd, Resolution, Standing, Usage, account_lines},
    id::{AgentId, OrgId},
    store::{BudgetStore, Charge, ChargeId, Charged, HoldId, NewHold, Resolved},
};
use lumoauth_store_postgres::{PostgresStore, Settings};
use lumoauth_tests::services::{Database, query};
use tokio::runtime::Runtime;

use crate::{
    Options,
    goals::{now, ratios},
    host, many_threads, one_thread,
    rate::{self, Contender, Rate, alternate},
    raw::{COUNTERS, Connections},
    report::{Limit, Report, Spread, say},
};

/// How many charges are under way at once.
const CALLERS: usize = 32;

/// How many agents share the charges where it is not one.
const AGENTS: usize = 100;

/// Charges of three meters from 32 callers: all to one agent, with and without an id, and to a hundred.
pub(crate) fn strict(options: &Options, report: &mut Report) {
    say("G7: strict budget charges on PostgreSQL");
    let database = Database::create();
    query(database.url(), COUNTERS);
    let runtime = many_threads();
    let store = Arc::new(runtime.block_on(open(database.url())));
    let hot = Charges::new(&runtime, store.clone(), 1);
    let many = Charges::new(&runtime, store, AGENTS);
    let alone = one_thread();
    let one = alone.block_on(Connections::open(database.url(), 1));
    let each = runtime.block_on(Connections::open(database.url(), CALLERS));

    let contenders = [
        Contender::new("bare UPDATE, 1 caller, 1 row", |length| bare(&alone, &one, 1, length)),
        Contender::new("charge, 32 callers, 1 agent", |length| hot.round(CALLERS, length, Id::None)),
        Contender::new("charge with id, 32 callers, 1 agent", |length| hot.round(CALLERS, length, Id::Fresh)),
        Contender::new("bare UPDATE, 32 callers with a connection each, 100 rows", |length| {
            bare(&runtime, &each, CALLERS, length)
        }),
        Contender::new("charge, 32 callers, 100 agents", |length| many.round(CALLERS, length, Id::None)),
        Contender::new("held charge + settle, pairs, 32 callers, 1 agent", |length| {
            hot.pairs(CALLERS, length)
        }),
    ];
    let rates = alternate(options, &contenders);
    let mut compare = |what, of: usize, to: usize, limit| {
        report.add("G7", what, Spread::of(ratios(&rates[of], &rates[to])), limit);
    };
    compare("charges/s to one agent / bare UPDATEs/s of one caller", 1, 0, Limit::AtLeast(10.0));
    compare("with ids: charges/s to one agent / bare UPDATEs/s of one caller", 2, 0, Limit::AtLeast(4.0));
    compare("charges/s to 100 agents / bare UPDATEs/s on a connection each", 4, 3, Limit::AtLeast(0.65));
    compare("held and settled: pairs/s of one agent / bare UPDATEs/s of one caller", 5, 0, Limit::None);
}

/// A store on a database that was empty.
pub(super) async fn open(url: &str) -> PostgresStore {
    PostgresStore::migrate(url).await.expect("the tables can be made");
    PostgresStore::connect(url, Settings::default()).await.expect("the store opens")
}

fn bare(runtime: &Runtime, connections: &Arc<Connections>, callers: usize, length: Duration) -> Rate {
    let connections = connections.clone();
    let next = Arc::new(AtomicUsize::new(0));
    rate::measure(runtime, callers, length, move |_| {
        let (connections, next) = (connections.clone(), next.clone());
        async move {
            let number = if callers == 1 { 0 } else { next.fetch_add(1, Ordering::Relaxed) % AGENTS };
            connections.count(i32::try_from(number).expect("a small number")).await;
        }
    })
}

/// Whether a charge can be repeated.
#[derive(Clone, Copy, Debug)]
pub(super) enum Id {
    /// It cannot.
    None,
    /// It has an id that was never used.
    Fresh,
}

/// Charges of three meters, each below its maximum, to some agents in turn.
pub(super) struct Charges<'r> {
    runtime: &'r Runtime,
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn BudgetStore>,
    org: OrgId,
    policy: BudgetPolicy,
    agents: Vec<AgentId>,
    next: AtomicUsize,
}

impl<'r> Charges<'r> {
    pub(super) fn new(runtime: &'r Runtime, store: Arc<dyn BudgetStore>, agents: usize) -> Self {
        let org = OrgId::parse(host::ORG).expect("a slug");
        let agents = (0..agents).map(|_| AgentId::generate()).collect();
        let mut policy = BudgetPolicy::default();
        policy.max_tokens_per_day = Some(BudgetPolicy::MAX_COUNT);
        policy.max_api_calls_per_hour = Some(BudgetPolicy::MAX_COUNT);
        policy.max_cost_per_month_usd = Some(MicroUsd::from_micros(BudgetPolicy::MAX_COUNT));
        let next = AtomicUsize::new(0);
        Self { runtime, shared: Arc::new(Shared { store, org, policy, agents, next }) }
    }

    /// A round of charges of one unit each.
    pub(super) fn round(&self, callers: usize, length: Duration, id: Id) -> Rate {
        let shared = self.shared.clone();
        rate::measure(self.runtime, callers, length, move |_| {
            let shared = shared.clone();
            async move { shared.charge(1, id).await }
        })
    }

    /// A round of charges of two units each that are held, and settled with one.
    fn pairs(&self, callers: usize, length: Duration) -> Rate {
        let shared = self.shared.clone();
        rate::measure(self.runtime, callers, length, move |_| {
            let shared = shared.clone();
            async move { shared.hold_and_settle().await }
        })
    }

    /// Charges each agent twice with `amount` units.
    pub(super) fn warm_up(&self, amount: u64) {
        self.runtime.block_on(async {
            for _ in 0..2 * self.shared.agents.len() {
                self.shared.charge(amount, Id::None).await;
            }
        });
    }
}

const DAY: Duration = Duration::from_secs(86_400);

impl Shared {
    /// Whose turn it is, and a number that nobody had before.
    fn next(&self) -> (AgentId, usize) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (self.agents[number % self.agents.len()], number)
    }

    async fn charge(&self, amount: u64, id: Id) {
        let now = now();
        let (agent, number) = self.next();
        let usage = Usage { tokens: amount, calls: amount, micro_usd: amount };
        let lines = account_lines(Account::agent(agent, 0), &self.policy, &usage, Standing::MustFit, now);
        assert_eq!(lines.len(), 3);
        let key = number.to_string();
        let charge = match id {
            Id::None => Charge::once(&lines),
            Id::Fresh => {
                let keep_until = now.plus(DAY);
                let id = ChargeId { actor: agent, key: &key, request_hash: [7; 32], keep_until };
                Charge::repeatable(id, &lines)
            }
        };
        let charged = self.store.charge(&self.org, &charge, now).await.expect("the store answers");
        assert!(matches!(charged, Charged::Charged(_)), "{charged:?}");
    }

    async fn hold_and_settle(&self) {
        let now = now();
        let (agent, number) = self.next();
        let usage = Usage { tokens: 2, calls: 2, micro_usd: 2 };
        let lines = account_lines(Account::agent(agent, 0), &self.policy, &usage, Standing::Hold, now);
        let key = number.to_string();
        let id = ChargeId { actor: agent, key: &key, request_hash: [7; 32], keep_until: now.plus(DAY) };
        let hold = NewHold { parked: false, ends: now.plus(Duration::from_secs(60)), note: "{}" };
        let charge = Charge::held(id, &lines, hold);
        let charged = self.store.charge(&self.org, &charge, now).await.expect("the store answers");
        assert!(matches!(charged, Charged::Charged(_)), "{charged:?}");
        let held: Vec<_> = lines.iter().map(HeldLine::from).collect();
        let used = Resolution::Settle(Usage { tokens: 1, calls: 1, micro_usd: 1 });
        let id = HoldId { actor: agent, key: &key };
        let settled = self.store.resolve(&self.org, Some(id), &held, used, now).await;
        let settled = settled.expect("the store answers");
        assert!(matches!(settled, Resolved::Done { .. }), "{settled:?}");
    }
}
