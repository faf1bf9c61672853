//! A bounded memory of decoded records.
//!
//! It never decides what a record is: every look-up reads the row from the snapshot, and a remembered record is
//! used only if it was decoded from the very same bytes. So it cannot be stale and needs no invalidation. It saves
//! the JSON parser, which costs ten times as much as reading the row.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Arc, Mutex, PoisonError},
};

/// Decoded records by key.
pub(crate) struct Memo<T> {
    shards: [Mutex<Shard<T>>; SHARDS],
    /// How many entries one generation of one shard may hold.
    room: usize,
    hasher: RandomState,
}

const SHARDS: usize = 8;

/// Two generations: what is not asked for while the young one fills up is forgotten with the old one.
struct Shard<T> {
    young: HashMap<Box<[u8]>, Entry<T>>,
    old: HashMap<Box<[u8]>, Entry<T>>,
}

struct Entry<T> {
    bytes: Box<[u8]>,
    record: Arc<T>,
}

impl<T> Memo<T> {
    /// A memory of at most `entries` records.
    pub(crate) fn new(entries: usize) -> Self {
        let shards =
            std::array::from_fn(|_| Mutex::new(Shard { young: HashMap::new(), old: HashMap::new() }));
        Self { shards, room: (entries / SHARDS / 2).max(1), hasher: RandomState::new() }
    }

    /// The record that `bytes`, the row under `key`, decode to.
    pub(crate) fn decoded<E>(
        &self,
        key: &[u8],
        bytes: &[u8],
        decode: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        if let Some(record) = self.remembered(key, bytes) {
            return Ok(record);
        }
        let record = Arc::new(decode(bytes)?);
        let entry = Entry { bytes: bytes.into(), record: record.clone() };
        self.shard(key, |shard| shard.remember(key.into(), entry, self.room));
        Ok(record)
    }

    fn remembered(&self, key: &[u8], bytes: &[u8]) -> Option<Arc<T>> {
        self.shard(key, |shard| {
            if let Some(entry) = shard.young.get(key) {
                return entry.is_of(bytes);
            }
            let (key, entry) = shard.old.remove_entry(key)?;
            let record = entry.is_of(bytes)?;
            shard.remember(key, entry, self.room);
            Some(record)
        })
    }

    fn shard<R>(&self, key: &[u8], work: impl FnOnce(&mut Shard<T>) -> R) -> R {
        let index = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default();
        work(&mut self.shards[index].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> Shard<T> {
    fn remember(&mut self, key: Box<[u8]>, entry: Entry<T>, room: usize) {
        if self.young.len() >= room {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, entry);
    }
}

impl<T> Entry<T> {
    fn is_of(&self, bytes: &[u8]) -> Option<Arc<T>> {
        (*self.bytes == *bytes).then(|| self.record.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn text(bytes: &[u8]) -> Result<String, Infallible> {
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    #[test]
    fn a_record_is_decoded_once_and_anew_when_its_bytes_change() {
        let memo = Memo::new(100);
        let first = memo.decoded(b"k", b"one", text).unwrap();
        let again =
            memo.decoded(b"k", b"one", |_| -> Result<_, Infallible> { panic!("decoded twice") }).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(*memo.decoded(b"k", b"two", text).unwrap(), "two");
        assert_eq!(*memo.decoded(b"k", b"one", text).unwrap(), "one");
    }

    #[test]
    fn it_holds_no_more_than_it_may() {
        let memo = Memo::new(64);
        for n in 0_u32..10_000 {
            let _ = memo.decoded(&n.to_be_bytes(), b"x", text).unwrap();
        }
        let held: usize = memo
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap())
            .map(|shard| shard.young.len() + shard.old.len())
            .sum();
        assert!((1..=64).contains(&held), "{held}");
    }
}
