//! Cases of [`ConsentStore`].

use std::time::Duration;

use uuid::Uuid;

use super::{ALL, RACERS, count, now, race, some_event, some_org};
use crate::{
    capability::Scope,
    consent::{Consent, Place},
    id::{AAuthResourceId, ClientId, ConsentId, McpServerId, OrgId, UserId},
    store::{ConsentKey, ConsentStore, Insert, Page, Unique, Update},
};

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

fn consent(user: UserId) -> Consent {
    Consent::new(user, ClientId::generate_for_agent(), scope("read:a"), now())
}

fn some_consent() -> Consent {
    consent(UserId::generate())
}

async fn inserted(store: &dyn ConsentStore, org: &OrgId, consent: &Consent) {
    assert_eq!(store.insert(org, consent, &some_event()).await.unwrap(), Insert::Inserted);
}

fn every_key(consent: &Consent) -> [ConsentKey<'_>; 2] {
    [ConsentKey::Id(consent.id), ConsentKey::Between(consent.user, &consent.client_id)]
}

/// "The consent with this key."
pub async fn round_trip(store: &dyn ConsentStore) {
    let org = some_org();
    let mut full = some_consent();
    full.client_id = ClientId::parse("app_a-b").unwrap();
    full.scope = scope("write:b read:* openid mcp:files:read");
    full.at.insert(Place::Mcp(McpServerId::generate()), scope("read:b offline_access"));
    full.at.insert(Place::AAuth(AAuthResourceId::generate()), scope("read:a"));
    full.active = false;
    full.epoch = u32::MAX;
    full.updated_at = now().plus(Duration::from_millis(1));
    for key in every_key(&full) {
        assert_eq!(store.find(&org, key).await.unwrap(), None, "{key:?}");
    }

    inserted(store, &org, &full).await;
    // Neither half of the pair leads to it, and no order of the halves.
    inserted(store, &org, &Consent { client_id: full.client_id.clone(), ..some_consent() }).await;
    inserted(store, &org, &consent(full.user)).await;

    for key in every_key(&full) {
        assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&full), "{key:?}");
    }
    let stranger = ConsentKey::Between(UserId::generate(), &full.client_id);
    assert_eq!(store.find(&org, stranger).await.unwrap(), None);
    let longer = ClientId::parse("app_a-bc").unwrap();
    assert_eq!(store.find(&org, ConsentKey::Between(full.user, &longer)).await.unwrap(), None);
}

/// "The id, and the pair of person and client, are unique in the organization." Also for any number of inserts at once.
pub async fn one_per_pair_once(store: &dyn ConsentStore) {
    let org = some_org();
    let wanted = some_consent();
    let racers: Vec<_> =
        (0..RACERS).map(|_| Consent { id: ConsentId::generate(), ..wanted.clone() }).collect();
    let outcomes = race(RACERS, async |n| store.insert(&org, &racers[n], &some_event()).await.unwrap()).await;

    assert_eq!(count(&outcomes, &Insert::Inserted), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Insert::Taken(Unique::ClientId)), RACERS - 1, "{outcomes:?}");
    for (racer, outcome) in racers.iter().zip(&outcomes) {
        let found = store.find(&org, ConsentKey::Id(racer.id)).await.unwrap();
        assert_eq!(found.is_some(), *outcome == Insert::Inserted, "{outcome:?}");
    }
    assert_eq!(store.list(&org, wanted.user, ALL).await.unwrap().total, 1);
}

/// "The id, and the pair of person and client, are unique in the organization."
pub async fn unique_values(store: &dyn ConsentStore) {
    let org = some_org();
    let mut holder = some_consent();
    // Also one that does not hold any more: it is the only one of its pair for ever.
    assert!(holder.withdraw());
    inserted(store, &org, &holder).await;

    for (unique, taken) in [
        (Unique::Id, Consent { id: holder.id, ..some_consent() }),
        (Unique::ClientId, Consent { id: ConsentId::generate(), ..holder.clone() }),
    ] {
        assert_eq!(store.insert(&org, &taken, &some_event()).await.unwrap(), Insert::Taken(unique));
        for key in every_key(&taken) {
            let found = store.find(&org, key).await.unwrap();
            assert!(found.is_none_or(|found| *found == holder), "{unique:?}: {key:?}");
        }
    }
    // One person allows several clients, and several people allow one client.
    inserted(store, &org, &consent(holder.user)).await;
    inserted(store, &org, &Consent { client_id: holder.client_id.clone(), ..some_consent() }).await;
}

