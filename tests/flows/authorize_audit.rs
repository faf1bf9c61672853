//! What the authorization endpoint leaves in the audit log.

use lumoauth_tests::{Agent, Person, Response, Server, asking, on_each_backend, text};
use serde_json::json;

on_each_backend!(decisions_are_in_the_log, refusals_that_mean_something_are_in_the_log);

fn both(server: &Server) -> (Person<'_>, Agent<'_>) {
    let org = server.acme();
    (org.person(), org.delegate(&["read:a"]))
}

fn decisions_are_in_the_log(server: &Server) {
    let (alice, agent) = both(server);
    let org = server.acme();
    for decision in ["deny", "approve"] {
        let asked = alice.authorize(&asking(&agent.client_id, "read:a")).ok();
        let answer: Response = alice.decide(&asked, decision, &[]);
        let rows = org.audit(&format!("userId={}", alice.id));
        let all = json!(rows).to_string();
        let decided = rows.iter().any(|row| row["targetId"] == agent.agent_id.as_str());
        assert!(decided, "{decision}: {all}");
        for secret in [&asked["challenge_id"], &asked["csrf_token"], &answer.json()["code"]] {
            assert!(secret.is_null() || !all.contains(text(secret)), "{all}");
        }
    }
}

fn refusals_that_mean_something_are_in_the_log(server: &Server) {
    let (alice, agent) = both(server);
    let mallory = agent.org.person();
    let refusals = || agent.org.audit(&format!("action=authorization.refused&targetId={}", agent.client_id));
    let asked = alice.authorize(&asking(&agent.client_id, "read:a")).ok();
    mallory.decide(&asked, "approve", &[]).refused(403, "forbidden");
    let mut forged = asked.clone();
    forged["csrf_token"] = json!("forged");
    alice.decide(&forged, "approve", &[]).refused(403, "forbidden");
    let rows = refusals();
    let who: Vec<_> = rows.iter().map(|row| (text(&row["actorId"]), text(&row["statusReason"]))).collect();
    assert_eq!(who, [(&*alice.id, "csrf_token"), (&*mallory.id, "other_session")], "{rows:?}");
    assert!(rows.iter().all(|row| row["status"] == "failure"), "{rows:?}");
    let all = json!(rows).to_string();
    assert!(
        !all.contains(text(&asked["challenge_id"])) && !all.contains(text(&asked["csrf_token"])),
        "{all}"
    );
    // And an address that is not the client's.
    let mut elsewhere = asking(&agent.client_id, "read:a");
    elsewhere[2].1 = "https://evil.example.test/canary";
    assert_eq!(alice.authorize(&elsewhere).status, 400);
    let rows = agent.org.audit(&format!("action=authorization.refused&targetId={}", agent.agent_id));
    assert_eq!((rows.len(), &rows[0]["statusReason"]), (1, &json!("redirect_uri")), "{rows:?}");
    assert!(!json!(rows).to_string().contains("canary"), "{rows:?}");
}
