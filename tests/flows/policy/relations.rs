//! Relations: tuples, namespaces, checks, expansions and reverse look-ups.

use lumoauth_tests::{Agent, Server, on_each_backend, percent_encode, text, unique};
use serde_json::{Value, json};

use super::{admin, relate};

on_each_backend!(
    tuples_are_written_found_and_removed,
    tuples_are_written_together_or_not_at_all,
    checks_follow_the_usual_rules,
    every_form_of_a_question_is_understood,
    what_is_missing_or_unknown_is_refused,
    asking_about_others_needs_leave,
    deep_chains_end_at_the_limit_and_cycles_end,
    namespaces_have_rules_of_their_own,
    expansion_shows_everybody,
    objects_are_found_backwards,
    a_token_says_how_new_an_answer_is,
    an_agent_of_the_same_name_inherits_nothing,
    other_organizations_are_apart,
);

fn check(server: &Server, body: Value) -> lumoauth_tests::Response {
    let key = server.acme().key().to_owned();
    server.request("POST", "/api/v1/authz/zanzibar/check").api_key(&key).json(body).send()
}

fn held(server: &Server, object: &str, relation: &str, subject: &str) -> bool {
    let body = json!({ "object": object, "relation": relation, "subject": subject });
    check(server, body).ok()["allowed"] == true
}

fn tuples_are_written_found_and_removed(server: &Server) {
    let org = server.acme();
    let object = format!("document:{}", unique("d"));
    let body = json!({ "object": object, "relation": "viewer", "subject": "team:x#member" });
    let made = admin(&org, "POST", "/zanzibar/tuples").json(body.clone()).send().expect(201).json();
    assert_eq!(made["data"]["tuple"], format!("{object}#viewer@team:x#member"));
    assert_eq!(
        (&made["data"]["user_type"], &made["data"]["user_relation"]),
        (&json!("team"), &json!("member"))
    );
    // Once more changes nothing.
    admin(&org, "POST", "/zanzibar/tuples").json(body.clone()).send().expect(200);
    let (kind, id) = object.split_once(':').expect("two parts");
    let split = json!({
        "object_type": kind, "object_id": id, "relation": "editor", "user_type": "user", "user_id": "bob",
    });
    admin(&org, "POST", "/zanzibar/tuples").json(split.clone()).send().expect(201);
    let find = |query: &str| {
        let found = admin(&org, "GET", &format!("/zanzibar/tuples?{query}")).send().ok();
        found["data"].as_array().expect("a list").len()
    };
    let of_object = format!("object={}", percent_encode(&object));
    assert_eq!(find(&of_object), 2);
    assert_eq!(find(&format!("{of_object}&relation=editor")), 1);
    assert_eq!(find(&format!("{of_object}&subject={}", percent_encode("team:x#member"))), 1);
    assert_eq!(find(&format!("{of_object}&subject={}", percent_encode("user:eve"))), 0);
    admin(&org, "DELETE", "/zanzibar/tuples").json(body.clone()).send().ok();
    admin(&org, "DELETE", "/zanzibar/tuples").json(body).send().refused(404, "not_found");
    let query =
        format!("/zanzibar/tuples?{of_object}&relation=editor&subject={}", percent_encode("user:bob"));
    admin(&org, "DELETE", &query).send().ok();
    assert_eq!(find(&of_object), 0);
    let tuple = percent_encode(&format!("{object}#editor@user:bob"));
    let events = org.audit(&format!("action=relation.deleted&targetId={tuple}"));
    assert_eq!(events[0]["context"]["tuples"], json!([format!("{object}#editor@user:bob")]));
}

fn tuples_are_written_together_or_not_at_all(server: &Server) {
    let org = server.acme();
    let object = format!("document:{}", unique("d"));
    let good = json!(format!("{object}#viewer@user:a"));
    let write =
        |tuples: Value| admin(&org, "POST", "/zanzibar/tuples").json(json!({ "tuples": tuples })).send();
    write(json!([good, "nonsense"])).refused(400, "invalid_request");
    assert!(!held(server, &object, "viewer", "user:a"));
    let other = json!({ "object": object, "relation": "owner", "user": "user:b" });
    let made = write(json!([good, other, good])).expect(201).json();
    assert_eq!((&made["written"], made["data"].as_array().map(Vec::len)), (&json!(2), Some(2)));
    assert!(held(server, &object, "viewer", "user:a") && held(server, &object, "editor", "user:b"));
    write(json!([])).refused(400, "validation_error");
    write(json!(vec![good; 101])).refused(400, "validation_error");
}

