//! What others write does not become entries, cells, formulas or escapes of an exported log (security AU-03).

use lumoauth_tests::{Org, Server, list, on_each_backend, text, unique};
use serde_json::{Value, json};

use crate::jit::{asked, detail, opened, reviewer};

on_each_backend!(
    cells_of_an_export_are_those_of_the_list,
    nobody_needs_a_credential_to_write_and_it_is_disarmed,
);

/// The rows of a table as RFC 4180 reads them.
fn rows(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut all = text.chars().peekable();
    while let Some(c) = all.next() {
        match c {
            '"' if quoted && all.peek() == Some(&'"') => {
                all.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted && all.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            c => cell.push(c),
        }
    }
    assert!(!quoted && row.is_empty() && cell.is_empty(), "a table that ends in the middle");
    rows
}

/// Both exports of what `query` selects, compared with each other: the entries in full.
fn exported(org: &Org<'_>, query: &str) -> Vec<Value> {
    let get = |format: &str| {
        let path = format!("/audit-logs/export?format={format}&limit=1000&{query}");
        org.admin("GET", &path).send().expect(200)
    };
    // Others write to this log as well: what is compared is of one moment.
    let of_one_moment = || {
        let (entries, table) = (get("json"), get("csv").text());
        (get("json").text() == entries.text()).then_some((table, entries))
    };
    let (table, entries) = (0..100).find_map(|_| of_one_moment()).expect("a moment without others");
    for shown in [&table, &entries.text()] {
        let is_odd = |c: char| c.is_control() && !matches!(c, '\r' | '\n');
        assert!(!shown.contains(is_odd), "control characters are not for files: {shown:?}");
    }
    let entries = list(&entries.json()["data"]).to_vec();
    let rows = rows(&table);
    let (header, rows) = rows.split_first().expect("a header");
    assert_eq!(rows.len(), entries.len(), "{table}");
    for (row, entry) in rows.iter().zip(&entries) {
        assert_eq!(row.len(), header.len(), "{row:?}");
        for (name, cell) in header.iter().zip(row) {
            assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']), "{name}: {cell:?}");
            let said = match &entry[name] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            assert!(*cell == said || *cell == format!("'{said}"), "{name}: {cell:?} of {said:?}");
        }
    }
    entries
}

const HOSTILE: [&str; 9] = [
    "=cmd|'/c calc'!A1",
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "a\",\"b\"\"",
    "a\",\"action\":\"forged\",\"x\":\"",
    "{\"action\":\"forged\"}",
    "a,b;c\\n\\r",
    "'; DROP TABLE audit_log; --",
];

fn cells_of_an_export_are_those_of_the_list(server: &Server) {
    let org = server.acme();
    let (_, admin) = reviewer(&org);
    for hostile in HOSTILE {
        let name = format!("{hostile}{}", unique("x"));
        let agent = org.create_agent(json!({ "name": name, "capabilities": ["read:a"] }));
        let post = agent.org.post("/oauth/token").header("User-Agent", &name);
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", agent.client_id.as_str()),
            ("client_secret", &agent.secret),
        ];
        let token = post.form(&fields).send().ok()["access_token"].clone();
        let token = text(&token);
        let task = opened(&agent, token);
        let made = asked(&agent, token, &task, detail("file_access", &["delete"]));
        let id = text(&made["request_id"]);
        let said = json!({ "reason": format!("{hostile}\r\nsecond line"), "agent_message": "No." });
        let denied = org.post(&format!("/jit/deny/{id}")).bearer(&admin).json(said).send();
        assert!(matches!(denied.status, 200 | 400), "{denied}");
        for query in [
            format!("targetId={}", agent.agent_id),
            format!("actorId={}", agent.agent_id),
            format!("targetId={id}"),
        ] {
            let entries = exported(&org, &query);
            assert!(!entries.is_empty(), "{query}");
            assert!(entries.iter().all(|entry| entry["action"] != "forged"), "{entries:?}");
        }
        let agents = format!("actorId={}&action=agent.authenticated", agent.agent_id);
        let [entry] = exported(&org, &agents).try_into().expect("one entry");
        assert_eq!((&entry["userAgent"], &entry["actorName"]), (&json!(name), &json!(name)), "{entry}");
    }
    // Names in which a line ends are no names.
    for bad in ["a\r\nb", "a\u{1b}[31mb", "a\tb", "\u{0}", "a\u{202e}b"] {
        let body = json!({ "name": bad, "capabilities": [] });
        let answer = org.admin("POST", "/agents").json(body).send();
        assert_eq!(answer.status, 400, "{bad:?}: {answer}");
    }
}

fn nobody_needs_a_credential_to_write_and_it_is_disarmed(server: &Server) {
    let org = server.acme();
    for hostile in HOSTILE.into_iter().chain(["a\r\nforged,row", "\u{1b}[31mred\u{7}", "\tx", "\u{9b}31m"]) {
        let id = format!("{hostile}{}", unique("mark"));
        let fields = [("grant_type", "client_credentials"), ("client_id", &*id), ("client_secret", "wrong")];
        let answer = org.post("/oauth/token").header("User-Agent", "=1+1\u{e9}").form(&fields).send();
        assert!(matches!(answer.status, 400 | 401), "{answer}");
        let fields = [("token", id.as_str()), ("client_id", &*id), ("client_secret", "wrong")];
        org.post("/oauth/introspect").form(&fields).send();
    }
    let entries = exported(&org, "status=failure");
    assert!(!entries.is_empty());
    let escapes = ["\u{1b}[31m", "\u{9b}", "\u{7}"];
    let log = server.log();
    for escape in escapes {
        assert!(!log.contains(escape), "{escape:?} is in the server's own log");
    }
    for line in log.lines() {
        assert!(!line.starts_with("forged,row"), "{line}");
    }
}
