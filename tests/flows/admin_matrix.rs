//! Every administrator's route against every kind of caller (security AD-01), and against nonsense.

use lumoauth_tests::{Backend, Org, Request, ServedRoute, Server, on_each_backend, shared, text, unique};
use serde_json::{Value, json};

on_each_backend!(
    no_credential_opens_no_admin_route,
    bad_credentials_open_no_admin_route,
    agent_tokens_open_no_admin_route,
    agent_keys_open_no_admin_route,
    foreign_administrators_open_no_admin_route,
    keys_without_an_admin_scope_open_no_admin_route,
    reading_keys_change_nothing,
    keys_for_one_area_open_no_other,
    nothing_of_all_that_changed_anything,
    nonsense_bodies_are_refused_with_a_4xx,
    unknown_methods_are_not_allowed,
    read_routes_do_open_for_the_administrator,
);

/// What a route of the matrix does and where it belongs, so that a key for another area must be refused.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Read,
    Write,
}

pub(crate) struct Route {
    pub(crate) method: &'static str,
    /// Below the organization, with a query where the route needs one.
    pub(crate) path: String,
    pub(crate) kind: Kind,
    pub(crate) area: &'static str,
}

fn routes(org: &Org<'_>) -> Vec<Route> {
    let agent = org.create_agent(json!({ "identityType": "custom", "capabilities": ["read:a"] }));
    let one = format!("/agents/{}", agent.agent_id);
    let mcp = format!("/mcp/servers/{}", text(&org.mcp_server(json!({}))["server_id"]));
    let keyed = format!("/aauth/agents/{}", org.aauth_agent(json!({})).id);
    let resource = format!("/aauth/resources/{}", org.aauth_resource(json!({})).id);
    let permission = format!("{}.read", unique("doc"));
    let made = |path: &str, members: Value| {
        org.request("POST", path).api_key(org.key()).json(members).send().expect(201).json()["data"].clone()
    };
    let role = made("/admin/roles", json!({ "name": unique("role"), "permissions": [permission] }));
    let role = format!("/roles/{}", text(&role["slug"]));
    let permission = format!("/permissions/{permission}");
    let policy =
        json!({ "name": unique("policy"), "effect": "deny", "resourceType": unique("doc"), "action": "*" });
    let policy =
        format!("/abac/policies/{}", made("/abac/policies", policy)["id"].to_string().replace('"', ""));
    let attribute = json!({ "name": unique("attribute"), "attributeType": "user", "dataType": "string" });
    let attribute = made("/abac/attributes", attribute)["id"].to_string().replace('"', "");
    let attribute = format!("/abac/attributes/{attribute}");
    let (roles_of, granted) = (format!("{one}/roles"), format!("{one}/permissions"));
    let person = format!("/users/{}", org.person().id);
    let app = org.app(json!({ "allowedScopes": ["read:a"] })).client_id;
    let key = made("/admin/api-keys", json!({ "name": unique("key"), "scopes": ["admin:read"] }));
    let key = key["id"].to_string();
    let table: Vec<(&str, String, Kind, &str)> = vec![
        ("GET", "/agents".into(), Kind::Read, "agents"),
        ("POST", "/agents".into(), Kind::Write, "agents"),
        ("GET", one.clone(), Kind::Read, "agents"),
        ("PUT", one.clone(), Kind::Write, "agents"),
        ("PATCH", one.clone(), Kind::Write, "agents"),
        ("DELETE", one.clone(), Kind::Write, "agents"),
        ("POST", format!("{one}/activate"), Kind::Write, "agents"),
        ("POST", format!("{one}/deactivate"), Kind::Write, "agents"),
        ("POST", format!("{one}/enable"), Kind::Write, "agents"),
        ("POST", format!("{one}/disable"), Kind::Write, "agents"),
        ("POST", format!("{one}/revoke"), Kind::Write, "agents"),
        ("POST", format!("{one}/rotate-credentials"), Kind::Write, "agents"),
        ("POST", format!("{one}/rotate-key"), Kind::Write, "agents"),
        ("POST", format!("{one}/revoke-key"), Kind::Write, "agents"),
        ("GET", format!("{one}/scopes"), Kind::Read, "agents"),
        ("PUT", format!("{one}/scopes"), Kind::Write, "agents"),
        ("POST", format!("{one}/token"), Kind::Write, "agents"),
        ("GET", format!("{one}/budget"), Kind::Read, "agents"),
        ("PUT", format!("{one}/budget"), Kind::Write, "agents"),
        ("POST", format!("{one}/budget/reset"), Kind::Write, "agents"),
        ("GET", format!("{one}/usage"), Kind::Read, "agents"),
        ("POST", format!("{one}/usage"), Kind::Write, "agents"),
        ("GET", "/jit/risk".into(), Kind::Read, "agents"),
        ("PUT", "/jit/risk".into(), Kind::Write, "agents"),
        ("GET", roles_of.clone(), Kind::Read, "roles"),
        ("POST", roles_of.clone(), Kind::Write, "roles"),
        ("PUT", roles_of.clone(), Kind::Write, "roles"),
        ("DELETE", roles_of.clone(), Kind::Write, "roles"),
        ("DELETE", format!("{roles_of}/some"), Kind::Write, "roles"),
        ("GET", granted.clone(), Kind::Read, "roles"),
        ("POST", granted.clone(), Kind::Write, "roles"),
        ("DELETE", format!("{granted}/some"), Kind::Write, "roles"),
        ("GET", format!("{person}/roles"), Kind::Read, "roles"),
        ("POST", format!("{person}/roles"), Kind::Write, "roles"),
        ("PUT", format!("{person}/roles"), Kind::Write, "roles"),
        ("DELETE", format!("{person}/roles/some"), Kind::Write, "roles"),
        ("GET", format!("{person}/permissions"), Kind::Read, "roles"),
        ("POST", format!("{person}/permissions"), Kind::Write, "roles"),
        ("DELETE", format!("{person}/permissions/some"), Kind::Write, "roles"),
        ("GET", "/roles".into(), Kind::Read, "roles"),
        ("POST", "/roles".into(), Kind::Write, "roles"),
        ("GET", role.clone(), Kind::Read, "roles"),
        ("PUT", role.clone(), Kind::Write, "roles"),
        ("PATCH", role.clone(), Kind::Write, "roles"),
        ("DELETE", role.clone(), Kind::Write, "roles"),
        ("GET", format!("{role}/permissions"), Kind::Read, "roles"),
        ("PUT", format!("{role}/permissions"), Kind::Write, "roles"),
        ("POST", format!("{role}/permissions"), Kind::Write, "roles"),
        ("DELETE", format!("{role}/permissions/some"), Kind::Write, "roles"),
        ("GET", format!("{role}/users"), Kind::Read, "roles"),
        ("POST", format!("{role}/users"), Kind::Write, "roles"),
        ("DELETE", format!("{role}{person}"), Kind::Write, "roles"),
        ("GET", format!("{role}/groups"), Kind::Read, "roles"),
        ("POST", format!("{role}/groups"), Kind::Write, "roles"),
        ("DELETE", format!("{role}/groups/some"), Kind::Write, "roles"),
        ("GET", "/permissions".into(), Kind::Read, "roles"),
        ("POST", "/permissions".into(), Kind::Write, "roles"),
        ("GET", permission.clone(), Kind::Read, "roles"),
        ("PUT", permission.clone(), Kind::Write, "roles"),
        ("PATCH", permission.clone(), Kind::Write, "roles"),
        ("DELETE", permission, Kind::Write, "roles"),
        ("GET", "/abac/policies".into(), Kind::Read, "roles"),
        ("POST", "/abac/policies".into(), Kind::Write, "roles"),
        ("GET", policy.clone(), Kind::Read, "roles"),
        ("PUT", policy.clone(), Kind::Write, "roles"),
        ("PATCH", policy.clone(), Kind::Write, "roles"),
        ("DELETE", policy.clone(), Kind::Write, "roles"),
        ("POST", format!("{policy}/toggle"), Kind::Write, "roles"),
        ("GET", "/abac/attributes".into(), Kind::Read, "roles"),
        ("POST", "/abac/attributes".into(), Kind::Write, "roles"),
        ("GET", attribute.clone(), Kind::Read, "roles"),
        ("PUT", attribute.clone(), Kind::Write, "roles"),
        ("PATCH", attribute.clone(), Kind::Write, "roles"),
        ("DELETE", attribute, Kind::Write, "roles"),
        ("GET", "/zanzibar/tuples".into(), Kind::Read, "roles"),
        ("POST", "/zanzibar/tuples".into(), Kind::Write, "roles"),
        ("DELETE", "/zanzibar/tuples".into(), Kind::Write, "roles"),
        ("GET", "/zanzibar/namespaces".into(), Kind::Read, "roles"),
        ("PUT", "/zanzibar/namespaces/some".into(), Kind::Write, "roles"),
        ("DELETE", "/zanzibar/namespaces/some".into(), Kind::Write, "roles"),
        ("GET", "/mcp/servers".into(), Kind::Read, "mcp"),
        ("POST", "/mcp/servers".into(), Kind::Write, "mcp"),
        ("GET", mcp.clone(), Kind::Read, "mcp"),
        ("PUT", mcp.clone(), Kind::Write, "mcp"),
        ("PATCH", mcp.clone(), Kind::Write, "mcp"),
        ("DELETE", mcp, Kind::Write, "mcp"),
        ("GET", "/aauth/agents".into(), Kind::Read, "agents"),
        ("POST", "/aauth/agents".into(), Kind::Write, "agents"),
        ("GET", keyed.clone(), Kind::Read, "agents"),
        ("PUT", keyed.clone(), Kind::Write, "agents"),
        ("PATCH", keyed.clone(), Kind::Write, "agents"),
        ("DELETE", keyed, Kind::Write, "agents"),
        ("GET", "/aauth/resources".into(), Kind::Read, "agents"),
        ("POST", "/aauth/resources".into(), Kind::Write, "agents"),
        ("GET", resource.clone(), Kind::Read, "agents"),
        ("PUT", resource.clone(), Kind::Write, "agents"),
        ("PATCH", resource.clone(), Kind::Write, "agents"),
        ("DELETE", resource, Kind::Write, "agents"),
        ("GET", "/audit-logs".into(), Kind::Read, "audit"),
        ("GET", "/audit-logs/1".into(), Kind::Read, "audit"),
        ("GET", "/audit-logs/actions".into(), Kind::Read, "audit"),
        ("GET", "/audit-logs/stats".into(), Kind::Read, "audit"),
        ("GET", "/audit-logs/export".into(), Kind::Read, "audit"),
        ("GET", "/audit-logs/tree/head".into(), Kind::Read, "audit"),
        ("GET", "/audit-logs/tree/checkpoints".into(), Kind::Read, "audit"),
        ("GET", "/audit-logs/tree/inclusion?seq=1".into(), Kind::Read, "audit"),
        ("GET", "/audit-logs/tree/consistency?from=1".into(), Kind::Read, "audit"),
        ("GET", "/audit-logs/tree/export".into(), Kind::Read, "audit"),
        ("POST", "/audit-logs/export".into(), Kind::Read, "audit"),
        ("GET", "/users".into(), Kind::Read, "users"),
        ("POST", "/users".into(), Kind::Write, "users"),
        ("PATCH", person.clone(), Kind::Write, "users"),
        ("GET", person.clone(), Kind::Read, "users"),
        ("GET", format!("{person}/consents"), Kind::Read, "users"),
        ("DELETE", format!("{person}/consents/{app}"), Kind::Write, "users"),
        ("POST", format!("{person}/block"), Kind::Write, "users"),
        ("POST", format!("{person}/unblock"), Kind::Write, "users"),
        ("GET", "/clients".into(), Kind::Read, "clients"),
        ("POST", "/clients".into(), Kind::Write, "clients"),
        ("GET", format!("/clients/{app}"), Kind::Read, "clients"),
        ("POST", format!("/clients/{app}/rotate-secret"), Kind::Write, "clients"),
        ("GET", "/api-keys".into(), Kind::Read, "keys"),
        ("POST", "/api-keys".into(), Kind::Write, "keys"),
        ("DELETE", format!("/api-keys/{key}"), Kind::Write, "keys"),
    ];
    let all = table.into_iter().flat_map(|(method, path, kind, area)| {
        doors(&path).into_iter().map(move |path| Route { method, path, kind, area })
    });
    all.collect()
}

