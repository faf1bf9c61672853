//! Members of bodies that nobody sets: ids, organizations, counters, versions, times, hashes (security AD-02). They are ignored
//! or refused, and never taken.

use lumoauth_tests::{Ed25519, Org, ServedRoute, Server, on_each_backend, text, unique};
use serde_json::{Map, Value, json};

on_each_backend!(
    what_is_made_is_not_what_nobody_sets,
    what_is_changed_is_not_what_nobody_sets,
    what_is_used_is_counted_and_not_said,
    nobody_becomes_an_administrator_by_the_way,
);

/// An id that nothing has.
const ID: &str = "7a7a7a7a-7a7a-4a7a-8a7a-7a7a7a7a7a7a";
const NUMBER: u64 = 4_242_424_242;
const LONG_AGO: &str = "2001-02-03T04:05:06Z";

/// What no body decides, in every spelling. What a route does take is left out with `but`.
fn hostile(but: &[&str]) -> Map<String, Value> {
    let said = [
        (
            json!(NUMBER),
            "id number userId version revision epoch loginCount budgetGeneration budget_generation",
        ),
        (json!(NUMBER), "userCount agentCount groupCount roleCount"),
        (json!(ID), "uuid _id agentId server_id serverId createdBy created_by owner"),
        (json!("globex"), "tenantId tenant_id tenant organization organizationId org orgId org_id"),
        (json!(true), "isAdmin is_admin admin isSystem hasApiKey emailVerified mfaEnabled"),
        (json!(false), "isCustom"),
        (json!(LONG_AGO), "createdAt created_at updatedAt updated_at lastUsedAt"),
        (json!("canary"), "clientSecret client_secret secret secretHash passwordHash password_hash hash key"),
        (json!("canary"), "apiKey api_key"),
        (json!(["canary"]), "secrets"),
        (json!(["admin"]), "requestedCapabilities"),
        (json!({}), "__proto__"),
    ];
    let all = said.iter().flat_map(|(value, names)| names.split(' ').map(move |name| (name, value)));
    let all = all.filter(|(name, _)| !but.contains(name));
    all.map(|(name, value)| (name.to_owned(), value.clone())).collect()
}

fn with(body: &Value, more: &Map<String, Value>) -> Value {
    let mut all = body.clone();
    more.iter().for_each(|(name, value)| {
        if all[name].is_null() {
            all[name] = value.clone();
        }
    });
    all
}

/// Something that administrators make.
struct Sort {
    path: &'static str,
    body: Value,
    /// The name of it in paths, and what of the hostile members is one that this route takes.
    id: &'static str,
    takes: &'static [&'static str],
}

fn sorts() -> Vec<Sort> {
    let (key, other) = (Ed25519::generate(&unique("k")), Ed25519::generate(&unique("k")));
    let url = |kind: &str| format!("https://{}.test", unique(kind));
    let of = |path, body, id, takes| Sort { path, body, id, takes };
    vec![
        of("/admin/agents", json!({ "name": unique("Agent") }), "agentId", &[]),
        of(
            "/admin/users",
            json!({ "email": format!("{}@people.test", unique("p")) }),
            "id",
            &["isAdmin", "is_admin"],
        ),
        of("/admin/clients", json!({ "name": unique("App") }), "clientId", &[]),
        of("/admin/api-keys", json!({ "name": unique("key"), "scopes": ["admin:read"] }), "id", &[]),
        of("/admin/mcp/servers", json!({ "name": "MCP", "resource_uri": url("mcp") }), "server_id", &[]),
        of(
            "/admin/aauth/agents",
            json!({ "name": unique("Agent"), "agent_identifier": url("agent"), "jwks": key.jwks() }),
            "id",
            &["agentId"],
        ),
        of(
            "/admin/aauth/resources",
            json!({ "name": "Resource", "resource_identifier": url("resource"), "jwks": other.jwks() }),
            "id",
            &[],
        ),
        of("/admin/roles", json!({ "slug": unique("role"), "name": "Role" }), "slug", &[]),
        of("/admin/permissions", json!({ "slug": unique("doc"), "name": "Permission" }), "slug", &[]),
        of(
            "/abac/policies",
            json!({ "name": "Policy", "effect": "deny", "resourceType": unique("doc"), "action": "read" }),
            "id",
            &[],
        ),
        of(
            "/abac/attributes",
            json!({ "slug": unique("attr"), "name": "Attribute", "dataType": "string" }),
            "id",
            &[],
        ),
    ]
}

fn name_of(made: &Value, sort: &Sort) -> String {
    made[sort.id].as_str().map_or_else(|| made[sort.id].to_string(), str::to_owned)
}

/// None of the hostile values is in `shown`.
#[track_caller]
fn assert_untouched(shown: &Value, what: &str) {
    let text = shown.to_string();
    for value in [ID, &NUMBER.to_string(), LONG_AGO, "canary", "globex"] {
        assert!(!text.contains(value), "{value} of {what}: {text}");
    }
    for name in ["isAdmin", "isSystem", "emailVerified", "mfaEnabled"] {
        assert_ne!(shown[name], true, "{name} of {what}: {text}");
    }
}

