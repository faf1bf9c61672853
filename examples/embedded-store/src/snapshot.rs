//! Reading: one shared snapshot of the last commit.
//!
//! Point reads run on the calling thread. They touch a handful of pages that redb keeps in memory, and never wait
//! for the writer. A scan runs there too, but gives the executor a turn after every few entries.

use std::{
    future::poll_fn,
    ops::Range,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use lumoauth_core::store::StoreError;
use redb::{AccessGuard, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, TransactionError};
use serde::de::DeserializeOwned;

use crate::{
    cache::{Caches, Changed},
    tables::{Bytes, Table},
};

/// The file as of one commit.
pub(crate) struct Snapshot {
    transaction: ReadTransaction,
    tables: [OnceLock<ReadOnlyTable<Bytes, Bytes>>; Table::COUNT],
    suspect: Arc<AtomicBool>,
    number: u64,
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Ascending,
    Descending,
}

impl Snapshot {
    /// Its place in the order of publication.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn get(
        &self,
        table: Table,
        key: &[u8],
    ) -> Result<Option<AccessGuard<'static, Bytes>>, StoreError> {
        self.table(table)?.get(key).map_err(|error| self.failed(table, error))
    }

    /// The greatest key in `keys`.
    pub(crate) fn last_key(&self, table: Table, keys: Range<Vec<u8>>) -> Result<Option<Vec<u8>>, StoreError> {
        let mut range = self.range(table, &keys)?;
        match range.next_back() {
            Some(Ok((key, _))) => Ok(Some(key.value().to_vec())),
            Some(Err(error)) => Err(self.failed(table, error)),
            None => Ok(None),
        }
    }

    /// Shows every entry with a key in `keys` to `visit`, until it says [`Visit::Stop`].
    pub(crate) async fn walk(
        &self,
        table: Table,
        mut keys: Range<Vec<u8>>,
        order: Order,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<Visit, StoreError> + Send,
    ) -> Result<(), StoreError> {
        while let Some(last) = self.walk_some(table, &keys, order, &mut visit)? {
            match order {
                Order::Ascending => {
                    keys.start = last;
                    // The least key after it.
                    keys.start.push(0);
                }
                Order::Descending => keys.end = last,
            }
            give_way().await;
        }
        Ok(())
    }

    /// Shows at most [`TURN`] entries. The key of the last one, if there may be more.
    fn walk_some(
        &self,
        table: Table,
        keys: &Range<Vec<u8>>,
        order: Order,
        visit: &mut (impl FnMut(&[u8], &[u8]) -> Result<Visit, StoreError> + Send),
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut range = self.range(table, keys)?;
        for shown in 1.. {
            let next = match order {
                Order::Ascending => range.next(),
                Order::Descending => range.next_back(),
            };
            let Some(entry) = next else { break };
            let (key, value) = entry.map_err(|error| self.failed(table, error))?;
            match visit(key.value(), value.value())? {
                Visit::Stop => break,
                Visit::Next if shown == TURN => return Ok(Some(key.value().to_vec())),
                Visit::Next => {}
            }
        }
        Ok(None)
    }

    fn range(
        &self,
        table: Table,
        keys: &Range<Vec<u8>>,
    ) -> Result<redb::Range<'static, Bytes, Bytes>, StoreError> {
        let keys = keys.start.as_slice()..keys.end.as_slice();
        self.table(table)?.range(keys).map_err(|error| self.failed(table, error))
    }

    fn table(&self, table: Table) -> Result<&ReadOnlyTable<Bytes, Bytes>, StoreError> {
        let slot = &self.tables[table as usize];
        if let Some(open) = slot.get() {
            return Ok(open);
        }
        let open =
            self.transaction.open_table(table.definition()).map_err(|error| self.failed(table, error))?;
        Ok(slot.get_or_init(|| open))
    }

    fn failed(&self, table: Table, error: impl Into<redb::Error>) -> StoreError {
        let error = error.into();
        // A failed read stops redb as a failed write does, and only the writer can open the file again. A file that
        // is closed already, it has opened again since this snapshot.
        if matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo) {
            self.suspect.store(true, Ordering::Relaxed);
        }
        store_error(table, error)
    }
}

/// Whether a scan goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    Next,
    Stop,
}

/// How many entries a scan shows before it gives the executor a turn: some hundred microseconds of work.
const TURN: usize = 128;

async fn give_way() {
    let mut given = false;
    poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Where readers find the newest snapshot. The writer replaces it after each commit and before it answers, so
/// whoever got an answer reads what was written.
pub(crate) struct Published {
    snapshot: RwLock<Arc<Snapshot>>,
    suspect: Arc<AtomicBool>,
    caches: Caches,
}

impl Published {
    pub(crate) fn new(database: &Database) -> Result<Self, TransactionError> {
        let suspect = Arc::new(AtomicBool::new(false));
        let snapshot = RwLock::new(Arc::new(snapshot_of(database, &suspect, 0)?));
        Ok(Self { snapshot, suspect, caches: Caches::new() })
    }

    pub(crate) const fn caches(&self) -> &Caches {
        &self.caches
    }

    pub(crate) fn latest(&self) -> Arc<Snapshot> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Publishes what `database` shows now, which differs from the last snapshot in the rows of `changed`, or in
    /// nobody knows what. Only the writer calls it.
    pub(crate) fn replace(
        &self,
        database: &Database,
        changed: Option<&[Changed]>,
    ) -> Result<(), TransactionError> {
        let number = self.latest().number + 1;
        let next = Arc::new(snapshot_of(database, &self.suspect, number)?);
        match changed {
            Some(changed) => self.caches.drop_changed(changed, number),
            None => self.caches.drop_all(number),
        }
        let mut slot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        let previous = std::mem::replace(&mut *slot, next);
        drop(slot);
        // Ending a read transaction takes redb's locks; readers need not wait for that.
        drop(previous);
        Ok(())
    }

    /// Whether a read failed since this was last asked.
    pub(crate) fn take_suspicion(&self) -> bool {
        self.suspect.swap(false, Ordering::Relaxed)
    }
}

fn snapshot_of(
    database: &Database,
    suspect: &Arc<AtomicBool>,
    number: u64,
) -> Result<Snapshot, TransactionError> {
    let tables = [const { OnceLock::new() }; Table::COUNT];
    Ok(Snapshot { transaction: database.begin_read()?, tables, suspect: suspect.clone(), number })
}

/// The record in `bytes`.
pub(crate) fn decode<T: DeserializeOwned>(table: Table, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::corrupt(table.name(), error))
}

/// Bytes that are not of the form this version writes.
pub(crate) fn malformed(table: Table) -> StoreError {
    StoreError::corrupt(table.name(), "a row has an unknown form")
}

/// A failure of redb, in the terms of the ports.
pub(crate) fn store_error(table: Table, error: impl Into<redb::Error>) -> StoreError {
    use redb::Error;
    match error.into() {
        error @ (Error::Io(_) | Error::PreviousIo | Error::DatabaseClosed) => {
            StoreError::unavailable(table.name(), error)
        }
        error @ Error::ValueTooLarge(_) => StoreError::other(table.name(), error),
        error => StoreError::corrupt(table.name(), error),
    }
}
