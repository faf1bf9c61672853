//! Every change that an administrator makes is an entry of the log that says who made it, what the record said before, and
//! what it says after (security AD-10).

use std::collections::BTreeSet;

use lumoauth_core::secret::SecretHash;
use lumoauth_tests::{
    Backend, Ed25519, Options, Org, ServedRoute, Server, b64, int, percent_encode, text, unique,
};
use serde_json::{Value, json};

#[test]
fn every_change_says_what_was_and_what_is_in_memory() {
    every_change_says_what_was_and_what_is(Backend::Memory);
}

#[test]
fn every_change_says_what_was_and_what_is_on_the_embedded_store() {
    every_change_says_what_was_and_what_is(Backend::Embedded);
}

#[test]
fn every_change_says_what_was_and_what_is_on_postgres() {
    every_change_says_what_was_and_what_is(Backend::Postgres);
}

#[test]
fn every_change_says_what_was_and_what_is_on_postgres_with_redis() {
    every_change_says_what_was_and_what_is(Backend::PostgresRedis);
}

/// What the entry of a change shows.
enum Shown {
    /// `after` has these members among others, and there is no `before`.
    Made(Value),
    /// `before` has these members among others, and there is no `after`.
    Gone(Value),
    /// Both have these members and no others.
    Changed(Value, Value),
    /// Both have these members among others.
    Replaced(Value, Value),
    /// It is no change of a record.
    Neither,
}

use Shown::{Changed, Gone, Made, Neither, Replaced};

/// An administrator, and what they did.
struct Log<'a> {
    org: Org<'a>,
    key_id: String,
    done: Vec<(&'static str, String)>,
    seen: BTreeSet<i64>,
    secrets: Vec<String>,
}

impl<'a> Log<'a> {
    fn new(server: &'a Server) -> Self {
        let first = server.acme();
        let body = json!({ "name": unique("key"), "scopes": ["admin", "authz:check"] });
        let made = first.admin("POST", "/api-keys").json(body).send().expect(201).json()["data"].clone();
        let key = text(&made["key"]);
        Self {
            org: server.organization(first.slug(), key),
            key_id: made["id"].to_string(),
            done: Vec::new(),
            seen: BTreeSet::new(),
            secrets: vec![key.to_owned(), first.key().to_owned()],
        }
    }

    /// Does it, and gives what is answered.
    #[track_caller]
    fn does(&mut self, method: &'static str, path: &str, body: Value) -> Value {
        let answer = self.org.request(method, path).api_key(self.org.key()).json(body).send();
        assert!(matches!(answer.status, 200 | 201), "{method} {path}: {answer}");
        self.done.push((method, path.to_owned()));
        let answer = answer.json();
        self.keep_secrets(&answer);
        answer["data"].clone()
    }

    /// Whatever in an answer is shown once.
    fn keep_secrets(&mut self, value: &Value) {
        let secret = |name: &str| {
            name == "key" || name.ends_with("_key") || name.ends_with("Key") || name.ends_with("Token") || {
                let name = name.to_lowercase();
                name.ends_with("secret")
            }
        };
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match value.as_str() {
                        Some(text) if secret(name) => self.secrets.push(text.to_owned()),
                        _ => self.keep_secrets(value),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.keep_secrets(item)),
            _ => {}
        }
    }

    /// The newest entry of this kind about this target is new, of this administrator, and shows this.
    #[track_caller]
    fn told(&mut self, action: &str, target: &str, shown: Shown) -> Value {
        let query = format!("action={action}&targetId={}", percent_encode(target));
        let rows = self.org.audit(&query);
        let row = rows.first().unwrap_or_else(|| panic!("no {action} of {target}"));
        assert!(self.seen.insert(int(&row["id"])), "no new {action} of {target}: {row}");
        assert_eq!(
            (&row["actorType"], &row["actorId"], &row["status"], &row["ipAddress"]),
            (&json!("api_key"), &json!(self.key_id), &json!("success"), &json!("127.0.0.1")),
            "{row}"
        );
        let (before, after) = (&row["oldValue"], &row["newValue"]);
        assert_eq!((&row["context"]["before"], &row["context"]["after"]), (before, after), "{row}");
        match shown {
            Made(members) => assert!(before.is_null() && has(after, &members), "{row}"),
            Gone(members) => assert!(after.is_null() && has(before, &members), "{row}"),
            Changed(was, is) => assert_eq!((before, after), (&was, &is), "{row}"),
            Replaced(was, is) => assert!(has(before, &was) && has(after, &is), "{row}"),
            Neither => assert!(before.is_null() && after.is_null(), "{row}"),
        }
        row.clone()
    }

    /// Does it to a record at `path`, and the log shows the change of this member.
    #[track_caller]
    fn changes(&mut self, how: [&'static str; 2], path: &str, target: &str, [name, was, is]: [Value; 3]) {
        let [method, action] = how;
        let one = |value: Value| json!({ (text(&name)): value });
        self.does(method, path, one(is.clone()));
        self.told(action, target, Changed(one(was), one(is)));
    }
}

