//! Decisions side by side with Cedar: the same caller, actions, resources and rules, and the same answers.
//!
//! Cedar gets a parsed set of as many policies as are asked for. Of the roles and of the shared folders it only gets those
//! that concern the caller; the snapshot has as many of each as it has policies. Questions are made before they are
//! timed, on both sides. Both are asked in turn, and each pair of rounds gives one ratio.

use std::{
    fmt::Write as _,
    hint::black_box,
    str::FromStr as _,
    sync::Arc,
    time::{Duration, Instant},
};

use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request};
use lumoauth_core::{
    agent::Agent,
    capability::{Capability, evaluate},
    clock::Timestamp,
    id::{Label, Slug},
    policy::{
        Assignment, Effect, Entity, Entry, Environment, Grant, Holder, Party, Permission, Policy, Question,
        Record, Resource, Role, Snapshot, Tuple, Who,
    },
};
use serde_json::{Map, Value, json};

/// How many rounds each side has for each question, and how long one is.
const ROUNDS: usize = 11;
const LENGTH: Duration = Duration::from_millis(100);

/// How many policies Cedar has, and how many the snapshot.
const CEDAR: usize = 1_000;
const SIZES: [usize; 2] = [1_000, 100_000];

/// What is asked: type and verb, id of the resource, purpose, the relation that would allow it, and the answer.
type Asked = (&'static str, [&'static str; 2], &'static str, &'static str, Option<&'static str>, bool);

const QUESTIONS: [Asked; 6] = [
    ("a role allows it", ["invoice", "pay"], "1", "audit", None, true),
    ("a policy allows it", ["kind_0", "read"], "1", "audit", None, true),
    ("its condition does not hold", ["kind_0", "read"], "1", "fun", None, false),
    ("a policy denies it", ["kind_1", "read"], "1", "audit", None, false),
    ("a relation allows it, three hops", ["document", "view"], "last", "audit", Some("viewer"), true),
    ("nothing allows it", ["thing", "use"], "1", "audit", None, false),
];

fn main() {
    println!("{:<34} {:>9} {:>12} {:>12} {:>9}", "question", "snapshot", "lumoauth ns", "cedar ns", "ratio");
    for size in SIZES {
        let ours = Ours::new(size);
        let cedar = Cedar::new(CEDAR, &ours.agent);
        for (name, [kind, verb], id, purpose, relation, allowed) in QUESTIONS {
            let action = capability(&format!("{kind}.{verb}"));
            let given = Map::from_iter([("purpose".to_owned(), Value::from(purpose))]);
            let mut question = ours.question(&action, &given);
            question.resource = Resource::new(Some(kind), Some(id));
            question.relation = relation.map(|relation| (entity(&format!("{kind}:{id}")), label(relation)));
            let request = cedar.request([kind, verb], id, purpose);
            assert_eq!(ours.snapshot.decide(&question).allowed, allowed, "{name}");
            assert_eq!(cedar.decide(&request), allowed, "{name}");
            let pairs: Vec<_> = (0..ROUNDS)
                .map(|_| {
                    let ours = time(|| ours.snapshot.decide(black_box(&question)).allowed);
                    [ours, time(|| cedar.decide(black_box(&request)))]
                })
                .collect();
            let [ours, cedars] = [0, 1].map(|side| median(pairs.iter().map(|pair| pair[side])));
            let ratio = median(pairs.iter().map(|[ours, cedars]| cedars / ours));
            println!("{name:<34} {size:>9} {ours:>12.0} {cedars:>12.0} {ratio:>8.0}x");
        }
    }
}

