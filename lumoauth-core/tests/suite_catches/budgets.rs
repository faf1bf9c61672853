//! Counters and holds with one mistake each.

use std::{borrow::Cow, sync::Mutex, time::Duration};

use async_trait::async_trait;
use lumoauth_core::{
    budget::{Account, HeldLine, Hold, Line, Meter, Resolution, Usage, Verdict, admits},
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{
        BudgetStore, Charge, ChargeId, Charged, HoldId, MemoryStore, Overdue, Resolved, StoreError,
        conformance::budgets,
    },
};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Looks whether there is room, and counts later.
    ChargesLater,
    /// Counts line after line, and minds no id.
    LineByLine,
    /// Takes all organizations for one.
    OrgBlind,
    /// Takes all agents for one.
    ActorBlind,
    /// A repetition makes the hold once more.
    HoldsAnew,
    /// Counts nothing for what is parked.
    ParkedIsFree,
    /// Looks what state a hold is in, and changes it later.
    ResolvesLater,
    /// Counts what was released as used.
    KeepsReleased,
    /// Settles no more than was held.
    Capped,
    /// Settles nothing after the lease.
    Strict,
    /// Corrects the counters of the present.
    OfThePresent,
    /// Lets a human agree when the wait is over.
    AgreesLate,
    /// Knows holds for ever.
    Endless,
    /// Forgets what is parked as anything else.
    ForgetsParked,
    /// Says of a lease that ended that it holds something.
    LivesOn,
    /// Lists as overdue what may still be agreed to.
    Hasty,
    /// Resolves nothing that it did not store.
    NeedsId,
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    memory: MemoryStore,
    /// How often holds were made anew.
    anew: Mutex<u32>,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self { fault, memory: MemoryStore::new(), anew: Mutex::default() }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn org<'o>(&self, org: &'o OrgId) -> Cow<'o, OrgId> {
        if self.is(Fault::OrgBlind) {
            Cow::Owned(OrgId::parse("everybody").unwrap())
        } else {
            Cow::Borrowed(org)
        }
    }

    fn actor(&self, actor: AgentId) -> AgentId {
        if self.is(Fault::ActorBlind) { AgentId::from_uuid(uuid::Uuid::nil()) } else { actor }
    }

    /// The text under which the newest hold of `key` is kept.
    fn key(&self, key: &str) -> String {
        format!("{key}{}", self.anew.lock().unwrap())
    }

    async fn charge_later(&self, org: &OrgId, lines: &[Line], now: Timestamp) -> Result<Charged, StoreError> {
        for (index, line) in lines.iter().enumerate() {
            let used = self.memory.usage(org, line.account, now).await?.of(line.meter);
            if !admits(used, line) {
                return Ok(Charged::Exceeded { line: index, used });
            }
        }
        tokio::task::yield_now().await;
        let mut lines = lines.to_vec();
        lines.iter_mut().for_each(|line| line.limit = None);
        self.memory.charge(org, &Charge::once(&lines), now).await
    }

    async fn charge_line_by_line(
        &self,
        org: &OrgId,
        lines: &[Line],
        now: Timestamp,
    ) -> Result<Charged, StoreError> {
        let mut counters = Vec::new();
        for (line, one) in lines.chunks(1).enumerate() {
            match self.memory.charge(org, &Charge::once(one), now).await? {
                Charged::Charged(used) => counters.extend(used),
                Charged::Exceeded { used, .. } => return Ok(Charged::Exceeded { line, used }),
                other => return Ok(other),
            }
        }
        Ok(Charged::Charged(counters))
    }
}