/// Whether `value` has all of `members`, as they are there.
fn has(value: &Value, members: &Value) -> bool {
    members.as_object().expect("members").iter().all(|(name, wanted)| value.get(name) == Some(wanted))
}

fn member(name: &str, was: impl Into<Value>, is: impl Into<Value>) -> [Value; 3] {
    [name.into(), was.into(), is.into()]
}

fn every_change_says_what_was_and_what_is(backend: Backend) {
    let server = Server::start(&Options::new(backend));
    let mut log = Log::new(&server);
    agents(&mut log);
    people(&mut log);
    clients_and_keys(&mut log);
    servers_and_resources(&mut log);
    roles(&mut log);
    given(&mut log);
    policies(&mut log);
    relations(&mut log);
    organization(&mut log);

    let of_admin = |route: &&ServedRoute| {
        let for_all = ["Access::Open", "Access::Metadata", "Access::Token", "Access::Anyone"];
        let read = route.method == "GET" || route.pattern().ends_with("/audit-logs/export");
        !for_all.contains(&route.access) && !read
    };
    for route in ServedRoute::all().iter().filter(of_admin) {
        let done = |(method, path): &(&str, String)| *method == route.method && route.is_at(path);
        assert!(log.done.iter().any(done), "nobody did {route:?}");
    }
    let rows = log.org.admin("GET", "/audit-logs/export?format=json").send().expect(200).text();
    assert!(log.seen.iter().all(|id| rows.contains(&format!("\"id\":{id},"))), "the whole log is looked at");
    assert!(log.secrets.len() > 12, "{:?}", log.secrets);
    for secret in &log.secrets {
        let hash = SecretHash::of(secret);
        let hex: String = hash.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        for form in [secret, &hex, &b64(hash.as_bytes())] {
            assert!(!rows.contains(form.as_str()), "{form}");
        }
    }
    assert!(!rows.contains("argon2"));
}

fn agents(log: &mut Log<'_>) {
    let body = json!({ "name": unique("Agent"), "capabilities": ["read:a"], "identityType": "custom", "slug": unique("agent") });
    let made = log.does("POST", "/admin/agents", body);
    let (id, status) = (
        text(&made["agentId"]).to_owned(),
        |status: &str| json!({ "status": status, "isActive": status == "active" }),
    );
    let one = format!("/admin/agents/{id}");
    let on = |path: &str| format!("{one}/{path}");
    let shown =
        json!({ "name": made["name"], "capabilities": ["read:a"], "status": "active", "hasApiKey": true });
    log.told("agent.created", &id, Made(shown));
    log.changes(
        ["PUT", "agent.updated"],
        &one,
        &id,
        member("description", made["description"].clone(), "new"),
    );
    log.changes(
        ["PATCH", "agent.updated"],
        &one,
        &id,
        member("tokenLifetime", made["tokenLifetime"].clone(), 600),
    );
    log.does("PUT", &on("scopes"), json!({ "scopes": ["read:b"] }));
    let (was, is) = (json!({ "capabilities": ["read:a"] }), json!({ "capabilities": ["read:b"] }));
    log.told("agent.updated", &id, Changed(was, is));
    let budget = json!({ "max_tokens_per_day": 50 });
    log.does("PUT", &on("budget"), budget.clone());
    let was = json!({ "budgetPolicy": made["budgetPolicy"] });
    log.told("agent.updated", &id, Changed(was, json!({ "budgetPolicy": budget })));
    log.does("POST", &on("usage"), json!({ "tokens": 1 }));
    log.told("budget.usage_recorded", &id, Neither);
    log.does("POST", &on("budget/reset"), json!({}));
    let generation = |number: u32| json!({ "budgetGeneration": number });
    log.told("budget.reset", &id, Changed(generation(0), generation(1)));
    log.does("POST", &on("token"), json!({}));
    log.told("token.issued", &id, Neither);
    log.does("POST", &on("rotate-credentials"), json!({ "grace_seconds": 60 }));
    let has_secret = || json!({ "hasClientSecret": true });
    let row = log.told("agent.credentials_rotated", &id, Replaced(has_secret(), has_secret()));
    assert!(text(&row["newValue"]["oldClientSecretUntil"]).ends_with('Z'), "{row}");
    log.does("POST", &on("rotate-key"), json!({}));
    let has_key = |has: bool| json!({ "hasApiKey": has });
    let row = log.told("agent.credentials_rotated", &id, Changed(has_key(true), has_key(true)));
    assert_eq!(row["context"]["credential"], "api_key");
    log.does("POST", &on("revoke-key"), json!({}));
    log.told("agent.credentials_rotated", &id, Changed(has_key(true), has_key(false)));
    for (off, name) in [("deactivate", "inactive"), ("disable", "suspended")] {
        log.does("POST", &on(off), json!({}));
        log.told("agent.revoked", &id, Changed(status("active"), status(name)));
        log.does("POST", &on(if off == "disable" { "enable" } else { "activate" }), json!({}));
        log.told("agent.activated", &id, Changed(status(name), status("active")));
    }
    log.does("POST", &on("revoke"), json!({ "reason": "over" }));
    log.told("agent.revoked", &id, Changed(status("active"), status("revoked")));
    log.does("DELETE", &one, json!({}));
    log.told("agent.revoked", &id, Gone(json!({ "slug": made["slug"], "status": "revoked" })));
}

