//! Tuples and namespaces, one a line; lines that begin with `{` are namespaces, and the first tuple is the question.
//!
//! What is read is printed and read again, and a check is what a second evaluator says, which knows no search: it goes
//! through all objects and rules until nothing changes any more.

#![no_main]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use libfuzzer_sys::fuzz_target;
use lumoauth_core::{
    id::Label,
    policy::{Check, Entity, Entry, Namespace, Record, Rewrite, Snapshot, Subject, Tuple},
};
use serde::Deserialize;

/// With more of them, a way may be too long for a check, and the second evaluator takes too long.
const MOST: usize = 16;

type Rules = BTreeMap<Label, Rewrite>;
type Namespaces = BTreeMap<String, Rules>;
type Place<'a> = (&'a Entity, &'a Label);
type Set<'a> = BTreeSet<Place<'a>>;

#[derive(Deserialize)]
struct Line {
    name: Label,
    relations: Rules,
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let (mut snapshot, mut tuples, mut namespaces) = (Snapshot::default(), Vec::new(), Namespaces::new());
    for line in text.lines() {
        if line.starts_with('{') {
            let Ok(Line { name, relations }) = serde_json::from_str(line) else { continue };
            let Ok(namespace) = Namespace::new(name, relations) else { continue };
            namespaces.insert(namespace.name.to_string(), namespace.relations.clone());
            put(&mut snapshot, &Entry::Namespace(namespace));
        } else if let Ok(tuple) = Tuple::parse(line) {
            assert_eq!(tuple.to_string(), line);
            assert_eq!(Subject::parse(&tuple.subject.to_string()).as_ref(), Ok(&tuple.subject));
            tuples.push(tuple);
        }
    }
    let Some((question, tuples)) = tuples.split_first() else { return };
    for tuple in tuples {
        put(&mut snapshot, &Entry::Tuple(tuple.clone()));
    }
    let Tuple { object, relation, subject } = question;
    let check = snapshot.check(object, relation, subject);
    let reached = snapshot.reached(subject, relation, object.namespace(), 100);
    let _ = snapshot.expand(object, relation);
    if let Check::Held(because) = &check {
        assert!(because.iter().all(|tuple| tuples.contains(tuple)), "{because:?}");
    }
    // What tuples do not lead to from the subject a look-up leaves out, so it may tell what a check cannot.
    if !reached.truncated && !matches!(check, lumoauth_core::policy::Check::Unclear) {
        assert_eq!(reached.objects.contains(object), check.is_held(), "{question}");
    }
    if tuples.len() > MOST {
        return;
    }
    let world = World::new(question, tuples, &namespaces);
    if world.entities.len() * world.labels.len() > 400 {
        return;
    }
    let (certain, possible) = world.model();
    let place = (object, relation);
    match check {
        Check::Held(_) => assert!(certain.contains(&place), "{question} is held"),
        Check::NotHeld => assert!(!possible.contains(&place), "{question} is not held"),
        Check::Unclear => assert!(!namespaces.is_empty(), "{question} is unclear"),
    }

    // Without its tuples the world is as it was.
    for tuple in tuples {
        let removal = Record::removal(Entry::Tuple(tuple.clone()).id(), 1);
        snapshot.apply(&removal).expect("a removal");
    }
    let world = World { tuples: &[], ..world };
    let held = snapshot.check(object, relation, subject).is_held();
    assert!(!held || world.model().0.contains(&place), "{question}");
});

fn put(snapshot: &mut Snapshot, entry: &Entry) {
    let record = Record::of(entry, 1);
    assert_eq!(Entry::read(&record.id, &entry.body()).expect("our own form"), *entry);
    snapshot.apply(&record).expect("our own form");
    assert_eq!(snapshot.find(&record.id), Some((1, entry)));
}

