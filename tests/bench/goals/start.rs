//! G14: how a server starts, and what it holds.

use std::{
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use lumoauth_tests::Stopwatch;

use crate::{
    Options, StoreKind, load, one_thread,
    place::Place,
    process::Process,
    report::{Limit, Report, Spread, megabytes, say},
};

/// G14: how long a start takes with ten thousand agents, what an idle server holds, and how large its binary is.
pub(crate) fn start(options: &Options, report: &mut Report) {
    say("G14: start, memory, size");
    let place = Place::prepared(options, StoreKind::Embedded, 10_000);
    let mut until_ready = Vec::new();
    let mut resident = Vec::new();
    for _ in 0..options.rounds {
        let (process, ready) = timed_start(options, &place);
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

/// Starts the server on the data in `place`, and how long it took until it said that it is ready.
fn timed_start(options: &Options, place: &Place) -> (Process, Duration) {
    let address = free_address();
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes();
    let mut command = Command::new(&options.server);
    command
        .args(["dev", "--listen", &address.to_string(), "--store", place.store(), "--fixtures", "full"])
        .current_dir(place.directory())
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
