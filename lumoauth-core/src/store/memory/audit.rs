//! The audit log and the outbox in memory.
//!
//! Entries are hashed when somebody asks for the tree: nothing outside of this process can change them until then.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map, hash_map},
    ops::Range,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;

use super::{MemoryStore, lock, per_org::PerOrg, table::Pager};
use crate::{
    audit::Event,
    id::{EventId, OrgId},
    merkle::{Frontier, Node, entry_leaf},
    store::{
        AuditFilter, AuditKey, AuditStats, AuditStore, Checkpoint, Listing, LogEntry, LogHead, Outbox, Page,
        RawEntry, StoreError, TreeLevel, dropped_event,
    },
};

/// Where events go: into the log, or in outbox mode into the outbox.
#[derive(Default)]
pub(super) struct Journal {
    logs: PerOrg<Log>,
    outbox: Option<Mutex<Queue>>,
}

/// The log of one organization. It is only ever appended to; an entry's number is its place.
#[derive(Default)]
struct Log {
    events: Vec<Arc<Event>>,
    /// Event ids ascend, so this tree grows at its end; and it never stops to grow all at once, as a hash map
    /// does.
    seqs: BTreeMap<EventId, u64>,
    tree: Tree,
    /// Up to which number bodies were dropped.
    dropped: u64,
    /// Signed heads by size.
    checkpoints: BTreeMap<u64, String>,
}

/// The hashes of the entries that it has seen.
#[derive(Default)]
struct Tree {
    frontier: Frontier,
    leaves: Vec<Node>,
    blocks: Vec<Node>,
}

fn body_of(event: &Event) -> Result<String, StoreError> {
    serde_json::to_string(event).map_err(|error| StoreError::other("audit.tree", error))
}

/// The part of `all` with these places, as far as it is there.
fn part<T>(all: &[T], range: Range<u64>) -> &[T] {
    let place = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(all.len());
    all.get(place(range.start)..place(range.end)).unwrap_or_default()
}

/// Events that wait for a log elsewhere, in the order of their arrival.
#[derive(Default)]
struct Queue {
    arrived: u64,
    waiting: BTreeMap<u64, (OrgId, Arc<Event>)>,
    places: HashMap<(OrgId, EventId), u64>,
}

impl Journal {
    pub(super) fn with_outbox() -> Self {
        Self { outbox: Some(Mutex::default()), ..Self::default() }
    }

    /// Adds `events` in their order, without those that are known.
    pub(super) fn write(&self, org: &OrgId, events: impl IntoIterator<Item = Arc<Event>>) {
        match &self.outbox {
            None => self.logs.write(org, |log| events.into_iter().for_each(|event| log.push(event))),
            Some(outbox) => {
                let mut queue = lock(outbox);
                events.into_iter().for_each(|event| queue.push(org, event));
            }
        }
    }

    /// Shows every entry that is there now to `visit`, newest first. The lock is not held all the time: what
    /// has a place in the log keeps it, and writers must not wait for whoever reads a long log.
    fn visit(&self, org: &OrgId, mut visit: impl FnMut(u64, &Arc<Event>)) {
        const AT_ONCE: u64 = 4096;
        let mut end = self.logs.read(org, Log::last);
        while end > 0 {
            let start = end.saturating_sub(AT_ONCE);
            self.logs.read(org, |log| {
                (start + 1..=end).rev().for_each(|seq| {
                    if let Some(event) = log.get(seq) {
                        visit(seq, event);
                    }
                });
            });
            end = start;
        }
    }
}

impl Log {
    fn last(&self) -> u64 {
        u64::try_from(self.events.len()).unwrap_or(u64::MAX)
    }

    fn get(&self, seq: u64) -> Option<&Arc<Event>> {
        self.events.get(usize::try_from(seq.checked_sub(1)?).ok()?)
    }

    fn entry(&self, seq: u64) -> Option<LogEntry> {
        Some(LogEntry { seq, event: Event::clone(self.get(seq)?) })
    }