fn people(log: &mut Log<'_>) {
    let (password, email) = (unique("password"), format!("{}@people.test", unique("p")));
    let webhook = format!("https://hook.test/{}", unique("canary"));
    log.secrets.extend([password.clone(), email.clone(), webhook.clone()]);
    let body =
        json!({ "email": email, "password": password, "name": "Al", "approver": { "webhook": webhook } });
    let id = text(&log.does("POST", "/admin/users", body)["id"]).to_owned();
    let one = format!("/admin/users/{id}");
    let shown = json!({ "name": "Al", "isAdmin": false, "blocked": false, "hasPassword": true });
    log.told("user.created", &id, Made(shown));
    log.does("PATCH", &one, json!({ "name": "Bo", "isAdmin": true, "approver": {} }));
    let shown = |name: &str, admin: bool, at: Value| json!({ "name": name, "isAdmin": admin, "approver": { "enabled": false, "webhook": at } });
    let (was, is) = (shown("Al", false, "https://hook.test".into()), shown("Bo", true, Value::Null));
    log.told("user.updated", &id, Changed(was, is));
    let blocked = |blocked: bool| json!({ "blocked": blocked });
    log.does("POST", &format!("{one}/block"), json!({}));
    log.told("user.blocked", &id, Changed(blocked(false), blocked(true)));
    log.does("POST", &format!("{one}/unblock"), json!({}));
    log.told("user.unblocked", &id, Changed(blocked(true), blocked(false)));
    log.does("PATCH", &one, json!({ "isActive": false, "isAdmin": false }));
    let (was, is) =
        (json!({ "blocked": false, "isAdmin": true }), json!({ "blocked": true, "isAdmin": false }));
    log.told("user.blocked", &id, Changed(was, is));
    // What somebody allowed, and an administrator takes back.
    let (person, agent) = (log.org.person(), log.org.delegate(&["read:a"]));
    log.secrets.push(person.password.clone());
    log.secrets.push(person.allow(&agent, "read:a").access);
    log.does("DELETE", &format!("/admin/users/{}/consents/{}", person.id, agent.client_id), json!({}));
    let active = |active: bool| json!({ "active": active });
    log.told("consent.revoked", &agent.client_id, Changed(active(true), active(false)));
}

fn clients_and_keys(log: &mut Log<'_>) {
    let body = json!({ "name": unique("App"), "allowedScopes": ["read:a"], "redirectUris": ["https://app.test/cb"] });
    let made = log.does("POST", "/admin/clients", body);
    let id = text(&made["clientId"]).to_owned();
    let shown =
        json!({ "name": made["name"], "redirectUris": ["https://app.test/cb"], "isConfidential": true });
    log.told("client.created", &id, Made(shown));
    log.does("POST", &format!("/admin/clients/{id}/rotate-secret"), json!({}));
    let has_secret = || json!({ "hasSecret": true });
    log.told("client.secret_rotated", &id, Replaced(has_secret(), has_secret()));
    let body = json!({ "name": unique("key"), "scopes": ["admin:read"] });
    let made = log.does("POST", "/admin/api-keys", body);
    let id = made["id"].to_string();
    let shown = json!({ "name": made["name"], "scopes": ["admin:read"], "isActive": true });
    log.told("api_key.created", &id, Made(shown));
    log.does("DELETE", &format!("/admin/api-keys/{id}"), json!({}));
    let active = |active: bool| json!({ "isActive": active });
    log.told("api_key.revoked", &id, Changed(active(true), active(false)));
}

