//! Cases of [`ClientStore`].

use std::time::Duration;

use super::{ALL, RACERS, count, now, race, some_event, some_org};
use crate::{
    capability::Capability,
    client::Client,
    id::{ClientId, Number, OrgId},
    secret::Secret,
    store::{ClientKey, ClientStore, Insert, Page, Unique, Update},
};

fn some_client() -> Client {
    Client::new("app", now()).0
}

async fn inserted(store: &dyn ClientStore, org: &OrgId, client: &Client) {
    assert_eq!(store.insert(org, client, &some_event()).await.unwrap(), Insert::Inserted);
}

fn every_key(client: &Client) -> [ClientKey<'_>; 2] {
    [ClientKey::ClientId(&client.client_id), ClientKey::Number(client.number)]
}

/// "The client with this key."
pub async fn round_trip(store: &dyn ClientStore) {
    let org = some_org();
    let mut full = some_client();
    full.number = Number::new((1 << 53) - 1);
    full.name = "Ünïcode 'n' \"quotes\" \\ %_ \u{1f916}".to_owned();
    full.secrets.rotate(&Secret::generate(""), now().plus(Duration::from_millis(1)));
    full.redirect_uris = vec!["https://app.example/cb?a=b".to_owned(), "http://127.0.0.1/cb".to_owned()];
    full.allowed_scopes = vec![Capability::parse("read:*").unwrap()];
    full.grant_types = vec![];
    full.confidential = false;
    full.active = false;
    full.epoch = u32::MAX;
    full.updated_at = now().plus(Duration::from_millis(1));
    for key in every_key(&full) {
        assert_eq!(store.find(&org, key).await.unwrap(), None, "{key:?}");
    }

    inserted(store, &org, &full).await;
    inserted(store, &org, &some_client()).await;

    for key in every_key(&full) {
        assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&full), "{key:?}");
    }
}

/// "Client id and number are unique in the organization." Also for any number of inserts at once.
pub async fn one_client_id_once(store: &dyn ClientStore) {
    let org = some_org();
    let client = some_client();
    let outcomes = race(RACERS, async |_| {
        let racer = Client { number: Number::generate(), ..client.clone() };
        store.insert(&org, &racer, &some_event()).await.unwrap()
    })
    .await;

    assert_eq!(count(&outcomes, &Insert::Inserted), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Insert::Taken(Unique::ClientId)), RACERS - 1, "{outcomes:?}");
    assert_eq!(store.list(&org, ALL).await.unwrap().total, 1);
}

/// "Client id and number are unique in the organization."
pub async fn unique_values(store: &dyn ClientStore) {
    let org = some_org();
    let holder = some_client();
    inserted(store, &org, &holder).await;

    for (unique, taken) in [
        (Unique::ClientId, Client { client_id: holder.client_id.clone(), ..some_client() }),
        (Unique::Number, Client { number: holder.number, ..some_client() }),
    ] {
        assert_eq!(store.insert(&org, &taken, &some_event()).await.unwrap(), Insert::Taken(unique));
        for key in every_key(&taken) {
            let found = store.find(&org, key).await.unwrap();
            assert!(found.is_none_or(|found| *found == holder), "{unique:?}: {key:?}");
        }
    }
}

/// "A record of one organization is never found, changed, counted or removed through another."
pub async fn organizations_are_apart(store: &dyn ClientStore) {
    let (ours, theirs) = (some_org(), some_org());
    let client = some_client();
    inserted(store, &ours, &client).await;

    for key in every_key(&client) {
        assert_eq!(store.find(&theirs, key).await.unwrap(), None, "{key:?}");
    }
    assert_eq!(store.list(&theirs, ALL).await.unwrap().total, 0);
    let ended = Client { active: false, ..client.clone() };
    assert_eq!(store.update(&theirs, &ended, &some_event()).await.unwrap(), Update::Missing);
    inserted(store, &theirs, &ended).await;

    for key in every_key(&client) {
        assert_eq!(store.find(&ours, key).await.unwrap().as_deref(), Some(&client), "{key:?}");
    }
}

/// "Replaces the client if its stored version is `client.version`."
pub async fn updates_are_guarded(store: &dyn ClientStore) {
    let org = some_org();
    let mut client = some_client();
    assert_eq!(store.update(&org, &client, &some_event()).await.unwrap(), Update::Missing);
    inserted(store, &org, &client).await;

    client.active = false;
    client.epoch = 1;
    assert_eq!(store.update(&org, &client, &some_event()).await.unwrap(), Update::Updated);
    client.active = true;
    assert_eq!(store.update(&org, &client, &some_event()).await.unwrap(), Update::Stale);

    let stored = Client { active: false, version: 1, ..client.clone() };
    for key in every_key(&client) {
        assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&stored), "{key:?}");
    }
    client.version = stored.version;
    assert_eq!(store.update(&org, &client, &some_event()).await.unwrap(), Update::Updated);
}

/// "Of any number of concurrent updates from one version exactly one is `Updated`."
pub async fn racing_updates(store: &dyn ClientStore) {
    let org = some_org();
    let client = some_client();
    inserted(store, &org, &client).await;

    let outcomes = race(RACERS, async |n| {
        let next = Client { name: format!("Racer {n}"), ..client.clone() };
        store.update(&org, &next, &some_event()).await.unwrap()
    })
    .await;

    assert_eq!(count(&outcomes, &Update::Updated), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Update::Stale), RACERS - 1, "{outcomes:?}");
    let winner = outcomes.iter().position(|outcome| *outcome == Update::Updated).unwrap();
    let stored = store.find(&org, ClientKey::Number(client.number)).await.unwrap().unwrap();
    assert_eq!((stored.name.clone(), stored.version), (format!("Racer {winner}"), 1));
}

/// "All clients, in ascending order of client id."
pub async fn listing(store: &dyn ClientStore) {
    let org = some_org();
    // In the order of bytes, which not every collation agrees with.
    let ids = ["app_-", "app_0", "app_A", "app_Z", "app_a", "app_a-b", "app_a0"];
    for n in [3, 5, 0, 6, 1, 4, 2] {
        let client_id = ClientId::parse(ids[n]).unwrap();
        inserted(store, &org, &Client { client_id, ..some_client() }).await;
    }
    for (page, wanted) in [
        (ALL, &ids[..]),
        (Page { offset: 1, limit: 3 }, &ids[1..4]),
        (Page { offset: 7, limit: 2 }, &[]),
        (Page { offset: u64::MAX, limit: 2 }, &[]),
    ] {
        let listing = store.list(&org, page).await.unwrap();
        let found: Vec<_> = listing.items.iter().map(|client| client.client_id.as_str()).collect();
        assert_eq!((found.as_slice(), listing.total), (wanted, 7), "{page:?}");
    }
}
