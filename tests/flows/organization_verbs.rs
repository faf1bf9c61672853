//! `lumoauth-server org`: organizations of a store, beside a running server on PostgreSQL and without one on a file.

use std::{fs, thread, time::Duration};

use lumoauth_tests::{
    Backend, Person, Response, ServeOptions, Server, Stopwatch, Token, asking, int, on_shared_backends,
    run_server, told, unique,
};
use serde_json::{Value, json};

/// A server may go on with what the verb has changed for one second. What a busy machine adds to it proves nothing.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs a verb on the store; gives the exit code and all it printed.
fn org(store: &str, words: &[&str]) -> (Option<i32>, String) {
    let mut arguments = vec!["org"];
    arguments.extend_from_slice(words);
    arguments.extend(["--store", store]);
    run_server(&arguments, &[])
}

/// Makes an organization and gives its first API key.
#[track_caller]
fn create(store: &str, slug: &str, more: &[&str]) -> String {
    let mut words = vec!["create", slug];
    words.extend_from_slice(more);
    let (code, text) = org(store, &words);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("export LUMOAUTH_ORG_ID='{slug}'\n")), "{text}");
    let key = text.split("export LUMOAUTH_API_KEY='").nth(1).and_then(|rest| rest.split('\'').next());
    key.unwrap_or_else(|| panic!("no key: {text}")).to_owned()
}

#[track_caller]
fn switch(store: &str, verb: &str, slug: &str) {
    let (code, text) = org(store, &[verb, slug]);
    assert_eq!(code, Some(0), "{text}");
    let status = if verb == "disable" { "disabled" } else { "active" };
    assert!(text.starts_with(&format!("{slug}\t{status}\t")), "{text}");
}

#[track_caller]
fn refused(store: &str, words: &[&str], why: &str) {
    let (code, text) = org(store, words);
    assert!(code.is_some_and(|code| code != 0), "{words:?}: {text}");
    assert!(text.contains(why) && !text.contains("panicked"), "{words:?}: {text}");
}

/// Asks until the answer is `wanted`.
#[track_caller]
fn until(what: &str, wanted: u16, mut ask: impl FnMut() -> Response) -> Response {
    let watch = Stopwatch::start();
    loop {
        let answer = ask();
        if answer.status == wanted {
            return answer;
        }
        assert!(watch.elapsed() < PATIENCE, "{what} after {:?}: {answer}", watch.elapsed());
        thread::sleep(Duration::from_millis(10));
    }
}

fn started(backend: Backend) -> (ServeOptions, Server) {
    let options = ServeOptions::new().on(backend).line("rate_limits = false");
    options.migrate();
    let server = Server::serve(&options);
    (options, server)
}

fn end(options: &ServeOptions, server: Server) {
    assert!(!server.log().contains("panicked"), "{}", server.log());
    assert_eq!(server.terminate(), Some(0));
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

/// Everything that can be had of an organization.
struct Held<'a> {
    org: lumoauth_tests::Org<'a>,
    alice: Person<'a>,
    agent: lumoauth_tests::Agent<'a>,
    user: String,
    refresh: String,
    delegated: String,
    own: String,
    code: String,
    challenge: Value,
}

impl<'a> Held<'a> {
    fn new(org: lumoauth_tests::Org<'a>) -> Self {
        let agent = org.create_agent(json!({
            "capabilities": ["read:a", "read:b", "delegate:on_behalf"], "identityType": "custom",
            "redirectUris": [lumoauth_tests::CALLBACK],
        }));
        let alice = org.person();
        let tokens = alice.allow(&agent, "read:a openid");
        let delegated = agent.acting_for(&tokens.access);
        let own = agent.token();
        let code = alice.code_of(&asking(&agent.client_id, "read:a"));
        let challenge = alice.authorize(&asking(&agent.client_id, "read:b")).ok();
        let held = Self {
            org,
            alice,
            agent,
            user: tokens.access,
            refresh: tokens.refresh,
            delegated,
            own,
            code,
            challenge,
        };
        for (what, answer) in held.tokens() {
            assert_eq!(answer.status, 200, "{what}: {answer}");
        }
        held
    }

