//! Looking an agent up by its client id, by number of agents, in memory.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion};
use futures_util::FutureExt;
use lumoauth_core::{
    agent::Agent,
    audit::{Actor, Event, EventKind},
    clock::Timestamp,
    id::{ClientId, OrgId, Slug},
    store::{AgentKey, AgentStore, Insert, MemoryStore},
};

fn client_id(number: usize) -> ClientId {
    ClientId::parse(&format!("cli_{number:024x}")).unwrap()
}

fn insert(store: &MemoryStore, org: &OrgId, number: usize) {
    let now = Timestamp::from_unix_seconds(1_790_000_000);
    let mut agent = Agent::new("Bench Agent", Slug::parse(&format!("bench-{number}")).unwrap(), now);
    agent.client_id = client_id(number);
    let event = Event::new(EventKind::AgentCreated, Actor::system(), "made for a benchmark", now);
    let outcome = AgentStore::insert(store, org, &agent, &event).now_or_never().unwrap();
    assert_eq!(outcome.unwrap(), Insert::Inserted);
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let store = MemoryStore::new();
    let org = OrgId::parse("acme-corp").unwrap();
    let mut group = criterion.benchmark_group("agent by client id, memory");
    let mut there = 0;
    for count in [1_000, 100_000, 1_000_000] {
        (there..count).for_each(|number| insert(&store, &org, number));
        there = count;
        // Another agent each time, as far from the one before as can be: no look-up profits from its neighbour.
        let mut number = 0;
        let mut next = || {
            number = (number + 618_033_989) % count;
            client_id(number)
        };
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter_batched(
                &mut next,
                |id| {
                    let key = AgentKey::ClientId(black_box(&id));
                    AgentStore::find(&store, &org, key).now_or_never().unwrap().unwrap().unwrap()
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    criterion.final_summary();
}