fn checks_follow_the_usual_rules(server: &Server) {
    let org = server.acme();
    let [document, folder, team] =
        ["document", "folder", "team"].map(|kind| format!("{kind}:{}", unique("o")));
    for tuple in [
        format!("{document}#owner@user:owner"),
        format!("{document}#parent@{folder}"),
        format!("{folder}#viewer@{team}#member"),
        format!("{team}#admin@user:admin"),
    ] {
        relate(&org, &tuple);
    }
    for (relation, subject, expected) in [
        ("viewer", "user:owner", true),
        ("editor", "user:owner", true),
        ("viewer", "user:admin", true),
        ("editor", "user:admin", false),
        ("viewer", "user:eve", false),
    ] {
        assert_eq!(held(server, &document, relation, subject), expected, "{relation} {subject}");
    }
    let body = json!({ "object": document, "relation": "viewer", "subject": "user:admin" });
    let answer = check(server, body).ok();
    assert_eq!(answer["path"].as_array().map(Vec::len), Some(3), "{answer}");
}

fn every_form_of_a_question_is_understood(server: &Server) {
    let org = server.acme();
    let object = format!("document:{}", unique("d"));
    relate(&org, &format!("{object}#viewer@user:bob"));
    let id = object.strip_prefix("document:").expect("a document");
    for body in [
        json!({ "object": object, "relation": "viewer", "subject": "user:bob" }),
        json!({ "object": object, "relation": "viewer", "user": "user:bob" }),
        json!({ "object_type": "document", "object_id": id, "relation": "viewer", "user_type": "user", "user_id": "bob" }),
    ] {
        for path in ["/api/v1/authz/zanzibar/check", "/api/v1/zanzibar/check"] {
            let answer = server.request("POST", path).api_key(org.key()).json(body.clone()).send().ok();
            assert_eq!(answer["allowed"], true, "{body}");
            assert_eq!((&answer["object"], &answer["subject"]), (&json!(object), &json!("user:bob")));
            assert_eq!((&answer["user"], &answer["relation"]), (&json!("user:bob"), &json!("viewer")));
        }
        for prefix in ["/orgs", "/t"] {
            let path = format!("{prefix}/{}/api/v1/zanzibar/check", org.slug());
            assert_eq!(
                server.request("POST", &path).api_key(org.key()).json(body.clone()).send().ok()["allowed"],
                true
            );
        }
    }
}

fn what_is_missing_or_unknown_is_refused(server: &Server) {
    for (body, code) in [
        (json!({}), "MISSING_FIELDS"),
        (json!({ "object": "document:1", "relation": "viewer" }), "MISSING_FIELDS"),
        (json!({ "object": "document:1", "subject": "user:a" }), "MISSING_FIELDS"),
        (json!({ "object": "document", "relation": "viewer", "subject": "user:a" }), "ZANZIBAR_CHECK_FAILED"),
        (json!({ "object": "document:1", "relation": "a b", "subject": "user:a" }), "ZANZIBAR_CHECK_FAILED"),
        (json!({ "object": "document:1", "relation": "viewer", "subject": "a" }), "ZANZIBAR_CHECK_FAILED"),
        (
            json!({ "object": "unicorn:1", "relation": "viewer", "subject": "user:a" }),
            "ZANZIBAR_CHECK_FAILED",
        ),
        (
            json!({ "object": "document:*", "relation": "viewer", "subject": "user:a" }),
            "ZANZIBAR_CHECK_FAILED",
        ),
    ] {
        let refused = check(server, body.clone()).expect(400).json();
        assert_eq!(refused["code"], code, "{body}");
    }
    check(server, json!([])).refused_somehow();
    let org = server.acme();
    for body in [json!({ "tuple": "x" }), json!({ "object": "document:1" })] {
        admin(&org, "POST", "/zanzibar/tuples").json(body).send().refused(400, "invalid_request");
    }
}

