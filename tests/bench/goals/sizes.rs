//! G10: what a token costs with many agents against few.

use crate::{
    Options, StoreKind,
    goals::alternate,
    host,
    place::Place,
    report::{Limit, Report, Spread, megabytes, micros, say},
    target::Target,
};

/// Many agents against few, on each store. Twice: with requests of all agents alike, and with requests of the same
/// thousand everywhere.
pub(crate) fn sizes(options: &Options, report: &mut Report) {
    let mut sizes = vec![1_000, 100_000];
    sizes.extend(options.million.then_some(1_000_000));
    for kind in StoreKind::ALL.into_iter().filter(|kind| options.wants(*kind)) {
        say(&format!("G10: by number of agents, {}", kind.name()));
        if kind == StoreKind::Memory {
            let mut hosted: Vec<Target> = sizes.iter().map(|count| Target::hosted(*count)).collect();
            compare(options, report, &sizes, &mut hosted, kind.name());
            continue;
        }
        let places: Vec<Place> = sizes.iter().map(|count| Place::prepared(options, kind, *count)).collect();
        let mut servers: Vec<Target> = sizes
            .iter()
            .zip(&places)
            .map(|(count, place)| {
                let mut server = Target::reference(options, place);
                server.name = format!("{}, {count} agents", kind.name());
                server.ask_for(host::ORG, *count);
                server
            })
            .collect();
        compare(options, report, &sizes, &mut servers, kind.name());
    }
}

fn compare(
    options: &Options,
    report: &mut Report,
    sizes: &[usize],
    targets: &mut [Target],
    store: &'static str,
) {
    for target in targets.iter() {
        say(&format!("  {:<66} {:>7.1} MB resident", target.name, megabytes(target.process.resident())));
    }
    let mut against_few = |targets: &[Target], which: &str| {
        let samples = alternate(options, &targets.iter().collect::<Vec<_>>());
        for (size, many) in sizes.iter().zip(&samples).skip(1) {
            let ratios = many.iter().zip(&samples[0]).map(|(many, few)| micros(many.cpu) / micros(few.cpu));
            let what = format!("{store}, {which}: CPU at {size} agents / at {}", sizes[0]);
            report.add("G10", what, Spread::of(ratios), Limit::AtMost(1.05));
        }
    };
    against_few(targets, "all agents");
    for target in &mut *targets {
        target.ask_for(host::ORG, sizes[0]);
    }
    against_few(targets, "the same 1000");
    for (size, target) in sizes.iter().zip(&*targets) {
        let resident = megabytes(target.process.resident());
        report.add(
            "G10",
            format!("{store}, {size} agents: MB resident"),
            Spread::of([resident]),
            Limit::None,
        );
    }
}
