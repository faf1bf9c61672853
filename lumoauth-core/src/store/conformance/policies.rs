//! Cases of [`PolicyStore`].

use std::{collections::BTreeMap, time::Duration};

use super::{RACERS, now, race, some_event, some_org, unique};
use crate::{
    clock::Timestamp,
    id::{Label, OrgId},
    policy::{Entry, Record, RecordId, RecordKind, Role, Tuple},
    store::{Apply, Expect, POLICY_TOMBSTONE_LIFE, PolicyChange, PolicyStore, Since},
};

/// A record that no other case knows.
pub(super) fn some_entry() -> Entry {
    Entry::Tuple(Tuple::parse(&format!("{}#viewer@user:\"é'%_\\", unique("document:1"))).unwrap())
}

fn body(text: &str) -> Option<std::sync::Arc<str>> {
    Some(text.into())
}

fn id(kind: RecordKind, key: &str) -> RecordId {
    RecordId::new(kind, key).unwrap()
}

fn put(id: &RecordId, text: &str, expect: Expect) -> PolicyChange {
    PolicyChange { id: id.clone(), body: body(text), expect }
}

fn removal(id: &RecordId) -> PolicyChange {
    PolicyChange::remove(id.clone(), Expect::Anything)
}

async fn apply(store: &dyn PolicyStore, org: &OrgId, changes: &[PolicyChange]) -> Apply {
    store.apply(org, changes, &some_event(), now()).await.unwrap()
}

async fn applied(store: &dyn PolicyStore, org: &OrgId, changes: &[PolicyChange]) -> u64 {
    match apply(store, org, changes).await {
        Apply::Applied { revision } => revision,
        Apply::Conflict(place) => panic!("change {place} conflicts"),
    }
}

async fn all(store: &dyn PolicyStore, org: &OrgId) -> Vec<Record> {
    store.page(org, None, 10_000).await.unwrap()
}

/// "Makes all of `changes`": a record is found as it was written.
pub async fn round_trip(store: &dyn PolicyStore) {
    let org = some_org();
    assert_eq!((store.revision(&org).await.unwrap(), all(store, &org).await), (0, Vec::new()));
    assert_eq!(store.since(&org, 0, 10).await.unwrap(), Since::UpToDate);
    let mut role = Role::new(Label::parse("ROLE_x.y-z").unwrap(), "Ünïcode \u{1f916} \0 '\"\\ %_", now());
    role.description = Some("two\nlines \u{ffff}".to_owned());
    let entries = [Entry::Role(role.into()), some_entry()];
    let changes: Vec<_> = entries.iter().map(|entry| PolicyChange::put(entry, Expect::Absent)).collect();
    assert_eq!(applied(store, &org, &changes).await, 1);
    let found = all(store, &org).await;
    assert_eq!(found, entries.iter().map(|entry| Record::of(entry, 1)).collect::<Vec<_>>());
    for (record, entry) in found.iter().zip(&entries) {
        assert_eq!(Entry::read(&record.id, record.body.as_ref().unwrap()).unwrap(), *entry);
    }
    let longest = id(RecordKind::Value, &"ä".repeat(RecordId::MAX_KEY / 2));
    assert_eq!(applied(store, &org, &[put(&longest, "1", Expect::Absent)]).await, 2);
    assert_eq!(all(store, &org).await.last().map(|record| record.id.clone()), Some(longest));
}

