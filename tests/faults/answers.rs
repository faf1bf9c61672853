//! What a server may answer while a service that it needs is in trouble.

use std::{io, thread, time::Duration};

use lumoauth_tests::{Connection, Request, Response, Server, Stopwatch};

/// The longest that any answer may take, whatever is wrong: the time-out of an operation in the store (waiting for a
/// connection, the statement, and a second) for a call that waits in line, and again for its batch, with room for a
/// busy machine.
pub(crate) const LONGEST: Duration = Duration::from_secs(15);

/// Sends on a connection of its own. Any status is an answer.
pub(crate) fn send(server: &Server, request: &Request) -> io::Result<Response> {
    Connection::open(server.authority())?.send(request)
}

/// The answer, which must be there, and how long it took.
#[track_caller]
pub(crate) fn timed(server: &Server, request: &Request) -> (Response, Duration) {
    let watch = Stopwatch::start();
    let response =
        send(server, request).unwrap_or_else(|error| panic!("no answer: {error}: {}", server.log()));
    (response, watch.elapsed())
}

/// Whether the answer says "not now", as it must be said: 503 with `Retry-After`, as JSON, and nothing of the reason.
#[track_caller]
pub(crate) fn is_not_now(response: &Response) -> bool {
    if response.status < 500 {
        return false;
    }
    assert_eq!(response.status, 503, "{response}");
    let retry = response.header("retry-after").and_then(|text| text.parse::<u32>().ok());
    assert!(retry.is_some_and(|seconds| (1..=60).contains(&seconds)), "{response}");
    let body = response.json();
    assert!(body["error"].is_string() || body["status"] == "unavailable", "{response}");
    let text = response.text().to_lowercase();
    for inside in ["sql", "connection", "127.0.0.1", "postgres://", "redis://"] {
        assert!(!text.contains(inside), "{response}");
    }
    true
}

/// Fails unless the answer is "not now", and gives how long it took.
#[track_caller]
pub(crate) fn assert_not_now(server: &Server, request: &Request) -> Duration {
    let (response, took) = timed(server, request);
    assert!(is_not_now(&response), "{response}");
    assert!(took < LONGEST, "{took:?}: {response}");
    took
}

/// Repeats until the answer has this status, as a careful client does, and gives it with the time that took.
#[track_caller]
pub(crate) fn until(server: &Server, request: &Request, status: u16) -> (Response, Duration) {
    let watch = Stopwatch::start();
    loop {
        let (response, _) = timed(server, request);
        if response.status == status {
            return (response, watch.elapsed());
        }
        assert!(is_not_now(&response), "{response}");
        assert!(
            watch.elapsed() < Duration::from_secs(30),
            "it does not recover: {response}\n{}",
            server.log()
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// The answer to the probe of readiness: with this status, or the one after three seconds. A server keeps it for a second.
pub(crate) fn readiness(server: &Server, status: u16) -> Response {
    let watch = Stopwatch::start();
    loop {
        let (response, _) = timed(server, &server.request("GET", "/readyz"));
        if response.status == status || watch.elapsed() > Duration::from_secs(3) {
            return response;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Does the same to all servers at once.
pub(crate) fn on_each<T: Send>(servers: &[Server], work: impl Fn(&Server) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let working: Vec<_> = servers.iter().map(|server| scope.spawn(|| work(server))).collect();
        working.into_iter().map(|work| work.join().expect("no panic")).collect()
    })
}

/// Figures of one kind over a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread(Vec<Duration>);

impl Spread {
    pub(crate) fn add(&mut self, one: Duration) {
        self.0.push(one);
    }

    pub(crate) fn max(&self) -> Duration {
        self.0.iter().copied().max().unwrap_or_default()
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        write!(f, "median {} ms, most {} ms", median.as_millis(), self.max().as_millis())
    }
}
