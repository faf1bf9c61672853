//! Tuples as they are named, written, found and removed.

use lumoauth_tests::{Server, on_each_backend, percent_encode, unique};
use serde_json::{Value, json};

use super::{admin, relate};

on_each_backend!(
    long_names_are_not_cut,
    what_was_read_can_be_written_and_removed,
    what_is_named_twice_is_named_alike,
    half_a_name_finds_nothing,
    nobody_is_related_who_is_unknown,
    objects_that_an_agent_asks_for_are_in_the_log,
    namespaces_are_found,
);

/// How many tuples a query finds.
fn found(server: &Server, query: &str) -> Value {
    let org = server.acme();
    admin(&org, "GET", &format!("/zanzibar/tuples?{query}")).send().ok()["meta"]["total"].clone()
}

fn long_names_are_not_cut(server: &Server) {
    let org = server.acme();
    let object = format!("document:{}", unique("d").repeat(20).chars().take(233).collect::<String>());
    let relation = format!("{object}#viewer");
    let user = |tail: &str| format!("user:{tail}");
    // Cut after 256 characters, the name of the second is the name of the first.
    let whole = format!("{relation}@{}", user("1017"));
    let cut = &whole[..256];
    assert!(cut.len() < whole.len() && cut.ends_with("user:1"), "{cut}");
    relate(&org, cut);
    relate(&org, &whole);
    let remove = |query: &str| admin(&org, "DELETE", &format!("/zanzibar/tuples?{query}")).send();
    remove(&format!("tuple={}", percent_encode(&whole))).ok();
    let of_object = format!("object={}", percent_encode(&object));
    assert_eq!(found(server, &format!("{of_object}&subject=user:1")), 1, "it is still there");
    assert_eq!(found(server, &format!("{of_object}&subject=user:1017")), 0);
    // A long subject and a long object, each apart.
    let person = format!("user:{}", "x".repeat(255));
    relate(&org, &format!("{object}#editor@{person}"));
    relate(&org, &format!("{object}#editor@{person}y"));
    let editors = format!("{of_object}&relation=editor");
    assert_eq!(found(server, &format!("{editors}&subject={person}y")), 1);
    remove(&format!("{editors}&subject={person}y")).ok();
    assert_eq!(found(server, &format!("{editors}&subject={person}")), 1);
    let longer = format!("{object}{}", "z".repeat(20));
    assert_eq!(found(server, &format!("object={}", percent_encode(&longer))), 0, "that is another object");
    // What is too long for a name is none.
    let endless = format!("document:{}", "z".repeat(300));
    let refused = admin(&org, "GET", &format!("/zanzibar/tuples?object={endless}")).send().expect(400);
    assert_eq!(refused.json()["code"], "ZANZIBAR_CHECK_FAILED");
}

fn what_was_read_can_be_written_and_removed(server: &Server) {
    let org = server.acme();
    let object = format!("document:{}", unique("d"));
    relate(&org, &format!("{object}#viewer@team:x#member"));
    relate(&org, &format!("{object}#owner@user:a"));
    let query = format!("object={object}");
    let items = admin(&org, "GET", &format!("/zanzibar/tuples?{query}")).send().ok()["data"].clone();
    let send = |method: &str, body: Value| admin(&org, method, "/zanzibar/tuples").json(body).send();
    for item in items.as_array().expect("a list") {
        send("DELETE", item.clone()).ok();
        send("POST", item.clone()).expect(201);
    }
    send("DELETE", json!({ "tuples": items })).ok();
    assert_eq!(found(server, &query), 0);
    send("POST", json!({ "tuples": items })).expect(201);
    assert_eq!(found(server, &query), 2);
    // The answer to a check names the relation as well.
    let question = json!({ "object": object, "relation": "owner", "user": "user:a" });
    let path = "/api/v1/authz/zanzibar/check";
    let mut answer = server.request("POST", path).api_key(org.key()).json(question).send().ok();
    answer.as_object_mut().expect("members").remove("path");
    send("DELETE", answer).ok();
    assert_eq!(found(server, &query), 1);
}

