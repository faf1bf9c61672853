//! Exporting the audit log (contract 2.14).

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use lumoauth_tests::{Server, at_once, int, list, on_each_backend, text, unique};
use serde_json::{Value, json};

on_each_backend!(
    json_export_has_detailed_entries,
    csv_is_the_default,
    csv_cells_cannot_become_formulas_or_rows,
    export_takes_the_filters_of_the_list,
    get_and_post_export_the_same,
    export_has_each_entry_once_while_others_write,
    one_entry_is_selected_as_others_are,
    unknown_format_is_refused,
    export_needs_an_audit_scope,
);

fn json_export_has_detailed_entries(server: &Server) {
    let agent = server.acme().agent(&[]);
    agent.token();
    let path = format!("/audit-logs/export?format=json&actorId={}", agent.agent_id);
    let response = agent.org.admin("GET", &path).send().expect(200);
    assert!(
        response.header("content-type").is_some_and(|it| it.starts_with("application/json")),
        "{response}"
    );
    let body = response.json();
    assert_eq!(list(&body["data"]).len(), 1);
    let entry = &body["data"][0];
    int(&entry["id"]);
    assert_eq!(entry["action"], "agent.authenticated");
    assert!(entry.get("userAgent").is_some() && entry.get("context").is_some(), "detailed: {entry}");
}

fn csv_is_the_default(server: &Server) {
    let agent = server.acme().agent(&[]);
    agent.token();
    let path = format!("/audit-logs/export?actorId={}", agent.agent_id);
    for path in [path.clone(), format!("{path}&format=csv")] {
        let response = agent.org.admin("GET", &path).send().expect(200);
        assert!(response.header("content-type").is_some_and(|it| it.starts_with("text/csv")), "{response}");
        let text = response.text();
        let mut lines = text.lines();
        let header = lines.next().expect("a header line");
        for column in ["id", "createdAt", "eventType", "actorId", "targetId", "ipAddress"] {
            assert!(header.split(',').any(|it| it.trim_matches('"') == column), "{column} in {header}");
        }
        assert_eq!(lines.filter(|line| line.contains("agent.authenticated")).count(), 1, "{text}");
    }
}

fn csv_cells_cannot_become_formulas_or_rows(server: &Server) {
    for name in ["=cmd|'/c calc'!A1", "+1+1", "-2+3", "@SUM(1)", "quote\"comma,x", "semi;colon"] {
        let agent = server.acme().create_agent(json!({ "name": format!("{name} {}", unique("x")) }));
        let path = format!("/audit-logs/export?format=csv&targetId={}", agent.agent_id);
        let text = agent.org.admin("GET", &path).send().expect(200).text();
        assert_eq!(text.trim_end().lines().count(), 2, "one header, one row: {text}");
        for cell in [",=", ",+", ",@", ",\"=", ",\"+", ",\"@"] {
            assert!(!text.contains(cell), "{name}: {text}");
        }
    }
}

fn export_takes_the_filters_of_the_list(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    agent.ask(&agent.token(), "read:a").ok();
    let count = |query: &str| {
        let path = format!("/audit-logs/export?format=json&actorId={}&{query}", agent.agent_id);
        list(&agent.org.admin("GET", &path).send().expect(200).json()["data"]).len()
    };
    assert_eq!((count("action=agent.*"), count("action=agent.action"), count("status=failure")), (2, 1, 0));
}

fn get_and_post_export_the_same(server: &Server) {
    let agent = server.acme().agent(&[]);
    let path = format!("/audit-logs/export?format=json&targetId={}", agent.agent_id);
    let got = agent.org.admin("GET", &path).send().expect(200).json();
    let posted = agent.org.admin("POST", &path).send().expect(200).json();
    assert_eq!(got["data"], posted["data"]);
    let export = |body: Value| agent.org.admin("POST", "/audit-logs/export").json(body).send();
    let body = json!({ "format": "json", "targetId": agent.agent_id, "search": null });
    assert_eq!(export(body).expect(200).json()["data"], got["data"]);
    for body in [json!({ "format": "xml" }), json!({ "format": ["json"] }), json!([])] {
        export(body).refused(400, "invalid_request");
    }
    let broken = agent.org.admin("POST", "/audit-logs/export").body("application/json", "{").send();
    broken.expect(400);
}

fn export_has_each_entry_once_while_others_write(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.token();
    // More than one page, of which the first moves while the others are read.
    at_once(8, |_| (0..80).for_each(|_| drop(agent.ask(&token, "read:a").ok())));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    agent.ask(&token, "read:a").ok();
                }
            });
        }
        let exports = (0..5).map(|_| {
            let path =
                format!("/audit-logs/export?format=json&action=agent.action&actorId={}", agent.agent_id);
            agent.org.admin("GET", &path).send().expect(200).json()
        });
        let exports: Vec<_> = exports.collect();
        done.store(true, Ordering::Relaxed);
        for export in exports {
            let ids: Vec<_> = list(&export["data"]).iter().map(|entry| int(&entry["id"])).collect();
            assert!(ids.is_sorted_by(|newer, older| newer > older), "{ids:?}");
            assert!(ids.len() >= 640, "{}", ids.len());
            assert_eq!(export["exported"], ids.len());
        }
    });
}

fn one_entry_is_selected_as_others_are(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let asked = agent.ask(&agent.token(), "read:a").ok();
    let query = format!("auditId={}", text(&asked["audit_id"]));
    let count = |path: &str, filter: &str| {
        let answer = agent.org.admin("GET", &format!("/audit-logs{path}{query}{filter}")).send().expect(200);
        list(&answer.json()["data"]).len()
    };
    for path in ["?", "/export?format=json&"] {
        assert_eq!((count(path, ""), count(path, "&status=success")), (1, 1), "{path}");
        assert_eq!((count(path, "&status=failure"), count(path, "&action=role.*")), (0, 0), "{path}");
    }
    assert_eq!(count("?", "&page=2"), 0);
    let nonsense = agent.org.admin("GET", &format!("/audit-logs?{query}&status=zz")).send();
    nonsense.refused(400, "invalid_request");
}

fn unknown_format_is_refused(server: &Server) {
    for format in ["xml", "CSV%00", "../../etc/passwd", ""] {
        let response =
            server.acme().admin("GET", &format!("/audit-logs/export?format={format}&limit=1")).send();
        assert!(
            response.status == 400 || format.is_empty() && response.status == 200,
            "{format}: {response}"
        );
    }
}

fn export_needs_an_audit_scope(server: &Server) {
    let org = server.acme();
    for (scope, allowed) in
        [("admin:audit", true), ("admin:read", true), ("authz:check", false), ("admin:agents", false)]
    {
        let key = org.api_key(&[scope]);
        for path in [
            "/admin/audit-logs?limit=1",
            "/admin/audit-logs/export?format=json&action=none",
            "/audit-logs?limit=1",
        ] {
            let response = org.get(path).api_key(&key).send();
            assert_eq!(response.status, if allowed { 200 } else { 403 }, "{scope} {path}: {response}");
        }
    }
}
