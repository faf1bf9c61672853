//! Authorization checks (contract 2.7), capabilities only.

use lumoauth_tests::{Request, Response, Server, int, list, on_each_backend, text, unique};
use serde_json::{Value, json};

use crate::policy::some_role;

on_each_backend!(
    agent_is_answered_for_itself,
    denial_is_a_plain_answer,
    bulk_any_and_all,
    key_may_ask_about_an_agent_by_each_of_its_ids,
    subject_may_be_a_string,
    unknown_subject_is_not_found,
    agent_may_not_ask_about_another,
    agent_may_name_itself_as_subject,
    key_without_the_scope_may_not_ask_about_others,
    people_ask_about_others_by_scope_or_by_permission,
    key_without_a_subject_is_answered,
    top_level_user_id_is_ignored,
    missing_permission_has_its_code,
    bad_permission_lists_have_their_code,
    hundred_permissions_are_allowed_and_no_more,
    inactive_agent_is_allowed_nothing,
    permission_list_of_an_agent,
    permission_list_with_a_key_names_the_scope_it_lacks,
    permission_list_of_a_person_needs_the_scope_for_it,
    caller_without_a_credential_is_refused,
    token_narrower_than_the_agent_bounds_the_answer,
    context_is_echoed,
);

fn agent_is_answered_for_itself(server: &Server) {
    let agent = server.acme().agent(&["document.edit", "read:*"]);
    let body = check(server, "check")
        .bearer(&agent.token())
        .json(json!({ "permission": "document.edit" }))
        .send()
        .ok();
    assert_eq!((&body["allowed"], &body["permission"]), (&json!(true), &json!("document.edit")));
    assert_eq!((&body["subject_type"], &body["subject_id"]), (&json!("agent"), &json!(agent.agent_id)));
    assert!(body.get("user_id").is_none_or(Value::is_null), "only for users: {body}");
    let body =
        check(server, "check").bearer(&agent.token()).json(json!({ "permission": "read:anything" })).send();
    assert_eq!(body.ok()["allowed"], true);
}

fn denial_is_a_plain_answer(server: &Server) {
    let agent = server.acme().agent(&["document.edit"]);
    let body =
        check(server, "check").bearer(&agent.token()).json(json!({ "permission": "document.delete" })).send();
    assert_eq!(body.ok()["allowed"], false);
}

fn bulk_any_and_all(server: &Server) {
    let agent = server.acme().agent(&["a:1", "b:2"]);
    let token = agent.token();
    let ask = |route: &str, permissions: &[&str]| {
        let body = json!({ "permissions": permissions });
        check(server, route).bearer(&token).json(body).send().ok()
    };
    let bulk = ask("check-bulk", &["a:1", "c:3"]);
    assert_eq!(bulk["results"], json!({ "a:1": true, "c:3": false }));
    assert_eq!(ask("check-any", &["a:1", "c:3"])["allowed"], true);
    assert_eq!(ask("check-any", &["c:3", "d:4"])["allowed"], false);
    assert_eq!(ask("check-all", &["a:1", "b:2"])["allowed"], true);
    assert_eq!(ask("check-all", &["a:1", "c:3"])["allowed"], false);
    assert_eq!(ask("check-any", &["c:3"])["permissions"], json!(["c:3"]));
}

fn key_may_ask_about_an_agent_by_each_of_its_ids(server: &Server) {
    let agent = server.acme().agent(&["a:1"]);
    for id in [agent.agent_id.clone(), agent.slug.clone(), format!("agent:{}", agent.slug)] {
        let body = json!({ "permission": "a:1", "subject": { "type": "agent", "id": id } });
        let answer = check(server, "check").api_key(agent.org.key()).json(body).send().ok();
        assert_eq!(
            (&answer["allowed"], &answer["subject_id"]),
            (&json!(true), &json!(agent.agent_id)),
            "{id}"
        );
    }
    let body = json!({ "permissions": ["a:1", "b:2"], "subject": { "type": "agent", "id": agent.agent_id } });
    let answer = check(server, "check-bulk").api_key(agent.org.key()).json(body).send().ok();
    assert_eq!(answer["results"], json!({ "a:1": true, "b:2": false }));
}

fn subject_may_be_a_string(server: &Server) {
    let agent = server.acme().agent(&["a:1"]);
    let body = json!({ "permission": "a:1", "subject": format!("agent:{}", agent.slug) });
    assert_eq!(check(server, "check").api_key(agent.org.key()).json(body).send().ok()["allowed"], true);
}

fn unknown_subject_is_not_found(server: &Server) {
    for subject in [
        json!({ "type": "agent", "id": "agt_doesnotexist" }),
        json!({ "type": "user", "id": "00000000-0000-0000-0000-000000000000" }),
        json!("agent:nobody-of-that-name"),
    ] {
        let body = json!({ "permission": "a:1", "subject": subject });
        let response = check(server, "check").api_key(server.acme().key()).json(body).send();
        assert_eq!(response.status, 404, "{response}");
        assert_eq!(response.refused_somehow()["code"], "SUBJECT_NOT_FOUND");
    }
    for subject in
        [json!({ "type": "martian", "id": "x" }), json!({ "id": "x" }), json!(7), json!(["agent:x"])]
    {
        let body = json!({ "permission": "a:1", "subject": subject });
        let response = check(server, "check").api_key(server.acme().key()).json(body).send();
        assert!(matches!(response.status, 400 | 404), "{response}");
    }
}

