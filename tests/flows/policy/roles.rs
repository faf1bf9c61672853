//! Roles and permissions as administrators handle them.

use lumoauth_tests::{Server, on_each_backend, text, unique};
use serde_json::{Value, json};

use super::{some_action, some_role};

on_each_backend!(
    a_role_is_made_read_changed_and_removed,
    permissions_of_a_role_are_replaced_added_and_taken_out,
    a_role_is_given_to_people_and_taken_away,
    roles_of_an_agent_are_replaced_as_a_whole,
    a_role_made_anew_has_no_holders,
    permissions_are_listed_and_taken_off,
    permissions_of_the_system_stay,
    what_makes_no_sense_is_refused,
    several_are_written_or_none,
    other_organizations_see_nothing,
    new_people_get_roles,
    checks_see_roles,
);

fn a_role_is_made_read_changed_and_removed(server: &Server) {
    let org = server.acme();
    let (action, _) = some_action();
    let slug = unique("role");
    let body = json!({ "name": "Analyst", "slug": slug, "description": "Reads", "permissions": [action] });
    let made = org.admin("POST", "/roles").json(body.clone()).send().expect(201).json()["data"].clone();
    assert!(made["id"].is_string() && made["isSystem"] == false && made["userCount"] == 0, "{made}");
    assert_eq!(made["permissions"][0]["slug"], action);
    assert!(made["permissions"][0]["id"].is_u64());
    org.admin("POST", "/roles").json(body).send().refused(409, "duplicate_resource");
    for name in [slug.as_str(), text(&made["id"])] {
        assert_eq!(org.admin("GET", &format!("/roles/{name}")).send().ok()["data"], made);
    }
    let listed = org.admin("GET", &format!("/roles?search={slug}")).send().ok();
    assert_eq!((&listed["data"][0]["id"], &listed["meta"]["total"]), (&made["id"], &json!(1)));
    let path = format!("/roles/{slug}");
    let changed = org.admin("PUT", &path).json(json!({ "name": "Reader" })).send().ok()["data"].clone();
    assert_eq!((&changed["name"], &changed["permissions"]), (&json!("Reader"), &made["permissions"]));
    org.admin("PUT", &path).json(json!({ "slug": "other" })).send().refused(400, "validation_error");
    org.admin("DELETE", &path).send().ok();
    for method in ["GET", "DELETE"] {
        org.admin(method, &path).send().refused(404, "not_found");
    }
    let events: Vec<_> = org.audit(&format!("targetId={slug}"));
    let kinds: Vec<_> = events.iter().map(|event| text(&event["eventType"])).collect();
    assert_eq!(kinds, ["role.deleted", "role.updated", "role.created"]);
}

fn permissions_of_a_role_are_replaced_added_and_taken_out(server: &Server) {
    let org = server.acme();
    let [one, two, three] = [some_action().0, some_action().0, some_action().0];
    let role = some_role(&org, &[&one]);
    let path = format!("/roles/{role}/permissions");
    let slugs = || {
        let data = org.admin("GET", &path).send().ok()["data"].clone();
        let mut slugs: Vec<_> =
            data.as_array().expect("a list").iter().map(|it| text(&it["slug"]).to_owned()).collect();
        slugs.sort();
        slugs
    };
    let sorted = |names: &[&String]| {
        let mut names: Vec<_> = names.iter().map(|name| (*name).clone()).collect();
        names.sort();
        names
    };
    org.admin("POST", &path).json(json!({ "permission": two })).send().ok();
    assert_eq!(slugs(), sorted(&[&one, &two]));
    let id = org.admin("GET", &format!("/permissions/{two}")).send().ok()["data"]["id"].clone();
    org.admin("PUT", &path).json(json!({ "permissions": [id, three] })).send().ok();
    assert_eq!(slugs(), sorted(&[&two, &three]));
    org.admin("DELETE", &format!("{path}/{id}")).send().ok();
    org.admin("DELETE", &format!("{path}/{id}")).send().refused(404, "not_found");
    assert_eq!(slugs(), sorted(&[&three]));
    org.admin("POST", &path)
        .json(json!({ "permissions": [999_999_999] }))
        .send()
        .refused(400, "validation_error");
    org.admin("POST", &path).json(json!({})).send().refused(400, "invalid_request");
}

