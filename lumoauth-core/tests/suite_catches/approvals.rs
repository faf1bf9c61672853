//! Approvals that are decided twice, too late, or by the neighbours.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    approval::{Approval, ApprovalToken, Decision},
    audit::Event,
    clock::Timestamp,
    id::{AgentId, OrgId, UserId},
    store::{
        ApprovalStore, Consume, Decide, Listing, MemoryStore, NewApproval, Page, StoreError,
        conformance::{
            approvals,
            recorded::{Trail, writes_its_events},
        },
    },
};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Checks first, acts later.
    Racy,
    /// Believes that there is always time.
    Timeless,
    /// Keeps everything of everybody under one name.
    OrgBlind,
    /// Lists what others are asked, too.
    Nosy,
    /// Tells again and again that something has ended.
    Repeating,
    /// Lets any number wait.
    Patient,
    /// Lets what waits for a reservation take room from what its agent asks.
    Narrow,
    /// Has what nobody agreed to used up.
    Generous,
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    memory: MemoryStore,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self { fault, memory: MemoryStore::new() }
    }

    fn org(&self, org: &OrgId) -> OrgId {
        if self.fault == Fault::OrgBlind { OrgId::parse("everybody").unwrap() } else { org.clone() }
    }
}

#[async_trait]
impl ApprovalStore for Faulty {
    async fn insert(&self, org: &OrgId, approval: &Approval, on: &Event) -> Result<NewApproval, StoreError> {
        let outcome = ApprovalStore::insert(&self.memory, &self.org(org), approval, on).await?;
        if outcome == NewApproval::TooMany && self.fault == Fault::Patient {
            // Asked by another, so nobody counts it.
            let mut uncounted = approval.clone();
            uncounted.agent = AgentId::generate();
            return ApprovalStore::insert(&self.memory, &self.org(org), &uncounted, on).await;
        }
        if outcome == NewApproval::Inserted && self.fault == Fault::Narrow && approval.reservation.is_some() {
            // One more of the same that is counted.
            let mut counted = approval.clone();
            (counted.reservation, counted.token) = (None, ApprovalToken::generate());
            return ApprovalStore::insert(&self.memory, &self.org(org), &counted, on).await;
        }
        Ok(outcome)
    }

    async fn find(&self, org: &OrgId, token: &ApprovalToken) -> Result<Option<Arc<Approval>>, StoreError> {
        ApprovalStore::find(&self.memory, &self.org(org), token).await
    }

    async fn decide(
        &self,
        org: &OrgId,
        approval: &Approval,
        decision: &Decision,
        now: Timestamp,
        on: &Event,
    ) -> Result<Decide, StoreError> {
        let stored = self.find(org, &approval.token).await?;
        let racy = self.fault == Fault::Racy && stored.is_some_and(|stored| stored.decision.is_none());
        tokio::task::yield_now().await;
        let now = if self.fault == Fault::Timeless { approval.created_at } else { now };
        let outcome = self.memory.decide(&self.org(org), approval, decision, now, on).await?;
        Ok(if racy { Decide::Decided } else { outcome })
    }

    async fn ended(&self, org: &OrgId, now: Timestamp, max: u32) -> Result<Vec<Arc<Approval>>, StoreError> {
        self.memory.ended(&self.org(org), now, max).await
    }

    async fn lapse(
        &self,
        org: &OrgId,
        approval: &Approval,
        now: Timestamp,
        on: &Event,
    ) -> Result<bool, StoreError> {
        let told = self.memory.lapse(&self.org(org), approval, now, on).await?;
        Ok(told || self.fault == Fault::Repeating)
    }

    async fn consume(
        &self,
        org: &OrgId,
        approval: &Approval,
        now: Timestamp,
        on: &Event,
    ) -> Result<Consume, StoreError> {
        let stored = self.find(org, &approval.token).await?;
        let racy = self.fault == Fault::Racy && stored.is_some_and(|stored| stored.consumed_at.is_none());
        tokio::task::yield_now().await;
        let outcome = self.memory.consume(&self.org(org), approval, now, on).await?;
        let generous = self.fault == Fault::Generous && outcome == Consume::NotApproved;
        Ok(if racy || generous { Consume::Consumed } else { outcome })
    }

    async fn pending(
        &self,
        org: &OrgId,
        user: Option<UserId>,
        now: Timestamp,
        page: Page,
    ) -> Result<Listing<Arc<Approval>>, StoreError> {
        let user = user.filter(|_| self.fault != Fault::Nosy);
        self.memory.pending(&self.org(org), user, now, page).await
    }
}

#[tokio::test]
#[should_panic(expected = "Decided")]
async fn an_approval_that_is_looked_at_and_then_decided_has_two_deciders() {
    approvals::racing_approvals(&Faulty::new(Fault::Racy)).await;
}

#[tokio::test]
#[should_panic(expected = "Decided")]
async fn an_approval_that_is_approved_and_denied_is_found_out() {
    approvals::approve_and_deny_race(&Faulty::new(Fault::Racy)).await;
}

#[tokio::test]
#[should_panic(expected = "Consumed")]
async fn an_approval_that_is_used_twice_is_found_out() {
    approvals::racing_uses(&Faulty::new(Fault::Racy)).await;
}

#[tokio::test]
#[should_panic(expected = "Expired")]
async fn an_approval_that_never_ends_is_found_out() {
    approvals::expired_is_not_decided(&Faulty::new(Fault::Timeless)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn approvals_without_organization_are_shared() {
    approvals::organizations_are_apart(&Faulty::new(Fault::OrgBlind)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn what_others_are_asked_is_not_listed() {
    approvals::pending(&Faulty::new(Fault::Nosy)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn an_approval_without_its_event_is_found_out() {
    let (store, log) = (MemoryStore::new(), MemoryStore::new());
    let role: &dyn ApprovalStore = &store;
    writes_its_events(role.into(), Trail::Log(&log)).await;
}

#[tokio::test]
#[should_panic(expected = "told")]
async fn an_end_that_is_told_twice_is_found_out() {
    approvals::ends_are_told_once(&Faulty::new(Fault::Repeating)).await;
}

#[tokio::test]
#[should_panic(expected = "Inserted")]
async fn approvals_without_a_limit_are_found_out() {
    approvals::so_many_wait_at_a_time(&Faulty::new(Fault::Patient)).await;
}

#[tokio::test]
#[should_panic(expected = "TooMany")]
async fn reservations_that_take_room_from_approvals_are_found_out() {
    approvals::so_many_wait_at_a_time(&Faulty::new(Fault::Narrow)).await;
}

#[tokio::test]
#[should_panic(expected = "NotApproved")]
async fn an_approval_that_nobody_gave_is_not_used_up() {
    approvals::used_once(&Faulty::new(Fault::Generous)).await;
}

#[tokio::test]
#[should_panic(expected = "Missing")]
async fn an_approval_is_not_used_up_by_the_neighbours() {
    approvals::used_once(&Faulty::new(Fault::OrgBlind)).await;
}
