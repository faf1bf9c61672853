//! The capability decision by number of grants.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion};
use lumoauth_core::capability::{Capability, evaluate};

fn capability(text: &str) -> Capability {
    Capability::parse(text).unwrap()
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut group = criterion.benchmark_group("capability");
    for count in [10, 100, 1000] {
        // Same length and a common beginning, so that no comparison ends at its first byte.
        let exact: Vec<_> = (0..count).map(|n| capability(&format!("read:documents-{n:04}"))).collect();
        let wild: Vec<_> = (0..count).map(|n| capability(&format!("read:folder-{n:04}:*"))).collect();
        let last = capability(&format!("read:documents-{:04}", count - 1));
        let below_last = capability(&format!("read:folder-{:04}:file", count - 1));
        let nothing = capability("read:documents-none");
        let mut decide = |name, grants: &[Capability], ask: &Capability, allowed| {
            assert_eq!(evaluate(grants, None, ask).is_allow(), allowed);
            group.bench_with_input(BenchmarkId::new(name, count), ask, |b, ask| {
                b.iter(|| evaluate(black_box(grants), None, black_box(ask)));
            });
        };
        decide("last of", &exact, &last, true);
        decide("last wildcard of", &wild, &below_last, true);
        decide("none of", &exact, &nothing, false);
    }
    group.finish();
    criterion.final_summary();
}