/// Most stand below `/admin`, policy beside it, and the audit log at both.
fn doors(path: &str) -> Vec<String> {
    let below = format!("/admin{path}");
    match path.split('/').nth(1) {
        Some("abac" | "zanzibar") => vec![path.to_owned()],
        Some("audit-logs") => vec![path.to_owned(), below],
        _ => vec![below],
    }
}

/// What the attempts aim at.
pub(crate) struct Target<'a> {
    pub(crate) org: Org<'a>,
    pub(crate) routes: Vec<Route>,
}

pub(crate) fn target(server: &Server) -> Target<'_> {
    let org = server.acme();
    Target { routes: routes(&org), org }
}

impl Target<'_> {
    /// What the administrator does.
    pub(crate) fn admin(&self, method: &str, path: &str) -> Request {
        self.org.request(method, path).api_key(self.org.key())
    }

    pub(crate) fn attempt(&self, route: &Route) -> Request {
        let request = self.org.request(route.method, &route.path);
        match route.kind {
            Kind::Write => request.json(json!({
                "name": unique("Intruder"), "scopes": ["read:a"], "roles": [], "permissions": ["intruder.read"],
                "groups": ["intruders"], "tuple": "document:intruded#viewer@user:intruder",
                "relations": { "intruder": "this" },
            })),
            Kind::Read => request,
        }
    }

    /// Every route answers one of `statuses` to the request that `with` makes of it.
    #[track_caller]
    pub(crate) fn refuses(
        &self,
        statuses: &[u16],
        with: impl Fn(Request) -> Request,
        wanted: impl Fn(&Route) -> bool,
    ) {
        for route in self.routes.iter().filter(|route| wanted(route)) {
            let response = with(self.attempt(route)).send();
            assert!(statuses.contains(&response.status), "{} {}: {response}", route.method, route.path);
            response.refused_somehow();
        }
    }
}

