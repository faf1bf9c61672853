//! The roles that keep the audit log, or hold its events until they are moved elsewhere.

use std::ops::Range;

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    id::{EventId, OrgId},
    merkle::Node,
    store::{
        AuditFilter, AuditKey, AuditStats, AuditStore, Checkpoint, Listing, LogEntry, LogHead, Outbox, Page,
        RawEntry, StoreError, TreeLevel, dropped_event,
    },
};

use crate::{
    EmbeddedStore,
    batch::{Batch, Destination, EncodedEvent, encode, log_row},
    snapshot::{Order, Snapshot, Visit, decode, malformed},
    tables::{Table, all_of, event_key, head_of, leaf_and_event, number_of, org_of, prefix, seq_key},
};

#[async_trait]
impl AuditStore for EmbeddedStore {
    async fn append(&self, org: &OrgId, events: &[Event]) -> Result<(), StoreError> {
        if self.destination == Destination::Outbox {
            // It would be moved to where it is already, and then forgotten.
            return Err(StoreError::other("audit.append", "the store is an outbox and keeps no log"));
        }
        if events.is_empty() {
            return Ok(());
        }
        let org = org.clone();
        let events = events.iter().map(EncodedEvent::of).collect::<Result<Vec<_>, _>>()?;
        let decide =
            move |batch: &mut Batch<'_>| events.iter().try_for_each(|event| batch.record(&org, event));
        self.writer.submit(decide).await
    }

    /// None: the writer gives the numbers.
    async fn waiting(&self, _max: u32) -> Result<Vec<OrgId>, StoreError> {
        Ok(Vec::new())
    }

    /// Nothing to do: the writer gives the numbers.
    async fn sequence(&self, _org: &OrgId, _max: u32) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn find(&self, org: &OrgId, by: AuditKey) -> Result<Option<LogEntry>, StoreError> {
        let snapshot = self.latest();
        let seq = match by {
            AuditKey::Seq(seq) => seq,
            AuditKey::Event(id) => match snapshot.get(Table::AuditIds, &event_key(org, id))? {
                Some(seq) => number_of(seq.value()).ok_or_else(|| malformed(Table::AuditIds))?,
                None => return Ok(None),
            },
        };
        match snapshot.get(Table::AuditLog, &seq_key(org, seq))? {
            Some(row) => Ok(Some(LogEntry { seq, event: event_of(row.value())? })),
            None => Ok(None),
        }
    }

    async fn page(
        &self,
        org: &OrgId,
        filter: &AuditFilter,
        page: Page,
    ) -> Result<Listing<LogEntry>, StoreError> {
        let snapshot = self.latest();
        let mut items = Vec::new();
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        if *filter == AuditFilter::default() {
            // The numbers have no gaps: the last one is the total, and the offset says where to begin.
            let total = head(&snapshot, org)?;
            let keys = seq_key(org, 0)..seq_key(org, total.saturating_sub(page.offset).saturating_add(1));
            let visit = |key: &[u8], value: &[u8]| {
                if items.len() >= limit {
                    return Ok(Visit::Stop);
                }
                items.push(entry(key, value)?);
                Ok(Visit::Next)
            };
            snapshot.walk(Table::AuditLog, keys, Order::Descending, visit).await?;
            return Ok(Listing { items, total });
        }
        let mut total = 0;
        let visit = |key: &[u8], value: &[u8]| {
            let entry = entry(key, value)?;
            if filter.matches(&entry.event) {
                if total >= page.offset && items.len() < limit {
                    items.push(entry);
                }
                total += 1;
            }
            Ok(Visit::Next)
        };
        snapshot.walk(Table::AuditLog, all_of(org), Order::Descending, visit).await?;
        Ok(Listing { items, total })
    }

    async fn stats(&self, org: &OrgId, filter: &AuditFilter) -> Result<AuditStats, StoreError> {
        let mut stats = AuditStats::default();
        let visit = |_: &[u8], value: &[u8]| {
            let event = event_of(value)?;
            if filter.matches(&event) {
                stats.count(&event);
            }
            Ok(Visit::Next)
        };
        self.latest().walk(Table::AuditLog, all_of(org), Order::Ascending, visit).await?;
        Ok(stats)
    }

    async fn head(&self, org: &OrgId) -> Result<LogHead, StoreError> {
        let snapshot = self.latest();
        let signed = last_signed(&snapshot, org)?;
        Ok(LogHead { signed, ..log_head(&snapshot, org)? })
    }

