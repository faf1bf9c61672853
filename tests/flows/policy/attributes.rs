//! Attributes: definitions, values, and who may set them.

use lumoauth_tests::{Server, on_each_backend, percent_encode, unique};
use serde_json::{Value, json};

use super::{admin, some_policy};

on_each_backend!(
    definitions_are_made_changed_and_removed,
    values_are_set_by_people_who_may,
    values_decide,
    agents_and_keys_set_nothing,
    own_attributes_are_those_that_policies_see,
    a_value_outlives_its_definition_and_can_be_taken_away,
    applications_read_attributes_with_the_scope_only,
);

fn definition(server: &Server, kind: &str, data_type: &str) -> String {
    let slug = unique("attr").replace('.', "-");
    let body = json!({ "name": slug, "slug": slug, "attributeType": kind, "dataType": data_type });
    admin(&server.acme(), "POST", "/abac/attributes").json(body).send().expect(201);
    slug
}

fn definitions_are_made_changed_and_removed(server: &Server) {
    let org = server.acme();
    let slug = definition(server, "user", "string");
    let body = json!({ "name": "again", "slug": slug, "attributeType": "user" });
    admin(&org, "POST", "/abac/attributes").json(body).send().refused(409, "duplicate_resource");
    let token = org.agent(&[]).token();
    let listed = |query: &str| {
        let all = org.get(&format!("/abac/attribute-definitions{query}")).bearer(&token).send().ok();
        all["data"].as_array().expect("a list").iter().find(|it| it["slug"] == slug).cloned()
    };
    let made = listed("").expect("it is listed");
    assert!(made["id"].is_u64());
    assert_eq!((&made["attributeType"], &made["dataType"]), (&json!("user"), &json!("string")));
    assert!(listed("?type=user").is_some() && listed("?type=resource").is_none());
    org.get("/abac/attribute-definitions?type=x").bearer(&token).send().refused(400, "invalid_request");
    let path = format!("/abac/attributes/{}", made["id"]);
    let changed = admin(&org, "PUT", &path).json(json!({ "dataType": "number" })).send().ok();
    assert_eq!(changed["data"]["dataType"], "number");
    admin(&org, "PUT", &path).json(json!({ "slug": "other" })).send().refused(400, "validation_error");
    admin(&org, "DELETE", &path).send().ok();
    admin(&org, "GET", &path).send().refused(404, "not_found");
    for body in [
        json!({ "name": "x", "attributeType": "planet" }),
        json!({ "name": "x", "dataType": "colour" }),
        json!({ "name": "id", "attributeType": "user" }),
        json!({ "name": "x", "slug": "a.b" }),
        json!({ "name": "x", "isRequired": true }),
        json!({}),
    ] {
        admin(&org, "POST", "/abac/attributes").json(body).send().refused(400, "validation_error");
    }
}

fn values_are_set_by_people_who_may(server: &Server) {
    let org = server.acme();
    let (slug, level) = (definition(server, "user", "string"), definition(server, "resource", "number"));
    let (boss, person) = (org.person_with(json!({ "isAdmin": true })), org.person());
    let of_person = format!("/abac/users/{}/attributes/{slug}", person.id);
    let of_resource = format!("/abac/resources/document/{}/attributes/{level}", percent_encode("a/b 1"));
    let put = |token: &str, path: &str, value: Value| {
        org.request("PUT", path).bearer(token).json(json!({ "value": value })).send()
    };
    let may = boss.in_person("abac:write");
    put(&may, &of_person, json!("law")).ok();
    put(&may, &of_resource, json!(5)).ok();
    put(&may, &of_person, json!(5)).refused(400, "validation_error");
    put(&may, &of_resource, json!("5")).refused(400, "validation_error");
    put(&may, &format!("/abac/users/{}/attributes/no-such", person.id), json!(1)).refused(404, "not_found");
    put(&may, &format!("/abac/users/nobody/attributes/{slug}"), json!("x")).refused(404, "not_found");
    org.request("PUT", &of_person).bearer(&may).json(json!({})).send().refused(400, "invalid_request");
    // Neither without the scope nor without the permission; and who may not is not told who there is.
    let scoped = put(&boss.in_person("abac:read"), &of_person, json!("x"));
    assert_eq!(scoped.refused(403, "forbidden")["details"]["required_scopes"], json!(["abac:write"]));
    let cannot = person.in_person("abac:write");
    put(&cannot, &of_person, json!("x")).refused(403, "forbidden");
    put(&cannot, &format!("/abac/users/nobody/attributes/{slug}"), json!("x")).refused(403, "forbidden");
    let role = super::some_role(&org, &["abac.manage"]);
    org.admin("POST", &format!("/users/{}/roles", person.id)).json(json!({ "role": role })).send().ok();
    put(&cannot, &of_person, json!("tax")).ok();

    let own = org.get("/abac/my-attributes").bearer(&person.in_person("abac:read")).send().ok();
    assert_eq!((&own["user_id"], &own["attributes"][&slug]), (&json!(person.id), &json!("tax")));
    let path = format!("/abac/resources/document/{}/attributes", percent_encode("a/b 1"));
    let found = org.get(&path).bearer(&org.agent(&[]).token()).send().ok();
    assert_eq!(found["attributes"][&level], 5);
    assert_eq!(
        (&found["attributes"]["id"], &found["attributes"]["type"]),
        (&json!("a/b 1"), &json!("document"))
    );
    put(&may, &of_person, Value::Null).ok();
    let own = org.get("/abac/my-attributes").bearer(&person.in_person("abac:read")).send().ok();
    assert_eq!(own["attributes"], json!({ "id": person.id, "type": "user" }));
    // What a value was is nobody's business in the log.
    let entries = org
        .audit(&format!("action=attribute.set&targetId={}", percent_encode(&format!("user:{}", person.id))));
    assert!(entries.len() >= 2, "{entries:?}");
    assert!(!entries.iter().any(|entry| entry.to_string().contains("tax")), "{entries:?}");
}