fn asking_about_others_needs_leave(server: &Server) {
    let org = server.acme();
    let (agent, person) = (org.agent(&["authz:check"]), org.person());
    let object = format!("document:{}", unique("d"));
    relate(&org, &format!("{object}#viewer@agent:{}", agent.slug));
    relate(&org, &format!("{object}#viewer@user:{}", person.id));
    let ask = |token: &str, subject: &str| {
        let body = json!({ "object": object, "relation": "viewer", "subject": subject });
        org.post("/zanzibar/check").bearer(token).json(body).send()
    };
    let token = agent.token();
    for own in [format!("agent:{}", agent.slug), format!("agent:{}", agent.agent_id)] {
        assert_eq!(ask(&token, &own).ok()["allowed"], true);
    }
    let someone = format!("user:{}", person.id);
    assert_eq!(ask(&token, &someone).refused(403, "forbidden")["code"], "INSUFFICIENT_PERMISSIONS");
    ask(&token, &format!("agent:{}#member", agent.agent_id)).refused(403, "forbidden");
    let own = person.in_person("openid");
    assert_eq!(ask(&own, &someone).ok()["allowed"], true);
    ask(&own, "user:other").refused(403, "forbidden");
    let expand = |token: &str| {
        let body = json!({ "object": object, "relation": "viewer" });
        org.post("/authz/zanzibar/expand").bearer(token).json(body).send()
    };
    expand(&token).refused(403, "forbidden");
    expand(&own).refused(403, "forbidden");
    // By permission as well.
    let role = super::some_role(&org, &["authz.check"]);
    org.admin("POST", &format!("/users/{}/roles", person.id)).json(json!({ "role": role })).send().ok();
    ask(&own, "user:other").ok();
    expand(&own).ok();
    let key = org.api_key(&["admin:read"]);
    let body = json!({ "object": object, "relation": "viewer", "subject": someone });
    org.post("/zanzibar/check").api_key(&key).json(body.clone()).send().refused(403, "forbidden");
    let key = org.api_key(&["authz:check"]);
    org.post("/zanzibar/check").api_key(&key).json(body).send().ok();
}

fn deep_chains_end_at_the_limit_and_cycles_end(server: &Server) {
    let org = server.acme();
    for (hops, expected) in [(25, true), (26, false)] {
        let name = unique("t");
        let mut tuples: Vec<_> =
            (0..hops).map(|n| format!("team:{name}-{n}#member@team:{name}-{}#member", n + 1)).collect();
        tuples.push(format!("team:{name}-{hops}#member@user:deep"));
        tuples.push(format!("team:{name}-{hops}#member@team:{name}-0#member"));
        admin(&org, "POST", "/zanzibar/tuples").json(json!({ "tuples": tuples })).send().expect(201);
        let top = format!("team:{name}-0");
        assert_eq!(held(server, &top, "member", "user:deep"), expected, "{hops}");
        assert!(!held(server, &top, "member", "user:nobody"));
    }
}

fn namespaces_have_rules_of_their_own(server: &Server) {
    let org = server.acme();
    let name = unique("ns");
    let rules = json!({ "relations": {
        "member": "this", "banned": "this", "signed": "this",
        "may": { "exclusion": [
            { "intersection": [{ "computedUserset": "member" }, { "computedUserset": "signed" }] },
            { "computedUserset": "banned" },
        ] },
        "parent": "this",
        "sees": { "union": [{ "computedUserset": "may" }, { "tupleToUserset": { "tupleset": "parent", "computedUserset": "sees" } }] },
    } });
    let path = format!("/zanzibar/namespaces/{name}");
    let made = admin(&org, "PUT", &path).json(rules.clone()).send().ok();
    assert_eq!(made["data"], json!({ "name": name, "relations": rules["relations"] }));
    for tuple in [
        "1#member@user:a",
        "1#signed@user:a",
        "1#member@user:b",
        "1#member@user:c",
        "1#signed@user:c",
        "1#banned@user:c",
    ] {
        relate(&org, &format!("{name}:{tuple}"));
    }
    relate(&org, &format!("{name}:2#parent@{name}:1"));
    for (who, expected) in [("user:a", true), ("user:b", false), ("user:c", false)] {
        assert_eq!(held(server, &format!("{name}:1"), "may", who), expected, "{who}");
        assert_eq!(held(server, &format!("{name}:2"), "sees", who), expected, "{who}");
    }
    let unknown = json!({ "object": format!("{name}:1"), "relation": "viewer", "subject": "user:a" });
    assert_eq!(check(server, unknown.clone()).expect(400).json()["code"], "ZANZIBAR_CHECK_FAILED");
    admin(&org, "POST", "/zanzibar/tuples").json(unknown).send().refused(400, "invalid_request");
    for rules in [
        json!({}),
        json!({ "relations": { "a": { "computedUserset": "b" } } }),
        json!({ "relations": { "a b": "this" } }),
        json!({ "relations": { "a": { "union": [] } } }),
    ] {
        admin(&org, "PUT", &path).json(rules).send().refused(400, "validation_error");
    }
    assert!(
        admin(&org, "GET", "/zanzibar/namespaces?limit=100").send().ok()["data"].to_string().contains(&name)
    );
    admin(&org, "DELETE", &path).send().ok();
    admin(&org, "DELETE", &path).send().refused(404, "not_found");
    assert!(!held(server, &format!("{name}:1"), "may", "user:a"));
}

