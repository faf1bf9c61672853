//! Single-use values.

use std::iter::repeat_with;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use lumoauth_core::{
    clock::Timestamp,
    id::OrgId,
    store::{REPLAY_GRACE, Remembered, ReplayStore, StoreError},
};
use tokio::time::Instant;

use crate::{RedisStore, connection::Link, error::Failure, keys, rate_limits::millis, script};

/// How many milliseconds an age and the time since a birth lose by being counted in whole ones.
const ROUNDING: u128 = 1;

/// What is done when a memory begins, for errors.
const BEGINNING: &str = "beginning to remember";

/// What of a Redis server, or a cluster, remembers single-use values, and since when: [`RedisStore::memory`].
#[derive(Clone, Debug)]
pub struct Memory(Vec<Vec<u8>>);

impl RedisStore {
    /// Establishes since when every bucket remembers, and fails if a server takes no writes. Done at the start, so that a
    /// fresh server remembers from then on and not from the first use of each bucket.
    pub(crate) async fn begin_to_remember(&self) -> Result<(), Failure> {
        self.births(None).await.map(drop)
    }

    /// The memory that is there now, for [`RedisStore::nothing_came_before`].
    ///
    /// # Errors
    /// [`StoreError`] if Redis does not answer.
    pub async fn memory(&self) -> Result<Memory, StoreError> {
        self.births(None).await.map(Memory).map_err(|failure| failure.during(BEGINNING))
    }

    /// Says that nothing was presented before `memory` to any server that it is for: the records are new, and held nobody when
    /// they were read, which was after `memory` was. From then on single-use values are taken however old they are, until
    /// this memory is lost. Of a memory that was lost in the meantime nothing is said. Without this call, what may be older than
    /// the memory is refused, which for signed requests is everything in its first minute.
    ///
    /// # Errors
    /// [`StoreError`] if Redis does not answer.
    pub async fn nothing_came_before(&self, memory: &Memory) -> Result<(), StoreError> {
        self.births(Some(&memory.0)).await.map(drop).map_err(|failure| failure.during(BEGINNING))
    }

    /// The births of all buckets, of which those that are still as they were `seen` become the beginning of everything.
    async fn births(&self, seen: Option<&[Vec<u8>]>) -> Result<Vec<Vec<u8>>, Failure> {
        let births: Vec<_> = (0..keys::BUCKETS).map(keys::birth).collect();
        let seen = seen.unwrap_or_default();
        let calls = match self.connection().link {
            Link::Single(_) => vec![script::READY.call(births, seen.to_vec())],
            // They are in as many slots.
            Link::Cluster(_) => {
                let seen = seen.iter().map(|birth| vec![birth.clone()]).chain(repeat_with(Vec::new));
                births
                    .into_iter()
                    .zip(seen)
                    .map(|(birth, seen)| script::READY.call(vec![birth], seen))
                    .collect()
            }
        };
        let calls = calls.iter().map(async |call| self.connection().call::<Vec<Vec<u8>>>(call).await);
        Ok(try_join_all(calls).await?.concat())
    }
}

#[async_trait]
impl ReplayStore for RedisStore {
    /// If the answer is lost, the value may be remembered, and its next presentation is a replay: the caller has
    /// refused it in both cases.
    async fn remember(
        &self,
        org: &OrgId,
        space: &str,
        key: &[u8; 32],
        issued_at: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Remembered, StoreError> {
        // An age is compared with an age, so that no clock of ours is compared with that of Redis.
        let age = now.since(issued_at).as_millis();
        let keep = if now < until {
            millis(until.plus(REPLAY_GRACE).since(now).saturating_add(REPLAY_GRACE))
        } else {
            0
        };
        let keys = vec![keys::birth(keys::bucket(key)), keys::mark(org, space, key)];
        let args = vec![age.to_string().into_bytes(), keep.to_string().into_bytes()];
        let start = Instant::now();
        let answer: Result<i64, _> = self.connection().call(&script::REMEMBER.call(keys, args)).await;
        match answer {
            // While the call was under way the memory grew older and the age did not. What is not older by more than
            // that may have been seen before the memory began.
            Ok(older @ 0..) if u128::from(older.unsigned_abs()) > start.elapsed().as_millis() + ROUNDING => {
                Ok(Remembered::First)
            }
            Ok(-2 | 0..) => Ok(Remembered::TooOld),
            Ok(-3) => {
                // Everything was lost. The other buckets begin now too, and not each with a refusal of its own.
                let begun = self.begin_to_remember().await;
                begun.map_err(|failure| failure.during(BEGINNING))?;
                Ok(Remembered::TooOld)
            }
            Ok(-1) => Ok(Remembered::Replay),
            Ok(_) => Err(Failure::Unreadable.during("remembering a single-use value")),
            Err(failure) => Err(failure.during("remembering a single-use value")),
        }
    }
}
