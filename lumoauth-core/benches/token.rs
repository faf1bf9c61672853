//! Issuing and verifying access tokens, each beside the bare signature or check that it cannot do without.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::{hint::black_box, sync::Arc, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
    },
};
use criterion::Criterion;
use futures_util::FutureExt;
use lumoauth_core::{
    agent::Agent,
    audit::{Actor, Event, EventKind, Origin},
    capability::Capability,
    client::Secrets,
    clock::{Clock, SystemClock},
    id::{OrgId, Slug},
    keys::{KeyProvider, KeyPurpose, KeyRing, KeyRingConfig, MasterKey},
    organization::Organization,
    secret::Secret,
    server::{AuthorizationServer, Credential, Door, TokenRequest},
    store::{Insert, MemoryStore, Stores},
    token,
    wire::Params,
};

/// A server on a memory store with one organization and one agent.
struct Setting {
    server: AuthorizationServer,
    keys: Arc<KeyRing>,
    organization: Organization,
    params: Params,
}

impl Setting {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let stores = Stores::all(store.clone());
        let now = SystemClock::new().now();
        let event = |kind| Event::new(kind, Actor::system(), "made for a benchmark", now);
        let organization = Organization::new(OrgId::parse("acme-corp").unwrap(), "Acme Corp", now);
        let outcome = stores
            .organizations
            .insert(&organization, &event(EventKind::OrganizationCreated))
            .now_or_never()
            .unwrap();
        assert_eq!(outcome.unwrap(), Insert::Inserted);

        let mut agent = Agent::new("Bench Agent", Slug::parse("bench").unwrap(), now);
        let secret = Secret::generate("lms_");
        agent.secrets = Secrets::one(&secret);
        agent.capabilities =
            ["read:documents", "write:documents"].map(|text| Capability::parse(text).unwrap()).to_vec();
        let on = event(EventKind::AgentCreated);
        let outcome = stores.agents.insert(&organization.id, &agent, &on).now_or_never().unwrap();
        assert_eq!(outcome.unwrap(), Insert::Inserted);

        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}",
            agent.client_id,
            secret.expose()
        );
        let params = Params::from_form(form.as_bytes()).unwrap();
        let keys = Arc::new(KeyRing::new(store, MasterKey::generate(), KeyRingConfig::default()));
        let server =
            AuthorizationServer::builder("https://auth.example", stores, keys.clone()).build().unwrap();
        Self { server, keys, organization, params }
    }

    fn issue(&self) -> String {
        let origin = Origin::default();
        let request = TokenRequest { authorization: None, dpop: None, params: &self.params, origin: &origin };
        let response = self.server.token(&self.organization, request).now_or_never().unwrap().unwrap();
        response.access_token.expose().to_owned()
    }
}

#[expect(clippy::disallowed_methods, reason = "the yardstick uses nothing of this crate")]
fn random() -> SystemRandom {
    SystemRandom::new()
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let setting = Setting::new();
    let token = setting.issue();
    let (message, _) = token.rsplit_once('.').unwrap();

    let random = random();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
    let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref()).unwrap();
    let signature = pair.sign(&random, message.as_bytes()).unwrap();

    let mut issue = criterion.benchmark_group("issue");
    issue.bench_function("bare signature", |b| {
        b.iter(|| pair.sign(&random, black_box(message.as_bytes())).unwrap());
    });
    issue.bench_function("client_credentials", |b| b.iter(|| setting.issue()));
    issue.finish();

    let issuer = setting.server.issuer(&setting.organization.id);
    let now = setting.server.now();
    let org = &setting.organization.id;
    let keys =
        setting.keys.verifying_keys(org, KeyPurpose::AccessToken, now).now_or_never().unwrap().unwrap();
    let origin = Origin::default();
    let mut verify = criterion.benchmark_group("verify");
    verify.bench_function("bare check", |b| {
        b.iter(|| public.verify_sig(black_box(message.as_bytes()), signature.as_ref()).unwrap());
    });
    verify.bench_function("token::verify", |b| {
        b.iter(|| token::verify(black_box(&token), &keys, &issuer, now).unwrap());
    });
    verify.bench_function("AuthorizationServer::authenticate", |b| {
        b.iter(|| {
            let credential = Credential::Bearer(black_box(&token));
            let principal =
                setting.server.authenticate(&setting.organization, credential, Door::Own, &origin);
            principal.now_or_never().unwrap().unwrap()
        });
    });
    verify.finish();
    criterion.final_summary();
}