fn a_role_is_given_to_people_and_taken_away(server: &Server) {
    let org = server.acme();
    let role = some_role(&org, &[]);
    let person = org.person();
    let path = format!("/roles/{role}/users");
    org.admin("POST", &path).json(json!({ "userIds": [person.id] })).send().ok();
    let users = org.admin("GET", &path).send().ok();
    assert_eq!((&users["data"][0]["id"], &users["meta"]["total"]), (&json!(person.id), &json!(1)));
    assert_eq!(org.admin("GET", &format!("/roles/{role}")).send().ok()["data"]["userCount"], 1);
    let token = person.allow(&org.delegate(&["authz:read"]), "openid authz:read").access;
    assert_eq!(org.get("/oauth/userinfo").bearer(&token).send().ok()["roles"], json!([role]));
    org.admin("DELETE", &format!("{path}/{}", person.id)).send().ok();
    org.admin("DELETE", &format!("{path}/{}", person.id)).send().refused(404, "not_found");
    assert_eq!(org.get("/oauth/userinfo").bearer(&token).send().ok()["roles"], json!([]));
    org.admin("POST", &path).json(json!({ "user": "nobody@people.test" })).send().refused(404, "not_found");
}

fn roles_of_an_agent_are_replaced_as_a_whole(server: &Server) {
    let org = server.acme();
    let [one, two] = [some_role(&org, &[]), some_role(&org, &[])];
    let agent = org.agent(&[]);
    let slugs = |data: &Value| {
        let roles = data["data"].as_array().expect("a list").iter();
        roles.map(|role| text(&role["slug"]).to_owned()).collect::<Vec<_>>()
    };
    let put = |roles: Value| agent.admin("PUT", "/roles").json(json!({ "roles": roles })).send();
    assert_eq!(slugs(&put(json!([one])).ok()), [&*one]);
    assert_eq!(slugs(&put(json!([{ "slug": two }])).ok()), [&*two]);
    put(json!(["no-such-role"])).refused(400, "validation_error");
    assert_eq!(slugs(&agent.admin("GET", "/roles").send().ok()), [&*two]);
    assert_eq!(org.get("/agents/me").bearer(&agent.token()).send().ok()["roles"], json!([two]));
    assert_eq!(slugs(&put(json!([])).ok()), Vec::<String>::new());
    agent.admin("POST", "/roles").json(json!({})).send().refused(400, "invalid_request");
    let nobody = "/agents/agt_00000000000000000000000000000000/roles";
    org.admin("GET", nobody).send().refused(404, "not_found");
}

fn a_role_made_anew_has_no_holders(server: &Server) {
    let org = server.acme();
    let (action, _) = some_action();
    let agent = org.agent(&[]);
    let token = agent.token();
    let role = some_role(&org, &[&action]);
    agent.admin("POST", "/roles").json(json!({ "role": role })).send().ok();
    assert_eq!(agent.ask(&token, &action).ok()["allowed"], true);
    org.admin("DELETE", &format!("/roles/{role}")).send().ok();
    assert_eq!(agent.ask(&token, &action).ok()["allowed"], false);
    let body = json!({ "slug": role, "name": "again", "permissions": [action] });
    org.admin("POST", "/roles").json(body).send().expect(201);
    assert_eq!(agent.ask(&token, &action).ok()["allowed"], false);
}

fn permissions_are_listed_and_taken_off(server: &Server) {
    let org = server.acme();
    let (action, _) = some_action();
    let body = json!({ "slug": action, "name": "Read", "description": "Read it" });
    let made = org.admin("POST", "/permissions").json(body.clone()).send().expect(201).json()["data"].clone();
    assert!(made["id"].is_u64() && made["isSystem"] == false && made["isCustom"] == true, "{made}");
    org.admin("POST", "/permissions").json(body).send().refused(409, "duplicate_resource");
    let path = format!("/permissions/{}", made["id"]);
    let changed = org.admin("PATCH", &path).json(json!({ "name": "Look" })).send().ok();
    assert_eq!(changed["data"]["name"], "Look");
    let role = some_role(&org, &[&action]);
    let agent = org.agent(&[]);
    agent.admin("POST", "/roles").json(json!({ "role": role })).send().ok();
    assert_eq!(org.admin("GET", &path).send().ok()["data"]["roleCount"], 1);
    org.admin("DELETE", &path).send().ok();
    assert_eq!(agent.ask(&agent.token(), &action).ok()["allowed"], false);
    assert_eq!(org.admin("GET", &format!("/roles/{role}")).send().ok()["data"]["permissions"], json!([]));
    org.admin("GET", &path).send().refused(404, "not_found");
}

