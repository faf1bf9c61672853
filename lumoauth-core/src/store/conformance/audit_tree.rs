//! Cases of the hash tree of [`AuditStore`].

use std::time::Duration;

use super::{
    ALL, RACERS,
    audit::{log, settle},
    now, race, some_event, some_org,
};
use crate::{
    audit::{Actor, ActorKind, Event, EventKind, EventOutcome, Target},
    id::OrgId,
    merkle::{BLOCK, Frontier, Node},
    store::{
        AuditFilter, AuditKey, AuditStore, Checkpoint, LogEntry, LogHead, RawEntry, TreeLevel, dropped_event,
    },
};

/// Every entry as it was hashed, read in small steps.
async fn raw_log(store: &dyn AuditStore, org: &OrgId, step: u32) -> Vec<RawEntry> {
    let mut all: Vec<RawEntry> = Vec::new();
    loop {
        let after = all.last().map_or(0, |entry| entry.seq);
        let part = store.raw(org, after, step).await.unwrap();
        assert!(part.len() <= usize::try_from(step).unwrap());
        if part.is_empty() {
            return all;
        }
        all.extend(part);
    }
}

/// Fails unless numbers, leaves, blocks and head of the log fit together; returns the head.
async fn assert_whole(store: &dyn AuditStore, org: &OrgId) -> LogHead {
    settle(store, org).await;
    let head = store.head(org).await.unwrap();
    let raw = raw_log(store, org, 700).await;
    let (mut tree, mut blocks) = (Frontier::default(), Vec::new());
    for (entry, seq) in raw.iter().zip(1..) {
        assert_eq!(entry.seq, seq);
        assert!(entry.recomputed(org).is_none_or(|leaf| leaf == entry.leaf), "{entry:?}");
        blocks.extend(tree.push(entry.leaf));
    }
    assert_eq!(head.tree, tree, "the tree has every entry");
    let leaves = store.nodes(org, TreeLevel::Leaves, 0..u64::MAX).await.unwrap();
    assert_eq!(leaves, raw.iter().map(|entry| entry.leaf).collect::<Vec<_>>());
    assert_eq!(
        store.nodes(org, TreeLevel::Blocks, 0..u64::MAX).await.unwrap(),
        blocks,
        "blocks are roots of leaves"
    );
    head
}

/// "The tree has every entry that can be read and no other. Once given, hashes never change."
pub async fn grows_with_the_log(store: &dyn AuditStore) {
    let org = some_org();
    assert_eq!(store.head(&org).await.unwrap(), LogHead::default());
    assert_eq!(store.nodes(&org, TreeLevel::Leaves, 0..9).await.unwrap(), []);
    assert_eq!(store.raw(&org, 0, 9).await.unwrap(), []);
    let mut leaves: Vec<Node> = Vec::new();
    for size in [1_usize, 3, 1, 4] {
        let events: Vec<_> = (0..size).map(|_| some_event()).collect();
        store.append(&org, &events).await.unwrap();
        let head = assert_whole(store, &org).await;
        assert_eq!(head.tree.size(), store.page(&org, &AuditFilter::default(), ALL).await.unwrap().total);
        let now_there = store.nodes(&org, TreeLevel::Leaves, 0..100).await.unwrap();
        assert_eq!(now_there[..leaves.len()], leaves);
        leaves = now_there;
        assert_eq!(leaves.len(), usize::try_from(head.tree.size()).unwrap());
    }
    assert_eq!(store.nodes(&org, TreeLevel::Leaves, 2..5).await.unwrap(), leaves[2..5]);
    assert_eq!(store.nodes(&org, TreeLevel::Leaves, 5..5).await.unwrap(), []);
    assert_eq!(store.nodes(&org, TreeLevel::Leaves, 9..20).await.unwrap(), []);
    assert_eq!(store.head(&some_org()).await.unwrap(), LogHead::default());
}

/// "A number, its leaf and its place in the tree are given in one step", whoever appends and sequences at once.
pub async fn racing_appends_keep_the_tree(store: &dyn AuditStore) {
    let org = some_org();
    let shared = some_event();
    race(RACERS, async |_| {
        store.append(&org, &[some_event(), shared.clone()]).await.unwrap();
        store.sequence(&org, 5).await.unwrap();
    })
    .await;
    let head = assert_whole(store, &org).await;
    assert_eq!(head.tree.size(), u64::try_from(RACERS).unwrap() + 1);
}