    /// What was issued, each at a door that it opens.
    fn tokens(&self) -> Vec<(&'static str, Response)> {
        vec![
            ("token of the agent", self.agent.userinfo(&self.own)),
            ("token of the person", self.agent.userinfo(&self.user)),
            ("delegated token", self.agent.userinfo(&self.delegated)),
            ("session", self.alice.authorize(&asking(&self.agent.client_id, "read:b"))),
        ]
    }

    /// What is registered, each at a door that it opens.
    fn keys(&self) -> Vec<(&'static str, Response)> {
        vec![
            ("API key of the organization", self.org.admin("GET", "/agents").send()),
            ("API key of the agent", self.agent.userinfo(&self.agent.api_key)),
            ("secret of the agent", self.agent.ask_token(&[])),
            ("password of the person", self.alice.try_sign_in(&self.alice.password)),
        ]
    }

    fn assert_issued_is_dead(&self) {
        for (what, answer) in self.tokens() {
            assert!((400..500).contains(&answer.status), "{what}: {answer}");
        }
        for (what, answer) in [
            ("refresh token", self.agent.refresh(&self.refresh, &[])),
            ("code", self.agent.redeem(&self.code, &[])),
            ("question", self.alice.decide(&self.challenge, "approve", &[])),
            ("exchange", self.agent.act_for(&self.user, &self.own, &[])),
        ] {
            assert!((400..500).contains(&answer.status), "{what}: {answer}");
        }
    }
}

fn organization_that_is_made_beside_a_server_is_served(backend: Backend) {
    let (options, server) = started(backend);
    let slug = "initech";
    let before = server.request("GET", "/orgs/initech/api/v1/.well-known/jwks.json").send();
    before.refused(404, "tenant_not_found");
    let key = create(options.store(), slug, &["--name", "Initech GmbH"]);
    let initech = server.organization(slug, &key);
    until("the new organization", 200, || initech.get("/.well-known/jwks.json").send());
    until("its key", 200, || initech.admin("GET", "/agents").send());
    let held = Held::new(initech);
    let claims = Token::parse(&held.delegated).claims;
    assert_eq!((&claims["organization"], &claims["iss"]), (&json!(slug), &json!(held.org.issuer())));
    // It is one of its own.
    server.acme().get("/admin/agents").api_key(&key).send().refused_somehow();
    held.org.get("/admin/agents").api_key(server.acme().key()).send().refused_somehow();
    let rows = held.org.audit("action=organization.created");
    assert_eq!((rows.len(), &rows[0]["actorType"]), (1, &json!("system")), "{rows:?}");
    drop(held);
    end(&options, server);
}

fn nothing_of_a_disabled_organization_works_and_nothing_revives(backend: Backend) {
    let (options, server) = started(backend);
    let key = create(options.store(), "initech", &[]);
    let initech = server.organization("initech", &key);
    until("its key", 200, || initech.admin("GET", "/agents").send());
    let held = Held::new(initech);
    let bystander = Held::new(server.acme());

    switch(options.store(), "disable", "initech");
    until("the key of a disabled organization", 401, || held.org.admin("GET", "/agents").send());
    until("its tokens", 401, || held.agent.userinfo(&held.own));
    held.assert_issued_is_dead();
    for (what, answer) in held.keys() {
        assert!((400..500).contains(&answer.status), "{what}: {answer}");
    }
    // Its neighbours notice nothing.
    for (what, answer) in bystander.tokens().into_iter().chain(bystander.keys()) {
        assert_eq!(answer.status, 200, "{what}: {answer}");
    }

    switch(options.store(), "enable", "initech");
    until("the key of an enabled organization", 200, || held.org.admin("GET", "/agents").send());
    until("the secret of its agent", 200, || held.agent.ask_token(&[]));
    held.assert_issued_is_dead();
    // What is registered works again, and what it gives is new.
    for (what, answer) in held.keys() {
        assert_eq!(answer.status, 200, "{what}: {answer}");
    }
    let mut alice = held.alice.clone();
    alice.cookie = alice.sign_in();
    let answer = alice.authorize(&asking(&held.agent.client_id, "read:a")).expect(303);
    held.agent.redeem(&told(&answer)["code"], &[]).ok();
    for (kind, active) in [("organization.disabled", false), ("organization.enabled", true)] {
        let rows = held.org.audit(&format!("action={kind}"));
        assert_eq!(rows.len(), 1, "{kind}");
        let (was, is) = (json!({ "active": !active }), json!({ "active": active }));
        assert_eq!((&rows[0]["oldValue"], &rows[0]["newValue"]), (&was, &is), "{kind}");
    }
    drop((held, bystander, alice));
    end(&options, server);
}

