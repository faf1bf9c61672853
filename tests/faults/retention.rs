//! The audit log when time passes, or goes back: contents that are old enough go, proofs of them stay; and the order is
//! that of the numbers, whatever a clock says (contract 2.14, security AU-07).

use std::{env, fs, thread, time::Duration};

use lumoauth_core::merkle::{Node, verify_consistency, verify_inclusion};
use lumoauth_tests::{
    Auditor, Backend, Options, Org, ServeOptions, Server, int, list, run_server,
    services::{Database, Postgres},
    text, unique,
};
use serde_json::Value;

use crate::{clock::Clock, deployment::Deployment};

#[test]
fn proofs_stay_when_contents_go_in_a_file() {
    let clock = Clock::new();
    contents_go(&under(&clock, ServeOptions::new().embedded()), &clock);
}

#[test]
fn proofs_stay_when_contents_go_in_a_database() {
    let clock = Clock::new();
    let postgres = Postgres::start_under(&clock.variables());
    let database = Database::create_in(&postgres);
    let options = under(&clock, ServeOptions::new().store_at(database.url()));
    options.migrate();
    contents_go(&options, &clock);
}

fn under(clock: &Clock, options: ServeOptions) -> ServeOptions {
    let options = options.line("audit.retention_days = 1");
    let variables = clock.variables();
    variables.iter().fold(options, |options, (name, value)| options.variable(name, value))
}

fn tree(org: &Org<'_>, path: &str) -> Value {
    org.admin("GET", &format!("/audit-logs/tree/{path}")).send().ok()["data"].clone()
}

fn node(value: &Value) -> Node {
    text(value).parse().expect("a hash")
}

fn nodes(value: &Value) -> Vec<Node> {
    list(value).iter().map(node).collect()
}

fn number(value: &Value) -> u64 {
    u64::try_from(int(value)).expect("not negative")
}

/// The log as it is exported, with its head at the end.
fn exported(org: &Org<'_>) -> String {
    org.admin("GET", "/audit-logs/tree/export?after=0&limit=10000").send().expect(200).text()
}

/// What `audit verify` says of `log`, by the keys of the server and a head of earlier.
fn verified(org: &Org<'_>, log: &str, head: &Value) -> (Option<i32>, String) {
    let dir = env::temp_dir().join(unique("lumoauth-retention"));
    fs::create_dir_all(&dir).expect("a directory");
    let write = |name: &str, content: &str| {
        fs::write(dir.join(name), content).expect("a file");
        dir.join(name).to_str().expect("a path").to_owned()
    };
    let keys = org.get("/.well-known/audit-jwks.json").send().ok().to_string();
    let files = [("log", log), ("jwks", &keys), ("head", &head.to_string())];
    let [log, jwks, head] = files.map(|(name, content)| write(name, content));
    let answer = run_server(&["audit", "verify", &log, "--jwks", &jwks, "--head", &head], &[]);
    fs::remove_dir_all(&dir).expect("the directory can go");
    answer
}

