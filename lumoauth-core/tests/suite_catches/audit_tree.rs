//! Logs whose tree, heads or retention are not what they seem.

use std::{collections::BTreeMap, ops::Range, sync::Mutex};

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    id::OrgId,
    merkle::{Frontier, Node},
    store::{
        AuditFilter, AuditKey, AuditStats, AuditStore, Checkpoint, Listing, LogEntry, LogHead, MemoryStore,
        Page, RawEntry, StoreError, TreeLevel, conformance::audit_tree,
    },
};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Shows the JSON of an event written in another way than it was hashed.
    Reformats,
    /// Keeps the last head of a size.
    Overwrites,
    /// Does not remember how much retention took.
    Forgets,
    /// Has the head of before the last entry.
    Behind,
    /// Makes blocks of twice as many leaves.
    WideBlocks,
    /// Says what retention did also where it did nothing.
    SaysTwice,
    /// Does not look at where retention was.
    DropsAnything,
    /// Lists organizations backwards.
    Backwards,
    /// Lists every organization on every page.
    Pageless,
    /// Knows only of heads that there are entries for.
    Blind,
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    memory: MemoryStore,
    heads: Mutex<BTreeMap<(OrgId, u64), String>>,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self { fault, memory: MemoryStore::new(), heads: Mutex::default() }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }
}

#[async_trait]
impl AuditStore for Faulty {
    async fn append(&self, org: &OrgId, events: &[Event]) -> Result<(), StoreError> {
        self.memory.append(org, events).await
    }

    async fn waiting(&self, max: u32) -> Result<Vec<OrgId>, StoreError> {
        self.memory.waiting(max).await
    }

    async fn sequence(&self, org: &OrgId, max: u32) -> Result<u64, StoreError> {
        self.memory.sequence(org, max).await
    }

    async fn find(&self, org: &OrgId, key: AuditKey) -> Result<Option<LogEntry>, StoreError> {
        AuditStore::find(&self.memory, org, key).await
    }

    async fn page(
        &self,
        org: &OrgId,
        filter: &AuditFilter,
        page: Page,
    ) -> Result<Listing<LogEntry>, StoreError> {
        AuditStore::page(&self.memory, org, filter, page).await
    }

    async fn stats(&self, org: &OrgId, filter: &AuditFilter) -> Result<AuditStats, StoreError> {
        self.memory.stats(org, filter).await
    }

    async fn head(&self, org: &OrgId) -> Result<LogHead, StoreError> {
        let mut head = self.memory.head(org).await?;
        if self.is(Fault::Forgets) {
            head.dropped = 0;
        }
        if self.is(Fault::Blind) {
            head.signed = head.signed.min(head.tree.size());
        }
        if self.is(Fault::Behind) {
            let mut leaves = self.memory.nodes(org, TreeLevel::Leaves, 0..u64::MAX).await?;
            leaves.pop();
            head.tree = Frontier::default();
            for leaf in leaves {
                let _block = head.tree.push(leaf);
            }
        }
        Ok(head)
    }

    async fn nodes(&self, org: &OrgId, level: TreeLevel, range: Range<u64>) -> Result<Vec<Node>, StoreError> {
        let nodes = self.memory.nodes(org, level, range).await?;
        if self.is(Fault::WideBlocks) && level == TreeLevel::Blocks {
            return Ok(nodes.chunks_exact(2).map(|pair| Node::join(pair[0], pair[1])).collect());
        }
        Ok(nodes)
    }

    async fn raw(&self, org: &OrgId, after: u64, max: u32) -> Result<Vec<RawEntry>, StoreError> {
        let mut entries = self.memory.raw(org, after, max).await?;
        if self.is(Fault::Reformats) {
            for body in entries.iter_mut().filter_map(|entry| entry.body.as_mut()) {
                *body = serde_json::from_str::<serde_json::Value>(body).unwrap().to_string();
            }
        }
        Ok(entries)
    }

    async fn sign_off(&self, org: &OrgId, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        self.heads.lock().unwrap().insert((org.clone(), checkpoint.size), checkpoint.signed.clone());
        self.memory.sign_off(org, checkpoint).await
    }

    async fn checkpoints(&self, org: &OrgId, after: u64, max: u32) -> Result<Vec<Checkpoint>, StoreError> {
        let mut all = self.memory.checkpoints(org, after, max).await?;
        if self.is(Fault::Overwrites) {
            let heads = self.heads.lock().unwrap();
            all.iter_mut().for_each(|head| head.signed = heads[&(org.clone(), head.size)].clone());
        }
        Ok(all)
    }

    async fn unsigned(&self, by: u64, after: Option<&OrgId>, max: u32) -> Result<Vec<OrgId>, StoreError> {
        let after = after.filter(|_| !self.is(Fault::Pageless));
        let mut orgs = self.memory.unsigned(by, after, max).await?;
        if self.is(Fault::Backwards) {
            orgs.reverse();
        }
        Ok(orgs)
    }

    async fn drop_bodies(&self, org: &OrgId, from: u64, up_to: u64, on: &Event) -> Result<u64, StoreError> {
        let from = match self.fault {
            Fault::DropsAnything => self.memory.head(org).await?.dropped,
            _ => from,
        };
        let dropped = self.memory.drop_bodies(org, from, up_to, on).await?;
        if dropped == 0 && self.is(Fault::SaysTwice) {
            self.memory.append(org, std::slice::from_ref(on)).await?;
        }
        Ok(dropped)
    }
}

macro_rules! catches {
    ($($name:ident: $fault:ident, $case:ident, $expected:literal;)*) => {$(
        #[tokio::test]
        #[should_panic(expected = $expected)]
        async fn $name() {
            audit_tree::$case(&Faulty::new(Fault::$fault)).await;
        }
    )*};
}

catches! {
    a_body_that_is_not_what_was_hashed_is_found_out: Reformats, raw_entries_hash_to_their_leaves, "RawEntry";
    a_head_that_was_replaced_is_found_out: Overwrites, checkpoints_stay_as_they_are, "the first of its size stays";
    a_head_that_nobody_is_told_of_is_found_out: Blind, checkpoints_stay_as_they_are, "heads of more entries are told";
    retention_that_forgets_itself_is_found_out: Forgets, bodies_are_dropped_from_the_oldest_on, "what was dropped is told";
    a_tree_without_the_last_entry_is_found_out: Behind, grows_with_the_log, "the tree has every entry";
    a_race_that_leaves_the_tree_behind_is_found_out: Behind, racing_appends_keep_the_tree, "the tree has every entry";
    blocks_of_another_size_are_found_out: WideBlocks, blocks_are_roots_of_leaves, "blocks are roots of leaves";
    an_event_about_nothing_is_found_out: SaysTwice, bodies_are_dropped_once, "nothing happened";
    retention_that_takes_anything_is_found_out: DropsAnything, bodies_are_dropped_once, "from 1 up to 2";
    organizations_in_no_order_are_found_out: Backwards, unsigned_logs, "OrgId";
    organizations_that_never_have_a_turn_are_found_out: Pageless, unsigned_logs, "after Some";
}
