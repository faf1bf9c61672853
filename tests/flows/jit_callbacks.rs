//! What receivers of callbacks and webhooks can be sure of (contract 2.8): the signature, checked here by RFC 9421 without
//! any code of the server.

use std::{thread::sleep, time::Duration};

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ED25519, UnparsedPublicKey},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use lumoauth_tests::{KeyPage, KeySite, Org, Posted, Server, list, on_each_backend, text, unb64, unix_now};
use serde_json::{Value, json};

use crate::jit::{asked, bare, detail, request, reviewer, setting};

on_each_backend!(
    receiver_verifies_who_calls_and_what_is_said,
    repeated_call_says_the_same_and_is_signed_anew,
    webhook_of_an_approver_is_signed_alike,
    agent_that_wants_no_call_gets_none,
);

fn header<'a>(post: &'a Posted, name: &str) -> &'a str {
    let mut found = post.headers.iter().filter(|(header, _)| header.eq_ignore_ascii_case(name));
    let (_, value) = found.next().unwrap_or_else(|| panic!("{name} is missing: {post:?}"));
    assert!(found.next().is_none(), "{name} is there twice: {post:?}");
    value
}

/// A parameter of the signature, without its quotes.
fn parameter(params: &str, name: &str) -> String {
    let all = params.split(';').skip(1).filter_map(|one| one.split_once('='));
    let found: Vec<_> = all.filter(|(key, _)| *key == name).collect();
    let [(_, value)] = found.as_slice() else { panic!("one {name}: {params}") };
    value.trim_matches('"').to_owned()
}

/// The keys that an organization publishes for what it signs.
fn keys(org: &Org<'_>) -> Value {
    org.get("/aauth/jwks.json").send().ok()
}

/// Verifies `post`, sent to `uri`, as RFC 9421 and RFC 9530 say: the digest is that of the body, the signature covers what
/// the post means, and a published key made it a moment ago.
fn verified(jwks: &Value, post: &Posted, uri: &str) -> Result<(), &'static str> {
    let hash = STANDARD.encode(digest(&SHA256, post.body.as_bytes()));
    if header(post, "content-digest") != format!("sha-256=:{hash}:") {
        return Err("another body");
    }
    let (label, params) = header(post, "signature-input").split_once('=').expect("one label");
    let covered = params.split_once('(').and_then(|(_, rest)| rest.split_once(')')).expect("a list").0;
    let covered: Vec<&str> = covered.split(' ').map(|name| name.trim_matches('"')).collect();
    let rest = uri.strip_prefix("https://").expect("https");
    let (authority, path) = rest.split_once('/').expect("a path");
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let line = |name: &&str| {
        let value = match *name {
            "@method" => "POST".to_owned(),
            "@authority" => authority.to_owned(),
            "@path" => format!("/{path}"),
            "@query" => format!("?{}", query.unwrap_or_default()),
            "@target-uri" => uri.to_owned(),
            name => header(post, name).to_owned(),
        };
        format!("\"{name}\": {value}\n")
    };
    let base: String = covered.iter().map(line).collect();
    let base = format!("{base}\"@signature-params\": {params}");
    let covers = |name: &str| covered.contains(&name);
    let whole = covers("@method")
        && (covers("@target-uri") || covers("@authority") && covers("@path"))
        && (query.is_none() || covers("@query") || covers("@target-uri"))
        && covers("content-digest")
        && covers("content-type");
    if !whole {
        return Err("covers too little");
    }
    let created: i64 = parameter(params, "created").parse().expect("seconds");
    if (unix_now() - created).abs() > 60 {
        return Err("too old");
    }
    assert!(covers("nonce") || params.contains(";nonce=\""), "no nonce: {params}");
    let kid = parameter(params, "keyid");
    let key = list(&jwks["keys"]).iter().find(|key| key["kid"] == kid.as_str()).ok_or("a key of nobody")?;
    assert_eq!((&key["kty"], &key["crv"]), (&json!("OKP"), &json!("Ed25519")), "{key}");
    let signature = header(post, "signature");
    let signature = signature.strip_prefix(&format!("{label}=:")).and_then(|rest| rest.strip_suffix(':'));
    let signature = STANDARD.decode(signature.expect("of this label")).expect("base64");
    let public = UnparsedPublicKey::new(&ED25519, unb64(text(&key["x"])));
    public.verify(base.as_bytes(), &signature).map_err(|_| "another signature")
}

