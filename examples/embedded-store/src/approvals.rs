//! The role that keeps what agents ask people to allow.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    approval::{Approval, ApprovalStatus, ApprovalToken, Decision},
    audit::Event,
    clock::Timestamp,
    id::{OrgId, UserId},
    store::{ApprovalStore, Consume, Decide, Listing, NewApproval, Page, StoreError, Unique},
};

use crate::{
    EmbeddedStore,
    batch::{Batch, EncodedEvent, encode},
    records::{IndexRow, Record, list_range},
    snapshot::{decode, malformed},
    tables::{
        Table, approval_key, asked_from, asked_key, org_of, pending_approvals_from, pending_key,
        pending_until,
    },
};

impl Record for Approval {
    const TABLE: Table = Table::Approvals;
    const KEY: Unique = Unique::Id;

    fn key(&self, org: &OrgId) -> Vec<u8> {
        approval_key(org, self.token.as_str())
    }

    fn index_rows(&self, org: &OrgId) -> Vec<IndexRow> {
        let key = pending_key(org, self.expires_at, self.token.as_str());
        vec![IndexRow::shared(Table::PendingApprovals, key)]
    }
}

/// Takes the approval that is in `record`, whose key is `row`, off the lists of those that are pending. Whether it was there.
pub(crate) fn take_off(batch: &mut Batch<'_>, row: &[u8], record: &[u8]) -> Result<bool, StoreError> {
    let approval: Approval = decode(Table::Approvals, record)?;
    // The key of an approval is its organization, NUL, and its token.
    let org = org_of(row.strip_suffix(approval.token.as_str().as_bytes()).unwrap_or_default());
    let org = org.ok_or_else(|| malformed(Table::Approvals))?;
    batch.remove(Table::AskedApprovals, &asked_key(&org, &approval))?;
    let pending = pending_key(&org, approval.expires_at, approval.token.as_str());
    Ok(batch.remove(Table::PendingApprovals, &pending)?.is_some())
}

#[async_trait]
impl ApprovalStore for EmbeddedStore {
    async fn insert(&self, org: &OrgId, approval: &Approval, on: &Event) -> Result<NewApproval, StoreError> {
        let (key, json) = (approval.key(org), encode(Table::Approvals, approval)?);
        let pending = pending_key(org, approval.expires_at, approval.token.as_str());
        let keep_until = approval.keep_until();
        let (asked, others) = (asked_key(org, approval), asked_from(org, approval, approval.created_at));
        let (org, event, bounded) = (org.clone(), EncodedEvent::of(on)?, approval.is_bounded());
        let decide = move |batch: &mut Batch<'_>| {
            const MOST: usize = Approval::MAX_PENDING as usize;
            if batch.has(Table::Approvals, &key)? {
                return Ok(NewApproval::Taken);
            }
            if bounded {
                if batch.first_keys(Table::AskedApprovals, others.clone(), MOST)?.len() >= MOST {
                    return Ok(NewApproval::TooMany);
                }
                batch.put(Table::AskedApprovals, &asked, &[])?;
            }
            batch.put(Table::Approvals, &key, &json)?;
            batch.put(Table::PendingApprovals, &pending, &key)?;
            batch.expires(Table::Approvals, &key, None, keep_until)?;
            batch.record(&org, &event)?;
            Ok(NewApproval::Inserted)
        };
        self.writer.submit(decide).await
    }

    async fn find(&self, org: &OrgId, token: &ApprovalToken) -> Result<Option<Arc<Approval>>, StoreError> {
        // The row must not outlive the snapshot that it is of.
        let snapshot = self.latest();
        let row = snapshot.get(Table::Approvals, &approval_key(org, token.as_str()))?;
        row.map(|row| decode(Table::Approvals, row.value()).map(Arc::new)).transpose()
    }

    async fn decide(
        &self,
        org: &OrgId,
        approval: &Approval,
        decision: &Decision,
        now: Timestamp,
        on: &Event,
    ) -> Result<Decide, StoreError> {
        let (key, decision) = (approval.key(org), decision.clone());
        let (org, event) = (org.clone(), EncodedEvent::of(on)?);
        let decide = move |batch: &mut Batch<'_>| {
            let Some(record) = batch.get(Table::Approvals, &key)? else { return Ok(Decide::Missing) };
            let stored: Approval = decode(Table::Approvals, &record)?;
            match stored.status(now) {
                ApprovalStatus::Approved | ApprovalStatus::Denied => return Ok(Decide::AlreadyDecided),
                ApprovalStatus::Expired => return Ok(Decide::Expired),
                ApprovalStatus::Pending => {}
            }
            if !take_off(batch, &key, &record)? {
                // Somebody told its end, by another clock.
                return Ok(Decide::Expired);
            }
            let decided = encode(Table::Approvals, &stored.with_decision(decision.clone()))?;
            batch.put(Table::Approvals, &key, &decided)?;
            batch.record(&org, &event)?;
            Ok(Decide::Decided)
        };
        self.writer.submit(decide).await
    }

    async fn consume(
        &self,
        org: &OrgId,
        approval: &Approval,
        now: Timestamp,
        on: &Event,
    ) -> Result<Consume, StoreError> {
        let key = approval.key(org);
        let (org, event) = (org.clone(), EncodedEvent::of(on)?);
        let decide = move |batch: &mut Batch<'_>| {
            let Some(record) = batch.get(Table::Approvals, &key)? else { return Ok(Consume::Missing) };
            let stored: Approval = decode(Table::Approvals, &record)?;
            if stored.status(now) != ApprovalStatus::Approved {
                return Ok(Consume::NotApproved);
            }
            if stored.consumed_at.is_some() {
                return Ok(Consume::AlreadyConsumed);
            }
            batch.put(Table::Approvals, &key, &encode(Table::Approvals, &stored.with_consumption(now))?)?;
            batch.record(&org, &event)?;
            Ok(Consume::Consumed)
        };
        self.writer.submit(decide).await
    }

    async fn ended(&self, org: &OrgId, now: Timestamp, max: u32) -> Result<Vec<Arc<Approval>>, StoreError> {
        let (page, ended) = (Page { offset: 0, limit: max }, pending_until(org, now));
        Ok(list_range(&self.latest(), Table::PendingApprovals, ended, None, page).await?.items)
    }

    async fn lapse(
        &self,
        org: &OrgId,
        approval: &Approval,
        now: Timestamp,
        on: &Event,
    ) -> Result<bool, StoreError> {
        let key = approval.key(org);
        let (org, event) = (org.clone(), EncodedEvent::of(on)?);
        let decide = move |batch: &mut Batch<'_>| {
            let Some(record) = batch.get(Table::Approvals, &key)? else { return Ok(false) };
            let stored: Approval = decode(Table::Approvals, &record)?;
            // It is taken off the list once, by a decision or by its end.
            let told = stored.status(now) == ApprovalStatus::Expired && take_off(batch, &key, &record)?;
            if told {
                batch.record(&org, &event)?;
            }
            Ok(told)
        };
        self.writer.submit(decide).await
    }

    async fn pending(
        &self,
        org: &OrgId,
        user: Option<UserId>,
        now: Timestamp,
        page: Page,
    ) -> Result<Listing<Arc<Approval>>, StoreError> {
        let keys = pending_approvals_from(org, now);
        let asked = |approval: &Approval| approval.on_behalf_of == user;
        let wanted: Option<&(dyn Fn(&Approval) -> bool + Send + Sync)> =
            if user.is_some() { Some(&asked) } else { None };
        list_range(&self.latest(), Table::PendingApprovals, keys, wanted, page).await
    }
}