/// "The roots of [`BLOCK`] leaves each, as far as they are complete."
pub async fn blocks_are_roots_of_leaves(store: &dyn AuditStore) {
    let org = some_org();
    let events: Vec<_> = (0..2 * BLOCK + 17).map(|_| some_event()).collect();
    for part in events.chunks(900) {
        store.append(&org, part).await.unwrap();
        store.sequence(&org, 333).await.unwrap();
    }
    let head = assert_whole(store, &org).await;
    assert_eq!(head.tree.size(), 2 * BLOCK + 17);
    let blocks = store.nodes(&org, TreeLevel::Blocks, 0..9).await.unwrap();
    assert_eq!(blocks.len(), 2);
    assert_eq!(store.nodes(&org, TreeLevel::Blocks, 1..2).await.unwrap(), blocks[1..]);
}

/// "Entries in the order of their numbers, as they were hashed", whatever the clock said and the texts hold.
pub async fn raw_entries_hash_to_their_leaves(store: &dyn AuditStore) {
    let org = some_org();
    let texts = ["\u{0} \u{1f} \r\n \" \\ / \u{7f} \u{2028}", "\u{ffff}0 Ünïcode \u{1f916}", "", "{\"a\":1}"];
    let events: Vec<_> = (0..8_u64)
        .zip(texts.iter().cycle())
        .map(|(n, text)| {
            // Every event claims to be an hour older than the one before: the order is that of the numbers.
            let at = now().minus(Duration::from_secs(3600 * n));
            let actor = Actor::new(ActorKind::Unknown, *text).named(*text);
            let mut event =
                Event::new(EventKind::AgentAction, actor, *text, at).on(Target::new("agent", "a"));
            event.context.insert((*text).to_owned(), serde_json::json!([1.5, -0.0, u64::MAX, null, *text]));
            event
        })
        .collect();
    store.append(&org, &events).await.unwrap();
    assert_whole(store, &org).await;
    let raw = raw_log(store, &org, 3).await;
    assert_eq!(raw.len(), events.len());
    for (entry, event) in raw.iter().zip(&events) {
        assert_eq!((entry.event_id, entry.at), (event.id, event.at));
        assert_eq!(serde_json::from_str::<Event>(entry.body.as_ref().unwrap()).unwrap(), *event);
        assert_eq!(entry.recomputed(&org), Some(entry.leaf));
    }
    assert_eq!(store.raw(&org, 6, 9).await.unwrap(), raw[6..]);
    assert_eq!(store.raw(&org, 0, 0).await.unwrap(), []);
    assert_eq!(store.raw(&org, u64::MAX, 9).await.unwrap(), []);
}

/// "Keeps a signed head for ever. The first of its size stays." "The smallest first."
pub async fn checkpoints_stay_as_they_are(store: &dyn AuditStore) {
    let org = some_org();
    store.append(&org, &[some_event(), some_event(), some_event()]).await.unwrap();
    settle(store, &org).await;
    let of = |size: u64, signed: &str| Checkpoint { size, signed: signed.to_owned() };
    assert_eq!(store.checkpoints(&org, 0, 9).await.unwrap(), []);
    for (size, signed) in [(3, "c"), (1, "a"), (2, "b"), (1, "other")] {
        store.sign_off(&org, &of(size, signed)).await.unwrap();
    }
    let all = [of(1, "a"), of(2, "b"), of(3, "c")];
    assert_eq!(store.checkpoints(&org, 0, 9).await.unwrap(), all, "the first of its size stays");
    assert_eq!(store.checkpoints(&org, 1, 1).await.unwrap(), all[1..2]);
    assert_eq!(store.checkpoints(&org, 3, 9).await.unwrap(), []);
    assert_eq!(store.head(&org).await.unwrap().signed, 3);
    assert_eq!(store.checkpoints(&some_org(), 0, 9).await.unwrap(), []);
    // Whoever lost entries must be able to see it.
    store.sign_off(&org, &of(7, "g")).await.unwrap();
    let head = store.head(&org).await.unwrap();
    assert_eq!((head.signed, head.tree.size()), (7, 3), "heads of more entries are told");
    let gone = some_org();
    store.sign_off(&gone, &of(5, "e")).await.unwrap();
    let head = store.head(&gone).await.unwrap();
    assert_eq!((head.signed, head.tree.size()), (5, 0), "heads of a log that is gone are told");

    let raced = some_org();
    store.append(&raced, &[some_event()]).await.unwrap();
    settle(store, &raced).await;
    race(RACERS, async |n| store.sign_off(&raced, &of(1, &n.to_string())).await.unwrap()).await;
    let first = store.checkpoints(&raced, 0, 9).await.unwrap();
    assert_eq!(first.len(), 1);
    store.sign_off(&raced, &of(1, "late")).await.unwrap();
    assert_eq!(store.checkpoints(&raced, 0, 9).await.unwrap(), first);
}

