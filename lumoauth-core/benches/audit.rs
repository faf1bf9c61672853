//! What an audit log costs: the tree as it grows, and checking what was exported.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lumoauth_core::{
    audit::{Actor, Event, EventKind},
    audit_export::{FORMAT, Line, Verifier},
    clock::Timestamp,
    id::OrgId,
    merkle::{Frontier, entry_leaf},
    store::RawEntry,
};

const ENTRIES: u64 = 10_000;

fn entries(org: &OrgId) -> Vec<RawEntry> {
    let entry = |seq| {
        let at = Timestamp::from_unix_millis(1_790_000_000_000 + seq);
        let event = Event::new(EventKind::AgentAction, Actor::system(), "an agent asked whether it may", at)
            .with("action", "documents.read")
            .with("reason", "Capability documents.read is granted.")
            .with("audit_id", "9d0c1f7ab2e34455");
        let body = serde_json::to_string(&event).unwrap_or_default();
        let leaf = entry_leaf(org, seq, event.id, at, body.as_bytes());
        RawEntry { seq, event_id: event.id, at, body: Some(body), leaf }
    };
    (1..=ENTRIES).map(entry).collect()
}

fn audit(criterion: &mut Criterion) {
    let org = OrgId::parse("acme").unwrap();
    let entries = entries(&org);
    let mut group = criterion.benchmark_group("audit");
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("grow", |bencher| {
        bencher.iter(|| {
            let mut tree = Frontier::default();
            for entry in &entries {
                tree.push(black_box(entry).recomputed(&org).unwrap_or(entry.leaf));
            }
            tree.root()
        });
    });
    let log = Line::Log { format: FORMAT.to_owned(), org };
    let lines = std::iter::once(log).chain(entries.iter().cloned().map(Line::entry));
    let lines: Vec<_> = lines.map(|line| line.to_text().unwrap_or_default()).collect();
    group.bench_function("verify", |bencher| {
        bencher.iter(|| {
            let mut verifier = Verifier::new(None);
            for line in &lines {
                assert!(verifier.line(line.trim_end_matches('\n').as_bytes()).is_ok());
            }
            verifier
        });
    });
    group.finish();
}

criterion_group!(benches, audit);
criterion_main!(benches);