fn servers_and_resources(log: &mut Log<'_>) {
    let uri = format!("https://{}.test/mcp", unique("mcp"));
    let body = json!({ "name": "MCP", "resource_uri": uri, "issueResourceClient": true });
    let made = log.does("POST", "/admin/mcp/servers", body);
    let id = text(&made["server_id"]).to_owned();
    let one = format!("/admin/mcp/servers/{id}");
    log.told("mcp_server.created", &id, Made(json!({ "name": "MCP", "resource_uri": uri })));
    let client = text(&made["resource_client_id"]).to_owned();
    log.told("client.created", &client, Made(json!({ "clientId": client })));
    log.changes(["PUT", "mcp_server.updated"], &one, &id, member("description", Value::Null, "new"));
    log.changes(["PATCH", "mcp_server.updated"], &one, &id, member("name", "MCP", "Other"));
    log.does("DELETE", &one, json!({}));
    log.told("mcp_server.deleted", &id, Gone(json!({ "name": "Other", "resource_uri": uri })));

    let (key, name) = (Ed25519::generate(&unique("a")), format!("https://{}.agents.test", unique("agent")));
    let body = json!({ "name": unique("Agent"), "agent_identifier": name, "jwks": key.jwks() });
    let id = text(&log.does("POST", "/admin/aauth/agents", body)["id"]).to_owned();
    let one = format!("/admin/aauth/agents/{id}");
    log.told("agent.created", &id, Made(json!({ "identityType": "aauth" })));
    log.changes(["PUT", "aauth.agent_updated"], &one, &id, member("description", Value::Null, "new"));
    log.changes(["PATCH", "aauth.agent_updated"], &one, &id, member("description", "new", "newer"));
    log.does("DELETE", &one, json!({}));
    let row = log.told("aauth.agent_removed", &id, Replaced(json!({}), json!({ "aauthIdentity": null })));
    assert_eq!(row["oldValue"]["aauthIdentity"]["identifier"], name, "{row}");

    let (key, name) = (Ed25519::generate(&unique("r")), format!("https://{}.test", unique("resource")));
    let body = json!({ "name": "Resource", "resource_identifier": name, "jwks": key.jwks() });
    let id = text(&log.does("POST", "/admin/aauth/resources", body)["id"]).to_owned();
    let one = format!("/admin/aauth/resources/{id}");
    log.told("aauth.resource_created", &id, Made(json!({ "resource_identifier": name, "status": "active" })));
    log.changes(["PUT", "aauth.resource_updated"], &one, &id, member("status", "active", "inactive"));
    log.changes(["PATCH", "aauth.resource_updated"], &one, &id, member("name", "Resource", "Other"));
    log.does("DELETE", &one, json!({}));
    log.told("aauth.resource_deleted", &id, Gone(json!({ "name": "Other", "status": "inactive" })));
}

