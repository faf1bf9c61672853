//! Cases of [`AuditStore`].

use std::{collections::BTreeSet, time::Duration};

use super::{ALL, RACERS, now, race, some_event, some_org};
use crate::{
    audit::{Actor, ActorKind, Event, EventKind, EventOutcome, Origin, Target},
    id::{EventId, OrgId},
    store::{AuditFilter, AuditKey, AuditStats, AuditStore, LogEntry, Page},
};

/// Brings what waits into the log.
pub(super) async fn settle(store: &dyn AuditStore, org: &OrgId) {
    while store.sequence(org, 1000).await.unwrap() > 0 {}
}

/// The whole log of `org`, oldest first.
pub(super) async fn log(store: &dyn AuditStore, org: &OrgId) -> Vec<LogEntry> {
    settle(store, org).await;
    let mut listing = store.page(org, &AuditFilter::default(), ALL).await.unwrap();
    assert_eq!(u64::try_from(listing.items.len()), Ok(listing.total));
    listing.items.reverse();
    listing.items
}

/// Fails unless `entries` are numbered 1, 2, 3 ..
fn assert_numbered(entries: &[LogEntry]) {
    for (entry, seq) in entries.iter().zip(1..) {
        assert_eq!(entry.seq, seq);
    }
}

fn ids(entries: &[LogEntry]) -> Vec<EventId> {
    entries.iter().map(|entry| entry.event.id).collect()
}

fn some_events(n: usize) -> Vec<Event> {
    (0..n).map(|_| some_event()).collect()
}

/// "An event whose id is known, in the outbox or in the log, is skipped: an append may be repeated."
pub async fn append_is_idempotent(store: &dyn AuditStore) {
    let org = some_org();
    let [first, second, third] = [some_event(), some_event(), some_event()];
    store.append(&org, &[]).await.unwrap();

    store.append(&org, &[first.clone(), second.clone()]).await.unwrap();
    store.append(&org, &[second.clone(), first.clone()]).await.unwrap();
    settle(store, &org).await;
    store.append(&org, &[first.clone(), third.clone(), third.clone(), second.clone()]).await.unwrap();

    let entries = log(store, &org).await;
    assert_numbered(&entries);
    assert_eq!(ids(&entries), [first.id, second.id, third.id]);
}

/// "An event whose id is known, in the outbox or in the log, is skipped", also if it waits twice and the two are sequenced
/// by different calls.
pub async fn waits_twice_is_numbered_once(store: &dyn AuditStore) {
    let org = some_org();
    let [first, second] = [some_event(), some_event()];
    for _ in 0..3 {
        store.append(&org, &[first.clone(), second.clone()]).await.unwrap();
    }
    while store.sequence(&org, 1).await.unwrap() > 0 {}

    let entries = log(store, &org).await;
    assert_numbered(&entries);
    assert_eq!(ids(&entries), [first.id, second.id]);
    let stats = store.stats(&org, &AuditFilter::default()).await.unwrap();
    assert_eq!(stats.total, 2);
}

/// "Events of one call are kept in its order."
pub async fn order_is_kept(store: &dyn AuditStore) {
    let org = some_org();
    // Neither the claimed time nor the id says anything about the order.
    let mut events: Vec<_> = (0..9)
        .map(|n| {
            let at = now().minus(Duration::from_secs(n));
            Event::new(EventKind::AgentAction, Actor::system(), "backwards", at)
        })
        .collect();
    events.extend(some_events(20));
    store.append(&org, &events).await.unwrap();

    let wanted: Vec<_> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids(&log(store, &org).await), wanted);
}

/// "1, 2, 3 .. without gaps, per organization", also if any number of servers append and sequence at once.
pub async fn racing_appends_leave_no_gap(store: &dyn AuditStore) {
    let org = some_org();
    let shared = some_event();
    let own: Vec<_> = (0..RACERS).map(|_| some_events(2)).collect();
    race(RACERS, async |n| {
        let [first, second] = [own[n][0].clone(), own[n][1].clone()];
        store.append(&org, &[first, shared.clone(), second]).await.unwrap();
        assert!(store.sequence(&org, 5).await.unwrap() <= 5);
    })
    .await;

    let entries = log(store, &org).await;
    assert_numbered(&entries);
    assert_eq!(entries.len(), 2 * RACERS + 1);
    let found: BTreeSet<_> = entries.iter().map(|entry| entry.event.id).collect();
    let wanted: BTreeSet<_> = own.iter().flatten().chain([&shared]).map(|event| event.id).collect();
    assert_eq!(found, wanted);
}

