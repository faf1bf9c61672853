//! G1 and G2: what a token costs against a bare handler.

use crate::{
    Options, StoreKind,
    goals::{alternate, ratios},
    place::Place,
    report::{Limit, Report, Spread, micros, say},
    target::{Appends, Target},
};

/// G1: the memory store against the bare handler.
pub(crate) fn memory(options: &Options, report: &mut Report) {
    say("G1: client_credentials on the memory store");
    against_bare(options, report, ("G1", Limit::AtMost(1.25)), StoreKind::Memory);
}

/// G2: the durable stores, which have the audit row on disk before the answer, against the bare handler.
pub(crate) fn durable(options: &Options, report: &mut Report) {
    for (kind, limit) in [(StoreKind::Embedded, 1.6), (StoreKind::Postgres, 2.0)] {
        if options.wants(kind) {
            say(&format!("G2: client_credentials on {}", kind.name()));
            against_bare(options, report, ("G2", Limit::AtMost(limit)), kind);
        }
    }
    if options.wants(StoreKind::Postgres) {
        group_commit(options, report);
    }
}

fn against_bare(options: &Options, report: &mut Report, goal: (&'static str, Limit), kind: StoreKind) {
    let place = Place::new(kind);
    let real = Target::reference(options, &place);
    let bare = Target::bare_like(&real);
    let samples = alternate(options, &[&bare, &real]);
    let ratios = samples[1].iter().zip(&samples[0]).map(|(real, bare)| micros(real.cpu) / micros(bare.cpu));
    report.add(goal.0, format!("{}: CPU per token / bare axum", real.name), Spread::of(ratios), goal.1);
}

/// The same service on PostgreSQL, whose audit rows are committed together, and one by one.
fn group_commit(options: &Options, report: &mut Report) {
    say("G2: tokens on PostgreSQL with group commit of audit rows and without");
    let places = [Place::new(StoreKind::Postgres), Place::new(StoreKind::Postgres)];
    let without = Target::on_postgres(places[0].store(), Appends::OneByOne);
    let with = Target::on_postgres(places[1].store(), Appends::Together);
    let samples = alternate(options, &[&without, &with]);
    let rates: Vec<Vec<f64>> =
        samples.iter().map(|samples| samples.iter().map(|sample| sample.per_second).collect()).collect();
    let what = "postgres: tokens/s with group commit / without";
    report.add("G2", what, Spread::of(ratios(&rates[1], &rates[0])), Limit::None);
}
