//! Whoever keeps what a server signed, and holds it against what the server shows later.

use std::{env, fs};

use serde_json::Value;

use crate::{Org, int, run_server, text, unique};

/// Somebody who exports the log of one organization again and again.
#[derive(Clone, Debug, Default)]
pub struct Auditor {
    heads: Vec<String>,
}

impl Auditor {
    /// Keeps the signed head of the log as it is now.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn keep_head(&mut self, org: &Org<'_>) {
        let head = org.admin("GET", "/audit-logs/tree/head").send().ok();
        self.heads.push(text(&head["data"]["head"]).to_owned());
    }

    /// Exports the log and verifies it with `audit verify`, by the keys that the server serves and the heads that were kept.
    /// Gives the events in their order.
    ///
    /// # Panics
    /// When it is not whole: an entry is missing, twice, or not what was signed.
    #[track_caller]
    pub fn check(&self, org: &Org<'_>) -> Vec<Value> {
        let (mut log, mut events) = (String::new(), Vec::new());
        loop {
            let path = format!("/audit-logs/tree/export?after={}&limit=10000", events.len());
            let part = org.admin("GET", &path).send().expect(200).text();
            let before = events.len();
            for line in part.lines() {
                let line: Value = serde_json::from_str(line).expect("JSON");
                if line["type"] == "entry" {
                    events.push(serde_json::from_str(text(&line["body"])).expect("JSON"));
                    assert_eq!(usize::try_from(int(&line["seq"])), Ok(events.len()), "a gap");
                }
            }
            if events.len() == before {
                break;
            }
            log.push_str(&part);
        }
        let mut ids: Vec<&str> = events.iter().map(|event: &Value| text(&event["id"])).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), events.len(), "an event twice");

        let dir = env::temp_dir().join(unique("lumoauth-auditor"));
        fs::create_dir_all(&dir).expect("a directory");
        let write = |name: &str, content: &str| {
            let path = dir.join(name);
            fs::write(&path, content).expect("a file");
            path.to_str().expect("a path").to_owned()
        };
        let keys = org.get("/.well-known/audit-jwks.json").send().ok().to_string();
        let (log, jwks, heads) =
            (write("log", &log), write("jwks", &keys), write("heads", &self.heads.join("\n")));
        let mut words = vec!["audit", "verify", &log, "--jwks", &jwks];
        if !self.heads.is_empty() {
            words.extend(["--head", &heads]);
        }
        let (code, shown) = run_server(&words, &[]);
        assert!(code == Some(0) && shown.starts_with("whole: "), "{shown}");
        fs::remove_dir_all(&dir).expect("the directory can go");
        events
    }
}
