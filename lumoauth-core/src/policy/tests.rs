//! Decisions of a whole snapshot.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};

use super::*;
use crate::{
    agent::Agent,
    capability::{Capability, Decision, DenyReason},
    clock::Timestamp,
    id::{AgentId, Label, Slug},
    user::User,
};

const ALLOW: Decision = Decision::Allow;
const NOT_GRANTED: Decision = Decision::Deny(DenyReason::NotGranted);
const NOT_IN_TOKEN: Decision = Decision::Deny(DenyReason::NotInToken);

fn now() -> Timestamp {
    "2024-05-15T10:30:30Z".parse().unwrap()
}

fn cap(text: &str) -> Capability {
    Capability::parse(text).unwrap()
}

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

#[derive(Default)]
struct World {
    snapshot: Snapshot,
}

impl World {
    fn put(&mut self, entry: Entry) -> RecordId {
        let revision = self.snapshot.revision() + 1;
        self.snapshot.apply(&Record::of(&entry, revision)).unwrap();
        entry.id()
    }

    fn remove(&mut self, id: RecordId) {
        let revision = self.snapshot.revision() + 1;
        self.snapshot.apply(&Record::removal(id, revision)).unwrap();
    }

    fn permission(&mut self, slug: &str) -> RecordId {
        self.put(Entry::Permission(Permission::new(cap(slug), slug, now())))
    }

    fn role(&mut self, slug: &str, permissions: &[&str]) -> Arc<Role> {
        let mut role = Role::new(label(slug), slug, now());
        role.permissions = permissions.iter().map(|slug| cap(slug)).collect();
        let role = Arc::new(role);
        self.put(Entry::Role(role.clone()));
        role
    }

    fn assign(&mut self, holder: Holder, grant: Grant) -> RecordId {
        self.put(Entry::Assignment(Assignment::new(holder, grant, now())))
    }

    fn policy(&mut self, effect: Effect, kind: &str, action: &str, conditions: Value) -> Arc<Policy> {
        let mut policy = Policy::new(format!("{kind} {action}"), kind, action, effect, now());
        policy.conditions = conditions;
        let policy = Arc::new(policy);
        self.put(Entry::Policy(policy.clone()));
        policy
    }

    fn tuple(&mut self, text: &str) -> RecordId {
        self.put(Entry::Tuple(Tuple::parse(text).unwrap()))
    }

    fn ask<'a>(&self, action: &str, parties: Vec<Party<'a>>) -> Verdict {
        self.ask_with(action, parties, &Map::new(), |_| {})
    }

    fn ask_with<'a>(
        &self,
        action: &str,
        parties: Vec<Party<'a>>,
        given: &Map<String, Value>,
        change: impl FnOnce(&mut Question<'_>),
    ) -> Verdict {
        let action = cap(action);
        let (ip, user_agent) = (None, None);
        let environment = Environment { given, ip, user_agent, method: "POST", path: "/", now: now() };
        let mut question = Question { parties, ..Question::new(&action, Vec::new(), environment) };
        change(&mut question);
        self.snapshot.decide(&question)
    }
}

fn agent() -> Agent {
    Agent::new("Bot", Slug::parse("bot").unwrap(), now())
}

fn user() -> User {
    User::new("ada@example.org", now())
}

fn outcome(verdict: &Verdict) -> (bool, DecidedBy) {
    (verdict.allowed, verdict.decided_by)
}