fn expansion_shows_everybody(server: &Server) {
    let org = server.acme();
    let object = format!("document:{}", unique("d"));
    for tuple in ["viewer@team:x#member", "viewer@user:v", "owner@user:o"] {
        relate(&org, &format!("{object}#{tuple}"));
    }
    let body = json!({ "object": object, "relation": "viewer" });
    let tree = org.post("/zanzibar/expand").api_key(org.key()).json(body).send().ok()["tree"].clone();
    assert_eq!(
        (&tree["type"], &tree["object"], &tree["relation"]),
        (&json!("union"), &json!(object), &json!("viewer"))
    );
    let mut subjects = Vec::new();
    let mut left = vec![tree];
    while let Some(node) = left.pop() {
        subjects.extend(node["subjects"].as_array().expect("a list").iter().map(|it| text(it).to_owned()));
        left.extend(node["children"].as_array().expect("a list").iter().cloned());
    }
    subjects.sort();
    assert_eq!(subjects, ["team:x#member", "user:o", "user:v"]);
}

fn objects_are_found_backwards(server: &Server) {
    let org = server.acme();
    let (name, who) = (unique("o"), format!("user:{}", unique("u")));
    relate(&org, &format!("document:{name}-1#owner@{who}"));
    relate(&org, &format!("team:{name}#member@{who}"));
    relate(&org, &format!("folder:{name}#viewer@team:{name}#member"));
    relate(&org, &format!("document:{name}-2#parent@folder:{name}"));
    relate(&org, &format!("document:{name}-3#viewer@user:other-{name}"));
    let ask = |relation: &str| {
        let body = json!({ "subject": who, "relation": relation, "object_type": "document" });
        org.post("/zanzibar/objects").api_key(org.key()).json(body).send().ok()["objects"].clone()
    };
    assert_eq!(ask("viewer"), json!([format!("document:{name}-1"), format!("document:{name}-2")]));
    assert_eq!(ask("editor"), json!([format!("document:{name}-1")]));
}

fn a_token_says_how_new_an_answer_is(server: &Server) {
    let org = server.acme();
    let object = format!("document:{}", unique("d"));
    let body = json!({ "tuple": format!("{object}#viewer@user:a") });
    let written = admin(&org, "POST", "/zanzibar/tuples").json(body).send().expect(201).json();
    let question = |token: &Value| json!({ "object": object, "relation": "viewer", "subject": "user:a", "consistency_token": token });
    let answer = check(server, question(&written["consistency_token"])).ok();
    assert_eq!(answer["allowed"], true);
    assert!(text(&answer["consistency_token"]).starts_with("zk_"));
    for nonsense in [json!("x"), json!("zk_ffffffffffffff"), json!("zk_")] {
        check(server, question(&nonsense)).refused(400, "validation_error");
    }
}

fn an_agent_of_the_same_name_inherits_nothing(server: &Server) {
    let org = server.acme();
    let slug = unique("heir");
    let object = format!("document:{}", unique("d"));
    let make = || org.create_agent(json!({ "name": slug, "slug": slug }));
    // While there is such an agent, and after it has gone.
    let first = make();
    let sees = |agent: &Agent<'_>| held(server, &object, "viewer", &format!("agent:{}", agent.slug));
    assert!(!sees(&first));
    relate(&org, &format!("{object}#viewer@agent:{slug}"));
    assert!(sees(&first));
    first.admin("DELETE", "").send().ok();
    let second = make();
    assert_eq!(second.slug, first.slug);
    assert!(!sees(&second));
}

fn other_organizations_are_apart(server: &Server) {
    let (ours, theirs) = (server.acme(), server.globex());
    let object = format!("document:{}", unique("d"));
    relate(&ours, &format!("{object}#viewer@user:a"));
    let body = json!({ "object": object, "relation": "viewer", "subject": "user:a" });
    let ask = |key: &str| {
        server.request("POST", "/api/v1/authz/zanzibar/check").api_key(key).json(body.clone()).send()
    };
    assert_eq!(ask(ours.key()).ok()["allowed"], true);
    assert_eq!(ask(theirs.key()).ok()["allowed"], false);
    admin(&theirs, "DELETE", "/zanzibar/tuples").json(body.clone()).send().refused(404, "not_found");
    ours.request("POST", "/zanzibar/tuples").api_key(theirs.key()).json(body).send().expect(403);
}
