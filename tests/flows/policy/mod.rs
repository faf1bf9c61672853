//! Roles, attribute policies, relations, and the decision that combines them (contract 2.6, 2.7, 2.15).

mod abac;
mod ask;
mod attributes;
mod authzen;
mod given;
mod order;
mod people;
mod pep;
mod races;
mod relations;
mod replicas;
mod roles;
mod tuples;

use lumoauth_tests::{Agent, Org, Request, unique};
use serde_json::{Value, json};

/// An action that no other test knows: `<type>.read`, and its type.
fn some_action() -> (String, String) {
    let kind = unique("doc");
    (format!("{kind}.read"), kind)
}

/// Asks with a context.
fn ask(agent: &Agent<'_>, token: &str, action: &str, context: Value) -> Value {
    let body = json!({ "action": action, "context": context });
    agent.org.post("/agents/ask").bearer(token).json(body).send().ok()
}

/// Makes a role that permits `permissions`; its slug.
pub(crate) fn some_role(org: &Org<'_>, permissions: &[&str]) -> String {
    let slug = unique("role");
    let body = json!({ "slug": slug, "name": "A role", "permissions": permissions });
    org.admin("POST", "/roles").json(body).send().expect(201);
    slug
}

/// Makes an attribute policy; its object.
fn some_policy(org: &Org<'_>, mut members: Value) -> Value {
    if members["name"].is_null() {
        members["name"] = unique("policy").into();
    }
    admin(org, "POST", "/abac/policies").json(members).send().expect(201).json()["data"].clone()
}

/// Writes one relation.
fn relate(org: &Org<'_>, tuple: &str) {
    let answer = admin(org, "POST", "/zanzibar/tuples").json(json!({ "tuple": tuple })).send();
    assert!([200, 201].contains(&answer.status), "{answer}");
}

/// A request of the administrator to a route that is not below `/admin`.
fn admin(org: &Org<'_>, method: &str, path: &str) -> Request {
    org.request(method, path).api_key(org.key())
}
