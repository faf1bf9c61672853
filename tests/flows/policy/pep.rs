//! What a caller says of itself is not what the server saw (contract 2.6 and 2.7): at every door that takes a context.

use lumoauth_tests::{Agent, Response, Server, int, list, on_each_backend, text, unique};
use serde_json::{Value, json};

use super::{ask, some_policy};

on_each_backend!(facts_of_the_server_are_its_own_at_every_door, what_was_claimed_is_kept_apart_in_the_log,);

/// A door, asked about `<kind>.read` with this context.
struct Door {
    name: &'static str,
    body: fn(&Asked<'_>, Value) -> Value,
    /// What it answered.
    allowed: fn(&Value, &str) -> Value,
}

struct Asked<'a> {
    agent: &'a Agent<'a>,
    kind: &'a str,
    mcp: &'a str,
}

impl Asked<'_> {
    fn permission(&self) -> String {
        format!("{}.read", self.kind)
    }

    fn evaluation(&self, context: Value) -> Value {
        json!({
            "subject": { "type": "agent", "id": self.agent.agent_id }, "action": { "name": "read" },
            "resource": { "type": self.kind, "id": "1" }, "context": context,
        })
    }

    fn list(&self, context: Value) -> Value {
        json!({ "permissions": [self.permission()], "context": context })
    }
}

const DOORS: [Door; 13] = [
    Door {
        name: "agents/ask",
        body: |it, context| json!({ "action": it.permission(), "context": context }),
        allowed: |answer, _| answer["allowed"].clone(),
    },
    Door {
        name: "authz/check",
        body: |it, context| json!({ "permission": it.permission(), "context": context }),
        allowed: |answer, _| answer["allowed"].clone(),
    },
    Door {
        name: "authz/check-bulk",
        body: |it, context| it.list(context),
        allowed: |answer, permission| answer["results"][permission].clone(),
    },
    Door {
        name: "authz/check-any",
        body: |it, context| it.list(context),
        allowed: |answer, _| answer["allowed"].clone(),
    },
    Door {
        name: "authz/check-all",
        body: |it, context| it.list(context),
        allowed: |answer, _| answer["allowed"].clone(),
    },
    Door {
        name: "abac/check",
        body: |it, context| json!({ "resourceType": it.kind, "action": "read", "environment": context }),
        allowed: |answer, _| answer["allowed"].clone(),
    },
    Door {
        name: "abac/check",
        body: |it, context| json!({ "resourceType": it.kind, "action": "read", "context": context }),
        allowed: |answer, _| answer["allowed"].clone(),
    },
    Door {
        name: "abac/check-bulk",
        body: |it, context| json!({ "checks": [{ "resourceType": it.kind, "action": "read" }], "environment": context }),
        allowed: |answer, _| answer["results"][0]["allowed"].clone(),
    },
    Door {
        name: "abac/check-bulk",
        body: |it, context| json!({ "checks": [{ "resourceType": it.kind, "action": "read" }], "context": context }),
        allowed: |answer, _| answer["results"][0]["allowed"].clone(),
    },
    Door {
        name: "authz/v1/evaluation",
        body: |it, context| it.evaluation(context),
        allowed: |answer, _| answer["decision"].clone(),
    },
    Door {
        name: "authz/v1/evaluations",
        body: |it, context| json!({ "evaluations": [it.evaluation(context)] }),
        allowed: |answer, _| answer["evaluations"][0]["decision"].clone(),
    },
    Door {
        name: "authz/v1/evaluations",
        body: |it, context| {
            let mut body = it.evaluation(context);
            body["evaluations"] = json!([{}]);
            body
        },
        allowed: |answer, _| answer["evaluations"][0]["decision"].clone(),
    },
    Door {
        name: "agents/me/mcp/authorize",
        body: |it, context| json!({ "server_id": it.mcp, "tool": it.kind, "context": context }),
        allowed: |answer, _| json!(answer["allowed"] == true),
    },
];