fn permissions_of_the_system_stay(server: &Server) {
    let org = server.acme();
    let listed = org.admin("GET", "/permissions?search=abac.manage").send().ok()["data"][0].clone();
    assert_eq!(listed["isSystem"], true);
    for name in ["abac.manage".to_owned(), listed["id"].to_string()] {
        let path = format!("/permissions/{name}");
        org.admin("GET", &path).send().ok();
        org.admin("PUT", &path).json(json!({ "name": "x" })).send().refused(403, "forbidden");
        org.admin("DELETE", &path).send().refused(403, "forbidden");
    }
    // What the list shows names it wherever a permission is named.
    let role = some_role(&org, &[]);
    for path in
        [format!("/roles/{role}/permissions"), format!("/agents/{}/permissions", org.agent(&[]).agent_id)]
    {
        org.admin("POST", &path).json(json!({ "permissions": [listed["id"]] })).send().ok();
        org.admin("DELETE", &format!("{path}/{}", listed["id"])).send().ok();
        org.admin("DELETE", &format!("{path}/{}", listed["id"])).send().refused(404, "not_found");
    }
    let body = json!({ "slug": "abac.manage", "name": "x" });
    org.admin("POST", "/permissions").json(body).send().refused(409, "duplicate_resource");
}

fn what_makes_no_sense_is_refused(server: &Server) {
    let org = server.acme();
    for (path, body) in [
        ("/roles", json!({})),
        ("/roles", json!({ "name": "x", "slug": "a b" })),
        ("/roles", json!({ "name": "x".repeat(200) })),
        ("/roles", json!({ "name": "\u{0}" })),
        ("/roles", json!({ "name": unique("r"), "permissions": ["a b"] })),
        ("/roles", json!({ "name": unique("r"), "permissions": ["read:*"] })),
        ("/roles", json!({ "name": unique("r"), "permissions": [[]] })),
        ("/permissions", json!({ "name": "x" })),
        ("/permissions", json!({ "slug": "*", "name": "x" })),
        ("/permissions", json!({ "slug": "12", "name": "x" })),
    ] {
        let response = org.admin("POST", path).json(body.clone()).send();
        assert_eq!(response.status, 400, "{body}: {response}");
        response.refused_somehow();
    }
}

fn several_are_written_or_none(server: &Server) {
    let org = server.acme();
    let [action, other] = [some_action().0, some_action().0];
    let (role, second) = (some_role(&org, &[]), some_role(&org, &[]));
    let (person, agent) = (org.person(), org.agent(&[]));
    let (of_role, of_agent) = (format!("/roles/{role}"), format!("/agents/{}", agent.agent_id));
    for (path, body) in [
        (format!("{of_role}/permissions"), json!({ "permissions": [action, "a b"] })),
        (format!("{of_role}/permissions"), json!({ "permissions": [action, 999_999_999] })),
        (format!("{of_role}/permissions"), json!({ "permissions": [action, "admin:agents"] })),
        (format!("{of_role}/users"), json!({ "users": [person.id, "nobody@people.test"] })),
        (format!("{of_role}/groups"), json!({ "groups": ["staff", "a b"] })),
        (format!("{of_agent}/roles"), json!({ "roles": [role, "no-such-role"] })),
        (format!("{of_agent}/permissions"), json!({ "permissions": [action, "*"] })),
        (format!("/users/{}/roles", person.id), json!({ "roles": [second, "no-such-role"] })),
        (format!("/users/{}/permissions", person.id), json!({ "permissions": [other, []] })),
    ] {
        let response = org.admin("POST", &path).json(body.clone()).send();
        assert!([400, 404].contains(&response.status), "{path} {body}: {response}");
    }
    let paths = ["permissions", "users", "groups"].map(|what| format!("{of_role}/{what}"));
    let of_others = [format!("{of_agent}/roles"), format!("{of_agent}/permissions")];
    for path in paths.iter().chain(&of_others) {
        assert_eq!(org.admin("GET", path).send().ok()["data"], json!([]), "{path}");
    }
    for what in ["roles", "permissions"] {
        let path = format!("/users/{}/{what}", person.id);
        assert_eq!(org.admin("GET", &path).send().ok()["data"], json!([]), "{path}");
    }
    // Not even listed.
    for slug in [action, other] {
        org.admin("GET", &format!("/permissions/{slug}")).send().refused(404, "not_found");
    }
    let document = format!("document:{}", unique("d"));
    let tuples = json!({ "tuples": [format!("{document}#viewer@user:a"), "nonsense"] });
    org.request("POST", "/zanzibar/tuples").api_key(org.key()).json(tuples).send().refused_somehow();
    let query = format!("/zanzibar/tuples?object={document}");
    let left = org.request("GET", &query).api_key(org.key()).send().ok();
    assert_eq!(left["data"], json!([]), "{left}");
}