/// "Organizations with events that wait for [`AuditStore::sequence`]."
pub async fn waiting_organizations(store: &dyn AuditStore) {
    let (org, other) = (some_org(), some_org());
    for org in [&org, &other] {
        store.append(org, &some_events(2)).await.unwrap();
    }
    let waiting = store.waiting(ALL.limit).await.unwrap();
    let moved = store.sequence(&org, 1000).await.unwrap();
    assert_eq!(waiting.contains(&org), moved > 0);
    assert_eq!(waiting.contains(&other), moved > 0);
    assert!(waiting.iter().filter(|one| **one == org).count() <= 1);
    settle(store, &org).await;
    let waiting = store.waiting(ALL.limit).await.unwrap();
    assert!(!waiting.contains(&org));
    assert_eq!(waiting.contains(&other), moved > 0);
    assert!(store.waiting(1).await.unwrap().len() <= 1);
    assert!(store.waiting(0).await.unwrap().is_empty());
}

/// "Moves up to `max` events that wait in this backend's outbox into the log and gives them the next
/// numbers."
pub async fn numbers_have_no_gaps(store: &dyn AuditStore) {
    let org = some_org();
    assert_eq!(store.sequence(&org, 10).await.unwrap(), 0);
    let mut wanted = Vec::new();
    for size in [3, 1, 4, 1, 5] {
        let events = some_events(size);
        store.append(&org, &events).await.unwrap();
        wanted.extend(events.iter().map(|event| event.id));
        assert_eq!(store.sequence(&org, 0).await.unwrap(), 0);
        assert!(store.sequence(&org, 2).await.unwrap() <= 2);

        let numbered = store.page(&org, &AuditFilter::default(), ALL).await.unwrap();
        assert_numbered(&numbered.items.into_iter().rev().collect::<Vec<_>>());
    }

    let entries = log(store, &org).await;
    assert_numbered(&entries);
    assert_eq!(ids(&entries), wanted);
    assert_eq!(store.sequence(&org, 10).await.unwrap(), 0);
}

/// "Moves up to `max` events", also if thousands wait.
pub async fn long_queues(store: &dyn AuditStore) {
    const WAITING: usize = 5_000;
    let org = some_org();
    let events = some_events(WAITING);
    for part in events.chunks(1000) {
        store.append(&org, part).await.unwrap();
    }
    store.sequence(&org, 5_000).await.unwrap();
    assert_eq!(store.sequence(&org, 1).await.unwrap(), 0);

    let entries = log(store, &org).await;
    assert_numbered(&entries);
    assert_eq!(ids(&entries), events.iter().map(|event| event.id).collect::<Vec<_>>());
}

/// "The entry with this number or event."
pub async fn found_by_seq_and_event(store: &dyn AuditStore) {
    let org = some_org();
    let origin = Origin::new("2001:db8::1".parse().ok(), Some("Ünïcode/1.0"), Some("r-1"));
    let full = Event::new(
        EventKind::TokenRevoked,
        Actor::new(ActorKind::User, "ada").named("Ada \"L.\""),
        "Ünïcode 'n' \\ %_ \u{1f916}",
        now().plus(Duration::from_millis(1)),
    )
    .on(Target::new("token", "t-1").named("Token"))
    .failed("not_found")
    .by_method("api_key")
    .from_origin(&origin)
    .with("before", serde_json::json!({"n": 9_007_199_254_740_991_u64, "list": [null, true, "x"]}));
    let plain = some_event();
    store.append(&org, &[full.clone(), plain.clone()]).await.unwrap();
    settle(store, &org).await;

    for (seq, event) in [(1, full), (2, plain)] {
        for key in [AuditKey::Seq(seq), AuditKey::Event(event.id)] {
            let found = store.find(&org, key).await.unwrap();
            assert_eq!(found, Some(LogEntry { seq, event: event.clone() }), "{key:?}");
        }
    }
    for nothing in
        [AuditKey::Seq(0), AuditKey::Seq(3), AuditKey::Seq(u64::MAX), AuditKey::Event(some_event().id)]
    {
        assert_eq!(store.find(&org, nothing).await.unwrap(), None, "{nothing:?}");
    }
}

/// Five events that differ in everything that can be asked for.
fn assorted() -> [Event; 5] {
    let at = |seconds| now().plus(Duration::from_secs(seconds));
    let ada = || Actor::new(ActorKind::User, "ada").named("Ada Lovelace");
    let bot = || Actor::new(ActorKind::Agent, "bot");
    [
        Event::new(EventKind::AgentCreated, ada(), "created", at(0))
            .on(Target::new("agent", "bot").named("Bot 100%")),
        Event::new(EventKind::AgentAuthenticated, bot(), "token issued", at(1)),
        Event::new(EventKind::AgentAuthenticated, bot(), "token refused", at(2)).failed("invalid_client"),
        Event::new(EventKind::AgentRevoked, ada(), "suspended", at(3)).on(Target::new("agent", "bot")),
        Event::new(EventKind::McpServerCreated, ada(), "created", at(4))
            .on(Target::new("mcp_server", "mcp_1")),
    ]
}