/// The rules where nobody defined any, as they are documented.
static USUAL: LazyLock<Rules> = LazyLock::new(|| {
    let inherited = |own: &str, stronger: &str| {
        let parents =
            format!(r#"{{"tupleToUserset": {{"tupleset": "parent", "computedUserset": "{own}"}}}}"#);
        format!(r#""{own}": {{"union": ["this", {stronger} {parents}]}}"#)
    };
    let rules = [
        inherited("owner", ""),
        inherited("editor", r#"{"computedUserset": "owner"},"#),
        inherited("viewer", r#"{"computedUserset": "editor"},"#),
        r#""member": {"union": ["this", {"computedUserset": "admin"}]}"#.to_owned(),
    ];
    serde_json::from_str(&format!("{{{}}}", rules.join(","))).expect("rules")
});

struct World<'a> {
    subject: &'a Subject,
    tuples: &'a [Tuple],
    namespaces: &'a Namespaces,
    entities: BTreeSet<&'a Entity>,
    labels: BTreeSet<&'a Label>,
}

impl<'a> World<'a> {
    fn new(question: &'a Tuple, tuples: &'a [Tuple], namespaces: &'a Namespaces) -> Self {
        let all = || tuples.iter().chain([question]);
        let entities = all().flat_map(|tuple| [&tuple.object, &tuple.subject.entity]).collect();
        let named = all().flat_map(|tuple| [Some(&tuple.relation), tuple.subject.relation.as_ref()]);
        let mut labels: BTreeSet<_> = named.flatten().collect();
        for (relation, rule) in namespaces.values().chain([&*USUAL]).flatten() {
            labels.insert(relation);
            names(rule, &mut labels);
        }
        Self { subject: &question.subject, tuples, namespaces, entities, labels }
    }

    /// What is certainly held, and what is possibly held: where something excludes itself, the two differ.
    fn model(&self) -> (Set<'a>, Set<'a>) {
        let (mut certain, mut possible) = (Set::new(), self.places().collect());
        loop {
            let next_certain = self.fixpoint(&possible);
            let next_possible = self.fixpoint(&next_certain);
            if (&next_certain, &next_possible) == (&certain, &possible) {
                return (certain, possible);
            }
            (certain, possible) = (next_certain, next_possible);
        }
    }

    fn places(&self) -> impl Iterator<Item = Place<'a>> {
        self.entities.iter().flat_map(|entity| self.labels.iter().map(|label| (*entity, *label)))
    }

    /// Everything that the subject has if what is excluded is read from `excluded`.
    fn fixpoint(&self, excluded: &Set<'a>) -> Set<'a> {
        let mut found = Set::new();
        loop {
            let holds = |place: &Place<'a>| {
                let itself =
                    self.subject.entity == *place.0 && self.subject.relation.as_ref() == Some(place.1);
                itself || self.rule(*place).is_some_and(|rule| self.holds(rule, *place, &found, excluded))
            };
            let next: Set<'a> = self.places().filter(holds).collect();
            if next.len() == found.len() {
                return found;
            }
            found = next;
        }
    }

    /// `None`: nobody has it.
    fn rule(&self, (object, relation): Place<'a>) -> Option<&'a Rewrite> {
        match self.namespaces.get(object.namespace()) {
            Some(rules) => rules.get(relation),
            None => Some(USUAL.get(relation).unwrap_or(&Rewrite::This)),
        }
    }

    fn holds(&self, rule: &Rewrite, place: Place<'a>, found: &Set<'a>, excluded: &Set<'a>) -> bool {
        let (object, relation) = place;
        let named = |relation: &Label| {
            let wanted = relation.clone();
            self.tuples.iter().filter(move |it| it.object == *object && it.relation == wanted)
        };
        match rule {
            Rewrite::This => named(relation).any(|it| {
                let set = it.subject.relation.as_ref();
                it.subject == *self.subject
                    || set.is_some_and(|set| found.contains(&(&it.subject.entity, set)))
            }),
            Rewrite::ComputedUserset(other) => found.contains(&(object, other)),
            Rewrite::TupleToUserset { tupleset, computed_userset } => named(tupleset).any(|it| {
                it.subject.relation.is_none() && found.contains(&(&it.subject.entity, computed_userset))
            }),
            Rewrite::Union(rules) => rules.iter().any(|rule| self.holds(rule, place, found, excluded)),
            Rewrite::Intersection(rules) => rules.iter().all(|rule| self.holds(rule, place, found, excluded)),
            Rewrite::Exclusion(rules) => {
                let [who, but_not] = &**rules;
                self.holds(who, place, found, excluded) && !self.holds(but_not, place, excluded, found)
            }
        }
    }
}

/// The relations that a rule names.
fn names<'a>(rule: &'a Rewrite, into: &mut BTreeSet<&'a Label>) {
    match rule {
        Rewrite::This => {}
        Rewrite::ComputedUserset(relation) => {
            into.insert(relation);
        }
        Rewrite::TupleToUserset { tupleset, computed_userset } => into.extend([tupleset, computed_userset]),
        Rewrite::Union(rules) | Rewrite::Intersection(rules) => {
            rules.iter().for_each(|rule| names(rule, into))
        }
        Rewrite::Exclusion(rules) => rules.iter().for_each(|rule| names(rule, into)),
    }
}