/// The first `count` posts to a page, once they are there.
fn posts(page: &KeyPage<'_>, count: usize) -> Vec<Posted> {
    for _ in 0..300 {
        let posted = page.posted();
        if posted.len() >= count {
            return posted;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("{count} posts: {:?}", page.posted());
}

/// A request that waits for a person, of an agent that wants to hear of it at `uri`; its id.
fn waiting(org: &Org<'_>, token: &str, task: &str, uri: &str) -> String {
    let body = json!({
        "task_id": task, "authorization_details": detail("file_access", &["delete"]), "callback_url": uri,
    });
    let made = org.post("/jit/request").bearer(token).json(body).send().expect(201).json();
    assert_eq!(made["status"], "pending", "{made}");
    text(&made["request_id"]).to_owned()
}

fn receiver_verifies_who_calls_and_what_is_said(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let page = KeySite::trusted().page();
    page.show(json!({}));
    let id = waiting(&org, &token, &task, &page.uri());
    let (_, admin) = reviewer(&org);
    let notes = json!({ "ttl": 120, "notes": "for people only", "agent_message": "Go ahead." });
    org.post(&format!("/jit/approve/{id}")).bearer(&admin).json(notes).send().ok();
    let post = posts(&page, 1).remove(0);
    let jwks = keys(&org);
    assert_eq!(verified(&jwks, &post, &page.uri()), Ok(()), "{post:?}");

    // The body is what the status says, and the type is one of JSON.
    assert_eq!(header(&post, "content-type"), "application/json");
    let said: Value = serde_json::from_str(&post.body).expect("JSON");
    let status = org.get(&format!("/jit/request/{id}/status")).bearer(&token).send().ok();
    for member in
        ["request_id", "status", "risk_level", "task_id", "granted_ttl", "has_notes", "agent_message"]
    {
        assert_eq!(said[member], status[member], "{member}: {said}");
    }
    assert_eq!((&said["status"], &said["granted_ttl"]), (&json!("approved"), &json!(120)));
    assert!(text(&said["token_url"]).ends_with(&format!("/jit/request/{id}/token")), "{said}");
    let all = format!("{post:?}");
    assert!(!all.contains("for people only") && !all.contains(&token) && !all.contains("eyJ"), "{all}");

    // Nothing else passes for it.
    let changed = |change: &dyn Fn(&mut Posted)| {
        let mut other = post.clone();
        change(&mut other);
        verified(&jwks, &other, &page.uri())
    };
    let denied = post.body.replace("approved", "denied");
    assert_eq!(changed(&|post| post.body.clone_from(&denied)), Err("another body"));
    let with = |name: &'static str, change: &dyn Fn(&str) -> String| {
        changed(&|post| {
            for (header, value) in &mut post.headers {
                if header.eq_ignore_ascii_case(name) {
                    *value = change(value);
                }
            }
        })
    };
    // A body with the digest that fits it.
    let digested = changed(&|post| {
        post.body.clone_from(&denied);
        let fits = format!("sha-256=:{}:", STANDARD.encode(digest(&SHA256, denied.as_bytes())));
        for (header, value) in &mut post.headers {
            if header.eq_ignore_ascii_case("content-digest") {
                value.clone_from(&fits);
            }
        }
    });
    assert_eq!(digested, Err("another signature"));
    assert_eq!(with("content-type", &|_| "text/plain".to_owned()), Err("another signature"));
    let later = |input: &str| {
        let at = parameter(input.split_once('=').expect("a label").1, "created");
        input.replace(&at, &(at.parse::<i64>().expect("seconds") + 1).to_string())
    };
    assert_eq!(with("signature-input", &later), Err("another signature"));
    let elsewhere = KeySite::trusted().page().uri();
    assert_eq!(verified(&jwks, &post, &elsewhere), Err("another signature"));
    // Keys of another organization, and another key under the same name.
    assert_eq!(verified(&keys(&server.globex()), &post, &page.uri()), Err("a key of nobody"));
    let mut others = jwks.clone();
    for key in others["keys"].as_array_mut().expect("keys") {
        key["x"] = keys(&server.globex())["keys"][0]["x"].clone();
    }
    assert_eq!(verified(&others, &post, &page.uri()), Err("another signature"));
    let _ = agent;
}

fn repeated_call_says_the_same_and_is_signed_anew(server: &Server) {
    let (org, _, token, task) = setting(server);
    let page = KeySite::trusted().page();
    page.fail(500, None);
    let id = waiting(&org, &token, &task, &page.uri());
    let page = &page;
    let (_, admin) = reviewer(&org);
    bare(&org, &admin, &format!("/jit/deny/{id}")).ok();
    let first = posts(page, 1).remove(0);
    page.show(json!({}));
    let both = posts(page, 2);
    let said: Vec<Value> = both.iter().map(|post| serde_json::from_str(&post.body).expect("JSON")).collect();
    assert_eq!((&said[0]["request_id"], &said[0]["status"]), (&json!(id), &json!("denied")));
    assert_eq!(said[0], said[1], "the same answer");
    assert_eq!(first.body, both[0].body);
    let nonces: Vec<_> = both.iter().map(|post| header(post, "signature-input")).collect();
    assert_ne!(nonces[0], nonces[1], "a signature is used once");
    for post in &both {
        let old = verified(&keys(&org), post, &page.uri());
        assert!(old == Ok(()), "{old:?} {post:?}");
    }
    // It was heard, so it is not said again.
    sleep(Duration::from_millis(2500));
    assert_eq!(page.posted().len(), 2);
}

fn webhook_of_an_approver_is_signed_alike(server: &Server) {
    let org = server.acme();
    let page = KeySite::trusted().page();
    page.show(json!({}));
    let person = org.person_with(json!({ "approver": { "webhook": page.uri() } }));
    let agent = org.delegate(&[]);
    let body = json!({
        "task_id": "t", "reason": "Pay <b>invoice</b> 90", "impact": "high", "on_behalf_of": person.email,
    });
    let made = org.post("/agents/me/approvals").bearer(&agent.token()).json(body).send().expect(201).json();
    let post = posts(&page, 1).remove(0);
    assert_eq!(verified(&keys(&org), &post, &page.uri()), Ok(()), "{post:?}");
    let said: Value = serde_json::from_str(&post.body).expect("JSON");
    assert_eq!(
        (&said["type"], &said["user_id"], &said["summary"]),
        (&json!("approval.requested"), &json!(person.id), &json!("Pay <b>invoice</b> 90"))
    );
    // Whoever reads it can neither decide with it nor look.
    assert!(!format!("{post:?}").contains(text(&made["approval_token"])), "{post:?}");
    let mut other = post.clone();
    other.body = other.body.replace("90", "91");
    assert_eq!(verified(&keys(&org), &other, &page.uri()), Err("another body"));
}

fn agent_that_wants_no_call_gets_none(server: &Server) {
    let (org, agent, token, task) = setting(server);
    let page = KeySite::trusted().page();
    page.show(json!({}));
    // What is decided at once calls nobody: whoever asked has the answer.
    let body = json!({
        "task_id": task, "authorization_details": detail("file_access", &["read"]), "callback_url": page.uri(),
    });
    let made = org.post("/jit/request").bearer(&token).json(body).send().expect(201).json();
    assert_eq!(made["status"], "approved");
    let silent = asked(&agent, &token, &task, detail("file_access", &["delete"]));
    let (_, admin) = reviewer(&org);
    bare(&org, &admin, &format!("/jit/approve/{}", text(&silent["request_id"]))).ok();
    request(&agent, &token, &task, detail("file_access", &["read"])).expect(201);
    sleep(Duration::from_millis(1500));
    assert!(page.posted().is_empty(), "{:?}", page.posted());
}
