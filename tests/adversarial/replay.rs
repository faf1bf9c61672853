//! R: to use something twice.

use lumoauth_tests::{Agent, App, Person, Response, Server, asking, at_once, on_each_backend, text};
use serde_json::{Value, json};

on_each_backend!(
    r01_code_twice,
    r02_code_by_64_at_once,
    r03_refresh_token_twice,
    r04_refresh_token_by_64_at_once,
    r05_refresh_token_after_its_successor_was_used,
    r06_challenge_twice,
    r07_challenge_by_64_at_once,
    r08_code_of_another_client,
    r09_refresh_token_of_another_client,
    r10_code_with_another_redirect_uri,
);

fn both(server: &Server) -> (Person<'_>, Agent<'_>) {
    let org = server.acme();
    (org.person(), org.delegate(&["read:a"]))
}

/// Two applications that are alike.
fn applications<'a>(agent: &Agent<'a>) -> [App<'a>; 2] {
    [(), ()].map(|()| {
        let grants = ["authorization_code", "refresh_token"];
        agent.org.app(json!({ "allowedScopes": ["read:a"], "grantTypes": grants }))
    })
}

/// What the one of 64 who all begin at once got that won. All others were refused like this.
#[track_caller]
fn winner(status: u16, error: &str, call: impl Fn() -> Response + Sync) -> Value {
    let answers = at_once(64, |_| call());
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(won.len(), 1, "{} winners", won.len());
    for answer in lost {
        answer.refused(status, error);
    }
    won[0].ok()
}

fn r01_code_twice(server: &Server) {
    let (alice, agent) = both(server);
    let code = alice.code_for(&agent, "read:a");
    let first = agent.redeem(&code, &[]).ok();
    let access = text(&first["access_token"]);
    let delegated = agent.acting_for(access);
    assert!(agent.sees_alive(access) && agent.sees_alive(&delegated));
    agent.redeem(&code, &[]).refused(400, "invalid_grant");
    assert!(!agent.sees_alive(access) && !agent.sees_alive(&delegated));
    agent.refresh(text(&first["refresh_token"]), &[]).refused(400, "invalid_grant");
}

fn r02_code_by_64_at_once(server: &Server) {
    let (alice, agent) = both(server);
    let code = alice.code_for(&agent, "read:a");
    let won = winner(400, "invalid_grant", || agent.redeem(&code, &[]));
    // Who else had the code may have been the thief or the robbed: what it gave is gone.
    assert!(!agent.sees_alive(text(&won["access_token"])));
    agent.refresh(text(&won["refresh_token"]), &[]).refused(400, "invalid_grant");
}

fn r03_refresh_token_twice(server: &Server) {
    let (alice, agent) = both(server);
    let old = alice.allow(&agent, "read:a").refresh;
    let next = agent.refresh(&old, &[]).ok();
    // Whoever lost a race may try what it has; the answer is never given again, and the family lives on.
    agent.refresh(&old, &[]).refused(400, "invalid_grant");
    assert!(agent.sees_alive(text(&next["access_token"])));
    agent.refresh(text(&next["refresh_token"]), &[]).ok();
}

fn r04_refresh_token_by_64_at_once(server: &Server) {
    let (alice, agent) = both(server);
    let old = alice.allow(&agent, "read:a").refresh;
    let next = winner(400, "invalid_grant", || agent.refresh(&old, &[]));
    agent.refresh(text(&next["refresh_token"]), &[]).ok();
}

fn r05_refresh_token_after_its_successor_was_used(server: &Server) {
    let (alice, agent) = both(server);
    let old = alice.allow(&agent, "read:a").refresh;
    let second = agent.refresh(&old, &[]).ok();
    let third = agent.refresh(text(&second["refresh_token"]), &[]).ok();
    let access = text(&third["access_token"]);
    let delegated = agent.acting_for(access);
    agent.refresh(&old, &[]).refused(400, "invalid_grant");
    assert!(!agent.sees_alive(access) && !agent.sees_alive(&delegated));
    agent.refresh(text(&third["refresh_token"]), &[]).refused(400, "invalid_grant");
}

fn r06_challenge_twice(server: &Server) {
    let (alice, agent) = both(server);
    let challenge = alice.ask_for(&agent, "read:a", &[]).ok();
    alice.decide(&challenge, "approve", &[]).ok();
    for decision in ["approve", "deny"] {
        alice.decide(&challenge, decision, &[]).refused(409, "conflict");
    }
}

fn r07_challenge_by_64_at_once(server: &Server) {
    let (alice, agent) = both(server);
    let challenge = alice.ask_for(&agent, "read:a", &[]).ok();
    let won = winner(409, "conflict", || alice.decide(&challenge, "approve", &[]));
    agent.redeem(text(&won["code"]), &[]).ok();
}

fn r08_code_of_another_client(server: &Server) {
    let (alice, agent) = both(server);
    let thief = server.acme().delegate(&["read:a"]);
    let code = alice.code_for(&agent, "read:a");
    thief.redeem(&code, &[]).refused(400, "invalid_grant");
    agent.redeem(&code, &[]).ok();
    // Nothing but its id tells an application from another.
    let [app, thief] = applications(&agent);
    let code = alice.code_of(&asking(&app.client_id, "read:a"));
    thief.redeem(&code, &[]).refused(400, "invalid_grant");
    app.redeem(&code, &[]).ok();
}

fn r09_refresh_token_of_another_client(server: &Server) {
    let (alice, agent) = both(server);
    let thief = server.acme().delegate(&["read:a"]);
    let tokens = alice.allow(&agent, "read:a");
    thief.refresh(&tokens.refresh, &[]).refused(400, "invalid_grant");
    agent.refresh(&tokens.refresh, &[]).ok();
    let [app, thief] = applications(&agent);
    let mut fields = asking(&app.client_id, "read:a");
    fields.push(("access_type", "offline"));
    let tokens = app.redeem(&alice.code_of(&fields), &[]).ok();
    let refresh = text(&tokens["refresh_token"]);
    thief.refresh(refresh, &[]).refused(400, "invalid_grant");
    app.refresh(refresh, &[]).ok();
}

fn r10_code_with_another_redirect_uri(server: &Server) {
    let (alice, agent) = both(server);
    let code = alice.code_for(&agent, "read:a");
    let fields = |uri| [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", uri)];
    for uri in
        ["https://agent.example.test/callback/", "https://agent.example.test/other", "https://evil.test/"]
    {
        agent.as_client(&fields(uri)).refused(400, "invalid_grant");
    }
    let without = [("grant_type", "authorization_code"), ("code", code.as_str())];
    agent.as_client(&without).refused(400, "invalid_grant");
    // None of that used it up: each was refused for its address.
    agent.redeem(&code, &[]).ok();
}
