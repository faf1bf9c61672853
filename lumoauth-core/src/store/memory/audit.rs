//! The audit log and the outbox in memory.

use std::{
    collections::{BTreeMap, HashMap, btree_map, hash_map},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;

use super::{MemoryStore, lock, per_org::PerOrg, table::Pager};
use crate::{
    audit::Event,
    id::{EventId, OrgId},
    store::{AuditFilter, AuditKey, AuditStats, AuditStore, Listing, LogEntry, Outbox, Page, StoreError},
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
