//! Who is given what, how it is answered, and how the log tells of it.

use lumoauth_tests::{Agent, Org, Server, on_each_backend, text, unique};
use serde_json::{Value, json};

use super::{relate, some_action, some_role};

on_each_backend!(
    a_body_that_names_no_roles_takes_none_away,
    the_log_says_what_was_given_and_what_was_taken,
    the_log_says_what_was_listed_and_what_was_taken_off,
    several_are_given_a_role_or_nobody_is,
    several_roles_are_taken_away_or_none,
    people_are_shown_with_their_roles,
    agents_are_shown_with_their_grants,
    people_have_permissions_without_a_role,
    what_a_deleted_agent_had_is_gone,
    counts_are_of_people_agents_and_groups,
    a_slug_is_no_number,
    lists_have_pages,
    a_wildcard_reaches_listed_permissions,
    roles_are_told_to_those_who_may_read_them,
);

fn slugs(list: &Value) -> Vec<String> {
    let slug = |item: &Value| item.as_str().unwrap_or_else(|| text(&item["slug"])).to_owned();
    let mut slugs: Vec<_> = list.as_array().expect("a list").iter().map(slug).collect();
    slugs.sort();
    slugs
}

fn sorted<const N: usize>(names: [&String; N]) -> Vec<String> {
    let mut names = names.map(Clone::clone).to_vec();
    names.sort();
    names
}

fn held(agent: &Agent<'_>) -> Vec<String> {
    slugs(&agent.admin("GET", "/roles").send().ok()["data"])
}

/// The newest event of a kind about somebody.
fn newest(org: &Org<'_>, kind: &str, target: &str) -> Value {
    org.audit(&format!("action={kind}&targetId={target}")).first().cloned().unwrap_or_default()
}

fn a_body_that_names_no_roles_takes_none_away(server: &Server) {
    let org = server.acme();
    let (role, other) = (some_role(&org, &[]), some_role(&org, &[]));
    let (agent, person) = (org.agent(&[]), org.person());
    let of_person = format!("/users/{}/roles", person.id);
    agent.admin("POST", "/roles").json(json!({ "role": role })).send().ok();
    org.admin("POST", &of_person).json(json!({ "roleIds": [role] })).send().ok();
    for body in [json!({}), json!({ "rolls": [] }), json!({ "roles": null }), json!({ "roles": [7, {}] })] {
        agent.admin("PUT", "/roles").json(body.clone()).send().refused(400, "invalid_request");
        org.admin("PUT", &of_person).json(body).send().refused(400, "invalid_request");
    }
    agent.admin("PUT", "/roles").send().refused(400, "invalid_request");
    assert_eq!(held(&agent), [&*role]);
    for name in ["roleIds", "role_ids", "roleSlugs"] {
        let set = agent.admin("PUT", "/roles").json(json!({ name: [role, other] })).send().ok();
        assert_eq!(slugs(&set["data"]), sorted([&role, &other]), "{name}");
    }
    agent.admin("PUT", "/roles").json(json!({ "roles": [] })).send().ok();
    assert!(held(&agent).is_empty());
}

fn the_log_says_what_was_given_and_what_was_taken(server: &Server) {
    let org = server.acme();
    let roles = [some_role(&org, &[]), some_role(&org, &[]), some_role(&org, &[])];
    let [one, two, three] = &roles;
    let agent = org.agent(&[]);
    let put = |roles: Value| agent.admin("PUT", "/roles").json(json!({ "roles": roles })).send().ok();
    put(json!([one, two]));
    let given = newest(&org, "role.assigned", &agent.agent_id);
    assert_eq!(slugs(&given["context"]["roles"]), sorted([one, two]), "{given}");
    // One is there already, one is new, one goes.
    put(json!([two, three]));
    let changed = newest(&org, "role.assigned", &agent.agent_id);
    assert_eq!(slugs(&changed["context"]["roles"]), [&**three], "{changed}");
    assert_eq!(slugs(&changed["context"]["removed"]), [&**one], "{changed}");
    agent.admin("POST", "/roles").json(json!({ "roles": [two, one] })).send().ok();
    let added = newest(&org, "role.assigned", &agent.agent_id);
    assert_eq!(slugs(&added["context"]["roles"]), [&**one], "{added}");
    let before = org.audit(&format!("action=role.assigned&targetId={}", agent.agent_id)).len();
    put(json!([]));
    let taken = newest(&org, "role.unassigned", &agent.agent_id);
    assert_eq!(slugs(&taken["context"]["roles"]), sorted([one, two, three]), "{taken}");
    put(json!([]));
    assert_eq!(org.audit(&format!("action=role.assigned&targetId={}", agent.agent_id)).len(), before);
    assert_eq!(org.audit(&format!("action=role.unassigned&targetId={}", agent.agent_id)).len(), 1);
}