    /// A page of everything, newest first, without a look at what is not on it.
    fn newest(&self, page: Page) -> Listing<LogEntry> {
        let newest = self.last().saturating_sub(page.offset);
        let before = newest.saturating_sub(u64::from(page.limit));
        let items = (before + 1..=newest).rev().filter_map(|seq| self.entry(seq)).collect();
        Listing { items, total: self.last() }
    }

    /// The tree with every entry in it.
    fn grown(&mut self, org: &OrgId) -> Result<&Tree, StoreError> {
        let tree = &mut self.tree;
        for event in self.events.iter().skip(tree.leaves.len()) {
            let seq = tree.frontier.size() + 1;
            let leaf = entry_leaf(org, seq, event.id, event.at, body_of(event)?.as_bytes());
            tree.blocks.extend(tree.frontier.push(leaf));
            tree.leaves.push(leaf);
        }
        Ok(tree)
    }

    fn raw(&mut self, org: &OrgId, after: u64, max: u32) -> Result<Vec<RawEntry>, StoreError> {
        self.grown(org)?;
        let range = after..after.saturating_add(u64::from(max));
        let (events, leaves) = (part(&self.events, range.clone()), part(&self.tree.leaves, range));
        let entries = events.iter().zip(leaves).zip(after.saturating_add(1)..).map(|((event, leaf), seq)| {
            let body = (seq > self.dropped).then(|| body_of(event)).transpose()?;
            Ok(RawEntry { seq, event_id: event.id, at: event.at, body, leaf: *leaf })
        });
        entries.collect()
    }

    fn drop_bodies(&mut self, org: &OrgId, from: u64, up_to: u64, on: Arc<Event>) -> Result<u64, StoreError> {
        if from != self.dropped || up_to <= from || up_to > self.last() {
            return Ok(0);
        }
        self.grown(org)?;
        let place = |seq: u64| usize::try_from(seq).unwrap_or(usize::MAX);
        for event in self.events.get_mut(place(from)..place(up_to)).unwrap_or_default() {
            *event = Arc::new(dropped_event(event.id, event.at, event.kind, event.outcome));
        }
        self.dropped = up_to;
        self.push(on);
        Ok(up_to - from)
    }

    fn signed(&self) -> u64 {
        self.checkpoints.last_key_value().map_or(0, |(size, _)| *size)
    }

    fn push(&mut self, event: Arc<Event>) {
        let next = self.last() + 1;
        if let btree_map::Entry::Vacant(vacant) = self.seqs.entry(event.id) {
            vacant.insert(next);
            self.events.push(event);
        }
    }
}

impl Queue {
    fn push(&mut self, org: &OrgId, event: Arc<Event>) {
        let place = self.arrived;
        if let hash_map::Entry::Vacant(vacant) = self.places.entry((org.clone(), event.id)) {
            vacant.insert(place);
            self.waiting.insert(place, (org.clone(), event));
            self.arrived += 1;
        }
    }
}

#[async_trait]
impl AuditStore for MemoryStore {
    async fn append(&self, org: &OrgId, events: &[Event]) -> Result<(), StoreError> {
        if self.journal.outbox.is_some() {
            // It would be moved to where it is already, and then forgotten.
            return Err(StoreError::other("audit.append", "the store is an outbox and keeps no log"));
        }
        let events: Vec<_> = events.iter().cloned().map(Arc::new).collect();
        self.journal.write(org, events);
        Ok(())
    }

    async fn waiting(&self, _max: u32) -> Result<Vec<OrgId>, StoreError> {
        Ok(Vec::new())
    }

    async fn sequence(&self, _org: &OrgId, _max: u32) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn find(&self, org: &OrgId, key: AuditKey) -> Result<Option<LogEntry>, StoreError> {
        Ok(self.journal.logs.read(org, |log| {
            let seq = match key {
                AuditKey::Seq(seq) => seq,
                AuditKey::Event(id) => *log.seqs.get(&id)?,
            };
            log.entry(seq)
        }))
    }

    async fn page(
        &self,
        org: &OrgId,
        filter: &AuditFilter,
        page: Page,
    ) -> Result<Listing<LogEntry>, StoreError> {
        if *filter == AuditFilter::default() {
            return Ok(self.journal.logs.read(org, |log| log.newest(page)));
        }
        let mut pager = Pager::new(page);
        self.journal.visit(org, |seq, event| {
            if filter.matches(event) {
                pager.offer(|| LogEntry { seq, event: Event::clone(event) });
            }
        });
        Ok(pager.finish())
    }

