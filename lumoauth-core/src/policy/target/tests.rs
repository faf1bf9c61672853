//! Which policies are about which questions.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::{
    agent::Agent,
    capability::{Capability, Decision, DenyReason},
    clock::Timestamp,
    id::{Label, Slug},
    policy::*,
    user::User,
};

const ALLOW: Decision = Decision::Allow;
const NOT_GRANTED: Decision = Decision::Deny(DenyReason::NotGranted);

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_790_000_000)
}

fn agent() -> Agent {
    Agent::new("Bot", Slug::parse("bot").unwrap(), now())
}

fn policy(effect: Effect, kind: &str, action: &str, conditions: Value) -> Snapshot {
    let mut policy = Policy::new("p", kind, action, effect, now());
    policy.conditions = conditions;
    let mut snapshot = Snapshot::default();
    snapshot.apply(&Record::of(&Entry::Policy(Arc::new(policy)), 1)).unwrap();
    snapshot
}

fn decided(
    snapshot: &Snapshot,
    parties: Vec<Party<'_>>,
    action: &str,
    kind: Option<&str>,
    verb: Option<&str>,
) -> bool {
    let (action, given) = (Capability::parse(action).unwrap(), Map::new());
    let environment =
        Environment { given: &given, ip: None, user_agent: None, method: "", path: "", now: now() };
    let mut question = Question::new(&action, parties, environment);
    question.resource = Resource::new(kind, Some("1"));
    question.verb = verb;
    snapshot.decide(&question).allowed
}

fn asked(snapshot: &Snapshot, standing: Decision, action: &str, kind: Option<&str>) -> bool {
    decided(snapshot, vec![Party::new(Who::Agent(&agent()), standing)], action, kind, None)
}

/// Of what type an action is does not change with what the caller says.
#[test]
fn another_type_takes_no_denial_away() {
    for (kind, action, question) in [
        ("document", "read", "document.read"),
        ("document", "*", "document.read.all"),
        ("document", "read.all", "document.read.all"),
        ("document.read", "all", "document.read.all"),
        ("documents", "read", "read:documents"),
        ("documents", "*", "read:documents"),
        ("read", "documents", "read:documents"),
        ("tool", "execute_code", "tool:execute_code"),
    ] {
        let snapshot = policy(Effect::Deny, kind, action, Value::Null);
        for given in [None, Some("x"), Some(""), Some("*"), Some("document"), Some("documents")] {
            assert!(!asked(&snapshot, ALLOW, question, given), "{kind} {action}: {question} of {given:?}");
        }
        assert!(asked(&snapshot, ALLOW, "other.thing", None));
    }
    // It adds some.
    for action in ["read", "document.read", "*"] {
        let snapshot = policy(Effect::Deny, "secret", action, Value::Null);
        assert!(asked(&snapshot, ALLOW, "document.read", None));
        assert!(!asked(&snapshot, ALLOW, "document.read", Some("secret")));
    }
}

#[test]
fn another_type_adds_nothing_that_allows() {
    for (kind, action) in [("note", "*"), ("note", "execute_code"), ("note", "tool:execute")] {
        let snapshot = policy(Effect::Allow, kind, action, Value::Null);
        for question in ["tool:execute_code", "database.execute_code"] {
            assert!(!asked(&snapshot, NOT_GRANTED, question, Some("note")), "{kind} {action}: {question}");
        }
    }
    for (kind, action, question, given, expected) in [
        ("document", "read", "document.read", None, true),
        ("document", "read", "document.read", Some("document"), true),
        ("document", "read", "document.read", Some("x"), true),
        ("document", "*", "document.read.all", None, true),
        ("documents", "read", "read:documents", None, true),
        ("documents", "read", "read:documents", Some("documents"), true),
        ("execute_code", "*", "tool:execute_code", None, false),
        // One without a type is of the type that it is asked about.
        ("note", "read", "read", Some("note"), true),
        ("note", "*", "read", Some("note"), true),
        ("note", "read", "read", None, false),
        ("note", "read", "read", Some("other"), false),
    ] {
        let snapshot = policy(Effect::Allow, kind, action, Value::Null);
        assert_eq!(asked(&snapshot, NOT_GRANTED, question, given), expected, "{kind} {action}: {question}");
    }
}

/// What is known of a resource is looked up under the type of the action, too.
#[test]
fn another_type_hides_no_attribute() {
    let secret = json!({ "attribute": "resource.classification", "operator": "equals", "value": "secret" });
    for (effect, kind, expected) in [(Effect::Deny, "document", false), (Effect::Allow, "x", false)] {
        let mut snapshot = policy(effect, "document", "read", secret.clone());
        let owner = AttributeOwner::resource(kind, "1").unwrap();
        let value = AttributeValue::new(owner, Label::parse("classification").unwrap(), json!("secret"));
        snapshot.apply(&Record::of(&Entry::Value(value), 2)).unwrap();
        let standing = if effect == Effect::Deny { ALLOW } else { NOT_GRANTED };
        assert_eq!(asked(&snapshot, standing, "document.read", Some("x")), expected, "{effect:?}");
    }
    for (kind, action, question) in [
        ("document", "read", "document.read"),
        ("document", "*", "document.read.all"),
        ("document.read", "all", "document.read.all"),
        ("documents", "read", "read:documents"),
        ("*", "*", "read:documents"),
    ] {
        let of = if kind == "*" { "documents" } else { kind };
        let owner = AttributeOwner::resource(of, "1").unwrap();
        let value = AttributeValue::new(owner, Label::parse("classification").unwrap(), json!("secret"));
        let mut snapshot = policy(Effect::Deny, kind, action, secret.clone());
        assert!(asked(&snapshot, ALLOW, question, None), "nothing is known of it");
        snapshot.apply(&Record::of(&Entry::Value(value), 2)).unwrap();
        for given in
            [None, Some("x"), Some(""), Some(of), Some("document"), Some("document.read"), Some("read")]
        {
            assert!(!asked(&snapshot, ALLOW, question, given), "{kind} {action}: {question} of {given:?}");
        }
    }
    let typed = json!({ "attribute": "resource.type", "operator": "equals", "value": "documents" });
    let snapshot = policy(Effect::Deny, "*", "*", typed);
    for given in [None, Some("x"), Some("read"), Some("documents")] {
        assert!(!asked(&snapshot, ALLOW, "read:documents", given), "{given:?}");
    }
    // A denial of what is not public does not deny what is, by taking the verb for its type.
    let closed =
        json!({ "attribute": "resource.classification", "operator": "not_equals", "value": "secret" });
    for kind in ["documents", "*"] {
        let mut snapshot = policy(Effect::Deny, kind, "read", closed.clone());
        let owner = AttributeOwner::resource("documents", "1").unwrap();
        let value = AttributeValue::new(owner, Label::parse("classification").unwrap(), json!("secret"));
        snapshot.apply(&Record::of(&Entry::Value(value), 2)).unwrap();
        assert!(asked(&snapshot, ALLOW, "read:documents", Some("documents")), "{kind}");
    }
}

