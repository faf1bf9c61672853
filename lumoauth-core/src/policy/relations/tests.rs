use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Check, Entity, MAX_HOPS, Namespace, NodeKind, Relations, Rewrite, Subject, Tuple};
use crate::id::Label;

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

fn entity(text: &str) -> Entity {
    Entity::parse(text).unwrap()
}

fn relations(tuples: &[&str]) -> Relations {
    let mut relations = Relations::default();
    for text in tuples {
        relations.insert(&Tuple::parse(text).unwrap());
    }
    relations
}

fn check(relations: &Relations, question: &str) -> Check {
    let Tuple { object, relation, subject } = Tuple::parse(question).unwrap();
    relations.check(&object, &relation, &subject)
}

fn namespace(name: &str, rules: &str) -> Namespace {
    let rules: BTreeMap<Label, Rewrite> = serde_json::from_str(rules).unwrap();
    Namespace::new(label(name), rules).unwrap()
}

#[test]
fn texts_are_read_and_written_alike() {
    for text in ["document:1#viewer@user:bob", "a:b:c#r@team:x#member", "d:1#r@user:bob@mail.example"] {
        assert_eq!(Tuple::parse(text).unwrap().to_string(), text);
    }
    let bad =
        ["", "document:1", "document:1#viewer", "document:1@user:x", "document#viewer@user:x", ":1#r@a:b"];
    let worse =
        ["d:1#@a:b", "d:1#r@a", "d: #r@a:b", "d:1#r@a:b#", "d:1#r@user:*", "d:1#r@a:b#c#d", "d:1\n#r@a:b"];
    for text in bad.into_iter().chain(worse) {
        assert!(Tuple::parse(text).is_err(), "{text}");
    }
}

