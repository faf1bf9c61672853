//! One budget under the load of four servers on one database (security BU-01, BU-05).
//!
//! `BUDGET_REPLICA_ROUNDS` says how often the first of them is repeated.

use std::{
    env, fs,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use lumoauth_tests::{
    Agent, Backend, Connection, Request, Response, ServeOptions, Server, Stopwatch, avoid_hour_edge, int,
    unique,
};
use serde_json::{Value, json};

/// The longest that another replica may go on with the old limit, with room for a busy machine.
const PATIENCE: Duration = Duration::from_secs(3);

/// Callers of each server.
const CALLERS: usize = 16;

const CAP: u64 = 1000;

/// Four servers, as an operator runs them.
struct Replicas {
    servers: Vec<Server>,
    options: Vec<ServeOptions>,
    _alone: MutexGuard<'static, ()>,
}

/// Two dozen servers under load at once would show what the machine can do, and nothing else.
static ALONE: Mutex<()> = Mutex::new(());

impl Replicas {
    fn start(backend: Backend) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ServeOptions::new().on(backend).line("rate_limits = false");
        first.migrate();
        let mut options: Vec<_> = (0..3).map(|_| first.replica()).collect();
        // The first one makes the organizations.
        options.insert(0, first);
        let servers = options.iter().map(Server::serve).collect();
        Self { servers, options, _alone: alone }
    }

    fn limited(&self, policy: &Value) -> (Agent<'_>, String) {
        let members = json!({ "capabilities": ["read:a"], "budgetPolicy": policy });
        let agent = self.servers[0].acme().create_agent(members);
        let token = agent.token();
        (agent, token)
    }

    fn end(self) {
        for server in self.servers {
            assert!(!server.log().contains("panicked"), "{}", server.log());
            assert_eq!(server.terminate(), Some(0));
        }
        for options in self.options {
            fs::remove_dir_all(options.dir()).expect("the directory can go");
        }
    }
}

/// A question, which is one call.
fn question(server: &Server, token: &str) -> Request {
    server.acme().post("/agents/ask").bearer(token).json(json!({ "action": "read:a" }))
}

/// How many calls of this hour each server shows.
fn shown(replicas: &Replicas, token: &str) -> Vec<i64> {
    let calls = |server: &Server| {
        let info = server.acme().get("/oauth/userinfo").bearer(token).send().ok();
        int(&info["budget_policy"]["api_calls_this_hour"])
    };
    replicas.servers.iter().map(calls).collect()
}

/// Callers on all servers at once; the sum of what each gives.
fn on_all(replicas: &Replicas, caller: impl Fn(&Server, &mut Connection) -> u64 + Sync) -> u64 {
    thread::scope(|scope| {
        let mut callers = Vec::new();
        for server in replicas.servers.iter().cycle().take(CALLERS * replicas.servers.len()) {
            let caller = &caller;
            callers.push(scope.spawn(move || {
                caller(server, &mut Connection::open(server.authority()).expect("the server listens"))
            }));
        }
        callers.into_iter().map(|caller| caller.join().expect("no panic")).sum()
    })
}

fn the_maximum_is_met_exactly_by_four_servers(backend: Backend) {
    let rounds: u64 = env::var("BUDGET_REPLICA_ROUNDS").map_or(2, |count| count.parse().expect("a number"));
    let replicas = Replicas::start(backend);
    for _ in 0..rounds {
        avoid_hour_edge();
        let (_, token) = replicas.limited(&json!({ "max_api_calls_per_hour": CAP }));
        // A question has no id: where the stores did not answer in time, it may have been counted.
        let unknown = AtomicU64::new(0);
        let admitted = on_all(&replicas, |server, connection| {
            let request = question(server, &token);
            let mut admitted = 0;
            loop {
                let response = connection.send(&request).expect("an answer");
                if response.status == 429 {
                    response.refused(429, "budget_exceeded");
                    return admitted;
                }
                if response.status == 503 {
                    unknown.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(50));
                    continue;
                }
                response.ok();
                admitted += 1;
            }
        });
        let most = admitted + unknown.into_inner();
        assert!((admitted..=most).contains(&CAP), "{admitted} to {most} were let in");
        assert_eq!(shown(&replicas, &token), [1000; 4]);
    }
    replicas.end();
}