fn order_of_actors_is_chosen_when_it_is_made(backend: Backend) {
    let (options, server) = started(backend);
    let key = create(options.store(), "initech", &["--act-order", "rfc8693"]);
    let initech = server.organization("initech", &key);
    until("its key", 200, || initech.admin("GET", "/agents").send());
    let metadata = initech.get("/.well-known/oauth-authorization-server").send().ok();
    assert_eq!(metadata["act_claim_order"], "rfc8693");
    let (alice, first, second) =
        (initech.person(), initech.delegate(&["read:a"]), initech.delegate(&["read:a"]));
    let third = initech.agent(&["read:a"]);
    let one = first.acting_for(&alice.allow(&first, "read:a").access);
    let two = second.acting_for(&one);
    let three = third.acting_for(&two);
    for (token, chain) in
        [(&one, vec![&first]), (&two, vec![&second, &first]), (&three, vec![&third, &second, &first])]
    {
        let claims = Token::parse(token).claims;
        let seen = initech.introspect(chain[0], token);
        for mut act in [&claims["act"], &seen["act"]] {
            // The current actor is outermost (RFC 8693 section 4.1).
            for agent in &chain {
                assert_eq!(act["agent_id"], agent.agent_id.as_str(), "{claims}");
                assert_eq!(act["sub"], format!("agent:{}", agent.slug));
                act = &act["act"];
            }
            assert!(act.is_null(), "{claims}");
        }
        assert_eq!((&claims["agent_id"], &claims["sub"]), (&json!(chain[0].agent_id), &json!(alice.id)));
        assert_eq!(int(&claims["delegation_depth"]), i64::try_from(chain.len()).expect("few"));
    }
    // The order changes what is shown and not what is forbidden.
    let fourth = initech.delegate(&["read:a"]);
    fourth.act_for(&three, &fourth.token(), &[]).refused(403, "delegation_not_allowed");
    first.act_for(&two, &first.token(), &[]).refused(400, "invalid_request");
    third.admin("PUT", "/scopes").json(json!({ "scopes": ["read:a", "delegate:user"] })).send().ok();
    fourth.act_for(&three, &fourth.token(), &[]).refused(403, "delegation_depth_exceeded");
    assert_ne!(
        server.acme().get("/.well-known/oauth-authorization-server").send().ok()["act_claim_order"],
        "rfc8693"
    );
    end(&options, server);
}

on_shared_backends!(
    organization_that_is_made_beside_a_server_is_served,
    nothing_of_a_disabled_organization_works_and_nothing_revives,
    order_of_actors_is_chosen_when_it_is_made,
);