#[test]
fn usual_rules_hold_where_nobody_defined_any() {
    let all = relations(&[
        "document:1#owner@user:o",
        "document:1#editor@user:e",
        "document:1#viewer@team:t#member",
        "document:1#parent@folder:f",
        "folder:f#viewer@user:f",
        "team:t#admin@user:a",
        "team:t#member@agent:m",
    ]);
    for (question, expected) in [
        ("document:1#viewer@user:o", true),
        ("document:1#editor@user:o", true),
        ("document:1#owner@user:e", false),
        ("document:1#viewer@user:e", true),
        ("document:1#viewer@user:f", true),
        ("document:1#editor@user:f", false),
        ("document:1#viewer@user:a", true),
        ("document:1#viewer@agent:m", true),
        ("document:1#viewer@team:t#member", true),
        ("document:1#viewer@team:t#admin", true),
        ("document:1#viewer@team:other#member", false),
        ("document:2#viewer@user:o", false),
        ("team:t#member@team:t#member", true),
    ] {
        assert_eq!(check(&all, question).is_held(), expected, "{question}");
    }
    let because = match check(&all, "document:1#viewer@user:a") {
        Check::Held(tuples) => tuples.iter().map(ToString::to_string).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(because, ["document:1#viewer@team:t#member", "team:t#admin@user:a"]);
}

#[test]
fn a_removed_tuple_leaves_nothing_behind() {
    let texts = ["document:1#owner@user:o", "document:1#viewer@team:t#member", "group:g#member@user:o"];
    let mut all = relations(&texts);
    for text in texts {
        all.remove(&Tuple::parse(text).unwrap());
    }
    assert_eq!(format!("{all:?}"), format!("{:?}", Relations::default()));
}

#[test]
fn every_hop_of_the_limit_counts_and_no_more() {
    for (hops, expected) in [(1, true), (MAX_HOPS, true), (MAX_HOPS + 1, false)] {
        let mut tuples: Vec<String> =
            (0..hops).map(|n| format!("team:{n}#member@team:{}#member", n + 1)).collect();
        tuples.push(format!("team:{hops}#member@user:deep"));
        let folders = (0..hops).map(|n| format!("folder:{n}#parent@folder:{}", n + 1));
        tuples.extend(folders);
        tuples.push(format!("folder:{hops}#viewer@user:deep"));
        let all = relations(&tuples.iter().map(String::as_str).collect::<Vec<_>>());
        for question in ["team:0#member@user:deep", "folder:0#viewer@user:deep"] {
            let found = check(&all, question);
            assert_eq!(found.is_held(), expected, "{hops} {question}");
            if !expected {
                assert_eq!(found, Check::Unclear);
            }
        }
    }
}

#[test]
fn the_shortest_way_counts() {
    // By the long way it is one hop too far.
    let mut tuples: Vec<String> =
        (0..MAX_HOPS).map(|n| format!("team:{n}#member@team:{}#member", n + 1)).collect();
    let last = MAX_HOPS;
    tuples.push(format!("team:{last}#member@team:end#member"));
    tuples.push("team:end#member@user:u".to_owned());
    tuples.push("team:0#admin@team:end#member".to_owned());
    let all = relations(&tuples.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(check(&all, "team:0#member@user:u").is_held());
}

#[test]
fn cycles_end() {
    let all = relations(&[
        "team:a#member@team:b#member",
        "team:b#member@team:c#member",
        "team:c#member@team:a#member",
        "folder:x#parent@folder:y",
        "folder:y#parent@folder:x",
        "team:c#member@user:in",
    ]);
    assert!(check(&all, "team:a#member@user:in").is_held());
    assert_eq!(check(&all, "team:a#member@user:out"), Check::NotHeld);
    assert_eq!(check(&all, "folder:x#viewer@user:out"), Check::NotHeld);
}

#[test]
fn a_cycle_of_demands_is_not_held_and_one_of_exclusions_is_unclear() {
    let mut all = relations(&["x:1#a@user:u", "x:1#free@user:u"]);
    all.define(&namespace(
        "x",
        r#"{"a": "this", "free": "this",
            "one": {"intersection": [{"computedUserset": "two"}, {"computedUserset": "a"}]},
            "two": {"intersection": [{"computedUserset": "one"}, {"computedUserset": "a"}]},
            "liar": {"exclusion": ["this", {"computedUserset": "liar"}]},
            "strange": {"exclusion": [{"computedUserset": "a"}, {"computedUserset": "strange"}]},
            "sound": {"exclusion": [{"computedUserset": "a"}, {"computedUserset": "one"}]}}"#,
    ));
    assert_eq!(check(&all, "x:1#one@user:u"), Check::NotHeld);
    assert_eq!(check(&all, "x:1#strange@user:u"), Check::Unclear);
    assert_eq!(check(&all, "x:1#liar@user:u"), Check::NotHeld);
    assert!(check(&all, "x:1#sound@user:u").is_held());
}

#[test]
fn who_is_too_far_away_to_tell_is_excluded_as_well() {
    let mut tuples: Vec<String> =
        (0..=MAX_HOPS).map(|n| format!("team:{n}#member@team:{}#member", n + 1)).collect();
    tuples.push("x:1#in@user:u".to_owned());
    tuples.push("x:1#out@team:0#member".to_owned());
    tuples.push(format!("team:{}#member@user:other", MAX_HOPS + 1));
    let mut all = relations(&tuples.iter().map(String::as_str).collect::<Vec<_>>());
    let rules = r#"{"in": "this", "out": "this",
        "may": {"exclusion": [{"computedUserset": "in"}, {"computedUserset": "out"}]}}"#;
    all.define(&namespace("x", rules));
    assert_eq!(check(&all, "x:1#may@user:u"), Check::Unclear);
}

