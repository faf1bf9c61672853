//! The last administrator cannot shut everybody out (security AD-09): each way to try it is refused, or the operator has a way
//! back that nothing over HTTP can close.

use std::fs;

use lumoauth_tests::{
    Backend, Org, Person, Response, ServeOptions, ServedRoute, Server, Stopwatch, asking, at_once,
    on_each_backend, text, unique,
};
use serde_json::{Value, json};

on_each_backend!(
    no_key_ends_itself,
    no_person_ends_their_own_access,
    only_a_full_administrator_decides_who_administers,
    what_was_given_to_an_administrator_ends_with_that,
    what_a_change_of_a_person_does_not_take_is_refused,
    whoever_takes_back_their_own_consent_gives_it_again,
    two_at_once_leave_the_ways_back_open,
);

/// A new API key, and its number.
fn some_key(org: &Org<'_>, scopes: &[&str]) -> (String, String) {
    let body = json!({ "name": unique("key"), "scopes": scopes });
    let made = org.admin("POST", "/api-keys").json(body).send().expect(201).json()["data"].clone();
    (text(&made["key"]).to_owned(), made["id"].to_string())
}

fn end(org: &Org<'_>, number: &str, by: &str) -> Response {
    org.request("DELETE", &format!("/admin/api-keys/{number}")).api_key(by).send()
}

fn administrator<'a>(org: &Org<'a>) -> Person<'a> {
    org.person_with(json!({ "isAdmin": true }))
}

/// Every way to end the access of a person, by whatever name they have, and to restore it.
fn ways(id: &str) -> Vec<(&'static str, String, Value)> {
    let one = format!("/admin/users/{id}");
    vec![
        ("POST", format!("{one}/block"), json!({})),
        ("PATCH", one.clone(), json!({ "blocked": true })),
        ("PATCH", one.clone(), json!({ "isActive": false, "name": "Other" })),
        ("PATCH", one.clone(), json!({ "isAdmin": false })),
        ("PATCH", one, json!({ "is_admin": false, "name": "Other" })),
    ]
}

fn no_key_ends_itself(server: &Server) {
    let org = server.acme();
    let ((key, number), (other, _)) = (some_key(&org, &["admin"]), some_key(&org, &["admin"]));
    for number in [number.clone(), format!("0{number}"), format!("+{number}")] {
        let answer = end(&org, &number, &key);
        if answer.status != 404 {
            answer.refused(409, "own_access");
        }
    }
    org.get("/admin/agents").api_key(&key).send().ok();
    assert!(org.audit(&format!("action=api_key.revoked&targetId={number}")).is_empty());
    end(&org, &number, &other).ok();
    assert_eq!(org.get("/admin/agents").api_key(&key).send().status, 401);
    // One that administers no keys ends none, itself neither.
    let (narrow, number) = some_key(&org, &["admin:write", "admin:users"]);
    end(&org, &number, &narrow).refused(403, "forbidden");
}

/// A key has the scopes that it was made with: there is no way to narrow one, and so none to narrow itself.
#[test]
fn no_route_changes_a_key() {
    let of_keys = |route: &&ServedRoute| route.pattern().starts_with("/admin/api-keys");
    let all: Vec<_> = ServedRoute::all().into_iter().filter(|route| of_keys(&route)).collect();
    let methods: Vec<_> = all.iter().map(|route| route.method).collect();
    assert_eq!(methods, ["GET", "POST", "DELETE"], "{all:?}");
    // Nor does one end a person or a client for good.
    let ends = |route: &ServedRoute| {
        let pattern = route.pattern();
        route.method == "DELETE" && ["/admin/users/{}", "/admin/clients/{}"].contains(&&*pattern)
    };
    assert!(!ServedRoute::all().iter().any(ends));
}