fn agent_may_not_ask_about_another(server: &Server) {
    let (one, two) = (server.acme().agent(&["a:1"]), server.acme().agent(&["a:1"]));
    let token = one.token();
    // The same answer whether the other exists, so nothing can be enumerated.
    for id in [two.agent_id.as_str(), "agt_doesnotexist"] {
        let body = json!({ "permission": "a:1", "subject": { "type": "agent", "id": id } });
        let refusal = check(server, "check").bearer(&token).json(body).send().refused(403, "forbidden");
        assert_eq!(refusal["code"], "INSUFFICIENT_PERMISSIONS");
    }
}

fn agent_may_name_itself_as_subject(server: &Server) {
    let agent = server.acme().agent(&["a:1"]);
    let body = json!({ "permission": "a:1", "subject": { "type": "agent", "id": agent.agent_id } });
    assert_eq!(check(server, "check").bearer(&agent.token()).json(body).send().ok()["allowed"], true);
}

fn key_without_the_scope_may_not_ask_about_others(server: &Server) {
    let agent = server.acme().agent(&["a:1"]);
    let key = agent.org.api_key(&["admin:read"]);
    let body = json!({ "permission": "a:1", "subject": { "type": "agent", "id": agent.agent_id } });
    let refusal = check(server, "check").api_key(&key).json(body.clone()).send().refused(403, "forbidden");
    assert_eq!(refusal["code"], "INSUFFICIENT_PERMISSIONS");
    let key = agent.org.api_key(&["authz:check"]);
    assert_eq!(check(server, "check").api_key(&key).json(body).send().ok()["allowed"], true);
}

fn people_ask_about_others_by_scope_or_by_permission(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&["a:1"]);
    let ask = |held: &str| {
        // An agent has several names.
        let id = format!("agent_{}", agent.agent_id);
        let body = json!({ "permission": "a:1", "subject": { "type": "agent", "id": id } });
        check(server, "check").bearer(held).json(body).send()
    };
    let (person, admin) = (org.person(), org.person_with(json!({ "isAdmin": true })));
    for somebody in [&person, &admin] {
        let refusal = ask(&somebody.in_person("openid")).refused(403, "forbidden");
        assert_eq!(refusal["code"], "INSUFFICIENT_PERMISSIONS");
        assert_eq!(ask(&somebody.in_person("openid authz:check")).ok()["allowed"], true);
    }
    assert_eq!(ask(&admin.in_person("openid admin")).ok()["allowed"], true);
    // Who is no administrator is none with the scope either.
    ask(&person.in_person("openid admin")).refused(403, "forbidden");
    let role = some_role(&org, &["authz.check"]);
    org.admin("POST", &format!("/users/{}/roles", person.id)).json(json!({ "role": role })).send().ok();
    assert_eq!(ask(&person.in_person("openid")).ok()["allowed"], true);
}

fn key_without_a_subject_is_answered(server: &Server) {
    let body = json!({ "permission": unique("thing") });
    let answer = check(server, "check").api_key(server.acme().key()).json(body).send().ok();
    assert!(answer["allowed"].is_boolean(), "{answer}");
}

fn top_level_user_id_is_ignored(server: &Server) {
    let agent = server.acme().agent(&["a:1"]);
    let body = json!({ "permission": "a:1", "user_id": "someone-else" });
    let answer = check(server, "check").bearer(&agent.token()).json(body).send().ok();
    assert_eq!((&answer["allowed"], &answer["subject_id"]), (&json!(true), &json!(agent.agent_id)));
}

fn missing_permission_has_its_code(server: &Server) {
    let token = server.acme().agent(&["a:1"]).token();
    for body in
        [json!({}), json!({ "permission": "" }), json!({ "permission": null }), json!({ "permission": 1 })]
    {
        let response = check(server, "check").bearer(&token).json(body).send();
        assert_eq!(response.status, 400, "{response}");
        assert_eq!(response.refused_somehow()["code"], "MISSING_PERMISSION");
    }
}

fn bad_permission_lists_have_their_code(server: &Server) {
    let token = server.acme().agent(&["a:1"]).token();
    for route in ["check-bulk", "check-any", "check-all"] {
        for body in [
            json!({}),
            json!({ "permissions": [] }),
            json!({ "permissions": "a:1" }),
            json!({ "permissions": { "0": "a:1" } }),
            json!({ "permissions": [1] }),
        ] {
            let response = check(server, route).bearer(&token).json(body).send();
            assert_eq!(response.status, 400, "{response}");
            assert_eq!(response.refused_somehow()["code"], "INVALID_PERMISSIONS");
        }
    }
}

