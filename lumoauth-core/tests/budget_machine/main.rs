//! A million random steps of budgets, each checked against a small exact model.
//!
//! A history is one organization with two agents, a chain of them and an envelope, over several months: charges, facts,
//! holds that are settled, released, parked, agreed to, denied or forgotten, ids that come again with the same content and
//! with other content, limits that are raised and lowered, resets, and time that jumps to the edge of a window. After each
//! step the store must have answered what the model says, and after each history:
//!
//! - every counter, also of a window that is over, shows exactly the sum of what was counted in it (conservation);
//! - no counter was ever taken past its maximum by anything but a fact.
//!
//! A failure names its seed; `BUDGET_SEED=<seed> cargo test --test budget_machine` runs that history alone. `BUDGET_STEPS` is
//! how many steps there are in all.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;

use std::{env, time::Duration};

use lumoauth_core::{
    budget::{Account, BudgetPolicy, HeldLine, Line, Resolution, Standing, Usage, Window, account_lines},
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{BudgetStore, Charge, ChargeId, HoldId, MemoryStore, NewHold},
};
use uuid::Uuid;

use model::{Model, Random};

const STEPS_PER_HISTORY: u64 = 500;

/// How long an id is known after the end of its hold.
const KEEP: Duration = Duration::from_secs(86_400);

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[tokio::test(flavor = "current_thread")]
async fn every_step_is_as_the_model_says() {
    if let Some(seed) = number("BUDGET_SEED") {
        return history(seed).await;
    }
    let histories = number("BUDGET_STEPS").unwrap_or(1_000_000).div_ceil(STEPS_PER_HISTORY);
    let mut seen = model::Seen::default();
    for seed in 1..=histories {
        let history = tokio::spawn(history_with(seed));
        match history.await {
            Ok(saw) => seen.add(&saw),
            Err(failure) => panic!("BUDGET_SEED={seed}: {failure}"),
        }
    }
    println!("{histories} histories of {STEPS_PER_HISTORY} steps: {seen:?}");
    seen.assert_everything_happened();
}

async fn history(seed: u64) {
    let _ = history_with(seed).await;
}

/// One of the two agents.
struct Agent {
    id: AgentId,
    generation: u32,
    policy: BudgetPolicy,
}

impl Agent {
    fn account(&self) -> Account {
        Account::agent(self.id, self.generation)
    }
}

struct History {
    random: Random,
    store: MemoryStore,
    model: Model,
    org: OrgId,
    agents: [Agent; 2],
    envelope: (Account, BudgetPolicy),
    now: Timestamp,
}

async fn history_with(seed: u64) -> model::Seen {
    let mut random = Random::new(seed);
    // Ids that are the same each time: what is picked next hangs on their order.
    let agents = [1, 2].map(|id| {
        let id = AgentId::from_uuid(Uuid::from_u128(id));
        Agent { id, generation: 0, policy: policy(&mut random) }
    });
    let envelope = (Account::envelope(Uuid::from_u128(3)), policy(&mut random));
    let mut history = History {
        store: MemoryStore::new(),
        model: Model::default(),
        org: OrgId::parse("acme").unwrap(),
        agents,
        envelope,
        now: "2027-01-31T22:30:00Z".parse().unwrap(),
        random,
    };
    for _ in 0..STEPS_PER_HISTORY {
        history.step().await;
    }
    history.check_usage().await;
    history.check_every_counter().await;
    history.model.seen
}

/// Small maxima, so that they are reached; often none.
fn policy(random: &mut Random) -> BudgetPolicy {
    let mut max = |most: u64| (random.below(3) > 0).then(|| random.below(most));
    let mut policy = BudgetPolicy::default();
    policy.max_tokens_per_day = max(20_000);
    policy.max_api_calls_per_hour = max(500);
    policy.max_cost_per_month_usd = max(80_000).map(lumoauth_core::budget::MicroUsd::from_micros);
    policy
}

impl History {
    async fn step(&mut self) {
        match self.random.below(20) {
            0..=3 => self.charge(Standing::MustFit).await,
            4 => self.charge(Standing::Fact).await,
            5..=8 => self.hold(false).await,
            9 => self.hold(true).await,
            10..=14 => self.resolve().await,
            15 => self.settle_without_id().await,
            16 => self.change_limits(),
            17 => self.look().await,
            18 => self.check_usage().await,
            _ => self.pass_time(),
        }
    }

    /// Usually little, sometimes nothing, rarely more than anybody has.
    fn usage(&mut self) -> Usage {
        let random = &mut self.random;
        let mut amount = |most| match random.below(8) {
            0 | 1 => 0,
            2 if random.below(300) == 0 => u64::MAX - random.below(3),
            _ => random.below(most),
        };
        Usage { tokens: amount(400), calls: amount(8), micro_usd: amount(1500) }
    }

    /// Who calls, and the lines for everybody who pays: an agent alone, the second one for the first, or with the envelope.
    fn lines(&mut self, usage: &Usage, standing: Standing) -> (AgentId, Vec<Line>) {
        let [first, second] = &self.agents;
        let of = |agent: &Agent| (agent.account(), agent.policy.clone());
        let (actor, payers) = match self.random.below(4) {
            0 => (first.id, vec![of(first)]),
            1 => (second.id, vec![of(second)]),
            2 => (second.id, vec![of(second), of(first)]),
            _ => (second.id, vec![of(second), of(first), self.envelope.clone()]),
        };
        let lines = payers
            .iter()
            .flat_map(|(account, policy)| account_lines(*account, policy, usage, standing, self.now))
            .collect();
        (actor, lines)
    }