fn no_person_ends_their_own_access(server: &Server) {
    let org = server.acme();
    let ann = administrator(&org);
    let token = ann.in_person("admin");
    let seen = || org.get(&format!("/admin/users/{}", ann.id)).bearer(&token).send().ok()["data"].clone();
    let before = seen();
    for name in [ann.id.clone(), ann.email.to_uppercase(), before["userId"].to_string()] {
        for (method, path, body) in ways(&name) {
            let answer = org.request(method, &path).bearer(&token).json(body).send();
            answer.refused(409, "own_access");
        }
    }
    assert_eq!(seen(), before);
    for action in ["user.blocked", "user.updated"] {
        assert!(org.audit(&format!("action={action}&targetId={}", ann.id)).is_empty());
    }
    // What is no loss is no matter: saying what is so already, and another name.
    let body = json!({ "name": "Ann", "isAdmin": true, "blocked": false });
    let patched = org.request("PATCH", &format!("/admin/users/{}", ann.id)).bearer(&token).json(body);
    assert_eq!(patched.send().ok()["data"]["name"], "Ann");
    org.post(&format!("/admin/users/{}/unblock", ann.id)).bearer(&token).send().ok();
    // Another one does it.
    let other = administrator(&org).in_person("admin");
    org.post(&format!("/admin/users/{}/block", ann.id)).bearer(&other).send().ok();
    assert_eq!(org.get("/admin/agents").bearer(&token).send().status, 401);
}

fn only_a_full_administrator_decides_who_administers(server: &Server) {
    let org = server.acme();
    let (ann, ben) = (administrator(&org), org.person());
    let (narrow, _) = some_key(&org, &["admin:users", "admin:write"]);
    let boss = administrator(&org);
    let partly = boss.in_person("admin:users admin:write");
    let state = |person: &Person<'_>| {
        let data = org.admin("GET", &format!("/users/{}", person.id)).send().ok()["data"].clone();
        (data["isAdmin"] == true, data["blocked"] == true, data["name"].clone())
    };
    let before = state(&ann);
    let attempts = |person: &str| {
        let one = format!("/admin/users/{person}");
        let mut all = ways(person);
        all.push(("POST", format!("{one}/unblock"), json!({})));
        all.push(("PATCH", one.clone(), json!({ "blocked": false, "isAdmin": false })));
        all.push(("PATCH", one, json!({ "isActive": true, "isAdmin": true })));
        all
    };
    let mut refused = 0;
    for (method, path, body) in attempts(&ann.id) {
        for by_key in [true, false] {
            let request = org.request(method, &path).json(body.clone());
            let answer = if by_key { request.api_key(&narrow) } else { request.bearer(&partly) }.send();
            // She is an administrator who is not blocked: what says so changes nothing.
            let same = path.ends_with("/unblock") || body["isAdmin"] == true;
            if same {
                answer.ok();
            } else {
                answer.refused(403, "forbidden");
                refused += 1;
            }
            assert_eq!(state(&ann), before, "{method} {path} {body}");
        }
    }
    assert_eq!(refused, 12);
    // Nor is somebody made one, or one who is blocked let in again.
    let patch = |person: &Person<'_>, body: Value, by: &str| {
        org.request("PATCH", &format!("/admin/users/{}", person.id)).api_key(by).json(body).send()
    };
    patch(&ben, json!({ "isAdmin": true }), &narrow).refused(403, "forbidden");
    patch(&ben, json!({ "isAdmin": true, "blocked": true }), &narrow).refused(403, "forbidden");
    org.admin("POST", &format!("/users/{}/block", ann.id)).send().ok();
    patch(&ann, json!({ "blocked": false }), &narrow).refused(403, "forbidden");
    org.post(&format!("/admin/users/{}/unblock", ann.id)).api_key(&narrow).send().refused(403, "forbidden");
    assert_eq!((state(&ann).1, state(&ben).0), (true, false));
    // Who administers nothing is theirs to block.
    patch(&ben, json!({ "blocked": true }), &narrow).ok();
    org.post(&format!("/admin/users/{}/unblock", ben.id)).bearer(&partly).send().ok();
    // A full administrator does all of it.
    patch(&ann, json!({ "isActive": true, "isAdmin": false }), org.key()).ok();
    patch(&ben, json!({ "isAdmin": true }), org.key()).ok();
    assert_eq!(((state(&ann).0, state(&ann).1), state(&ben).0), ((false, false), true));
}

