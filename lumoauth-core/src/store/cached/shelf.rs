//! Records of one role, each for a bounded time.

use std::{
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moka::sync::Cache;

use super::CacheConfig;
use crate::clock::Stopwatch;

/// Records by their key.
pub(super) struct Shelf<K, T> {
    entries: Cache<K, Entry<T>>,
    ttl: Duration,
    /// How often something was forgotten. Its lock makes "nothing was forgotten since" and the insert one step.
    forgotten: Mutex<u64>,
}

struct Entry<T> {
    record: Arc<T>,
    read: Stopwatch,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self { record: self.record.clone(), read: self.read }
    }
}

/// A read of the store that has begun.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    began: Stopwatch,
    forgotten: u64,
}

impl<K: Eq + Hash + Send + Sync + 'static, T: Send + Sync + 'static> Shelf<K, T> {
    pub(super) fn new(config: &CacheConfig) -> Self {
        let entries = Cache::builder().max_capacity(config.capacity).time_to_live(config.ttl).build();
        Self { entries, ttl: config.ttl, forgotten: Mutex::new(0) }
    }

    /// The record, unless its time is up. That runs from the beginning of the read: what the store showed may have
    /// been replaced an instant later.
    pub(super) fn get(&self, key: &K) -> Option<Arc<T>> {
        self.entries.get(key).filter(|entry| entry.read.elapsed() < self.ttl).map(|entry| entry.record)
    }

    /// To be called before the store is asked.
    pub(super) fn reading(&self) -> Reading {
        Reading { began: Stopwatch::start(), forgotten: *self.lock() }
    }

    /// Keeps what `reading` brought, unless something was forgotten meanwhile: it may have been this record, and
    /// what was read the state before.
    pub(super) fn keep(&self, reading: Reading, key: K, record: &Arc<T>) {
        let forgotten = self.lock();
        if *forgotten == reading.forgotten {
            self.entries.insert(key, Entry { record: record.clone(), read: reading.began });
        }
    }

    /// Whoever asks after this does not get what was kept, or read, before it.
    pub(super) fn forget(&self, key: &K) {
        let mut forgotten = self.lock();
        *forgotten += 1;
        self.entries.invalidate(key);
    }

    /// [`Self::forget`] of everything.
    pub(super) fn forget_all(&self) {
        let mut forgotten = self.lock();
        *forgotten += 1;
        self.entries.invalidate_all();
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.forgotten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, T> fmt::Debug for Shelf<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(ttl: Duration) -> Shelf<u8, &'static str> {
        Shelf::new(&CacheConfig::default().with_ttl(ttl))
    }

    #[test]
    fn a_record_is_kept_until_it_is_forgotten() {
        let shelf = shelf(Duration::from_secs(600));
        for key in [1, 2] {
            shelf.keep(shelf.reading(), key, &Arc::new("old"));
        }
        assert_eq!(shelf.get(&1).as_deref(), Some(&"old"));
        shelf.forget(&1);
        assert_eq!((shelf.get(&1), shelf.get(&2).is_some()), (None, true));
        shelf.forget_all();
        assert_eq!(shelf.get(&2), None);
    }

    #[test]
    fn a_read_that_began_before_a_change_keeps_nothing() {
        let shelf = shelf(Duration::from_secs(600));
        for forget in [|shelf: &Shelf<_, _>| shelf.forget(&1), |shelf: &Shelf<_, _>| shelf.forget_all()] {
            let reading = shelf.reading();
            forget(&shelf);
            shelf.keep(reading, 1, &Arc::new("old"));
            assert_eq!(shelf.get(&1), None);
        }
    }

    #[test]
    fn the_bound_runs_from_the_beginning_of_the_read() {
        let shelf = shelf(Duration::from_millis(40));
        let reading = shelf.reading();
        std::thread::sleep(Duration::from_millis(50));
        shelf.keep(reading, 1, &Arc::new("old"));
        assert_eq!(shelf.get(&1), None);
    }
}
