//! Administrators who edit one record at the same time lose nothing: every answer names the version that it shows, and whoever
//! says which version they change changes no other (security AD-05, RFC 9110 section 13.1.1).

use lumoauth_tests::{Org, Request, Response, Server, at_once, list, on_each_backend, text, unique};
use serde_json::{Value, json};

use crate::admin_matrix::{Kind, target};

on_each_backend!(
    one_of_fifty_editors_of_a_version_wins,
    no_edit_of_many_is_lost,
    one_of_fifty_removes_what_it_saw,
    every_record_has_versions,
    a_changed_status_has_a_version,
    a_record_made_anew_has_another_version,
    everything_that_changes_a_record_heeds_its_version,
    risks_have_a_version,
    what_names_no_version_is_refused,
    no_precondition_is_overlooked,
);

const EDITORS: usize = 50;

/// A record that can be edited.
struct Editable<'a> {
    org: Org<'a>,
    path: String,
    /// The methods beside PATCH.
    methods: &'static [&'static str],
}

impl Editable<'_> {
    fn send(&self, method: &str, tag: Option<&str>, body: Option<Value>) -> Response {
        let request = self.org.request(method, &self.path).api_key(self.org.key());
        let request = tag.into_iter().fold(request, |it, tag| it.header("If-Match", tag));
        body.into_iter().fold(request, Request::json).send()
    }

    fn rename(&self, method: &str, tag: &str, name: &str) -> Response {
        self.send(method, Some(tag), Some(json!({ "name": name })))
    }

    fn tag(&self) -> String {
        tag(&self.send("GET", None, None).expect(200))
    }

    #[track_caller]
    fn is_named(&self, name: &str) {
        assert_eq!(self.send("GET", None, None).ok()["data"]["name"], name, "{}", self.path);
    }
}

#[track_caller]
fn tag(answer: &Response) -> String {
    let tag = answer.header("ETag").unwrap_or_else(|| panic!("no ETag: {answer}"));
    assert!(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    tag.to_owned()
}

#[track_caller]
fn refused(answer: Response) {
    answer.refused(412, "precondition_failed");
}

/// One record of every kind.
fn records<'a>(org: &Org<'a>) -> Vec<Editable<'a>> {
    let made = |path: &str, members: Value| {
        org.request("POST", path).api_key(org.key()).json(members).send().expect(201).json()["data"].clone()
    };
    let id = |record: &Value| record["id"].to_string().replace('"', "");
    let role = made("/admin/roles", json!({ "name": unique("role") }));
    let permission = made("/admin/permissions", json!({ "slug": format!("{}.read", unique("doc")) }));
    let policy =
        json!({ "name": unique("policy"), "effect": "deny", "resourceType": unique("doc"), "action": "*" });
    let policy = made("/abac/policies", policy);
    let attribute = json!({ "name": unique("attribute"), "attributeType": "user", "dataType": "string" });
    let attribute = made("/abac/attributes", attribute);
    let server = org.mcp_server(json!({}));
    let paths = [
        format!("/admin/agents/{}", org.agent(&["read:a"]).agent_id),
        format!("/admin/roles/{}", text(&role["slug"])),
        format!("/admin/permissions/{}", text(&permission["slug"])),
        format!("/abac/policies/{}", id(&policy)),
        format!("/abac/attributes/{}", id(&attribute)),
        format!("/admin/mcp/servers/{}", text(&server["server_id"])),
        format!("/admin/aauth/agents/{}", org.aauth_agent(json!({})).id),
        format!("/admin/aauth/resources/{}", org.aauth_resource(json!({})).id),
    ];
    let all = |path| Editable { org: org.clone(), path, methods: &["PUT", "DELETE"] };
    let person = format!("/admin/users/{}", org.person().id);
    let person = Editable { org: org.clone(), path: person, methods: &[] };
    paths.into_iter().map(all).chain([person]).collect()
}

fn one_of_fifty_editors_of_a_version_wins(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&["read:a"]);
    let record =
        Editable { org: org.clone(), path: format!("/admin/agents/{}", agent.agent_id), methods: &[] };
    let seen = record.tag();

    let answers = at_once(EDITORS, |n| record.rename("PATCH", &seen, &format!("Editor {n}")));

    let won: Vec<_> = (0..EDITORS).filter(|n| answers[*n].status == 200).collect();
    assert_eq!(won.len(), 1, "{won:?}");
    for (_, answer) in answers.into_iter().enumerate().filter(|(n, _)| !won.contains(n)) {
        refused(answer);
    }
    record.is_named(&format!("Editor {}", won[0]));
    assert_eq!(org.audit(&format!("action=agent.updated&targetId={}", agent.agent_id)).len(), 1);
}