fn what_was_given_to_an_administrator_ends_with_that(server: &Server) {
    let org = server.acme();
    let ann = administrator(&org);
    let token = ann.in_person("admin openid");
    let set = |is_admin: bool| {
        let path = format!("/users/{}", ann.id);
        org.admin("PATCH", &path).json(json!({ "isAdmin": is_admin })).send().ok()["data"]["isAdmin"].clone()
    };
    let opens = || org.get("/admin/agents").bearer(&token).send().status;
    assert_eq!(opens(), 200);
    assert_eq!(set(false), false);
    assert_eq!(opens(), 401);
    assert_eq!(set(true), true);
    assert_eq!(opens(), 401, "nothing revives");
    org.get("/oauth/userinfo").bearer(&token).send().refused_somehow();
    let mut again = ann.clone();
    again.cookie = again.sign_in();
    org.get("/admin/agents").bearer(&again.in_person("admin")).send().ok();
}

fn what_a_change_of_a_person_does_not_take_is_refused(server: &Server) {
    let org = server.acme();
    let ann = org.person();
    let path = format!("/users/{}", ann.id);
    let before = org.admin("GET", &path).send().ok();
    for (body, member) in [
        (json!({ "email": "other@people.test" }), "email"),
        (json!({ "password": "another good passphrase" }), "password"),
        (json!({ "roles": [] }), "roles"),
        (json!({ "roles": ["x"], "name": "Other" }), "roles"),
        (json!({ "blocked": true, "isActive": true }), "blocked"),
        (json!({ "blocked": false, "isActive": false, "name": "Other" }), "blocked"),
    ] {
        let refused = org.admin("PATCH", &path).json(body.clone()).send().refused(400, "validation_error");
        assert!(!refused["details"][member].is_null(), "{body}: {refused}");
    }
    for body in [json!({ "isAdmin": "yes" }), json!({ "blocked": 1 }), json!({ "isActive": "false" })] {
        org.admin("PATCH", &path).json(body).send().expect(400).refused_somehow();
    }
    assert_eq!(org.admin("GET", &path).send().ok(), before);
    org.admin("PATCH", &path).json(json!({ "email": ann.email.to_uppercase() })).send().ok();
    ann.sign_in();
}

fn whoever_takes_back_their_own_consent_gives_it_again(server: &Server) {
    let org = server.acme();
    let ann = administrator(&org);
    let app = org.app(json!({ "allowedScopes": ["admin"] }));
    let token = || {
        let code = ann.code_of(&asking(&app.client_id, "admin"));
        text(&app.redeem(&code, &[]).ok()["access_token"]).to_owned()
    };
    let first = token();
    let path = format!("/admin/users/{}/consents/{}", ann.id, app.client_id);
    org.request("DELETE", &path).bearer(&first).send().ok();
    assert_eq!(org.get("/admin/agents").bearer(&first).send().status, 401);
    org.get("/admin/agents").bearer(&token()).send().ok();
}

/// Of two who end each other at the same moment, both may succeed: the operator is there for that.
fn two_at_once_leave_the_ways_back_open(server: &Server) {
    let org = server.acme();
    let keys = [some_key(&org, &["admin"]), some_key(&org, &["admin"])];
    let people = [administrator(&org), administrator(&org)];
    let tokens = [people[0].in_person("admin"), people[1].in_person("admin")];
    let answers = at_once(4, |n| match n {
        0 | 1 => end(&org, &keys[1 - n].1, &keys[n].0),
        _ => {
            let path = format!("/admin/users/{}", people[3 - n].id);
            org.request("PATCH", &path).bearer(&tokens[n - 2]).json(json!({ "isAdmin": false })).send()
        }
    });
    for answer in &answers {
        assert!(matches!(answer.status, 200 | 401), "{answer}");
    }
    for pair in answers.chunks(2) {
        assert!(pair.iter().any(|answer| answer.status == 200), "{answers:?}");
    }
    // An acknowledged end is one.
    for n in 0..2 {
        let (key, token) =
            (org.get("/admin/agents").api_key(&keys[n].0), org.get("/admin/agents").bearer(&tokens[n]));
        assert_eq!(key.send().status == 401, answers[1 - n].status == 200);
        assert_eq!(token.send().status == 401, answers[3 - n].status == 200);
    }
}

