//! Batches, and what becomes of callers when something fails.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    task::{Context, Waker},
    time::Duration,
};

use lumoauth_core::{
    agent::Agent,
    audit::{Actor, Event, EventKind},
    clock::Timestamp,
    id::{OrgId, Slug},
    store::{AgentKey, AgentStore, AuditFilter, AuditKey, AuditStore, Insert, Page, StoreErrorKind, Upkeep},
};
use redb::{Builder, StorageBackend};

use super::*;
use crate::{EmbeddedStore, open::start, tables::Table};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_790_000_000);

/// A file in memory on a disk that can fill up or fail.
#[derive(Clone, Debug, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Nothing can be written any more but what is overwritten.
    full: Arc<AtomicBool>,
    /// Nothing can be read or written.
    dead: Arc<AtomicBool>,
    /// How much has been written to.
    used: Arc<AtomicUsize>,
    syncs: Arc<AtomicU32>,
}

impl Disk {
    fn open(&self) -> Result<Database, DatabaseError> {
        // No cache, so that reads reach the disk.
        Builder::new().set_cache_size(0).create_with_backend(self.clone())
    }

    fn store(&self) -> EmbeddedStore {
        let disk = self.clone();
        let reopen = Box::new(move || disk.open());
        start("disk".as_ref(), self.open().unwrap(), reopen, Destination::Log).unwrap()
    }

    fn alive(&self) -> std::io::Result<()> {
        if self.dead.load(Ordering::SeqCst) { Err(std::io::Error::other("dead")) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.alive()?;
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.alive()?;
        let offset = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.bytes.lock().unwrap()[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        // A longer file takes no room until it is written to.
        self.alive()?;
        self.bytes.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        // Long enough for others to queue meanwhile.
        std::thread::sleep(Duration::from_millis(1));
        self.alive()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.alive()?;
        let offset = usize::try_from(offset).unwrap();
        let end = offset + data.len();
        if end > self.used.load(Ordering::SeqCst) && self.full.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.used.fetch_max(end, Ordering::SeqCst);
        self.bytes.lock().unwrap()[offset..end].copy_from_slice(data);
        Ok(())
    }
}

fn org() -> OrgId {
    OrgId::parse("acme").unwrap()
}

fn event() -> Event {
    Event::new(EventKind::AgentCreated, Actor::system(), "made", NOW)
}

async fn total(store: &EmbeddedStore) -> u64 {
    store.page(&org(), &AuditFilter::default(), Page::first(0)).await.unwrap().total
}

/// Queues an operation without waiting for its answer, and returns its future.
macro_rules! queued {
    ($name:ident, $call:expr) => {
        let mut $name = pin!($call);
        assert!($name.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    };
}

/// Keeps the writer busy until the sender is dropped, so that what is queued meanwhile is one batch.
macro_rules! hold {
    ($store:expr, $name:ident) => {
        let ($name, busy) = std::sync::mpsc::channel::<()>();
        let (begins, begun) = std::sync::mpsc::channel();
        queued!(
            _holding,
            $store.writer.submit(move |_| {
                let _ = begins.send(());
                Ok(busy.recv().is_ok())
            })
        );
        begun.recv().unwrap();
    };
}

#[tokio::test]
async fn what_queues_during_a_commit_shares_the_next_one() {
    let disk = Disk::default();
    let store = Arc::new(disk.store());
    let before = disk.syncs.load(Ordering::SeqCst);
    let appends: Vec<_> = (0..64)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.append(&org(), &[event()]).await.unwrap() })
        })
        .collect();
    for append in appends {
        append.await.unwrap();
    }
    let syncs = disk.syncs.load(Ordering::SeqCst) - before;
    assert_eq!(total(&store).await, 64);
    assert!(syncs < 32, "{syncs} syncs for 64 appends");
}