/// "What changes expect is checked in the same atomic step." "To remove something that is not there conflicts with every
/// expectation."
pub async fn expectations(store: &dyn PolicyStore) {
    let org = some_org();
    let name = id(RecordKind::Role, "a");
    let remove = |expect| PolicyChange::remove(name.clone(), expect);
    for expect in [Expect::Absent, Expect::At(0), Expect::At(1), Expect::Anything] {
        assert_eq!(apply(store, &org, &[remove(expect)]).await, Apply::Conflict(0), "{expect:?}");
    }
    assert_eq!(apply(store, &org, &[put(&name, "1", Expect::At(0))]).await, Apply::Conflict(0));
    assert_eq!(applied(store, &org, &[put(&name, "1", Expect::Anything)]).await, 1);
    assert_eq!(apply(store, &org, &[put(&name, "2", Expect::Absent)]).await, Apply::Conflict(0));
    assert_eq!(applied(store, &org, &[put(&name, "2", Expect::At(1))]).await, 2);
    assert_eq!(apply(store, &org, &[put(&name, "3", Expect::At(1))]).await, Apply::Conflict(0));
    assert_eq!(apply(store, &org, &[remove(Expect::At(1))]).await, Apply::Conflict(0));
    assert_eq!(apply(store, &org, &[remove(Expect::Absent)]).await, Apply::Conflict(0));
    assert_eq!(applied(store, &org, &[remove(Expect::At(2))]).await, 3);
    // A removal is remembered, and is no record.
    for expect in [Expect::At(3), Expect::Anything] {
        assert_eq!(apply(store, &org, &[remove(expect)]).await, Apply::Conflict(0), "{expect:?}");
    }
    assert_eq!(apply(store, &org, &[put(&name, "4", Expect::At(3))]).await, Apply::Conflict(0));
    assert_eq!(applied(store, &org, &[put(&name, "4", Expect::Absent)]).await, 4);
    assert_eq!(all(store, &org).await, [Record { id: name, revision: 4, body: body("4") }]);
}

/// "Or none of it."
pub async fn all_or_none(store: &dyn PolicyStore) {
    let org = some_org();
    let [a, b, c] = ["a", "b", "c"].map(|key| id(RecordKind::Role, key));
    assert_eq!(applied(store, &org, &[put(&b, "1", Expect::Absent)]).await, 1);
    let changes = [put(&a, "2", Expect::Absent), put(&b, "2", Expect::Absent), removal(&c)];
    assert_eq!(apply(store, &org, &changes).await, Apply::Conflict(1));
    assert_eq!(all(store, &org).await, [Record { id: b.clone(), revision: 1, body: body("1") }]);
    assert_eq!(store.since(&org, 1, 10).await.unwrap(), Since::UpToDate);
    let changes = [put(&a, "2", Expect::Absent), put(&c, "2", Expect::Absent), removal(&b)];
    assert_eq!(applied(store, &org, &changes).await, 2);
    let of = |id: &RecordId| Record { id: id.clone(), revision: 2, body: body("2") };
    assert_eq!(all(store, &org).await, [of(&a), of(&c)]);
}

/// "What changes expect is checked in the same atomic step": of any number of inserts of one record one is made, also where
/// each writes other records as well.
pub async fn racing_inserts(store: &dyn PolicyStore) {
    let org = some_org();
    let wanted = id(RecordKind::Tuple, "wanted");
    let outcomes = race(RACERS, async |n| {
        let own = id(RecordKind::Tuple, &format!("own {n}"));
        let mut changes = [put(&wanted, &n.to_string(), Expect::Absent), put(&own, "0", Expect::Absent)];
        if n % 2 == 0 {
            changes.reverse();
        }
        apply(store, &org, &changes).await
    })
    .await;
    let won: Vec<_> =
        (0..RACERS).filter(|n| matches!(outcomes[*n], Apply::Applied { revision: 1 })).collect();
    let lost = outcomes.iter().filter(|outcome| matches!(outcome, Apply::Conflict(_))).count();
    assert_eq!((won.len(), lost), (1, RACERS - 1), "{outcomes:?}");
    let found = all(store, &org).await;
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].body, body(&won[0].to_string()));
}

/// Of any number of changes of one record from one revision one is made.
pub async fn racing_updates(store: &dyn PolicyStore) {
    let org = some_org();
    let name = id(RecordKind::Role, "a");
    assert_eq!(applied(store, &org, &[put(&name, "0", Expect::Absent)]).await, 1);
    let outcomes = race(RACERS, async |n| {
        let change = if n % 3 == 0 {
            PolicyChange::remove(name.clone(), Expect::At(1))
        } else {
            put(&name, &n.to_string(), Expect::At(1))
        };
        apply(store, &org, &[change]).await
    })
    .await;
    let won = outcomes.iter().filter(|outcome| **outcome == Apply::Applied { revision: 2 }).count();
    assert_eq!(won, 1, "{outcomes:?}");
    assert_eq!(store.revision(&org).await.unwrap(), 2);
}

