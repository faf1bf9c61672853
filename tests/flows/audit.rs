//! The audit log: what is written and how it is read (contract 2.14).

use std::collections::HashSet;

use lumoauth_tests::{Server, int, list, on_each_backend, rfc3339, strings, text, unique, unix_now};
use serde_json::{Value, json};

on_each_backend!(
    the_five_events_of_the_seeds_exist_with_actor_and_target,
    entry_has_every_member_of_the_contract,
    failed_authentication_is_recorded_as_failure,
    ids_are_integers_and_single_entries_can_be_read,
    filters_select,
    trailing_star_selects_a_family,
    time_filters_select,
    pages_cover_everything_once,
    actions_lists_what_occurred,
    alias_path_serves_the_same,
    log_is_append_only,
    organizations_see_only_their_own,
    refused_changes_leave_no_event,
    hostile_text_cannot_forge_entries,
    nonsense_in_the_query_is_never_a_fault,
    administrators_changes_name_the_key_as_actor,
);

fn the_five_events_of_the_seeds_exist_with_actor_and_target(server: &Server) {
    let org = server.acme();
    let mcp = org.mcp_server(json!({}));
    let agent = org.agent(&["read:a"]);
    let token = agent.token();
    agent.ask(&token, "read:a").ok();
    agent.exchange(&token, &[("resource", text(&mcp["resource_uri"]))]).ok();
    agent.admin("POST", "/revoke").send().ok();

    let by_target = |action: &str| org.audit(&format!("targetId={}&action={action}", agent.agent_id));
    let by_actor = |action: &str| org.audit(&format!("actorId={}&action={action}", agent.agent_id));
    assert_eq!(by_target("agent.created").len(), 1);
    assert_eq!(by_actor("agent.authenticated").len(), 1);
    assert_eq!(by_actor("agent.action").len(), 1);
    assert_eq!(by_actor("mcp.connection").len(), 1);
    assert_eq!(by_target("agent.revoked").len(), 1);
    for entry in by_target("agent.*").iter().chain(&by_actor("*")) {
        assert_eq!(entry["ipAddress"], "127.0.0.1", "{entry}");
        assert!(!text(&entry["actorId"]).is_empty() && !text(&entry["actorType"]).is_empty(), "{entry}");
    }
    let connection = &by_actor("mcp.connection")[0];
    assert_eq!(connection["targetId"], mcp["server_id"]);
}

fn entry_has_every_member_of_the_contract(server: &Server) {
    let agent = server.acme().agent(&[]);
    agent.token_request(&agent.secret, &[]).header("User-Agent", "harness/1").send().ok();
    let entry = agent.org.audit(&format!("actorId={}&action=agent.authenticated", agent.agent_id)).remove(0);
    let expected = json!({
        "eventType": "agent.authenticated", "action": "agent.authenticated", "severity": "info",
        "actorId": agent.agent_id, "actorName": agent.name, "actorType": "agent",
        "authMethod": "client_credentials", "ipAddress": "127.0.0.1", "status": "success",
    });
    for (member, value) in expected.as_object().expect("an object") {
        assert_eq!(&entry[member], value, "{member} in {entry}");
    }
    assert!(text(&entry["createdAt"]).ends_with('Z') && !text(&entry["message"]).is_empty());
    let detail = agent.org.admin("GET", &format!("/audit-logs/{}", entry["id"])).send().ok()["data"].clone();
    assert_eq!((&detail["userAgent"], &detail["id"]), (&json!("harness/1"), &entry["id"]));
    // The generated client takes objects or nothing here.
    for member in ["context", "changes", "oldValue", "newValue"] {
        assert!(detail[member].is_object() || detail[member].is_null(), "{member} in {detail}");
    }
}

fn failed_authentication_is_recorded_as_failure(server: &Server) {
    let agent = server.acme().agent(&[]);
    agent.token_request("wrong", &[]).send().refused(401, "invalid_client");
    let find = |status: &str| {
        let action = "agent.authenticated";
        let by_actor = format!("actorId={}&action={action}&status={status}", agent.agent_id);
        let by_target = format!("targetId={}&action={action}&status={status}", agent.agent_id);
        agent.org.audit(&by_actor).len().max(agent.org.audit(&by_target).len())
    };
    assert_eq!((find("failure"), find("success")), (1, 0));
}