fn no_credential_opens_no_admin_route(server: &Server) {
    target(server).refuses(&[401], |request| request, |_| true);
}

fn bad_credentials_open_no_admin_route(server: &Server) {
    let target = target(server);
    target.refuses(&[401], |request| request.api_key("lmk_unknown"), |_| true);
    target.refuses(&[401], |request| request.api_key(""), |_| true);
    target.refuses(&[401], |request| request.bearer("nonsense"), |_| true);
    let cut = &server.acme().key()[..20].to_owned();
    target.refuses(&[401], |request| request.api_key(cut), |_| true);
    // Bearer wins over the key, and it is bad.
    let key = server.acme().key().to_owned();
    target.refuses(&[401], |request| request.bearer("nonsense").api_key(&key), |_| true);
}

fn agent_tokens_open_no_admin_route(server: &Server) {
    // Capabilities never stand for user scopes, however they are called.
    let agent = server.acme().agent(&["*", "admin", "admin:read", "admin:write", "admin:agents:write"]);
    let token = agent.token();
    target(server).refuses(&[403], |request| request.bearer(&token), |_| true);
}

fn agent_keys_open_no_admin_route(server: &Server) {
    let agent =
        server.acme().create_agent(json!({ "identityType": "api_key", "capabilities": ["*", "admin"] }));
    let target = target(server);
    target.refuses(&[401, 403], |request| request.bearer(&agent.api_key), |_| true);
    target.refuses(&[401, 403], |request| request.api_key(&agent.api_key), |_| true);
}