fn hundred_permissions_are_allowed_and_no_more(server: &Server) {
    let token = server.acme().agent(&["p:1"]).token();
    let ask = |count: usize| -> Response {
        let permissions: Vec<String> = (0..count).map(|n| format!("p:{n}")).collect();
        check(server, "check-bulk").bearer(&token).json(json!({ "permissions": permissions })).send()
    };
    assert_eq!(ask(100).ok()["results"].as_object().expect("results").len(), 100);
    let refusal = ask(101);
    assert_eq!(refusal.status, 400, "{refusal}");
    assert_eq!(refusal.refused_somehow()["code"], "INVALID_PERMISSIONS");
}

fn inactive_agent_is_allowed_nothing(server: &Server) {
    let agent = server.acme().agent(&["a:1"]);
    agent.admin("POST", "/deactivate").send().ok();
    let body = json!({ "permission": "a:1", "subject": { "type": "agent", "id": agent.agent_id } });
    assert_eq!(check(server, "check").api_key(agent.org.key()).json(body).send().ok()["allowed"], false);
}

fn permission_list_of_an_agent(server: &Server) {
    let agent = server.acme().agent(&["a:1", "b:2"]);
    let body = server.request("GET", "/api/v1/authz/permissions").bearer(&agent.token()).send().ok();
    let mut slugs: Vec<&str> = list(&body["permissions"]).iter().map(|item| text(&item["slug"])).collect();
    slugs.sort_unstable();
    assert_eq!(slugs, ["a:1", "b:2"]);
    assert!(list(&body["permissions"]).iter().all(|item| item["source"] == "capability"), "{body}");
    assert_eq!((int(&body["count"]), &body["data"]), (2, &body["permissions"]));
    assert_eq!(body["pagination"].as_object().expect("pagination").len(), 6);
    let path = format!("/orgs/{}/api/v1/authz/permissions", agent.org.slug());
    assert_eq!(server.request("GET", &path).bearer(&agent.token()).send().ok(), body);
}

fn permission_list_with_a_key_names_the_scope_it_lacks(server: &Server) {
    let request = server.request("GET", "/api/v1/authz/permissions").api_key(server.acme().key());
    let body = request.send().refused(403, "forbidden");
    assert_eq!(body["details"]["required_scopes"], json!(["authz:read"]));
    assert!(body["details"]["granted_scopes"].is_array(), "{body}");
    // The SDK must see the code `forbidden`.
    assert!(body.get("code").is_none_or(|code| code == "forbidden"), "{body}");
}

fn permission_list_of_a_person_needs_the_scope_for_it(server: &Server) {
    let org = server.acme();
    let alice = org.person();
    let list_of = |token: &str| org.get("/authz/permissions").bearer(token).send();
    let body = list_of(&alice.in_person("openid read:a")).refused(403, "forbidden");
    let details = json!({ "required_scopes": ["authz:read"], "granted_scopes": ["read:a", "openid"] });
    assert_eq!(body["details"], details);
    // A wildcard does not reach it.
    list_of(&alice.in_person("*")).refused(403, "forbidden");
    let agent = org.delegate(&["read:a", "authz:read"]);
    let user = alice.allow(&agent, "read:a authz:read").access;
    let body = list_of(&user).ok();
    let slugs: Vec<_> = list(&body["permissions"]).iter().map(|item| text(&item["slug"])).collect();
    assert!(slugs.contains(&"read:a"), "{body}");
    assert!(list(&body["permissions"]).iter().all(|item| item["source"] == "consent"), "{body}");
    // What the client lost is not told, nor is it once the client lost this.
    agent.admin("PUT", "/scopes").json(json!({ "scopes": ["read:a"] })).send().ok();
    list_of(&user).refused(403, "forbidden");
}

fn caller_without_a_credential_is_refused(server: &Server) {
    let body = json!({ "permission": "a:1" });
    let requests = [
        check(server, "check").json(body.clone()),
        check(server, "check").json(body.clone()).api_key("lmk_unknown"),
        check(server, "check").json(body).bearer("nonsense"),
        server.request("GET", "/api/v1/authz/permissions"),
    ];
    for request in requests {
        let response = request.send();
        assert_eq!(response.status, 401, "{response}");
        response.refused_somehow();
    }
}

fn token_narrower_than_the_agent_bounds_the_answer(server: &Server) {
    let agent = server.acme().agent(&["a:1", "b:2"]);
    let token = agent.token_for("a:1");
    let body = json!({ "permissions": ["a:1", "b:2"] });
    let answer = check(server, "check-bulk").bearer(&token).json(body).send().ok();
    assert_eq!(answer["results"], json!({ "a:1": true, "b:2": false }));
}

fn context_is_echoed(server: &Server) {
    let token = server.acme().agent(&["a:1"]).token();
    let body = json!({ "permission": "a:1", "context": { "id": "d-1" } });
    assert_eq!(check(server, "check").bearer(&token).json(body).send().ok()["context"]["id"], "d-1");
}

fn check(server: &Server, route: &str) -> Request {
    server.request("POST", &format!("/api/v1/authz/{route}"))
}