fn roles(log: &mut Log<'_>) {
    let (role, kind) = (unique("role"), unique("doc"));
    let [a, b, c] = ["a", "b", "c"].map(|action| format!("{kind}.{action}"));
    let one = format!("/admin/roles/{role}");
    log.does("POST", "/admin/roles", json!({ "slug": role, "name": "Role", "permissions": [a] }));
    log.told("role.created", &role, Made(json!({ "name": "Role", "permissions": [a] })));
    log.changes(["PUT", "role.updated"], &one, &role, member("description", Value::Null, "new"));
    log.changes(["PATCH", "role.updated"], &one, &role, member("name", "Role", "Other"));
    let permits = |slugs: &[&String]| json!({ "permissions": slugs });
    let on = format!("{one}/permissions");
    log.does("PUT", &on, permits(&[&a, &b]));
    log.told("role.updated", &role, Changed(permits(&[&a]), permits(&[&a, &b])));
    log.does("POST", &on, permits(&[&c]));
    log.told("role.updated", &role, Changed(permits(&[&a, &b]), permits(&[&a, &b, &c])));
    log.does("DELETE", &format!("{on}/{a}"), json!({}));
    log.told("role.updated", &role, Changed(permits(&[&a, &b, &c]), permits(&[&b, &c])));
    log.does("DELETE", &one, json!({}));
    log.told("role.deleted", &role, Gone(json!({ "name": "Other", "permissions": [b, c] })));

    let slug = format!("{kind}.listed");
    let one = format!("/admin/permissions/{slug}");
    log.does("POST", "/admin/permissions", json!({ "slug": slug, "name": "Listed" }));
    log.told("permission.created", &slug, Made(json!({ "name": "Listed" })));
    log.changes(["PUT", "permission.updated"], &one, &slug, member("name", "Listed", "Other"));
    log.changes(["PATCH", "permission.updated"], &one, &slug, member("description", Value::Null, "new"));
    log.does("DELETE", &one, json!({}));
    log.told("permission.deleted", &slug, Gone(json!({ "name": "Other", "description": "new" })));
}

/// Of what is given, `after` says what was given and `before` what was taken, and neither anything else.
fn given(log: &mut Log<'_>) {
    let roles = [super::policy::some_role(&log.org, &[]), super::policy::some_role(&log.org, &[])];
    let [one, two] = [&roles[0], &roles[1]];
    let slugs = |slugs: &[&String]| json!({ "roles": slugs });
    let (agent, ann, ben) = (log.org.agent(&[]), log.org.person(), log.org.person());
    for (path, target) in [("agents", &agent.agent_id), ("users", &ann.id)] {
        let on = format!("/admin/{path}/{target}/roles");
        log.does("POST", &on, slugs(&[one]));
        log.told("role.assigned", target, Made(slugs(&[one])));
        log.does("PUT", &on, slugs(&[two]));
        log.told("role.assigned", target, Changed(slugs(&[one]), slugs(&[two])));
        log.does("DELETE", &format!("{on}/{two}"), json!({}));
        log.told("role.unassigned", target, Gone(slugs(&[two])));
        let permission = format!("{}.read", unique("doc"));
        let on = format!("/admin/{path}/{target}/permissions");
        log.does("POST", &on, json!({ "permissions": [permission] }));
        log.told("role.assigned", target, Made(json!({ "permissions": [permission] })));
        log.does("DELETE", &format!("{on}/{permission}"), json!({}));
        log.told("role.unassigned", target, Gone(json!({ "permissions": [permission] })));
    }
    let on = format!("/admin/agents/{}/roles", agent.agent_id);
    log.does("PUT", &on, slugs(&[one]));
    log.told("role.assigned", &agent.agent_id, Made(slugs(&[one])));
    log.does("DELETE", &on, slugs(&[one]));
    log.told("role.unassigned", &agent.agent_id, Gone(slugs(&[one])));
    let group = unique("group");
    for (path, name) in [("users", &ann.id), ("groups", &group)] {
        let on = format!("/admin/roles/{one}/{path}");
        log.does("POST", &on, json!({ path: [name] }));
        log.told("role.assigned", name, Made(slugs(&[one])));
        log.does("DELETE", &format!("{on}/{name}"), json!({}));
        log.told("role.unassigned", name, Gone(slugs(&[one])));
    }
    log.does("POST", &format!("/admin/roles/{two}/users"), json!({ "users": [ann.id, ben.id] }));
    let both = [format!("user:{}", ann.id), format!("user:{}", ben.id)];
    log.told("role.assigned", two, Made(json!({ "holders": both })));
    // What is left of a role that is gone.
    log.does("DELETE", &format!("/admin/roles/{two}"), json!({}));
    let row = log.told("role.unassigned", two, Gone(json!({})));
    assert_eq!(row["oldValue"]["records"].as_array().map(Vec::len), Some(2), "{row}");
}