    async fn nodes(&self, org: &OrgId, level: TreeLevel, range: Range<u64>) -> Result<Vec<Node>, StoreError> {
        // Entries are counted from one, hashes from zero.
        let (table, shift) = match level {
            TreeLevel::Leaves => (Table::AuditLog, 1),
            TreeLevel::Blocks => (Table::AuditBlocks, 0),
        };
        let key = |n: u64| seq_key(org, n.saturating_add(shift));
        let mut nodes = Vec::new();
        let visit = |_: &[u8], value: &[u8]| {
            nodes.push(leaf_and_event(value).ok_or_else(|| malformed(table))?.0);
            Ok(Visit::Next)
        };
        if range.start < range.end {
            self.latest().walk(table, key(range.start)..key(range.end), Order::Ascending, visit).await?;
        }
        Ok(nodes)
    }

    async fn raw(&self, org: &OrgId, after: u64, max: u32) -> Result<Vec<RawEntry>, StoreError> {
        let snapshot = self.latest();
        let dropped = log_head(&snapshot, org)?.dropped;
        let start = after.saturating_add(1);
        let keys = seq_key(org, start)..seq_key(org, start.saturating_add(u64::from(max)));
        let mut entries = Vec::new();
        let visit = |key: &[u8], value: &[u8]| {
            entries.push(raw_entry(key, value, dropped)?);
            Ok(Visit::Next)
        };
        if max > 0 {
            snapshot.walk(Table::AuditLog, keys, Order::Ascending, visit).await?;
        }
        Ok(entries)
    }

    async fn sign_off(&self, org: &OrgId, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let (org, checkpoint) = (org.clone(), checkpoint.clone());
        let decide = move |batch: &mut Batch<'_>| {
            let key = seq_key(&org, checkpoint.size);
            if !batch.has(Table::AuditCheckpoints, &key)? {
                batch.put(Table::AuditCheckpoints, &key, checkpoint.signed.as_bytes())?;
                let head = batch.head_to_change(&org)?;
                head.signed = head.signed.max(checkpoint.size);
            }
            Ok(())
        };
        self.writer.submit(decide).await
    }

    async fn checkpoints(&self, org: &OrgId, after: u64, max: u32) -> Result<Vec<Checkpoint>, StoreError> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let mut checkpoints = Vec::new();
        let visit = |key: &[u8], value: &[u8]| {
            if checkpoints.len() >= max {
                return Ok(Visit::Stop);
            }
            let size = number_of(key).ok_or_else(|| malformed(Table::AuditCheckpoints))?;
            let signed = String::from_utf8(value.to_vec()).map_err(|_| malformed(Table::AuditCheckpoints))?;
            checkpoints.push(Checkpoint { size, signed });
            Ok(Visit::Next)
        };
        let keys = seq_key(org, after.saturating_add(1))..all_of(org).end;
        self.latest().walk(Table::AuditCheckpoints, keys, Order::Ascending, visit).await?;
        Ok(checkpoints)
    }

    async fn unsigned(&self, by: u64, after: Option<&OrgId>, max: u32) -> Result<Vec<OrgId>, StoreError> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let (snapshot, mut found) = (self.latest(), Vec::new());
        let visit = |key: &[u8], value: &[u8]| {
            if found.len() >= max {
                return Ok(Visit::Stop);
            }
            let size = head_of(value).ok_or_else(|| malformed(Table::AuditHeads))?.tree.size();
            let org = org_of(key).ok_or_else(|| malformed(Table::AuditHeads))?;
            if size.abs_diff(last_signed(&snapshot, &org)?) >= by.max(1) {
                found.push(org);
            }
            Ok(Visit::Next)
        };
        let start = after.map_or_else(Vec::new, |after| all_of(after).end);
        // Every slug begins with a letter or digit.
        snapshot.walk(Table::AuditHeads, start..vec![u8::MAX], Order::Ascending, visit).await?;
        Ok(found)
    }

    async fn drop_bodies(&self, org: &OrgId, from: u64, up_to: u64, on: &Event) -> Result<u64, StoreError> {
        let (org, on) = (org.clone(), EncodedEvent::of(on)?);
        let decide = move |batch: &mut Batch<'_>| drop_bodies(batch, &org, from..up_to, &on);
        self.writer.submit(decide).await
    }
}

