//! Two servers on one database: what one of them does, the other one knows (security LC, architecture decision 16).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use lumoauth_tests::{
    Agent, Backend, Person, Replicas, Response, Server, Stopwatch, asking, at_once, on_shared_backends,
    services::{query, redis_command},
    text, told, unique,
};
use serde_json::{Value, json};

/// The longest that a replica may go on with what another one has changed is one second. What a busy machine adds
/// to it at one time proves nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// What the half of all times may take at most: the same second, and the requests before and after it.
const BOUND: Duration = Duration::from_millis(1500);

/// Ends every connection that listens for change notices, as soon as there is one, until it is dropped.
struct Silence {
    over: Arc<AtomicBool>,
    cutter: Option<JoinHandle<u64>>,
}

impl Silence {
    fn start(store: &str) -> Self {
        let (postgres, redis) = match store.split_once("+redis") {
            Some((postgres, rest)) => (postgres.to_owned(), Some(format!("redis{rest}"))),
            None => (store.to_owned(), None),
        };
        let over = Arc::new(AtomicBool::new(false));
        let asked = over.clone();
        let cutter = thread::spawn(move || {
            let listeners = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE datname = current_database() AND query ILIKE 'LISTEN%'";
            let mut cut = 0;
            while !asked.load(Ordering::Relaxed) {
                let answers = [
                    Some(query(&postgres, listeners)),
                    redis.as_ref().map(|url| redis_command(url, &["CLIENT", "KILL", "TYPE", "pubsub"])),
                ];
                cut += answers
                    .iter()
                    .flatten()
                    .map(|count| count.parse::<u64>().expect("a number"))
                    .sum::<u64>();
                thread::sleep(Duration::from_millis(20));
            }
            cut
        });
        Self { over, cutter: Some(cutter) }
    }

    /// How many connections it has ended.
    fn end(mut self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.cutter.take().map_or(0, |cutter| cutter.join().expect("no panic"))
    }
}