fn ids_are_integers_and_single_entries_can_be_read(server: &Server) {
    let agent = server.acme().agent(&[]);
    let entry = agent.org.audit(&format!("targetId={}", agent.agent_id)).remove(0);
    let id = int(&entry["id"]);
    assert!((1..1 << 53).contains(&id));
    let single = agent.org.admin("GET", &format!("/audit-logs/{id}")).send().ok();
    assert_eq!(single["data"]["action"], "agent.created");
    for absent in ["999999999999", "0", "-1", "x", "%00", "99999999999999999999999"] {
        let response = agent.org.admin("GET", &format!("/audit-logs/{absent}")).send();
        assert!(matches!(response.status, 400 | 404), "{absent}: {response}");
        response.refused_somehow();
    }
}

fn filters_select(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    agent.ask(&agent.token(), "read:a").ok();
    let id = &agent.agent_id;
    let count = |query: String| agent.org.audit(&query).len();
    for name in ["action", "eventType", "event_type"] {
        assert_eq!(count(format!("actorId={id}&{name}=agent.action")), 1, "{name}");
    }
    for name in ["userId", "actorId", "actor"] {
        assert_eq!(count(format!("{name}={id}&action=agent.action")), 1, "{name}");
    }
    for name in ["status", "outcome"] {
        assert_eq!(count(format!("actorId={id}&{name}=failure")), 0, "{name}");
        assert_eq!(count(format!("actorId={id}&{name}=success")), 2, "{name}");
    }
    assert_eq!(count(format!("targetId={id}&category=agent&action=agent.created")), 1);
    assert_eq!(count(format!("targetId={id}&category=mcp")), 0);
    assert_eq!(count(format!("actorId={}", unique("agt"))), 0);
}

fn trailing_star_selects_a_family(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    agent.ask(&agent.token(), "read:a").ok();
    let id = &agent.agent_id;
    assert_eq!(agent.org.audit(&format!("actorId={id}&action=agent.*")).len(), 2);
    assert_eq!(agent.org.audit(&format!("actorId={id}&action=mcp.*")).len(), 0);
    assert_eq!(agent.org.audit(&format!("actorId={id}&action=agent")).len(), 0, "exact without a star");
}

fn time_filters_select(server: &Server) {
    let agent = server.acme().agent(&[]);
    let id = &agent.agent_id;
    let (past, future) = (rfc3339(unix_now() - 3600), rfc3339(unix_now() + 3600));
    let count = |query: String| agent.org.audit(&format!("targetId={id}&{query}")).len();
    for (from, to) in [("from", "to"), ("startDate", "endDate")] {
        assert_eq!(count(format!("{from}={past}&{to}={future}")), 1);
        assert_eq!(count(format!("{from}={future}")), 0);
        assert_eq!(count(format!("{to}={past}")), 0);
    }
}

fn pages_cover_everything_once(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let token = agent.token();
    for _ in 0..11 {
        agent.ask(&token, "read:a").ok();
    }
    let mut seen = Vec::new();
    for page in 1..=3 {
        let query = format!("/audit-logs?actorId={}&action=agent.action&limit=5&page={page}", agent.agent_id);
        let body = agent.org.admin("GET", &query).send().ok();
        assert_eq!((int(&body["meta"]["total"]), &body["meta"]), (11, &body["pagination"]));
        seen.extend(list(&body["data"]).iter().map(|entry| int(&entry["id"])));
    }
    assert_eq!((seen.len(), seen.iter().collect::<HashSet<_>>().len()), (11, 11));
}

fn actions_lists_what_occurred(server: &Server) {
    let agent = server.acme().agent(&[]);
    agent.token();
    let body = agent.org.admin("GET", "/audit-logs/actions").send().ok();
    let actions = strings(&body["data"]);
    assert!(actions.contains(&"agent.created") && actions.contains(&"agent.authenticated"), "{body}");
    assert_eq!(actions.iter().collect::<HashSet<_>>().len(), actions.len());
}

