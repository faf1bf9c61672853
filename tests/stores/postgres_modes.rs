//! A store with a log of its own, and one whose events are moved to a log elsewhere.

use std::{sync::Arc, time::Duration};

use lumoauth_core::{
    id::OrgId,
    keys::{KeyRing, KeyRingConfig, MasterKey},
    organization::Organization,
    server::AuthorizationServer,
    store::{
        AuditFilter, AuditStore, Insert, OrganizationStore, Outbox, Page, StoreErrorKind, Stores, Update,
        conformance::{now, some_event, some_org},
    },
};
use lumoauth_store_postgres::PostgresStore;
use lumoauth_tests::services::{Database, query};
use sqlx::{Connection, PgConnection};

use super::{fresh, patient, store_at};

const ALL: Page = Page { offset: 0, limit: 100 };

async fn with_outbox() -> (Database, PostgresStore) {
    let database = fresh().await;
    let store = PostgresStore::connect_with_outbox(database.url(), patient()).await.unwrap();
    (database, store)
}

async fn one_change(store: &PostgresStore, org: &OrgId) {
    let organization = Organization::new(org.clone(), "Acme", now());
    let inserted = OrganizationStore::insert(store, &organization, &some_event()).await.unwrap();
    assert_eq!(inserted, Insert::Inserted);
}

#[tokio::test]
async fn a_store_with_its_own_log_has_nothing_to_move() {
    let database = fresh().await;
    let (store, org) = (store_at(database.url()).await, some_org());
    one_change(&store, &org).await;
    let event = some_event();
    store.append(&org, std::slice::from_ref(&event)).await.unwrap();
    assert!(store.pending(9).await.unwrap().is_empty());
    store.done(&[(org.clone(), event.id)]).await.unwrap();
    assert_eq!(store.sequence(&org, 9).await.unwrap(), 2);
    assert_eq!(store.page(&org, &AuditFilter::default(), ALL).await.unwrap().total, 2);
}

#[tokio::test]
async fn a_store_in_outbox_mode_keeps_no_log() {
    let (_database, store) = with_outbox().await;
    let org = some_org();
    one_change(&store, &org).await;
    let every = AuditFilter::default();
    for refused in [
        store.append(&org, &[some_event()]).await.unwrap_err(),
        store.waiting(9).await.unwrap_err(),
        store.sequence(&org, 9).await.unwrap_err(),
        store.page(&org, &every, ALL).await.unwrap_err(),
        store.stats(&org, &every).await.unwrap_err(),
    ] {
        assert_eq!(refused.kind(), StoreErrorKind::Other, "{refused}");
    }
    assert_eq!(store.pending(9).await.unwrap().len(), 1);
}

fn server(stores: Stores) -> AuthorizationServer {
    let keys = KeyRing::new(stores.keys.clone(), MasterKey::generate(), KeyRingConfig::default());
    AuthorizationServer::builder("https://auth.example", stores, Arc::new(keys)).build().unwrap()
}

#[tokio::test]
async fn events_are_moved_to_a_log_elsewhere_and_numbered_there() {
    let (_database, records) = with_outbox().await;
    let elsewhere = fresh().await;
    let (records, log) = (Arc::new(records), Arc::new(store_at(elsewhere.url()).await));
    let server = server(Stores {
        audit: log.clone(),
        outboxes: vec![records.clone()],
        upkeep: vec![records.clone(), log.clone()],
        ..Stores::all(records.clone())
    });
    let orgs = [some_org(), some_org()];
    for org in &orgs {
        one_change(&records, org).await;
    }
    let waiting = records.pending(100).await.unwrap();
    server.maintain_once().await.unwrap();
    assert!(records.pending(100).await.unwrap().is_empty());
    for org in &orgs {
        let page = log.page(org, &AuditFilter::default(), ALL).await.unwrap();
        // Making keys is recorded as well.
        let first = page.items.last().unwrap();
        assert_eq!((first.seq, page.total), (1, u64::try_from(page.items.len()).unwrap()));
        assert!(waiting.contains(&(org.clone(), first.event.clone())));
        server.maintain_once().await.unwrap();
        assert_eq!(log.page(org, &AuditFilter::default(), ALL).await.unwrap(), page);
    }
}