/// Nanoseconds for one call.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn time(call: impl Fn() -> bool) -> f64 {
    let (start, mut calls) = (Instant::now(), 0_u32);
    while start.elapsed() < LENGTH {
        for _ in 0..32 {
            black_box(call());
        }
        calls += 32;
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The type and the verb of the rule with this number, and what it does. One in a thousand is about every verb.
fn rule(n: usize) -> (String, Option<&'static str>, Effect) {
    let effect = if n.is_multiple_of(2) { Effect::Allow } else { Effect::Deny };
    (format!("kind_{n}"), (n % 1000 != 999).then_some("read"), effect)
}

/// An agent with one role, and the policy of its organization.
struct Ours {
    agent: Agent,
    snapshot: Snapshot,
}

impl Ours {
    fn new(size: usize) -> Self {
        let mut agent = Agent::new("Bot", Slug::parse("bot").expect("a slug"), now());
        agent.capabilities = vec![capability("read:documents")];
        let mut snapshot = Snapshot::default();
        let mut put = |entry: Entry| snapshot.apply(&Record::of(&entry, 1)).expect("it can be read");
        put(Entry::Permission(Permission::new(capability("invoice.pay"), "Pay", now())));
        for n in 0..size {
            let (kind, verb, effect) = rule(n);
            let mut policy = Policy::new(format!("policy {n}"), kind, verb.unwrap_or("*"), effect, now());
            policy.conditions =
                json!([{ "attribute": "environment.purpose", "operator": "equals", "value": "audit" }]);
            put(Entry::Policy(Arc::new(policy)));
            let mut role = Role::new(label(&format!("role-{n}")), "Role", now());
            role.permissions.insert(capability("invoice.pay"));
            if n + 1 == size {
                let grant = Grant::Role(role.number);
                put(Entry::Assignment(Assignment::new(Holder::Agent(agent.id), grant, now())));
            }
            put(Entry::Role(Arc::new(role)));
            put(tuple(&match n % 3 {
                0 => format!("document:{n}#parent@folder:{}", n / 100),
                1 => format!("folder:{}#viewer@team:{}#member", n / 100, n / 50),
                _ => format!("team:{}#member@user:{n}", n / 50),
            }));
        }
        put(tuple("document:last#parent@folder:last"));
        put(tuple("folder:last#viewer@team:last#member"));
        put(tuple(&format!("team:last#member@agent:{}", agent.id)));
        Self { agent, snapshot }
    }

    fn question<'a>(&'a self, action: &'a Capability, given: &'a Map<String, Value>) -> Question<'a> {
        let standing = evaluate(&self.agent.capabilities, None, action);
        let environment =
            Environment { given, ip: None, user_agent: None, method: "POST", path: "/", now: now() };
        Question::new(action, vec![Party::new(Who::Agent(&self.agent), standing)], environment)
    }
}

/// The same rules in Cedar's language, with groups where it has groups.
struct Cedar {
    authorizer: Authorizer,
    policies: PolicySet,
    entities: Entities,
    agent: EntityUid,
}

impl Cedar {
    fn new(size: usize, agent: &Agent) -> Self {
        let mut text = r#"
            permit(principal in Role::"last", action == Action::"pay", resource is invoice);
            permit(principal in team::"last", action == Action::"view", resource in folder::"last");
        "#
        .to_owned();
        for n in 0..size - 2 {
            let (kind, verb, effect) = rule(n);
            let effect = if effect == Effect::Allow { "permit" } else { "forbid" };
            let action = verb.map_or("action".to_owned(), |verb| format!("action == Action::\"{verb}\""));
            let condition = r#"context.purpose == "audit""#;
            writeln!(text, "{effect}(principal, {action}, resource is {kind}) when {{ {condition} }};")
                .expect("there is room");
        }
        let uid = |kind: &str, id: &str| json!({ "type": kind, "id": id });
        let entities = json!([
            {
                "uid": uid("agent", &agent.id.to_string()),
                "attrs": {},
                "parents": [uid("Role", "last"), uid("team", "last")],
            },
            { "uid": uid("document", "last"), "attrs": {}, "parents": [uid("folder", "last")] },
        ]);
        let policies = PolicySet::from_str(&text).expect("policies");
        assert_eq!(policies.policies().count(), size);
        Self {
            authorizer: Authorizer::new(),
            policies,
            entities: Entities::from_json_value(entities, None).expect("entities"),
            agent: uid_of("agent", &agent.id.to_string()),
        }
    }

    fn request(&self, [kind, verb]: [&str; 2], id: &str, purpose: &str) -> Request {
        let context = Context::from_json_value(json!({ "purpose": purpose }), None).expect("a context");
        let [action, resource] = [uid_of("Action", verb), uid_of(kind, id)];
        Request::new(self.agent.clone(), action, resource, context, None).expect("a request")
    }

    fn decide(&self, request: &Request) -> bool {
        let response = self.authorizer.is_authorized(request, &self.policies, &self.entities);
        response.decision() == Decision::Allow
    }
}

fn uid_of(kind: &str, id: &str) -> EntityUid {
    EntityUid::from_str(&format!("{kind}::\"{id}\"")).expect("an entity")
}

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_790_000_000)
}

fn label(text: &str) -> Label {
    Label::parse(text).expect("a label")
}

fn capability(text: &str) -> Capability {
    Capability::parse(text).expect("a capability")
}

fn entity(text: &str) -> Entity {
    Entity::parse(text).expect("an entity")
}

fn tuple(text: &str) -> Entry {
    Entry::Tuple(Tuple::parse(text).expect("a tuple"))
}
