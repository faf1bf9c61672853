//! What the recorded roles share: a record under its id, the indexes that lead to it, its event in the same step.

use std::{ops::Range, sync::Arc};

use lumoauth_core::{
    audit::Event,
    id::OrgId,
    store::{Insert, Listing, Page, Remove, StoreError, Unique, Update},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    EmbeddedStore,
    batch::{Batch, EncodedEvent, encode},
    cache::{Cache, Caches},
    snapshot::{Order, Snapshot, Visit, decode},
    tables::{Table, all_of},
};

/// A kind of record.
pub(crate) trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Where it is kept.
    const TABLE: Table;
    /// What its key is, to callers that hit a taken one.
    const KEY: Unique;

    fn key(&self, org: &OrgId) -> Vec<u8>;

    /// The rows of indexes that lead to it.
    fn index_rows(&self, org: &OrgId) -> Vec<IndexRow>;
}

/// A record whose updates are guarded by a version.
pub(crate) trait Versioned: Record + Clone {
    fn version(&self) -> u64;
    fn set_version(&mut self, version: u64);
    fn cache(caches: &Caches) -> &Cache<Self>;
}

/// A row of an index.
#[derive(PartialEq, Eq)]
pub(crate) struct IndexRow {
    index: Table,
    key: Vec<u8>,
    /// The field whose value only one record of the organization may have.
    unique: Option<Unique>,
}

impl IndexRow {
    /// For a value that only one record of the organization may have.
    pub(crate) const fn unique(index: Table, key: Vec<u8>, field: Unique) -> Self {
        Self { index, key, unique: Some(field) }
    }

    /// For a value that several records may share, so `key` must name the record as well.
    pub(crate) const fn shared(index: Table, key: Vec<u8>) -> Self {
        Self { index, key, unique: None }
    }
}

/// Everything about a record that the writer needs, made on the caller's thread.
struct Row {
    key: Vec<u8>,
    json: Vec<u8>,
    index_rows: Vec<IndexRow>,
}

impl Row {
    fn of<R: Record>(org: &OrgId, record: &R) -> Result<Self, StoreError> {
        Ok(Self { key: record.key(org), json: encode(R::TABLE, record)?, index_rows: record.index_rows(org) })
    }

    /// The first unique value that another record has.
    fn taken(&self, batch: &mut Batch<'_>) -> Result<Option<Unique>, StoreError> {
        for row in &self.index_rows {
            if row.unique.is_some() && batch.get(row.index, &row.key)?.is_some_and(|owner| owner != self.key)
            {
                return Ok(row.unique);
            }
        }
        Ok(None)
    }

    /// Writes every row that leads to the record, also those of an index that stay as they are: that is how the
    /// cache learns of the change.
    fn write<R: Record>(&self, batch: &mut Batch<'_>) -> Result<(), StoreError> {
        batch.put(R::TABLE, &self.key, &self.json)?;
        self.index_rows.iter().try_for_each(|row| batch.put(row.index, &row.key, &self.key))
    }
}

