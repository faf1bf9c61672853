//! Values that lose their meaning at an instant.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    hash::Hash,
};

use crate::clock::Timestamp;

/// A map whose entries have an end. The ends are kept in order, so dropping what ended never looks at what
/// did not.
pub(super) struct Fading<K, V> {
    entries: HashMap<K, (V, Timestamp)>,
    by_end: BTreeSet<(Timestamp, K)>,
}

impl<K, V> Default for Fading<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), by_end: BTreeSet::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord, V: Default> Fading<K, V> {
    /// The value of `key` with its end. It is here until [`Self::drop_ended`] finds it, so whether the end
    /// has come is for the caller to decide.
    pub(super) fn get(&self, key: &K) -> Option<(&V, Timestamp)> {
        self.entries.get(key).map(|(value, end)| (value, *end))
    }

    /// The value of `key`, to be changed.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(value, _)| value)
    }

    /// The value of `key`, made if there is none, that ends at `end` or later.
    pub(super) fn keep(&mut self, key: K, end: Timestamp) -> &mut V {
        match self.entries.entry(key) {
            Entry::Vacant(vacant) => {
                self.by_end.insert((end, vacant.key().clone()));
                &mut vacant.insert((V::default(), end)).0
            }
            Entry::Occupied(mut occupied) => {
                let old = occupied.get().1;
                if end > old {
                    let key = occupied.key().clone();
                    self.by_end.remove(&(old, key.clone()));
                    self.by_end.insert((end, key));
                    occupied.get_mut().1 = end;
                }
                &mut occupied.into_mut().0
            }
        }
    }

    /// Lets `key` end at `end`, be it earlier or later than before.
    pub(super) fn end_at(&mut self, key: &K, end: Timestamp) {
        if let Some((_, old)) = self.entries.get_mut(key) {
            self.by_end.remove(&(*old, key.clone()));
            self.by_end.insert((end, key.clone()));
            *old = end;
        }
    }

    /// Drops up to `max` entries that ended before `now`, the oldest first; how many.
    pub(super) fn drop_ended(&mut self, now: Timestamp, max: u64) -> u64 {
        let mut dropped = 0;
        while dropped < max && self.by_end.first().is_some_and(|(end, _)| *end < now) {
            if let Some((_, key)) = self.by_end.pop_first() {
                self.entries.remove(&key);
                dropped += 1;
            }
        }
        dropped
    }
}

#[cfg(test)]
impl<K, V> Fading<K, V> {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> Timestamp = Timestamp::from_unix_millis;

    #[test]
    fn only_ended_entries_are_dropped_and_no_more_than_asked_for() {
        let mut fading = Fading::<u8, u8>::default();
        for key in 0..10 {
            *fading.keep(key, AT(u64::from(key))) = key;
        }
        assert_eq!(fading.drop_ended(AT(5), 3), 3);
        assert_eq!(fading.drop_ended(AT(5), 9), 2);
        assert_eq!(fading.drop_ended(AT(5), 9), 0);
        assert_eq!(fading.get(&5), Some((&5, AT(5))));
        assert_eq!(fading.get(&4), None);
    }

    #[test]
    fn an_end_moves_only_later() {
        let mut fading = Fading::<u8, ()>::default();
        for end in [5, 9, 2] {
            fading.keep(1, AT(end));
        }
        assert_eq!(fading.drop_ended(AT(9), 9), 0);
        assert_eq!(fading.drop_ended(AT(10), 9), 1);
        assert_eq!((fading.len(), fading.by_end.len()), (0, 0));
    }

    #[test]
    fn an_end_is_set_earlier_when_asked() {
        let mut fading = Fading::<u8, ()>::default();
        fading.keep(1, AT(9));
        fading.end_at(&1, AT(5));
        fading.end_at(&2, AT(5));
        assert_eq!((fading.get(&1), fading.by_end.len()), (Some((&(), AT(5))), 1));
        assert_eq!(fading.drop_ended(AT(6), 9), 1);
    }
}