/// Whoever writes the whole action into a policy about a type has said that it is of that type.
#[test]
fn an_administrator_may_say_of_what_type_an_action_is() {
    for (action, expected) in [("doc.read", true), ("read", false), ("*", false)] {
        let snapshot = policy(Effect::Allow, "document", action, Value::Null);
        assert_eq!(asked(&snapshot, NOT_GRANTED, "doc.read", Some("document")), expected, "{action}");
        assert!(!asked(&snapshot, NOT_GRANTED, "doc.read", Some("other")));
    }
}

#[test]
fn what_the_server_calls_it_counts_like_the_type_of_the_action() {
    let agent = agent();
    let decided = |snapshot: &Snapshot, standing| {
        let parties = vec![Party::new(Who::Agent(&agent), standing)];
        decided(snapshot, parties, "tool:search", Some("mcp_tool"), Some("search"))
    };
    for (kind, action) in [
        ("mcp_tool", "search"),
        ("mcp_tool", "*"),
        ("mcp_tool", "tool:search"),
        ("tool", "search"),
        ("tool", "*"),
    ] {
        assert!(!decided(&policy(Effect::Deny, kind, action, Value::Null), ALLOW), "{kind} {action}");
        assert!(decided(&policy(Effect::Allow, kind, action, Value::Null), NOT_GRANTED), "{kind} {action}");
    }
}

/// A policy that denies all agents but one denies this one nothing, for whomever it acts.
#[test]
fn an_agent_that_is_excepted_is_so_for_people_too() {
    let (agent, user) = (agent(), User::new("ada@example.org", now()));
    let chain = || {
        let mut parties = vec![Party::new(Who::User(&user), ALLOW), Party::new(Who::Agent(&agent), ALLOW)];
        parties.iter_mut().for_each(|party| party.bounded = true);
        parties
    };
    let but_for = |slug: &str| {
        let condition = json!({ "attribute": "agent.slug", "operator": "not_in", "value": [slug] });
        policy(Effect::Deny, "doc", "read", condition)
    };
    for (slug, expected) in [("bot", true), ("other", false)] {
        assert_eq!(decided(&but_for(slug), chain(), "doc.read", None, None), expected, "{slug}");
    }
    // Of people in person nothing is known of an agent.
    let alone = vec![Party::new(Who::User(&user), ALLOW)];
    assert!(!decided(&but_for("bot"), alone, "doc.read", None, None));
}

#[test]
fn nobody_administers_by_a_policy_a_relation_or_a_wildcard() {
    let mut agent = agent();
    agent.capabilities = vec![Capability::parse("*").unwrap()];
    let user = User::new("ada@example.org", now());
    let everything = policy(Effect::Allow, "*", "*", Value::Null);
    for (slug, _) in SYSTEM_PERMISSIONS {
        let person = || vec![Party { in_person: true, ..Party::new(Who::User(&user), NOT_GRANTED) }];
        assert!(!decided(&everything, person(), slug, None, None), "{slug}");
        let agent = vec![Party::new(Who::Agent(&agent), ALLOW)];
        assert!(!decided(&everything, agent, slug, None, None), "{slug}");
        let grant = Grant::Permission(Capability::parse(slug).unwrap());
        let mut snapshot = Snapshot::default();
        let entry = Entry::Assignment(Assignment::new(Holder::User(user.id), grant, now()));
        snapshot.apply(&Record::of(&entry, 1)).unwrap();
        assert!(decided(&snapshot, person(), slug, None, None), "{slug}");
    }
}

#[test]
fn matched_policies_are_listed_once_and_in_order() {
    let (agent, other) = (agent(), agent());
    let mut snapshot = Snapshot::default();
    for (revision, priority) in [(1, 5), (2, 9)] {
        let mut policy = Policy::new("p", "doc", "*", Effect::Deny, now());
        policy.priority = priority;
        snapshot.apply(&Record::of(&Entry::Policy(Arc::new(policy)), revision)).unwrap();
    }
    let (action, given) = (Capability::parse("doc.read").unwrap(), Map::new());
    let environment =
        Environment { given: &given, ip: None, user_agent: None, method: "", path: "", now: now() };
    let parties = [&agent, &other].map(|agent| Party::new(Who::Agent(agent), ALLOW)).to_vec();
    let verdict = snapshot.attribute_verdict(&Question::new(&action, parties, environment));
    assert_eq!(verdict.matched.iter().map(|policy| policy.priority).collect::<Vec<_>>(), [9, 5]);
}