fn foreign_administrators_open_no_admin_route(server: &Server) {
    let foreign = server.globex();
    let token = foreign.agent(&["*"]).token();
    let target = target(server);
    target.refuses(&[401, 403], |request| request.api_key(foreign.key()), |_| true);
    target.refuses(&[401, 403], |request| request.bearer(&token), |_| true);
}

fn keys_without_an_admin_scope_open_no_admin_route(server: &Server) {
    let key = server.acme().api_key(&["authz:check"]);
    target(server).refuses(&[403], |request| request.api_key(&key), |_| true);
}

fn reading_keys_change_nothing(server: &Server) {
    let key = server.acme().api_key(&["admin:read"]);
    target(server).refuses(&[403], |request| request.api_key(&key), |route| route.kind == Kind::Write);
}

fn keys_for_one_area_open_no_other(server: &Server) {
    let target = target(server);
    for area in ["agents", "audit", "roles", "users", "clients"] {
        let key = server.acme().api_key(&[&format!("admin:{area}")]);
        target.refuses(
            &[403],
            |request| request.api_key(&key),
            |route| route.area != area && route.area != "mcp",
        );
    }
}

fn nothing_of_all_that_changed_anything(server: &Server) {
    let target = target(server);
    // Whatever stands under a name of its own: of them all, as it is read and as the log tells of it.
    let one = |route: &&Route| route.method == "PATCH";
    let paths: Vec<_> = target.routes.iter().filter(one).map(|route| route.path.clone()).collect();
    assert_eq!(paths.len(), 9);
    // And who has what of them.
    let given = |route: &&Route| {
        let lists = ["/roles", "/permissions", "/groups", "/users"];
        route.method == "GET"
            && route.path.matches('/').count() == 4
            && lists.iter().any(|end| route.path.ends_with(end))
    };
    let given: Vec<_> = target.routes.iter().filter(given).map(|route| route.path.clone()).collect();
    assert_eq!(given.len(), 7, "{given:?}");
    let relations = ["/zanzibar/tuples?object=document:intruded", "/zanzibar/namespaces?search=some"];
    let seen = || {
        let read = |path: &String| {
            let id = path.rsplit('/').next().unwrap_or(path);
            (target.admin("GET", path).send().ok(), target.org.audit(&format!("targetId={id}")).len())
        };
        let lists = given.iter().map(String::as_str).chain(relations);
        let lists: Vec<_> = lists.map(|path| target.admin("GET", path).send().ok()).collect();
        (paths.iter().map(read).collect::<Vec<_>>(), lists)
    };
    let before = seen();
    target.refuses(&[401], |request| request, |_| true);
    let narrow = target.org.api_key(&["authz:check"]);
    target.refuses(&[403], |request| request.api_key(&narrow), |_| true);
    target.refuses(&[401, 403], |request| request.api_key(server.globex().key()), |_| true);
    assert_eq!(seen(), before);
}