fn values_decide(server: &Server) {
    let org = server.acme();
    let (department, owner) =
        (definition(server, "user", "string"), definition(server, "resource", "string"));
    let boss = org.person_with(json!({ "isAdmin": true })).in_person("abac:write");
    let kind = unique("kind");
    let person = org.person();
    let matching = json!({ "all": [
        { "attribute": format!("resource.{owner}"), "operator": "equals", "value": format!("$user.{department}") },
    ] });
    some_policy(
        &org,
        json!({ "resourceType": kind, "action": "read", "effect": "allow", "conditions": matching }),
    );
    let token = person.in_person("abac:read");
    let allowed = |id: &str| {
        let body = json!({ "resourceType": kind, "action": "read", "resourceId": id });
        org.post("/abac/check").bearer(&token).json(body).send().ok()["allowed"] == true
    };
    assert!(!allowed("1"), "two that are missing are not equal");
    let set = |path: String, value: &str| {
        org.request("PUT", &path).bearer(&boss).json(json!({ "value": value })).send().ok();
    };
    set(format!("/abac/users/{}/attributes/{department}", person.id), "law");
    set(format!("/abac/resources/{kind}/1/attributes/{owner}"), "law");
    set(format!("/abac/resources/{kind}/2/attributes/{owner}"), "tax");
    assert!(allowed("1") && !allowed("2") && !allowed("3"));
    // What the caller says of them changes nothing.
    let body = json!({
        "resourceType": kind, "action": "read", "resourceId": "2",
        "environment": { "resource": { owner.clone(): "law" }, format!("resource.{owner}"): "law" },
    });
    assert_eq!(org.post("/abac/check").bearer(&token).json(body).send().ok()["allowed"], false);
}

fn agents_and_keys_set_nothing(server: &Server) {
    let org = server.acme();
    let slug = definition(server, "user", "string");
    let person = org.person_with(json!({ "isAdmin": true }));
    let path = format!("/abac/users/{}/attributes/{slug}", person.id);
    let role = super::some_role(&org, &["abac.manage"]);
    let agent = org.delegate(&["abac:write"]);
    agent.admin("POST", "/roles").json(json!({ "role": role })).send().ok();
    let put = |token: &str| org.request("PUT", &path).bearer(token).json(json!({ "value": "x" })).send();
    put(&agent.token()).refused(403, "forbidden");
    let user = person.allow(&agent, "openid");
    put(&user.access).refused(403, "forbidden");
    put(&agent.acting_for(&user.access)).refused(403, "forbidden");
    let keyed = org.request("PUT", &path).api_key(org.key()).json(json!({ "value": "x" })).send();
    keyed.refused(401, "invalid_token");
}

