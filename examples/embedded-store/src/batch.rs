//! Writing: what the operations of one write transaction see and do.

use std::{collections::HashMap, mem, ops::Range};

use lumoauth_core::{
    audit::Event,
    clock::Timestamp,
    id::{EventId, OrgId},
    merkle::{BLOCK, Node, entry_leaf},
    store::{LogHead, StoreError},
};
use redb::{ReadableTable, WriteTransaction};

use crate::{
    cache::{Changed, is_cached},
    snapshot::{decode, malformed, store_error},
    tables::{Bytes, Table, event_key, expiry_key, head_of, head_row, number_of, org_of, prefix, seq_key},
};

/// Where audit events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Into the log of this file, with a number.
    Log,
    /// Into the outbox of this file, until they are moved to a log elsewhere.
    Outbox,
}

/// An event as it is stored. Encoding is work for the caller's thread, not for the only writer.
pub(crate) struct EncodedEvent {
    id: EventId,
    at: Timestamp,
    json: Vec<u8>,
}

impl EncodedEvent {
    pub(crate) fn of(event: &Event) -> Result<Self, StoreError> {
        Ok(Self { id: event.id, at: event.at, json: encode(Table::AuditLog, event)? })
    }
}

/// The value of a row of [`Table::AuditLog`].
pub(crate) fn log_row(leaf: Node, json: &[u8]) -> Vec<u8> {
    [leaf.as_bytes().as_slice(), json].concat()
}

/// `record` as JSON.
pub(crate) fn encode(table: Table, record: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|error| StoreError::other(table.name(), error))
}

/// One write transaction, shared by the operations of a batch. Each sees what those before it wrote; nobody is
/// answered before all of it is durable.
pub(crate) struct Batch<'t> {
    transaction: &'t WriteTransaction,
    tables: [Option<redb::Table<'t, Bytes, Bytes>>; Table::COUNT],
    /// The heads of the logs that were looked at. They are written at the end, once for all entries of a batch.
    heads: HashMap<OrgId, Head>,
    destination: Destination,
    writes: u64,
    /// The rows that were written or removed and may be cached.
    changed: Vec<Changed>,
}

/// The head of a log, and whether it changed.
struct Head {
    head: LogHead,
    changed: bool,
}

impl<'t> Batch<'t> {
    pub(crate) fn new(transaction: &'t WriteTransaction, destination: Destination) -> Self {
        let tables = [const { None }; Table::COUNT];
        Self { transaction, tables, heads: HashMap::new(), destination, writes: 0, changed: Vec::new() }
    }

    /// How many rows were written or removed so far.
    pub(crate) const fn writes(&self) -> u64 {
        self.writes
    }

    /// Writes what was kept back. Returns the rows that the caches must forget once this is committed.
    pub(crate) fn finish(mut self) -> Result<Vec<Changed>, StoreError> {
        for (org, head) in mem::take(&mut self.heads) {
            if head.changed {
                self.put(Table::AuditHeads, &prefix(&org), &head_row(&head.head))?;
            }
        }
        Ok(self.changed)
    }

