//! Cases of [`AAuthResourceStore`].

use std::time::Duration;

use super::{ALL, RACERS, count, now, race, some_event, some_org};
use crate::{
    aauth_resource::{AAuthResource, AuthLevel},
    capability::Capability,
    id::{AAuthIdentifier, AAuthResourceId, Number, OrgId},
    store::{AAuthResourceKey, AAuthResourceStore, Insert, Page, Remove, Unique, Update},
};

pub(super) fn identifier(text: &str) -> AAuthIdentifier {
    AAuthIdentifier::parse(text).unwrap()
}

fn resource(text: &str) -> AAuthResource {
    AAuthResource::new("resource", identifier(text), now())
}

async fn inserted(store: &dyn AAuthResourceStore, org: &OrgId, resource: &AAuthResource) {
    assert_eq!(store.insert(org, resource, &some_event()).await.unwrap(), Insert::Inserted);
}

async fn stored(
    store: &dyn AAuthResourceStore,
    org: &OrgId,
    key: AAuthResourceKey<'_>,
) -> Option<AAuthResource> {
    store.find(org, key).await.unwrap().map(|resource| AAuthResource::clone(&resource))
}

fn every_key(resource: &AAuthResource) -> [AAuthResourceKey<'_>; 3] {
    [
        AAuthResourceKey::Id(&resource.id),
        AAuthResourceKey::Number(resource.number),
        AAuthResourceKey::Identifier(&resource.identifier),
    ]
}

/// "The resource with this key."
pub async fn round_trip(store: &dyn AAuthResourceStore) {
    let org = some_org();
    let mut full = resource("https://Resource.example:443/%7Eone/");
    full.number = Number::new((1 << 53) - 1);
    full.name = "Ünïcode 'n' \"quotes\" \\ %_ \u{1f916}".to_owned();
    full.description = Some("two\nlines".to_owned());
    let jwks = r#"{"keys": [{"kty": "EC", "x5c": ["Ünïcode"], "n": [1.5, null], "b": 1, "a": 2}]}"#;
    full.jwks = Some(serde_json::from_str(jwks).unwrap());
    full.jwks_uri = Some("https://resource.example/jwks.json".to_owned());
    full.supported_scopes = vec![Capability::parse("read:*").unwrap()];
    full.scope_descriptions = [("read:*".to_owned(), "Read".to_owned())].into();
    full.default_auth_level = AuthLevel::User;
    full.active = false;
    full.epoch = u32::MAX;
    full.updated_at = now().plus(Duration::from_millis(1));
    for key in every_key(&full) {
        assert_eq!(stored(store, &org, key).await, None, "{key:?}");
    }

    inserted(store, &org, &full).await;
    inserted(store, &org, &resource("https://other.example")).await;

    for key in every_key(&full) {
        assert_eq!(stored(store, &org, key).await.as_ref(), Some(&full), "{key:?}");
    }
}

/// "Of any number of concurrent inserts with one such value exactly one is `Inserted`."
pub async fn one_identifier_once(store: &dyn AAuthResourceStore) {
    let org = some_org();
    let racers: Vec<_> = (0..RACERS).map(|_| resource("https://wanted.example")).collect();
    let outcomes = race(RACERS, async |n| store.insert(&org, &racers[n], &some_event()).await.unwrap()).await;

    assert_eq!(count(&outcomes, &Insert::Inserted), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Insert::Taken(Unique::AAuthIdentifier)), RACERS - 1, "{outcomes:?}");
    assert_eq!(store.list(&org, ALL).await.unwrap().total, 1);
}