/// Ends every key, and blocks everybody who administers but one, whose token is lost.
fn shut_everybody_out(org: &Org<'_>) {
    let ann = administrator(org);
    let token = ann.in_person("admin");
    // No policy is heeded where it is about administration.
    let body =
        json!({ "name": "Nothing", "effect": "deny", "resourceType": "*", "action": "*", "priority": 1000 });
    let policy = org.post("/abac/policies").bearer(&token).json(body).send().expect(201).json();
    org.get("/admin/agents").api_key(org.key()).send().ok();
    org.request("DELETE", &format!("/abac/policies/{}", policy["data"]["id"])).bearer(&token).send().ok();
    let first = org.admin("GET", "/api-keys").send().ok()["data"][0]["id"].to_string();
    let (second, number) = some_key(org, &["admin"]);
    let answers = at_once(2, |n| match n {
        0 => end(org, &number, org.key()),
        _ => end(org, &first, &second),
    });
    assert!(answers.iter().any(|answer| answer.status == 200), "{answers:?}");
    for number in [first, number] {
        org.request("DELETE", &format!("/admin/api-keys/{number}")).bearer(&token).send().ok();
    }
    for key in [org.key(), &second] {
        assert_eq!(org.get("/admin/agents").api_key(key).send().status, 401);
    }
    for (method, path, body) in ways(&ann.id) {
        org.request(method, &path).bearer(&token).json(body).send().refused(409, "own_access");
    }
}

/// Whoever has the new key lets the others in again.
fn let_in_again(org: &Org<'_>) {
    let key = org.api_key(&["admin"]);
    org.get("/admin/agents").api_key(&key).send().ok();
    let ann = administrator(org);
    org.get("/admin/agents").bearer(&ann.in_person("admin")).send().ok();
    let given = org.audit("action=api_key.created&actorId=system");
    assert_eq!((given.len(), &given[0]["actorType"]), (2, &json!("system")), "{given:?}");
    assert_eq!(given[0]["newValue"]["scopes"], json!(["admin", "authz:check"]), "{given:?}");
}

#[test]
fn operator_of_a_file_lets_administrators_in_again() {
    let options = ServeOptions::new().embedded().line("rate_limits = false");
    let server = Server::serve(&options);
    shut_everybody_out(&server.acme());
    assert_eq!(server.terminate(), Some(0));
    // The key that was ended stays ended; another one is the way back.
    let server = Server::serve(&options);
    assert_eq!(server.acme().admin("GET", "/agents").send().status, 401);
    assert_eq!(server.terminate(), Some(0));
    let options = options.another_key();
    let server = Server::serve(&options);
    let_in_again(&server.acme());
    assert_eq!(server.terminate(), Some(0));
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

mod replicas {
    use super::operator_of_a_database_lets_administrators_in_while_it_is_served;

    lumoauth_tests::on_shared_backends!(operator_of_a_database_lets_administrators_in_while_it_is_served);
}

fn operator_of_a_database_lets_administrators_in_while_it_is_served(backend: Backend) {
    let options = ServeOptions::new().on(backend).line("rate_limits = false");
    options.migrate();
    let server = Server::serve(&options);
    shut_everybody_out(&server.acme());
    let beside = options.replica().another_key();
    let replica = Server::serve(&beside);
    // The server that was running all the time takes the key too.
    let key = beside.api_key();
    let watch = Stopwatch::start();
    while server.acme().get("/admin/agents").api_key(key).send().status != 200 {
        assert!(watch.elapsed().as_secs() < 5, "the new key does not work at the other server");
        std::thread::yield_now();
    }
    let_in_again(&server.organization(server.acme().slug(), key));
    for (server, options) in [(replica, beside), (server, options)] {
        assert_eq!(server.terminate(), Some(0));
        fs::remove_dir_all(options.dir()).expect("the directory can go");
    }
}