#[async_trait]
impl Outbox for EmbeddedStore {
    async fn pending(&self, max: u32) -> Result<Vec<(OrgId, Event)>, StoreError> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let mut pending = Vec::new();
        let visit = |_: &[u8], value: &[u8]| {
            if pending.len() >= max {
                return Ok(Visit::Stop);
            }
            let mut parts = value.splitn(2, |byte| *byte == 0);
            let org = parts.next().and_then(|slug| OrgId::parse(str::from_utf8(slug).ok()?).ok());
            let (Some(org), Some(event)) = (org, parts.next()) else { return Err(malformed(Table::Outbox)) };
            pending.push((org, decode(Table::Outbox, event)?));
            Ok(Visit::Next)
        };
        // No number of arrival is longer than eight bytes.
        self.latest().walk(Table::Outbox, Vec::new()..vec![0xff; 9], Order::Ascending, visit).await?;
        Ok(pending)
    }

    async fn done(&self, events: &[(OrgId, EventId)]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = events.iter().map(|(org, id)| event_key(org, *id)).collect();
        let decide = move |batch: &mut Batch<'_>| {
            for id in &ids {
                if let Some(arrival) = batch.remove(Table::OutboxIds, id)? {
                    batch.remove(Table::Outbox, &arrival)?;
                }
            }
            Ok(())
        };
        self.writer.submit(decide).await
    }
}

/// The last number in the log of `org`.
fn head(snapshot: &Snapshot, org: &OrgId) -> Result<u64, StoreError> {
    match snapshot.last_key(Table::AuditLog, all_of(org))? {
        Some(key) => number_of(&key).ok_or_else(|| malformed(Table::AuditLog)),
        None => Ok(0),
    }
}

fn entry(key: &[u8], value: &[u8]) -> Result<LogEntry, StoreError> {
    let seq = number_of(key).ok_or_else(|| malformed(Table::AuditLog))?;
    Ok(LogEntry { seq, event: event_of(value)? })
}

fn parts(value: &[u8]) -> Result<(Node, &[u8]), StoreError> {
    leaf_and_event(value).ok_or_else(|| malformed(Table::AuditLog))
}

fn event_of(value: &[u8]) -> Result<Event, StoreError> {
    decode(Table::AuditLog, parts(value)?.1)
}

fn log_head(snapshot: &Snapshot, org: &OrgId) -> Result<LogHead, StoreError> {
    match snapshot.get(Table::AuditHeads, &prefix(org))? {
        Some(row) => head_of(row.value()).ok_or_else(|| malformed(Table::AuditHeads)),
        None => Ok(LogHead::default()),
    }
}

/// The size of the largest signed head.
fn last_signed(snapshot: &Snapshot, org: &OrgId) -> Result<u64, StoreError> {
    match snapshot.last_key(Table::AuditCheckpoints, all_of(org))? {
        Some(key) => number_of(&key).ok_or_else(|| malformed(Table::AuditCheckpoints)),
        None => Ok(0),
    }
}

fn raw_entry(key: &[u8], value: &[u8], dropped: u64) -> Result<RawEntry, StoreError> {
    let seq = number_of(key).ok_or_else(|| malformed(Table::AuditLog))?;
    let (leaf, json) = parts(value)?;
    let event: Event = decode(Table::AuditLog, json)?;
    let body = String::from_utf8(json.to_vec()).map_err(|_| malformed(Table::AuditLog))?;
    Ok(RawEntry { seq, event_id: event.id, at: event.at, body: (seq > dropped).then_some(body), leaf })
}

/// Drops the bodies of the entries after the first `range.start` and up to `range.end`.
fn drop_bodies(
    batch: &mut Batch<'_>,
    org: &OrgId,
    range: Range<u64>,
    on: &EncodedEvent,
) -> Result<u64, StoreError> {
    let head = batch.head_to_change(org)?;
    if head.dropped != range.start || range.is_empty() || range.end > head.tree.size() {
        return Ok(0);
    }
    head.dropped = range.end;
    for seq in range.start + 1..=range.end {
        let key = seq_key(org, seq);
        let row = batch.get(Table::AuditLog, &key)?.ok_or_else(|| malformed(Table::AuditLog))?;
        let (leaf, json) = parts(&row)?;
        let event: Event = decode(Table::AuditLog, json)?;
        let left = dropped_event(event.id, event.at, event.kind, event.outcome);
        batch.put(Table::AuditLog, &key, &log_row(leaf, &encode(Table::AuditLog, &left)?))?;
    }
    batch.record(org, on)?;
    Ok(range.end - range.start)
}