fn other_organizations_see_nothing(server: &Server) {
    let (ours, theirs) = (server.acme(), server.globex());
    let (action, _) = some_action();
    let role = some_role(&ours, &[&action]);
    theirs.admin("GET", &format!("/roles/{role}")).send().refused(404, "not_found");
    theirs.admin("GET", &format!("/permissions/{action}")).send().refused(404, "not_found");
    theirs.admin("DELETE", &format!("/roles/{role}")).send().refused(404, "not_found");
    let agent = theirs.agent(&[]);
    agent.admin("POST", "/roles").json(json!({ "role": role })).send().refused(400, "validation_error");
    some_role(&theirs, &[]);
    ours.admin("GET", &format!("/roles/{role}")).send().ok();
}

fn new_people_get_roles(server: &Server) {
    let org = server.acme();
    let role = some_role(&org, &[]);
    let person = org.person_with(json!({ "roles": [role] }));
    let roles = org.admin("GET", &format!("/users/{}/roles", person.id)).send().ok();
    assert_eq!(roles["data"][0]["slug"], role);
    let body = json!({ "email": format!("{}@people.test", unique("p")), "roles": ["no-such-role"] });
    org.admin("POST", "/users").json(body).send().refused(400, "validation_error");
    let key = org.api_key(&["admin:users"]);
    let body = json!({ "email": format!("{}@people.test", unique("p")), "roles": [role] });
    org.request("POST", "/admin/users").api_key(&key).json(body).send().refused(403, "forbidden");
}

fn checks_see_roles(server: &Server) {
    let org = server.acme();
    let (action, _) = some_action();
    let role = some_role(&org, &[&action]);
    let (agent, person) = (org.agent(&["read:a"]), org.person());
    let check = |subject: Value| {
        let body = json!({ "permission": action, "subject": subject });
        server.request("POST", "/api/v1/authz/check").api_key(org.key()).json(body).send().ok()
    };
    let of_agent = || check(json!({ "type": "agent", "id": agent.agent_id }));
    let of_person = || check(json!(format!("user:{}", person.id)));
    assert_eq!((&of_agent()["allowed"], &of_person()["allowed"]), (&json!(false), &json!(false)));
    agent.admin("POST", "/roles").json(json!({ "role": role })).send().ok();
    org.admin("POST", &format!("/users/{}/roles", person.id)).json(json!({ "role": role })).send().ok();
    assert_eq!((&of_agent()["allowed"], &of_agent()["decided_by"]), (&json!(true), &json!("role")));
    assert_eq!((&of_person()["allowed"], &of_person()["user_id"]), (&json!(true), &json!(person.id)));
    let listed = server.request("GET", "/api/v1/authz/permissions").bearer(&agent.token()).send().ok();
    let source = |slug: &str| {
        let all = listed["permissions"].as_array().expect("a list");
        all.iter().find(|it| it["slug"] == slug).map(|it| text(&it["source"]).to_owned())
    };
    assert_eq!(source("read:a").as_deref(), Some("capability"));
    assert_eq!(source(&action), Some(format!("role:{role}")));
    // Whoever is stopped has nothing.
    agent.admin("POST", "/deactivate").send().ok();
    org.admin("POST", &format!("/users/{}/block", person.id)).send().ok();
    assert_eq!((&of_agent()["allowed"], &of_person()["allowed"]), (&json!(false), &json!(false)));
}