fn the_log_says_what_was_listed_and_what_was_taken_off(server: &Server) {
    let org = server.acme();
    let [one, two] = [some_action().0, some_action().0];
    let role = some_role(&org, &[&one]);
    let made = newest(&org, "role.created", &role);
    assert_eq!(slugs(&made["context"]["listed"]), [&*one], "{made}");
    let path = format!("/roles/{role}/permissions");
    org.admin("POST", &path).json(json!({ "permissions": [one, two] })).send().ok();
    let changed = newest(&org, "role.updated", &role);
    assert_eq!(slugs(&changed["context"]["listed"]), [&*two], "{changed}");
    let agent = org.agent(&[]);
    agent.admin("POST", "/permissions").json(json!({ "permissions": [one] })).send().ok();
    let granted = newest(&org, "role.assigned", &agent.agent_id);
    assert_eq!(slugs(&granted["context"]["permissions"]), [&*one]);
    assert!(granted["context"]["listed"].is_null(), "{granted}");
    agent.admin("POST", "/permissions").json(json!({ "permissions": [one, two] })).send().ok();
    let granted = newest(&org, "role.assigned", &agent.agent_id);
    assert_eq!(slugs(&granted["context"]["permissions"]), [&*two], "what it had was not given");
    org.admin("PATCH", &format!("/permissions/{one}")).json(json!({ "name": "Look" })).send().ok();
    let told = newest(&org, "permission.updated", &one)["context"].clone();
    assert_eq!((&told["before"]["name"], &told["after"]["name"]), (&json!(one), &json!("Look")));
    org.admin("DELETE", &format!("/permissions/{one}")).send().ok();
    let gone = newest(&org, "permission.deleted", &one)["context"].clone();
    assert_eq!(gone["roles"], json!([role]));
    assert_eq!(gone["holders"], json!([format!("agent:{}", agent.agent_id)]));
}

fn several_are_given_a_role_or_nobody_is(server: &Server) {
    let org = server.acme();
    let role = some_role(&org, &[]);
    let (first, second) = (org.person(), org.person());
    let (users, groups) = (format!("/roles/{role}/users"), format!("/roles/{role}/groups"));
    let count = |path: &str| org.admin("GET", path).send().ok()["meta"]["total"].clone();
    org.admin("POST", &users).json(json!({ "users": [first.id, "nobody"] })).send().refused(404, "not_found");
    org.admin("POST", &groups)
        .json(json!({ "groups": ["ok", "a b"] }))
        .send()
        .refused(400, "validation_error");
    assert_eq!((count(&users), count(&groups)), (json!(0), json!(0)));
    org.admin("POST", &users).json(json!({ "users": [first.id, second.id, first.id] })).send().ok();
    let given = newest(&org, "role.assigned", &role);
    let both = sorted([&format!("user:{}", first.id), &format!("user:{}", second.id)]);
    assert_eq!(slugs(&given["context"]["holders"]), both, "{given}");
    let group = unique("group");
    org.admin("POST", &groups).json(json!({ "groups": [group, "staff"] })).send().ok();
    let listed = org.admin("GET", &groups).send().ok();
    assert_eq!(slugs(&listed["data"]), sorted([&group, &"staff".to_owned()]));
    assert_eq!(listed["resourceType"], "groups");
    org.admin("DELETE", &format!("{groups}/{group}")).send().ok();
    assert_eq!((count(&users), count(&groups)), (json!(2), json!(1)));
}

fn several_roles_are_taken_away_or_none(server: &Server) {
    let org = server.acme();
    let (one, two, other) = (some_role(&org, &[]), some_role(&org, &[]), some_role(&org, &[]));
    let agent = org.agent(&[]);
    agent.admin("POST", "/roles").json(json!({ "roles": [one, two] })).send().ok();
    let take = |roles: Value| agent.admin("DELETE", "/roles").json(json!({ "roles": roles })).send();
    take(json!([one, "typo"])).refused(404, "not_found");
    take(json!([one, other])).refused(404, "not_found");
    assert_eq!(held(&agent), sorted([&one, &two]));
    take(json!([one, one, two])).ok();
    assert!(held(&agent).is_empty());
    let taken = newest(&org, "role.unassigned", &agent.agent_id);
    assert_eq!(slugs(&taken["context"]["roles"]), sorted([&one, &two]));
}