#[async_trait]
impl BudgetStore for Faulty {
    async fn charge(&self, org: &OrgId, charge: &Charge<'_>, now: Timestamp) -> Result<Charged, StoreError> {
        let org = &*self.org(org);
        match self.fault {
            Fault::ChargesLater => return self.charge_later(org, charge.lines, now).await,
            Fault::LineByLine => return self.charge_line_by_line(org, charge.lines, now).await,
            _ => {}
        }
        let Some(id) = charge.id else { return self.memory.charge(org, charge, now).await };
        let mut lines = charge.lines.to_vec();
        if self.is(Fault::ParkedIsFree) && charge.hold.is_some_and(|hold| hold.parked) {
            lines.iter_mut().for_each(|line| line.amount = 0);
        }
        let make = async |key: &str| {
            let id = ChargeId { actor: self.actor(id.actor), key, ..id };
            let charge = match charge.hold {
                Some(hold) => Charge::held(id, &lines, hold),
                None => Charge::repeatable(id, &lines),
            };
            self.memory.charge(org, &charge, now).await
        };
        let charged = make(&self.key(id.key)).await?;
        if self.is(Fault::HoldsAnew) && charged == Charged::Repeated {
            *self.anew.lock().unwrap() += 1;
            let _ = make(&self.key(id.key)).await?;
        }
        Ok(charged)
    }

    async fn resolve(
        &self,
        org: &OrgId,
        id: Option<HoldId<'_>>,
        lines: &[HeldLine],
        mut resolution: Resolution,
        mut now: Timestamp,
    ) -> Result<Resolved, StoreError> {
        let org = &*self.org(org);
        let Some(id) = id else {
            if self.is(Fault::NeedsId) {
                return Ok(Resolved::Unknown);
            }
            return self.memory.resolve(org, None, lines, resolution, now).await;
        };
        let key = self.key(id.key);
        let id = HoldId { actor: self.actor(id.actor), key: &key };
        let Some(hold) = self.memory.hold(org, id, now).await? else {
            if self.is(Fault::Endless) {
                now = Timestamp::default();
            }
            return self.memory.resolve(org, Some(id), lines, resolution, now).await;
        };
        let over = now >= hold.ends;
        match (self.fault, resolution) {
            (Fault::ResolvesLater, _) => {
                if let Verdict::Stays(state) = hold.resolve(resolution, now) {
                    return Ok(Resolved::Stays(state));
                }
                tokio::task::yield_now().await;
                let _ = self.memory.resolve(org, Some(id), lines, resolution, now).await?;
                return Ok(Resolved::Done { counters: vec![], late: over });
            }
            (Fault::OfThePresent, _) => {
                let mut lines = lines.to_vec();
                lines.iter_mut().for_each(|line| line.window_start = line.window.start(now));
                return self.memory.resolve(org, None, &lines, resolution, now).await;
            }
            (Fault::KeepsReleased, Resolution::Release) => {
                let held = |meter| lines.iter().find(|line| line.meter == meter).unwrap().amount;
                let [tokens, calls, micro_usd] = [Meter::Tokens, Meter::Calls, Meter::MicroUsd].map(held);
                resolution = Resolution::Settle(Usage { tokens, calls, micro_usd });
            }
            (Fault::Capped, Resolution::Settle(usage)) => {
                let calls = usage.calls.min(lines[1].amount);
                resolution = Resolution::Settle(Usage { calls, ..usage });
            }
            (Fault::Strict, Resolution::Settle(_)) if over => return Ok(Resolved::Stays(hold.state)),
            (Fault::AgreesLate, Resolution::Unpark(_)) => now = Timestamp::default(),
            (Fault::ForgetsParked, _) if now >= hold.ends.plus(Duration::from_secs(3600)) => {
                return Ok(Resolved::Unknown);
            }
            _ => {}
        }
        self.memory.resolve(org, Some(id), lines, resolution, now).await
    }

    async fn hold(
        &self,
        org: &OrgId,
        id: HoldId<'_>,
        mut now: Timestamp,
    ) -> Result<Option<Hold>, StoreError> {
        if self.is(Fault::Endless) {
            now = Timestamp::default();
        }
        let id = HoldId { actor: self.actor(id.actor), key: &self.key(id.key) };
        self.memory.hold(&self.org(org), id, now).await
    }

