//! G13: what it costs to end a tree of tokens, and to check one of its members.

use std::{sync::Arc, time::Duration};

use embedded_store::EmbeddedStore;
use lumoauth_core::{
    agent::Agent,
    audit::{Actor, Event, EventKind, Origin},
    capability::Capability,
    client::Secrets,
    id::{OrgId, Slug},
    keys::{KeyRing, KeyRingConfig, MasterKey},
    organization::Organization,
    secret::Secret,
    server::{AuthorizationServer, Credential, Door, TokenRequest},
    store::{CacheConfig, Cached, Handle, Insert, MemoryStore, Revoked, Stores},
    wire::Params,
};
use lumoauth_tests::{Stopwatch, services::query};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{
    Options, StoreKind,
    goals::{charges::open, now, ratios},
    host, many_threads,
    place::Place,
    rate::{self, Contender, Rate, alternate},
    report::{Limit, Report, Spread, micros, say},
};

/// How many descendants the roots have, and how many tokens were ended one by one before.
const SIZES: [usize; 3] = [1, 1_000, 100_000];

/// How many tokens of one line have all of the descendants below them: as many roots can be ended. A token remembers 16
/// others that it came from.
const LINE: usize = 12;

/// How many tokens are made at a time, since a durable store shares the cost of one sync among all that wait for it.
const AT_A_TIME: usize = 64;

/// Ends roots and leaves of trees of each size, and checks members at depth one and three, on each store.
pub(crate) fn trees(options: &Options, report: &mut Report) {
    for kind in StoreKind::ALL.into_iter().filter(|kind| options.wants(*kind)) {
        let name = kind.name();
        say(&format!("G13: trees of tokens, {name}"));
        let runtime = &many_threads();
        let trees = SIZES.map(|size| Tree::grow(runtime, kind, size));
        let contenders: Vec<Contender<'_>> = trees
            .iter()
            .flat_map(|tree| [1, 3].map(|depth| (tree, depth)))
            .map(|(tree, depth)| {
                let name = format!("check at depth {depth}, {} descendants and as many marks", tree.size);
                Contender::new(name, move |length| tree.check(runtime, depth, length))
            })
            .collect();
        let rates = alternate(options, &contenders);
        drop(contenders);
        for (tree, rates) in trees.iter().zip(rates.chunks(2)) {
            let [first, third] = rates else { continue };
            let what = format!("{name}, {} marks: time of a check at depth 3 / 1", tree.size);
            report.add("G13", what, Spread::of(ratios(first, third)), Limit::AtMost(1.1));
        }
        let what = format!("{name}: time of a check at depth 3 with {} marks / with 1", SIZES[2]);
        report.add("G13", what, Spread::of(ratios(&rates[1], &rates[5])), Limit::None);

        let roots = trees.map(|tree| {
            let (roots, leaves) = tree.end(runtime);
            let what = format!("{name}, {} descendants: us to end the root", tree.size);
            report.add("G13", what, Spread::of(roots.iter().copied()), Limit::None);
            if !leaves.is_empty() {
                let what = format!("{name}, {} descendants: us to end a leaf", tree.size);
                report.add("G13", what, Spread::of(leaves.iter().copied()), Limit::None);
                let what = format!("{name}, {} descendants: time to end the root / a leaf", tree.size);
                report.add("G13", what, Spread::of(ratios(&roots, &leaves)), Limit::AtMost(2.0));
            }
            roots
        });
        let what = format!("{name}: time to end a root of {} / of 1", SIZES[2]);
        report.add("G13", what, Spread::of(ratios(&roots[2], &roots[0])), Limit::None);
    }
}

/// A server whose first agent has a line of tokens, each made from the one before; from the last of them the second agent
/// has made `size`.
struct Tree {
    size: usize,
    shared: Arc<Shared>,
    line: Vec<String>,
    /// Some of the second agent's tokens.
    leaves: Vec<String>,
    /// A token whose subject is the first agent, by the number of actors.
    chain: Vec<String>,
    // Dropped after the store that is in it.
    _place: Place,
}

struct Shared {
    server: AuthorizationServer,
    stores: Stores,
    organization: Organization,
    agents: Vec<Agent>,
    secret: Secret,
}

