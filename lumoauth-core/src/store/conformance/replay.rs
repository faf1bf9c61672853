//! Cases of [`ReplayStore`].

use std::time::Duration;

use super::{RACERS, count, now, race, some_org};
use crate::{
    clock::Timestamp,
    id::OrgId,
    random::random_bytes,
    store::{Remembered, ReplayStore},
};

const MINUTE: Duration = Duration::from_secs(60);

/// A value that is presented as soon as it is issued, at `at`, and holds until a minute after [`now`].
async fn present(
    store: &dyn ReplayStore,
    org: &OrgId,
    space: &str,
    key: &[u8; 32],
    at: Timestamp,
) -> Remembered {
    store.remember(org, space, key, at, now().plus(MINUTE), at).await.unwrap()
}

/// "Remembers `key` until `until` at least, unless it is known."
pub async fn first_once(store: &dyn ReplayStore) {
    let (org, key, other) = (some_org(), random_bytes(), random_bytes());
    assert_eq!(present(store, &org, "suite", &key, now()).await, Remembered::First);
    let last = now().plus(MINUTE).minus(Duration::from_millis(1));
    for at in [now(), now().plus(MINUTE / 2), last] {
        assert_eq!(present(store, &org, "suite", &key, at).await, Remembered::Replay, "{at}");
    }
    assert_eq!(present(store, &org, "suite", &other, last).await, Remembered::First);
}

/// "Of any number of concurrent calls with one value, exactly one is [`Remembered::First`]."
pub async fn racing_firsts(store: &dyn ReplayStore) {
    let (org, key) = (some_org(), random_bytes());
    let outcomes = race(RACERS, |_| present(store, &org, "suite", &key, now())).await;

    assert_eq!(count(&outcomes, &Remembered::First), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Remembered::Replay), RACERS - 1, "{outcomes:?}");
}

/// "From `until` on the answer is `TooOld`", and a mark is found by a server whose clock is behind.
pub async fn ends(store: &dyn ReplayStore) {
    let (org, key, late) = (some_org(), random_bytes(), random_bytes());
    let end = now().plus(MINUTE);
    assert_eq!(present(store, &org, "suite", &key, now()).await, Remembered::First);
    for at in [end, end.plus(MINUTE)] {
        assert_eq!(present(store, &org, "suite", &key, at).await, Remembered::TooOld, "{at}");
        assert_eq!(present(store, &org, "suite", &late, at).await, Remembered::TooOld, "{at}");
    }
    assert_eq!(present(store, &org, "suite", &key, end.minus(MINUTE / 2)).await, Remembered::Replay);
    assert_eq!(present(store, &org, "suite", &late, end.minus(MINUTE / 2)).await, Remembered::First);
}

/// "The same key in another space, or in another organization, is another value."
pub async fn spaces_are_apart(store: &dyn ReplayStore) {
    let (org, key) = (some_org(), random_bytes());
    for space in ["suite", "suites", "s"] {
        assert_eq!(present(store, &org, space, &key, now()).await, Remembered::First, "{space}");
        assert_eq!(present(store, &org, space, &key, now()).await, Remembered::Replay, "{space}");
    }
}

/// "A record of one organization is never found, changed, counted or removed through another."
pub async fn organizations_are_apart(store: &dyn ReplayStore) {
    let key = random_bytes();
    for org in [some_org(), some_org()] {
        assert_eq!(present(store, &org, "suite", &key, now()).await, Remembered::First);
        assert_eq!(present(store, &org, "suite", &key, now()).await, Remembered::Replay);
    }
}