fn no_edit_of_many_is_lost(server: &Server) {
    let org = server.acme();
    let role = json!({ "name": unique("role") });
    let role = org.admin("POST", "/roles").json(role).send().expect(201).json()["data"].clone();
    let record =
        Editable { org: org.clone(), path: format!("/admin/roles/{}", text(&role["slug"])), methods: &[] };
    let wanted: Vec<_> = (0..EDITORS).map(|n| format!("{}.edit{n}", unique("doc"))).collect();

    at_once(wanted.len(), |n| {
        loop {
            let read = record.send("GET", None, None).expect(200);
            let seen = read.json()["data"]["permissions"].clone();
            let mut slugs: Vec<_> = list(&seen).iter().map(|it| it["slug"].clone()).collect();
            slugs.push(wanted[n].clone().into());
            let answer = record.send("PUT", Some(&tag(&read)), Some(json!({ "permissions": slugs })));
            if answer.status == 200 {
                return;
            }
            refused(answer);
        }
    });

    let role = record.send("GET", None, None).ok();
    assert_eq!(list(&role["data"]["permissions"]).len(), wanted.len(), "{role}");
}

fn one_of_fifty_removes_what_it_saw(server: &Server) {
    let org = server.acme();
    for record in records(&org).into_iter().filter(|record| record.methods.contains(&"DELETE")) {
        let seen = record.tag();
        let happened = at_once(EDITORS, |n| {
            let answer = match n % 2 {
                0 => record.send("DELETE", Some(&seen), None),
                _ => record.rename("PATCH", &seen, &format!("Editor {n}")),
            };
            // Whoever comes after a removal finds nothing.
            assert!(matches!(answer.status, 200 | 404 | 412), "{}: {answer}", record.path);
            answer.status == 200
        });
        let won = happened.iter().filter(|happened| **happened).count();
        assert_eq!(won, 1, "{}: {happened:?}", record.path);
    }
}

fn every_record_has_versions(server: &Server) {
    for record in records(&server.acme()) {
        let first = record.tag();
        assert_eq!(record.tag(), first, "{}", record.path);
        let second = tag(&record.rename("PATCH", &first, "Second").expect(200));
        assert_ne!(second, first, "{}", record.path);
        assert_eq!(record.tag(), second, "{}", record.path);

        for method in record.methods.iter().chain(&["PATCH"]) {
            for stale in [&*first, &format!("W/{second}"), "\"nothing\"", "\"\"", &format!("{first}, \"x\"")]
            {
                refused(record.rename(method, stale, "Stale"));
            }
        }
        record.is_named("Second");
        // What changes nothing is no reason to take no look.
        refused(record.rename("PATCH", &first, "Second"));

        record.rename("PATCH", &format!("\"x\", W/\"y\" , {second}"), "Third").expect(200);
        record.rename("PATCH", "*", "Fourth").expect(200);
        record.is_named("Fourth");
        if record.methods.contains(&"DELETE") {
            let last = record.tag();
            record.send("DELETE", Some(&last), None).expect(200);
            // Without the precondition it is not found either (RFC 9110 section 13.2.1).
            for tag in [&*last, "*"] {
                record.rename("PATCH", tag, "Gone").expect(404);
                record.send("DELETE", Some(tag), None).expect(404);
            }
        }
    }
}

fn a_changed_status_has_a_version(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let path = format!("/admin/agents/{}", agent.agent_id);
    let record = Editable { org: agent.org.clone(), path, methods: &[] };
    for change in ["deactivate", "activate", "disable", "enable", "revoke"] {
        let before = record.tag();
        let changed = agent.admin("POST", &format!("/{change}")).header("If-Match", &before).send();
        let after = tag(&changed.expect(200));
        assert_eq!((after != before, record.tag()), (true, after), "{change}");
    }
}

fn a_record_made_anew_has_another_version(server: &Server) {
    let org = server.acme();
    let (slug, name) = (unique("again"), unique("Again"));
    let make = || {
        let members = json!({ "name": name, "slug": slug });
        tag(&org.admin("POST", "/agents").json(members).send().expect(201))
    };
    let old = make();
    org.admin("DELETE", &format!("/agents/{slug}")).header("If-Match", &old).send().expect(200);
    make();
    refused(org.admin("DELETE", &format!("/agents/{slug}")).header("If-Match", &old).send());
    org.admin("GET", &format!("/agents/{slug}")).send().expect(200);
}

