//! Decisions of an organization's policy by how much there is of it: each way to a yes and the way to a no, the whole
//! decision, relation checks against a breadth-first search of the plain tuples, and the cost of one write.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hint::black_box,
    sync::Arc,
    time::Duration,
};

use criterion::{BenchmarkId, Criterion};
use lumoauth_core::{
    agent::Agent,
    capability::{Capability, evaluate},
    clock::Timestamp,
    id::{Label, Slug},
    policy::{
        Assignment, DecidedBy, Effect, Entity, Entry, Environment, Grant, Holder, Party, Permission, Policy,
        Question, Record, Resource, Role, Snapshot, Subject, Tuple, Who,
    },
};
use serde_json::{Map, json};

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_790_000_000)
}

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

/// An organization with `count` roles, `count` policies and `count` tuples. The agent of the questions has the last of each.
struct Organization {
    agent: Agent,
    snapshot: Snapshot,
    tuples: Vec<Tuple>,
}

impl Organization {
    fn new(count: usize) -> Self {
        let mut agent = Agent::new("Bot", Slug::parse("bot").unwrap(), now());
        agent.capabilities = vec![Capability::parse("read:documents").unwrap()];
        let mut snapshot = Snapshot::default();
        let mut put = |entry: Entry| {
            let record = Record::of(&entry, 1);
            snapshot.apply(&record).unwrap();
        };
        put(Entry::Permission(Permission::new(Capability::parse("invoice.pay").unwrap(), "Pay", now())));
        for n in 0..count {
            let mut role = Role::new(label(&format!("role-{n}")), "Role", now());
            role.permissions.insert(Capability::parse("invoice.pay").unwrap());
            if n + 1 == count {
                let grant = Grant::Role(role.number);
                put(Entry::Assignment(Assignment::new(Holder::Agent(agent.id), grant, now())));
            }
            put(Entry::Role(Arc::new(role)));
            // A condition that looks at a fact, as policies do. One in a thousand is about every action.
            let (kind, action) = (format!("kind-{n}"), if n % 1000 == 999 { "*" } else { "read" });
            let effect = if n % 2 == 0 { Effect::Allow } else { Effect::Deny };
            let mut policy = Policy::new(format!("policy {n}"), kind, action, effect, now());
            policy.conditions =
                json!([{ "attribute": "environment.purpose", "operator": "equals", "value": "audit" }]);
            put(Entry::Policy(Arc::new(policy)));
        }
        let tuples = tuples(count, &format!("agent:{}", agent.id));
        tuples.iter().for_each(|tuple| put(Entry::Tuple(tuple.clone())));
        Self { agent, snapshot, tuples }
    }

    fn question<'a>(
        &'a self,
        action: &'a Capability,
        given: &'a Map<String, serde_json::Value>,
        relation: Option<(Entity, Label)>,
    ) -> Question<'a> {
        let standing = evaluate(&self.agent.capabilities, None, action);
        let environment =
            Environment { given, ip: None, user_agent: None, method: "POST", path: "/", now: now() };
        let mut question =
            Question::new(action, vec![Party::new(Who::Agent(&self.agent), standing)], environment);
        question.relation = relation;
        question
    }
}

/// Documents in folders, shared with teams in teams: three hops from the last document to the agent.
fn tuples(count: usize, agent: &str) -> Vec<Tuple> {
    let mut tuples: Vec<_> = (0..count.saturating_sub(3))
        .map(|n| match n % 4 {
            0 => format!("document:{n}#viewer@user:{}", n / 8),
            1 => format!("document:{n}#parent@folder:{}", n / 100),
            2 => format!("folder:{}#viewer@team:{}#member", n / 100, n / 50),
            _ => format!("team:{}#member@user:{n}", n / 50),
        })
        .collect();
    tuples.push("document:last#parent@folder:last".to_owned());
    tuples.push("folder:last#viewer@team:last#member".to_owned());
    tuples.push(format!("team:last#member@{agent}"));
    tuples.iter().map(|text| Tuple::parse(text).unwrap()).collect()
}

/// What a program without rules would do: follow tuples from the object, whatever the relation, with the usual
/// `parent` and sets. It knows neither rewrites nor limits, and is no slower than it has to be.
struct Plain(HashMap<String, Vec<String>>);

impl Plain {
    fn new(tuples: &[Tuple]) -> Self {
        let mut edges: HashMap<String, Vec<String>> = HashMap::new();
        for tuple in tuples {
            let to = tuple.subject.entity.to_string();
            edges.entry(tuple.object.to_string()).or_default().push(to);
        }
        Self(edges)
    }

