//! Conditions of attribute policies: one on the first line, what is known of the request on the second.
//!
//! A condition that is read is kept and read again as the same, and the groups it is put in say what it says (it holds, it
//! does not, it is unclear); its negation says the contrary, or nothing.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use lumoauth_core::{
    capability::{Capability, Decision},
    clock::Timestamp,
    json,
    policy::{
        Condition, Effect, Entry, Environment, Party, Policy, Question, Record, Resource, Snapshot, Who,
    },
};
use lumoauth_fuzz::{NOW, halves, has_floats};
use serde_json::{Map, Value, json};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let (condition, given) = halves(text, "\n");
    let Ok(condition) = json::parse::<Value>(condition.as_bytes()) else { return };
    if Condition::parse(&condition).is_err() {
        return;
    }
    let given = json::parse::<Map<String, Value>>(given.as_bytes()).unwrap_or_default();
    let given = Environment::separate(given);
    let says = |condition: &Value| outcome(condition, &given);
    let plain = says(&condition).expect("it was read");
    // Groups go as deep as they may, and what always holds is no part of one.
    let same = [json!({ "all": [condition] }), json!({ "any": [condition] }), json!([condition, condition])];
    for same in same.iter().filter_map(says) {
        assert_eq!(same, plain, "{condition}");
    }
    // Below `none` a fact that is missing is unclear, whatever it is elsewhere: so nothing is allowed for want of facts.
    let Some(negated) = says(&json!({ "none": [condition] })) else { return };
    assert!(negated == plain.not() || negated == Truth::Unclear, "{condition}");
    if let Some(twice) = says(&json!({ "none": [{ "none": [condition] }] })) {
        assert_eq!(twice, negated.not(), "{condition}");
    }
    let both = says(&json!({ "all": [condition, { "none": [condition] }] }));
    assert!(both.is_none_or(|both| both == plain.and(negated)), "{condition}");
});

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    True,
    False,
    Unclear,
}

impl Truth {
    fn not(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Unclear => Self::Unclear,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::False, _) | (_, Self::False) => Self::False,
            (Self::Unclear, _) | (_, Self::Unclear) => Self::Unclear,
            (Self::True, Self::True) => Self::True,
        }
    }
}

/// How a condition comes out: one that is unclear denies and does not allow. `None` if it is none.
fn outcome(condition: &Value, given: &Map<String, Value>) -> Option<Truth> {
    Condition::parse(condition).ok()?;
    Some(match [Effect::Allow, Effect::Deny].map(|effect| applies(effect, condition, given)) {
        [true, true] => Truth::True,
        [false, false] => Truth::False,
        [false, true] => Truth::Unclear,
        [true, false] => panic!("it allows and does not deny: {condition}"),
    })
}

fn applies(effect: Effect, condition: &Value, given: &Map<String, Value>) -> bool {
    let now = Timestamp::from_unix_seconds(NOW);
    let mut policy = Policy::new("fuzzed", "document", "read", effect, now);
    policy.conditions = condition.clone();
    let entry = Entry::Policy(Arc::new(policy));
    let record = Record::of(&entry, 1);
    let read = Entry::read(&record.id, &entry.body()).expect("our own form");
    if !has_floats(condition) {
        assert_eq!(read, entry);
    }
    let mut snapshot = Snapshot::default();
    snapshot.apply(&record).expect("a condition that was read");
    let action = Capability::parse("document.read").expect("a capability");
    let environment = Environment { given, ip: None, user_agent: None, method: "POST", path: "/", now };
    let mut question = Question::new(&action, vec![Party::new(Who::Other, Decision::Allow)], environment);
    question.resource = Resource::new(Some("document"), Some("1"));
    let verdict = snapshot.attribute_verdict(&question);
    assert_eq!(verdict.allowed, effect == Effect::Allow && !verdict.matched.is_empty());
    !verdict.matched.is_empty()
}