    /// One of few ids, so that they come again.
    fn key(&mut self) -> String {
        format!("id {}", self.random.below(12))
    }

    async fn charge(&mut self, standing: Standing) {
        let usage = self.usage();
        let (actor, lines) = self.lines(&usage, standing);
        if self.random.below(3) > 0 {
            let outcome = self.store.charge(&self.org, &Charge::once(&lines), self.now).await.unwrap();
            return self.model.charge(None, &lines, None, self.now, &outcome);
        }
        let (key, hash) = (self.key(), [u8::try_from(self.random.below(3)).unwrap(); 32]);
        let id = ChargeId { actor, key: &key, request_hash: hash, keep_until: self.now.plus(KEEP) };
        let outcome = self.store.charge(&self.org, &Charge::repeatable(id, &lines), self.now).await.unwrap();
        self.model.charge(Some(id), &lines, None, self.now, &outcome);
    }

    async fn hold(&mut self, parked: bool) {
        let usage = self.usage();
        let (actor, lines) = self.lines(&usage, Standing::Hold);
        let (key, hash) = (self.key(), [u8::try_from(self.random.below(3)).unwrap(); 32]);
        let ends = self.now.plus(Duration::from_secs(1 + self.random.below(600)));
        let id = ChargeId { actor, key: &key, request_hash: hash, keep_until: ends.plus(KEEP) };
        let hold = NewHold { parked, ends, note: "" };
        let outcome = self.store.charge(&self.org, &Charge::held(id, &lines, hold), self.now).await.unwrap();
        self.model.charge(Some(id), &lines, Some(hold), self.now, &outcome);
    }

    async fn resolve(&mut self) {
        // Usually one of which something may still become.
        let (actor, key) = match self.model.some_live(self.random.below(4)) {
            Some(live) if self.random.below(4) > 0 => live,
            _ => (self.agents[usize::try_from(self.random.below(2)).unwrap()].id, self.key()),
        };
        let id = HoldId { actor, key: &key };
        let resolution = match self.random.below(10) {
            0..=4 => Resolution::Settle(self.usage()),
            5 | 6 => Resolution::Release,
            7 => Resolution::Unpark(self.now.plus(Duration::from_secs(self.random.below(600)))),
            8 => Resolution::Deny,
            _ => Resolution::Expire,
        };
        let lines = self.model.lines_of(actor, &key);
        let outcome = self.store.resolve(&self.org, Some(id), &lines, resolution, self.now).await.unwrap();
        self.model.resolve(actor, &key, resolution, self.now, &outcome);
    }

    async fn settle_without_id(&mut self) {
        let usage = self.usage();
        let (_, lines) = self.lines(&usage, Standing::Hold);
        let outcome = self.store.charge(&self.org, &Charge::once(&lines), self.now).await.unwrap();
        self.model.charge(None, &lines, None, self.now, &outcome);
        if !matches!(outcome, lumoauth_core::store::Charged::Charged(_)) {
            return;
        }
        let held: Vec<_> = lines.iter().map(HeldLine::from).collect();
        let used = self.usage();
        let settle = Resolution::Settle(used);
        let outcome = self.store.resolve(&self.org, None, &held, settle, self.now).await.unwrap();
        self.model.settle_without_id(&held, used, &outcome);
    }

    fn change_limits(&mut self) {
        let agent = &mut self.agents[usize::try_from(self.random.below(2)).unwrap()];
        if self.random.below(8) == 0 {
            agent.generation += 1;
        } else {
            agent.policy = policy(&mut self.random);
        }
    }

    /// The holds that the store shows.
    async fn look(&mut self) {
        for agent in &self.agents {
            let live = self.store.live_holds(&self.org, agent.id, self.now, 1000).await.unwrap();
            self.model.check_live(agent.id, self.now, &live);
        }
        let overdue = self.store.overdue(self.now, 1000).await.unwrap();
        self.model.check_overdue(self.now, &overdue);
    }

    async fn check_usage(&mut self) {
        let accounts = self.agents.iter().map(Agent::account).chain([self.envelope.0]);
        for account in accounts.collect::<Vec<_>>() {
            let usage = self.store.usage(&self.org, account, self.now).await.unwrap();
            self.model.check_usage(account, self.now, &usage);
        }
    }

    /// Every counter that there ever was, also those of windows that are over and of generations before a reset.
    async fn check_every_counter(&self) {
        for (counter, sum) in self.model.counters() {
            let (account, meter, _, start) = counter;
            let used = self.store.usage(&self.org, account, start).await.unwrap().of(meter);
            assert_eq!(used, sum, "{counter:?}");
        }
    }

    fn pass_time(&mut self) {
        let edge = |window: Window| window.end(self.now);
        self.now = match self.random.below(8) {
            // The last instant of an hour, the first of the next.
            0 => edge(Window::Hour).minus(Duration::from_millis(1)).max(self.now),
            1 => edge(Window::Hour),
            2 if self.random.below(4) == 0 => edge(Window::Day),
            3 if self.random.below(10) == 0 => edge(Window::Month),
            n => self.now.plus(Duration::from_millis(n * self.random.below(20_000))),
        };
    }
}
