//! What one organization decides by is nothing to another (contract 2.6, 2.7, 2.8, 2.14, security MT-06): every route that
//! takes an id, with ids of another organization and the best credentials of one's own.

use lumoauth_tests::{Org, Request, ServedRoute, Server, int, list, on_each_backend, text, unique};
use serde_json::{Value, json};

use crate::{
    approvals::{Approver, approver_with, opened},
    jit::{asked, detail, opened as opened_task, reviewer},
};

on_each_backend!(
    ids_of_another_organization_are_unknown,
    names_of_another_organization_mean_nothing_in_bodies,
    relations_of_another_organization_are_not_seen,
    entries_and_proofs_are_of_one_log,
    consistency_token_of_another_organization_is_refused,
);

/// What an organization has, by id.
struct Theirs<'a> {
    org: Org<'a>,
    kind: String,
    permission: String,
    role: Value,
    group: String,
    policy: String,
    attribute: Value,
    namespace: String,
    agent: lumoauth_tests::Agent<'a>,
    agent_token: String,
    alice: Approver<'a>,
    approval: String,
    task: String,
    waiting: String,
    granted: String,
}

fn made(org: &Org<'_>, method: &str, path: &str, members: Value) -> Value {
    let answer = org.request(method, path).api_key(org.key()).json(members).send();
    assert!(matches!(answer.status, 200 | 201), "{path}: {answer}");
    answer.json()["data"].clone()
}

impl<'a> Theirs<'a> {
    fn new(org: Org<'a>) -> Self {
        let kind = unique("kind");
        let permission = format!("{kind}.read");
        let role = made(
            &org,
            "POST",
            "/admin/roles",
            json!({ "name": unique("role"), "permissions": [permission] }),
        );
        let policy =
            json!({ "name": unique("policy"), "effect": "deny", "resourceType": kind, "action": "write" });
        let policy = made(&org, "POST", "/abac/policies", policy)["id"].to_string().replace('"', "");
        let attribute =
            json!({ "name": unique("attribute"), "attributeType": "resource", "dataType": "string" });
        let attribute = made(&org, "POST", "/abac/attributes", attribute);
        let namespace = unique("space").replace('-', "_");
        let rules = json!({ "relations": { "viewer": "this" } });
        let defined = org.request("PUT", &format!("/zanzibar/namespaces/{namespace}"));
        let defined = defined.api_key(org.key()).json(rules).send();
        assert!(matches!(defined.status, 200 | 201), "{defined}");
        let tuple = json!({ "tuple": format!("document:{kind}#viewer@user:a") });
        let written = org.request("POST", "/zanzibar/tuples").api_key(org.key()).json(tuple).send();
        assert!(matches!(written.status, 200 | 201), "{written}");

        let alice = approver_with(&org, json!({}));
        let agent = org.delegate(&["read:a"]);
        agent.admin("POST", "/roles").json(json!({ "role": role["slug"] })).send().ok();
        let body = json!({ "role": role["slug"] });
        org.admin("POST", &format!("/users/{}/roles", alice.person.id)).json(body).send().ok();
        let agent_token = agent.token();
        let approval = opened(&agent, &agent_token, &alice);
        let task = opened_task(&agent, &agent_token);
        let request = |action: &str| {
            let made = asked(&agent, &agent_token, &task, detail("file_access", &[action]));
            text(&made["request_id"]).to_owned()
        };
        let (waiting, granted) = (request("delete"), request("read"));
        let group = unique("group");
        Self {
            org: org.clone(),
            kind,
            permission,
            role,
            group,
            policy,
            attribute,
            namespace,
            agent,
            agent_token,
            alice,
            approval,
            task,
            waiting,
            granted,
        }
    }

