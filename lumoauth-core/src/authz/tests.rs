use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;

use super::{BuiltIn, Snapshots};
use crate::{
    audit::{Actor, Event, EventKind},
    clock::Timestamp,
    id::OrgId,
    policy::{Entry, Record, RecordId, RecordKind, Tuple},
    store::{Apply, Expect, MemoryStore, PolicyChange, PolicyStore, Since, StoreError},
};

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_790_000_000)
}

fn org() -> OrgId {
    OrgId::parse("acme").unwrap()
}

fn event() -> Event {
    Event::new(EventKind::RelationWritten, Actor::system(), "test", now())
}

fn tuple(n: usize) -> Entry {
    Entry::Tuple(Tuple::parse(&format!("document:{n}#viewer@user:a")).unwrap())
}

async fn write(store: &dyn PolicyStore, entry: &Entry) {
    let change = [PolicyChange::put(entry, Expect::Absent)];
    assert!(matches!(store.apply(&org(), &change, &event(), now()).await.unwrap(), Apply::Applied { .. }));
}

/// What a snapshot weighs is what is in it, also where it grew in small steps.
#[tokio::test]
async fn a_snapshot_is_weighed_with_what_is_in_it() {
    let (store, snapshots) = (MemoryStore::new(), Snapshots::default());
    for n in 0..200 {
        write(&store, &tuple(n)).await;
        snapshots.current(&store, &org()).await.unwrap();
    }
    let weight = snapshots.current(&store, &org()).await.unwrap().weight();
    snapshots.0.run_pending_tasks();
    let weighed = snapshots.0.weighted_size();
    assert!(weight > 10 && weighed > weight / 2, "{weighed} of {weight}");
}

/// A store that counts what is read of it, and can be down.
#[derive(Debug, Default)]
struct Counting {
    inner: MemoryStore,
    pages: AtomicU64,
    down: AtomicU64,
}

impl Counting {
    fn check(&self) -> Result<(), StoreError> {
        match self.down.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(StoreError::unavailable("test", "it is down")),
        }
    }
}

#[async_trait]
impl PolicyStore for Counting {
    async fn apply(
        &self,
        org: &OrgId,
        changes: &[PolicyChange],
        on: &Event,
        now: Timestamp,
    ) -> Result<Apply, StoreError> {
        self.inner.apply(org, changes, on, now).await
    }

    async fn revision(&self, org: &OrgId) -> Result<u64, StoreError> {
        self.check()?;
        self.inner.revision(org).await
    }

    async fn page(
        &self,
        org: &OrgId,
        after: Option<&RecordId>,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        self.check()?;
        self.pages.fetch_add(1, Ordering::Relaxed);
        self.inner.page(org, after, limit).await
    }

    async fn since(&self, org: &OrgId, revision: u64, limit: u32) -> Result<Since, StoreError> {
        self.check()?;
        self.inner.since(org, revision, limit).await
    }
}

#[tokio::test]
async fn everything_is_read_once_and_then_what_changed() {
    let store = Counting::default();
    for n in 0..5000 {
        write(&store, &tuple(n)).await;
    }
    let snapshots = Snapshots::default();
    let org = org();
    let reads = (0..16).map(|_| snapshots.current(&store, &org));
    for kept in futures_util::future::join_all(reads).await {
        assert_eq!(kept.unwrap().read(|snapshot| snapshot.len()), 5000);
    }
    let pages = store.pages.load(Ordering::Relaxed);
    assert_eq!(pages, 4, "three pages, and one that is empty");
    for n in 5000..5010 {
        write(&store, &tuple(n)).await;
        let kept = snapshots.current(&store, &org).await.unwrap();
        assert_eq!(kept.read(|snapshot| (snapshot.len(), snapshot.revision())), (n + 1, n as u64 + 1));
    }
    assert_eq!(store.pages.load(Ordering::Relaxed), pages);
}

#[tokio::test]
async fn a_store_that_is_down_decides_nothing() {
    let store = Arc::new(Counting::default());
    write(&*store, &tuple(1)).await;
    let engine = BuiltIn::new(store.clone());
    engine.current(&org()).await.unwrap();
    store.down.store(1, Ordering::Relaxed);
    assert!(engine.current(&org()).await.is_err(), "not even on what is kept");
    store.down.store(0, Ordering::Relaxed);
    engine.current(&org()).await.unwrap();
}

#[tokio::test]
async fn a_record_that_cannot_be_read_lets_nothing_be_decided() {
    let store = Arc::new(MemoryStore::new());
    let engine = BuiltIn::new(store.clone());
    write(&*store, &tuple(1)).await;
    engine.current(&org()).await.unwrap();
    let id = RecordId::new(RecordKind::Policy, "7").unwrap();
    let odd = [PolicyChange { id: id.clone(), body: Some("{}".into()), expect: Expect::Absent }];
    assert!(matches!(store.apply(&org(), &odd, &event(), now()).await.unwrap(), Apply::Applied { .. }));
    for _ in 0..2 {
        assert!(engine.current(&org()).await.is_err());
    }
    let gone = [PolicyChange::remove(id, Expect::Anything)];
    assert!(matches!(store.apply(&org(), &gone, &event(), now()).await.unwrap(), Apply::Applied { .. }));
    assert_eq!(engine.current(&org()).await.unwrap().read(|snapshot| snapshot.len()), 1);
}

#[tokio::test]
async fn what_this_server_writes_it_sees_at_once_and_in_order() {
    let store = MemoryStore::new();
    let snapshots = Snapshots::default();
    let kept = snapshots.current(&store, &org()).await.unwrap();
    for n in 0..3 {
        write(&store, &tuple(n)).await;
    }
    // The second one alone would leave the first one out.
    kept.written(&[Record::of(&tuple(1), 2)], 2).unwrap();
    assert_eq!(kept.read(|snapshot| snapshot.len()), 0);
    kept.written(&[Record::of(&tuple(0), 1)], 1).unwrap();
    assert_eq!(kept.read(|snapshot| (snapshot.len(), snapshot.revision())), (1, 1));
    let kept = snapshots.current(&store, &org()).await.unwrap();
    assert_eq!(kept.read(|snapshot| (snapshot.len(), snapshot.revision())), (3, 3));
}