fn alias_path_serves_the_same(server: &Server) {
    let agent = server.acme().agent(&[]);
    let query = format!("targetId={}", agent.agent_id);
    let admin = agent.org.admin("GET", &format!("/audit-logs?{query}")).send().ok();
    let alias = agent.org.get(&format!("/audit-logs?{query}")).api_key(agent.org.key()).send().ok();
    assert_eq!(admin["data"], alias["data"]);
}

fn log_is_append_only(server: &Server) {
    let agent = server.acme().agent(&[]);
    let id = agent.org.audit(&format!("targetId={}", agent.agent_id)).remove(0)["id"].clone();
    for method in ["PUT", "PATCH", "DELETE", "POST"] {
        for path in [format!("/audit-logs/{id}"), "/audit-logs".to_owned()] {
            let response = agent.org.admin(method, &path).send();
            assert!(matches!(response.status, 404 | 405), "{method} {path}: {response}");
        }
    }
    assert_eq!(agent.org.audit(&format!("targetId={}", agent.agent_id)).len(), 1);
}

fn organizations_see_only_their_own(server: &Server) {
    let theirs = server.globex().agent(&[]);
    let entry = theirs.org.audit(&format!("targetId={}", theirs.agent_id)).remove(0);
    assert_eq!(server.acme().audit(&format!("targetId={}", theirs.agent_id)).len(), 0);
    let response = server.acme().admin("GET", &format!("/audit-logs/{}", entry["id"])).send();
    // Numbers are per organization, so ours may have one of the same number.
    assert!(response.status == 404 || response.json()["data"]["targetId"] != json!(theirs.agent_id));
}

fn refused_changes_leave_no_event(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    agent.admin("PATCH", "").json(json!({ "capabilities": ["bad capability"] })).send().expect(400);
    agent.admin("PUT", "/scopes").json(json!({ "scopes": 1 })).send().expect(400);
    let stranger = server.globex();
    let path = format!("/admin/agents/{}", agent.agent_id);
    agent.org.request("DELETE", &path).api_key(stranger.key()).send();
    assert_eq!(agent.org.audit(&format!("targetId={}", agent.agent_id)).len(), 1, "only the creation");
}

fn hostile_text_cannot_forge_entries(server: &Server) {
    let agent = server.acme().agent(&["*"]);
    let hostile = "x\r\n{\"action\":\"forged\"}\u{1b}[31m";
    let body = json!({ "action": "read:a", "context": { "note": hostile } });
    let answer = agent.org.post("/agents/ask").bearer(&agent.token()).json(body).send().ok();
    let entries = agent.org.audit(&format!("auditId={}", text(&answer["audit_id"])));
    assert_eq!(entries.len(), 1);
    assert_eq!(agent.org.audit("action=forged").len(), 0);
    let log = server.log();
    assert!(!log.contains('\u{1b}') || !log.contains("\u{1b}[31m"), "escapes reach no log line");
}

fn nonsense_in_the_query_is_never_a_fault(server: &Server) {
    for query in [
        "from=yesterday",
        "to=99999-01-01T00:00:00Z",
        "from=2026-13-45T99:99:99Z",
        "status=maybe",
        "action=%00",
        "action=*",
        "action=**",
        "action=agent.*.x",
        "action=%25",
        "auditId=';--",
        "limit=abc",
        "page=-3",
        "targetId=%ff",
    ] {
        let response = server.acme().admin("GET", &format!("/audit-logs?{query}")).send();
        assert!(matches!(response.status, 200 | 400), "{query}: {response}");
    }
}

fn administrators_changes_name_the_key_as_actor(server: &Server) {
    let agent = server.acme().agent(&[]);
    let entry: Value =
        agent.org.audit(&format!("targetId={}&action=agent.created", agent.agent_id)).remove(0);
    assert_eq!(entry["actorType"], "api_key");
    assert_eq!((&entry["targetType"], &entry["targetName"]), (&json!("agent"), &json!(agent.name)));
}