#[tokio::test]
async fn no_mistake_in_the_composition_loses_events() {
    let database = fresh().await;
    let (store, org) = (Arc::new(store_at(database.url()).await), some_org());
    let with_its_own_log = Stores { outboxes: vec![store.clone()], ..Stores::all(store.clone()) };
    one_change(&store, &org).await;
    store.append(&org, &[some_event()]).await.unwrap();
    server(with_its_own_log).maintain_once().await.unwrap();
    assert!(store.page(&org, &AuditFilter::default(), ALL).await.unwrap().total >= 2);

    let (_database, store) = with_outbox().await;
    let store = Arc::new(store);
    let without_a_log = Stores { outboxes: vec![store.clone()], ..Stores::all(store.clone()) };
    one_change(&store, &org).await;
    let event = store.pending(9).await.unwrap().remove(0);
    server(without_a_log).maintain_once().await.unwrap_err();
    assert_eq!(store.pending(9).await.unwrap()[0], event);
}

#[tokio::test]
async fn events_that_are_not_the_oldest_can_be_done() {
    let (_database, store) = with_outbox().await;
    for _ in 0..5 {
        one_change(&store, &some_org()).await;
    }
    let org = some_org();
    one_change(&store, &org).await;
    for _ in 0..3 {
        let stored = OrganizationStore::find(&store, &org).await.unwrap().unwrap();
        let updated = OrganizationStore::update(&store, &stored, &some_event()).await.unwrap();
        assert_eq!(updated, Update::Updated);
    }
    let waiting: Vec<_> =
        store.pending(100).await.unwrap().into_iter().filter(|(of, _)| *of == org).collect();
    assert_eq!(waiting.len(), 4);
    store.done(&[(org.clone(), waiting[3].1.id)]).await.unwrap();
    let rest: Vec<_> = store.pending(100).await.unwrap().into_iter().filter(|(of, _)| *of == org).collect();
    assert_eq!(rest, waiting[..3]);
}

#[tokio::test]
async fn a_server_that_stops_while_it_numbers_keeps_nobody_from_other_organizations() {
    let database = fresh().await;
    let store = Arc::new(store_at(database.url()).await);
    let (frozen, other) = (some_org(), some_org());
    for org in [&frozen, &other] {
        store.append(org, &[some_event()]).await.unwrap();
        store.sequence(org, 9).await.unwrap();
    }
    let mut stopped = PgConnection::connect(database.url()).await.unwrap();
    let mut holding = stopped.begin().await.unwrap();
    sqlx::query("SELECT size FROM audit_head WHERE org_id = $1 FOR UPDATE")
        .bind(frozen.as_str())
        .fetch_one(&mut *holding)
        .await
        .unwrap();
    store.append(&frozen, &[some_event()]).await.unwrap();
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (store, frozen) = (store.clone(), frozen.clone());
            tokio::spawn(async move { store.sequence(&frozen, 9).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    store.append(&other, &[some_event()]).await.unwrap();
    let others = tokio::time::timeout(Duration::from_secs(5), store.sequence(&other, 9)).await;
    assert_eq!(others.unwrap().unwrap(), 1);

    holding.rollback().await.unwrap();
    let mut moved = 0;
    for task in waiting {
        moved += task.await.unwrap().unwrap();
    }
    assert_eq!(moved, 1);
}

#[tokio::test]
async fn kinds_that_only_newer_servers_know_are_shown() {
    let database = fresh().await;
    let (store, org) = (store_at(database.url()).await, some_org());
    store.append(&org, &[some_event(), some_event()]).await.unwrap();
    let newer = "UPDATE outbox SET body = regexp_replace(body, '\"kind\":\"[a-z_.]+\"', '\"kind\":\"skill.learned\"') \
        WHERE nth = 2";
    query(database.url(), newer);
    assert_eq!(store.sequence(&org, 9).await.unwrap(), 2);
    let page = store.page(&org, &AuditFilter::default(), ALL).await.unwrap();
    assert_eq!(page.items[0].event.kind.as_str(), "skill.learned");
    let stats = store.stats(&org, &AuditFilter::default()).await.unwrap();
    assert_eq!((stats.total, stats.by_kind["skill.learned"]), (2, 1));
}
