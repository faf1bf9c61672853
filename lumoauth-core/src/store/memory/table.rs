//! The records of one role in one organization.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    ops::Bound,
    sync::Arc,
};

use crate::store::{Insert, Listing, Page, Remove, Unique, Update};

/// Something a table can keep.
pub(super) trait Record: Clone {
    /// By what a record is looked up; every value of every unique field.
    type Key: Eq + Hash;
    /// What listings are ordered by. Unique.
    type Order: Ord;

    /// The key that names the record and never changes.
    fn id(&self) -> Self::Key;

    /// All its keys, the one of [`Record::id`] among them, with the fields they are from. If several are
    /// taken, the first is reported.
    fn keys(&self) -> Vec<(Unique, Self::Key)>;

    /// Its place in listings.
    fn order(&self) -> Self::Order;
}

/// A record whose updates are guarded by a version.
pub(super) trait Versioned: Record {
    /// The version.
    fn version(&self) -> u64;

    /// The same record at another version.
    fn at_version(&self, version: u64) -> Self;
}

/// Records by key and in order. Both hold the same `Arc`s, so a look-up is one hash look-up.
pub(super) struct Table<T: Record> {
    by_key: HashMap<T::Key, Arc<T>>,
    in_order: BTreeMap<T::Order, Arc<T>>,
}

impl<T: Record> Default for Table<T> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), in_order: BTreeMap::new() }
    }
}

impl<T: Record> Table<T> {
    /// The record with this key.
    pub(super) fn find(&self, key: &T::Key) -> Option<Arc<T>> {
        self.by_key.get(key).cloned()
    }

    /// Adds `record` unless one of its keys is taken.
    pub(super) fn insert(&mut self, record: &T) -> Insert {
        let keys = record.keys();
        if let Some(unique) = self.taken(&keys, None) {
            return Insert::Taken(unique);
        }
        self.put(keys, Arc::new(record.clone()));
        Insert::Inserted
    }

    /// Removes the record with this id.
    pub(super) fn remove(&mut self, id: &T::Key) -> Remove {
        let Some(record) = self.find(id) else { return Remove::Missing };
        self.take(&record);
        Remove::Removed
    }

    /// The records in order, beginning behind `after`.
    pub(super) fn after(&self, after: Option<&T::Order>) -> impl Iterator<Item = &Arc<T>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.in_order.range((start, Bound::Unbounded)).map(|(_, record)| record)
    }

    /// One page of the records that are wanted.
    pub(super) fn list(&self, page: Page, wanted: impl Fn(&T) -> bool) -> Listing<Arc<T>> {
        let mut pager = Pager::new(page);
        self.after(None)
            .filter(|record| wanted(record))
            .for_each(|record| pager.offer(|| Arc::clone(record)));
        pager.finish()
    }

    /// The first of `keys` that a record other than `own` has.
    fn taken(&self, keys: &[(Unique, T::Key)], own: Option<&Arc<T>>) -> Option<Unique> {
        let foreign = |holder: &Arc<T>| own.is_none_or(|own| !Arc::ptr_eq(own, holder));
        keys.iter().find(|(_, key)| self.by_key.get(key).is_some_and(foreign)).map(|(unique, _)| *unique)
    }

    fn put(&mut self, keys: Vec<(Unique, T::Key)>, record: Arc<T>) {
        for (_, key) in keys {
            self.by_key.insert(key, Arc::clone(&record));
        }
        self.in_order.insert(record.order(), record);
    }

    fn take(&mut self, record: &T) {
        for (_, key) in record.keys() {
            self.by_key.remove(&key);
        }
        self.in_order.remove(&record.order());
    }
}

impl<T: Versioned> Table<T> {
    /// Replaces the record with the same id and version by `record` at the next version.
    pub(super) fn update(&mut self, record: &T) -> Update {
        let Some(old) = self.find(&record.id()) else { return Update::Missing };
        if old.version() != record.version() {
            return Update::Stale;
        }
        let keys = record.keys();
        if let Some(unique) = self.taken(&keys, Some(&old)) {
            return Update::Taken(unique);
        }
        let next = Arc::new(record.at_version(record.version() + 1));
        self.take(&old);
        self.put(keys, next);
        Update::Updated
    }

    /// Removes the record with this id if it has this version.
    pub(super) fn remove_at(&mut self, id: &T::Key, version: u64) -> Remove {
        match self.find(id) {
            None => Remove::Missing,
            Some(record) if record.version() != version => Remove::Stale,
            Some(_) => self.remove(id),
        }
    }
}

/// Cuts one page out of items that are offered in their order.
pub(super) struct Pager<T> {
    page: Page,
    listing: Listing<T>,
}

impl<T> Pager<T> {
    pub(super) fn new(page: Page) -> Self {
        Self { page, listing: Listing { items: Vec::new(), total: 0 } }
    }

    /// Counts the next item, and makes it if it is on the page.
    pub(super) fn offer(&mut self, make: impl FnOnce() -> T) {
        let Page { offset, limit } = self.page;
        if (offset..offset.saturating_add(u64::from(limit))).contains(&self.listing.total) {
            self.listing.items.push(make());
        }
        self.listing.total += 1;
    }

    pub(super) fn finish(self) -> Listing<T> {
        self.listing
    }
}
