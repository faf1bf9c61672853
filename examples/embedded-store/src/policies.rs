//! The role that keeps roles, attribute policies and relations.

use std::ops::Range;

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    clock::Timestamp,
    id::OrgId,
    policy::{Record, RecordId, RecordKind},
    store::{Apply, POLICY_TOMBSTONE_LIFE, PolicyChange, PolicyStore, Since, StoreError},
};

use crate::{
    EmbeddedStore,
    batch::{Batch, EncodedEvent},
    snapshot::{Order, Visit, malformed},
    tables::{
        Table, all_with, policy_key, policy_parts, policy_revision_key, policy_revision_parts,
        policy_revisions_after, prefix,
    },
};

/// The value of a row: at which revision it was written, until when it must be kept if it says that there is nothing, and
/// what it says.
struct Row<'a> {
    revision: u64,
    forget_after: Option<Timestamp>,
    body: &'a [u8],
}

impl<'a> Row<'a> {
    fn of(value: &'a [u8]) -> Result<Self, StoreError> {
        let split = || {
            let (revision, rest) = value.split_first_chunk::<8>()?;
            let (forget_after, body) = rest.split_first_chunk::<8>()?;
            Some((u64::from_be_bytes(*revision), u64::from_be_bytes(*forget_after), body))
        };
        let (revision, forget_after, body) = split().ok_or_else(|| malformed(Table::Policies))?;
        let forget_after = body.is_empty().then(|| Timestamp::from_unix_millis(forget_after));
        Ok(Self { revision, forget_after, body })
    }

    fn bytes(&self) -> Vec<u8> {
        let forget_after = self.forget_after.map_or(0, Timestamp::unix_millis);
        [&self.revision.to_be_bytes()[..], &forget_after.to_be_bytes(), self.body].concat()
    }

    /// The record `id`, which is in this row.
    fn record(&self, id: RecordId) -> Result<Record, StoreError> {
        let body = match self.forget_after {
            Some(_) => None,
            None => Some(str::from_utf8(self.body).map_err(|_| malformed(Table::Policies))?.into()),
        };
        Ok(Record { id, revision: self.revision, body })
    }
}

/// The revision of an organization, and the least one whose removals are all remembered.
#[derive(Clone, Copy, Default)]
struct Head {
    revision: u64,
    oldest: u64,
}

impl Head {
    fn of(value: Option<&[u8]>) -> Result<Self, StoreError> {
        let Some(value) = value else { return Ok(Self::default()) };
        let split = || {
            let (revision, oldest) = value.split_first_chunk::<8>()?;
            Some(Self {
                revision: u64::from_be_bytes(*revision),
                oldest: u64::from_be_bytes(oldest.try_into().ok()?),
            })
        };
        split().ok_or_else(|| malformed(Table::PolicyHeads))
    }

    fn write(self, batch: &mut Batch<'_>, org: &[u8]) -> Result<(), StoreError> {
        let value = [self.revision.to_be_bytes(), self.oldest.to_be_bytes()].concat();
        batch.put(Table::PolicyHeads, org, &value)
    }
}

/// Forgets what the row `key` said, which was purged: whoever has not heard of that removal yet reads everything.
pub(crate) fn forget(batch: &mut Batch<'_>, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    let row = Row::of(value)?;
    let (org, id) = policy_parts(key).ok_or_else(|| malformed(Table::Policies))?;
    batch.remove(Table::PolicyRevisions, &policy_revision_key(org, row.revision, id))?;
    let mut head = Head::of(batch.get(Table::PolicyHeads, org)?.as_deref())?;
    head.oldest = head.oldest.max(row.revision);
    head.write(batch, org)
}

/// The name in the last part of a key.
fn record_id(id: &[u8]) -> Result<RecordId, StoreError> {
    let split = || {
        let text = str::from_utf8(id).ok()?;
        let (kind, key) = text.split_once('\0')?;
        RecordId::new(RecordKind::named(kind)?, key).ok()
    };
    split().ok_or_else(|| malformed(Table::Policies))
}