fn contents_go(options: &ServeOptions, clock: &Clock) {
    let server = Server::serve(options);
    let (old, before, entries) = {
        let org = server.acme();
        let old = org.agent(&["read:old"]);
        old.token();
        let before = tree(&org, "head");
        assert!(exported(&org).contains(&old.agent_id));
        let entries = org.audit(&format!("targetId={}", old.agent_id));
        let entries: Vec<u64> = entries.iter().map(|row| number(&row["id"])).collect();
        (old.agent_id, before, entries)
    };
    let (size, root) = (number(&before["size"]), node(&before["root"]));
    assert!(!entries.is_empty());
    assert_eq!(server.terminate(), Some(0));

    // Old is what is more than a day old, by days.
    clock.ahead(3 * 86_400);
    let server = Server::serve(options);
    let org = server.acme();
    let recent = org.agent(&["read:recent"]);
    let dropped = || org.audit("action=audit.bodies_dropped");
    for round in 0.. {
        if !dropped().is_empty() {
            break;
        }
        assert!(round < 900, "nothing was dropped: {}", server.log());
        thread::sleep(Duration::from_millis(100));
    }
    let [said] = dropped().try_into().expect("said once");
    let said: Value = said;
    assert_eq!(said["actorType"], "system", "{said}");

    // What is gone is gone from every answer, and what is recent is there.
    let log = exported(&org);
    assert!(!log.contains(&old) && log.contains(&recent.agent_id), "{log}");
    assert!(log.contains("audit.bodies_dropped"));
    for filter in ["targetId", "actorId"] {
        let found = org.audit(&format!("{filter}={old}"));
        assert!(found.is_empty(), "{found:?}");
    }
    for format in ["json", "csv"] {
        let path = format!("/audit-logs/export?format={format}&limit=10000");
        let shown = org.admin("GET", &path).send().expect(200).text();
        assert!(!shown.contains(&old) && shown.contains(&recent.agent_id), "{format}");
    }
    // Numbers, hashes and proofs of it are what they were.
    let now = tree(&org, "head");
    let (grown, now_root) = (number(&now["size"]), node(&now["root"]));
    for seq in entries.iter().copied().chain([1, size]) {
        for (size, root) in [(size, root), (grown, now_root)] {
            let proof = tree(&org, &format!("inclusion?seq={seq}&size={size}"));
            assert_eq!(node(&proof["root"]), root, "{proof}");
            let path = nodes(&proof["proof"]);
            assert!(verify_inclusion(node(&proof["leaf"]), seq - 1, size, &path, root), "{proof}");
        }
    }
    let proof = tree(&org, &format!("consistency?from={size}&to={grown}"));
    assert!(verify_consistency((size, root), (grown, now_root), &nodes(&proof["proof"])), "{proof}");

    let (code, shown) = verified(&org, &log, &before);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("were dropped by retention"), "{shown}");
    // Without the signed reason the contents are missing.
    let without: String = log
        .lines()
        .filter(|line| !line.contains("audit.bodies_dropped"))
        .map(|line| format!("{line}\n"))
        .collect();
    let (code, shown) = verified(&org, &without, &before);
    assert_ne!(code, Some(0), "{shown}");
}

#[test]
fn order_stays_when_the_clock_goes_back_in_memory() {
    let clock = Clock::new();
    order_stays(&Server::start(&clock.on(Options::new(Backend::Memory))), &clock);
}

#[test]
fn order_stays_when_the_clock_goes_back_in_a_file() {
    let clock = Clock::new();
    order_stays(&Server::start(&clock.on(Options::new(Backend::Embedded))), &clock);
}

#[test]
fn order_stays_when_the_clock_goes_back_in_a_database() {
    let clock = Clock::new();
    let postgres = Postgres::start_under(&clock.variables());
    let database = Database::create_in(&postgres);
    let server = Server::start(&Deployment::of(1).options(0, database.url()));
    order_stays(&server, &clock);
}

fn order_stays(server: &Server, clock: &Clock) {
    let org = server.acme();
    let auditor = {
        let mut auditor = Auditor::default();
        auditor.keep_head(&org);
        auditor
    };
    let entry = |id: &str| org.audit(&format!("action=agent.created&targetId={id}")).remove(0);
    let first = org.agent(&[]).agent_id;
    let before = text(&entry(&first)["createdAt"]).to_owned();
    clock.ahead(-3600);
    let mut made = vec![first];
    for round in 0.. {
        // A server on a database asks it for the time.
        server.request("GET", "/readyz").send();
        made.push(org.agent(&[]).agent_id);
        if *text(&entry(made.last().expect("one"))["createdAt"]) < *before {
            break;
        }
        assert!(round < 300, "the server does not follow the clock");
        thread::sleep(Duration::from_millis(100));
    }
    made.push(org.agent(&[]).agent_id);
    // Newest first is by number.
    let listed = org.audit("action=agent.created");
    let numbers: Vec<i64> = listed.iter().map(|row| int(&row["id"])).collect();
    assert!(numbers.is_sorted_by(|one, next| one > next), "{numbers:?}");
    let order: Vec<&str> = listed.iter().rev().map(|row| text(&row["targetId"])).collect();
    let order: Vec<&str> = order.into_iter().filter(|id| made.iter().any(|one| one == id)).collect();
    let newest = &made[made.len() - order.len()..];
    assert_eq!(order, newest.iter().map(String::as_str).collect::<Vec<_>>());
    // And so is the log that is signed.
    let events = auditor.check(&org);
    let is_made = |event: &&Value| event["kind"] == "agent.created";
    let all: Vec<String> = events.iter().filter(is_made).map(ToString::to_string).collect();
    let at = |id: &str| all.iter().position(|event| event.contains(id)).expect("in the log");
    let places: Vec<usize> = made.iter().map(|id| at(id)).collect();
    assert!(places.is_sorted(), "{places:?}");
}
