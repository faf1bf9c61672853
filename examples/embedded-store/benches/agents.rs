//! Looking an agent up by its client id, by number of agents. With `BENCH_MILLION` set, up to a million: filling
//! the file takes minutes then.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::{env, fs, hint::black_box, path::Path, sync::Arc, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion};
use embedded_store::EmbeddedStore;
use lumoauth_core::{
    agent::Agent,
    audit::{Actor, Event, EventKind},
    clock::Timestamp,
    id::{ClientId, OrgId, Slug},
    store::{AgentKey, AgentStore, Insert},
};
use tokio::{runtime::Runtime, task::JoinSet};

fn client_id(number: usize) -> ClientId {
    ClientId::parse(&format!("cli_{number:024x}")).unwrap()
}

async fn insert(store: &EmbeddedStore, org: &OrgId, number: usize) {
    let now = Timestamp::from_unix_seconds(1_790_000_000);
    let mut agent = Agent::new("Bench Agent", Slug::parse(&format!("bench-{number}")).unwrap(), now);
    agent.client_id = client_id(number);
    let event = Event::new(EventKind::AgentCreated, Actor::system(), "made for a benchmark", now);
    let outcome = AgentStore::insert(store, org, &agent, &event).await;
    assert_eq!(outcome.unwrap(), Insert::Inserted);
}

/// Puts agents `from` to `to` into the store, many at a time, so that they share the cost of each sync.
async fn fill(store: &Arc<EmbeddedStore>, org: &OrgId, from: usize, to: usize) {
    const AT_A_TIME: usize = 512;
    let mut tasks = JoinSet::new();
    for first in 0..AT_A_TIME {
        let (store, org) = (store.clone(), org.clone());
        tasks.spawn(async move {
            for number in (from + first..to).step_by(AT_A_TIME) {
                insert(&store, &org, number).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{}.redb", std::process::id()));
    let store = Arc::new(EmbeddedStore::open(&path).unwrap());
    let org = OrgId::parse("acme-corp").unwrap();
    let runtime = Runtime::new().unwrap();
    let mut counts = vec![1_000, 100_000];
    counts.extend(env::var_os("BENCH_MILLION").map(|_| 1_000_000));

    let mut group = criterion.benchmark_group("agent by client id, embedded");
    let mut there = 0;
    for count in counts {
        runtime.block_on(fill(&store, &org, there, count));
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
                    runtime.block_on(AgentStore::find(&*store, &org, key)).unwrap().unwrap()
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    drop(store);
    let _ = fs::remove_file(&path);
    criterion.final_summary();
}
