//! Cases of [`ApiKeyStore`].

use super::{ALL, RACERS, count, now, race, some_event, some_org};
use crate::{
    api_key::ApiKey,
    capability::Capability,
    id::{Number, OrgId, UserId},
    secret::Secret,
    store::{ApiKeyKey, ApiKeyStore, Insert, Page, Unique, Update},
};

fn some_key() -> ApiKey {
    ApiKey::new(&some_org(), "script", vec![Capability::parse("admin:agents").unwrap()], now()).0
}

async fn inserted(store: &dyn ApiKeyStore, org: &OrgId, key: &ApiKey) {
    assert_eq!(store.insert(org, key, &some_event()).await.unwrap(), Insert::Inserted);
}

fn every_key(key: &ApiKey) -> [ApiKeyKey<'_>; 2] {
    [ApiKeyKey::Hash(&key.hash), ApiKeyKey::Number(key.number)]
}

/// "The key with this hash or number."
pub async fn round_trip(store: &dyn ApiKeyStore) {
    let org = some_org();
    let mut full = some_key();
    full.name = "Ünïcode 'n' \"quotes\" \\ %_ \u{1f916}".to_owned();
    full.number = Number::new((1 << 53) - 1);
    full.created_by = Some(UserId::generate());
    full.active = false;
    for key in every_key(&full) {
        assert_eq!(store.find(&org, key).await.unwrap(), None, "{key:?}");
    }

    inserted(store, &org, &full).await;
    inserted(store, &org, &some_key()).await;

    for key in every_key(&full) {
        assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&full), "{key:?}");
    }
}

/// "Hash and number are unique in the organization." Also for any number of inserts at once.
pub async fn one_hash_once(store: &dyn ApiKeyStore) {
    let org = some_org();
    let key = some_key();
    let outcomes = race(RACERS, async |_| {
        let racer = ApiKey { number: Number::generate(), ..key.clone() };
        store.insert(&org, &racer, &some_event()).await.unwrap()
    })
    .await;

    assert_eq!(count(&outcomes, &Insert::Inserted), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Insert::Taken(Unique::KeyHash)), RACERS - 1, "{outcomes:?}");
    assert_eq!(store.list(&org, ALL).await.unwrap().total, 1);
}

/// "Hash and number are unique in the organization."
pub async fn unique_values(store: &dyn ApiKeyStore) {
    let org = some_org();
    let holder = some_key();
    inserted(store, &org, &holder).await;

    for (unique, taken) in [
        (Unique::Number, ApiKey { number: holder.number, ..some_key() }),
        (Unique::KeyHash, ApiKey { hash: holder.hash, ..some_key() }),
    ] {
        assert_eq!(store.insert(&org, &taken, &some_event()).await.unwrap(), Insert::Taken(unique));
        for key in every_key(&taken) {
            let found = store.find(&org, key).await.unwrap();
            assert!(found.is_none_or(|found| *found == holder), "{unique:?}: {key:?}");
        }
    }
}

/// "A record of one organization is never found, changed, counted or removed through another."
pub async fn organizations_are_apart(store: &dyn ApiKeyStore) {
    let (ours, theirs) = (some_org(), some_org());
    let key = some_key();
    inserted(store, &ours, &key).await;

    for by in every_key(&key) {
        assert_eq!(store.find(&theirs, by).await.unwrap(), None, "{by:?}");
    }
    assert_eq!(store.list(&theirs, ALL).await.unwrap().total, 0);
    let ended = ApiKey { active: false, ..key.clone() };
    assert_eq!(store.update(&theirs, &ended, &some_event()).await.unwrap(), Update::Missing);
    inserted(store, &theirs, &ended).await;

    for by in every_key(&key) {
        assert_eq!(store.find(&ours, by).await.unwrap().as_deref(), Some(&key), "{by:?}");
    }
}

/// "Replaces the key if its stored version is `key.version`."
pub async fn updates_are_guarded(store: &dyn ApiKeyStore) {
    let org = some_org();
    let mut key = some_key();
    assert_eq!(store.update(&org, &key, &some_event()).await.unwrap(), Update::Missing);
    inserted(store, &org, &key).await;

    key.active = false;
    assert_eq!(store.update(&org, &key, &some_event()).await.unwrap(), Update::Updated);
    key.active = true;
    assert_eq!(store.update(&org, &key, &some_event()).await.unwrap(), Update::Stale);

    let stored = ApiKey { active: false, version: 1, ..key.clone() };
    for by in every_key(&key) {
        assert_eq!(store.find(&org, by).await.unwrap().as_deref(), Some(&stored), "{by:?}");
    }
    key.version = stored.version;
    assert_eq!(store.update(&org, &key, &some_event()).await.unwrap(), Update::Updated);
}

/// "Of any number of concurrent updates from one version exactly one is `Updated`."
pub async fn racing_updates(store: &dyn ApiKeyStore) {
    let org = some_org();
    let key = some_key();
    inserted(store, &org, &key).await;

    let outcomes = race(RACERS, async |n| {
        let next = ApiKey { name: format!("Racer {n}"), ..key.clone() };
        store.update(&org, &next, &some_event()).await.unwrap()
    })
    .await;

    assert_eq!(count(&outcomes, &Update::Updated), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Update::Stale), RACERS - 1, "{outcomes:?}");
    let winner = outcomes.iter().position(|outcome| *outcome == Update::Updated).unwrap();
    let stored = store.find(&org, ApiKeyKey::Number(key.number)).await.unwrap().unwrap();
    assert_eq!((stored.name.clone(), stored.version), (format!("Racer {winner}"), 1));
}

/// "All keys, in ascending order of number."
pub async fn listing(store: &dyn ApiKeyStore) {
    let org = some_org();
    for number in [10, 9, 1 << 40, 100] {
        let hash = Secret::generate("").hash();
        inserted(store, &org, &ApiKey { number: Number::new(number), hash, ..some_key() }).await;
    }
    for (page, numbers) in [
        (ALL, &[9, 10, 100, 1 << 40][..]),
        (Page { offset: 1, limit: 2 }, &[10, 100]),
        (Page { offset: 4, limit: 2 }, &[]),
        (Page { offset: u64::MAX, limit: 2 }, &[]),
    ] {
        let listing = store.list(&org, page).await.unwrap();
        let found: Vec<_> = listing.items.iter().map(|key| key.number.value()).collect();
        assert_eq!((found.as_slice(), listing.total), (numbers, 4), "{page:?}");
    }
}