    /// All of it, as they see it.
    fn seen(&self) -> Vec<Value> {
        let key = |path: String| self.org.get(&path).api_key(self.org.key()).send().ok();
        let agent = |path: String| self.org.get(&path).bearer(&self.agent_token).send().ok();
        let Self { role, permission, policy, kind, .. } = self;
        let role = text(&role["slug"]);
        let namespaces = key("/zanzibar/namespaces".to_owned())["data"].clone();
        let own = list(&namespaces).iter().find(|it| it.to_string().contains(&self.namespace)).cloned();
        vec![
            key(format!("/admin/roles/{role}")),
            key(format!("/admin/roles/{role}/permissions")),
            key(format!("/admin/roles/{role}/users")),
            key(format!("/admin/permissions/{permission}")),
            key(format!("/abac/policies/{policy}")),
            key(format!("/abac/attributes/{}", self.attribute["id"].to_string().replace('"', ""))),
            key(format!("/zanzibar/tuples?object=document:{kind}")),
            key(format!("/admin/agents/{}/roles", self.agent.agent_id)),
            key(format!("/admin/users/{}/roles", self.alice.person.id)),
            own.expect("their namespace"),
            agent(format!("/agents/me/approvals/{}/status", self.approval)),
            agent(format!("/jit/request/{}/status", self.waiting)),
            agent(format!("/jit/request/{}/status", self.granted)),
        ]
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
enum By {
    Key,
    Agent,
    Person,
}

fn ids_of_another_organization_are_unknown(server: &Server) {
    let ours = server.acme();
    let theirs = Theirs::new(server.globex());
    let (_, boss) = reviewer(&ours);
    let manager = ours.person_with(json!({ "isAdmin": true, "approver": { "enabled": true } }));
    let manager = manager.in_person("openid approvals.manage");
    let spy = ours.delegate(&["read:a"]).token();
    let own_role = made(&ours, "POST", "/admin/roles", json!({ "name": unique("role") }));
    let own_role = text(&own_role["slug"]).to_owned();
    let own_agent = ours.agent(&[]).agent_id;

    let Theirs { permission, role, group, policy, attribute, namespace, alice, .. } = &theirs;
    let (slug, person, agent) = (text(&role["slug"]), &alice.person.id, &theirs.agent.agent_id);
    let attribute_id = attribute["id"].to_string().replace('"', "");
    let attribute = text(&attribute["slug"]);
    let changed = json!({ "name": "Changed", "description": "Changed" });
    let of_policy = json!({ "name": "Changed", "effect": "allow", "resourceType": "*", "action": "*" });
    let permissions = json!({ "permissions": ["read:a"], "permission": "read:a" });
    let given = json!({ "role": own_role, "roles": [own_role] });
    let none = Value::Null;
    let mut rows: Vec<(By, &str, String, &Value)> = Vec::new();
    let mut add = |by: By, path: String, methods: &[(&'static str, &'static str)]| {
        for (method, body) in methods {
            let body = match *body {
                "changed" => &changed,
                "policy" => &of_policy,
                "permissions" => &permissions,
                "given" => &given,
                _ => &none,
            };
            rows.push((by, method, path.clone(), body));
        }
    };
    const READ: (&str, &str) = ("GET", "");
    const GONE: (&str, &str) = ("DELETE", "");
    let put = |body| [("PUT", body), ("PATCH", body)];
    add(By::Key, format!("/abac/policies/{policy}"), &[READ, put("policy")[0], put("changed")[1], GONE]);
    add(By::Key, format!("/abac/policies/{policy}/toggle"), &[("POST", "")]);
    let path = format!("/abac/attributes/{attribute_id}");
    add(By::Key, path, &[READ, put("changed")[0], put("changed")[1], GONE]);
    add(By::Key, format!("/zanzibar/namespaces/{namespace}"), &[GONE]);
    let path = format!("/admin/roles/{slug}");
    add(By::Key, path.clone(), &[READ, put("changed")[0], put("changed")[1], GONE]);
    let sent = [READ, ("PUT", "permissions"), ("POST", "permissions")];
    add(By::Key, format!("{path}/permissions"), &sent);
    add(By::Key, format!("{path}/permissions/{permission}"), &[GONE]);
    add(By::Key, format!("{path}/users"), &[READ]);
    add(By::Key, format!("{path}/users/{person}"), &[GONE]);
    add(By::Key, format!("/admin/roles/{own_role}/users/{person}"), &[GONE]);
    add(By::Key, format!("{path}/groups"), &[READ]);
    add(By::Key, format!("{path}/groups/{group}"), &[GONE]);
    let path = format!("/admin/permissions/{permission}");
    add(By::Key, path, &[READ, put("changed")[0], put("changed")[1], GONE]);
    let path = format!("/admin/agents/{agent}");
    let sent = [READ, ("POST", "given"), ("PUT", "given"), ("DELETE", "given")];
    add(By::Key, format!("{path}/roles"), &sent);
    add(By::Key, format!("{path}/roles/{slug}"), &[GONE]);
    add(By::Key, format!("/admin/agents/{own_agent}/roles/{slug}"), &[GONE]);
    add(By::Key, format!("{path}/permissions"), &[READ, ("POST", "permissions")]);
    add(By::Key, format!("{path}/permissions/{permission}"), &[GONE]);
    let path = format!("/admin/users/{person}");
    add(By::Key, format!("{path}/roles"), &[READ, ("POST", "given"), ("PUT", "given")]);
    add(By::Key, format!("{path}/roles/{slug}"), &[GONE]);
    add(By::Key, format!("{path}/permissions"), &[READ, ("POST", "permissions")]);
    add(By::Key, format!("{path}/permissions/{permission}"), &[GONE]);
    for id in [&theirs.waiting, &theirs.granted] {
        add(By::Agent, format!("/jit/request/{id}/status"), &[READ]);
        add(By::Agent, format!("/jit/request/{id}/token"), &[("POST", "")]);
        add(By::Person, format!("/jit/approve/{id}"), &[("POST", "")]);
        add(By::Person, format!("/jit/deny/{id}"), &[("POST", "")]);
    }
    for by in [By::Agent, By::Person] {
        add(by, format!("/jit/task/{}/complete", theirs.task), &[("POST", "")]);
        add(by, format!("/jit/task/{}/evaluate", theirs.task), &[("POST", "")]);
    }
    add(By::Agent, format!("/agents/me/approvals/{}/status", theirs.approval), &[READ]);
    add(By::Person, format!("/approvals/{}/approve", theirs.approval), &[("POST", "")]);
    add(By::Person, format!("/approvals/{}/deny", theirs.approval), &[("POST", "")]);
    let path = |of: &str| format!("/abac/{of}/attributes/{attribute}");
    for of in [format!("resources/{}/1", theirs.kind), format!("users/{person}"), format!("agents/{agent}")] {
        rows.push((By::Person, "PUT", path(&of), &none));
    }

    let before = theirs.seen();
    let value = json!({ "value": "changed" });
    for (by, method, path, body) in &rows {
        let request: Request = match by {
            By::Key => ours.request(method, path).api_key(ours.key()),
            By::Agent => ours.request(method, path).bearer(&spy),
            By::Person if path.starts_with("/approvals") || path.starts_with("/abac") => {
                ours.request(method, path).bearer(&manager)
            }
            By::Person => ours.request(method, path).bearer(&boss),
        };
        let request = match (body.is_null(), path.starts_with("/abac/") && *method == "PUT") {
            (true, true) => request.json(value.clone()),
            (true, false) => request,
            (false, _) => request.json((*body).clone()),
        };
        let answer = request.send();
        assert!(matches!(answer.status, 403 | 404), "{by:?} {method} {path}: {answer}");
        let shown = answer.text();
        for theirs in [&theirs.kind, &alice.person.email] {
            assert!(!shown.contains(theirs.as_str()) || path.contains(theirs.as_str()), "{path}: {shown}");
        }
        // With ids of nobody it is the same.
        if matches!(by, By::Key) {
            assert_eq!(answer.status, 404, "{method} {path}: {answer}");
        }
    }
    assert_eq!(theirs.seen(), before, "something of theirs changed");

    // Every route that takes an id was tried.
    let is_ours = |pattern: &str| {
        let parts = [
            "/abac/",
            "/zanzibar/",
            "/admin/roles",
            "/admin/permissions",
            "/approvals",
            "/jit/",
            "/agents/me/approvals",
        ];
        let of_holders = pattern.starts_with("/admin/agents/{}/") || pattern.starts_with("/admin/users/{}/");
        pattern.contains("{}")
            && (parts.iter().any(|part| pattern.starts_with(part))
                || of_holders && (pattern.contains("/roles") || pattern.contains("/permissions")))
    };
    // What anybody may write under any name of their own, or needs a body that names theirs, is tried elsewhere.
    let elsewhere = [
        ("PUT", "/zanzibar/namespaces/{}"),
        ("GET", "/abac/resources/{}/{}/attributes"),
        ("POST", "/admin/roles/{}/users"),
        ("POST", "/admin/roles/{}/groups"),
    ];
    for route in ServedRoute::all() {
        let (method, pattern) = (route.method, route.pattern());
        let tried = rows.iter().any(|(_, by, path, _)| *by == method && route.is_at(path));
        assert!(
            tried || !is_ours(&pattern) || elsewhere.contains(&(method, &pattern)),
            "{method} {pattern} was not tried"
        );
    }
}

fn names_of_another_organization_mean_nothing_in_bodies(server: &Server) {
    let ours = server.acme();
    let theirs = Theirs::new(server.globex());
    let before = theirs.seen();
    let own = ours.agent(&[]);
    let own_role = made(&ours, "POST", "/admin/roles", json!({ "name": unique("role") }));
    let own_role = text(&own_role["slug"]);
    let slug = text(&theirs.role["slug"]);
    let (person, agent) = (&theirs.alice.person, &theirs.agent);
    let refused = |method: &str, path: &str, body: Value| {
        let answer = ours.request(method, path).api_key(ours.key()).json(body.clone()).send();
        assert!(matches!(answer.status, 400 | 403 | 404), "{path} {body}: {answer}");
    };
    refused("POST", &format!("/admin/agents/{}/roles", own.agent_id), json!({ "role": slug }));
    refused("PUT", &format!("/admin/agents/{}/roles", own.agent_id), json!({ "roles": [slug] }));
    for user in [&person.id, &person.email] {
        refused(
            "POST",
            &format!("/admin/roles/{own_role}/users"),
            json!({ "user": user, "users": [user], "userIds": [user] }),
        );
        refused(
            "POST",
            "/authz/check",
            json!({ "permission": "read:a", "subject": { "type": "user", "id": user } }),
        );
    }
    for id in [&agent.agent_id, &agent.slug] {
        refused(
            "POST",
            "/authz/check",
            json!({ "permission": "read:a", "subject": { "type": "agent", "id": id } }),
        );
        let evaluation = json!({
            "subject": { "type": "agent", "id": id }, "action": { "name": "read" },
            "resource": { "type": theirs.kind, "id": "1" },
        });
        refused("POST", "/authz/v1/evaluation", evaluation);
    }
    // A role, a group and a policy of theirs are none of ours.
    assert_eq!(own.ask(&own.token(), &theirs.permission).ok()["allowed"], false);
    let token = own.token();
    let check = json!({ "resourceType": theirs.kind, "action": "write" });
    let answer = ours.post("/abac/check").bearer(&token).json(check).send().ok();
    assert_eq!((&answer["matchedPolicies"], &answer["allowed"]), (&json!([]), &json!(false)), "{answer}");
    // Nor does a task or a grant of theirs take a request of ours.
    for task in [&theirs.task, &theirs.waiting] {
        let body = json!({ "task_id": task, "authorization_details": detail("file_access", &["read"]) });
        ours.post("/jit/request").bearer(&token).json(body).send().refused(404, "not_found");
    }
    let parent = json!({ "parent_task_id": theirs.task });
    let answer = ours.post("/jit/task").bearer(&token).json(parent).send();
    assert!(matches!(answer.status, 400 | 403 | 404), "{answer}");
    // What their agents may do is not told here, and what was agreed to is not used up.
    theirs.alice.says("approve", &theirs.approval).ok();
    for consume in ["false", "true"] {
        let fields = [
            ("token", theirs.approval.as_str()),
            ("client_id", &own.client_id),
            ("client_secret", &own.secret),
            ("consume", consume),
        ];
        assert_eq!(ours.post("/oauth/introspect").form(&fields).send().ok(), json!({ "active": false }));
    }
    assert_eq!(theirs.org.introspect(&theirs.agent, &theirs.approval)["active"], true);
    let mut after = theirs.seen();
    assert_eq!(after[10]["status"], "approved");
    after[10] = before[10].clone();
    assert_eq!(after, before, "something of theirs changed");
}

fn relations_of_another_organization_are_not_seen(server: &Server) {
    let ours = server.acme();
    let theirs = Theirs::new(server.globex());
    let before = theirs.seen();
    let post = |path: &str, body: Value| ours.post(path).api_key(ours.key()).json(body).send();
    let object = format!("document:{}", theirs.kind);
    for path in ["/zanzibar/check", "/authz/zanzibar/check"] {
        let body = json!({ "object": object, "relation": "viewer", "subject": "user:a" });
        assert_eq!(post(path, body).ok()["allowed"], false);
        let body =
            json!({ "object": format!("{}:1", theirs.namespace), "relation": "viewer", "subject": "user:a" });
        assert_eq!(post(path, body).expect(400).json()["code"], "ZANZIBAR_CHECK_FAILED");
    }
    for path in ["/zanzibar/expand", "/authz/zanzibar/expand"] {
        let tree = post(path, json!({ "object": object, "relation": "viewer" })).ok()["tree"].to_string();
        assert!(!tree.contains("user:a"), "{tree}");
    }
    for path in ["/zanzibar/objects", "/authz/zanzibar/objects"] {
        let body = json!({ "object_type": "document", "relation": "viewer", "subject": "user:a" });
        let found = post(path, body).ok()["objects"].to_string();
        assert!(!found.contains(&theirs.kind), "{found}");
    }
    let get = |path: String| ours.get(&path).api_key(ours.key()).send().ok();
    assert_eq!(get(format!("/zanzibar/tuples?object={object}"))["data"], json!([]));
    assert!(!get("/zanzibar/namespaces".to_owned()).to_string().contains(&theirs.namespace));
    let tuple = json!({ "object": object, "relation": "viewer", "subject": "user:a" });
    ours.request("DELETE", "/zanzibar/tuples")
        .api_key(ours.key())
        .json(tuple)
        .send()
        .refused(404, "not_found");
    // The same name here is another namespace.
    let path = format!("/zanzibar/namespaces/{}", theirs.namespace);
    let rules = json!({ "relations": { "reader": "this" } });
    let defined = ours.request("PUT", &path).api_key(ours.key()).json(rules).send();
    assert!(matches!(defined.status, 200 | 201), "{defined}");
    ours.request("DELETE", &path).api_key(ours.key()).send();
    assert_eq!(theirs.seen(), before, "something of theirs changed");
}

fn entries_and_proofs_are_of_one_log(server: &Server) {
    let ours = server.acme();
    let (theirs, kind) = (server.globex(), unique("kind"));
    let mark = theirs.create_agent(json!({ "name": kind }));
    let entry = theirs.audit(&format!("targetId={}", mark.agent_id)).remove(0);
    let seq = int(&entry["id"]);
    let get = |org: &Org<'_>, path: &str| org.admin("GET", path).send();
    for filter in ["targetId", "actorId", "search"] {
        let found = ours.audit(&format!("{filter}={}", mark.agent_id));
        assert!(found.is_empty(), "{filter}: {found:?}");
    }
    for path in [
        format!("/audit-logs/{seq}"),
        format!("/audit-logs/export?format=json&targetId={}", mark.agent_id),
        format!("/audit-logs/export?format=csv&targetId={}", mark.agent_id),
        format!("/audit-logs/tree/export?after={}&limit=1", seq - 1),
    ] {
        for prefix in ["", "/admin"] {
            let answer = ours.get(&format!("{prefix}{path}")).api_key(ours.key()).send();
            let shown = answer.text();
            assert!(matches!(answer.status, 200 | 400 | 404), "{path}: {answer}");
            assert!(!shown.contains(&mark.agent_id) && !shown.contains(&kind), "{path}: {shown}");
        }
    }
    // The entry of the same number here is another one, or none.
    let leaf = |org: &Org<'_>| {
        let answer = get(org, &format!("/audit-logs/tree/inclusion?seq={seq}"));
        (answer.status == 200).then(|| answer.json()["data"]["leaf"].clone())
    };
    let of_theirs = leaf(&theirs);
    assert!(of_theirs.is_some());
    assert_ne!(leaf(&ours), of_theirs);
    let head = |org: &Org<'_>| get(org, "/audit-logs/tree/head").ok()["data"].clone();
    assert_ne!(head(&ours)["root"], head(&theirs)["root"]);
    // Neither log is open to the key of the other.
    for path in ["", "/actions", "/stats", "/export", "/tree/head", "/tree/checkpoints", "/tree/export"] {
        let answer = theirs.get(&format!("/audit-logs{path}")).api_key(ours.key()).send();
        assert!(matches!(answer.status, 401 | 403), "{path}: {answer}");
    }
}

fn consistency_token_of_another_organization_is_refused(server: &Server) {
    let (ours, theirs) = (server.acme(), server.globex());
    let write = |org: &Org<'_>, object: &str| {
        let body = json!({ "tuple": format!("{object}#viewer@user:a") });
        let post = org.request("POST", "/zanzibar/tuples").api_key(org.key()).json(body);
        post.send().expect(201).json()["consistency_token"].clone()
    };
    let object = format!("document:{}", unique("d"));
    let (of_ours, of_theirs) = (write(&ours, &object), write(&theirs, &object));
    let ask = |org: &Org<'_>, path: &str, token: &Value| {
        let body = json!({
            "object": object, "object_type": "document", "relation": "viewer", "subject": "user:a",
            "consistency_token": token,
        });
        let mut body = body;
        let named = if path.ends_with("objects") { "object" } else { "object_type" };
        body.as_object_mut().expect("members").remove(named);
        org.post(path).api_key(org.key()).json(body).send()
    };
    for path in ["/zanzibar/check", "/zanzibar/expand", "/zanzibar/objects"] {
        ask(&ours, path, &of_ours).ok();
        ask(&theirs, path, &of_theirs).ok();
        // However many changes the other one has seen.
        ask(&ours, path, &of_theirs).refused(400, "validation_error");
        ask(&theirs, path, &of_ours).refused(400, "validation_error");
    }
    // A revision without its organization is none, however it is written.
    let token = text(&of_ours);
    let (revision, of) = token.rsplit_once('_').expect("two parts");
    for changed in [
        revision.to_owned(),
        format!("{revision}_"),
        format!("{revision}_00000000"),
        token.to_uppercase(),
        token.replacen("zk_", "zk_+", 1),
        token.replacen("zk_", "zk_0", 1),
        format!("zk__{of}"),
    ] {
        ask(&ours, "/zanzibar/check", &json!(changed)).refused(400, "validation_error");
    }
}
