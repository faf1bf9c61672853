//! Exchanging tokens beside what an exchange is made of, checking chains of any depth, and ending a tree of tokens.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BatchSize, Criterion};
use futures_util::FutureExt;
use lumoauth_core::{
    agent::Agent,
    audit::{Actor, Event, EventKind, Origin},
    capability::Capability,
    client::Secrets,
    clock::{Clock, SystemClock},
    id::{OrgId, Slug},
    keys::{KeyRing, KeyRingConfig, MasterKey},
    organization::Organization,
    secret::Secret,
    server::{AuthorizationServer, Credential, Door, TokenRequest},
    store::{Insert, MemoryStore, Stores},
    wire::Params,
};

/// A server on a memory store, and four agents that may act for each other.
struct Setting {
    server: AuthorizationServer,
    organization: Organization,
    agents: Vec<Agent>,
    secret: Secret,
}

impl Setting {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let stores = Stores::all(store.clone());
        let now = SystemClock::new().now();
        let event = |kind| Event::new(kind, Actor::system(), "made for a benchmark", now);
        let organization = Organization::new(OrgId::parse("acme-corp").unwrap(), "Acme Corp", now);
        let on = event(EventKind::OrganizationCreated);
        let outcome = stores.organizations.insert(&organization, &on).now_or_never().unwrap();
        assert_eq!(outcome.unwrap(), Insert::Inserted);
        let secret = Secret::generate("lms_");
        let mut agents = Vec::new();
        for slug in ["first", "second", "third", "fourth"] {
            let mut agent = Agent::new(slug, Slug::parse(slug).unwrap(), now);
            agent.secrets = Secrets::one(&secret);
            agent.capabilities =
                ["read:documents", "delegate:user"].map(|text| Capability::parse(text).unwrap()).to_vec();
            let on = event(EventKind::AgentCreated);
            let outcome = stores.agents.insert(&organization.id, &agent, &on).now_or_never().unwrap();
            assert_eq!(outcome.unwrap(), Insert::Inserted);
            agents.push(agent);
        }
        let keys = Arc::new(KeyRing::new(store, MasterKey::generate(), KeyRingConfig::default()));
        let server = AuthorizationServer::builder("https://auth.example", stores, keys).build().unwrap();
        Self { server, organization, agents, secret }
    }

    fn request(&self, params: &Params) -> String {
        let origin = Origin::default();
        let request = TokenRequest { authorization: None, params, origin: &origin };
        let response = self.server.token(&self.organization, request).now_or_never().unwrap().unwrap();
        response.access_token.expose().to_owned()
    }

    fn own(&self, agent: usize) -> Params {
        let (id, secret) = (&self.agents[agent].client_id, self.secret.expose());
        let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
        Params::from_form(form.as_bytes()).unwrap()
    }

    /// `actor` joins whoever `subject` is of.
    fn exchange(subject: &str, actor: &str) -> Params {
        let form = format!(
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange\
             &subject_token={subject}&subject_token_type=urn:ietf:params:oauth:token-type:access_token\
             &actor_token={actor}&actor_token_type=urn:ietf:params:oauth:token-type:access_token"
        );
        Params::from_form(form.as_bytes()).unwrap()
    }

    fn check(&self, token: &str) {
        let credential = Credential::Bearer(token);
        let principal = self.server.authenticate(&self.organization, credential, Door::Own);
        black_box(principal.now_or_never().unwrap().unwrap());
    }

    /// Ends a token of the first agent.
    fn revoke(&self, token: &str) {
        let (id, secret) = (&self.agents[0].client_id, self.secret.expose());
        let form = format!("token={token}&client_id={id}&client_secret={secret}");
        let params = Params::from_form(form.as_bytes()).unwrap();
        let origin = Origin::default();
        let request = TokenRequest { authorization: None, params: &params, origin: &origin };
        self.server.revoke(&self.organization, request).now_or_never().unwrap().unwrap();
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let setting = Setting::new();
    let own: Vec<_> = (0..4).map(|agent| setting.request(&setting.own(agent))).collect();
    let mut chain = vec![own[0].clone()];
    for actor in &own[1..] {
        let subject = chain.last().unwrap();
        chain.push(setting.request(&Setting::exchange(subject, actor)));
    }

    let mut exchange = criterion.benchmark_group("exchange");
    let (plain, joined) = (setting.own(0), Setting::exchange(&own[0], &own[1]));
    exchange.bench_function("client_credentials", |b| b.iter(|| setting.request(&plain)));
    exchange.bench_function("check", |b| b.iter(|| setting.check(&own[0])));
    exchange.bench_function("delegation", |b| b.iter(|| setting.request(&joined)));
    exchange.finish();

    let mut check = criterion.benchmark_group("check at depth");
    for depth in [0, 1, 3] {
        check.bench_function(depth.to_string(), |b| b.iter(|| setting.check(&chain[depth])));
    }
    check.finish();

    let mut revoke = criterion.benchmark_group("revoke the root of");
    for descendants in [0, 1, 1000] {
        let tree = || {
            let root = setting.request(&setting.own(0));
            let join = Setting::exchange(&root, &own[1]);
            (0..descendants).for_each(|_| drop(black_box(setting.request(&join))));
            root
        };
        revoke.sample_size(10).bench_function(descendants.to_string(), |b| {
            b.iter_batched(tree, |root| setting.revoke(&root), BatchSize::PerIteration);
        });
    }
    revoke.finish();
    criterion.final_summary();
}