impl Tree {
    fn grow(runtime: &Runtime, kind: StoreKind, size: usize) -> Self {
        let place = Place::new(kind);
        let watch = Stopwatch::start();
        let (shared, line, leaves, chain) = runtime.block_on(async {
            let shared = Arc::new(Shared::open(&place).await);
            let own = |agent| shared.own(agent);
            let mut line = vec![own(0).await];
            for above in 1..LINE {
                line.push(shared.token(&exchange(&line[above - 1], None)).await);
            }
            let leaves = shared.join(&line[LINE - 1], &own(1).await, size).await;
            shared.mark(size).await;
            let mut chain = vec![own(0).await];
            for actor in 1..=3 {
                let actor_token = own(actor).await;
                chain.push(shared.token(&exchange(&chain[actor - 1], Some(&actor_token))).await);
            }
            // Numbered now, so that no such work is left for later.
            let org = &shared.organization.id;
            while shared.stores.audit.sequence(org, 10_000).await.expect("the store answers") > 0 {}
            (shared, line, leaves, chain)
        });
        if kind == StoreKind::Postgres {
            query(place.store(), "VACUUM ANALYZE");
            query(place.store(), "CHECKPOINT");
        }
        say(&format!("  {size} descendants and marks stored in {:.1} s", watch.elapsed().as_secs_f64()));
        Self { size, shared, line, leaves, chain, _place: place }
    }

    /// A round of checks of the token with `depth` actors, one at a time.
    fn check(&self, runtime: &Runtime, depth: usize, length: Duration) -> Rate {
        let shared = self.shared.clone();
        let token: Arc<str> = self.chain[depth].as_str().into();
        rate::measure(runtime, 1, length, move |_| {
            let (shared, token) = (shared.clone(), token.clone());
            async move { assert!(shared.is_alive(&token).await) }
        })
    }

    /// Ends leaves and roots in turn, the lowest root first; the microseconds of each. Where there are fewer leaves than
    /// roots, no leaf is ended.
    fn end(&self, runtime: &Runtime) -> (Vec<f64>, Vec<f64>) {
        let Self { shared, line, leaves, .. } = self;
        let (member, leaves) = leaves.split_first().expect("a descendant");
        let leaves = leaves.get(..LINE).unwrap_or_default();
        runtime.block_on(async {
            let ended = async |agent, token| {
                let watch = Stopwatch::start();
                shared.revoke(agent, token).await;
                micros(watch.elapsed())
            };
            let first = shared.own(0).await;
            ended(0, &first).await;
            let (mut of_roots, mut of_leaves) = (Vec::new(), Vec::new());
            for (nth, root) in line.iter().rev().enumerate() {
                if let Some(leaf) = leaves.get(nth) {
                    of_leaves.push(ended(1, leaf).await);
                    assert!(!shared.is_alive(leaf).await);
                }
                assert_eq!(shared.is_alive(member).await, nth == 0);
                of_roots.push(ended(0, root).await);
                assert!(!shared.is_alive(member).await);
            }
            (of_roots, of_leaves)
        })
    }
}

impl Shared {
    async fn open(place: &Place) -> Self {
        let stores = match place.kind {
            StoreKind::Memory => Stores::all(Arc::new(MemoryStore::new())),
            StoreKind::Embedded => {
                let store = EmbeddedStore::open(place.directory().join("data")).expect("the store opens");
                Stores::all(Arc::new(store))
            }
            StoreKind::Postgres => {
                let store = Arc::new(open(place.store()).await);
                Cached::over(Stores::all(store), &CacheConfig::default(), None)
            }
        };
        let organization = Organization::new(OrgId::parse(host::ORG).expect("a slug"), "Acme Corp", now());
        let on = made(EventKind::OrganizationCreated);
        let outcome = stores.organizations.insert(&organization, &on).await.expect("the store answers");
        assert_eq!(outcome, Insert::Inserted);
        let secret = Secret::generate("lms_");
        let mut agents = Vec::new();
        for slug in ["first", "second", "third", "fourth"] {
            let mut agent = Agent::new(slug, Slug::parse(slug).expect("a slug"), now());
            agent.secrets = Secrets::one(&secret);
            agent.capabilities = ["read:documents", "delegate:user"]
                .map(|text| Capability::parse(text).expect("a capability"))
                .to_vec();
            let on = made(EventKind::AgentCreated);
            let outcome = stores.agents.insert(&organization.id, &agent, &on).await;
            assert_eq!(outcome.expect("the store answers"), Insert::Inserted);
            agents.push(agent);
        }
        let keys = KeyRing::new(stores.keys.clone(), MasterKey::generate(), KeyRingConfig::default());
        let server = AuthorizationServer::builder("https://auth.example", stores.clone(), Arc::new(keys));
        Self { server: server.build().expect("the parts fit"), stores, organization, agents, secret }
    }