    fn reaches(&self, from: &str, to: &str) -> bool {
        let (mut seen, mut left) = (HashSet::from([from]), VecDeque::from([from]));
        while let Some(object) = left.pop_front() {
            for next in self.0.get(object).into_iter().flatten() {
                if next == to {
                    return true;
                }
                if seen.insert(next) {
                    left.push_back(next);
                }
            }
        }
        false
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for count in [10, 1000, 100_000] {
        let mut organization = Organization::new(count);
        decisions(&mut criterion, &organization, count);
        relations(&mut criterion, &organization, count);
        writes(&mut criterion, &mut organization, count);
    }
    criterion.final_summary();
}

fn decisions(criterion: &mut Criterion, organization: &Organization, count: usize) {
    let mut group = criterion.benchmark_group("decision");
    let given: Map<_, _> = serde_json::from_str(r#"{"purpose": "audit"}"#).unwrap();
    let last = (Entity::parse("document:last").unwrap(), label("viewer"));
    let kind = format!("kind-{}.read", (count - 1) & !1);
    for (name, action, relation, decided_by) in [
        ("capability", "read:documents", None, DecidedBy::Capability),
        ("role", "invoice.pay", None, DecidedBy::Role),
        ("policy", kind.as_str(), None, DecidedBy::Abac),
        ("relation", "document.view", Some(last), DecidedBy::Relation),
        ("denial", "nothing.of-it", None, DecidedBy::Default),
    ] {
        let action = Capability::parse(action).unwrap();
        let question = organization.question(&action, &given, relation);
        let verdict = organization.snapshot.decide(&question);
        // With few policies, the one that is asked for may be one that denies.
        assert_eq!(verdict.decided_by, decided_by, "{name} {verdict:?}");
        group.bench_with_input(BenchmarkId::new(name, count), &question, |b, question| {
            b.iter(|| organization.snapshot.decide(black_box(question)));
        });
    }
    // Capability, roles, policies and relations, all of them asked and none of them enough.
    let action = Capability::parse("kind-0.write").unwrap();
    let other = (Entity::parse("document:last").unwrap(), label("owner"));
    let mut question = organization.question(&action, &given, Some(other));
    question.resource = Resource::new(Some("kind-0"), Some("1"));
    assert!(!organization.snapshot.decide(&question).allowed);
    group.bench_with_input(BenchmarkId::new("everything", count), &question, |b, question| {
        b.iter(|| organization.snapshot.decide(black_box(question)));
    });
    group.finish();
}

fn relations(criterion: &mut Criterion, organization: &Organization, count: usize) {
    let mut group = criterion.benchmark_group("relation");
    let agent = format!("agent:{}", organization.agent.id);
    let plain = Plain::new(&organization.tuples);
    let (document, viewer) = (Entity::parse("document:last").unwrap(), label("viewer"));
    let subject = Subject::parse(&agent).unwrap();
    assert!(organization.snapshot.check(&document, &viewer, &subject).is_held());
    assert!(plain.reaches("document:last", &agent));
    group.bench_function(BenchmarkId::new("check, 3 hops", count), |b| {
        b.iter(|| organization.snapshot.check(black_box(&document), &viewer, &subject));
    });
    group.bench_function(BenchmarkId::new("plain breadth-first, 3 hops", count), |b| {
        b.iter(|| plain.reaches(black_box("document:last"), &agent));
    });
    group.finish();
}

fn writes(criterion: &mut Criterion, organization: &mut Organization, count: usize) {
    let mut group = criterion.benchmark_group("write");
    let tuple = Entry::Tuple(Tuple::parse("document:new#viewer@user:new").unwrap());
    let mut policy = Policy::new("new", "kind-0", "read", Effect::Allow, now());
    policy.conditions = json!([{ "attribute": "user.department", "operator": "in", "value": ["a", "b"] }]);
    for (name, entry) in [("tuple", tuple), ("policy", Entry::Policy(Arc::new(policy)))] {
        let (put, remove) = (Record::of(&entry, 2), Record::removal(entry.id(), 3));
        group.bench_function(BenchmarkId::new(format!("{name}, in and out"), count), |b| {
            b.iter(|| {
                organization.snapshot.apply(black_box(&put)).unwrap();
                organization.snapshot.apply(black_box(&remove)).unwrap();
            });
        });
    }
    group.finish();
}
