//! The goals, one function each.

use std::{
    fs, net::SocketAddr, path::Path, process::Command, process::Stdio, sync::Arc, thread, time::Duration,
};

use embedded_store::EmbeddedStore;
use lumoauth_core::id::OrgId;
use lumoauth_tests::Stopwatch;

use crate::{
    Options, agents, host, load, one_thread,
    process::{Process, TempDir},
    report::{Limit, Report, Spread, describe, micros, say},
    target::{Sample, Target},
};

/// G1: the memory store against the bare handler.
pub(crate) fn memory(options: &Options, report: &mut Report) {
    say("G1: client_credentials on the memory store");
    let directory = TempDir::new();
    let real = Target::reference(options, "memory", directory.path());
    against_bare(options, report, ("G1", Limit::Ratio(1.25)), &real);
}

/// G2: the durable store, which has the audit row on disk before the answer, against the bare handler.
pub(crate) fn embedded(options: &Options, report: &mut Report) {
    say("G2: client_credentials on the embedded store");
    let directory = TempDir::new();
    let real = Target::reference(options, "embedded:data", directory.path());
    against_bare(options, report, ("G2", Limit::Ratio(1.6)), &real);
}

fn against_bare(options: &Options, report: &mut Report, goal: (&'static str, Limit), real: &Target) {
    let bare = Target::bare_like(real);
    let samples = alternate(options, &[&bare, real]);
    let ratios = samples[1].iter().zip(&samples[0]).map(|(real, bare)| micros(real.cpu) / micros(bare.cpu));
    report.add(goal.0, format!("{}: CPU per token / bare axum", real.name), Spread::of(ratios), goal.1);
}

/// Rounds of all targets in turn; the samples of each.
fn alternate(options: &Options, targets: &[&Target]) -> Vec<Vec<Sample>> {
    let mut samples = vec![Vec::new(); targets.len()];
    for target in targets {
        let _ = target.measure(options.requests / 3);
    }
    for _ in 0..options.rounds {
        for (target, samples) in targets.iter().zip(&mut samples) {
            samples.push(target.measure(options.requests));
        }
    }
    for (target, samples) in targets.iter().zip(&samples) {
        describe(&target.name, samples);
    }
    samples
}

/// G10: many agents against few, on each store. Twice: with requests of all agents alike, and with requests of the
/// same thousand everywhere.
pub(crate) fn sizes(options: &Options, report: &mut Report) {
    let mut sizes = vec![1_000, 100_000];
    sizes.extend(options.million.then_some(1_000_000));
    say("G10: by number of agents, memory store");
    let mut hosted: Vec<Target> = sizes.iter().map(|count| Target::hosted(*count)).collect();
    compare_sizes(options, report, &sizes, &mut hosted, "memory");
    drop(hosted);

    say("G10: by number of agents, embedded store");
    let directories: Vec<TempDir> = sizes.iter().map(|_| TempDir::new()).collect();
    let mut servers = Vec::new();
    for (count, directory) in sizes.iter().zip(&directories) {
        prepare(options, directory.path(), *count);
        let mut server = Target::reference(options, "embedded:data", directory.path());
        server.name = format!("embedded, {count} agents");
        server.ask_for(host::ORG, *count);
        servers.push(server);
    }
    compare_sizes(options, report, &sizes, &mut servers, "embedded");
}

fn compare_sizes(
    options: &Options,
    report: &mut Report,
    sizes: &[usize],
    targets: &mut [Target],
    store: &'static str,
) {
    for target in targets.iter() {
        say(&format!("  {:<58} {:>7.1} MB resident", target.name, megabytes(target.process.resident())));
    }
    let mut compare = |targets: &[Target], which: &str| {
        let samples = alternate(options, &targets.iter().collect::<Vec<_>>());
        for (size, many) in sizes.iter().zip(&samples).skip(1) {
            let ratios = many.iter().zip(&samples[0]).map(|(many, few)| micros(many.cpu) / micros(few.cpu));
            let what = format!("{store}, {which}: CPU at {size} agents / at {}", sizes[0]);
            report.add("G10", what, Spread::of(ratios), Limit::Ratio(1.05));
        }
    };
    compare(targets, "all agents");
    for target in &mut *targets {
        target.ask_for(host::ORG, sizes[0]);
    }
    compare(targets, "the same 1000");
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

/// A store with the fixtures of `dev` and `count` agents, closed in order.
fn prepare(options: &Options, directory: &Path, count: usize) {
    Target::reference(options, "embedded:data", directory).process.terminate();
    let watch = Stopwatch::start();
    let store = Arc::new(EmbeddedStore::open(directory.join("data")).expect("the store opens"));
    let org = OrgId::parse(host::ORG).expect("a slug");
    one_thread().block_on(agents::seed(store, org, count));
    say(&format!("  {count} agents stored in {:.1} s", watch.elapsed().as_secs_f64()));
}

/// G14: how long a start takes with ten thousand agents, what an idle server holds, and how large its binary is.
pub(crate) fn start(options: &Options, report: &mut Report) {
    say("G14: start, memory, size");
    let directory = TempDir::new();
    prepare(options, directory.path(), 10_000);
    let mut until_ready = Vec::new();
    let mut resident = Vec::new();
    for _ in 0..options.rounds {
        let (process, ready) = timed_start(options, directory.path());
        until_ready.push(ready.as_secs_f64() * 1000.0);
        // The allocator and the runtime settle.
        thread::sleep(Duration::from_millis(500));
        resident.push(megabytes(process.resident()));
        process.terminate();
    }
    let size = megabytes(fs::metadata(&options.server).expect("the binary is there").len());
    report.add("G14", "process start to ready, ms", Spread::of(until_ready), Limit::Value(200.0, "ms"));
    report.add("G14", "idle resident memory, MB", Spread::of(resident), Limit::Value(30.0, "MB"));
    report.add("G14", "release binary, MB", Spread::of([size]), Limit::Value(25.0, "MB"));
}

/// Starts the server on the data in `directory`, and how long it took until it said that it is ready.
fn timed_start(options: &Options, directory: &Path) -> (Process, Duration) {
    let address = free_address();
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes();
    let mut command = Command::new(&options.server);
    command
        .args(["dev", "--listen", &address.to_string(), "--store", "embedded:data", "--fixtures", "full"])
        .current_dir(directory)
        .env("RUST_LOG", "warn")
        .stdout(Stdio::null());
    let runtime = one_thread();
    let watch = Stopwatch::start();
    let mut process = Process::start(&mut command);
    while runtime.block_on(load::once(address, &request)).is_err() {
        process.assert_alive();
        assert!(watch.elapsed() < Duration::from_secs(60), "the server does not come up");
        thread::sleep(Duration::from_millis(1));
    }
    (process, watch.elapsed())
}

/// A port that is free now. The server cannot choose, since it has to be asked before it says what it chose.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address")
}

fn megabytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "shown with three decimals")]
    let bytes = bytes as f64;
    bytes / 1e6
}