#[tokio::test]
async fn what_changes_nothing_is_not_synced() {
    let disk = Disk::default();
    let store = disk.store();
    let events = [event()];
    store.append(&org(), &events).await.unwrap();
    let before = disk.syncs.load(Ordering::SeqCst);
    store.append(&org(), &events).await.unwrap();
    store.ping().await.unwrap();
    assert_eq!(disk.syncs.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn an_operation_that_fails_half_way_fails_alone() {
    let store = Disk::default().store();
    hold!(store, busy);
    let (org, events) = (org(), [event(), event()]);
    queued!(first, store.append(&org, &events[..1]));
    let bad = |batch: &mut Batch<'_>| -> Result<(), StoreError> {
        batch.put(Table::Meta, b"half", b"done")?;
        Err(StoreError::other("test", "no"))
    };
    queued!(bad, store.writer.submit(bad));
    queued!(last, store.append(&org, &events[1..]));
    drop(busy);

    first.await.unwrap();
    assert_eq!(bad.await.unwrap_err().kind(), StoreErrorKind::Other);
    last.await.unwrap();
    assert_eq!(total(&store).await, 2);
    assert!(store.latest().get(Table::Meta, b"half").unwrap().is_none());
}

#[tokio::test]
async fn an_operation_that_fails_before_it_writes_does_not_disturb_its_batch() {
    let store = Disk::default().store();
    hold!(store, busy);
    let runs = Arc::new(AtomicU32::new(0));
    let count = runs.clone();
    queued!(
        counted,
        store.writer.submit(move |batch| {
            count.fetch_add(1, Ordering::SeqCst);
            batch.put(Table::Meta, b"test", b"1")
        })
    );
    let bad = |_: &mut Batch<'_>| -> Result<(), StoreError> { Err(StoreError::other("test", "no")) };
    queued!(bad, store.writer.submit(bad));
    drop(busy);

    counted.await.unwrap();
    assert!(bad.await.is_err());
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_recovers() {
    let store = Disk::default().store();
    hold!(store, busy);
    let mut waiting = Vec::new();
    loop {
        let mut call = Box::pin(store.writer.submit(|batch| batch.has(Table::Meta, b"x")));
        if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            break;
        }
        waiting.push(call);
    }
    assert_eq!(waiting.len(), QUEUE);
    let refused = store.ping().await.unwrap_err();
    assert!(refused.is_retryable(), "{refused:?}");

    drop(busy);
    for call in waiting {
        call.await.unwrap();
    }
    store.ping().await.unwrap();
}

/// Appends an event that is too large for what is free in a file.
async fn append_much(store: &EmbeddedStore) -> Result<(), StoreErrorKind> {
    let event = event().with("filler", "x".repeat(100_000));
    store.append(&org(), &[event]).await.map_err(|error| error.kind())
}

/// That the log has no gap, and how many events are in it.
async fn checked_total(store: &EmbeddedStore) -> u64 {
    let page = store.page(&org(), &AuditFilter::default(), Page::first(u32::MAX)).await.unwrap();
    let numbers: Vec<u64> = page.items.iter().rev().map(|entry| entry.seq).collect();
    assert_eq!(numbers, (1..=page.total).collect::<Vec<_>>());
    page.total
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_serves_reads_until_there_is_room_again() {
    let disk = Disk::default();
    let store = disk.store();
    let agent = Agent::new("Bot", Slug::parse("bot").unwrap(), NOW);
    assert_eq!(AgentStore::insert(&store, &org(), &agent, &event()).await.unwrap(), Insert::Inserted);

    disk.full.store(true, Ordering::SeqCst);
    let mut kept = 0;
    while append_much(&store).await.is_ok() {
        kept += 1;
    }
    for by in [AgentKey::Id(agent.id), AgentKey::Slug(&agent.slug), AgentKey::ClientId(&agent.client_id)] {
        assert_eq!(append_much(&store).await, Err(StoreErrorKind::Unavailable));
        assert_eq!(*AgentStore::find(&store, &org(), by).await.unwrap().unwrap(), agent);
    }
    assert_eq!(checked_total(&store).await, 1 + kept);

    disk.full.store(false, Ordering::SeqCst);
    append_much(&store).await.unwrap();
    assert_eq!(checked_total(&store).await, 2 + kept);
}

#[tokio::test]
async fn a_disk_that_failed_is_used_again_once_it_answers() {
    let disk = Disk::default();
    let store = disk.store();
    store.append(&org(), &[event()]).await.unwrap();

    disk.dead.store(true, Ordering::SeqCst);
    let found = AuditStore::find(&store, &org(), AuditKey::Seq(1)).await;
    assert_eq!(found.unwrap_err().kind(), StoreErrorKind::Unavailable);
    assert_eq!(append_much(&store).await, Err(StoreErrorKind::Unavailable));
    assert_eq!(store.ping().await.unwrap_err().kind(), StoreErrorKind::Unavailable);

    disk.dead.store(false, Ordering::SeqCst);
    store.ping().await.unwrap();
    assert!(AuditStore::find(&store, &org(), AuditKey::Seq(1)).await.unwrap().is_some());
    store.append(&org(), &[event()]).await.unwrap();
    assert_eq!(checked_total(&store).await, 2);
}

#[tokio::test]
async fn a_read_that_failed_is_mended_by_the_next_ping() {
    let disk = Disk::default();
    let store = disk.store();
    store.append(&org(), &[event()]).await.unwrap();
    disk.dead.store(true, Ordering::SeqCst);
    assert!(AuditStore::find(&store, &org(), AuditKey::Seq(1)).await.is_err());
    disk.dead.store(false, Ordering::SeqCst);
    assert!(AuditStore::find(&store, &org(), AuditKey::Seq(1)).await.is_err());
    store.ping().await.unwrap();
    assert!(AuditStore::find(&store, &org(), AuditKey::Seq(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_writer_that_panics_leaves_nobody_waiting() {
    let store = Disk::default().store();
    hold!(store, busy);
    let (org, events) = (org(), [event()]);
    queued!(neighbour, store.append(&org, &events));
    queued!(bad, store.writer.submit(|_| -> Result<(), StoreError> { panic!("as intended") }));
    drop(busy);

    assert!(neighbour.await.unwrap_err().is_retryable());
    assert!(bad.await.unwrap_err().is_retryable());
    assert!(store.ping().await.is_err());
}