fn own_attributes_are_those_that_policies_see(server: &Server) {
    let org = server.acme();
    let role = super::some_role(&org, &[]);
    let (agent, person) =
        (org.agent(&["read:a"]), org.person_with(json!({ "name": "Ada", "roles": [role] })));
    agent.admin("POST", "/roles").json(json!({ "role": role })).send().ok();
    let own = |token: &str| org.get("/abac/my-attributes").bearer(token).send().ok();
    let found = own(&agent.token());
    assert_eq!(found["user_id"], agent.agent_id);
    let expected = json!({
        "id": agent.agent_id, "agent_id": agent.agent_id, "slug": agent.slug, "name": agent.name,
        "type": "service", "identityType": "client_credentials", "capabilities": ["read:a"], "roles": [role],
    });
    assert_eq!(found["attributes"], expected);
    // Of a person, what the scope of the token shows.
    let app = org.delegate(&["abac:read", "authz:read"]);
    let attributes = |scope: &str| own(&person.allow(&app, scope).access)["attributes"].clone();
    assert_eq!(attributes("abac:read"), json!({ "id": person.id, "type": "user" }));
    let whole = attributes("abac:read authz:read email profile");
    assert_eq!((&whole["roles"], &whole["isAdmin"]), (&json!([role]), &json!(false)));
    assert_eq!((&whole["name"], whole["email"].is_string()), (&json!("Ada"), true));
}

fn a_value_outlives_its_definition_and_can_be_taken_away(server: &Server) {
    let org = server.acme();
    let slug = definition(server, "agent", "string");
    let agent = org.agent(&[]);
    let boss = org.person_with(json!({ "isAdmin": true })).in_person("abac:write");
    let path = format!("/abac/agents/{}/attributes/{slug}", agent.slug);
    let put = |value: Value| org.request("PUT", &path).bearer(&boss).json(json!({ "value": value })).send();
    let set = put(json!("open")).ok();
    let data = json!({
        "owner": format!("agent:{}", agent.agent_id), "agentId": agent.agent_id,
        "slug": slug, "attributeSlug": slug, "value": "open",
    });
    assert_eq!((&set["data"], &set["message"]), (&data, &json!("Attribute set.")));
    let own =
        || org.get("/abac/my-attributes").bearer(&agent.token()).send().ok()["attributes"][&slug].clone();
    admin(&org, "DELETE", &format!("/abac/attributes/agent:{slug}")).send().ok();
    assert_eq!(own(), "open");
    put(json!("shut")).refused(404, "not_found");
    assert_eq!(put(Value::Null).ok()["message"], "Attribute taken away.");
    assert!(own().is_null());
    put(Value::Null).refused(404, "not_found");
    let found = admin(&org, "GET", &format!("/abac/attributes?search={slug}")).send().ok();
    assert_eq!(found["meta"]["total"], 0);
    let other = definition(server, "agent", "string");
    let found = admin(&org, "GET", &format!("/abac/attributes?search={}", other.to_uppercase())).send().ok();
    assert_eq!((&found["meta"]["total"], &found["data"][0]["slug"]), (&json!(1), &json!(other)));
}

fn applications_read_attributes_with_the_scope_only(server: &Server) {
    let org = server.acme();
    let token = |scopes: &[&str]| {
        let members = json!({ "grantTypes": ["client_credentials"], "allowedScopes": scopes });
        let app = org.app(members);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", app.client_id.as_str()),
            ("client_secret", app.secret.as_str()),
        ];
        let answer = org.post("/oauth/token").form(&form).send().ok();
        lumoauth_tests::text(&answer["access_token"]).to_owned()
    };
    let (plain, reading) = (token(&["read:a"]), token(&["abac:read"]));
    let body = json!({ "resourceType": "x", "action": "y" });
    let bulk = json!({ "checks": [body] });
    for (method, path, body) in [
        ("GET", "/abac/resources/customer/4711/attributes", Value::Null),
        ("GET", "/abac/attribute-definitions", Value::Null),
        ("POST", "/abac/check", body),
        ("POST", "/abac/check-bulk", bulk),
    ] {
        let send = |token: &str| {
            let request = org.request(method, path).bearer(token);
            if body.is_null() { request.send() } else { request.json(body.clone()).send() }
        };
        let refused = send(&plain).refused(403, "forbidden");
        assert_eq!(refused["details"]["required_scopes"], json!(["abac:read"]), "{path}");
        send(&reading).ok();
    }
    for token in [&plain, &reading] {
        org.get("/abac/my-attributes").bearer(token).send().refused(403, "forbidden");
    }
}