/// "Organizations whose log is by at least `by` entries longer than its largest signed head, or shorter, in the order of
/// their ids."
pub async fn unsigned_logs(store: &dyn AuditStore) {
    let org = some_org();
    let listed = async |by| store.unsigned(by, None, ALL.limit).await.unwrap().contains(&org);
    assert!(!listed(1).await);
    store.append(&org, &[some_event(), some_event(), some_event()]).await.unwrap();
    settle(store, &org).await;
    assert!(listed(1).await && listed(3).await && !listed(4).await);
    store.sign_off(&org, &Checkpoint { size: 2, signed: "b".to_owned() }).await.unwrap();
    assert!(listed(1).await && !listed(2).await);
    store.sign_off(&org, &Checkpoint { size: 3, signed: "c".to_owned() }).await.unwrap();
    store.sign_off(&org, &Checkpoint { size: 1, signed: "a".to_owned() }).await.unwrap();
    assert!(!listed(1).await);
    assert_eq!(store.unsigned(1, None, 0).await.unwrap(), []);
    let cut = some_org();
    store.append(&cut, &[some_event()]).await.unwrap();
    settle(store, &cut).await;
    store.sign_off(&cut, &Checkpoint { size: 2, signed: "b".to_owned() }).await.unwrap();
    assert!(store.unsigned(1, None, ALL.limit).await.unwrap().contains(&cut));
    assert!(!store.unsigned(2, None, ALL.limit).await.unwrap().contains(&cut));

    let mut ours = [some_org(), some_org(), some_org()];
    for org in &ours {
        store.append(org, &[some_event()]).await.unwrap();
        settle(store, org).await;
    }
    ours.sort();
    let (mut all, mut last): (Vec<OrgId>, Option<OrgId>) = (Vec::new(), None);
    loop {
        let page = store.unsigned(1, last.as_ref(), 2).await.unwrap();
        assert!(page.len() <= 2);
        assert!(page.first() > last.as_ref() || page.is_empty(), "{page:?} after {last:?}");
        last = page.last().cloned();
        all.extend(page);
        if last.is_none() {
            break;
        }
    }
    assert!(all.is_sorted_by(|one, next| one < next), "{all:?}");
    assert!(ours.iter().all(|org| all.contains(org)) && !all.contains(&org));
}

/// What retention says.
fn drop_event() -> Event {
    Event::new(EventKind::AuditBodiesDropped, Actor::system(), "dropped", now())
}