#[test]
fn each_way_to_a_yes_is_named() {
    let mut world = World::default();
    let agent = agent();
    let party = |standing| vec![Party::new(Who::Agent(&agent), standing)];
    assert_eq!(outcome(&world.ask("doc.read", party(ALLOW))), (true, DecidedBy::Capability));
    assert_eq!(outcome(&world.ask("doc.read", party(NOT_GRANTED))), (false, DecidedBy::Default));

    world.permission("doc.read");
    let role = world.role("analyst", &["doc.read"]);
    let grant = Grant::Role(role.number);
    let held = world.assign(Holder::Agent(agent.id), grant.clone());
    let verdict = world.ask("doc.read", party(NOT_GRANTED));
    assert_eq!(outcome(&verdict), (true, DecidedBy::Role));
    assert_eq!(verdict.path_view()[0]["role"], "analyst");
    assert_eq!(outcome(&world.ask("doc.write", party(NOT_GRANTED))), (false, DecidedBy::Default));
    // A token that left it out is not widened by a role.
    assert_eq!(outcome(&world.ask("doc.read", party(NOT_IN_TOKEN))), (false, DecidedBy::TokenScope));
    world.remove(held);
    assert_eq!(outcome(&world.ask("doc.read", party(NOT_GRANTED))), (false, DecidedBy::Default));

    world.assign(Holder::Group(label("eng")), grant);
    let member = world.tuple(&format!("group:eng#member@agent:{}", agent.id));
    let verdict = world.ask("doc.read", party(NOT_GRANTED));
    assert_eq!(
        (outcome(&verdict), &verdict.path_view()[0]["group"]),
        ((true, DecidedBy::Role), &json!("eng"))
    );
    world.remove(member);
    assert!(!world.ask("doc.read", party(NOT_GRANTED)).allowed);

    world.assign(Holder::Agent(agent.id), Grant::Permission(cap("doc.read")));
    assert_eq!(outcome(&world.ask("doc.read", party(NOT_GRANTED))), (true, DecidedBy::Role));

    let policy = world.policy(Effect::Allow, "doc", "print", Value::Null);
    let verdict = world.ask("doc.print", party(NOT_GRANTED));
    assert_eq!(outcome(&verdict), (true, DecidedBy::Abac));
    assert_eq!(verdict.path_view()[0]["policy"]["id"], json!(policy.number));

    world.tuple(&format!("document:1#viewer@agent:{}", agent.id));
    let relation = |question: &mut Question<'_>| {
        question.relation = Some((Entity::parse("document:1").unwrap(), label("viewer")));
    };
    let verdict = world.ask_with("doc.see", party(NOT_GRANTED), &Map::new(), relation);
    assert_eq!(outcome(&verdict), (true, DecidedBy::Relation));
    assert_eq!(verdict.path_view()[0]["tuples"][0], format!("document:1#viewer@agent:{}", agent.id));
    let other = |question: &mut Question<'_>| {
        question.relation = Some((Entity::parse("document:2").unwrap(), label("viewer")));
    };
    assert!(!world.ask_with("doc.see", party(NOT_GRANTED), &Map::new(), other).allowed);
}

#[test]
fn a_policy_that_denies_beats_everything() {
    let mut world = World::default();
    let agent = agent();
    let party = || vec![Party::new(Who::Agent(&agent), ALLOW)];
    for (kind, action) in
        [("doc", "read"), ("doc", "doc.read"), ("*", "read"), ("doc", "*"), ("*", "*"), ("*", "doc.read")]
    {
        let policy = world.policy(Effect::Deny, kind, action, Value::Null);
        let verdict = world.ask("doc.read", party());
        assert_eq!(outcome(&verdict), (false, DecidedBy::Abac), "{kind} {action}");
        assert_eq!(verdict.denied_by.as_ref().map(|it| it.number), Some(policy.number));
        world.remove(Policy::record_id(policy.number));
        assert!(world.ask("doc.read", party()).allowed);
    }
    for (kind, action) in [("other", "read"), ("doc", "write"), ("doc", "read.all"), ("", "read")] {
        world.policy(Effect::Deny, kind, action, Value::Null);
    }
    assert!(world.ask("doc.read", party()).allowed);
    let mut inactive = Policy::new("off", "*", "*", Effect::Deny, now());
    inactive.active = false;
    world.put(Entry::Policy(Arc::new(inactive)));
    assert!(world.ask("doc.read", party()).allowed);
}

