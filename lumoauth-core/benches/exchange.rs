//! Exchanging tokens beside what an exchange cannot do without, checking chains of any depth, and ending a tree of
//! tokens at its root and at a leaf.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::{hint::black_box, sync::Arc, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
    },
};
use criterion::{BatchSize, Criterion, SamplingMode};
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
        let request = TokenRequest { authorization: None, dpop: None, params, origin: &origin };
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
        assert!(self.is_alive(token));
    }

    fn is_alive(&self, token: &str) -> bool {
        let credential = Credential::Bearer(token);
        let origin = Origin::default();
        let principal = self.server.authenticate(&self.organization, credential, Door::Own, &origin);
        black_box(principal.now_or_never().unwrap()).is_ok()
    }

    /// Ends a token of an agent.
    fn revoke(&self, agent: usize, token: &str) {
        let (id, secret) = (&self.agents[agent].client_id, self.secret.expose());
        let form = format!("token={token}&client_id={id}&client_secret={secret}");
        let params = Params::from_form(form.as_bytes()).unwrap();
        let origin = Origin::default();
        let request = TokenRequest { authorization: None, dpop: None, params: &params, origin: &origin };
        self.server.revoke(&self.organization, request).now_or_never().unwrap().unwrap();
    }
}

/// A token of the first agent, and what the second one made of it, on a store of their own.
struct Tree {
    setting: Setting,
    root: String,
    leaf: String,
}

impl Tree {
    fn new(descendants: usize) -> Self {
        let setting = Setting::new();
        let (root, actor) = (setting.request(&setting.own(0)), setting.request(&setting.own(1)));
        let join = Setting::exchange(&root, &actor);
        (1..descendants).for_each(|_| drop(black_box(setting.request(&join))));
        let leaf = setting.request(&join);
        Self { setting, root, leaf }
    }

    /// Ends everything; gives itself back, so that it is not taken apart while the time runs.
    fn revoke_root(self) -> Self {
        self.setting.revoke(0, &self.root);
        self
    }

    /// Ends one token.
    fn revoke_leaf(self) -> Self {
        self.setting.revoke(1, &self.leaf);
        self
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
    exchange(&mut criterion, &setting, &own);
    check(&mut criterion, &setting, &chain);
    revoke(&mut criterion);
    criterion.final_summary();
}

/// An exchange makes one signature, and checks those of its tokens that it has not seen before.
fn exchange(criterion: &mut Criterion, setting: &Setting, own: &[String]) {
    let random = random();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
    let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref()).unwrap();
    let (message, _) = own[0].rsplit_once('.').unwrap();
    let sign = || pair.sign(&random, black_box(message.as_bytes())).unwrap();
    let signature = sign();
    let check = || public.verify_sig(black_box(message.as_bytes()), signature.as_ref()).unwrap();

    let (plain, seen) = (setting.own(0), Setting::exchange(&own[0], &own[1]));
    let unseen = || Setting::exchange(&setting.request(&setting.own(0)), &setting.request(&setting.own(1)));
    let mut group = criterion.benchmark_group("exchange");
    group.bench_function("bare signature", |b| b.iter(sign));
    group.bench_function("bare signature and two checks", |b| {
        b.iter(|| {
            check();
            check();
            sign()
        });
    });
    group.bench_function("client_credentials", |b| b.iter(|| setting.request(&plain)));
    group.bench_function("tokens seen before", |b| b.iter(|| setting.request(&seen)));
    group.bench_function("tokens never seen", |b| {
        b.iter_batched(unseen, |params| setting.request(&params), BatchSize::SmallInput);
    });
    group.finish();
}

fn check(criterion: &mut Criterion, setting: &Setting, chain: &[String]) {
    let mut group = criterion.benchmark_group("check");
    group.bench_function("never seen", |b| {
        let unseen = || setting.request(&setting.own(0));
        b.iter_batched(unseen, |token| setting.check(&token), BatchSize::SmallInput);
    });
    for (depth, token) in chain.iter().enumerate() {
        group.bench_function(format!("seen before, depth {depth}"), |b| b.iter(|| setting.check(token)));
    }
    group.finish();
}

/// A token has no row, so its descendants are not there to be counted: their number must not matter.
fn revoke(criterion: &mut Criterion) {
    let tree = Tree::new(3).revoke_leaf();
    assert!(tree.setting.is_alive(&tree.root) && !tree.setting.is_alive(&tree.leaf));
    let tree = Tree::new(3).revoke_root();
    assert!(!tree.setting.is_alive(&tree.root) && !tree.setting.is_alive(&tree.leaf));

    let mut group = criterion.benchmark_group("revoke");
    // Each sample needs a tree of its own.
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for descendants in [1, 1_000, 100_000] {
        let new = || Tree::new(descendants);
        group.bench_function(format!("root of {descendants}"), |b| {
            b.iter_batched(new, Tree::revoke_root, BatchSize::PerIteration);
        });
        group.bench_function(format!("leaf of {descendants}"), |b| {
            b.iter_batched(new, Tree::revoke_leaf, BatchSize::PerIteration);
        });
    }
    group.finish();
}

#[expect(clippy::disallowed_methods, reason = "the yardstick uses nothing of this crate")]
fn random() -> SystemRandom {
    SystemRandom::new()
}