fn people_are_shown_with_their_roles(server: &Server) {
    let org = server.acme();
    let (role, other) = (some_role(&org, &[]), some_role(&org, &[]));
    let email = format!("{}@people.test", unique("p"));
    let body = json!({ "email": email, "roles": [role] });
    let made = org.admin("POST", "/users").json(body).send().expect(201).json()["data"].clone();
    let shown = &made["roles"][0];
    assert!(shown["id"].is_string() && shown["slug"] == role && shown["name"] == "A role", "{made}");
    let path = format!("/users/{}", text(&made["id"]));
    let listed = org.admin("GET", &format!("/users?search={email}")).send().ok()["data"][0].clone();
    assert_eq!(listed["roles"], made["roles"]);
    for (method, path) in
        [("GET", path.clone()), ("POST", format!("{path}/block")), ("POST", format!("{path}/unblock"))]
    {
        assert_eq!(org.admin(method, &path).send().ok()["data"]["roles"], made["roles"], "{path}");
    }
    // Who is given roles, or has them taken away, is the answer.
    let roles = format!("{path}/roles");
    let added = org.admin("POST", &roles).json(json!({ "role": other })).send().ok()["data"].clone();
    assert_eq!((&added["email"], slugs(&added["roles"])), (&made["email"], sorted([&role, &other])));
    let set = org.admin("PUT", &roles).json(json!({ "roles": [other] })).send().ok()["data"].clone();
    assert_eq!((&set["id"], slugs(&set["roles"])), (&made["id"], vec![other.clone()]));
    let taken = org.admin("DELETE", &format!("{roles}/{other}")).send().ok()["data"].clone();
    assert_eq!((&taken["id"], &taken["roles"]), (&made["id"], &json!([])));
}

fn agents_are_shown_with_their_grants(server: &Server) {
    let org = server.acme();
    let (role, action) = (some_role(&org, &[]), some_action().0);
    let agent = org.agent(&[]);
    agent.admin("POST", "/roles").json(json!({ "role": role })).send().ok();
    agent.admin("POST", "/permissions").json(json!({ "permission": action })).send().ok();
    let listed = org.admin("GET", &format!("/agents?search={}", agent.slug)).send().ok()["data"][0].clone();
    let expected = (json!([role]), json!([action]));
    assert_eq!((listed["roles"].clone(), listed["permissions"].clone()), expected);
    for change in ["deactivate", "activate", "disable", "enable", "revoke"] {
        let answer = agent.admin("POST", &format!("/{change}")).send().ok();
        let shown = if answer["agent"].is_object() { &answer["agent"] } else { &answer["data"] };
        assert_eq!((shown["roles"].clone(), shown["permissions"].clone()), expected, "{change}");
    }
}

fn people_have_permissions_without_a_role(server: &Server) {
    let org = server.acme();
    let action = some_action().0;
    let person = org.person();
    let path = format!("/users/{}/permissions", person.id);
    org.admin("POST", &path).json(json!({ "permissions": [action] })).send().ok();
    let listed = org.admin("GET", &path).send().ok();
    assert_eq!((&listed["data"][0]["slug"], &listed["pagination"]["total"]), (&json!(action), &json!(1)));
    let check = || {
        let body = json!({ "permission": action, "subject": format!("user:{}", person.id) });
        server.request("POST", "/api/v1/authz/check").api_key(org.key()).json(body).send().ok()["allowed"]
            == true
    };
    assert!(check());
    org.admin("DELETE", &format!("{path}/{action}")).send().ok();
    org.admin("DELETE", &format!("{path}/{action}")).send().refused(404, "not_found");
    assert!(!check());
}

fn what_a_deleted_agent_had_is_gone(server: &Server) {
    let org = server.acme();
    let (role, action) = (some_role(&org, &[]), some_action().0);
    let agent = org.agent(&[]);
    agent.admin("POST", "/roles").json(json!({ "role": role })).send().ok();
    agent.admin("POST", "/permissions").json(json!({ "permission": action })).send().ok();
    let object = format!("document:{}", unique("d"));
    relate(&org, &format!("{object}#viewer@agent:{}", agent.agent_id));
    relate(&org, &format!("agent:{}#owner@user:{}", agent.agent_id, unique("u")));
    agent.admin("DELETE", "").send().ok();
    let view = org.admin("GET", &format!("/roles/{role}")).send().ok()["data"].clone();
    assert_eq!(view["agentCount"], 0);
    for query in [format!("object={object}"), format!("object=agent:{}", agent.agent_id)] {
        let found = super::admin(&org, "GET", &format!("/zanzibar/tuples?{query}")).send().ok();
        assert_eq!(found["meta"]["total"], 0, "{found}");
    }
    let gone = newest(&org, "relation.deleted", &agent.agent_id);
    assert_eq!(gone["context"]["records"].as_array().map(Vec::len), Some(2), "{gone}");
    let gone = newest(&org, "role.unassigned", &agent.agent_id);
    assert_eq!(gone["context"]["records"].as_array().map(Vec::len), Some(2), "{gone}");
}

