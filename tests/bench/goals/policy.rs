//! G11: what one write costs where an organization has much policy, until the next decision knows of it.

use std::sync::Arc;

use embedded_store::EmbeddedStore;
use lumoauth_core::{
    agent::Agent,
    audit::EventKind,
    authz::{Authorizer, BuiltIn},
    capability::{Capability, evaluate},
    id::{Label, OrgId, Slug},
    policy::{
        Effect, Entity, Entry, Environment, Party, Policy, Question, RecordId, Role, Tuple, Verdict, Who,
    },
    store::{Apply, Expect, MemoryStore, PolicyChange, PolicyStore},
};
use lumoauth_tests::{Stopwatch, services::query};
use serde_json::{Map, json};

use crate::{
    Options, StoreKind,
    goals::{charges::open, now, trees::made},
    many_threads,
    place::Place,
    report::{Limit, Report, Spread, micros, say},
};

/// How many policies, roles and tuples an organization has, of each.
const SIZES: [usize; 2] = [10, 100_000];

/// How many writes a round has.
const WRITES: usize = 100;

/// How many records are stored at a time.
const AT_A_TIME: usize = 2_000;

/// Writes a tuple and decides, in organizations of both sizes in turn, on each store.
pub(crate) fn writes(options: &Options, report: &mut Report) {
    for kind in StoreKind::ALL.into_iter().filter(|kind| options.wants(*kind)) {
        let name = kind.name();
        say(&format!("G11: one tuple among others, {name}"));
        let place = Place::new(kind);
        many_threads().block_on(async {
            let store: Arc<dyn PolicyStore> = match kind {
                StoreKind::Memory => Arc::new(MemoryStore::new()),
                StoreKind::Embedded => {
                    let file = place.directory().join("data");
                    Arc::new(EmbeddedStore::open(&file).expect("the store opens"))
                }
                StoreKind::Postgres => Arc::new(open(place.store()).await),
            };
            let organizations = [
                Organization::fill(&store, "small", SIZES[0]).await,
                Organization::fill(&store, "large", SIZES[1]).await,
            ];
            if kind == StoreKind::Postgres {
                query(place.store(), "VACUUM ANALYZE");
                query(place.store(), "CHECKPOINT");
            }
            let mut rounds = [(); SIZES.len()].map(|()| Vec::new());
            for _ in 0..options.rounds {
                for (organization, rounds) in organizations.iter().zip(&mut rounds) {
                    rounds.push(organization.round().await);
                }
            }
            for (size, rounds) in SIZES.iter().zip(&rounds) {
                let of = |part: usize| Spread::of(rounds.iter().map(|round| round[part]));
                let what = |part| format!("{name}, {size} of each: us {part}");
                let limit = if *size == SIZES[1] { Limit::Value(1000.0, "us") } else { Limit::None };
                report.add("G11", what("to store a tuple"), of(0), Limit::None);
                report.add("G11", what("of the first decision that knows of it"), of(1), limit);
                report.add("G11", what("of the next decision"), of(2), Limit::None);
            }
        });
    }
}

/// An organization with an engine whose snapshot is made, and an agent that the tuples are about.
struct Organization {
    id: OrgId,
    store: Arc<dyn PolicyStore>,
    engine: BuiltIn,
    agent: Agent,
}

impl Organization {
    async fn fill(store: &Arc<dyn PolicyStore>, name: &str, size: usize) -> Self {
        let organization = Self {
            id: OrgId::parse(name).expect("a slug"),
            store: store.clone(),
            engine: BuiltIn::new(store.clone()),
            agent: Agent::new("Load Test", Slug::parse("load").expect("a slug"), now()),
        };
        let watch = Stopwatch::start();
        let entries: Vec<_> = (0..size).flat_map(entries).collect();
        for entries in entries.chunks(AT_A_TIME) {
            let put = |entry| PolicyChange::put(entry, Expect::Absent);
            organization.apply(&entries.iter().map(put).collect::<Vec<_>>()).await;
        }
        let stored = watch.elapsed();
        let watch = Stopwatch::start();
        assert!(!organization.decide().await.allowed);
        say(&format!(
            "  {} records stored in {:.1} s, read in {:.2} s",
            entries.len(),
            stored.as_secs_f64(),
            watch.elapsed().as_secs_f64()
        ));
        organization
    }

    async fn apply(&self, changes: &[PolicyChange]) {
        let on = made(EventKind::RelationWritten);
        let outcome = self.store.apply(&self.id, changes, &on, now()).await.expect("the store answers");
        assert!(matches!(outcome, Apply::Applied { .. }));
    }

    async fn decide(&self) -> Verdict {
        let given = Map::from_iter([("purpose".to_owned(), json!("audit"))]);
        let environment =
            Environment { given: &given, ip: None, user_agent: None, method: "POST", path: "/", now: now() };
        let action = Capability::parse("document.view").expect("a capability");
        let party = Party::new(Who::Agent(&self.agent), evaluate(&[], None, &action));
        let mut question = Question::new(&action, vec![party], environment);
        let viewer = Label::parse("viewer").expect("a label");
        question.relation = Some((Entity::parse("document:new").expect("an entity"), viewer));
        let verdicts = self.engine.decide(&self.id, &[question]).await.expect("the store answers");
        verdicts.into_iter().next().expect("an answer to one question")
    }

    /// A tuple in and out by turns. The microseconds of the middle write, of the first decision after it, and of the next.
    async fn round(&self) -> [f64; 3] {
        let tuple = Tuple::parse(&format!("document:new#viewer@agent:{}", self.agent.id)).expect("a tuple");
        let entry = Entry::Tuple(tuple);
        let id: RecordId = entry.id();
        let mut times = [(); 3].map(|()| Vec::new());
        for n in 0..WRITES {
            let is_there = n % 2 == 0;
            let change = if is_there {
                PolicyChange::put(&entry, Expect::Absent)
            } else {
                PolicyChange::remove(id.clone(), Expect::Anything)
            };
            let watch = Stopwatch::start();
            self.apply(&[change]).await;
            times[0].push(micros(watch.elapsed()));
            for times in &mut times[1..] {
                let watch = Stopwatch::start();
                let verdict = self.decide().await;
                times.push(micros(watch.elapsed()));
                assert_eq!(verdict.allowed, is_there, "it is decided by what was just written");
            }
        }
        times.map(|times| Spread::of(times).median())
    }
}

/// A policy, a role and a tuple that are not about anything that is asked.
fn entries(n: usize) -> [Entry; 3] {
    let effect = if n.is_multiple_of(2) { Effect::Allow } else { Effect::Deny };
    let mut policy = Policy::new(format!("policy {n}"), format!("kind-{n}"), "read", effect, now());
    policy.conditions =
        json!([{ "attribute": "environment.purpose", "operator": "equals", "value": "audit" }]);
    let mut role = Role::new(Label::parse(&format!("role-{n}")).expect("a label"), "Role", now());
    role.permissions.insert(Capability::parse("invoice.pay").expect("a capability"));
    let tuple = Tuple::parse(&format!("document:{n}#viewer@team:{}#member", n / 50)).expect("a tuple");
    [Entry::Policy(policy.into()), Entry::Role(role.into()), Entry::Tuple(tuple)]
}