#[async_trait]
impl PolicyStore for EmbeddedStore {
    async fn apply(
        &self,
        org: &OrgId,
        changes: &[PolicyChange],
        on: &Event,
        now: Timestamp,
    ) -> Result<Apply, StoreError> {
        let (org, changes, event) = (org.clone(), changes.to_vec(), EncodedEvent::of(on)?);
        let forget_after = now.plus(POLICY_TOMBSTONE_LIFE);
        let decide = move |batch: &mut Batch<'_>| {
            let own = prefix(&org);
            let mut found = Vec::with_capacity(changes.len());
            for (place, change) in changes.iter().enumerate() {
                let row = batch.get(Table::Policies, &policy_key(&org, &change.id))?;
                let there = row.as_deref().map(Row::of).transpose()?;
                let revision = there.filter(|row| row.forget_after.is_none()).map(|row| row.revision);
                if !change.expect.admits(revision, change.body.is_none()) {
                    return Ok(Apply::Conflict(place));
                }
                found.push(row);
            }
            let mut head = Head::of(batch.get(Table::PolicyHeads, &own)?.as_deref())?;
            head.revision += 1;
            for (change, old) in changes.iter().zip(&found) {
                let key = policy_key(&org, &change.id);
                let (_, id) = policy_parts(&key).ok_or_else(|| malformed(Table::Policies))?;
                if let Some(old) = old {
                    let old = Row::of(old)?;
                    batch.remove(Table::PolicyRevisions, &policy_revision_key(&own, old.revision, id))?;
                    if let Some(before) = old.forget_after {
                        batch.expires_no_more(Table::Policies, &key, before)?;
                    }
                }
                let body = change.body.as_deref().unwrap_or_default().as_bytes();
                let forget_after = change.body.is_none().then_some(forget_after);
                let row = Row { revision: head.revision, forget_after, body };
                batch.put(Table::Policies, &key, &row.bytes())?;
                batch.put(Table::PolicyRevisions, &policy_revision_key(&own, head.revision, id), &[])?;
                if let Some(at) = forget_after {
                    batch.expires(Table::Policies, &key, None, at)?;
                }
            }
            head.write(batch, &own)?;
            batch.record(&org, &event)?;
            Ok(Apply::Applied { revision: head.revision })
        };
        self.writer.submit(decide).await
    }

    async fn revision(&self, org: &OrgId) -> Result<u64, StoreError> {
        let head = self.latest().get(Table::PolicyHeads, &prefix(org))?;
        Ok(Head::of(head.as_ref().map(|head| head.value()))?.revision)
    }

    async fn page(
        &self,
        org: &OrgId,
        after: Option<&RecordId>,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        let Range { mut start, end } = all_with(org, &[]);
        if let Some(after) = after {
            start = policy_key(org, after);
            // The least key after it.
            start.push(0);
        }
        let mut records = Vec::new();
        let visit = |key: &[u8], value: &[u8]| {
            if records.len() >= limit as usize {
                return Ok(Visit::Stop);
            }
            let row = Row::of(value)?;
            if row.forget_after.is_none() {
                let (_, id) = policy_parts(key).ok_or_else(|| malformed(Table::Policies))?;
                records.push(row.record(record_id(id)?)?);
            }
            Ok(Visit::Next)
        };
        self.latest().walk(Table::Policies, start..end, Order::Ascending, visit).await?;
        Ok(records)
    }

    async fn since(&self, org: &OrgId, revision: u64, limit: u32) -> Result<Since, StoreError> {
        let (snapshot, own) = (self.latest(), prefix(org));
        let head = snapshot.get(Table::PolicyHeads, &own)?;
        let head = Head::of(head.as_ref().map(|head| head.value()))?;
        if revision == head.revision {
            return Ok(Since::UpToDate);
        }
        if revision < head.oldest || revision > head.revision {
            return Ok(Since::TooOld);
        }
        let mut records = Vec::new();
        let visit = |key: &[u8], _: &[u8]| {
            let (_, id) = policy_revision_parts(key).ok_or_else(|| malformed(Table::PolicyRevisions))?;
            let id = record_id(id)?;
            let row = snapshot.get(Table::Policies, &policy_key(org, &id))?;
            let row = row.ok_or_else(|| malformed(Table::PolicyRevisions))?;
            records.push(Row::of(row.value())?.record(id)?);
            Ok(if records.len() > limit as usize { Visit::Stop } else { Visit::Next })
        };
        let keys = policy_revisions_after(org, revision);
        snapshot.walk(Table::PolicyRevisions, keys, Order::Ascending, visit).await?;
        if records.len() > limit as usize {
            return Ok(Since::TooOld);
        }
        Ok(Since::Changed { records, revision: head.revision })
    }
}