fn counts_are_of_people_agents_and_groups(server: &Server) {
    let org = server.acme();
    let role = some_role(&org, &[]);
    let path = format!("/roles/{role}");
    for _ in 0..2 {
        org.agent(&[]).admin("POST", "/roles").json(json!({ "role": role })).send().ok();
    }
    org.admin("POST", &format!("{path}/groups")).json(json!({ "groups": ["a", "b", "c"] })).send().ok();
    org.admin("POST", &format!("{path}/users")).json(json!({ "user": org.person().id })).send().ok();
    let view = org.admin("GET", &path).send().ok()["data"].clone();
    let counts = ["userCount", "agentCount", "groupCount"].map(|name| view[name].clone());
    assert_eq!(counts, [1, 2, 3]);
}

fn a_slug_is_no_number(server: &Server) {
    let org = server.acme();
    let role = some_role(&org, &[]);
    let id = org.admin("GET", &format!("/roles/{role}")).send().ok()["data"]["id"].clone();
    for body in [json!({ "name": "x", "slug": id }), json!({ "name": "2024" })] {
        org.admin("POST", "/roles").json(body).send().refused(400, "validation_error");
    }
}

fn lists_have_pages(server: &Server) {
    let org = server.acme();
    let actions = [some_action().0, some_action().0];
    let role = some_role(&org, &[&actions[0], &actions[1]]);
    let (agent, person) = (org.agent(&[]), org.person());
    let other = some_role(&org, &[]);
    let given = json!({ "roles": [role, other] });
    agent.admin("POST", "/roles").json(given.clone()).send().ok();
    agent.admin("POST", "/permissions").json(json!({ "permissions": actions })).send().ok();
    org.admin("POST", &format!("/users/{}/roles", person.id)).json(given).send().ok();
    let groups = json!({ "groups": ["a", "b"] });
    org.admin("POST", &format!("/roles/{role}/groups")).json(groups).send().ok();
    for (path, kind) in [
        (format!("/roles/{role}/permissions"), "permissions"),
        (format!("/roles/{role}/groups"), "groups"),
        (format!("/agents/{}/roles", agent.agent_id), "roles"),
        (format!("/agents/{}/permissions", agent.agent_id), "permissions"),
        (format!("/users/{}/roles", person.id), "roles"),
    ] {
        let page = org.admin("GET", &format!("{path}?page=2&limit=1")).send().ok();
        assert_eq!((&page["resourceType"], &page["meta"]["total"]), (&json!(kind), &json!(2)), "{path}");
        assert_eq!(page["pagination"], page["meta"]);
        assert_eq!(page["data"].as_array().map(Vec::len), Some(1), "{path}");
    }
}

fn a_wildcard_reaches_listed_permissions(server: &Server) {
    let org = server.acme();
    let (action, kind) = some_action();
    let agent = org.agent(&[&format!("{kind}.*")]);
    let token = agent.token();
    some_role(&org, &[&action, &some_action().0]);
    let wanted = json!([format!("{kind}.*"), action]);
    assert_eq!(agent.userinfo(&token).ok()["capabilities"], wanted);
    assert_eq!(org.get("/agents/me").bearer(&token).send().ok()["capabilities"], wanted);
    assert_eq!(agent.ask(&token, &action).ok()["allowed"], true);
}

fn roles_are_told_to_those_who_may_read_them(server: &Server) {
    let org = server.acme();
    let role = some_role(&org, &[]);
    let person = org.person_with(json!({ "roles": [role] }));
    let app = org.delegate(&["authz:read"]);
    let told = |scope: &str| {
        let token = person.allow(&app, scope).access;
        org.get("/oauth/userinfo").bearer(&token).send().ok()["roles"].clone()
    };
    assert_eq!((told("openid"), told("openid authz:read")), (Value::Null, json!([role])));
}