fn everything_that_changes_a_record_heeds_its_version(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&["read:a"]);
    let role = json!({ "name": unique("role"), "permissions": [format!("{}.read", unique("doc"))] });
    let role = org.admin("POST", "/roles").json(role).send().expect(201).json()["data"]["slug"].clone();
    let client = json!({ "name": unique("Client"), "redirectUris": ["https://c.example/cb"] });
    let client = org.admin("POST", "/clients").json(client).send().expect(201).json()["data"]["id"].clone();
    let policy =
        json!({ "name": unique("policy"), "effect": "deny", "resourceType": unique("doc"), "action": "*" });
    let policy = org.request("POST", "/abac/policies").api_key(org.key()).json(policy).send().expect(201);
    let policy = policy.json()["data"]["id"].clone();
    let one = format!("/admin/agents/{}", agent.agent_id);
    let role = format!("/admin/roles/{}", text(&role));
    let person = format!("/admin/users/{}", org.person().id);
    let verbs = [
        ("POST", &one, "/deactivate", json!({})),
        ("POST", &one, "/activate", json!({})),
        ("POST", &one, "/disable", json!({})),
        ("POST", &one, "/enable", json!({})),
        ("POST", &one, "/rotate-credentials", json!({})),
        ("POST", &one, "/rotate-key", json!({})),
        ("POST", &one, "/revoke-key", json!({})),
        ("PUT", &one, "/scopes", json!({ "scopes": ["read:b"] })),
        ("PUT", &one, "/budget", json!({ "maxTokensPerDay": 5 })),
        ("POST", &one, "/budget/reset", json!({})),
        ("POST", &one, "/revoke", json!({})),
        ("PUT", &role, "/permissions", json!({ "permissions": ["a.read"] })),
        ("POST", &role, "/permissions", json!({ "permissions": ["b.read"] })),
        ("DELETE", &role, "/permissions/a.read", json!({})),
        ("POST", &person, "/block", json!({})),
        ("POST", &person, "/unblock", json!({})),
        ("POST", &format!("/admin/clients/{client}"), "/rotate-secret", json!({})),
        ("POST", &format!("/abac/policies/{policy}"), "/toggle", json!({})),
    ];
    for (method, path, verb, body) in verbs {
        let read = || org.request("GET", path).api_key(org.key()).send().expect(200);
        let send = |tag: &str| {
            let request = org.request(method, &format!("{path}{verb}")).api_key(org.key());
            request.header("If-Match", tag).json(body.clone()).send()
        };
        let before = read();
        refused(send("\"another\""));
        let after = read();
        assert_eq!((before.json(), tag(&before)), (after.json(), tag(&after)), "{path}{verb}");
        send(&tag(&before)).expect(200);
        assert_ne!(tag(&read()), tag(&before), "{path}{verb}");
    }
}

fn risks_have_a_version(server: &Server) {
    let org = server.acme();
    let set = |tag: &str, risk: &str| {
        let body = json!({ "types": { (unique("kind")): risk } });
        org.admin("PUT", "/jit/risk").header("If-Match", tag).json(body).send()
    };
    let seen = tag(&org.admin("GET", "/jit/risk").send().expect(200));
    let next = tag(&set(&seen, "high").expect(200));
    refused(set(&seen, "low"));
    assert_eq!(tag(&org.admin("GET", "/jit/risk").send().expect(200)), next);
    org.admin("PUT", "/jit/risk").json(json!({ "types": {} })).send().expect(200);
}

fn what_names_no_version_is_refused(server: &Server) {
    let org = server.acme();
    for record in records(&org) {
        let before = record.send("GET", None, None).json();
        for malformed in ["", "abc", "\"abc", "\"a\" \"b\"", "*, \"a\"", "w/\"a\"", ","] {
            for method in record.methods.iter().chain(&["PATCH"]) {
                record.rename(method, malformed, "Malformed").refused(400, "invalid_request");
            }
        }
        assert_eq!(record.send("GET", None, None).json(), before);
    }
    // Two headers are one list.
    let record = &records(&org)[0];
    let both = record.org.request("PATCH", &record.path).api_key(org.key()).header("If-Match", "\"x\"");
    both.header("If-Match", &record.tag()).json(json!({ "name": "Both" })).send().expect(200);
    // The last words of whoever may not ask are the same with and without it.
    let reader = org.api_key(&["admin:read"]);
    org.request("PATCH", &record.path)
        .api_key(&reader)
        .header("If-Match", "nonsense")
        .json(json!({}))
        .send()
        .expect(403);
}

fn no_precondition_is_overlooked(server: &Server) {
    let target = target(server);
    let changes: Vec<_> = target.routes.iter().filter(|route| route.kind == Kind::Write).collect();
    let mut of_body = 0;
    for route in &changes {
        let request = target.attempt(route).api_key(target.org.key());
        let answer = request.header("If-Match", "nonsense").send();
        assert_eq!(answer.status, 400, "{} {}: {answer}", route.method, route.path);
        of_body += usize::from(!answer.text().contains("If-Match"));
    }
    // Some look at the body first, and what is sent here is good enough for most.
    assert!(of_body < changes.len() / 4, "{of_body} of {}", changes.len());
}