/// "The entries that match, newest first."
pub async fn pages_and_filters(store: &dyn AuditStore) {
    let org = some_org();
    store.append(&org, &assorted()).await.unwrap();
    settle(store, &org).await;
    let page_of = async |filter: &AuditFilter, page| {
        let listing = store.page(&org, filter, page).await.unwrap();
        (listing.items.iter().map(|entry| entry.seq).collect::<Vec<_>>(), listing.total)
    };

    let every = AuditFilter::default();
    assert_eq!(page_of(&every, ALL).await, (vec![5, 4, 3, 2, 1], 5));
    assert_eq!(page_of(&every, Page { offset: 1, limit: 2 }).await, (vec![4, 3], 5));
    assert_eq!(page_of(&every, Page { offset: 4, limit: 2 }).await, (vec![1], 5));
    for nothing in [Page { offset: 5, limit: 2 }, Page { offset: u64::MAX, limit: 2 }, Page::first(0)] {
        assert_eq!(page_of(&every, nothing).await, (vec![], 5), "{nothing:?}");
    }

    let text = |text: &str| Some(text.to_owned());
    let at = |seconds| Some(now().plus(Duration::from_secs(seconds)));
    for (filter, wanted) in [
        (AuditFilter { kind: text("agent.authenticated"), ..every.clone() }, &[3, 2][..]),
        (AuditFilter { kind: text("agent.*"), ..every.clone() }, &[4, 3, 2, 1]),
        (AuditFilter { kind: text("agent"), ..every.clone() }, &[]),
        (AuditFilter { kind: text("mcp_*"), ..every.clone() }, &[5]),
        (AuditFilter { kind: text("*"), ..every.clone() }, &[5, 4, 3, 2, 1]),
        (AuditFilter { actor: text("ada"), ..every.clone() }, &[5, 4, 1]),
        (AuditFilter { actor: text("Ada"), ..every.clone() }, &[]),
        (AuditFilter { target: text("bot"), ..every.clone() }, &[4, 1]),
        (AuditFilter { outcome: Some(EventOutcome::Failure), ..every.clone() }, &[3]),
        (AuditFilter { category: text("agent"), ..every.clone() }, &[4, 3, 2, 1]),
        (AuditFilter { from: at(1), until: at(3), ..every.clone() }, &[3, 2]),
        (AuditFilter { search: text("LOVELACE"), ..every.clone() }, &[5, 4, 1]),
        (AuditFilter { search: text("token"), ..every.clone() }, &[3, 2]),
        (AuditFilter { search: text("100%"), ..every.clone() }, &[1]),
        (AuditFilter { search: text("_"), ..every.clone() }, &[]),
        (AuditFilter { actor: text("ada"), search: text("created"), from: at(1), ..every.clone() }, &[5]),
    ] {
        let total = u64::try_from(wanted.len()).unwrap();
        assert_eq!(page_of(&filter, ALL).await, (wanted.to_vec(), total), "{filter:?}");
        let first: Vec<_> = wanted.iter().copied().take(1).collect();
        assert_eq!(page_of(&filter, Page::first(1)).await, (first, total), "{filter:?}");
    }
}

/// "Part of the message, the actor's name or the target's name, without regard to ASCII case", whatever is in them.
pub async fn searches_find_any_text(store: &dyn AuditStore) {
    let org = some_org();
    let texts = [
        "say \"hi\"",
        "back\\slash",
        "C:\\new",
        "tab\there",
        "line\nbreak",
        "bell\u{7}\u{1f}",
        "nul\0here",
        "\u{c4}RGER \u{1f916}",
        "re\u{fffd}placed",
        "slash/",
        "\\u0000",
        "del\u{7f}",
        "{\"message\":1}",
    ];
    let mut events: Vec<_> =
        texts.map(|text| Event::new(EventKind::AgentAction, Actor::system(), text, now())).into();
    for text in texts {
        let mut event = Event::new(EventKind::AgentAction, Actor::system().named(text), "named", now());
        event.reason = Some("only here".to_owned());
        events.push(event.on(Target::new("agent", "t").named("a target")));
    }
    store.append(&org, &events).await.unwrap();
    settle(store, &org).await;

    let parts = [
        "\"",
        "\\",
        "\\\\",
        "\\n",
        "\n",
        "n",
        "\t",
        "\u{7}",
        "\u{1f}",
        "u001f",
        "u0000",
        "\\u0000",
        "/",
        "HI",
        "\u{c4}",
        "\u{e4}",
        "rger",
        "\u{1f916}",
        "message",
        "only here",
        "A TARGET",
        "\u{7f}",
        "",
        "a\\",
        "\"m",
        "id",
        "agent.action",
    ];
    for text in texts.into_iter().chain(parts) {
        let filter = AuditFilter { search: Some(text.to_owned()), ..AuditFilter::default() };
        let wanted: Vec<_> =
            (events.iter().rev()).filter(|event| filter.matches(event)).map(|event| event.id).collect();
        // Some backends cannot tell NUL from the replacement character.
        if !text.contains(['\0', '\u{fffd}']) {
            let found = store.page(&org, &filter, ALL).await.unwrap();
            assert_eq!(ids(&found.items), wanted, "{text:?}");
            assert_eq!(store.stats(&org, &filter).await.unwrap().total, found.total, "{text:?}");
        }
    }
}