/// "Public id, number and identifier are unique in the organization, the last byte for byte."
pub async fn unique_values(store: &dyn AAuthResourceStore) {
    let org = some_org();
    let holder = resource("https://holder.example");
    inserted(store, &org, &holder).await;

    let fresh = || resource("https://fresh.example");
    for (unique, taken) in [
        (Unique::Id, AAuthResource { id: holder.id.clone(), ..fresh() }),
        (Unique::Number, AAuthResource { number: holder.number, ..fresh() }),
        (Unique::AAuthIdentifier, AAuthResource { identifier: holder.identifier.clone(), ..fresh() }),
    ] {
        assert_eq!(store.insert(&org, &taken, &some_event()).await.unwrap(), Insert::Taken(unique));
        for key in every_key(&taken) {
            let found = stored(store, &org, key).await;
            assert!(found.is_none_or(|found| found == holder), "{unique:?}: {key:?}");
        }
    }

    for other in ["https://holder.example/", "https://Holder.example", "https://holder.example:443"] {
        let key = identifier(other);
        assert_eq!(stored(store, &org, AAuthResourceKey::Identifier(&key)).await, None, "{other}");
        inserted(store, &org, &resource(other)).await;
    }
    assert_eq!(stored(store, &org, AAuthResourceKey::Id(&holder.id)).await, Some(holder));
}

/// "A record of one organization is never found, changed, counted or removed through another."
pub async fn organizations_are_apart(store: &dyn AAuthResourceStore) {
    let (ours, theirs) = (some_org(), some_org());
    let resource = resource("https://ours.example");
    inserted(store, &ours, &resource).await;

    for key in every_key(&resource) {
        assert_eq!(stored(store, &theirs, key).await, None, "{key:?}");
    }
    assert_eq!(store.list(&theirs, ALL).await.unwrap().total, 0);
    assert_eq!(store.update(&theirs, &resource, &some_event()).await.unwrap(), Update::Missing);
    let remove = async || store.remove(&theirs, &resource.id, 0, &some_event()).await.unwrap();
    assert_eq!(remove().await, Remove::Missing);
    inserted(store, &theirs, &resource).await;
    assert_eq!(remove().await, Remove::Removed);

    for key in every_key(&resource) {
        assert_eq!(stored(store, &ours, key).await.as_ref(), Some(&resource), "{key:?}");
    }
    assert_eq!(store.list(&ours, ALL).await.unwrap().total, 1);
}

/// "Replaces the resource if its stored version is `resource.version`."
pub async fn updates_are_guarded(store: &dyn AAuthResourceStore) {
    let org = some_org();
    let mut resource = resource("https://guarded.example");
    assert_eq!(store.update(&org, &resource, &some_event()).await.unwrap(), Update::Missing);
    inserted(store, &org, &resource).await;

    (resource.active, resource.epoch) = (false, 1);
    assert_eq!(store.update(&org, &resource, &some_event()).await.unwrap(), Update::Updated);
    (resource.active, resource.epoch) = (true, 2);
    assert_eq!(store.update(&org, &resource, &some_event()).await.unwrap(), Update::Stale);

    let next = AAuthResource { active: false, epoch: 1, version: 1, ..resource.clone() };
    for key in every_key(&resource) {
        assert_eq!(stored(store, &org, key).await.as_ref(), Some(&next), "{key:?}");
    }
    let listed = store.list(&org, ALL).await.unwrap();
    assert_eq!(listed.items.iter().map(|one| &**one).collect::<Vec<_>>(), [&next]);
    resource.version = next.version;
    assert_eq!(store.update(&org, &resource, &some_event()).await.unwrap(), Update::Updated);
}

/// "Of any number of concurrent updates from one version exactly one is `Updated`."
pub async fn racing_updates(store: &dyn AAuthResourceStore) {
    let org = some_org();
    let resource = resource("https://raced.example");
    inserted(store, &org, &resource).await;

    let outcomes = race(RACERS, async |n| {
        let next = AAuthResource { name: format!("Racer {n}"), ..resource.clone() };
        store.update(&org, &next, &some_event()).await.unwrap()
    })
    .await;

    assert_eq!(count(&outcomes, &Update::Updated), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Update::Stale), RACERS - 1, "{outcomes:?}");
    let winner = outcomes.iter().position(|outcome| *outcome == Update::Updated).unwrap();
    let after = stored(store, &org, AAuthResourceKey::Number(resource.number)).await.unwrap();
    assert_eq!((after.name, after.version), (format!("Racer {winner}"), 1));
}

