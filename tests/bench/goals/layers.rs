//! G5: what the protective layers add to a route. G9: what a lease saves.

use std::{convert::Infallible, env, hint::black_box, process::Command, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use lumoauth_core::{
    agent::Agent,
    audit::{EventKind, Origin},
    budget::{Account, BudgetPolicy, Standing, Usage, account_lines},
    capability::Capability,
    client::Secrets,
    id::{AgentId, OrgId, Slug},
    keys::{KeyRing, KeyRingConfig, MasterKey},
    organization::Organization,
    secret::Secret,
    server::{AuthorizationServer, TokenRequest},
    store::{BudgetStore, Charge, Charged, LeasedBudgets, MemoryStore, Stores},
    wire::Params,
};
use lumoauth_tests::Stopwatch;
use lumoauth_tower::{AuthenticateLayer, BudgetLayer, RequireCapabilityLayer};
use tokio::runtime::{Builder, Runtime};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneService};

use crate::{
    Options, StoreKind,
    goals::{charges::open, now, ratios, trees::made},
    host, many_threads,
    place::Place,
    process::own_resident,
    rate::{self, Contender, Rate},
    report::{Limit, Report, Spread, micros, say},
};

/// How many charges a slice of a lease is meant for.
const SLICE: u32 = 100;

/// How many calls a round of layers has.
const CALLS: usize = 20_000;

/// How many tokens are shown in turn, so that the cache of verified tokens (16 000) has forgotten each when it comes again.
const UNSEEN: usize = 25_000;

type Route = BoxCloneService<Request<()>, Response<Full<Bytes>>, Infallible>;

/// Layers around a route that does nothing, called in one thread without a network.
pub(crate) fn layers(options: &Options, report: &mut Report) {
    say("G5: a route without a network, memory store");
    let what = "memory store: bytes per agent with three counters";
    report.add("G5", what, Spread::of([counters_in_a_process_of_their_own()]), Limit::None);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bench = Bench::new(&runtime);
    let few = bench.tokens(&runtime, 1);
    let many = bench.tokens(&runtime, UNSEEN);
    let strict = || bench.server(bench.stores.clone());
    let leased = || {
        let budgets = Arc::new(LeasedBudgets::new(bench.stores.budgets.clone(), SLICE));
        bench.server(Stores { budgets, ..bench.stores.clone() })
    };
    let contenders: Vec<(&str, Route, &[String])> = vec![
        ("bare route", bare(), &few),
        ("authenticated, token seen before", authenticated(strict()), &few),
        ("authenticated + capability + budget, strict, token seen before", guarded(strict()), &few),
        ("authenticated + capability + budget, leased, token seen before", guarded(leased()), &few),
        ("authenticated + capability + budget, leased, token not seen", guarded(leased()), &many),
        ("authenticated + capability + budget, strict, token not seen", guarded(strict()), &many),
    ];
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    let mut checks = Vec::new();
    for _ in 0..options.rounds {
        for ((_, route, tokens), times) in contenders.iter().zip(&mut times) {
            times.push(micros(round(&runtime, route, tokens)));
        }
        checks.push(micros(bench.check(CALLS / 10)));
    }
    for ((name, ..), times) in contenders.iter().zip(&times) {
        report.add("G5", format!("{name}: us per call"), Spread::of(times.iter().copied()), Limit::None);
    }
    report.add("G5", "one signature check: us", Spread::of(checks.iter().copied()), Limit::None);
    let over = |contender: usize| times[contender].iter().zip(&times[0]).map(|(all, bare)| all - bare);
    let what = "strict, token seen before: us over the bare route";
    report.add("G5", what, Spread::of(over(2)), Limit::None);
    let what = "leased, token seen before: us over the bare route";
    report.add("G5", what, Spread::of(over(3)), Limit::AtMost(4.0));
    let unseen = over(4).zip(&checks).map(|(over, check)| over / check);
    let what = "leased, token not seen: time over the bare route / one signature check";
    report.add("G5", what, Spread::of(unseen), Limit::AtMost(1.2));
}