/// "How many entries match", also if the time that is asked for cuts hours and days.
pub async fn stats_of_any_time(store: &dyn AuditStore) {
    let org = some_org();
    let hour = Duration::from_secs(3600);
    let kinds = [EventKind::AgentAction, EventKind::AgentRevoked, EventKind::TokenIssued];
    let events: Vec<_> = (0..40u32)
        .map(|n| {
            let at = now().plus(hour * (n * 7 % 11) / 2);
            let event = Event::new(kinds[n as usize % 3], Actor::system(), "counted", at);
            if n % 4 == 0 { event.failed("so") } else { event }
        })
        .collect();
    for events in events.chunks(7) {
        store.append(&org, events).await.unwrap();
        settle(store, &org).await;
    }
    let times: Vec<_> = (0..13).map(|n| now().plus(hour * n / 2)).collect();
    for (from, until) in times.iter().flat_map(|from| times.iter().map(move |until| (*from, *until))) {
        for (from, until) in [(Some(from), Some(until)), (Some(from), None), (None, Some(until))] {
            for kind in [None, Some("agent.*"), Some("token.issued")] {
                for outcome in [None, Some(EventOutcome::Failure)] {
                    let kind = kind.map(str::to_owned);
                    let filter = AuditFilter { from, until, kind, outcome, ..AuditFilter::default() };
                    let mut wanted = AuditStats::default();
                    events.iter().filter(|event| filter.matches(event)).for_each(|event| wanted.count(event));
                    assert_eq!(store.stats(&org, &filter).await.unwrap(), wanted, "{filter:?}");
                }
            }
            let filter = AuditFilter { from, until, ..AuditFilter::default() };
            let wanted: Vec<_> =
                (events.iter().rev()).filter(|event| filter.matches(event)).map(|event| event.id).collect();
            let page = store.page(&org, &filter, Page { offset: 3, limit: 5 }).await.unwrap();
            assert_eq!(page.total, u64::try_from(wanted.len()).unwrap(), "{filter:?}");
            let shown: Vec<_> = wanted.into_iter().skip(3).take(5).collect();
            assert_eq!(ids(&page.items), shown, "{filter:?}");
        }
    }
}

/// "A record of one organization is never found, changed, counted or removed through another." Event ids too
/// are of one organization only.
pub async fn organizations_are_apart(store: &dyn AuditStore) {
    let (ours, theirs) = (some_org(), some_org());
    let [shared, second] = [some_event(), some_event()];
    store.append(&ours, &[shared.clone(), second.clone()]).await.unwrap();
    settle(store, &ours).await;

    assert!(log(store, &theirs).await.is_empty());
    for key in [AuditKey::Seq(1), AuditKey::Event(shared.id)] {
        assert_eq!(store.find(&theirs, key).await.unwrap(), None, "{key:?}");
    }
    assert_eq!(store.stats(&theirs, &AuditFilter::default()).await.unwrap(), AuditStats::default());

    store.append(&theirs, std::slice::from_ref(&shared)).await.unwrap();
    assert_eq!(log(store, &theirs).await, [LogEntry { seq: 1, event: shared.clone() }]);
    assert_eq!(ids(&log(store, &ours).await), [shared.id, second.id]);
}

/// "How many entries match."
pub async fn stats(store: &dyn AuditStore) {
    let org = some_org();
    let events = assorted();
    store.append(&org, &events).await.unwrap();
    settle(store, &org).await;

    for filter in [
        AuditFilter::default(),
        AuditFilter { kind: Some("agent.*".to_owned()), ..AuditFilter::default() },
        AuditFilter { actor: Some("nobody".to_owned()), ..AuditFilter::default() },
    ] {
        let mut wanted = AuditStats::default();
        events.iter().filter(|event| filter.matches(event)).for_each(|event| wanted.count(event));
        assert_eq!(store.stats(&org, &filter).await.unwrap(), wanted, "{filter:?}");
    }
}