/// "Every call of `apply` raises [the revision] by one": also calls at once, each of which makes its own.
pub async fn revisions_have_no_gaps(store: &dyn PolicyStore) {
    let org = some_org();
    let mut revisions: Vec<u64> = race(RACERS, async |n| {
        applied(store, &org, &[put(&id(RecordKind::Tuple, &n.to_string()), "0", Expect::Absent)]).await
    })
    .await;
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=RACERS as u64).collect::<Vec<_>>());
    assert_eq!(store.revision(&org).await.unwrap(), RACERS as u64);
    let written: BTreeMap<_, _> =
        all(store, &org).await.into_iter().map(|record| (record.revision, record.id)).collect();
    assert_eq!(written.len(), RACERS);
}

/// "A record of one organization is never found, changed, counted or removed through another."
pub async fn organizations_are_apart(store: &dyn PolicyStore) {
    let (ours, theirs) = (some_org(), some_org());
    let name = id(RecordKind::Role, "a");
    assert_eq!(applied(store, &ours, &[put(&name, "1", Expect::Absent)]).await, 1);
    assert_eq!(store.revision(&theirs).await.unwrap(), 0);
    assert!(all(store, &theirs).await.is_empty());
    assert_eq!(store.since(&theirs, 0, 10).await.unwrap(), Since::UpToDate);
    assert_eq!(apply(store, &theirs, &[removal(&name)]).await, Apply::Conflict(0));
    assert_eq!(applied(store, &theirs, &[put(&name, "2", Expect::Absent)]).await, 1);
    assert_eq!(applied(store, &theirs, &[removal(&name)]).await, 2);
    assert_eq!(all(store, &ours).await, [Record { id: name, revision: 1, body: body("1") }]);
    assert_eq!(store.since(&ours, 1, 10).await.unwrap(), Since::UpToDate);
}

/// "In ascending order of kind (by name) and key (by bytes), at most `limit`."
pub async fn pages(store: &dyn PolicyStore) {
    let org = some_org();
    let keys = ["a", "B", "ä", "a b", "a:b", "a#b@c", "\u{1f916}", "10", "9"];
    let mut ids: Vec<_> = RecordKind::ALL.iter().flat_map(|kind| keys.map(|key| id(*kind, key))).collect();
    let changes: Vec<_> = ids.iter().map(|id| put(id, "{}", Expect::Absent)).collect();
    assert_eq!(applied(store, &org, &changes).await, 1);
    assert_eq!(applied(store, &org, &[removal(&ids[3])]).await, 2);
    ids.remove(3);
    ids.sort();
    for limit in [1, 7, 1000] {
        let mut found = Vec::new();
        loop {
            let after = found.last();
            let page = store.page(&org, after, limit).await.unwrap();
            assert!(page.len() <= limit as usize);
            if page.is_empty() {
                break;
            }
            found.extend(page.into_iter().map(|record| record.id));
        }
        assert_eq!(found, ids, "{limit}");
    }
    let nothing: Vec<Record> = store.page(&org, ids.last(), 10).await.unwrap();
    assert!(nothing.is_empty());
}

/// "Whoever reads several asks for the revision first, and for what changed since it afterwards", while others write.
pub async fn pages_and_changes_make_a_whole(store: &dyn PolicyStore) {
    let org = some_org();
    let name = |n: usize| id(RecordKind::Tuple, &format!("{n:03}"));
    let first: Vec<_> = (0..60).map(|n| put(&name(n), "0", Expect::Absent)).collect();
    assert_eq!(applied(store, &org, &first).await, 1);
    let write = async {
        for n in 0..60 {
            let change = match n % 3 {
                0 => removal(&name(n)),
                1 => put(&name(n), "1", Expect::Anything),
                _ => put(&name(100 + n), "1", Expect::Absent),
            };
            let _: u64 = applied(store, &org, &[change]).await;
        }
    };
    let read = async {
        let start = store.revision(&org).await.unwrap();
        let mut state = BTreeMap::new();
        let mut after = None;
        loop {
            let page = store.page(&org, after.as_ref(), 7).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.id.clone());
            state.extend(page.into_iter().map(|record| (record.id.clone(), record)));
        }
        (start, state)
    };
    let ((), (mut at, mut state)) = futures_util::future::join(write, read).await;
    while let Since::Changed { records, revision } = store.since(&org, at, 1000).await.unwrap() {
        for record in records {
            assert!(record.revision > at && record.revision <= revision);
            if record.body.is_some() {
                state.insert(record.id.clone(), record);
            } else {
                state.remove(&record.id);
            }
        }
        at = revision;
    }
    assert_eq!(state.into_values().collect::<Vec<_>>(), all(store, &org).await);
}

