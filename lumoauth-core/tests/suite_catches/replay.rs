//! Memories of single-use values that are none.

use std::{collections::HashSet, sync::Mutex};

use async_trait::async_trait;
use lumoauth_core::{
    clock::Timestamp,
    id::OrgId,
    store::{
        MemoryStore, Remembered, ReplayStore, StoreError, Upkeep,
        conformance::{replay, upkeep},
    },
};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Looks first, writes later.
    Racy,
    /// Takes all spaces for one.
    Spaceless,
    /// Takes all organizations for one.
    OrgBlind,
    /// Never minds the end.
    Endless,
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    seen: Mutex<HashSet<(String, String, [u8; 32])>>,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self { fault, seen: Mutex::default() }
    }
}

#[async_trait]
impl ReplayStore for Faulty {
    async fn remember(
        &self,
        org: &OrgId,
        space: &str,
        key: &[u8; 32],
        _: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Remembered, StoreError> {
        if until <= now && self.fault != Fault::Endless {
            return Ok(Remembered::TooOld);
        }
        let org = if self.fault == Fault::OrgBlind { "" } else { org.as_str() };
        let space = if self.fault == Fault::Spaceless { "" } else { space };
        let mark = (org.to_owned(), space.to_owned(), *key);
        if self.fault == Fault::Racy {
            let known = self.seen.lock().unwrap().contains(&mark);
            tokio::task::yield_now().await;
            self.seen.lock().unwrap().insert(mark);
            return Ok(if known { Remembered::Replay } else { Remembered::First });
        }
        Ok(if self.seen.lock().unwrap().insert(mark) { Remembered::First } else { Remembered::Replay })
    }
}

#[tokio::test]
#[should_panic(expected = "First")]
async fn a_look_before_the_write_is_found_out() {
    replay::racing_firsts(&Faulty::new(Fault::Racy)).await;
}

#[tokio::test]
#[should_panic(expected = "First")]
async fn one_space_for_all_is_found_out() {
    replay::spaces_are_apart(&Faulty::new(Fault::Spaceless)).await;
}

#[tokio::test]
#[should_panic(expected = "First")]
async fn one_memory_for_all_organizations_is_found_out() {
    replay::organizations_are_apart(&Faulty::new(Fault::OrgBlind)).await;
}

#[tokio::test]
#[should_panic(expected = "TooOld")]
async fn a_value_without_an_end_is_found_out() {
    replay::ends(&Faulty::new(Fault::Endless)).await;
}

/// Leaves ended marks no grace.
#[derive(Debug, Default)]
struct Hasty(MemoryStore);

#[async_trait]
impl Upkeep for Hasty {
    fn name(&self) -> &'static str {
        "hasty"
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.0.ping().await
    }

    async fn purge(&self, now: Timestamp, max: u32) -> Result<u64, StoreError> {
        self.0.purge(now.plus(lumoauth_core::store::REPLAY_GRACE * 2), max).await
    }
}

#[tokio::test]
#[should_panic(expected = "Replay")]
async fn a_purge_that_leaves_no_grace_is_found_out() {
    let store = Hasty::default();
    upkeep::purge_keeps_replay_marks(&store.0, &store).await;
}