/// "Removes the resource, and frees its unique values."
pub async fn removal_frees_identifiers(store: &dyn AAuthResourceStore) {
    let org = some_org();
    let old = resource("https://name.example");
    let remove = async || store.remove(&org, &old.id, 1, &some_event()).await.unwrap();
    assert_eq!(remove().await, Remove::Missing);
    inserted(store, &org, &old).await;
    assert_eq!(store.update(&org, &old, &some_event()).await.unwrap(), Update::Updated);

    assert_eq!(remove().await, Remove::Removed);
    for key in every_key(&old) {
        assert_eq!(stored(store, &org, key).await, None, "{key:?}");
    }
    assert_eq!(store.list(&org, ALL).await.unwrap().total, 0);
    assert_eq!(remove().await, Remove::Missing);
    assert_eq!(store.update(&org, &old, &some_event()).await.unwrap(), Update::Missing);

    inserted(store, &org, &AAuthResource { id: AAuthResourceId::generate(), ..old.clone() }).await;
}

/// "Removes the resource if `version` is its stored one." So of concurrent updates and removals from one version exactly one
/// happens.
pub async fn removals_are_guarded(store: &dyn AAuthResourceStore) {
    let org = some_org();
    let mut resource = resource("https://kept.example");
    inserted(store, &org, &resource).await;
    assert_eq!(store.update(&org, &resource, &some_event()).await.unwrap(), Update::Updated);
    for version in [0, 2, u64::MAX] {
        assert_eq!(store.remove(&org, &resource.id, version, &some_event()).await.unwrap(), Remove::Stale);
    }
    resource.version = 1;
    for key in every_key(&resource) {
        assert_eq!(stored(store, &org, key).await.as_ref(), Some(&resource), "{key:?}");
    }

    let happened = race(RACERS, async |n| {
        if n.is_multiple_of(2) {
            store.remove(&org, &resource.id, 1, &some_event()).await.unwrap() == Remove::Removed
        } else {
            store.update(&org, &resource, &some_event()).await.unwrap() == Update::Updated
        }
    })
    .await;
    assert_eq!(count(&happened, &true), 1, "{happened:?}");
}

/// "`Missing`: there was no such record." So of any number of concurrent removals exactly one is `Removed`.
pub async fn racing_removals(store: &dyn AAuthResourceStore) {
    let org = some_org();
    let resource = resource("https://gone.example");
    inserted(store, &org, &resource).await;

    let outcomes =
        race(RACERS, async |_| store.remove(&org, &resource.id, 0, &some_event()).await.unwrap()).await;

    assert_eq!(count(&outcomes, &Remove::Removed), 1, "{outcomes:?}");
}

/// "The resources, in ascending order of identifier."
pub async fn listing(store: &dyn AAuthResourceStore) {
    let org = some_org();
    let identifiers_of = async |page| {
        let listing = store.list(&org, page).await.unwrap();
        let identifiers: Vec<_> = listing.items.iter().map(|one| one.identifier.to_string()).collect();
        (identifiers, listing.total)
    };
    assert_eq!(identifiers_of(ALL).await, (vec![], 0));
    // In the order of bytes, which not every collation agrees with.
    let sorted = [
        "https://A.example",
        "https://B.example",
        "https://a-b.example",
        "https://a.example",
        "https://a.example/",
        "https://a.example/B",
        "https://a.example/a",
        "https://ab.example",
    ];
    for n in [4, 1, 7, 0, 6, 3, 2, 5] {
        inserted(store, &org, &resource(sorted[n])).await;
    }

    assert_eq!(identifiers_of(ALL).await, (sorted.map(str::to_owned).to_vec(), 8));
    let second = Page { offset: 1, limit: 2 };
    assert_eq!(identifiers_of(second).await, (sorted[1..3].iter().map(ToString::to_string).collect(), 8));
    for nothing in [Page { offset: 8, limit: 2 }, Page { offset: u64::MAX, limit: 2 }, Page::first(0)] {
        assert_eq!(identifiers_of(nothing).await, (vec![], 8), "{nothing:?}");
    }
}