/// "Drops the bodies, writes `on` with them, and returns how many those were. Numbers, leaves, totals and proofs stay as they
/// are."
pub async fn bodies_are_dropped_from_the_oldest_on(store: &dyn AuditStore) {
    let org = some_org();
    let mut events: Vec<_> = (0..5)
        .map(|n| {
            let actor = Actor::new(ActorKind::User, "ada").named("Ada");
            Event::new(EventKind::AgentAction, actor, "canary", now().plus(Duration::from_secs(n)))
                .on(Target::new("agent", "a-1").named("A"))
        })
        .collect();
    events[1] = events[1].clone().failed("canary");
    store.append(&org, &events).await.unwrap();
    let before = assert_whole(store, &org).await;
    let stats = store.stats(&org, &AuditFilter::default()).await.unwrap();
    let leaves = store.nodes(&org, TreeLevel::Leaves, 0..9).await.unwrap();

    let mut reasons = [drop_event(), drop_event()];
    for (n, reason) in (0..).zip(&mut reasons) {
        assert_eq!(store.drop_bodies(&org, n, n + 1, reason).await.unwrap(), 1);
        settle(store, &org).await;
    }

    let after = assert_whole(store, &org).await;
    assert_eq!((after.tree.size(), after.dropped), (before.tree.size() + 2, 2), "what was dropped is told");
    assert_eq!(store.nodes(&org, TreeLevel::Leaves, 0..5).await.unwrap(), leaves);
    let bodies: Vec<_> = raw_log(store, &org, 9).await.iter().map(|entry| entry.body.is_some()).collect();
    assert_eq!(bodies, [false, false, true, true, true, true, true]);
    events.extend(reasons);
    let mut stats_now = stats;
    events[5..].iter().for_each(|event| stats_now.count(event));
    assert_eq!(store.stats(&org, &AuditFilter::default()).await.unwrap(), stats_now);

    let left = |event: &Event| dropped_event(event.id, event.at, event.kind, event.outcome);
    let wanted: Vec<_> = (1..)
        .zip(&events)
        .map(|(seq, event)| LogEntry { seq, event: if seq <= 2 { left(event) } else { event.clone() } })
        .collect();
    assert_eq!(log(store, &org).await, wanted);
    assert_eq!(store.find(&org, AuditKey::Seq(2)).await.unwrap().as_ref(), wanted.get(1));
    assert_eq!(store.find(&org, AuditKey::Event(events[0].id)).await.unwrap().as_ref(), wanted.first());

    let total = async |set: &dyn Fn(&mut AuditFilter)| {
        let mut filter = AuditFilter::default();
        set(&mut filter);
        store.page(&org, &filter, ALL).await.unwrap().total
    };
    assert_eq!(total(&|filter| filter.actor = Some("ada".to_owned())).await, 3);
    assert_eq!(total(&|filter| filter.target = Some("a-1".to_owned())).await, 3);
    assert_eq!(total(&|filter| filter.search = Some("canary".to_owned())).await, 3);
    assert_eq!(total(&|filter| filter.search = Some(String::new())).await, 7);
    assert_eq!(total(&|filter| filter.kind = Some("agent.action".to_owned())).await, 5);
    assert_eq!(total(&|filter| filter.outcome = Some(EventOutcome::Failure)).await, 1);

    // The same event again is still known.
    store.append(&org, &events[..1]).await.unwrap();
    assert_eq!(assert_whole(store, &org).await.tree.size(), 7);
    assert_eq!(store.drop_bodies(&org, 2, 7, &drop_event()).await.unwrap(), 5);
    assert_eq!(assert_whole(store, &org).await.dropped, 7);
}

/// "Unless the bodies up to `from`, and no others, are dropped, and the log has `up_to` entries, nothing happens, and the
/// answer is 0: of several servers one drops them, and it is said once."
pub async fn bodies_are_dropped_once(store: &dyn AuditStore) {
    let org = some_org();
    store.append(&org, &[some_event(), some_event(), some_event()]).await.unwrap();
    let before = assert_whole(store, &org).await;
    for (from, up_to) in [(0, 0), (1, 2), (1, 0), (0, 4), (0, u64::MAX), (u64::MAX, u64::MAX)] {
        let dropped = store.drop_bodies(&org, from, up_to, &drop_event()).await.unwrap();
        assert_eq!(dropped, 0, "from {from} up to {up_to}");
        assert_eq!(assert_whole(store, &org).await, before, "nothing happened");
    }
    assert_eq!(store.drop_bodies(&some_org(), 0, 9, &drop_event()).await.unwrap(), 0);
    assert_eq!(assert_whole(store, &org).await, before, "nothing happened");

    let answers = race(RACERS, async |_| store.drop_bodies(&org, 0, 2, &drop_event()).await.unwrap()).await;
    assert_eq!(answers.into_iter().filter(|dropped| *dropped != 0).collect::<Vec<_>>(), [2]);
    let after = assert_whole(store, &org).await;
    assert_eq!((after.tree.size(), after.dropped), (4, 2));
    assert_eq!(store.drop_bodies(&org, 0, 3, &drop_event()).await.unwrap(), 0);
}
