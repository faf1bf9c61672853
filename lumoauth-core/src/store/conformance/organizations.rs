//! Cases of [`OrganizationStore`].

use super::{RACERS, count, now, race, some_event, some_org, unique};
use crate::{
    id::OrgId,
    organization::{Organization, OrganizationStatus},
    store::{Insert, OrganizationStore, Unique, Update},
};

fn some_organization() -> Organization {
    Organization::new(some_org(), "Acme", now())
}

/// "The organization `org`, if there is one."
pub async fn round_trip(store: &dyn OrganizationStore) {
    let mut organization = some_organization();
    organization.name = "Ünïcode 'n' \"quotes\" \\ %_ \u{1f916}".to_owned();
    organization.status = OrganizationStatus::Disabled;
    organization.epoch = u32::MAX;
    assert_eq!(store.find(&organization.id).await.unwrap(), None);

    assert_eq!(store.insert(&organization, &some_event()).await.unwrap(), Insert::Inserted);

    assert_eq!(store.find(&organization.id).await.unwrap().as_deref(), Some(&organization));
}

/// "Of any number of concurrent inserts with one id, exactly one is `Inserted`; the others are
/// `Taken(Unique::Id)`."
pub async fn one_id_once(store: &dyn OrganizationStore) {
    let id = some_org();
    let outcomes = race(RACERS, async |n| {
        let organization = Organization::new(id.clone(), format!("Racer {n}"), now());
        store.insert(&organization, &some_event()).await.unwrap()
    })
    .await;

    assert_eq!(count(&outcomes, &Insert::Inserted), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Insert::Taken(Unique::Id)), RACERS - 1, "{outcomes:?}");
    let winner = outcomes.iter().position(|outcome| *outcome == Insert::Inserted).unwrap();
    assert_eq!(store.find(&id).await.unwrap().unwrap().name, format!("Racer {winner}"));
}

/// "Replaces the organization if its stored version is `organization.version`."
pub async fn updates_are_guarded(store: &dyn OrganizationStore) {
    let mut organization = some_organization();
    assert_eq!(store.update(&organization, &some_event()).await.unwrap(), Update::Missing);
    assert_eq!(store.insert(&organization, &some_event()).await.unwrap(), Insert::Inserted);

    organization.name = "First".to_owned();
    organization.status = OrganizationStatus::Disabled;
    assert_eq!(store.update(&organization, &some_event()).await.unwrap(), Update::Updated);
    organization.name = "Second".to_owned();
    assert_eq!(store.update(&organization, &some_event()).await.unwrap(), Update::Stale);

    let stored = store.find(&organization.id).await.unwrap().unwrap();
    assert_eq!((stored.name.as_str(), stored.version), ("First", 1));
    assert_eq!(stored.status, OrganizationStatus::Disabled);
    organization.version = stored.version;
    assert_eq!(store.update(&organization, &some_event()).await.unwrap(), Update::Updated);
}

/// "Of any number of concurrent updates from one version exactly one is `Updated`."
pub async fn racing_updates(store: &dyn OrganizationStore) {
    let organization = some_organization();
    assert_eq!(store.insert(&organization, &some_event()).await.unwrap(), Insert::Inserted);

    let outcomes = race(RACERS, async |n| {
        let next = Organization { name: format!("Racer {n}"), ..organization.clone() };
        store.update(&next, &some_event()).await.unwrap()
    })
    .await;

    assert_eq!(count(&outcomes, &Update::Updated), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Update::Stale), RACERS - 1, "{outcomes:?}");
    let winner = outcomes.iter().position(|outcome| *outcome == Update::Updated).unwrap();
    let stored = store.find(&organization.id).await.unwrap().unwrap();
    assert_eq!((stored.name.clone(), stored.version), (format!("Racer {winner}"), 1));
}

/// "Up to `max` organizations with an id above `after`, in ascending order of id."
pub async fn walk_in_order(store: &dyn OrganizationStore) {
    // Nobody else's id begins like this, so between the first and the last of them there is only us.
    let prefix = unique("suite");
    let ids: Vec<_> = ["", "-a", "-a-b", "-a0", "-b"]
        .iter()
        .map(|suffix| OrgId::parse(&format!("{prefix}{suffix}")).unwrap())
        .collect();
    for n in [3, 0, 4, 2, 1] {
        let organization = Organization::new(ids[n].clone(), "Acme", now());
        assert_eq!(store.insert(&organization, &some_event()).await.unwrap(), Insert::Inserted);
    }

    let mut walked = vec![ids[0].clone()];
    while walked.len() < ids.len() {
        let after = walked.last().cloned();
        let found = store.list(after.as_ref(), 2).await.unwrap();
        assert!((1..=2).contains(&found.len()), "{found:?}");
        walked.extend(found.iter().map(|organization| organization.id.clone()));
    }
    assert_eq!(walked[..ids.len()], ids);

    let first = store.list(None, 1).await.unwrap();
    assert!(first.len() == 1 && first[0].id <= ids[0], "{first:?}");
    assert!(store.list(None, 0).await.unwrap().is_empty());
}
