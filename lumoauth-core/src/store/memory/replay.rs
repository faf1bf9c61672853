//! Single-use values in memory.

use async_trait::async_trait;

use super::{MemoryStore, fading::Fading, lock};
use crate::{
    clock::{Stopwatch, Timestamp},
    id::OrgId,
    store::{REPLAY_GRACE, Remembered, ReplayStore, StoreError},
};

/// What was seen. Not kept per organization: the values come from outside, and those that ended must leave nothing
/// behind.
pub(super) struct Seen {
    marks: Fading<(OrgId, String, [u8; 32]), ()>,
    /// How long this memory exists: what is older may have been presented to an earlier process. `None` if nothing can have
    /// been.
    memory: Option<Stopwatch>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { marks: Fading::default(), memory: Some(Stopwatch::start()) }
    }
}

/// How many ended marks a new one drops. More than one, so that the backlog of a burst shrinks.
const DROPPED_PER_MARK: u64 = 4;

impl Seen {
    /// The memory of a store that was there before anybody presented anything.
    pub(super) fn from_the_beginning() -> Self {
        Self { memory: None, ..Self::default() }
    }

    /// Drops up to `max` marks that ended; how many.
    pub(super) fn purge(&mut self, now: Timestamp, max: u64) -> u64 {
        self.marks.drop_ended(now, max)
    }
}

#[async_trait]
impl ReplayStore for MemoryStore {
    async fn remember(
        &self,
        org: &OrgId,
        space: &str,
        key: &[u8; 32],
        issued_at: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Remembered, StoreError> {
        let mut seen = lock(&self.seen);
        seen.purge(now, DROPPED_PER_MARK);
        if until <= now {
            return Ok(Remembered::TooOld);
        }
        let mark = (org.clone(), space.to_owned(), *key);
        if seen.marks.get(&mark).is_some() {
            return Ok(Remembered::Replay);
        }
        if seen.memory.as_ref().is_some_and(|memory| now.since(issued_at) > memory.elapsed()) {
            return Ok(Remembered::TooOld);
        }
        seen.marks.keep(mark, until.plus(REPLAY_GRACE));
        Ok(Remembered::First)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_value_older_than_the_store_is_refused() {
        let (store, org) = (MemoryStore::new(), OrgId::parse("acme").unwrap());
        let now = Timestamp::from_unix_seconds(1_790_000_000);
        let until = now.plus(Duration::from_secs(60));
        // The store is not an hour old, however slow the machine is.
        let before = now.minus(Duration::from_secs(3600));
        for _ in 0..2 {
            let old = store.remember(&org, "jti", &[1; 32], before, until, now).await.unwrap();
            assert_eq!(old, Remembered::TooOld);
        }
        let new = store.remember(&org, "jti", &[1; 32], now, until, now).await.unwrap();
        assert_eq!(new, Remembered::First, "what was refused was not remembered");
        let known = store.remember(&org, "jti", &[1; 32], before, until, now).await.unwrap();
        assert_eq!(known, Remembered::Replay, "a value that is known is a replay at any age");
    }
}