/// Every name that is the server's, with a value that is not so.
fn claimed() -> Value {
    json!({
        "ip": "10.1.2.3", "userAgent": "claimed", "requestMethod": "DELETE", "requestPath": "/claimed",
        "time": "1970-01-01T00:00:00Z", "hour": 99, "minute": 99, "dayOfWeek": 8, "isWeekend": "no",
    })
}

fn is_claimed(prefix: &str) -> Vec<Value> {
    let claimed = claimed();
    let members = claimed.as_object().expect("members");
    let one = |(name, value): (&String, &Value)| {
        let attribute = format!("environment.{prefix}{name}");
        json!({ "attribute": attribute, "operator": "equals", "value": value })
    };
    members.iter().map(one).collect()
}

fn facts_of_the_server_are_its_own_at_every_door(server: &Server) {
    let org = server.acme();
    let kind = unique("kind");
    let mcp = org.mcp_server(json!({}));
    let agent = org.agent(&[&format!("{kind}.read"), &format!("tool:{kind}")]);
    let token = agent.token();
    let asked = Asked { agent: &agent, kind: &kind, mcp: text(&mcp["server_id"]) };
    // A policy about the kind is one about the tool of its name as well.
    let policy = |effect: &str, conditions: Value| {
        for (of, action) in [(&*kind, "read"), ("mcp_tool", &*kind)] {
            let members = json!({
                "resourceType": of, "action": action, "effect": effect, "conditions": conditions,
            });
            some_policy(&org, members);
        }
    };
    let answers = |context: &Value| -> Vec<(&str, Value)> {
        let one = |door: &Door| {
            let body = (door.body)(&asked, context.clone());
            let answer: Response = org.post(&format!("/{}", door.name)).bearer(&token).json(body).send();
            assert!(matches!(answer.status, 200 | 403), "{}: {answer}", door.name);
            (door.name, (door.allowed)(&answer.json(), &asked.permission()))
        };
        DOORS.iter().map(one).collect()
    };
    let all = |context: &Value, allowed: bool, why: &str| {
        for (door, answer) in answers(context) {
            assert_eq!(answer, allowed, "{door}: {why}");
        }
    };
    policy("allow", json!({}));
    // Nothing of what is claimed is so.
    policy("deny", json!({ "any": is_claimed("") }));
    all(&json!({}), true, "nothing is claimed");
    all(&claimed(), true, "a claim is no fact");
    // A claim among the claims is none of the server's either, and moves nothing.
    all(&json!({ "pep": { "ip": "10.1.2.3" } }), true, "a claim of a claim is no fact");
    // Where a policy asks what was claimed, it is found.
    policy("deny", json!({ "all": is_claimed("pep.") }));
    all(&claimed(), false, "every claim is under pep");
    all(&json!({}), true, "nothing was claimed");
    // What the server saw, it saw, whatever is claimed.
    let from = json!([{ "attribute": "environment.ip", "operator": "in_cidr", "value": "127.0.0.0/8" }]);
    policy("deny", json!({ "any": from }));
    all(&json!({ "ip": "10.1.2.3" }), false, "the address that the server saw");
    all(&json!({ "ip": null }), false, "the address that the server saw");
}

fn what_was_claimed_is_kept_apart_in_the_log(server: &Server) {
    let agent = server.acme().agent(&["read:a"]);
    let answer = ask(&agent, &agent.token(), "read:a", claimed());
    assert_eq!(answer["context"]["pep"], claimed());
    let rows = agent.org.audit(&format!("auditId={}", text(&answer["audit_id"])));
    let [row] = list(&json!(rows)).to_vec().try_into().expect("one entry");
    let row: Value = agent.org.admin("GET", &format!("/audit-logs/{}", int(&row["id"]))).send().ok();
    let row = if row["data"].is_object() { &row["data"] } else { &row };
    assert_eq!((&row["ipAddress"], &row["status"]), (&json!("127.0.0.1"), &json!("success")), "{row}");
    assert_ne!(row["userAgent"], "claimed");
    assert!(!text(&row["createdAt"]).starts_with("1970"), "{row}");
}