    async fn token(&self, form: &str) -> String {
        let params = Params::from_form(form.as_bytes()).expect("a form");
        let origin = Origin::default();
        let request = TokenRequest { authorization: None, dpop: None, params: &params, origin: &origin };
        let answer = self.server.token(&self.organization, request).await.expect("a token");
        answer.access_token.expose().to_owned()
    }

    /// The end of a form by which an agent authenticates.
    fn credentials(&self, agent: usize) -> String {
        format!("client_id={}&client_secret={}", self.agents[agent].client_id, self.secret.expose())
    }

    async fn own(&self, agent: usize) -> String {
        self.token(&format!("grant_type=client_credentials&{}", self.credentials(agent))).await
    }

    /// Exchanges the same two tokens `count` times; a few of what came of it.
    async fn join(self: &Arc<Self>, subject: &str, actor: &str, count: usize) -> Vec<String> {
        let form: Arc<str> = exchange(subject, Some(actor)).into();
        let mut tasks = JoinSet::new();
        for first in 0..AT_A_TIME {
            let (shared, form) = (self.clone(), form.clone());
            tasks.spawn(async move {
                let mut last = None;
                for _ in (first..count).step_by(AT_A_TIME) {
                    last = Some(shared.token(&form).await);
                }
                last
            });
        }
        tasks.join_all().await.into_iter().flatten().collect()
    }

    /// Ends `count` tokens of nobody.
    async fn mark(self: &Arc<Self>, count: usize) {
        let mut tasks = JoinSet::new();
        for first in 0..AT_A_TIME {
            let shared = self.clone();
            tasks.spawn(async move {
                for number in (first..count).step_by(AT_A_TIME) {
                    let mut handle = [0; 12];
                    handle[4..].copy_from_slice(&(number as u64).to_be_bytes());
                    let until = now().plus(Duration::from_secs(86_400));
                    let (org, on) = (&shared.organization.id, made(EventKind::TokenRevoked));
                    let revoked =
                        shared.stores.grants.revoke(org, Handle::from_bytes(handle), until, &on).await;
                    assert_eq!(revoked.expect("the store answers"), Revoked::Revoked);
                }
            });
        }
        tasks.join_all().await;
    }

    async fn is_alive(&self, token: &str) -> bool {
        self.server
            .authenticate(&self.organization, Credential::Bearer(token), Door::Own, &Origin::default())
            .await
            .is_ok()
    }

    /// Ends a token of an agent.
    async fn revoke(&self, agent: usize, token: &str) {
        let form = format!("token={token}&{}", self.credentials(agent));
        let params = Params::from_form(form.as_bytes()).expect("a form");
        let origin = Origin::default();
        let request = TokenRequest { authorization: None, dpop: None, params: &params, origin: &origin };
        self.server.revoke(&self.organization, request).await.expect("it is ended");
    }
}

/// What came of `subject`: for `actor`, or with no less authority for itself.
fn exchange(subject: &str, actor: Option<&str>) -> String {
    const TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
    let more = match actor {
        Some(actor) => format!("actor_token={actor}&actor_token_type={TYPE}"),
        None => "scope=read:documents".to_owned(),
    };
    format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange\
         &subject_token={subject}&subject_token_type={TYPE}&{more}"
    )
}

pub(super) fn made(kind: EventKind) -> Event {
    Event::new(kind, Actor::system(), "made for a load test", now())
}