fn nonsense_bodies_are_refused_with_a_4xx(server: &Server) {
    let target = target(server);
    let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
    let bodies = [
        "null",
        "[]",
        "7",
        "\"text\"",
        "true",
        "{",
        "{\"name\":",
        "{\"name\":{}}",
        "{\"name\":[[]],\"capabilities\":{\"a\":1},\"scopes\":{\"a\":[]}}",
        "{\"name\":\"a\",\"name\":\"b\"}",
        "{\"name\":1e999,\"tokenLifetime\":-1,\"expiresIn\":[],\"scopes\":7,\"tokens\":-1,\"resource_uri\":[]}",
        "{\"\u{0}\":\"\u{0}\"}",
        "\u{feff}{}",
        "{}{}",
        "name=form&scopes=x",
        deep.as_str(),
    ];
    let with_body = [
        "/agents",
        "/scopes",
        "/token",
        "/budget",
        "/usage",
        "/mcp/servers",
        "/aauth/resources",
        "/users",
        "/clients",
        "/api-keys",
        "/roles",
        "/permissions",
        "/groups",
        "/namespaces/some",
        "/abac/policies",
        "/abac/attributes",
        "/zanzibar/tuples",
        "/jit/risk",
    ];
    for route in target.routes.iter().filter(|route| route.kind == Kind::Write) {
        if route.method == "DELETE" || !with_body.iter().any(|end| route.path.ends_with(end)) {
            continue;
        }
        for body in bodies {
            let request = target.admin(route.method, &route.path).body("application/json", body);
            let response = request.send();
            // A portal token needs no body, a policy without limits is a policy, and unknown members of one are kept.
            let fine = response.status == 200
                && ["/token", "/usage", "/budget"].iter().any(|end| route.path.ends_with(end));
            assert!(
                fine || (400..500).contains(&response.status),
                "{} {} {body}: {response}",
                route.method,
                route.path
            );
        }
        let bytes =
            target.admin(route.method, &route.path).body("application/json", [0xff, 0xfe, 0x00]).send();
        bytes.expect(400).refused_somehow();
    }
}

fn unknown_methods_are_not_allowed(server: &Server) {
    let target = target(server);
    for route in &target.routes {
        for method in ["FROBNICATE", "TRACE"] {
            let response = target.admin(method, &route.path).send();
            assert_eq!(response.status, 405, "{method} {}: {response}", route.path);
        }
    }
}

fn read_routes_do_open_for_the_administrator(server: &Server) {
    let target = target(server);
    for route in target.routes.iter().filter(|route| route.kind == Kind::Read) {
        let response = target.admin(route.method, &route.path).send();
        // Ids of the matrix that name nobody are looked up, not refused.
        assert!(matches!(response.status, 200 | 404), "{} {}: {response}", route.method, route.path);
    }
}

/// The matrix is of all routes that there are: a new one must be added to it.
#[test]
fn every_admin_route_is_in_the_matrix() {
    let matrix = target(shared(Backend::Memory)).routes;
    let for_all = ["Access::Open", "Access::Metadata", "Access::Token", "Access::Anyone"];
    let of_admin = |route: &ServedRoute| !for_all.contains(&route.access);
    let served: Vec<_> = ServedRoute::all().into_iter().filter(of_admin).collect();
    let is_of = |known: &Route, route: &ServedRoute| {
        known.method == route.method && route.is_at(known.path.split('?').next().unwrap_or_default())
    };
    for route in &served {
        assert!(matrix.iter().any(|known| is_of(known, route)), "{route:?} is not in the matrix");
    }
    for known in &matrix {
        let is_served = served.iter().any(|route| is_of(known, route));
        assert!(is_served, "{} {} is not served to administrators", known.method, known.path);
    }
}