#[test]
fn policies_for_agents_are_about_these_only() {
    let mut world = World::default();
    let (one, other) = (agent(), agent());
    let mut policy = Policy::new("one", "doc", "read", Effect::Deny, now());
    policy.agent_ids = vec![one.id, AgentId::generate()];
    world.put(Entry::Policy(Arc::new(policy)));
    let ask = |agent| world.ask("doc.read", vec![Party::new(Who::Agent(agent), ALLOW)]).allowed;
    assert_eq!((ask(&one), ask(&other)), (false, true));
}

#[test]
fn conditions_see_the_request_and_not_what_is_claimed() {
    let mut world = World::default();
    let agent = agent();
    let conditions = json!({ "all": [{ "attribute": "environment.hour", "operator": "gte", "value": 18 }] });
    world.policy(Effect::Deny, "*", "*", conditions);
    let given: Map<String, Value> = serde_json::from_str(r#"{"hour": 23, "k": 1}"#).unwrap();
    let party = || vec![Party::new(Who::Agent(&agent), ALLOW)];
    assert!(world.ask_with("a:b", party(), &given, |_| {}).allowed);
    let late =
        |question: &mut Question<'_>| question.environment.now = now().plus(Duration::from_secs(8 * 3600));
    assert!(!world.ask_with("a:b", party(), &given, late).allowed);
    let separated = Environment::separate(given);
    assert_eq!(Value::Object(separated), json!({ "k": 1, "pep": { "hour": 23 } }));
}

#[test]
fn everybody_in_a_chain_must_hold_it() {
    let mut world = World::default();
    let (agent, user) = (agent(), user());
    let chain = |agent_has, user_agreed| {
        let mut of_user = Party::new(Who::User(&user), user_agreed);
        let mut of_agent = Party::new(Who::Agent(&agent), agent_has);
        (of_user.bounded, of_agent.bounded) = (true, true);
        vec![of_user, of_agent]
    };
    assert!(world.ask("doc.read", chain(ALLOW, ALLOW)).allowed);
    assert!(!world.ask("doc.read", chain(NOT_GRANTED, ALLOW)).allowed);
    assert!(!world.ask("doc.read", chain(ALLOW, NOT_GRANTED)).allowed);

    // Once the organization lists it as a permission, agreeing is not enough.
    world.permission("doc.read");
    assert_eq!(outcome(&world.ask("doc.read", chain(ALLOW, ALLOW))), (false, DecidedBy::Default));
    world.assign(Holder::User(user.id), Grant::Permission(cap("doc.read")));
    let verdict = world.ask("doc.read", chain(ALLOW, ALLOW));
    assert_eq!(outcome(&verdict), (true, DecidedBy::Capability));
    assert_eq!(verdict.path.len(), 2);
    // Nor is the permission without having agreed.
    assert_eq!(outcome(&world.ask("doc.read", chain(ALLOW, NOT_GRANTED))), (false, DecidedBy::TokenScope));
    // A policy about the person counts for whoever acts for them.
    let about = json!({ "attribute": "user.email", "operator": "equals", "value": "ada@example.org" });
    world.policy(Effect::Deny, "doc", "read", about);
    assert_eq!(outcome(&world.ask("doc.read", chain(ALLOW, ALLOW))), (false, DecidedBy::Abac));
}

#[test]
fn administrators_administer_and_nothing_else() {
    let mut world = World::default();
    world.permission("doc.read");
    let mut admin = user();
    admin.is_admin = true;
    let party = |in_person| vec![Party { in_person, ..Party::new(Who::User(&admin), NOT_GRANTED) }];
    for (slug, _) in SYSTEM_PERMISSIONS {
        assert_eq!(outcome(&world.ask(slug, party(true))), (true, DecidedBy::Administrator));
        assert!(!world.ask(slug, party(false)).allowed);
    }
    assert!(!world.ask("doc.read", party(true)).allowed);
}

#[test]
fn no_role_policy_or_relation_reaches_what_is_reserved() {
    let mut world = World::default();
    let agent = agent();
    for action in ["admin:agents:write", "delegate:user", "authz:check", "jit:approve", "admin"] {
        world.permission(action);
        world.assign(Holder::Agent(agent.id), Grant::Permission(cap(action)));
    }
    world.policy(Effect::Allow, "*", "*", Value::Null);
    for action in ["admin:agents:write", "delegate:user", "authz:check", "jit:approve", "admin"] {
        assert!(!world.ask(action, vec![Party::new(Who::Agent(&agent), NOT_GRANTED)]).allowed, "{action}");
        assert!(world.ask(action, vec![Party::new(Who::Agent(&agent), ALLOW)]).allowed, "{action}");
    }
}

#[test]
fn a_role_made_anew_has_no_holders() {
    let mut world = World::default();
    let agent = agent();
    world.permission("doc.read");
    let role = world.role("analyst", &["doc.read"]);
    world.assign(Holder::Agent(agent.id), Grant::Role(role.number));
    let ask =
        |world: &World| world.ask("doc.read", vec![Party::new(Who::Agent(&agent), NOT_GRANTED)]).allowed;
    assert!(ask(&world));
    world.remove(Role::record_id(&role.slug));
    assert!(!ask(&world));
    world.role("analyst", &["doc.read"]);
    assert!(!ask(&world));
    // What is taken off the list of permissions nobody has.
    world.assign(Holder::Agent(agent.id), Grant::Permission(cap("doc.read")));
    assert!(ask(&world));
    world.remove(Permission::record_id(&cap("doc.read")));
    assert!(!ask(&world));
}

#[test]
fn what_is_taken_out_leaves_nothing_behind() {
    let mut world = World::default();
    let ids = vec![
        world.permission("doc.read"),
        world.tuple("group:g#member@user:u"),
        world.tuple("d:1#viewer@team:t#member"),
        {
            let policy = world.policy(Effect::Allow, "doc", "read", Value::Null);
            Policy::record_id(policy.number)
        },
        world.assign(Holder::Group(label("g")), Grant::Permission(cap("doc.read"))),
        {
            let owner = AttributeOwner::resource("document", "1").unwrap();
            world.put(Entry::Value(AttributeValue::new(owner, label("x"), json!(1))))
        },
        {
            let role = world.role("r", &["doc.read"]);
            Role::record_id(&role.slug)
        },
    ];
    for id in ids {
        world.remove(id);
    }
    let mut empty = Snapshot::default();
    empty.advance(world.snapshot.revision());
    assert_eq!(format!("{:?}", world.snapshot), format!("{empty:?}"));
}

#[test]
fn a_record_that_cannot_be_read_is_an_error() {
    let id = RecordId::new(RecordKind::Policy, "1").unwrap();
    let body = json!({ "name": 1 }).to_string();
    let record = Record { id, revision: 1, body: Some(body.as_str().into()) };
    assert!(Snapshot::default().apply(&record).is_err());
    assert!(RecordId::new(RecordKind::Policy, "").is_err());
    assert!(RecordId::new(RecordKind::Policy, "a\0").is_err());
    assert!(RecordId::new(RecordKind::Policy, "a".repeat(1025)).is_err());
}

#[test]
fn permissions_below_a_stem_are_walked_in_steps() {
    let mut world = World::default();
    for slug in ["a", "a.b", "a.b.c", "a.c", "ab", "b.a"] {
        world.permission(slug);
    }
    let under = |stem: &str, after: Option<&str>, limit| -> Vec<String> {
        world.snapshot.permissions_under(stem, after, limit).map(ToString::to_string).collect()
    };
    assert_eq!(under("a.", None, 9), ["a.b", "a.b.c", "a.c"]);
    assert_eq!(under("a.", None, 2), ["a.b", "a.b.c"]);
    assert_eq!(under("a.", Some("a.b.c"), 2), ["a.c"]);
    assert_eq!(under("", None, 9).len(), 6);
    assert!(under("c.", None, 9).is_empty() && under("a.", Some("a.c"), 9).is_empty());
}
