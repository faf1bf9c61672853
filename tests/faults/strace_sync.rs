//! No answer to a write leaves before the sync that began after its batch was written, seen from the kernel.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use lumoauth_tests::{Backend, Options, Server, Stopwatch, unique};
use serde_json::json;

use crate::trace::{Call, parse};

const CALLS: &str =
    "trace=pwrite64,pwritev,write,writev,fsync,fdatasync,msync,sync_file_range,sendto,sendmsg,recvfrom,read";

#[test]
fn no_answer_leaves_before_the_sync_of_its_batch() {
    let found = Command::new("strace").arg("--version").output();
    assert!(found.is_ok_and(|output| output.status.success()), "strace is missing; `tests/run` installs it");
    let dir = std::env::temp_dir().join(unique("lumoauth-strace"));
    fs::create_dir_all(&dir).expect("a directory");
    let trace = dir.join("trace");
    let file = trace.to_str().expect("a plain path");
    let options = Options::new(Backend::Embedded).dir(&dir);
    // `-D` keeps the server our own child, so that it can be killed like any other.
    let server = Server::start(
        &options.under(&["strace", "-D", "-f", "-y", "-T", "-ttt", "-s", "64", "-e", CALLS, "-o", file]),
    );

    let alone = write_one_by_one(&server);
    let together = write_together(&server);
    server.kill();

    let calls = parse(&complete(&trace));
    let answers = answers(&calls);
    eprintln!(
        "{} answers to {} writes traced, {} system calls",
        answers.len(),
        alone + together,
        calls.len()
    );
    assert!(answers.len() >= alone + together, "answers are missing from the trace");
    let (one_by_one, concurrent) = answers.split_at(alone);
    for answer in one_by_one.iter().chain(concurrent) {
        assert!(
            answer.synced_after_a_write(&calls),
            "sent before a sync: {:?} for {:?}",
            answer.sent,
            answer.asked
        );
    }
    // Alone on the server, there is no other batch that a later write could belong to, apart from rare
    // maintenance.
    let late = one_by_one.iter().filter(|answer| !answer.nothing_unsynced(&calls)).count();
    assert!(late * 10 <= alone, "{late} of {alone} answers left with a write not yet synced");
    fs::remove_dir_all(&dir).expect("the directory can go");
}

/// Sends writes with nothing else going on. Gives how many.
fn write_one_by_one(server: &Server) -> usize {
    let org = server.acme();
    let mut count = 0;
    let agent = org
        .create_agent(json!({ "capabilities": ["read:a"], "budgetPolicy": { "max_tokens_per_day": 1000 } }));
    count += 1;
    for _ in 0..10 {
        org.agent(&[]);
        let token = agent.token();
        org.post("/agents/me/usage").bearer(&token).json(json!({ "tokens": 1 })).send().ok();
        agent.ask(&token, "read:a").ok();
        agent.admin("PATCH", "").json(json!({ "description": unique("d") })).send().ok();
        count += 5;
        thread::sleep(Duration::from_millis(5));
    }
    count
}

/// Sends writes that share batches. Gives how many.
fn write_together(server: &Server) -> usize {
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    server.acme().agent(&[]);
                }
            });
        }
    });
    40
}

/// The answer to a request that wrote.
#[derive(Debug)]
struct Answer<'a> {
    asked: &'a Call,
    sent: &'a Call,
}

impl Answer<'_> {
    /// A sync began after a write that began after the request came in, and ended before the answer went out.
    fn synced_after_a_write(&self, calls: &[Call]) -> bool {
        let writes = || self.between(calls).filter(|call| is_data_write(call));
        self.between(calls)
            .filter(|call| is_sync(call))
            .any(|sync| writes().any(|write| write.end <= sync.start))
    }

    /// The last write before the answer is covered by a sync before the answer.
    fn nothing_unsynced(&self, calls: &[Call]) -> bool {
        let last =
            self.between(calls).filter(|call| is_data_write(call)).map(|call| call.end).fold(0.0, f64::max);
        self.between(calls).filter(|call| is_sync(call)).any(|sync| sync.start >= last)
    }

    fn between<'c>(&self, calls: &'c [Call]) -> impl Iterator<Item = &'c Call> + use<'c> {
        let (from, to) = (self.asked.start, self.sent.start);
        let first = calls.partition_point(|call| call.start < from);
        calls[first..].iter().take_while(move |call| call.start <= to).filter(move |call| call.end <= to)
    }
}

