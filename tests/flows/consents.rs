//! What people allowed: how they and administrators see it and take it back (contract 2.12).

use lumoauth_tests::{Agent, Org, Person, Response, Server, asking, list, on_each_backend, strings, text};
use serde_json::{Value, json};

on_each_backend!(
    consent_has_exactly_its_members,
    consent_grows_with_what_is_allowed,
    person_sees_and_withdraws_only_their_own,
    application_sees_the_others_with_the_scope_for_it_only,
    agents_and_their_tokens_have_no_say,
    administrators_need_the_scope_for_it,
    what_is_not_there_is_not_found,
    withdrawing_twice_changes_nothing_more,
    withdrawn_consent_is_shown_and_asked_for_anew,
    list_is_paged,
    other_organization_sees_nothing,
    denied_request_leaves_no_consent,
    giving_and_taking_is_in_the_log,
);

fn both(server: &Server) -> (Org<'_>, Person<'_>, Agent<'_>) {
    let org = server.acme();
    (org.clone(), org.person(), org.delegate(&["read:a", "read:b"]))
}

fn listed(alice: &Person<'_>) -> Vec<Value> {
    let body = alice.org.admin("GET", &format!("/users/{}/consents", alice.id)).send().ok();
    list(&body["data"]).to_vec()
}

fn withdraw(alice: &Person<'_>, client: &str) -> Response {
    alice.org.admin("DELETE", &format!("/users/{}/consents/{client}", alice.id)).send()
}

fn consent_has_exactly_its_members(server: &Server) {
    let (org, alice, agent) = both(server);
    assert_eq!(listed(&alice).len(), 0);
    alice.code_of(&asking(&agent.client_id, "openid read:a"));
    let [consent] = &listed(&alice)[..] else { panic!("one consent") };
    let mut names: Vec<_> = consent.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "active",
            "clientId",
            "clientKind",
            "clientName",
            "createdAt",
            "id",
            "scopes",
            "updatedAt",
            "userId"
        ]
    );
    assert_eq!((&consent["clientId"], &consent["clientName"]), (&json!(agent.client_id), &json!(agent.name)));
    assert_eq!((&consent["clientKind"], &consent["userId"]), (&json!("agent"), &json!(alice.id)));
    assert_eq!(strings(&consent["scopes"]), ["openid", "read:a"]);
    assert_eq!(consent["active"], true);
    let app = org.app(json!({ "name": "Ledger", "allowedScopes": ["read:a"] }));
    alice.code_of(&asking(&app.client_id, "read:a"));
    let kinds: Vec<_> = listed(&alice).iter().map(|consent| consent["clientKind"].clone()).collect();
    assert!(kinds.contains(&json!("client")) && kinds.len() == 2, "{kinds:?}");
}

fn consent_grows_with_what_is_allowed(server: &Server) {
    let (_, alice, agent) = both(server);
    let code = alice.code_of(&asking(&agent.client_id, "read:a"));
    let first = listed(&alice)[0].clone();
    let body = agent.redeem(&code, &[]).ok();
    alice.code_of(&asking(&agent.client_id, "read:b"));
    let [grown] = &listed(&alice)[..] else { panic!("one consent") };
    assert_eq!((&grown["id"], &grown["createdAt"]), (&first["id"], &first["createdAt"]));
    assert_eq!(strings(&grown["scopes"]), ["read:a", "read:b"]);
    // Allowing more ends nothing.
    assert!(agent.sees_alive(text(&body["access_token"])));
}

fn person_sees_and_withdraws_only_their_own(server: &Server) {
    let (org, alice, agent) = both(server);
    let bob = org.person();
    let (a, b) = (alice.allow(&agent, "read:a"), bob.allow(&agent, "read:a"));
    let token = alice.in_person("openid consents");
    let own = org.get("/me/consents").bearer(&token).send().ok();
    for consent in list(&own["data"]) {
        assert_eq!(consent["userId"], alice.id.as_str());
    }
    assert_eq!(list(&own["data"]).len(), 2, "the agent and the application itself: {own}");
    let path = format!("/me/consents/{}", agent.client_id);
    org.request("DELETE", &path).bearer(&token).send().expect(200);
    assert!(!agent.sees_alive(&a.access) && agent.sees_alive(&b.access));
    // With the consent to itself it takes its own token away.
    let client = list(&own["data"]).iter().find(|consent| consent["clientKind"] == "client");
    let path = format!("/me/consents/{}", text(&client.expect("the application's")["clientId"]));
    org.request("DELETE", &path).bearer(&token).send().expect(200);
    assert_eq!(org.get("/me/consents").bearer(&token).send().status, 401);
}

