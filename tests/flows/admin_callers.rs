//! Who opens a route of administration, for every route that the router has (security AD-01), and what the ids of others lead
//! to there (AD-03). Keys and agents by themselves: `admin_matrix`.

use lumoauth_tests::{Org, Person, Response, ServedRoute, Server, asking, on_each_backend, text, unique};
use serde_json::{Value, json};

use crate::admin_matrix::{Kind, Route, Target, target};

on_each_backend!(
    persons_open_no_admin_route,
    administrators_open_what_their_token_is_for,
    agents_open_none_for_an_administrator,
    applications_open_none_by_themselves,
    foreign_administrators_in_person_open_none,
    blocked_administrators_open_none,
    ids_of_another_organization_are_not_found,
    ids_of_something_else_are_not_found,
    parts_of_another_record_are_not_found,
);

fn administrator<'a>(org: &Org<'a>) -> Person<'a> {
    org.person_with(json!({ "isAdmin": true }))
}

const SCOPES: &str =
    "openid admin admin:read admin:write admin:agents admin:users admin:roles admin:clients admin:audit";

fn persons_open_no_admin_route(server: &Server) {
    let target = target(server);
    let ann = target.org.person();
    // Whatever the application may ask for, a token makes nobody an administrator; nor does every role and permission.
    let role = super::policy::some_role(&target.org, &["agents.manage", "users.manage"]);
    target.org.admin("POST", &format!("/users/{}/roles", ann.id)).json(json!({ "role": role })).send().ok();
    for scope in ["openid", SCOPES] {
        let token = ann.in_person(scope);
        target.refuses(&[403], |request| request.bearer(&token), |_| true);
    }
    // Nor an administrator who gave the application nothing of that.
    let token = administrator(&target.org).in_person("openid abac:write jit:approve authz:check");
    target.refuses(&[403], |request| request.bearer(&token), |_| true);
}

fn administrators_open_what_their_token_is_for(server: &Server) {
    let target = target(server);
    let boss = administrator(&target.org);
    let opens = |scope: &str, wanted: &dyn Fn(&Route) -> bool| {
        let token = boss.in_person(scope);
        target.refuses(&[403], |request| request.bearer(&token), |route| !wanted(route));
        for route in target.routes.iter().filter(|route| route.kind == Kind::Read && wanted(route)) {
            let answer = target.attempt(route).bearer(&token).send();
            assert!(matches!(answer.status, 200 | 404), "{scope}: {} {}: {answer}", route.method, route.path);
        }
    };
    opens("openid admin:read", &|route| route.kind == Kind::Read && route.area != "keys");
    opens("admin:audit", &|route| route.area == "audit");
    opens("admin:users", &|route| route.area == "users");
    opens("admin:clients", &|route| route.area == "clients");
    opens("admin:roles", &|route| route.area == "roles");
    opens("admin:agents", &|route| matches!(route.area, "agents" | "mcp"));
    opens("admin:write", &|route| !matches!(route.area, "audit" | "keys"));
    opens("admin", &|_| true);
}

fn agents_open_none_for_an_administrator(server: &Server) {
    let target = target(server);
    let (boss, agent) = (administrator(&target.org), target.org.delegate(&["read:a", "admin", "admin:read"]));
    let given = boss.allow(&agent, "read:a openid").access;
    let delegated = agent.acting_for(&given);
    let next = target.org.delegate(&["read:a"]);
    for token in [&given, &delegated, &next.acting_for(&delegated)] {
        target.refuses(&[403], |request| request.bearer(token), |_| true);
    }
    boss.ask_for(&agent, "admin", &[]).refused_or_sent_back();
    // A test token of an administrator's making, and one for a resource.
    let made = agent.admin("POST", "/token").json(json!({})).send().ok();
    let mcp = target.org.mcp_server(json!({}));
    let bound = agent.exchange(&agent.token(), &[("resource", text(&mcp["resource_uri"]))]).ok();
    for token in [&made["data"]["accessToken"], &bound["access_token"]] {
        target.refuses(&[401, 403], |request| request.bearer(text(token)), |_| true);
    }
}

trait Refused {
    fn refused_or_sent_back(&self);
}

impl Refused for Response {
    /// No consent page for what no agent is given.
    fn refused_or_sent_back(&self) {
        assert!(
            self.status != 200 || self.json()["code"].is_null() && self.json()["challenge_id"].is_null(),
            "{self}"
        );
    }
}