/// Pairs every successful answer with the request that came in last on the same connection.
fn answers(calls: &[Call]) -> Vec<Answer<'_>> {
    let mut found = Vec::new();
    for (place, sent) in calls.iter().enumerate() {
        let sends = matches!(sent.name.as_str(), "sendto" | "sendmsg" | "write" | "writev");
        if !sends || !is_socket(sent) || !sent.carries("HTTP/1.1 2") {
            continue;
        }
        let asked = calls[..place].iter().rev().find(|call| {
            let receives = matches!(call.name.as_str(), "recvfrom" | "read");
            receives && call.fd == sent.fd && is_socket(call) && begins_request(call)
        });
        if let Some(asked) = asked.filter(|asked| asked.carries("POST ") || asked.carries("PATCH ")) {
            found.push(Answer { asked, sent });
        }
    }
    found
}

fn begins_request(call: &Call) -> bool {
    ["POST ", "GET ", "PUT ", "PATCH ", "DELETE "].iter().any(|method| call.carries(method))
}

fn is_socket(call: &Call) -> bool {
    call.what.starts_with("TCP") || call.what.starts_with("socket:")
}

/// A write to the database file: the log and the terminal are other files, sockets none.
fn is_data_write(call: &Call) -> bool {
    let writes = matches!(call.name.as_str(), "pwrite64" | "pwritev" | "write" | "writev");
    writes && is_data_file(&call.what)
}

fn is_sync(call: &Call) -> bool {
    matches!(call.name.as_str(), "fsync" | "fdatasync" | "msync")
        && (call.name == "msync" || is_data_file(&call.what))
}

fn is_data_file(what: &str) -> bool {
    Path::new(what).file_name().is_some_and(|name| name.to_string_lossy().starts_with("data"))
}

/// The trace, once the tracer has written its last line.
fn complete(path: &Path) -> String {
    let watch = Stopwatch::start();
    loop {
        let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let ended = text.lines().rev().take(50).any(|line| line.contains("+++ killed by SIGKILL"));
        if ended {
            return text;
        }
        assert!(watch.elapsed() < Duration::from_secs(20), "the trace does not end: {}", text.len());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_answer_that_leaves_before_its_sync_is_caught() {
    let asked = "11 1.0000 recvfrom(12<socket:[7]>, \"POST /orgs/a HTTP/1.1\\r\\n\", 8192, 0, NULL, NULL) = 99 <0.0001>";
    let write = "10 1.0010 pwrite64(9</d/data>, \"x\", 4096, 0) = 4096 <0.0001>";
    let sync = "10 1.0020 fdatasync(9</d/data>) = 0 <0.0020>";
    let other_sync = "10 1.0020 fdatasync(5</d/server.log>) = 0 <0.0001>";
    let sent = |at: &str| {
        format!("11 {at} sendto(12<socket:[7]>, \"HTTP/1.1 200 OK\\r\\n\", 99, 0, NULL, 0) = 99 <0.0001>")
    };
    let verdict = |lines: [&str; 4]| {
        let calls = parse(&lines.join("\n"));
        let answers = answers(&calls);
        assert_eq!(answers.len(), 1);
        (answers[0].synced_after_a_write(&calls), answers[0].nothing_unsynced(&calls))
    };
    assert_eq!(verdict([asked, write, sync, &sent("1.0050")]), (true, true));
    // Sent while the sync still ran, without any, after a sync that came before the write, or of another file.
    assert_eq!(verdict([asked, write, sync, &sent("1.0030")]), (false, false));
    assert_eq!(verdict([asked, write, "", &sent("1.0050")]), (false, false));
    let late_write = write.replace("1.0010", "1.0045");
    assert_eq!(verdict([asked, sync, &late_write, &sent("1.0050")]), (false, false));
    assert_eq!(verdict([asked, write, other_sync, &sent("1.0050")]), (false, false));
}