fn application_sees_the_others_with_the_scope_for_it_only(server: &Server) {
    let (org, alice, agent) = both(server);
    let user = alice.allow(&agent, "read:a");
    let token = alice.in_person("openid");
    let seen = org.get("/me/consents").bearer(&token).send().ok();
    assert_eq!((list(&seen["data"]).len(), &seen["meta"]["total"]), (1, &json!(1)), "{seen}");
    assert_eq!(seen["data"][0]["clientKind"], "client");
    let refused = org.request("DELETE", &format!("/me/consents/{}", agent.client_id)).bearer(&token).send();
    let body = refused.refused(403, "forbidden");
    assert!(strings(&body["details"]["required_scopes"]).contains(&"consents"), "{body}");
    assert!(agent.sees_alive(&user.access));
    // What it is allowed itself it may give up.
    let own = text(&seen["data"][0]["clientId"]);
    org.request("DELETE", &format!("/me/consents/{own}")).bearer(&token).send().expect(200);
    assert_eq!(org.get("/me/consents").bearer(&token).send().status, 401);
}

fn agents_and_their_tokens_have_no_say(server: &Server) {
    let (org, alice, agent) = both(server);
    let user = alice.allow(&agent, "openid read:a");
    let delegated = agent.acting_for(&user.access);
    let path = format!("/me/consents/{}", agent.client_id);
    for token in [&user.access, &delegated, &agent.token()] {
        org.get("/me/consents").bearer(token).send().refused(403, "forbidden");
        org.request("DELETE", &path).bearer(token).send().refused(403, "forbidden");
    }
    assert_eq!(org.get("/me/consents").send().status, 401);
    assert_eq!(org.get("/me/consents").header("Cookie", &alice.cookie).send().status, 401);
    let admin_path = format!("/admin/users/{}/consents", alice.id);
    for token in [&user.access, &delegated, &agent.token()] {
        org.get(&admin_path).bearer(token).send().refused(403, "forbidden");
    }
    assert!(agent.sees_alive(&delegated));
}

fn administrators_need_the_scope_for_it(server: &Server) {
    let (org, alice, agent) = both(server);
    alice.allow(&agent, "read:a");
    let path = format!("/admin/users/{}/consents", alice.id);
    let one = format!("{path}/{}", agent.client_id);
    for (scopes, reads, writes) in [
        (&["admin:agents"][..], 403, 403),
        (&["admin:read"], 200, 403),
        (&["admin:users"], 200, 200),
        (&["admin:write"], 200, 200),
    ] {
        let key = org.api_key(scopes);
        assert_eq!(org.get(&path).api_key(&key).send().status, reads, "{scopes:?}");
        assert_eq!(org.request("DELETE", &one).api_key(&key).send().status, writes, "{scopes:?}");
    }
    assert_eq!(org.get(&path).send().status, 401);
}

fn what_is_not_there_is_not_found(server: &Server) {
    let (org, alice, agent) = both(server);
    let stranger = org.delegate(&["read:a"]);
    alice.allow(&agent, "read:a");
    for client in [stranger.client_id.as_str(), "cli_unknown", "x", "%00", &"c".repeat(300)] {
        assert_eq!(withdraw(&alice, client).status, 404, "{client}");
    }
    let nobody = "00000000-0000-4000-8000-000000000000";
    for (method, path) in [
        ("GET", format!("/users/{nobody}/consents")),
        ("DELETE", format!("/users/{nobody}/consents/{}", agent.client_id)),
        ("GET", "/users/x/consents".to_owned()),
    ] {
        assert_eq!(org.admin(method, &path).send().status, 404, "{path}");
    }
}