/// The time of one call, on average over a round.
fn round(runtime: &Runtime, route: &Route, tokens: &[String]) -> Duration {
    let requests = |n: usize| {
        let authorization = format!("Bearer {}", tokens[n % tokens.len()]);
        Request::builder().header(header::AUTHORIZATION, authorization).body(()).expect("a request")
    };
    let calls = CALLS.max(tokens.len());
    let requests: Vec<_> = (0..calls).map(requests).collect();
    let mut route = route.clone();
    runtime.block_on(async {
        let watch = Stopwatch::start();
        for request in requests {
            let answer = route.ready().await.expect("it is ready").call(request).await.expect("it answers");
            assert_eq!(answer.status(), 200);
            black_box(answer);
        }
        watch.elapsed() / u32::try_from(calls).expect("a small number")
    })
}

fn bare() -> Route {
    let answer = async |_| Ok::<_, Infallible>(Response::new(Full::from("ok")));
    BoxCloneService::new(service_fn(answer))
}

fn authenticated(server: AuthorizationServer) -> Route {
    BoxCloneService::new(ServiceBuilder::new().layer(AuthenticateLayer::new(server)).service(bare()))
}

fn guarded(server: AuthorizationServer) -> Route {
    let capability = Capability::parse("read:documents").expect("a capability");
    let service = ServiceBuilder::new()
        .layer(AuthenticateLayer::new(server.clone()))
        .layer(RequireCapabilityLayer::new(capability))
        .layer(BudgetLayer::new(Arc::new(server)))
        .service(bare());
    // The metered body ends here, as it does when it has been sent.
    BoxCloneService::new(service.map_response(|response| response.map(|_| Full::default())))
}

struct Bench {
    stores: Stores,
    keys: Arc<KeyRing>,
    organization: Organization,
    agent: Agent,
    secret: Secret,
}

impl Bench {
    fn new(runtime: &Runtime) -> Self {
        let stores = Stores::all(Arc::new(MemoryStore::new()));
        let organization = Organization::new(OrgId::parse(host::ORG).expect("a slug"), "Acme Corp", now());
        let secret = Secret::generate("lms_");
        let mut agent = Agent::new("Layers", Slug::parse("layers").expect("a slug"), now());
        agent.secrets = Secrets::one(&secret);
        agent.capabilities = vec![Capability::parse("read:documents").expect("a capability")];
        agent.budget = endless();
        runtime.block_on(async {
            let on = made(EventKind::OrganizationCreated);
            let _ = stores.organizations.insert(&organization, &on).await.expect("the store answers");
            let on = made(EventKind::AgentCreated);
            let _ = stores.agents.insert(&organization.id, &agent, &on).await.expect("the store answers");
        });
        let keys = KeyRing::new(stores.keys.clone(), MasterKey::generate(), KeyRingConfig::default());
        Self { stores, keys: Arc::new(keys), organization, agent, secret }
    }

    fn server(&self, stores: Stores) -> AuthorizationServer {
        let builder = AuthorizationServer::builder("https://auth.example", stores, self.keys.clone());
        builder.build().expect("the parts fit")
    }

    fn tokens(&self, runtime: &Runtime, count: usize) -> Vec<String> {
        let server = self.server(self.stores.clone());
        let (id, secret) = (&self.agent.client_id, self.secret.expose());
        let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
        let params = Params::from_form(form.as_bytes()).expect("a form");
        runtime.block_on(async {
            let mut tokens = Vec::with_capacity(count);
            for _ in 0..count {
                let origin = Origin::default();
                let request =
                    TokenRequest { authorization: None, dpop: None, params: &params, origin: &origin };
                let answer = server.token(&self.organization, request).await.expect("a token");
                tokens.push(answer.access_token.expose().to_owned());
            }
            tokens
        })
    }

    /// The time of one check of an ES256 signature over as many bytes as a token has.
    fn check(&self, count: usize) -> Duration {
        use aws_lc_rs::{
            rand::SystemRandom,
            signature::{
                ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
                ParsedPublicKey,
            },
        };
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        #[expect(
            clippy::disallowed_methods,
            reason = "the yardstick uses nothing of the library it measures"
        )]
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key can be made");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref()).expect("it can be read");
        let message = [b'e'; 800];
        let signature = key.sign(&random, &message).expect("the key signs");
        let public =
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key().as_ref()).expect("a key");
        let watch = Stopwatch::start();
        for _ in 0..count {
            public.verify_sig(black_box(&message), signature.as_ref()).expect("the signature fits");
        }
        watch.elapsed() / u32::try_from(count).expect("a small number")
    }
}