fn what_is_named_twice_is_named_alike(server: &Server) {
    let org = server.acme();
    let object = format!("document:{}", unique("d"));
    let tuple = format!("{object}#viewer@user:a");
    for body in [
        json!({ "object": object, "relation": "viewer", "subject": "user:a", "user": "user:b" }),
        json!({ "object": object, "object_type": "document", "object_id": "x", "relation": "viewer", "subject": "user:a" }),
        json!({ "object": object, "relation": "viewer", "user": "user:a", "user_type": "user", "user_id": "b" }),
        json!({ "tuple": tuple, "object": object, "relation": "editor", "subject": "user:a" }),
        json!({ "tuple": tuple, "tuples": [tuple] }),
        json!({ "tuples": [tuple], "object": object, "relation": "viewer", "subject": "user:a" }),
    ] {
        let refused = admin(&org, "POST", "/zanzibar/tuples").json(body.clone()).send();
        assert_eq!(refused.status, 400, "{body}: {refused}");
    }
    assert_eq!(found(server, &format!("object={object}")), 0);
}

fn half_a_name_finds_nothing(server: &Server) {
    let org = server.acme();
    let (object, person) = (format!("document:{}", unique("d")), unique("u"));
    relate(&org, &format!("{object}#viewer@user:{person}"));
    for query in
        ["object_id=1", "user_id=x", "user_relation=member", "subject_type=team&user_relation=member"]
    {
        let refused = admin(&org, "GET", &format!("/zanzibar/tuples?{query}")).send().expect(400);
        assert_eq!(refused.json()["code"], "MISSING_FIELDS", "{query}");
    }
    // An empty name is none, and the next one counts.
    assert_eq!(found(server, &format!("subject=&user=user:{person}")), 1);
    assert_eq!(found(server, &format!("object={object}&subject=&user=user:nobody")), 0);
    assert_eq!(found(server, &format!("object={object}&user_type=user")), 1);
    assert_eq!(found(server, &format!("object={object}&subjectType=user&subjectId={person}")), 1);
}

fn nobody_is_related_who_is_unknown(server: &Server) {
    let org = server.acme();
    let object = format!("document:{}", unique("d"));
    let (agent, person) = (org.agent(&[]), org.person());
    let write =
        |tuple: String| admin(&org, "POST", "/zanzibar/tuples").json(json!({ "tuple": tuple })).send();
    for unknown in [
        "agent:future-bot".to_owned(),
        "agent:agt_00000000000000000000000000000000".to_owned(),
        "agent:future-bot#member".to_owned(),
        format!("user:{}@people.test", unique("nobody")),
    ] {
        write(format!("{object}#viewer@{unknown}")).refused(400, "validation_error");
    }
    write("agent:future-bot#owner@user:a".to_owned()).refused(400, "validation_error");
    write(format!("{object}#viewer@agent:{}", agent.slug)).expect(201);
    write(format!("{object}#viewer@user:{}", person.id)).expect(201);
    // People of other systems have names of their own.
    write(format!("{object}#viewer@user:bob")).expect(201);
    let query = format!("/zanzibar/tuples?object={object}&relation=viewer&subject=agent:{}", agent.slug);
    admin(&org, "DELETE", &query).send().ok();
    assert_eq!(found(server, &format!("object={object}")), 2);
}

fn objects_that_an_agent_asks_for_are_in_the_log(server: &Server) {
    let org = server.acme();
    let agent = org.agent(&[]);
    let object = unique("d");
    relate(&org, &format!("document:{object}#viewer@agent:{}", agent.slug));
    let itself = format!("agent:{}", agent.agent_id);
    let body = json!({ "subject": itself, "relation": "viewer", "object_type": "document" });
    let answer = org.post("/zanzibar/objects").bearer(&agent.token()).json(body).send().ok();
    assert_eq!(answer["objects"], json!([format!("document:{object}")]));
    let entries = org.audit(&format!("action=agent.action&actorId={}", agent.agent_id));
    let context = &entries[0]["context"];
    assert_eq!((&context["action"], &context["objects"]), (&json!("zanzibar.objects"), &json!(1)));
}

fn namespaces_are_found(server: &Server) {
    let org = server.acme();
    let name = unique("ns");
    let rules = json!({ "relations": { "a": "this" } });
    admin(&org, "PUT", &format!("/zanzibar/namespaces/{name}")).json(rules).send().ok();
    let total = |search: &str| {
        let path = format!("/zanzibar/namespaces?search={search}");
        admin(&org, "GET", &path).send().ok()["meta"]["total"].clone()
    };
    assert_eq!((total(&name.to_uppercase()), total("no-such-namespace")), (json!(1), json!(0)));
}