fn withdrawing_twice_changes_nothing_more(server: &Server) {
    let (_, alice, agent) = both(server);
    alice.allow(&agent, "read:a");
    withdraw(&alice, &agent.client_id).ok();
    let before = listed(&alice);
    withdraw(&alice, &agent.client_id).ok();
    assert_eq!(listed(&alice), before);
}

fn withdrawn_consent_is_shown_and_asked_for_anew(server: &Server) {
    let (_, alice, agent) = both(server);
    alice.allow(&agent, "read:a read:b");
    withdraw(&alice, &agent.client_id).ok();
    let [gone] = &listed(&alice)[..] else { panic!("one consent") };
    assert_eq!(gone["active"], false);
    let asked = alice.authorize(&asking(&agent.client_id, "read:a")).ok();
    alice.decide(&asked, "approve", &[]).ok();
    let [anew] = &listed(&alice)[..] else { panic!("one consent") };
    // What was allowed before and taken back is not allowed again with something else.
    assert_eq!((&anew["active"], strings(&anew["scopes"])), (&json!(true), vec!["read:a"]));
    assert!(alice.authorize(&asking(&agent.client_id, "read:b")).ok()["challenge_id"].is_string());
}

fn list_is_paged(server: &Server) {
    let (org, alice, _) = both(server);
    for _ in 0..3 {
        alice.allow(&org.delegate(&["read:a"]), "read:a");
    }
    let page = |query: &str| org.admin("GET", &format!("/users/{}/consents?{query}", alice.id)).send().ok();
    let (first, second) = (page("limit=2"), page("limit=2&page=2"));
    assert_eq!((&first["meta"]["total"], &first["meta"]["hasNextPage"]), (&json!(3), &json!(true)));
    assert_eq!((list(&first["data"]).len(), list(&second["data"]).len()), (2, 1));
    let mut ids: Vec<_> = [&first, &second]
        .iter()
        .flat_map(|page| list(&page["data"]))
        .map(|consent| text(&consent["id"]).to_owned())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

fn other_organization_sees_nothing(server: &Server) {
    let (_, alice, agent) = both(server);
    let globex = server.globex();
    let user = alice.allow(&agent, "read:a");
    let path = format!("/users/{}/consents", alice.id);
    assert_eq!(globex.admin("GET", &path).send().status, 404);
    assert_eq!(globex.admin("DELETE", &format!("{path}/{}", agent.client_id)).send().status, 404);
    let token = alice.in_person("openid consents");
    let foreign = globex.get("/me/consents").bearer(&token).send();
    assert!(matches!(foreign.status, 401 | 403), "{foreign}");
    assert!(agent.sees_alive(&user.access));
}

fn denied_request_leaves_no_consent(server: &Server) {
    let (_, alice, agent) = both(server);
    let asked = alice.authorize(&asking(&agent.client_id, "read:a")).ok();
    alice.decide(&asked, "deny", &[]).ok();
    assert_eq!(listed(&alice).len(), 0);
    alice.code_of(&asking(&agent.client_id, "read:a"));
    let asked = alice.authorize(&asking(&agent.client_id, "read:b")).ok();
    alice.decide(&asked, "deny", &[]).ok();
    assert_eq!(strings(&listed(&alice)[0]["scopes"]), ["read:a"]);
}

fn giving_and_taking_is_in_the_log(server: &Server) {
    let (org, alice, agent) = both(server);
    alice.allow(&agent, "read:a");
    withdraw(&alice, &agent.client_id).ok();
    let rows = |query: &str| org.audit(query);
    let given = rows(&format!("action=consent.granted&actor={}", alice.id));
    assert_eq!(given.len(), 1, "{given:?}");
    assert_eq!((&given[0]["actorType"], &given[0]["targetId"]), (&json!("user"), &json!(agent.agent_id)));
    let taken = rows(&format!("action=consent.revoked&targetId={}", agent.client_id));
    assert_eq!((taken.len(), &taken[0]["actorType"]), (1, &json!("api_key")), "{taken:?}");
}