    async fn stats(&self, org: &OrgId, filter: &AuditFilter) -> Result<AuditStats, StoreError> {
        let mut stats = AuditStats::default();
        self.journal.visit(org, |_, event| {
            if filter.matches(event) {
                stats.count(event);
            }
        });
        Ok(stats)
    }

    async fn head(&self, org: &OrgId) -> Result<LogHead, StoreError> {
        let (last, signed) = self.journal.logs.read(org, |log| (log.last(), log.signed()));
        if last == 0 {
            return Ok(LogHead { signed, ..LogHead::default() });
        }
        self.journal.logs.write(org, |log| {
            let tree = log.grown(org)?.frontier.clone();
            Ok(LogHead { tree, dropped: log.dropped, signed: log.signed() })
        })
    }

    async fn nodes(&self, org: &OrgId, level: TreeLevel, range: Range<u64>) -> Result<Vec<Node>, StoreError> {
        if self.journal.logs.read(org, Log::last) == 0 {
            return Ok(Vec::new());
        }
        self.journal.logs.write(org, |log| {
            let tree = log.grown(org)?;
            let all = match level {
                TreeLevel::Leaves => &tree.leaves,
                TreeLevel::Blocks => &tree.blocks,
            };
            Ok(part(all, range).to_vec())
        })
    }

    async fn raw(&self, org: &OrgId, after: u64, max: u32) -> Result<Vec<RawEntry>, StoreError> {
        if self.journal.logs.read(org, Log::last) == 0 {
            return Ok(Vec::new());
        }
        self.journal.logs.write(org, |log| log.raw(org, after, max))
    }

    async fn sign_off(&self, org: &OrgId, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        self.journal.logs.write(org, |log| {
            log.checkpoints.entry(checkpoint.size).or_insert_with(|| checkpoint.signed.clone());
        });
        Ok(())
    }

    async fn checkpoints(&self, org: &OrgId, after: u64, max: u32) -> Result<Vec<Checkpoint>, StoreError> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        Ok(self.journal.logs.read(org, |log| {
            let above = log.checkpoints.range(after.saturating_add(1)..).take(max);
            above.map(|(size, signed)| Checkpoint { size: *size, signed: signed.clone() }).collect()
        }))
    }

    async fn unsigned(&self, by: u64, after: Option<&OrgId>, max: u32) -> Result<Vec<OrgId>, StoreError> {
        let mut found = BTreeSet::new();
        self.journal.logs.read_each(|org, log| {
            let is_next = after.is_none_or(|after| org > after);
            if is_next && log.last().abs_diff(log.signed()) >= by.max(1) {
                found.insert(org.clone());
            }
        });
        Ok(found.into_iter().take(usize::try_from(max).unwrap_or(usize::MAX)).collect())
    }

    async fn drop_bodies(&self, org: &OrgId, from: u64, up_to: u64, on: &Event) -> Result<u64, StoreError> {
        if self.journal.logs.read(org, Log::last) == 0 {
            return Ok(0);
        }
        self.journal.logs.write(org, |log| log.drop_bodies(org, from, up_to, Arc::new(on.clone())))
    }
}

#[async_trait]
impl Outbox for MemoryStore {
    async fn pending(&self, max: u32) -> Result<Vec<(OrgId, Event)>, StoreError> {
        let Some(outbox) = &self.journal.outbox else { return Ok(Vec::new()) };
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let queue = lock(outbox);
        Ok(queue.waiting.values().take(max).map(|(org, event)| (org.clone(), Event::clone(event))).collect())
    }

    async fn done(&self, events: &[(OrgId, EventId)]) -> Result<(), StoreError> {
        let Some(outbox) = &self.journal.outbox else { return Ok(()) };
        let mut queue = lock(outbox);
        for event in events {
            if let Some(place) = queue.places.remove(event) {
                queue.waiting.remove(&place);
            }
        }
        Ok(())
    }
}
