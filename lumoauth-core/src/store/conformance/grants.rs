//! Cases of [`GrantStore`].

use std::time::Duration;

use super::{RACERS, count, now, race, some_event, some_org};
use crate::{
    clock::Timestamp,
    id::OrgId,
    random::random_bytes,
    store::{GrantStore, Handle, Revoked},
};

fn some_handle() -> Handle {
    Handle::from_bytes(random_bytes())
}

async fn revoke(store: &dyn GrantStore, org: &OrgId, handle: Handle, keep_until: Timestamp) -> Revoked {
    store.revoke(org, handle, keep_until, &some_event()).await.unwrap()
}

fn later() -> Timestamp {
    now().plus(Duration::from_secs(3600))
}

/// "Of any number of concurrent calls with one handle, exactly one is `Revoked`."
pub async fn revoked_once(store: &dyn GrantStore) {
    let (org, handle) = (some_org(), some_handle());
    let outcomes = race(RACERS, |_| revoke(store, &org, handle, later())).await;

    assert_eq!(count(&outcomes, &Revoked::Revoked), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Revoked::AlreadyRevoked), RACERS - 1, "{outcomes:?}");
    assert!(store.any_revoked(&org, &[handle]).await.unwrap());
}

/// "The mark holds at least until `keep_until`." Marking again neither ends nor shortens it.
pub async fn marks_are_kept(store: &dyn GrantStore) {
    let (org, handle) = (some_org(), some_handle());
    assert_eq!(revoke(store, &org, handle, later()).await, Revoked::Revoked);
    for keep_until in [now(), later(), Timestamp::default()] {
        assert_eq!(revoke(store, &org, handle, keep_until).await, Revoked::AlreadyRevoked);
        assert!(store.any_revoked(&org, &[handle]).await.unwrap());
    }
}

/// "Whether any of `handles` is marked."
pub async fn any_of_many(store: &dyn GrantStore) {
    let org = some_org();
    // Every byte of a handle counts, also a zero and also the last.
    let mut near = [some_handle(); 4];
    for (n, handle) in (0..).zip(&mut near) {
        let mut bytes = *handle.as_bytes();
        (bytes[0], bytes[11]) = (0, n);
        *handle = Handle::from_bytes(bytes);
    }
    let [marked, rest @ ..] = near;
    assert!(!store.any_revoked(&org, &near).await.unwrap());
    assert_eq!(revoke(store, &org, marked, later()).await, Revoked::Revoked);

    let many: Vec<_> = (0..100).map(|_| some_handle()).chain(rest).collect();
    assert!(!store.any_revoked(&org, &[]).await.unwrap());
    assert!(!store.any_revoked(&org, &many).await.unwrap());
    assert!(store.any_revoked(&org, &[marked]).await.unwrap());
    assert!(store.any_revoked(&org, &[marked, marked]).await.unwrap());
    for place in [0, 50, many.len()] {
        let mut handles = many.clone();
        handles.insert(place, marked);
        assert!(store.any_revoked(&org, &handles).await.unwrap(), "{place}");
    }
}

/// "A record of one organization is never found, changed, counted or removed through another."
pub async fn organizations_are_apart(store: &dyn GrantStore) {
    let (ours, theirs, handle) = (some_org(), some_org(), some_handle());
    assert_eq!(revoke(store, &ours, handle, later()).await, Revoked::Revoked);

    assert!(!store.any_revoked(&theirs, &[handle]).await.unwrap());
    assert_eq!(revoke(store, &theirs, handle, later()).await, Revoked::Revoked);
}