fn policies(log: &mut Log<'_>) {
    let kind = unique("doc");
    let body = json!({ "name": "Policy", "effect": "deny", "resourceType": kind, "action": "read" });
    let made = log.does("POST", "/abac/policies", body);
    let id = made["id"].to_string();
    let one = format!("/abac/policies/{id}");
    log.told(
        "policy.created",
        &id,
        Made(json!({ "name": "Policy", "effect": "deny", "resourceType": kind })),
    );
    log.changes(["PUT", "policy.updated"], &one, &id, member("priority", made["priority"].clone(), 7));
    log.changes(["PATCH", "policy.updated"], &one, &id, member("effect", "deny", "allow"));
    log.does("POST", &format!("{one}/toggle"), json!({}));
    let active = |active: bool| json!({ "isActive": active });
    log.told("policy.updated", &id, Changed(active(true), active(false)));
    log.does("DELETE", &one, json!({}));
    log.told("policy.deleted", &id, Gone(json!({ "name": "Policy", "effect": "allow", "isActive": false })));

    let slug = unique("attr");
    let body = json!({ "slug": slug, "name": "Attribute", "attributeType": "user", "dataType": "string" });
    let id = log.does("POST", "/abac/attributes", body)["id"].to_string();
    let one = format!("/abac/attributes/{id}");
    log.told("attribute.created", &id, Made(json!({ "slug": slug, "dataType": "string" })));
    log.changes(["PUT", "attribute.updated"], &one, &id, member("name", "Attribute", "Other"));
    log.changes(["PATCH", "attribute.updated"], &one, &id, member("dataType", "string", "any"));
    // Values are personal: only that one is set is told. People in person set them.
    let ann = log.org.person_with(json!({ "isAdmin": true }));
    let (token, path) = (ann.in_person("abac:write"), format!("/abac/users/{}/attributes/{slug}", ann.id));
    let is_set = |set: bool| json!({ "isSet": set });
    for (value, was, is) in
        [(json!("canary-a"), false, true), (json!("canary-b"), true, true), (Value::Null, true, false)]
    {
        log.org.request("PUT", &path).bearer(&token).json(json!({ "value": value })).send().ok();
        let target = percent_encode(&format!("user:{}", ann.id));
        let row = log.org.audit(&format!("action=attribute.set&targetId={target}")).remove(0);
        assert_eq!((&row["oldValue"], &row["newValue"]), (&is_set(was), &is_set(is)), "{row}");
        assert_eq!((&row["actorType"], &row["actorId"]), (&json!("user"), &json!(ann.id)), "{row}");
    }
    log.secrets.extend(["canary-a".to_owned(), "canary-b".to_owned(), token]);
    log.does("DELETE", &one, json!({}));
    log.told("attribute.deleted", &id, Gone(json!({ "slug": slug, "name": "Other", "dataType": "any" })));
}

fn relations(log: &mut Log<'_>) {
    let space = unique("space");
    let one = format!("/zanzibar/namespaces/{space}");
    let rules = |relation: &str| json!({ "relations": { relation: "this" } });
    log.does("PUT", &one, rules("viewer"));
    let made = log.told("relation.namespace_written", &space, Made(json!({})))["newValue"].clone();
    assert!(made["relations"]["viewer"] != Value::Null, "{made}");
    let tuple = format!("{space}:a#viewer@user:ann");
    log.does("POST", "/zanzibar/tuples", json!({ "tuple": tuple }));
    log.told("relation.written", &tuple, Made(json!({ "tuples": [tuple] })));
    log.does("DELETE", "/zanzibar/tuples", json!({ "tuple": tuple }));
    log.told("relation.deleted", &tuple, Gone(json!({ "tuples": [tuple] })));
    log.does("PUT", &one, rules("owner"));
    let row = log.told("relation.namespace_written", &space, Replaced(made, json!({})));
    let now = row["newValue"].clone();
    assert!(now["relations"]["owner"] != Value::Null && now["relations"]["viewer"].is_null(), "{row}");
    log.does("DELETE", &one, json!({}));
    log.told("relation.namespace_deleted", &space, Gone(now));
}

fn organization(log: &mut Log<'_>) {
    let org = log.org.slug().to_owned();
    let mut put = |types: Value, was: Value, is: Value| {
        log.does("PUT", "/admin/jit/risk", json!({ "types": types }));
        log.told("jit.policy_updated", &org, Changed(was, is));
    };
    put(
        json!({ "a": "low", "b": "high" }),
        json!({ "a": null, "b": null }),
        json!({ "a": "low", "b": "high" }),
    );
    put(
        json!({ "b": "high", "c": "denied" }),
        json!({ "a": "low", "c": null }),
        json!({ "a": null, "c": "denied" }),
    );
    // What changes nothing is no entry.
    let count = |log: &Log<'_>| log.org.audit("action=jit.policy_updated").len();
    let before = count(log);
    log.does("PUT", "/admin/jit/risk", json!({ "types": { "b": "high", "c": "denied" } }));
    assert_eq!(count(log), before);
}