#[test]
fn work_is_bounded_where_rules_branch() {
    // Each level asks twice for the next one: 2^20 questions without a memory.
    let mut rules: Vec<String> = (0..20)
        .map(|n| format!(r#""r{n}": {{"intersection": [{{"computedUserset": "r{0}"}}, {{"union": [{{"computedUserset": "r{0}"}}]}}]}}"#, n + 1))
        .collect();
    rules.push(r#""r20": "this""#.to_owned());
    let mut all = relations(&["x:1#r20@user:u"]);
    all.define(&namespace("x", &format!("{{{}}}", rules.join(","))));
    assert!(check(&all, "x:1#r0@user:u").is_held());
    assert_eq!(check(&all, "x:1#r0@user:v"), Check::NotHeld);

    // Each level names the next one many times: the reasons must not multiply.
    let mut rules: Vec<String> = (0..5)
        .map(|n| {
            let parts = vec![format!(r#"{{"computedUserset": "r{}"}}"#, n + 1); 60];
            format!(r#""r{n}": {{"intersection": [{}]}}"#, parts.join(","))
        })
        .collect();
    rules.push(r#""r5": "this""#.to_owned());
    all.define(&namespace("x", &format!("{{{}}}", rules.join(","))));
    all.insert(&Tuple::parse("x:1#r5@user:u").unwrap());
    let because = vec![Tuple::parse("x:1#r5@user:u").unwrap()];
    assert_eq!(check(&all, "x:1#r0@user:u"), Check::Held(because));

    // Everything is related to everything: a hundred teams that are members of each other.
    let dense: Vec<String> =
        (0..100).flat_map(|n| (0..100).map(move |m| format!("team:{n}#member@team:{m}#member"))).collect();
    let all = relations(&dense.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!check(&all, "team:0#member@user:nobody").is_held());
}

/// A look-up is one piece of work, however many checks it takes; and an expansion shows only so much.
#[test]
fn work_is_bounded_where_there_is_much_to_find() {
    let mut tuples: Vec<String> = (0..1000).map(|n| format!("document:{n}#viewer@team:0#member")).collect();
    // A hundred teams that are members of each other, of all of which the subject is one, but by no relation that counts.
    tuples.extend((0..100).flat_map(|n| (0..100).map(move |m| format!("team:{n}#member@team:{m}#member"))));
    tuples.push("team:99#guest@user:u".to_owned());
    let all = relations(&tuples.iter().map(String::as_str).collect::<Vec<_>>());
    let user = Subject::from(entity("user:u"));
    let found = all.reached(&user, &label("viewer"), "document", 1000);
    assert!(found.objects.is_empty() && found.truncated, "{found:?}");
    // What cannot lead to the subject costs nothing.
    let mut tuples: Vec<String> = (0..500).map(|n| format!("document:{n}#viewer@team:0#member")).collect();
    tuples.extend((0..500).map(|n| format!("document:{n}#viewer@user:v")));
    tuples.extend((0..100).flat_map(|n| (0..100).map(move |m| format!("team:{n}#member@team:{m}#member"))));
    let all = relations(&tuples.iter().map(String::as_str).collect::<Vec<_>>());
    let found = all.reached(&entity("user:v").into(), &label("viewer"), "document", 1000);
    assert!(found.objects.len() == 500 && !found.truncated, "{}", found.objects.len());

    let mut all = relations(&[]);
    for n in 0..20_000 {
        all.insert(&Tuple::parse(&format!("x:1#parent@x:p{n}")).unwrap());
    }
    let rules =
        r#"{"parent": "this", "a": {"tupleToUserset": {"tupleset": "parent", "computedUserset": "none"}}}"#;
    all.define(&namespace("x", rules));
    let tree = all.expand(&entity("x:1"), &label("a"));
    assert!(tree.truncated && tree.children.len() < 10_001, "{}", tree.children.len());
}

#[test]
fn unknown_relations_of_defined_namespaces_are_held_by_nobody() {
    let mut all = relations(&["x:1#gone@user:u", "x:1#kept@user:u"]);
    assert!(check(&all, "x:1#gone@user:u").is_held());
    all.define(&namespace("x", r#"{"kept": "this"}"#));
    assert_eq!(check(&all, "x:1#gone@user:u"), Check::NotHeld);
    assert!(check(&all, "x:1#kept@user:u").is_held());
    assert!(all.knows("x", "kept") && !all.knows("x", "gone") && !all.takes("x", "gone"));
    assert!(all.knows("document", "anything") && !all.knows("unheard-of", "viewer"));
    all.undefine(&label("x"));
    assert!(all.knows("x", "gone"));
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    for rules in [
        r#"{"a": {"computedUserset": "b"}}"#,
        r#"{"a": {"tupleToUserset": {"tupleset": "parent", "computedUserset": "a"}}}"#,
        r#"{"a": {"union": []}}"#,
        r#"{"a": {"union": [{"union": [{"union": [{"union": [{"union": [{"union": [{"union": [{"union": ["this"]}]}]}]}]}]}]}]}}"#,
        "{}",
    ] {
        let rules: BTreeMap<Label, Rewrite> = serde_json::from_str(rules).unwrap();
        assert!(Namespace::new(label("x"), rules).is_err());
    }
}

#[test]
fn an_expansion_shows_rules_and_subjects() {
    let all = relations(&[
        "document:1#owner@user:o",
        "document:1#viewer@team:t#member",
        "document:1#parent@folder:f",
    ]);
    let tree = all.expand(&entity("document:1"), &label("viewer"));
    assert_eq!((tree.kind, tree.children.len()), (NodeKind::Union, 3));
    assert_eq!(tree.children[0].subjects, ["team:t#member"]);
    let mut listed = BTreeSet::new();
    let mut left = vec![&tree];
    while let Some(node) = left.pop() {
        listed.extend(node.subjects.iter().cloned());
        left.extend(&node.children);
    }
    assert_eq!(listed.into_iter().collect::<Vec<_>>(), ["team:t#member", "user:o"]);
    let cyclic = relations(&["folder:x#parent@folder:y", "folder:y#parent@folder:x"]);
    assert!(
        serde_json::to_string(&cyclic.expand(&entity("folder:x"), &label("viewer")))
            .unwrap()
            .contains("truncated")
    );
}

#[test]
fn groups_go_into_groups() {
    let mut all = relations(&[
        "group:a#member@user:u",
        "group:b#member@group:a#member",
        "group:a#member@group:b#member",
        "group:c#admin@user:u",
        "group:d#member@user:other",
        "group:e#member@team:t#member",
        "team:t#member@user:u",
        "group:f#viewer@user:u",
        "document:1#viewer@user:u",
    ]);
    let groups = |all: &Relations| -> Vec<String> {
        let groups = all.groups_of(&entity("user:u").into(), |group| group.as_str() != "b");
        groups.iter().map(ToString::to_string).collect()
    };
    assert_eq!(groups(&all), ["a", "c", "e"]);
    // Rules of an organization's own count here as well.
    all.insert(&Tuple::parse("group:e#banned@user:u").unwrap());
    let rules = r#"{"banned": "this", "member": {"exclusion": ["this", {"computedUserset": "banned"}]}}"#;
    all.define(&namespace("group", rules));
    assert_eq!(groups(&all), ["a"]);
    all.undefine(&label("group"));
    assert_eq!(groups(&all), ["a", "c", "e"]);
    // What is too far away for a check is so for a role.
    for n in 0..30 {
        all.insert(&Tuple::parse(&format!("group:n{}#member@group:n{n}#member", n + 1)).unwrap());
    }
    all.insert(&Tuple::parse("group:n0#member@user:u").unwrap());
    let held = |n: u32| check(&all, &format!("group:n{n}#member@user:u")).is_held();
    let found = groups(&all);
    assert!((0..=30).all(|n| found.contains(&format!("n{n}")) == held(n)), "{found:?}");
    assert!(held(25) && !held(26));
}

/// A small world: some objects of two namespaces, one with rules of every sort.
const OBJECTS: [&str; 6] = ["x:0", "x:1", "x:2", "team:0", "team:1", "folder:0"];
const RELATIONS: [&str; 6] = ["viewer", "editor", "owner", "parent", "member", "admin"];

fn subject() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..2usize).prop_map(|n| format!("user:{n}")),
        (0..OBJECTS.len()).prop_map(|n| OBJECTS[n].to_owned()),
        (0..OBJECTS.len(), 0..RELATIONS.len()).prop_map(|(o, r)| format!("{}#{}", OBJECTS[o], RELATIONS[r])),
    ]
}

fn tuple() -> impl Strategy<Value = String> {
    (0..OBJECTS.len(), 0..RELATIONS.len(), subject())
        .prop_map(|(o, r, s)| format!("{}#{}@{s}", OBJECTS[o], RELATIONS[r]))
}

fn rule() -> impl Strategy<Value = Rewrite> {
    let leaf = prop_oneof![
        Just(Rewrite::This),
        (0..RELATIONS.len()).prop_map(|r| Rewrite::ComputedUserset(label(RELATIONS[r]))),
        (0..RELATIONS.len(), 0..RELATIONS.len()).prop_map(|(t, r)| Rewrite::TupleToUserset {
            tupleset: label(RELATIONS[t]),
            computed_userset: label(RELATIONS[r]),
        }),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..3).prop_map(Rewrite::Union),
            proptest::collection::vec(inner.clone(), 1..3).prop_map(Rewrite::Intersection),
            (inner.clone(), inner).prop_map(|(a, b)| Rewrite::Exclusion(Box::new([a, b]))),
        ]
    })
}

type Set = BTreeSet<(String, String)>;

/// The naive model: for one subject, everything it has, by evaluating all rules of all objects until nothing changes. What
/// exclusions exclude is read from `excluded`.
fn fixpoint(all: &Relations, tuples: &[Tuple], subject: &Subject, excluded: &Set) -> Set {
    let mut found = Set::new();
    loop {
        let mut next = found.clone();
        for object in OBJECTS.into_iter().chain(["user:0", "user:1"]) {
            for relation in RELATIONS {
                let itself = subject.to_string() == format!("{object}#{relation}");
                let rule = all.rule(&entity(object), &label(relation)).cloned();
                let held = rule
                    .is_some_and(|rule| naive(&rule, object, relation, tuples, subject, &found, excluded));
                if itself || held {
                    next.insert((object.to_owned(), relation.to_owned()));
                }
            }
        }
        if next == found {
            return found;
        }
        found = next;
    }
}

fn naive(
    rule: &Rewrite,
    object: &str,
    relation: &str,
    tuples: &[Tuple],
    subject: &Subject,
    found: &Set,
    excluded: &Set,
) -> bool {
    let has =
        |set: &Set, object: &str, relation: &str| set.contains(&(object.to_owned(), relation.to_owned()));
    let of = |relation: &str| {
        let relation = relation.to_owned();
        tuples.iter().filter(move |it| it.object.as_str() == object && it.relation.as_str() == relation)
    };
    let go = |rule: &Rewrite, found: &Set, excluded: &Set| {
        naive(rule, object, relation, tuples, subject, found, excluded)
    };
    match rule {
        Rewrite::This => of(relation).any(|it| {
            it.subject == *subject
                || it
                    .subject
                    .relation
                    .as_ref()
                    .is_some_and(|set| has(found, it.subject.entity.as_str(), set.as_str()))
        }),
        Rewrite::ComputedUserset(other) => has(found, object, other.as_str()),
        Rewrite::TupleToUserset { tupleset, computed_userset } => of(tupleset.as_str()).any(|it| {
            it.subject.relation.is_none() && has(found, it.subject.entity.as_str(), computed_userset.as_str())
        }),
        Rewrite::Union(rules) => rules.iter().any(|rule| go(rule, found, excluded)),
        Rewrite::Intersection(rules) => rules.iter().all(|rule| go(rule, found, excluded)),
        // The second part is judged by the other set, and what it excludes in turn by the first.
        Rewrite::Exclusion(rules) => go(&rules[0], found, excluded) && !go(&rules[1], excluded, found),
    }
}

/// What is certainly held and what is possibly held: the alternating fixpoint of the well-founded semantics.
fn model(all: &Relations, tuples: &[Tuple], subject: &Subject) -> (Set, Set) {
    let everything: Set = OBJECTS
        .into_iter()
        .chain(["user:0", "user:1"])
        .flat_map(|object| RELATIONS.map(|relation| (object.to_owned(), relation.to_owned())))
        .collect();
    let (mut certain, mut possible) = (Set::new(), everything);
    loop {
        let next_certain = fixpoint(all, tuples, subject, &possible);
        let next_possible = fixpoint(all, tuples, subject, &next_certain);
        if (&next_certain, &next_possible) == (&certain, &possible) {
            return (certain, possible);
        }
        (certain, possible) = (next_certain, next_possible);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the tuples and rules are: yes and no are what the naive model says, and where the model is sure and no
    /// exclusion is in play, so is the check. Everything that is held is found backwards.
    #[test]
    fn checks_agree_with_a_naive_model(
        tuples in proptest::collection::vec(tuple(), 0..14),
        rules in proptest::option::of(proptest::collection::vec(rule(), RELATIONS.len())),
        who in subject(),
    ) {
        let tuples: Vec<Tuple> = tuples.iter().map(|text| Tuple::parse(text).unwrap()).collect();
        let mut all = Relations::default();
        tuples.iter().for_each(|tuple| all.insert(tuple));
        let with_rules = rules.is_some();
        if let Some(rules) = rules {
            let rules = RELATIONS.iter().map(|name| label(name)).zip(rules).collect();
            all.define(&Namespace::new(label("x"), rules).unwrap());
        }
        let subject = Subject::parse(&who).unwrap();
        let distinct: Vec<Tuple> = tuples.iter().cloned().collect::<std::collections::HashSet<_>>().into_iter().collect();
        let (certain, possible) = model(&all, &distinct, &subject);
        for object in OBJECTS {
            for relation in RELATIONS {
                let place = (object.to_owned(), relation.to_owned());
                match all.check(&entity(object), &label(relation), &subject) {
                    Check::Held(because) => {
                        prop_assert!(certain.contains(&place), "{place:?} is held");
                        prop_assert!(because.iter().all(|tuple| tuples.contains(tuple)));
                    }
                    Check::NotHeld => prop_assert!(!possible.contains(&place), "{place:?} is not held"),
                    Check::Unclear => prop_assert!(with_rules, "{place:?} is unclear"),
                }
            }
        }
        for relation in RELATIONS {
            let reached = all.reached(&subject, &label(relation), "x", 100);
            let held: Vec<_> = OBJECTS
                .into_iter()
                .filter(|it| it.starts_with("x:") && all.check(&entity(it), &label(relation), &subject).is_held())
                .map(entity)
                .collect();
            prop_assert_eq!(reached.objects, held);
        }
    }
}