/// The answer to a call that may be repeated: a machine that is too busy for the stores to answer in time proves nothing.
fn patiently(connection: &mut Connection, request: &Request) -> Response {
    let watch = Stopwatch::start();
    loop {
        let response = connection.send(request).expect("an answer");
        if response.status != 503 {
            return response;
        }
        assert!(watch.elapsed() < 10 * PATIENCE, "{response}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Reservations through all servers, each settled or released through another one than made it: never more than fits, and
/// in the end what was settled and what is still held is what is shown.
fn reservations_of_four_servers_are_conserved(backend: Backend) {
    const MAX: u64 = 2000;
    const EACH: u64 = 12;
    let replicas = Replicas::start(backend);
    avoid_hour_edge();
    let (agent, token) = replicas.limited(&json!({ "max_tokens_per_day": MAX }));
    let (standing, held) = (AtomicU64::new(0), AtomicU64::new(0));
    let path = "/agents/me/budget/reservations";
    let refusals = AtomicU64::new(0);
    let used = on_all(&replicas, |server, connection| {
        let place = replicas.servers.iter().position(|one| std::ptr::eq(one, server)).expect("one of them");
        let other = &replicas.servers[(place + 1) % replicas.servers.len()];
        let mut elsewhere = Connection::open(other.authority()).expect("the server listens");
        let mut used = 0;
        for step in 0..EACH {
            let (id, tokens) = (unique("r"), 5 + step * 7 % 11);
            let body = json!({ "id": id, "tokens": tokens, "lease_seconds": 600 });
            let made = patiently(connection, &server.acme().post(path).bearer(&token).json(body));
            if made.status == 429 {
                made.refused(429, "budget_exceeded");
                refusals.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            assert!(matches!(made.status, 200 | 201), "{made}");
            let left = int(&made.json()["remaining"]["tokens"]);
            assert!(left >= 0, "{left}");
            let now = standing.fetch_add(tokens, Ordering::SeqCst) + tokens;
            assert!(now <= MAX, "{now} tokens are held or settled");
            let (verb, body, kept) = match step % 4 {
                0 => ("release", json!({}), 0),
                1 => ("settle", json!({ "tokens": tokens - 3 }), tokens - 3),
                2 => ("settle", json!({ "tokens": tokens }), tokens),
                _ => {
                    held.fetch_add(tokens, Ordering::SeqCst);
                    used += tokens;
                    continue;
                }
            };
            standing.fetch_sub(tokens - kept, Ordering::SeqCst);
            let request = other.acme().post(&format!("{path}/{id}/{verb}")).bearer(&token).json(body);
            patiently(&mut elsewhere, &request).ok();
            used += kept;
        }
        used
    });
    assert!(refusals.into_inner() > 0, "the maximum was reached: {used}");
    assert_eq!(standing.into_inner(), used);
    for server in &replicas.servers {
        let budget = agent.at(server).org.get("/agents/me/budget").bearer(&token).send().ok();
        let shown = [&budget["tokens_used_today"], &budget["held"]["tokens"]].map(int);
        let expected = [used, held.load(Ordering::SeqCst)].map(|sum| i64::try_from(sum).expect("small"));
        assert_eq!(shown, expected, "{budget}");
    }
    replicas.end();
}

/// A raised limit and a reset reach callers that do not stop asking: at once where they were told, elsewhere within the
/// bound, and each lets in exactly what it adds. A lowered one stops everybody.
fn limits_change_under_the_load_of_four_servers(backend: Backend) {
    let replicas = Replicas::start(backend);
    avoid_hour_edge();
    let (agent, token) = replicas.limited(&json!({ "max_api_calls_per_hour": 100 }));
    let (admitted, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let served: Vec<_> = replicas.servers.iter().map(|_| AtomicU64::new(0)).collect();
    let limit = thread::scope(|scope| {
        for (place, server) in replicas.servers.iter().enumerate().cycle().take(4 * replicas.servers.len()) {
            let (token, admitted, over, served) = (&token, &admitted, &over, &served[place]);
            scope.spawn(move || {
                let mut connection = Connection::open(server.authority()).expect("the server listens");
                let request = question(server, token);
                while !over.load(Ordering::Relaxed) {
                    let response = connection.send(&request).expect("an answer");
                    if response.status == 200 {
                        admitted.fetch_add(1, Ordering::Relaxed);
                        served.fetch_add(1, Ordering::Relaxed);
                    } else {
                        response.refused(429, "budget_exceeded");
                        thread::sleep(Duration::from_millis(10));
                    }
                }
            });
        }
        let stop = Stop(&over);
        let reaches = |expected: u64| {
            let watch = Stopwatch::start();
            while admitted.load(Ordering::Relaxed) < expected {
                assert!(watch.elapsed() < 5 * PATIENCE, "{admitted:?} of {expected}");
                thread::sleep(Duration::from_millis(5));
            }
            // Whoever would let in more had time to.
            thread::sleep(Duration::from_millis(300));
            assert_eq!(admitted.load(Ordering::Relaxed), expected);
        };
        reaches(100);
        // A raise so large that a single server cannot use it up before the others have heard.
        let before: Vec<_> = served.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        agent.admin("PUT", "/budget").json(json!({ "max_api_calls_per_hour": 1_000_000 })).send().ok();
        let watch = Stopwatch::start();
        agent.ask(&token, "read:a").ok();
        let mut own = 1;
        for (place, count) in served.iter().enumerate() {
            while count.load(Ordering::Relaxed) == before[place] {
                assert!(watch.elapsed() < PATIENCE, "server {place} keeps the old limit");
                thread::sleep(Duration::from_millis(5));
            }
            eprintln!("server {place}: raised after {:?}", watch.elapsed());
        }
        // Below what is used: at once where it was told, soon elsewhere, and then nothing moves.
        agent.admin("PUT", "/budget").json(json!({ "max_api_calls_per_hour": 50 })).send().ok();
        agent.ask(&token, "read:a").refused(429, "budget_exceeded");
        thread::sleep(PATIENCE);
        let used = admitted.load(Ordering::Relaxed) + own;
        thread::sleep(Duration::from_millis(300));
        assert_eq!(admitted.load(Ordering::Relaxed) + own, used);
        assert_eq!(shown(&replicas, &token), [i64::try_from(used).expect("small"); 4]);

        agent.admin("PUT", "/budget").json(json!({ "max_api_calls_per_hour": used + 70 })).send().ok();
        agent.ask(&token, "read:a").ok();
        own += 1;
        reaches(used + 70 - own);

        agent.admin("POST", "/budget/reset").send().ok();
        agent.ask(&token, "read:a").ok();
        own += 1;
        // The new counter is empty, and takes the whole limit; the old one stays full for those who have not heard.
        reaches(2 * (used + 70) - own);
        drop(stop);
        used + 70
    });
    assert_eq!(shown(&replicas, &token), [i64::try_from(limit).expect("small"); 4]);
    replicas.end();
}

/// Ends the load, also in a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

macro_rules! on_shared_backends {
    ($($name:ident),* $(,)?) => {
        mod postgres {
            $(#[test] fn $name() { super::$name(lumoauth_tests::Backend::Postgres); })*
        }
        mod postgres_redis {
            $(#[test] fn $name() { super::$name(lumoauth_tests::Backend::PostgresRedis); })*
        }
    };
}

on_shared_backends!(
    the_maximum_is_met_exactly_by_four_servers,
    reservations_of_four_servers_are_conserved,
    limits_change_under_the_load_of_four_servers,
);
