//! Connections from a server to its services cut after n bytes, for many n (security ST-02): clients that repeat what
//! they do not know are charged once, and own what they made once.

use std::time::Duration;

use lumoauth_tests::{
    Request, Response, Server,
    services::{Database, Postgres, Proxy, Redis},
    unique,
};
use serde_json::json;

use crate::{
    answers::{Spread, is_not_now, timed},
    cuts_store::{Cut, cuts},
    deployment::Deployment,
    ledger::{Agent, Ledger},
};

#[test]
fn clients_of_a_server_whose_database_connections_are_cut_are_served_exactly_once() {
    let postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    let proxy = Proxy::start(postgres.address());
    let deployment = Deployment::of(1);
    let url = postgres.url_at(proxy.address(), database.name());
    let [server] = &*deployment.start(&url) else { panic!("one server") };
    let spender = Agent::spender(server);
    let mut clients = Clients { server, proxy: &proxy, ledger: Ledger::default(), took: Spread::default() };
    let cuts = cuts(4000, 4000);
    for cut in &cuts {
        clients.charge(*cut, &spender);
        clients.create(*cut);
        clients.authenticate(*cut, &spender);
        clients.ask(*cut, &spender);
        clients.revoke(*cut, &spender);
        proxy.do_not_cut();
    }
    let used = spender.used(server);
    assert_eq!(used, u64::try_from(clients.ledger.keys.len()).expect("fits"), "each key is charged once");
    clients.report("PostgreSQL", cuts.len());
    clients.ledger.check_everything(server, &spender);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn clients_of_a_server_whose_redis_connections_are_cut_are_never_charged_twice() {
    let postgres = Postgres::start();
    let database = Database::create_in(&postgres);
    let redis = Redis::start();
    let proxy = Proxy::start(redis.address());
    let deployment = Deployment::of(1);
    let store = format!("{}+{}", database.url(), redis.url_at(proxy.address()));
    let [server] = &*deployment.start(&store) else { panic!("one server") };
    let spender = Agent::spender(server);
    let mut clients = Clients { server, proxy: &proxy, ledger: Ledger::default(), took: Spread::default() };
    let cuts = cuts(1500, 500);
    for cut in &cuts {
        clients.charge(*cut, &spender);
        clients.create(*cut);
        clients.authenticate(*cut, &spender);
        clients.ask(*cut, &spender);
        clients.revoke(*cut, &spender);
        proxy.do_not_cut();
    }
    // A slice whose way to Redis was cut is wasted, and shown as used.
    let (keys, used) = (u64::try_from(clients.ledger.keys.len()).expect("fits"), spender.used(server));
    assert!((keys..=keys + proxy.cuts() * SLICE).contains(&used), "{keys} keys, {used} used");
    eprintln!("{} of {used} units were wasted", used - keys);
    clients.report("Redis", cuts.len());
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// A slice lasts for this many charges like the one that asks for it.
const SLICE: u64 = 100;

/// Clients that repeat every request until it succeeds.
struct Clients<'a> {
    server: &'a Server,
    proxy: &'a Proxy,
    ledger: Ledger,
    took: Spread,
}

impl Clients<'_> {
    fn charge(&mut self, cut: Cut, spender: &Agent) {
        let key = unique("charge");
        let request = spender.charge(self.server, Some(&key));
        self.ledger.keys.push(key);
        self.insist(cut, &request, &[200]);
    }

    /// With a slug, which is what makes it repeatable.
    fn create(&mut self, cut: Cut) {
        let name = unique("Survivor");
        let members = json!({ "name": name, "slug": name.to_lowercase(), "capabilities": ["read:a"] });
        self.ledger.attempted_agents.push(name.clone());
        let request = self.server.acme().admin("POST", "/agents").json(members);
        let (response, _) = self.insist(cut, &request, &[201, 409]);
        if response.status == 201 {
            let data = response.json()["data"].clone();
            let part = |member: &str| data[member].as_str().unwrap_or_default().to_owned();
            let (agent_id, client_id, secret) = (part("agentId"), part("clientId"), part("clientSecret"));
            self.ledger.agents.push(Agent { agent_id, client_id, secret, token: String::new() });
        }
    }

    fn authenticate(&mut self, cut: Cut, spender: &Agent) {
        let (response, tries) = self.insist(cut, &spender.token_request(self.server), &[200]);
        self.ledger.tokens += 1;
        self.ledger.attempted_tokens += tries;
        self.ledger.kept.push(response.json()["access_token"].as_str().unwrap_or_default().to_owned());
    }

    fn ask(&mut self, cut: Cut, spender: &Agent) {
        let (response, tries) = self.insist(cut, &spender.question(self.server), &[200]);
        self.ledger.attempted_questions += tries;
        self.ledger.questions.push(response.json()["audit_id"].as_str().unwrap_or_default().to_owned());
    }

    /// Every other token.
    fn revoke(&mut self, cut: Cut, spender: &Agent) {
        if self.ledger.tokens.is_multiple_of(2) {
            return;
        }
        let Some(token) = self.ledger.kept.pop() else { return };
        let (_, tries) = self.insist(cut, &spender.revocation(self.server, &token), &[200]);
        self.ledger.attempted_revocations += tries;
        self.ledger.revoked.push(token);
    }

    /// The answer that is wanted, and after how many tries it came.
    fn insist(&mut self, cut: Cut, request: &Request, wanted: &[u16]) -> (Response, u64) {
        cut.arm(self.proxy);
        for tries in 1..=20 {
            let (response, took) = timed(self.server, request);
            self.took.add(took);
            if wanted.contains(&response.status) {
                return (response, tries);
            }
            assert!(is_not_now(&response), "{cut:?}: {response}");
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{cut:?}: the server does not recover: {}", self.server.log());
    }

    fn report(&self, service: &str, places: usize) {
        eprintln!(
            "{places} places in 5 requests to a server on {service}: {} connections cut; {}; answers: {}",
            self.proxy.cuts(),
            self.ledger.summary(),
            self.took
        );
        assert!(self.proxy.cuts() * 4 > u64::try_from(places).expect("fits"), "hardly anything was cut");
    }
}