/// "A record of one organization is never found, changed, counted or removed through another."
pub async fn organizations_are_apart(store: &dyn ConsentStore) {
    let (ours, theirs) = (some_org(), some_org());
    let consent = some_consent();
    inserted(store, &ours, &consent).await;

    for key in every_key(&consent) {
        assert_eq!(store.find(&theirs, key).await.unwrap(), None, "{key:?}");
    }
    assert_eq!(store.list(&theirs, consent.user, ALL).await.unwrap().total, 0);
    let mut withdrawn = consent.clone();
    assert!(withdrawn.withdraw());
    assert_eq!(store.update(&theirs, &withdrawn, &some_event()).await.unwrap(), Update::Missing);
    inserted(store, &theirs, &withdrawn).await;

    for key in every_key(&consent) {
        assert_eq!(store.find(&ours, key).await.unwrap().as_deref(), Some(&consent), "{key:?}");
        assert_eq!(store.find(&theirs, key).await.unwrap().as_deref(), Some(&withdrawn), "{key:?}");
    }
    assert_eq!(store.list(&ours, consent.user, ALL).await.unwrap().total, 1);
}

/// "Replaces the consent if its stored version is `consent.version`."
pub async fn updates_are_guarded(store: &dyn ConsentStore) {
    let org = some_org();
    let mut consent = some_consent();
    assert_eq!(store.update(&org, &consent, &some_event()).await.unwrap(), Update::Missing);
    inserted(store, &org, &consent).await;

    assert!(consent.withdraw());
    consent.updated_at = now().plus(Duration::from_millis(1));
    assert_eq!(store.update(&org, &consent, &some_event()).await.unwrap(), Update::Updated);
    let stored = Consent { version: 1, ..consent.clone() };
    consent.grant(None, &scope("read:b"));
    assert_eq!(store.update(&org, &consent, &some_event()).await.unwrap(), Update::Stale);

    for key in every_key(&consent) {
        assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&stored), "{key:?}");
    }
    consent.version = stored.version;
    assert_eq!(store.update(&org, &consent, &some_event()).await.unwrap(), Update::Updated);
    let stored = Consent { version: 2, ..consent.clone() };
    for key in every_key(&consent) {
        assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&stored), "{key:?}");
    }
    consent.version = 7;
    assert_eq!(store.update(&org, &consent, &some_event()).await.unwrap(), Update::Stale);
}

/// "Of any number of concurrent updates from one version exactly one is `Updated`."
pub async fn racing_updates(store: &dyn ConsentStore) {
    let org = some_org();
    let consent = some_consent();
    inserted(store, &org, &consent).await;

    let outcomes = race(RACERS, async |n| {
        let next = Consent { scope: scope(&format!("racer:{n}")), ..consent.clone() };
        store.update(&org, &next, &some_event()).await.unwrap()
    })
    .await;

    assert_eq!(count(&outcomes, &Update::Updated), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Update::Stale), RACERS - 1, "{outcomes:?}");
    let winner = outcomes.iter().position(|outcome| *outcome == Update::Updated).unwrap();
    let stored = store.find(&org, ConsentKey::Id(consent.id)).await.unwrap().unwrap();
    assert_eq!((stored.scope.clone(), stored.version), (scope(&format!("racer:{winner}")), 1));
}

/// "The consents of one person, also those that do not hold any more, in ascending order of client id."
pub async fn listing(store: &dyn ConsentStore) {
    let org = some_org();
    // The neighbours of a person in the order of bytes are other people, also at the end of the range.
    let [before, user, after] =
        [u128::MAX / 2 - 1, u128::MAX / 2, u128::MAX / 2 + 1].map(|n| UserId::from_uuid(Uuid::from_u128(n)));
    // In the order of bytes, which not every collation agrees with.
    let ids = ["app_-", "app_0", "app_A", "app_Z", "app_a", "app_a-b", "app_a0"];
    for n in [3, 5, 0, 6, 1, 4, 2] {
        let client_id = ClientId::parse(ids[n]).unwrap();
        for of in [before, user, after] {
            let mut consent = Consent { client_id: client_id.clone(), ..consent(of) };
            assert!(n % 2 == 0 || consent.withdraw());
            inserted(store, &org, &consent).await;
        }
    }
    inserted(store, &org, &consent(before)).await;

    for (page, wanted) in [
        (ALL, &ids[..]),
        (Page { offset: 1, limit: 3 }, &ids[1..4]),
        (Page { offset: 6, limit: 2 }, &ids[6..]),
        (Page { offset: 7, limit: 2 }, &[]),
        (Page { offset: u64::MAX, limit: 2 }, &[]),
        (Page::first(0), &[]),
    ] {
        let listing = store.list(&org, user, page).await.unwrap();
        let found: Vec<_> = listing.items.iter().map(|consent| consent.client_id.as_str()).collect();
        assert_eq!((found.as_slice(), listing.total), (wanted, 7), "{page:?}");
        assert!(listing.items.iter().all(|consent| consent.user == user));
    }
    let nobody = store.list(&org, UserId::generate(), ALL).await.unwrap();
    assert_eq!((nobody.items.len(), nobody.total), (0, 0));
}
