//! Cases of [`RateLimitStore`].

use std::time::Duration;

use super::{RACERS, now, race, some_org};
use crate::{
    clock::Timestamp,
    id::OrgId,
    store::{Admission, RateLimit, RateLimitStore},
};

/// `max` per minute.
fn per_minute(max: u32) -> RateLimit {
    RateLimit { max, window: Duration::from_secs(60) }
}

async fn take(store: &dyn RateLimitStore, org: &OrgId, source: &str, max: u32, at: Timestamp) -> Admission {
    store.take(org, source, per_minute(max), at).await.unwrap()
}

/// "In one window at most `limit.max` calls are admitted under any concurrency." And not fewer.
pub async fn admits_exactly_max(store: &dyn RateLimitStore) {
    let org = some_org();
    let max = u32::try_from(RACERS / 2).unwrap();
    let outcomes = race(RACERS, |_| take(store, &org, "192.0.2.1", max, now())).await;

    let mut left: Vec<_> = outcomes.iter().filter(|one| one.admitted).map(|one| one.remaining).collect();
    left.sort_unstable();
    assert_eq!(left, (0..max).collect::<Vec<_>>(), "{outcomes:?}");
    for refused in outcomes.iter().filter(|one| !one.admitted) {
        assert_eq!(refused.remaining, 0);
    }
    assert!(!take(store, &org, "192.0.2.1", max, now()).await.admitted);
    let none = take(store, &org, "192.0.2.2", 0, now()).await;
    assert_eq!((none.admitted, none.remaining), (false, 0));
}

/// "Windows are aligned to the Unix epoch."
pub async fn windows_end(store: &dyn RateLimitStore) {
    let org = some_org();
    // Earlier than every other case, whose windows a store may drop when time goes on here.
    let early = now().minus(Duration::from_secs(10 * 86_400));
    let end = Timestamp::from_unix_seconds(early.unix_seconds().next_multiple_of(60));
    assert!(early < end && end.since(early) < Duration::from_secs(60));

    for (at, admitted, resets_at) in [
        (early, true, end),
        (early, false, end),
        (end.minus(Duration::from_millis(1)), false, end),
        (end, true, end.plus(Duration::from_secs(60))),
        (end, false, end.plus(Duration::from_secs(60))),
    ] {
        let outcome = take(store, &org, "s", 1, at).await;
        assert_eq!(outcome, Admission { admitted, remaining: 0, resets_at }, "{at}");
    }

    let daily = RateLimit { max: 1, window: Duration::from_secs(86_400) };
    let outcome = store.take(&org, "s", daily, early).await.unwrap();
    let midnight = Timestamp::from_unix_seconds(early.unix_seconds().next_multiple_of(86_400));
    assert_eq!(outcome, Admission { admitted: true, remaining: 0, resets_at: midnight });
}

/// "Counts one request of `source` (at most 256 bytes, from outside)." Every text is a source of its own.
pub async fn sources_are_apart(store: &dyn RateLimitStore) {
    let org = some_org();
    let [long, longer] = ["x".repeat(255), "x".repeat(256)];
    for source in
        ["", " ", "a", "A", "a ", "a\0", "a:b", "a:", "a*", "{a}", "á", "a%", "60", "'; --", &long, &longer]
    {
        assert!(take(store, &org, source, 1, now()).await.admitted, "{source:?}");
        assert!(!take(store, &org, source, 1, now()).await.admitted, "{source:?}");
    }
}

/// "A record of one organization is never found, changed, counted or removed through another."
pub async fn organizations_are_apart(store: &dyn RateLimitStore) {
    let (ours, theirs) = (some_org(), some_org());
    assert!(take(store, &ours, "s", 1, now()).await.admitted);
    assert!(take(store, &theirs, "s", 1, now()).await.admitted);
    assert!(!take(store, &ours, "s", 1, now()).await.admitted);
}
