//! The roles that keep the audit log, or hold its events until they are moved elsewhere.

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    id::{EventId, OrgId},
    store::{AuditFilter, AuditKey, AuditStats, AuditStore, Listing, LogEntry, Outbox, Page, StoreError},
};

use crate::{
    EmbeddedStore,
    batch::{Batch, Destination, EncodedEvent},
    snapshot::{Order, Snapshot, Visit, decode, malformed},
    tables::{Table, all_of, event_key, number_of, seq_key},
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
            Some(event) => Ok(Some(LogEntry { seq, event: decode(Table::AuditLog, event.value())? })),
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
            let event: Event = decode(Table::AuditLog, value)?;
            if filter.matches(&event) {
                stats.count(&event);
            }
            Ok(Visit::Next)
        };
        self.latest().walk(Table::AuditLog, all_of(org), Order::Ascending, visit).await?;
        Ok(stats)
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
    Ok(LogEntry { seq, event: decode(Table::AuditLog, value)? })
}