/// Asks until the answer is a refusal; the time of that.
#[track_caller]
fn until_refused(what: &str, watch: Stopwatch, mut ask: impl FnMut() -> Response) -> Duration {
    loop {
        let response = ask();
        assert!(response.status < 500, "{what}: {response}");
        if response.status != 200 {
            eprintln!("{what}: refused after {:?}", watch.elapsed());
            return watch.elapsed();
        }
        assert!(watch.elapsed() < PATIENCE, "{what} is still allowed after {:?}", watch.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
}

fn disabling_an_agent_reaches_the_other_replica(backend: Backend) {
    let replicas = Replicas::start(backend);
    let org = replicas.a.acme();
    // A resource server that asks about the tokens that it gets.
    let body = json!({ "name": unique("rs"), "isConfidential": true, "grantTypes": ["client_credentials"] });
    let client = org.admin("POST", "/clients").json(body).send().expect(201).json()["data"].clone();
    let mcp = org.mcp_server(json!({ "resource_client_id": client["clientId"] }));
    let here = org.agent(&["read:a"]);
    let there = here.at(&replicas.b);
    let token = here.token();
    let exchanged = here.exchange(&token, &[("resource", text(&mcp["resource_uri"]))]).ok();
    let bound = text(&exchanged["access_token"]);
    let active = || {
        let (id, secret) = (text(&client["clientId"]), text(&client["secret"]));
        let form = [("token", bound), ("client_id", id), ("client_secret", secret)];
        there.org.post("/oauth/introspect").form(&form).send().ok()["active"] == true
    };
    // The other replica has it all in its cache.
    let elsewhere = there.token();
    there.userinfo(&token).ok();
    assert_eq!(there.ask(&token, "read:a").ok()["allowed"], true);
    assert!(active());

    here.admin("POST", "/deactivate").send().ok();
    let watch = Stopwatch::start();
    // At once where it was done.
    here.ask_token(&[]).refused_somehow();
    here.userinfo(&token).refused_somehow();
    until_refused("userinfo", watch, || there.userinfo(&token));
    until_refused("ask", watch, || there.ask(&token, "read:a"));
    until_refused("token", watch, || there.ask_token(&[]));
    while active() {
        assert!(watch.elapsed() < PATIENCE, "introspection still says active");
    }

    // Back again, old tokens stay dead on both.
    here.admin("POST", "/activate").send().ok();
    let watch = Stopwatch::start();
    while there.ask_token(&[]).status != 200 {
        assert!(watch.elapsed() < PATIENCE, "the agent does not come back");
        thread::sleep(Duration::from_millis(5));
    }
    for agent in [&here, &there] {
        agent.userinfo(&token).refused_somehow();
        agent.userinfo(&elsewhere).refused_somehow();
    }
    assert!(!active());
    replicas.end();
}

fn without_notices_the_bound_still_holds(backend: Backend) {
    let replicas = Replicas::start(backend);
    let silence = Silence::start(replicas.store());
    let mut times = [(); 5].map(|()| {
        let here = replicas.a.acme().agent(&["read:a"]);
        let there = here.at(&replicas.b);
        let token = here.token();
        there.userinfo(&token).ok();
        here.admin("POST", "/deactivate").send().ok();
        until_refused("userinfo without notices", Stopwatch::start(), || there.userinfo(&token))
    });
    times.sort_unstable();
    assert!(times[2] < BOUND, "{times:?}");
    assert!(silence.end() > 0, "no connection for notices was there to be cut");
    replicas.end();
}

fn revoking_a_token_reaches_the_other_replica_at_once(backend: Backend) {
    let replicas = Replicas::start(backend);
    let here = replicas.a.acme().agent(&["read:a"]);
    let there = here.at(&replicas.b);
    for _ in 0..10 {
        let token = here.token();
        there.userinfo(&token).ok();
        assert_eq!(there.org.introspect(&there, &token)["active"], true);
        here.org.post("/oauth/revoke").basic(&here.client_id, &here.secret).form(&[("token", &token)]).send();
        assert_eq!(there.org.introspect(&there, &token)["active"], false);
        there.userinfo(&token).refused_somehow();
        there.ask(&token, "read:a").refused_somehow();
    }
    replicas.end();
}

fn replicas_have_one_budget_and_one_log(backend: Backend) {
    lumoauth_tests::avoid_hour_edge();
    let replicas = Replicas::start(backend);
    let policy = json!({ "max_api_calls_per_hour": 40 });
    let here = replicas.a.acme().create_agent(json!({ "capabilities": ["read:a"], "budgetPolicy": policy }));
    let there = here.at(&replicas.b);
    let token = here.token();
    let spend = |agent: &Agent<'_>| (0..40).filter(|_| agent.ask(&token, "read:a").status == 200).count();
    let allowed = at_once(2, |place| spend([&here, &there][place]));
    assert_eq!(allowed.iter().sum::<usize>(), 40, "the limit of the agent is one limit");
    // Each of them reads the whole log, without a gap and without a repetition.
    let actions = format!("actorId={}&action=agent.action&status=success", here.agent_id);
    for org in [replicas.a.acme(), replicas.b.acme()] {
        assert_eq!(org.audit(&actions).len(), 40);
        assert_eq!(org.audit(&format!("targetId={}&action=agent.created", here.agent_id)).len(), 1);
        assert_eq!(org.audit("action=api_key.created").len(), 1, "the bootstrap key is stored once");
    }
    replicas.end();
}

fn replicas_have_the_same_signing_keys(backend: Backend) {
    let replicas = Replicas::start(backend);
    let jwks = |server: &Server| server.acme().get("/.well-known/jwks.json").send().ok();
    assert_eq!(jwks(&replicas.a), jwks(&replicas.b));
    let agent = replicas.b.acme().agent(&["read:a"]);
    let token = agent.parsed_token();
    let keys = jwks(&replicas.a);
    let known = keys["keys"].as_array().expect("keys").iter().any(|key| key["kid"] == token.header["kid"]);
    assert!(known, "{keys}");
    let url = replicas.store().split("+redis").next().unwrap_or_default().to_owned();
    let tables = query(&url, "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'");
    assert_ne!(tables, "0", "the tables are where the URL says");
    assert_eq!(text(&agent.userinfo(&token.text).ok()["organization"]), "acme-corp");
    replicas.end();
}

/// A person, two agents that act for them one after the other, and a resource server: all that comes of one consent, as
/// two replicas see it.
struct Chain<'a> {
    alice: Person<'a>,
    agents: [Agent<'a>; 2],
    refresh: String,
    /// The person's, the delegated, the nested and the bound token.
    tokens: [String; 4],
}

impl<'a> Chain<'a> {
    fn new(server: &'a Server) -> Self {
        let org = server.acme();
        let mcp = org.mcp_server(json!({}));
        let (alice, first, second) = (org.person(), org.delegate(&["read:a"]), org.delegate(&["read:a"]));
        let user = alice.allow(&first, "openid read:a");
        let delegated = first.acting_for(&user.access);
        let nested = second.acting_for(&delegated);
        let bound = second.exchange(&nested, &[("resource", text(&mcp["resource_uri"]))]).ok();
        let tokens = [user.access, delegated, nested, text(&bound["access_token"]).to_owned()];
        Self { alice, agents: [first, second], refresh: user.refresh, tokens }
    }

    /// Which of its tokens are alive at this server.
    fn alive(&self, server: &Server) -> [bool; 4] {
        let [first, second] = [&self.agents[0], &self.agents[1]].map(|agent| agent.at(server));
        let [user, delegated, nested, bound] = &self.tokens;
        [
            first.sees_alive(user),
            first.sees_alive(delegated),
            second.sees_alive(nested),
            second.sees_alive(bound),
        ]
    }
}

/// Does `end` on the first replica, and waits until all of the chain is dead on the second one.
fn chain_dies_everywhere(backend: Backend, end: impl Fn(&Chain<'_>)) {
    let replicas = Replicas::start(backend);
    let chain = Chain::new(&replicas.a);
    let [_, second] = [&chain.agents[0], &chain.agents[1]].map(|agent| agent.at(&replicas.b));
    // The other replica has it all in its cache.
    assert_eq!(chain.alive(&replicas.b), [true; 4]);
    second.userinfo(&chain.tokens[2]).ok();
    end(&chain);
    let watch = Stopwatch::start();
    while chain.alive(&replicas.b) != [false; 4] {
        let seen = chain.alive(&replicas.b);
        assert!(watch.elapsed() < PATIENCE, "{seen:?} after {:?}", watch.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    eprintln!("dead on the other replica after {:?}", watch.elapsed());
    second.userinfo(&chain.tokens[2]).refused(401, "invalid_token");
    second.act_for(&chain.tokens[1], &second.token(), &[]).refused(400, "invalid_grant");
    // Nor does it grow again out of what is left.
    let first = chain.agents[0].at(&replicas.b);
    first.refresh(&chain.refresh, &[]).refused_somehow();
    drop(chain);
    replicas.end();
}

fn revoked_refresh_token_ends_the_chain_on_the_other_replica(backend: Backend) {
    chain_dies_everywhere(backend, |chain| chain.agents[0].revoke(&chain.refresh));
}

fn withdrawn_consent_ends_the_chain_on_the_other_replica(backend: Backend) {
    chain_dies_everywhere(backend, |chain| {
        let path = format!("/users/{}/consents/{}", chain.alice.id, chain.agents[0].client_id);
        chain.alice.org.admin("DELETE", &path).send().ok();
    });
}

fn blocked_person_ends_the_chain_on_the_other_replica(backend: Backend) {
    chain_dies_everywhere(backend, |chain| {
        chain.alice.org.admin("POST", &format!("/users/{}/block", chain.alice.id)).send().ok();
    });
}

fn disabled_agent_ends_the_chain_on_the_other_replica(backend: Backend) {
    chain_dies_everywhere(backend, |chain| {
        chain.agents[0].admin("POST", "/disable").send().ok();
        // It can ask nobody while it is off, and what was issued before does not come back.
        chain.agents[0].admin("POST", "/enable").send().ok();
        let watch = Stopwatch::start();
        while chain.agents[0].ask_token(&[]).status != 200 {
            assert!(watch.elapsed() < PATIENCE, "the agent does not come back");
        }
    });
}

/// What the one gave that won; the others were refused.
#[track_caller]
fn winner(answers: Vec<Response>) -> Value {
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    for answer in lost {
        answer.refused(400, "invalid_grant");
    }
    assert_eq!(won.len(), 1);
    won[0].ok()
}

fn codes_and_refresh_tokens_work_once_on_both_replicas(backend: Backend) {
    let replicas = Replicas::start(backend);
    let org = replicas.a.acme();
    let (alice, here) = (org.person(), org.delegate(&["read:a"]));
    let there = here.at(&replicas.b);
    // Who redeems it twice loses what it gave, wherever that is.
    let lost = |tokens: &Value| {
        for agent in [&here, &there] {
            assert!(!agent.sees_alive(text(&tokens["access_token"])));
            agent.refresh(text(&tokens["refresh_token"]), &[]).refused(400, "invalid_grant");
        }
    };
    let code = alice.code_for(&here, "read:a");
    let first = here.redeem(&code, &[]).ok();
    there.redeem(&code, &[]).refused(400, "invalid_grant");
    lost(&first);
    for _ in 0..5 {
        let code = alice.code_for(&here, "read:a");
        lost(&winner(at_once(2, |place| [&here, &there][place].redeem(&code, &[]))));
        // One is asked for here and used there.
        let code = alice.code_for(&here, "read:a");
        let body = there.redeem(&code, &[]).ok();
        let token = text(&body["refresh_token"]);
        let next = winner(at_once(2, |place| [&here, &there][place].refresh(token, &[])));
        here.refresh(text(&next["refresh_token"]), &[]).ok();
    }
    drop((alice, here, there, org));
    replicas.end();
}

fn session_and_question_of_one_replica_are_known_to_the_other(backend: Backend) {
    let replicas = Replicas::start(backend);
    let org = replicas.a.acme();
    let (here, agent) = (org.person(), org.delegate(&["read:a", "read:b"]));
    let there = here.at(&replicas.b);
    // Asked here, answered there; pushed there, asked here.
    let asked = here.authorize(&asking(&agent.client_id, "read:a")).ok();
    let answer = there.decide(&asked, "approve", &[]);
    answer.ok();
    here.decide(&asked, "approve", &[]).expect(409);
    agent.redeem(&told(&answer)["code"], &[]).ok();
    let push = there.org.post("/oauth/par").basic(&agent.client_id, &agent.secret);
    let pushed = push.form(&asking(&agent.client_id, "read:a")).send().expect(201).json();
    let fields = [("client_id", agent.client_id.as_str()), ("request_uri", text(&pushed["request_uri"]))];
    here.authorize(&fields).expect(303);
    // A session that was ended here is ended there.
    org.admin("POST", &format!("/users/{}/block", here.id)).send().ok();
    here.authorize(&asking(&agent.client_id, "read:a")).refused(401, "login_required");
    until_refused("session", Stopwatch::start(), || {
        let mut answer = there.authorize(&asking(&agent.client_id, "read:a"));
        if answer.status == 303 {
            answer.status = 200;
        }
        answer
    });
    drop((here, there, agent, org));
    replicas.end();
}

on_shared_backends!(
    disabling_an_agent_reaches_the_other_replica,
    without_notices_the_bound_still_holds,
    revoking_a_token_reaches_the_other_replica_at_once,
    replicas_have_one_budget_and_one_log,
    replicas_have_the_same_signing_keys,
    revoked_refresh_token_ends_the_chain_on_the_other_replica,
    withdrawn_consent_ends_the_chain_on_the_other_replica,
    blocked_person_ends_the_chain_on_the_other_replica,
    disabled_agent_ends_the_chain_on_the_other_replica,
    codes_and_refresh_tokens_work_once_on_both_replicas,
    session_and_question_of_one_replica_are_known_to_the_other,
);