fn applications_open_none_by_themselves(server: &Server) {
    let target = target(server);
    let types = ["client_credentials", "authorization_code"];
    let app = target.org.app(json!({ "allowedScopes": ["admin", "admin:read"], "grantTypes": types }));
    let token = app.as_client(&[("grant_type", "client_credentials"), ("scope", "admin admin:read")]).ok();
    let token = text(&token["access_token"]);
    target.refuses(&[403], |request| request.bearer(token), |_| true);
}

fn foreign_administrators_in_person_open_none(server: &Server) {
    let target = target(server);
    let token = administrator(&server.globex()).in_person("admin");
    server.globex().get("/admin/agents").bearer(&token).send().ok();
    target.refuses(&[403], |request| request.bearer(&token), |_| true);
    // Their session says nothing here either.
    let boss = administrator(&target.org);
    target.refuses(&[401], |request| request.header("Cookie", &boss.cookie), |_| true);
}

fn blocked_administrators_open_none(server: &Server) {
    let target = target(server);
    let (boss, former) = (administrator(&target.org), administrator(&target.org));
    let tokens = [boss.in_person("admin"), former.in_person("admin")];
    target.admin("POST", &format!("/admin/users/{}/block", boss.id)).send().ok();
    let path = format!("/admin/users/{}", former.id);
    target.admin("PATCH", &path).json(json!({ "isAdmin": false })).send().ok();
    for token in &tokens {
        target.refuses(&[401], |request| request.bearer(token), |_| true);
    }
    // What is left to the one who is no administrator any more is a token that opens nothing.
    let mut again = former.clone();
    again.cookie = again.sign_in();
    let app = target.org.app(json!({ "allowedScopes": ["admin", "openid"] }));
    let code = again.code_of(&asking(&app.client_id, "admin openid"));
    let token = app.redeem(&code, &[]).ok();
    target.refuses(&[403], |request| request.bearer(text(&token["access_token"])), |_| true);
}

/// What a request needs, so that only its path is to be found fault with.
fn whole_body(org: &Org<'_>) -> Value {
    let role = super::policy::some_role(org, &[]);
    json!({
        "scopes": ["read:a"], "roles": [role], "permissions": ["intruder.read"], "users": [org.person().id],
        "groups": ["intruders"], "max_tokens_per_day": 1, "tokens": 1, "description": "intruded",
    })
}

fn ids_of_another_organization_are_not_found(server: &Server) {
    let target = target(server);
    let globex = server.globex();
    let keys = [globex.key().to_owned(), administrator(&globex).in_person("admin")];
    let body = whole_body(&globex);
    // Names that every organization may have, and numbers of its own log.
    let by_name = ["namespaces", "audit-logs"];
    let all = ServedRoute::all();
    let with_id = |route: &&Route| {
        let path = route.path.split('?').next().unwrap_or_default();
        let served = all.iter().find(|it| it.method == route.method && it.is_at(path));
        let pattern = served.unwrap_or_else(|| panic!("{path}")).pattern();
        pattern.contains("{}") && !by_name.iter().any(|name| path.contains(name))
    };
    let routes: Vec<_> = target.routes.iter().filter(with_id).collect();
    assert!(routes.len() > 70, "{}", routes.len());
    let read = |route: &&&Route| route.method == "GET";
    let seen = || {
        let read = routes.iter().filter(read).map(|route| target.admin("GET", &route.path).send().text());
        read.collect::<Vec<_>>()
    };
    let before = seen();
    for route in &routes {
        for key in &keys {
            let request = globex.request(route.method, &route.path).bearer(key);
            let answer = if route.method == "GET" { request } else { request.json(body.clone()) }.send();
            assert_eq!(answer.status, 404, "{} {}: {answer}", route.method, route.path);
            answer.refused(404, "not_found");
        }
    }
    // The path of one organization with the key of the other: that alone is said, whether the id is there or not.
    for route in &routes {
        let answer = target.org.request(route.method, &route.path).api_key(globex.key()).send();
        let said = answer.refused(403, "forbidden");
        assert_eq!(said["message"], "This credential belongs to another organization.", "{}", route.path);
    }
    assert_eq!(seen(), before);
}