#[test]
fn file_is_changed_while_no_server_has_it() {
    let options = ServeOptions::new().embedded().line("rate_limits = false");
    let store = options.store().to_owned();
    let key = create(&store, "initech", &["--name", "Initech", "--act-order", "rfc8693"]);
    let server = Server::serve(&options);
    // One process has the file.
    for words in [&["list"][..], &["disable", "initech"], &["create", "other"]] {
        refused(&store, words, "in use");
    }
    let metadata = server.organization("initech", &key).get("/.well-known/oauth-authorization-server");
    assert_eq!(metadata.send().ok()["act_claim_order"], "rfc8693");
    let held = Held::new(server.organization("initech", &key));
    let (user, cookie) = (held.user.clone(), held.alice.cookie.clone());
    assert_eq!(server.acme().admin("GET", "/agents").send().status, 200);
    let (client_id, secret) = (held.agent.client_id.clone(), held.agent.secret.clone());
    let alice_id = held.alice.id.clone();
    drop(held);
    assert_eq!(server.terminate(), Some(0));

    let (code, text) = org(&store, &["list"]);
    assert_eq!(code, Some(0), "{text}");
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["acme-corp\tactive\tAcme Corp", "globex\tactive\tGlobex", "initech\tactive\tInitech"]);
    switch(&store, "disable", "initech");
    switch(&store, "disable", "initech");
    let server = Server::serve(&options);
    let initech = server.organization("initech", &key);
    assert_eq!(initech.admin("GET", "/agents").send().status, 401);
    assert_eq!(initech.get("/oauth/userinfo").bearer(&user).send().status, 401);
    server.acme().admin("GET", "/agents").send().ok();
    drop(initech);
    assert_eq!(server.terminate(), Some(0));

    switch(&store, "enable", "initech");
    let server = Server::serve(&options);
    let initech = server.organization("initech", &key);
    initech.admin("GET", &format!("/users/{alice_id}")).send().ok();
    assert_eq!(initech.get("/oauth/userinfo").bearer(&user).send().status, 401);
    let query = format!("/oauth/authorize?response_type=code&client_id={client_id}&scope=read%3Aa");
    let request = initech.get(&query).header("Accept", "application/json").header("Cookie", &cookie);
    request.send().refused(401, "login_required");
    let form = [("grant_type", "client_credentials"), ("client_id", &client_id), ("client_secret", &secret)];
    let body = initech.post("/oauth/token").form(&form).send().ok();
    assert!(body["access_token"].is_string(), "{body}");
    let metadata = initech.get("/.well-known/oauth-authorization-server").send().ok();
    assert_eq!(metadata["act_claim_order"], "rfc8693");
    drop(initech);
    end(&options, server);
}

#[test]
fn mistakes_are_told_and_change_nothing() {
    let options = ServeOptions::new().embedded();
    let store = options.store().to_owned();
    // Nothing is made by asking.
    for words in [&["list"][..], &["disable", "initech"], &["enable", "initech"]] {
        refused(&store, words, "there is no store");
    }
    assert!(!options.dir().join("data").exists());
    create(&store, "initech", &[]);
    refused(&store, &["create", "initech"], "exists already");
    refused(&store, &["create", "initech", "--act-order", "rfc8693", "--name", "Other"], "exists already");
    let long = "a".repeat(64);
    for slug in ["Initech", "in itech", "in_itech", "", "../acme", "acme/..", "a\u{e4}", "a.b", &long] {
        for verb in ["create", "disable", "enable"] {
            refused(&store, &[verb, slug], "a-z, 0-9 and -");
        }
    }
    for verb in ["disable", "enable"] {
        refused(&store, &[verb, "nobody"], "there is no organization `nobody`");
        refused(&store, &[verb], "SLUG");
    }
    refused(&store, &["create", "other", "--act-order", "backwards"], "backwards");
    refused(&store, &["create", "other", "--name", ""], "name");
    refused(&store, &["create", "other", "--name", &unique(&"n".repeat(200))], "name");
    refused(&store, &["delete", "initech"], "delete");
    refused("nonsense:store", &["list"], "");
    let (code, text) = org(&store, &["list"]);
    assert_eq!((code, text.as_str()), (Some(0), "initech\tactive\tinitech\n"));
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}
