//! The standard limits of `serve`. They count by clock minutes, so each test has a server and a minute of its own.

use std::{
    fs,
    io::{Read, Write},
};

use lumoauth_tests::{Agent, Person, Response, ServeOptions, Server, avoid_minute_edge, int, unique};
use serde_json::json;
use tokio::net::TcpSocket;

fn number(response: &Response, name: &str) -> u64 {
    let value = response.header(name).unwrap_or_else(|| panic!("{name} is missing: {response}"));
    value.parse().unwrap_or_else(|_| panic!("{name} is no plain number: {response}"))
}

#[track_caller]
fn assert_slowed_down(response: &Response) {
    response.refused(429, "rate_limit_exceeded");
    assert!((1..=60).contains(&number(response, "retry-after")), "{response}");
}

#[test]
fn thirty_tokens_a_minute_for_each_client() {
    let options = ServeOptions::new();
    let server = Server::serve(&options);
    avoid_minute_edge();
    let org = server.acme();
    let (busy, calm) = (org.agent(&["read:a"]), org.agent(&["read:a"]));
    let mut token = String::new();
    for left in (0..30).rev() {
        let response = busy.ask_token(&[]);
        token = response.ok()["access_token"].as_str().unwrap_or_default().to_owned();
        assert_eq!(number(&response, "x-ratelimit-limit"), 30);
        assert_eq!(number(&response, "x-ratelimit-remaining"), left);
        let resets = i64::try_from(number(&response, "x-ratelimit-reset")).unwrap();
        assert!((0..=60).contains(&(resets - lumoauth_tests::unix_now())), "{response}");
    }
    let refusal = busy.ask_token(&[]);
    assert_slowed_down(&refusal);
    assert_eq!(number(&refusal, "x-ratelimit-remaining"), 0);
    assert_slowed_down(&busy.token_request("wrong", &[]).send());
    assert_slowed_down(&org.post("/oauth/token").basic(&busy.client_id, &busy.secret).form(GRANT).send());
    calm.ask_token(&[]).ok();
    // What it has goes on working.
    busy.userinfo(&token).ok();
    assert_eq!(busy.ask(&token, "read:a").ok()["allowed"], true);
    assert_eq!(org.introspect(&busy, &token)["active"], true);
    drop(server);
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

const GRANT: &[(&str, &str)] = &[("grant_type", "client_credentials")];

#[test]
fn addresses_that_only_fail_are_slowed_down_and_not_recorded() {
    let options = ServeOptions::new();
    let server = Server::serve(&options);
    avoid_minute_edge();
    let org = server.acme();
    let (one, two, good) = (org.agent(&[]), org.agent(&[]), org.agent(&["read:a"]));
    let fail = |agent: &Agent<'_>| agent.token_request("wrong", &[]).send();
    let failures = || {
        let query = "/audit-logs?status=failure&action=agent.authenticated&limit=1";
        int(&org.admin("GET", query).send().ok()["meta"]["total"])
    };
    // Below the limit of each client, and together at that of the address.
    for agent in [&one, &two] {
        for _ in 0..30 {
            fail(agent).refused(401, "invalid_client");
        }
    }
    assert_eq!(failures(), 60);
    for _ in 0..10 {
        // A client that nobody knows has a share of its own as to tokens, but not as to failures.
        let form = [GRANT[0], ("client_id", &*unique("nobody")), ("client_secret", "wrong")];
        assert_slowed_down(&org.post("/oauth/token").form(&form).send());
        let guess = [("token", "x"), ("client_id", &*one.client_id), ("client_secret", "wrong")];
        assert_slowed_down(&org.post("/oauth/introspect").form(&guess).send());
        assert_slowed_down(&org.post("/oauth/revoke").form(&guess).send());
    }
    assert_eq!(failures(), 60, "the log does not grow with what is refused unseen");
    let token = good.token();
    good.userinfo(&token).ok();
    // A proven client that asks for too much is told so, not slowed down.
    good.ask_token(&[("scope", "write:b")]).refused(400, "invalid_scope");
    assert_eq!(org.introspect(&good, &token)["active"], true);
    drop(server);
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

#[test]
fn administrators_have_limits_for_reading_and_for_writing() {
    let options = ServeOptions::new();
    let server = Server::serve(&options);
    avoid_minute_edge();
    let org = server.acme();
    let read = org.admin("GET", "/agents").send().expect(200);
    assert_eq!((number(&read, "x-ratelimit-limit"), number(&read, "x-ratelimit-remaining")), (1000, 999));
    let other = org.api_key(&["admin"]);
    for left in (0..99).rev() {
        let response = org.admin("POST", "/agents").json(json!({})).send().expect(400);
        assert_eq!(number(&response, "x-ratelimit-remaining"), left, "{response}");
    }
    assert_slowed_down(&org.admin("POST", "/agents").json(json!({ "name": unique("Agent") })).send());
    org.admin("GET", "/agents").send().ok();
    let body = json!({ "name": unique("Agent") });
    org.post("/admin/agents").api_key(&other).json(body).send().expect(201);
    drop(server);
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

#[test]
fn limits_can_be_switched_off() {
    let options = ServeOptions::new().line("rate_limits = false");
    let server = Server::serve(&options);
    let agent = server.acme().agent(&[]);
    for _ in 0..35 {
        assert!(agent.ask_token(&[]).expect(200).header("x-ratelimit-limit").is_none());
    }
    for _ in 0..70 {
        agent.token_request("wrong", &[]).send().refused(401, "invalid_client");
    }
    drop(server);
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

#[test]
fn guesses_at_passwords_are_slowed_for_the_guesser() {
    let options = ServeOptions::new();
    let server = Server::serve(&options);
    let org = server.acme();
    let (alice, bob) = (org.person(), org.person());
    avoid_minute_edge();
    let guess = |n: usize| alice.try_sign_in(&format!("guess {n}"));
    let answers: Vec<_> = (0..12).map(guess).collect();
    let wrong = answers.iter().take_while(|answer| answer.status == 401).count();
    assert!((9..=10).contains(&wrong), "alice has signed in once herself: {wrong}");
    for answer in &answers[wrong..] {
        assert_slowed_down(answer);
    }
    // Whether the guess would be right is not said either, and the form says the same as the program's door.
    let right = alice.try_sign_in(&alice.password);
    assert_slowed_down(&right);
    assert!(right.header("set-cookie").is_none());
    // The address at another account, the name of the same account in another case.
    bob.try_sign_in(&bob.password).ok();
    let shouted = json!({ "email": alice.email.to_uppercase(), "password": "x" });
    assert_slowed_down(&org.post("/oauth/login/json").json(shouted).send());
    // Another organization counts for itself.
    let elsewhere = server.request("POST", "/orgs/globex/api/v1/oauth/login/json");
    let body = json!({ "email": alice.email, "password": "x" });
    elsewhere.json(body).send().refused(401, "invalid_credentials");
    drop((alice, bob, org));
    drop(server);
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

#[test]
fn owner_of_the_account_is_not_locked_out_by_a_guesser() {
    let options = ServeOptions::new();
    let server = Server::serve(&options);
    let alice = server.acme().person();
    avoid_minute_edge();
    for n in 0..12 {
        alice.try_sign_in(&format!("guess {n}"));
    }
    assert_slowed_down(&alice.try_sign_in(&alice.password));
    // The owner sits elsewhere.
    assert_eq!(from("127.0.0.2", &server, &alice, &alice.password), 200);
    assert_eq!(from("127.0.0.2", &server, &alice, "a slip"), 401);
    assert_eq!(from("127.0.0.3", &server, &alice, &alice.password), 200);
    assert_slowed_down(&alice.try_sign_in(&alice.password));
    drop(server);
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

#[test]
fn address_that_guesses_at_many_accounts_is_slowed_down() {
    let options = ServeOptions::new();
    let server = Server::serve(&options);
    let org = server.acme();
    let alice = org.person();
    avoid_minute_edge();
    let mut wrong = 0;
    let slowed = (0..80).any(|_| {
        let body = json!({ "email": format!("{}@people.test", unique("nobody")), "password": "x" });
        let answer = org.post("/oauth/login/json").json(body).send();
        wrong += usize::from(answer.status == 401);
        answer.status == 429
    });
    assert!(slowed && (50..=60).contains(&wrong), "{wrong}");
    assert_slowed_down(&alice.try_sign_in(&alice.password));
    assert_eq!(from("127.0.0.2", &server, &alice, &alice.password), 200);
    // Who only fails to sign in still gets the tokens of its agents.
    org.agent(&[]).token();
    drop((alice, org));
    drop(server);
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

/// The status of a sign-in from another address of this machine.
fn from(address: &str, server: &Server, person: &Person<'_>, password: &str) -> u16 {
    let body = json!({ "email": person.email, "password": password }).to_string();
    let head = format!(
        "POST /orgs/{}/api/v1/oauth/login/json HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        person.org.slug(),
        server.authority(),
        body.len()
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let connect = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(format!("{address}:0").parse().expect("an address"))?;
        socket.connect(server.authority().parse().expect("an address")).await?.into_std()
    };
    let mut stream = runtime.block_on(connect).expect("the server listens");
    stream.set_nonblocking(false).expect("a socket can block");
    stream.write_all(format!("{head}{body}").as_bytes()).expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}