    async fn live_holds(
        &self,
        org: &OrgId,
        actor: AgentId,
        mut now: Timestamp,
        max: u32,
    ) -> Result<Vec<Hold>, StoreError> {
        if self.is(Fault::LivesOn) {
            now = Timestamp::default();
        }
        self.memory.live_holds(&self.org(org), self.actor(actor), now, max).await
    }

    async fn overdue(&self, mut now: Timestamp, max: u32) -> Result<Vec<Overdue>, StoreError> {
        if self.is(Fault::Hasty) {
            now = now.plus(Duration::from_secs(60));
        }
        let mut overdue = self.memory.overdue(now, max).await?;
        overdue.iter_mut().for_each(|overdue| {
            overdue.key.pop();
        });
        Ok(overdue)
    }

    async fn usage(&self, org: &OrgId, account: Account, now: Timestamp) -> Result<Usage, StoreError> {
        self.memory.usage(&self.org(org), account, now).await
    }
}

/// Runs a case on a store with a fault that it must find.
macro_rules! found_out {
    ($($name:ident: $fault:ident, $case:ident;)+) => {
        $(
            #[tokio::test]
            #[should_panic(expected = "left == right")]
            async fn $name() {
                budgets::$case(&Faulty::new(Fault::$fault)).await;
            }
        )+
    };
}

found_out! {
    a_charge_line_by_line_is_not_all_or_none: LineByLine, all_lines_or_none;
    a_charge_that_ignores_its_id_is_made_twice: LineByLine, repeats_by_id;
    budgets_without_organization_are_shared: OrgBlind, organizations_are_apart;
    ids_of_one_agent_are_not_those_of_all: ActorBlind, ids_are_per_actor;
    holds_of_one_agent_are_not_those_of_all: ActorBlind, holds_are_their_makers;
    a_repetition_that_holds_anew_is_found_out: HoldsAnew, holds_are_settled;
    what_is_parked_without_being_counted_is_found_out: ParkedIsFree, parked_holds;
    a_resolution_that_looks_and_then_acts_has_two_winners: ResolvesLater, holds_end_once;
    an_agreement_that_looks_and_then_acts_has_two_winners: ResolvesLater, parked_holds;
    a_release_that_frees_nothing_is_found_out: KeepsReleased, holds_are_released;
    a_settlement_that_is_cut_is_found_out: Capped, settling_overshoots;
    a_late_settlement_that_is_lost_is_found_out: Strict, late_holds;
    an_agreement_that_comes_too_late_is_found_out: AgreesLate, parked_holds_expire;
    a_hold_without_an_end_is_found_out: Endless, holds_are_found;
    a_hold_that_is_never_forgotten_is_found_out: Endless, holds_are_forgotten;
    a_parked_hold_that_cannot_be_freed_is_found_out: ForgetsParked, parked_ids_do_not_end;
    a_lease_that_lives_on_is_found_out: LivesOn, live_holds;
    a_wait_that_is_cut_short_is_found_out: Hasty, parked_holds_expire;
    a_hold_that_needs_an_id_is_found_out: NeedsId, holds_without_id;
}

#[tokio::test]
#[should_panic(expected = "Charged")]
async fn a_charge_that_reads_and_then_writes_oversells() {
    budgets::never_oversells(&Faulty::new(Fault::ChargesLater)).await;
}

#[tokio::test]
#[should_panic(expected = "Done")]
async fn a_settlement_in_the_present_window_is_found_out() {
    budgets::holds_of_another_window(&Faulty::new(Fault::OfThePresent)).await;
}

/// What is wrong with these stores is only what their faults say.
#[tokio::test]
async fn a_fault_elsewhere_is_no_fault_here() {
    for fault in [Fault::Hasty, Fault::LivesOn, Fault::Capped, Fault::Strict] {
        budgets::holds_are_settled(&Faulty::new(fault)).await;
        budgets::holds_end_once(&Faulty::new(fault)).await;
        budgets::parked_ids_do_not_end(&Faulty::new(fault)).await;
    }
}