fn ids_of_something_else_are_not_found(server: &Server) {
    let Target { org, .. } = &target(server);
    let (agent, person, app) = (org.agent(&[]), org.person(), org.app(json!({})));
    let (keyed, resource) = (org.aauth_agent(json!({})), org.aauth_resource(json!({})));
    let mcp = text(&org.mcp_server(json!({}))["server_id"]).to_owned();
    let role = super::policy::some_role(org, &[]);
    let key = org.admin("POST", "/api-keys").json(json!({ "name": "k", "scopes": ["admin:read"] })).send();
    let key = key.expect(201).json()["data"]["id"].to_string();
    let ids = [
        ("/admin/agents", agent.agent_id.clone()),
        ("/admin/users", person.id.clone()),
        ("/admin/clients", app.client_id.clone()),
        ("/admin/mcp/servers", mcp),
        ("/admin/aauth/resources", resource.id.clone()),
        ("/admin/roles", role),
        ("/admin/api-keys", key),
    ];
    let body = whole_body(org);
    for (place, _) in &ids {
        for (other, id) in &ids {
            if place == other {
                continue;
            }
            for method in ["GET", "PATCH", "DELETE"] {
                let request = org.request(method, &format!("{place}/{id}")).api_key(org.key());
                let request = if method == "PATCH" { request.json(body.clone()) } else { request };
                let answer = request.send();
                assert!(matches!(answer.status, 404 | 405), "{method} {place}/{id}: {answer}");
            }
        }
    }
    // An agent that has no part in AAuth is none there; one that has is an agent.
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        let path = format!("/aauth/agents/{}", agent.agent_id);
        let request = org.admin(method, &path).json(body.clone());
        request.send().refused(404, "not_found");
    }
    org.admin("GET", &format!("/agents/{}", keyed.id)).send().ok();
}

/// What belongs to one record is not there under another one, also of the same organization.
fn parts_of_another_record_are_not_found(server: &Server) {
    let org = server.acme();
    let permission = format!("{}.read", unique("doc"));
    let [with, without] =
        [super::policy::some_role(&org, &[&permission]), super::policy::some_role(&org, &[])];
    let (agent, other) = (org.agent(&[]), org.agent(&[]));
    let (ann, ben) = (org.person(), org.person());
    let (app, client) = (org.delegate(&["read:a"]), org.app(json!({})));
    ann.allow(&app, "read:a");
    agent.admin("POST", "/roles").json(json!({ "roles": [with] })).send().ok();
    agent.admin("POST", "/permissions").json(json!({ "permissions": [permission] })).send().ok();
    let of = |person: &Person<'_>| format!("/users/{}", person.id);
    org.admin("POST", &format!("{}/roles", of(&ann))).json(json!({ "role": with })).send().ok();
    org.admin("POST", &format!("{}/permissions", of(&ann)))
        .json(json!({ "permissions": [permission] }))
        .send()
        .ok();
    org.admin("POST", &format!("/roles/{with}/groups")).json(json!({ "groups": [with] })).send().ok();
    let parts = [
        (format!("/roles/{without}"), format!("/permissions/{permission}")),
        (format!("/roles/{without}"), format!("/users/{}", ann.id)),
        (format!("/roles/{with}"), format!("/users/{}", ben.id)),
        (format!("/roles/{without}"), format!("/groups/{with}")),
        (format!("/agents/{}", other.agent_id), format!("/roles/{with}")),
        (format!("/agents/{}", agent.agent_id), format!("/roles/{without}")),
        (format!("/agents/{}", other.agent_id), format!("/permissions/{permission}")),
        (of(&ben), format!("/roles/{with}")),
        (of(&ben), format!("/permissions/{permission}")),
        (of(&ben), format!("/consents/{}", app.client_id)),
        (of(&ann), format!("/consents/{}", client.client_id)),
    ];
    for (record, part) in &parts {
        org.admin("DELETE", &format!("{record}{part}")).send().refused(404, "not_found");
    }
    // Each is still where it belongs, and goes there.
    for (record, part) in [
        (format!("/agents/{}", agent.agent_id), format!("/permissions/{permission}")),
        (format!("/agents/{}", agent.agent_id), format!("/roles/{with}")),
        (of(&ann), format!("/permissions/{permission}")),
        (of(&ann), format!("/consents/{}", app.client_id)),
        (format!("/roles/{with}"), format!("/users/{}", ann.id)),
        (format!("/roles/{with}"), format!("/groups/{with}")),
        (format!("/roles/{with}"), format!("/permissions/{permission}")),
    ] {
        org.admin("DELETE", &format!("{record}{part}")).send().ok();
    }
}