    pub(crate) fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self.table(table)?.get(key).map_err(|error| store_error(table, error))?;
        Ok(row.map(|row| row.value().to_vec()))
    }

    pub(crate) fn has(&mut self, table: Table, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.table(table)?.get(key).map_err(|error| store_error(table, error))?.is_some())
    }

    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.note(table, key);
        self.table(table)?.insert(key, value).map_err(|error| store_error(table, error))?;
        Ok(())
    }

    /// Removes a row; what was there.
    pub(crate) fn remove(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self.table(table)?.remove(key).map_err(|error| store_error(table, error))?;
        let row = row.map(|row| row.value().to_vec());
        if row.is_some() {
            self.note(table, key);
        }
        Ok(row)
    }

    fn note(&mut self, table: Table, key: &[u8]) {
        self.writes += 1;
        if is_cached(table) {
            self.changed.push((table, key.to_vec()));
        }
    }

    /// The first `max` keys of a range.
    pub(crate) fn first_keys(
        &mut self,
        table: Table,
        keys: Range<Vec<u8>>,
        max: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let range = self
            .table(table)?
            .range(keys.start.as_slice()..keys.end.as_slice())
            .map_err(|error| store_error(table, error))?;
        range
            .take(max)
            .map(|entry| Ok(entry.map_err(|error| store_error(table, error))?.0.value().to_vec()))
            .collect()
    }

    /// Notes that `row` may be purged after `at`, and no longer after `before`.
    pub(crate) fn expires(
        &mut self,
        table: Table,
        row: &[u8],
        before: Option<Timestamp>,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        if let Some(old) = before.and_then(|before| expiry_key(before, table, row)) {
            self.remove(Table::Expiries, &old)?;
        }
        match expiry_key(at, table, row) {
            Some(new) => self.put(Table::Expiries, &new, &[]),
            None => Err(malformed(table)),
        }
    }

    /// Notes that `row`, which could have been purged after `at`, is to stay.
    pub(crate) fn expires_no_more(
        &mut self,
        table: Table,
        row: &[u8],
        at: Timestamp,
    ) -> Result<(), StoreError> {
        match expiry_key(at, table, row) {
            Some(old) => self.remove(Table::Expiries, &old).map(drop),
            None => Err(malformed(table)),
        }
    }

    /// Writes the event unless it is known.
    pub(crate) fn record(&mut self, org: &OrgId, event: &EncodedEvent) -> Result<(), StoreError> {
        let id = event_key(org, event.id);
        match self.destination {
            Destination::Log => {
                if self.has(Table::AuditIds, &id)? {
                    return Ok(());
                }
                let seq = self.enter(org, event.id, event.at, &event.json)?;
                self.put(Table::AuditIds, &id, &seq.to_be_bytes())?;
            }
            Destination::Outbox => {
                if self.has(Table::OutboxIds, &id)? {
                    return Ok(());
                }
                let arrival = self.last_arrival()? + 1;
                let entry = [prefix(org), event.json.clone()].concat();
                self.put(Table::Outbox, &arrival.to_be_bytes(), &entry)?;
                self.put(Table::OutboxIds, &id, &arrival.to_be_bytes())?;
            }
        }
        Ok(())
    }

    /// Writes an event at the end of the log of `org`; its number.
    fn enter(&mut self, org: &OrgId, id: EventId, at: Timestamp, json: &[u8]) -> Result<u64, StoreError> {
        let head = self.head_to_change(org)?;
        let seq = head.tree.size() + 1;
        let leaf = entry_leaf(org, seq, id, at, json);
        if let Some(block) = head.tree.push(leaf) {
            self.put(Table::AuditBlocks, &seq_key(org, seq / BLOCK - 1), block.as_bytes())?;
        }
        self.put(Table::AuditLog, &seq_key(org, seq), &log_row(leaf, json))?;
        Ok(seq)
    }

    /// Gives the entries of all logs their leaves. They have none, and no number is missing.
    pub(crate) fn hash_logs(&mut self) -> Result<(), StoreError> {
        const STEP: usize = 1000;
        let mut from = Vec::new();
        loop {
            // Every slug begins with a letter or digit.
            let keys = self.first_keys(Table::AuditLog, from..vec![u8::MAX], STEP)?;
            let Some(last) = keys.last() else { return Ok(()) };
            from = [last.as_slice(), &[0]].concat();
            for key in &keys {
                let bad = || malformed(Table::AuditLog);
                let (org, number) = key.split_last_chunk::<8>().ok_or_else(bad)?;
                let org = org_of(org).ok_or_else(bad)?;
                let json = self.get(Table::AuditLog, key)?.ok_or_else(bad)?;
                let event: Event = decode(Table::AuditLog, &json)?;
                if self.enter(&org, event.id, event.at, &json)? != u64::from_be_bytes(*number) {
                    return Err(bad());
                }
            }
        }
    }

    /// How far the log of `org` has come, to be written at the end.
    pub(crate) fn head_to_change(&mut self, org: &OrgId) -> Result<&mut LogHead, StoreError> {
        if !self.heads.contains_key(org) {
            let head = match self.get(Table::AuditHeads, &prefix(org))? {
                Some(row) => head_of(&row).ok_or_else(|| malformed(Table::AuditHeads))?,
                None => LogHead::default(),
            };
            self.heads.insert(org.clone(), Head { head, changed: false });
        }
        let head = self.heads.get_mut(org).ok_or_else(|| malformed(Table::AuditHeads))?;
        head.changed = true;
        Ok(&mut head.head)
    }

    fn last_arrival(&mut self) -> Result<u64, StoreError> {
        let last = self.table(Table::Outbox)?.last().map_err(|error| store_error(Table::Outbox, error))?;
        let Some((key, _)) = last else { return Ok(0) };
        number_of(key.value()).ok_or_else(|| malformed(Table::Outbox))
    }

    fn table(&mut self, table: Table) -> Result<&mut redb::Table<'t, Bytes, Bytes>, StoreError> {
        let slot = &mut self.tables[table as usize];
        match slot {
            Some(open) => Ok(open),
            None => {
                let open = self
                    .transaction
                    .open_table(table.definition())
                    .map_err(|error| store_error(table, error))?;
                Ok(slot.insert(open))
            }
        }
    }
}
