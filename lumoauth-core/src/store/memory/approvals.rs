//! Approvals in memory.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
};

use async_trait::async_trait;

use super::{MemoryStore, Outcome, table::Pager};
use crate::{
    approval::{Approval, ApprovalStatus, ApprovalToken, Decision},
    audit::Event,
    clock::Timestamp,
    id::{AgentId, OrgId, UserId},
    store::{ApprovalStore, Consume, Decide, Listing, NewApproval, Page, StoreError},
};

/// The approvals of one organization.
#[derive(Default)]
pub(super) struct Approvals {
    by_token: HashMap<ApprovalToken, Arc<Approval>>,
    by_end: BTreeSet<(Timestamp, ApprovalToken)>,
    /// Those that nobody decided and whose end nobody told.
    open: BTreeSet<(Timestamp, ApprovalToken)>,
    /// By who asks whom, what of that is bounded and was open when it last asked.
    asked: HashMap<Pair, Vec<(Timestamp, ApprovalToken)>>,
}

/// Who asks whom.
type Pair = (AgentId, Option<UserId>);

impl Approvals {
    fn insert(&mut self, approval: &Approval) -> NewApproval {
        if self.by_token.contains_key(&approval.token) {
            return NewApproval::Taken;
        }
        let end = (approval.expires_at, approval.token.clone());
        if approval.decision.is_none() {
            if approval.is_bounded() {
                let now = approval.created_at;
                let asked = self.asked.entry((approval.agent, approval.on_behalf_of)).or_default();
                asked.retain(|other| other.0 > now && self.open.contains(other));
                if asked.len() >= Approval::MAX_PENDING as usize {
                    return NewApproval::TooMany;
                }
                asked.push(end.clone());
            }
            self.open.insert(end.clone());
        }
        self.by_end.insert(end);
        self.by_token.insert(approval.token.clone(), Arc::new(approval.clone()));
        NewApproval::Inserted
    }

    fn decide(&mut self, token: &ApprovalToken, decision: &Decision, now: Timestamp) -> Decide {
        let Some(stored) = self.by_token.get_mut(token) else { return Decide::Missing };
        match stored.status(now) {
            ApprovalStatus::Approved | ApprovalStatus::Denied => Decide::AlreadyDecided,
            ApprovalStatus::Expired => Decide::Expired,
            // Somebody told its end, by another clock.
            ApprovalStatus::Pending if !self.open.remove(&(stored.expires_at, token.clone())) => {
                Decide::Expired
            }
            ApprovalStatus::Pending => {
                *stored = Arc::new(stored.with_decision(decision.clone()));
                Decide::Decided
            }
        }
    }

    fn consume(&mut self, token: &ApprovalToken, now: Timestamp) -> Consume {
        let Some(stored) = self.by_token.get_mut(token) else { return Consume::Missing };
        match (stored.status(now), stored.consumed_at) {
            (ApprovalStatus::Approved, None) => {
                *stored = Arc::new(stored.with_consumption(now));
                Consume::Consumed
            }
            (ApprovalStatus::Approved, Some(_)) => Consume::AlreadyConsumed,
            (ApprovalStatus::Pending | ApprovalStatus::Denied | ApprovalStatus::Expired, _) => {
                Consume::NotApproved
            }
        }
    }

    fn pending(&self, user: Option<UserId>, now: Timestamp, page: Page) -> Listing<Arc<Approval>> {
        let mut pager = Pager::new(page);
        self.open
            .iter()
            .filter_map(|(_, token)| self.by_token.get(token))
            .filter(|approval| approval.status(now) == ApprovalStatus::Pending)
            .filter(|approval| user.is_none() || approval.on_behalf_of == user)
            .for_each(|approval| pager.offer(|| Arc::clone(approval)));
        pager.finish()
    }

    fn ended(&self, now: Timestamp, max: usize) -> Vec<Arc<Approval>> {
        let ended = self.open.iter().take_while(|(end, _)| *end <= now).take(max);
        ended.filter_map(|(_, token)| self.by_token.get(token).cloned()).collect()
    }

    /// Whether the end of it was not told before.
    fn lapse(&mut self, approval: &Approval, now: Timestamp) -> bool {
        approval.expires_at <= now && self.open.remove(&(approval.expires_at, approval.token.clone()))
    }

    /// Drops up to `max` whose time is long over; how many.
    pub(super) fn purge(&mut self, now: Timestamp, max: u64) -> u64 {
        let mut dropped = 0;
        while dropped < max
            && let Some((_, token)) = self.by_end.first()
            && self.by_token.get(token).is_none_or(|approval| approval.keep_until() < now)
        {
            if let Some(end) = self.by_end.pop_first() {
                self.open.remove(&end);
                if let Some(approval) = self.by_token.remove(&end.1)
                    && let Entry::Occupied(mut asked) =
                        self.asked.entry((approval.agent, approval.on_behalf_of))
                {
                    asked.get_mut().retain(|other| *other != end);
                    if asked.get().is_empty() {
                        asked.remove();
                    }
                }
            }
            dropped += 1;
        }
        dropped
    }
}

impl Outcome for NewApproval {
    fn is_change(&self) -> bool {
        *self == Self::Inserted
    }
}

impl Outcome for Decide {
    fn is_change(&self) -> bool {
        *self == Self::Decided
    }
}

impl Outcome for Consume {
    fn is_change(&self) -> bool {
        *self == Self::Consumed
    }
}

/// Whether it was told.
impl Outcome for bool {
    fn is_change(&self) -> bool {
        *self
    }
}

#[async_trait]
impl ApprovalStore for MemoryStore {
    async fn insert(&self, org: &OrgId, approval: &Approval, on: &Event) -> Result<NewApproval, StoreError> {
        Ok(self.recorded(&self.approvals, org, on, |approvals| approvals.insert(approval)))
    }

    async fn find(&self, org: &OrgId, token: &ApprovalToken) -> Result<Option<Arc<Approval>>, StoreError> {
        Ok(self.approvals.read(org, |approvals| approvals.by_token.get(token).cloned()))
    }

    async fn decide(
        &self,
        org: &OrgId,
        approval: &Approval,
        decision: &Decision,
        now: Timestamp,
        on: &Event,
    ) -> Result<Decide, StoreError> {
        let token = &approval.token;
        Ok(self.recorded(&self.approvals, org, on, |approvals| approvals.decide(token, decision, now)))
    }

    async fn consume(
        &self,
        org: &OrgId,
        approval: &Approval,
        now: Timestamp,
        on: &Event,
    ) -> Result<Consume, StoreError> {
        let token = &approval.token;
        Ok(self.recorded(&self.approvals, org, on, |approvals| approvals.consume(token, now)))
    }

    async fn ended(&self, org: &OrgId, now: Timestamp, max: u32) -> Result<Vec<Arc<Approval>>, StoreError> {
        Ok(self.approvals.read(org, |approvals| approvals.ended(now, max as usize)))
    }

    async fn lapse(
        &self,
        org: &OrgId,
        approval: &Approval,
        now: Timestamp,
        on: &Event,
    ) -> Result<bool, StoreError> {
        Ok(self.recorded(&self.approvals, org, on, |approvals| approvals.lapse(approval, now)))
    }

    async fn pending(
        &self,
        org: &OrgId,
        user: Option<UserId>,
        now: Timestamp,
        page: Page,
    ) -> Result<Listing<Arc<Approval>>, StoreError> {
        Ok(self.approvals.read(org, |approvals| approvals.pending(user, now, page)))
    }
}
