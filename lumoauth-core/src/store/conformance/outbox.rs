//! Cases of [`Outbox`].

use super::{
    ALL,
    recorded::{Recorded, waiting},
    some_event, some_org,
};
use crate::store::Outbox;

/// "Up to `max` waiting events, oldest first. Calling it changes nothing." And `done` "forgets these events;
/// unknown ids are skipped".
pub async fn waits_until_done(store: &dyn Outbox, role: Recorded<'_>) {
    let (org, bystander) = (some_org(), some_org());
    let mut written = role.act(&org).await;
    let bystanding = role.act(&bystander).await;
    let ids_of = async |org| waiting(store, org).await.iter().map(|event| event.id).collect::<Vec<_>>();

    for _ in 0..2 {
        assert_eq!(ids_of(&org).await, written);
    }
    assert!(store.pending(1).await.unwrap().len() <= 1);
    assert!(store.pending(0).await.unwrap().is_empty());

    let moved = (org.clone(), written.remove(0));
    let known_elsewhere = (bystander.clone(), moved.1);
    store.done(&[(org.clone(), some_event().id), known_elsewhere, moved.clone()]).await.unwrap();
    store.done(&[moved]).await.unwrap();
    store.done(&[]).await.unwrap();
    assert_eq!(ids_of(&org).await, written);

    let rest: Vec<_> = written.into_iter().map(|id| (org.clone(), id)).collect();
    store.done(&rest).await.unwrap();
    assert!(!store.pending(ALL.limit).await.unwrap().iter().any(|(of, _)| *of == org));
    assert_eq!(ids_of(&bystander).await, bystanding);
}