/// "These records, removals included, each as it is now. In ascending order of revision, and of id within one."
pub async fn changes_since(store: &dyn PolicyStore) {
    let org = some_org();
    let [a, b, c] = ["a", "b", "c"].map(|key| id(RecordKind::Role, key));
    for changes in [
        vec![put(&b, "1", Expect::Absent), put(&a, "1", Expect::Absent)],
        vec![put(&c, "2", Expect::Absent)],
        vec![put(&a, "3", Expect::Anything)],
        vec![removal(&c)],
    ] {
        let _: u64 = applied(store, &org, &changes).await;
    }
    let record = |id: &RecordId, revision, text| Record { id: id.clone(), revision, body: body(text) };
    let everything = [record(&b, 1, "1"), record(&a, 3, "3"), Record::removal(c.clone(), 4)];
    for (since, expected) in
        [(0, &everything[..]), (1, &everything[1..]), (2, &everything[1..]), (3, &everything[2..])]
    {
        let changed = Since::Changed { records: expected.to_vec(), revision: 4 };
        assert_eq!(store.since(&org, since, 3).await.unwrap(), changed, "{since}");
    }
    assert_eq!(store.since(&org, 4, 3).await.unwrap(), Since::UpToDate);
    let of_one = [removal(&a), removal(&b), put(&c, "5", Expect::Absent)];
    assert_eq!(applied(store, &org, &of_one).await, 5);
    let records = vec![Record::removal(a, 5), Record::removal(b, 5), record(&c, 5, "5")];
    assert_eq!(store.since(&org, 4, 3).await.unwrap(), Since::Changed { records, revision: 5 });
}

/// "More than asked for, [..] or the organization never was at that revision. Read everything."
pub async fn long_ago(store: &dyn PolicyStore) {
    let org = some_org();
    assert_eq!(store.since(&org, 1, 10).await.unwrap(), Since::TooOld);
    for n in 0..4 {
        let name = id(RecordKind::Role, &n.to_string());
        let _: u64 = applied(store, &org, &[put(&name, "1", Expect::Absent)]).await;
    }
    assert_eq!(store.since(&org, 0, 3).await.unwrap(), Since::TooOld);
    assert!(matches!(store.since(&org, 1, 3).await.unwrap(), Since::Changed { revision: 4, .. }));
    assert_eq!(store.since(&org, 5, 3).await.unwrap(), Since::TooOld);
    assert_eq!(store.since(&org, u64::MAX, 3).await.unwrap(), Since::TooOld);
}

/// "Or so long ago that removals are forgotten": none is forgotten before its time, and whoever may have missed one that is
/// reads everything. What was made anew in between is kept.
pub async fn purge_keeps_removals(store: &dyn PolicyStore, then: Timestamp, purge: impl AsyncFnOnce()) {
    let org = some_org();
    let late = then.minus(POLICY_TOMBSTONE_LIFE).minus(Duration::from_millis(1));
    let [old, anew, kept] = ["old", "anew", "kept"].map(|key| id(RecordKind::Role, key));
    let ids = [&old, &anew, &kept];
    for (changes, at) in [
        (ids.map(|id| put(id, "1", Expect::Absent)).to_vec(), late),
        (vec![removal(&old), removal(&anew)], late),
        (vec![removal(&kept)], then),
        (vec![put(&anew, "4", Expect::Absent)], late),
    ] {
        assert!(matches!(
            store.apply(&org, &changes, &some_event(), at).await.unwrap(),
            Apply::Applied { .. }
        ));
    }
    let anew = Record { id: anew, revision: 4, body: body("4") };
    let records = vec![Record::removal(old, 2), Record::removal(kept.clone(), 3), anew.clone()];
    assert_eq!(store.since(&org, 1, 10).await.unwrap(), Since::Changed { records, revision: 4 });

    purge().await;

    assert_eq!(store.since(&org, 1, 10).await.unwrap(), Since::TooOld);
    let records = vec![Record::removal(kept, 3), anew.clone()];
    assert_eq!(store.since(&org, 2, 10).await.unwrap(), Since::Changed { records, revision: 4 });
    assert_eq!(all(store, &org).await, [anew]);
    assert_eq!(store.revision(&org).await.unwrap(), 4);
}