/// Measured where nothing else has left room that could be used again.
fn counters_in_a_process_of_their_own() -> f64 {
    let program = env::current_exe().expect("this program has a path");
    let output = Command::new(program).arg("counters").output().expect("this program runs");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().unwrap_or_else(|_| panic!("no number: {output:?}"))
}

/// Prints the bytes of the counters of one agent, as a process of its own.
#[expect(clippy::print_stdout, reason = "it is what the process that started this one reads")]
pub(crate) fn count() {
    println!("{}", counters_of_an_account());
}

/// What the counters of one agent take in memory, from many that have all three.
fn counters_of_an_account() -> f64 {
    const ACCOUNTS: u32 = 200_000;
    let (store, org, policy) = (MemoryStore::new(), OrgId::parse(host::ORG).expect("a slug"), endless());
    let usage = Usage { tokens: 1, calls: 1, micro_usd: 1 };
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let before = own_resident();
    runtime.block_on(async {
        for _ in 0..ACCOUNTS {
            let account = Account::agent(AgentId::generate(), 0);
            let lines = account_lines(account, &policy, &usage, Standing::MustFit, now());
            let charged = store.charge(&org, &Charge::once(&lines), now()).await.expect("memory answers");
            assert!(matches!(charged, Charged::Charged(_)));
        }
    });
    let taken = own_resident().saturating_sub(before);
    black_box(&store);
    f64::from(u32::try_from(taken / 1024).expect("less than a terabyte")) * 1024.0 / f64::from(ACCOUNTS)
}

/// Limits that are asked and never reached.
fn endless() -> BudgetPolicy {
    let text = r#"{"max_tokens_per_day":9000000000000000,"max_api_calls_per_hour":9000000000000000}"#;
    serde_json::from_str(text).expect("a policy")
}

/// Charges of one caller, leased and not, in front of each store that other processes could share.
pub(crate) fn leases(options: &Options, report: &mut Report) {
    for kind in [StoreKind::Embedded, StoreKind::Postgres].into_iter().filter(|kind| options.wants(*kind)) {
        let name = kind.name();
        say(&format!("G9: charges of a lease of {SLICE}, {name}"));
        let place = Place::new(kind);
        let runtime = &many_threads();
        let durable: Arc<dyn BudgetStore> = match kind {
            StoreKind::Postgres => Arc::new(runtime.block_on(open(place.store()))),
            StoreKind::Memory => unreachable!("nothing lasts there, so nothing is leased"),
            StoreKind::Embedded => {
                let path = place.directory().join("data");
                Arc::new(embedded_store::EmbeddedStore::open(path).expect("the store opens"))
            }
        };
        let leased: Arc<dyn BudgetStore> = Arc::new(LeasedBudgets::new(durable.clone(), SLICE));
        let contenders = [("unleased", durable), ("leased", leased)].map(|(what, budgets)| {
            let account = Account::agent(AgentId::generate(), 0);
            Contender::new(format!("{name}, {what}, one caller"), move |length| {
                charging(runtime, budgets.clone(), account, length)
            })
        });
        let rates = rate::alternate(options, &contenders);
        let what = format!("{name}: leased charges/s of one caller / unleased");
        report.add("G9", what, Spread::of(ratios(&rates[1], &rates[0])), Limit::AtLeast(60.0));
    }
}

fn charging(runtime: &Runtime, budgets: Arc<dyn BudgetStore>, account: Account, length: Duration) -> Rate {
    let (org, policy) = (OrgId::parse(host::ORG).expect("a slug"), endless());
    rate::measure(runtime, 1, length, move |_| {
        let (budgets, org, policy) = (budgets.clone(), org.clone(), policy.clone());
        async move {
            let now = now();
            let lines = account_lines(account, &policy, &Usage::ONE_CALL, Standing::MustFit, now);
            let charged = budgets.charge(&org, &Charge::once(&lines), now).await.expect("the store answers");
            assert!(matches!(charged, Charged::Charged(_)));
        }
    })
}