#[track_caller]
fn read(org: &Org<'_>, sort: &Sort, id: &str) -> Value {
    org.get(&format!("{}/{id}", sort.path)).api_key(org.key()).send().ok()["data"].clone()
}

fn what_is_made_is_not_what_nobody_sets(server: &Server) {
    let (org, globex) = (server.acme(), server.globex());
    for sort in sorts() {
        // What is refused is left out, until the rest is made.
        let mut more = hostile(sort.takes);
        let made = loop {
            let body = with(&sort.body, &more);
            let answer = org.post(sort.path).api_key(org.key()).json(body).send();
            if answer.status == 201 {
                break answer.json()["data"].clone();
            }
            let refused = answer.expect(400).refused_somehow();
            let named = refused["details"].as_object().into_iter().flat_map(Map::keys);
            let left_out = named.filter(|name| more.remove(*name).is_some()).count();
            assert_eq!(left_out, 1, "{}: {refused}", sort.path);
        };
        let id = name_of(&made, &sort);
        assert_untouched(&made, sort.path);
        // API keys are listed only.
        if sort.path != "/admin/api-keys" {
            assert_untouched(&read(&org, &sort, &id), sort.path);
            globex.get(&format!("{}/{id}", sort.path)).api_key(globex.key()).send().refused(404, "not_found");
        }
        // Nor did it get the secret that was said, and the log knows nothing of it.
        for row in org.audit(&format!("targetId={id}")) {
            assert_untouched(&row["context"], "the log");
        }
    }
}

fn what_is_changed_is_not_what_nobody_sets(server: &Server) {
    let (org, all) = (server.acme(), ServedRoute::all());
    let mut changed = Vec::new();
    for sort in sorts() {
        let made = org.post(sort.path).api_key(org.key()).json(sort.body.clone()).send().expect(201).json();
        let id = name_of(&made["data"], &sort);
        let one = format!("{}/{id}", sort.path);
        for method in ["PUT", "PATCH"] {
            if !all.iter().any(|route| route.method == method && route.is_at(&one)) {
                continue;
            }
            changed.push((method, one.clone()));
            let before = read(&org, &sort, &id);
            let mut body = Value::Object(hostile(sort.takes));
            let answer = org.request(method, &one).api_key(org.key()).json(body.clone()).send();
            assert!(matches!(answer.status, 200 | 400), "{method} {one}: {answer}");
            // One by one as well: one that is refused may hide others.
            for (name, value) in hostile(sort.takes) {
                let answer = org
                    .request(method, &one)
                    .api_key(org.key())
                    .json(json!({ (name.as_str()): value }))
                    .send();
                assert!(matches!(answer.status, 200 | 400), "{method} {one} {name}: {answer}");
            }
            assert_eq!(read(&org, &sort, &id), before, "{method} {one}");
            // And together with what does change.
            body["description"] = "changed".into();
            body["name"] = "Changed".into();
            org.request(method, &one).api_key(org.key()).json(body).send();
            assert_untouched(&read(&org, &sort, &id), &one);
        }
    }
    // Lists and tables that are replaced as a whole.
    let (agent, person) = (org.agent(&["read:a"]), org.person());
    let role = super::policy::some_role(&org, &[]);
    let space = unique("space");
    let kept = |path: &str| org.get(path).api_key(org.key()).send().ok();
    for (path, body) in [
        (format!("/admin/agents/{}/scopes", agent.agent_id), json!({ "scopes": ["read:a"] })),
        (format!("/admin/agents/{}/budget", agent.agent_id), json!({ "max_tokens_per_day": 5 })),
        (format!("/admin/agents/{}/roles", agent.agent_id), json!({ "roles": [role] })),
        (format!("/admin/users/{}/roles", person.id), json!({ "roles": [role] })),
        (format!("/admin/roles/{role}/permissions"), json!({ "permissions": [] })),
        (format!("/zanzibar/namespaces/{space}"), json!({ "relations": { "viewer": "this" } })),
        ("/admin/jit/risk".to_owned(), json!({ "types": kept("/admin/jit/risk")["data"]["types"] })),
    ] {
        changed.push(("PUT", path.clone()));
        let put = |body: &Value| org.request("PUT", &path).api_key(org.key()).json(body.clone()).send();
        put(&body).ok();
        let (of_agent, of_person) =
            (format!("/admin/agents/{}", agent.agent_id), format!("/admin/users/{}", person.id));
        let seen = || {
            let mut all = vec![kept(&of_agent), kept(&of_person), kept(&format!("/admin/roles/{role}"))];
            all.push(kept(&format!("/zanzibar/namespaces?search={space}")));
            all.iter_mut()
                .for_each(|it| drop(it["data"].as_object_mut().and_then(|it| it.remove("updatedAt"))));
            all
        };
        let before = seen();
        // A budget keeps members that it does not know, and shows them as such.
        let more = if path.ends_with("/budget") { Map::new() } else { hostile(&[]) };
        let answer = put(&with(&body, &more));
        assert!(matches!(answer.status, 200 | 400), "{path}: {answer}");
        assert_eq!(seen(), before, "{path}");
    }
    let of_admin = |route: &&ServedRoute| {
        let for_all = ["Access::Open", "Access::Metadata", "Access::Token", "Access::Anyone"];
        ["PUT", "PATCH"].contains(&route.method) && !for_all.contains(&route.access)
    };
    for route in all.iter().filter(of_admin) {
        let is_it = |(method, path): &(&str, String)| *method == route.method && route.is_at(path);
        assert!(changed.iter().any(is_it), "{route:?} was not tried");
    }
}