impl EmbeddedStore {
    pub(crate) async fn insert_record<R: Record>(
        &self,
        org: &OrgId,
        record: &R,
        on: &Event,
    ) -> Result<Insert, StoreError> {
        let (org, row, event) = (org.clone(), Row::of(org, record)?, EncodedEvent::of(on)?);
        let decide = move |batch: &mut Batch<'_>| {
            if batch.has(R::TABLE, &row.key)? {
                return Ok(Insert::Taken(R::KEY));
            }
            if let Some(field) = row.taken(batch)? {
                return Ok(Insert::Taken(field));
            }
            row.write::<R>(batch)?;
            batch.record(&org, &event)?;
            Ok(Insert::Inserted)
        };
        self.writer.submit(decide).await
    }

    pub(crate) async fn update_record<R: Versioned>(
        &self,
        org: &OrgId,
        record: &R,
        on: &Event,
    ) -> Result<Update, StoreError> {
        let from = record.version();
        let mut next = record.clone();
        next.set_version(from.saturating_add(1));
        let (org, row, event) = (org.clone(), Row::of(org, &next)?, EncodedEvent::of(on)?);
        let decide = move |batch: &mut Batch<'_>| {
            let Some(stored) = batch.get(R::TABLE, &row.key)? else { return Ok(Update::Missing) };
            let stored: R = decode(R::TABLE, &stored)?;
            if stored.version() != from {
                return Ok(Update::Stale);
            }
            if let Some(field) = row.taken(batch)? {
                return Ok(Update::Taken(field));
            }
            for old in stored.index_rows(&org) {
                if !row.index_rows.contains(&old) {
                    batch.remove(old.index, &old.key)?;
                }
            }
            row.write::<R>(batch)?;
            batch.record(&org, &event)?;
            Ok(Update::Updated)
        };
        self.writer.submit(decide).await
    }

    /// Removes a record if it is the one that `is_meant`.
    pub(crate) async fn remove_record<R: Record>(
        &self,
        org: &OrgId,
        key: Vec<u8>,
        is_meant: impl Fn(&R) -> bool + Send + 'static,
        on: &Event,
    ) -> Result<Remove, StoreError> {
        let (org, event) = (org.clone(), EncodedEvent::of(on)?);
        let decide = move |batch: &mut Batch<'_>| {
            let Some(stored) = batch.get(R::TABLE, &key)? else { return Ok(Remove::Missing) };
            let stored: R = decode(R::TABLE, &stored)?;
            if !is_meant(&stored) {
                return Ok(Remove::Stale);
            }
            batch.remove(R::TABLE, &key)?;
            for row in stored.index_rows(&org) {
                batch.remove(row.index, &row.key)?;
            }
            batch.record(&org, &event)?;
            Ok(Remove::Removed)
        };
        self.writer.submit(decide).await
    }

    /// The record that a row leads to: its own row, or one of an index.
    pub(crate) fn find_record<R: Versioned>(
        &self,
        table: Table,
        key: &[u8],
    ) -> Result<Option<Arc<R>>, StoreError> {
        let cache = R::cache(self.published.caches());
        if let Some(record) = cache.get(table, key) {
            return Ok(Some(record));
        }
        let snapshot = self.latest();
        let Some(mut row) = snapshot.get(table, key)? else { return Ok(None) };
        if table != R::TABLE {
            row = snapshot.get(R::TABLE, row.value())?.ok_or_else(|| dangling(table, key))?;
        }
        let record = Arc::new(decode(R::TABLE, row.value())?);
        cache.fill(table, key, &record, snapshot.number());
        Ok(Some(record))
    }

    /// One page of the records of `org` that `wanted` accepts (all, if there is no `wanted`), in the order of
    /// `walked`: the table of the records itself, or an index of it.
    pub(crate) async fn list_records<R: Record>(
        &self,
        org: &OrgId,
        walked: Table,
        wanted: Option<&(dyn Fn(&R) -> bool + Send + Sync)>,
        page: Page,
    ) -> Result<Listing<Arc<R>>, StoreError> {
        list_range(&self.latest(), walked, all_of(org), wanted, page).await
    }
}

/// [`EmbeddedStore::list_records`] as of `snapshot`, of the rows of `walked` with a key in `keys`.
pub(crate) async fn list_range<R: Record>(
    snapshot: &Snapshot,
    walked: Table,
    keys: Range<Vec<u8>>,
    wanted: Option<&(dyn Fn(&R) -> bool + Send + Sync)>,
    page: Page,
) -> Result<Listing<Arc<R>>, StoreError> {
    let mut items = Vec::new();
    let mut total = 0_u64;
    let visit = |key: &[u8], value: &[u8]| {
        let in_page = |total| total >= page.offset && total - page.offset < u64::from(page.limit);
        if wanted.is_some() || in_page(total) {
            let record: R = if walked == R::TABLE {
                decode(R::TABLE, value)?
            } else {
                let row = snapshot.get(R::TABLE, value)?.ok_or_else(|| dangling(walked, key))?;
                decode(R::TABLE, row.value())?
            };
            if wanted.is_some_and(|wanted| !wanted(&record)) {
                return Ok(Visit::Next);
            }
            if in_page(total) {
                items.push(Arc::new(record));
            }
        }
        total += 1;
        Ok(Visit::Next)
    };
    snapshot.walk(walked, keys, Order::Ascending, visit).await?;
    Ok(Listing { items, total })
}

fn dangling(index: Table, key: &[u8]) -> StoreError {
    StoreError::corrupt(index.name(), format!("`{}` names a record that is not there", key.escape_ascii()))
}
