//! A charge of three meters: leased beside unleased, on memory. And a charge that is settled.
//!
//! The memory store answers at once, so this shows what leasing costs and not what it saves: on a store with I/O an
//! unleased charge is a round trip.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::Criterion;
use futures_util::FutureExt;
use lumoauth_core::{
    budget::{Account, BudgetPolicy, HeldLine, MicroUsd, Resolution, Standing, Usage, account_lines},
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{BudgetStore, Charge, Charged, LeasedBudgets, MemoryStore, Resolved},
};

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut policy = BudgetPolicy::default();
    policy.max_tokens_per_day = Some(BudgetPolicy::MAX_COUNT);
    policy.max_api_calls_per_hour = Some(BudgetPolicy::MAX_COUNT);
    policy.max_cost_per_month_usd = Some(MicroUsd::from_micros(BudgetPolicy::MAX_COUNT));
    let now = Timestamp::from_unix_seconds(1_790_000_000);
    let org = OrgId::parse("acme").unwrap();
    let usage = Usage { tokens: 10, calls: 1, micro_usd: 100 };
    let less = Usage { tokens: 7, ..usage };
    let durable = Arc::new(MemoryStore::new());
    let leased: Arc<dyn BudgetStore> = Arc::new(LeasedBudgets::new(durable.clone(), LeasedBudgets::SLICE));
    let mut group = criterion.benchmark_group("charge");
    for (name, store) in [("unleased", durable as Arc<dyn BudgetStore>), ("leased", leased)] {
        let account = Account::agent(AgentId::generate(), 0);
        let lines = account_lines(account, &policy, &usage, Standing::Hold, now);
        let held: Vec<_> = lines.iter().map(HeldLine::from).collect();
        let charge = || {
            let charged = store.charge(&org, &Charge::once(black_box(&lines)), now).now_or_never();
            assert!(matches!(charged.unwrap().unwrap(), Charged::Charged(_)));
        };
        let settle = || {
            let settled = store.resolve(&org, None, black_box(&held), Resolution::Settle(less), now);
            assert!(matches!(settled.now_or_never().unwrap().unwrap(), Resolved::Done { .. }));
        };
        group.bench_function(name, |b| b.iter(charge));
        group.bench_function(format!("{name}, and settled"), |b| {
            b.iter(|| {
                charge();
                settle();
            });
        });
    }
    group.finish();
    criterion.final_summary();
}