/// What is made is made by one of the sorts, or is an action with a body of its own.
#[test]
fn every_route_that_makes_something_is_tried() {
    let of_admin = |route: &&ServedRoute| {
        let for_all = ["Access::Open", "Access::Metadata", "Access::Token", "Access::Anyone"];
        let whole = !route.pattern().contains("{}") && !route.pattern().ends_with("/export");
        route.method == "POST" && whole && !for_all.contains(&route.access)
    };
    for route in ServedRoute::all().iter().filter(of_admin) {
        let tried = sorts().iter().any(|sort| sort.path == route.pattern());
        // A relation is all that its text says.
        assert!(tried || route.pattern() == "/zanzibar/tuples", "{route:?} is not tried");
    }
}

fn what_is_used_is_counted_and_not_said(server: &Server) {
    let org = server.acme();
    let agent = org.create_agent(
        json!({ "budgetPolicy": { "max_tokens_per_day": 1000, "max_api_calls_per_hour": 50 } }),
    );
    agent.admin("POST", "/usage").json(json!({ "tokens": 7 })).send().ok();
    let used = || {
        let budget = agent.admin("GET", "/budget").send().ok();
        budget["data"].clone()
    };
    let counter = |budget: &Value| budget.to_string().contains("\"tokens_used_today\":7");
    assert!(counter(&used()), "{}", used());
    let said = json!({
        "max_tokens_per_day": 1000, "tokens_used_today": 0, "api_calls_this_hour": 0, "cost_this_month_usd": 0,
        "used": 0, "remaining": NUMBER, "budgetGeneration": NUMBER, "generation": NUMBER, "resetAt": LONG_AGO,
    });
    for (method, path, body) in [
        ("PUT", "/budget", said.clone()),
        ("PATCH", "", json!({ "budgetPolicy": said, "usage": { "tokens": 0 }, "tokensUsed": 0 })),
        ("POST", "/usage", json!({ "tokens": 0, "tokens_used_today": 0, "reset": true })),
    ] {
        let answer = agent.admin(method, path).json(body).send();
        assert!(matches!(answer.status, 200 | 400), "{answer}");
        assert!(counter(&used()), "{method} {path}: {}", used());
    }
    // The budget that holds is the one that was said, with what was used of it.
    agent.ask(&agent.token(), "read:a").ok();
    agent.admin("POST", "/usage").json(json!({ "tokens": 993 })).send().ok();
    agent.ask(&agent.token(), "read:a").refused(429, "budget_exceeded");
}

fn nobody_becomes_an_administrator_by_the_way(server: &Server) {
    let org = server.acme();
    let narrow = org.api_key(&["admin:users", "admin:roles", "admin:agents", "admin:clients"]);
    let email = || format!("{}@people.test", unique("p"));
    let post = |path: &str, body: Value| org.post(path).api_key(&narrow).json(body).send();
    for name in ["isAdmin", "is_admin"] {
        let body = json!({ "email": email(), name: true });
        post("/admin/users", body).refused(403, "forbidden");
    }
    for name in ["admin", "role", "is_superuser", "isOwner", "scopes", "status", "blocked"] {
        let body = json!({ "email": email(), name: true });
        let answer = post("/admin/users", body);
        if answer.status == 201 {
            let made = answer.json()["data"].clone();
            assert_eq!(
                (&made["isAdmin"], &made["roles"], &made["blocked"]),
                (&json!(false), &json!([]), &json!(false))
            );
        } else {
            answer.expect(400).refused_somehow();
        }
    }
    // Nor does an application that may hand out what its maker may not, or an agent.
    post("/admin/clients", json!({ "name": "App", "allowedScopes": ["admin"] }))
        .refused(400, "validation_error");
    let made = post(
        "/admin/agents",
        json!({ "name": unique("Agent"), "isAdmin": true, "permissions": [], "roles": [] }),
    );
    let made = made.expect(201).json()["data"].clone();
    assert!(made["isAdmin"].is_null() && made["capabilities"] == json!([]), "{made}");
    assert_eq!(text(&made["status"]), "active");
}
