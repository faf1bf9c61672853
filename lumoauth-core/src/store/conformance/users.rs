//! Cases of [`UserStore`].

use std::time::Duration;

use super::{ALL, RACERS, count, now, race, some_event, some_org};
use crate::{
    id::{Number, OrgId},
    store::{Insert, Page, Unique, Update, UserKey, UserStore},
    user::{PasswordHash, User, UserStatus},
};

fn user(email: &str) -> User {
    User::new(email, now())
}

async fn inserted(store: &dyn UserStore, org: &OrgId, user: &User) {
    assert_eq!(store.insert(org, user, &some_event()).await.unwrap(), Insert::Inserted);
}

fn every_key(user: &User) -> [UserKey<'_>; 3] {
    [UserKey::Id(user.id), UserKey::Number(user.number), UserKey::Email(&user.email)]
}

/// "The person with this key."
pub async fn round_trip(store: &dyn UserStore) {
    let org = some_org();
    let mut full = user("ünï+tag@example.org");
    full.number = Number::new((1 << 53) - 1);
    full.name = Some("Ünïcode 'n' \"quotes\" \\ %_ \u{1f916}".to_owned());
    full.is_admin = true;
    full.approver = true;
    full.status = UserStatus::Blocked;
    full.password_hash = Some(PasswordHash::new("$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"));
    full.epoch = u32::MAX;
    full.updated_at = now().plus(Duration::from_millis(1));
    for key in every_key(&full) {
        assert_eq!(store.find(&org, key).await.unwrap(), None, "{key:?}");
    }

    inserted(store, &org, &full).await;
    inserted(store, &org, &user("other@example.org")).await;

    for key in every_key(&full) {
        assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&full), "{key:?}");
    }
}

/// "Id, number and e-mail address are unique in the organization." Also for any number of inserts at once.
pub async fn one_email_once(store: &dyn UserStore) {
    let org = some_org();
    let outcomes =
        race(RACERS, async |_| store.insert(&org, &user("wanted@example.org"), &some_event()).await.unwrap())
            .await;

    assert_eq!(count(&outcomes, &Insert::Inserted), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Insert::Taken(Unique::Email)), RACERS - 1, "{outcomes:?}");
    assert_eq!(store.list(&org, None, ALL).await.unwrap().total, 1);
}

/// "Id, number and e-mail address are unique in the organization."
pub async fn unique_values(store: &dyn UserStore) {
    let org = some_org();
    let holder = user("holder@example.org");
    inserted(store, &org, &holder).await;

    let fresh = || user("fresh@example.org");
    for (unique, taken) in [
        (Unique::Id, User { id: holder.id, ..fresh() }),
        (Unique::Number, User { number: holder.number, ..fresh() }),
        (Unique::Email, User { email: holder.email.clone(), ..fresh() }),
    ] {
        assert_eq!(store.insert(&org, &taken, &some_event()).await.unwrap(), Insert::Taken(unique));
        for key in every_key(&taken) {
            let found = store.find(&org, key).await.unwrap();
            assert!(found.is_none_or(|found| *found == holder), "{unique:?}: {key:?}");
        }
    }
}

/// "A record of one organization is never found, changed, counted or removed through another."
pub async fn organizations_are_apart(store: &dyn UserStore) {
    let (ours, theirs) = (some_org(), some_org());
    let user = user("ours@example.org");
    inserted(store, &ours, &user).await;

    for key in every_key(&user) {
        assert_eq!(store.find(&theirs, key).await.unwrap(), None, "{key:?}");
    }
    assert_eq!(store.list(&theirs, None, ALL).await.unwrap().total, 0);
    let blocked = User { status: UserStatus::Blocked, ..user.clone() };
    assert_eq!(store.update(&theirs, &blocked, &some_event()).await.unwrap(), Update::Missing);
    inserted(store, &theirs, &blocked).await;

    for key in every_key(&user) {
        assert_eq!(store.find(&ours, key).await.unwrap().as_deref(), Some(&user), "{key:?}");
    }
}

/// "Replaces the person if the stored version is `user.version`."
pub async fn updates_are_guarded(store: &dyn UserStore) {
    let org = some_org();
    let mut user = user("guarded@example.org");
    assert_eq!(store.update(&org, &user, &some_event()).await.unwrap(), Update::Missing);
    inserted(store, &org, &user).await;

    user.status = UserStatus::Blocked;
    user.epoch = 1;
    assert_eq!(store.update(&org, &user, &some_event()).await.unwrap(), Update::Updated);
    user.status = UserStatus::Active;
    assert_eq!(store.update(&org, &user, &some_event()).await.unwrap(), Update::Stale);

    let stored = User { status: UserStatus::Blocked, version: 1, ..user.clone() };
    for key in every_key(&user) {
        assert_eq!(store.find(&org, key).await.unwrap().as_deref(), Some(&stored), "{key:?}");
    }
    user.version = stored.version;
    assert_eq!(store.update(&org, &user, &some_event()).await.unwrap(), Update::Updated);
}

/// "Of any number of concurrent updates from one version exactly one is `Updated`."
pub async fn racing_updates(store: &dyn UserStore) {
    let org = some_org();
    let user = user("raced@example.org");
    inserted(store, &org, &user).await;

    let outcomes = race(RACERS, async |n| {
        let next = User { name: Some(format!("Racer {n}")), ..user.clone() };
        store.update(&org, &next, &some_event()).await.unwrap()
    })
    .await;

    assert_eq!(count(&outcomes, &Update::Updated), 1, "{outcomes:?}");
    assert_eq!(count(&outcomes, &Update::Stale), RACERS - 1, "{outcomes:?}");
    let winner = outcomes.iter().position(|outcome| *outcome == Update::Updated).unwrap();
    let stored = store.find(&org, UserKey::Id(user.id)).await.unwrap().unwrap();
    assert_eq!((stored.name.clone(), stored.version), (Some(format!("Racer {winner}")), 1));
}

/// "The people whose e-mail address or name contains `search` (without regard to ASCII case), in ascending
/// order of e-mail address."
pub async fn listing(store: &dyn UserStore) {
    let org = some_org();
    // In the order of bytes, which not every collation agrees with.
    let emails = ["a+b@x.org", "a.b@x.org", "a@x.org", "a_b@x.org", "ab@x.org"];
    for n in [4, 2, 0, 3, 1] {
        let name = [None, Some("Ada L."), Some("100% Bob"), Some("1000 Bob"), None][n];
        inserted(store, &org, &User { name: name.map(str::to_owned), ..user(emails[n]) }).await;
    }
    // What a pattern language reads as a wildcard is text here.
    for (search, page, wanted, total) in [
        (None, ALL, &emails[..], 5),
        (None, Page { offset: 1, limit: 2 }, &emails[1..3], 5),
        (None, Page { offset: 5, limit: 2 }, &[], 5),
        (None, Page { offset: u64::MAX, limit: 2 }, &[], 5),
        (Some("X.ORG"), Page { offset: 4, limit: 2 }, &emails[4..], 5),
        (Some("bOB"), ALL, &emails[2..4], 2),
        (Some("100%"), ALL, &emails[2..3], 1),
        (Some("a_"), ALL, &emails[3..4], 1),
        (Some("nobody"), ALL, &[], 0),
    ] {
        let listing = store.list(&org, search, page).await.unwrap();
        let found: Vec<_> = listing.items.iter().map(|user| user.email.as_str()).collect();
        assert_eq!((found.as_slice(), listing.total), (wanted, total), "{search:?} {page:?}");
    }
}
