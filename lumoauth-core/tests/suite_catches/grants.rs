//! Grants that are used, marked or kept wrongly.

use std::{collections::HashMap, sync::Mutex};

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    clock::{Clock, SystemClock, Timestamp},
    id::OrgId,
    secret::SecretHash,
    store::{
        AuditStore, FoundRefresh, FoundTicket, GrantStore, Handle, MemoryStore, RefreshToken, Revoked,
        Rotation, StoreError, Ticket, TicketPurpose, TicketUse, UseEvents,
        conformance::{
            grants,
            recorded::{Trail, writes_its_events},
            upkeep,
        },
    },
};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Checks first, acts later.
    Racy,
    /// Keeps the marks of everybody under one name.
    SharedMarks,
    /// Keeps the tickets and refresh tokens of everybody under one name.
    SharedTickets,
    /// Drops marks that have ended by a clock of its own.
    OwnClock,
    /// Writes the event of a revocation whatever became of it.
    Talkative,
    /// Takes every second use for the first.
    Trusting,
    /// Tells a second use and leaves the family alive.
    Markless,
    /// Writes the event of the first use for the second.
    Mistaken,
    /// Has a clock that stands still.
    Endless,
    /// Has one drawer for all purposes.
    Purposeless,
    /// Takes a repeated rotation for a lost race although nobody has proven who is asking.
    Credulous,
    /// Takes no rotation for a lost race.
    Strict,
    /// Adds the successor also when the rotation was not made.
    Generous,
    /// Does not see that a refresh token was rotated.
    Blind,
    /// Keeps tickets that nobody used as long as those that somebody did.
    Hoarding,
}

#[derive(Debug)]
struct Faulty {
    fault: Fault,
    memory: MemoryStore,
    until: Mutex<HashMap<Handle, Timestamp>>,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self { fault, memory: MemoryStore::new(), until: Mutex::default() }
    }

    /// The organization it does something in, if `shared` is what is wrong with it.
    fn org(&self, org: &OrgId, shared: Fault) -> OrgId {
        if self.fault == shared { OrgId::parse("everybody").unwrap() } else { org.clone() }
    }

    fn purpose(&self, purpose: TicketPurpose) -> TicketPurpose {
        if self.fault == Fault::Purposeless { TicketPurpose::PushedRequest } else { purpose }
    }

    /// The event it writes for a second use.
    fn events<'a>(&self, on: UseEvents<'a>) -> UseEvents<'a> {
        if self.fault == Fault::Mistaken { UseEvents { reused: on.used, ..on } } else { on }
    }

    /// When it thinks it is.
    fn time(&self, now: Timestamp) -> Timestamp {
        if self.fault == Fault::Endless { Timestamp::default() } else { now }
    }
}

/// Where the backend waits between the check and the act.
async fn round_trip() {
    tokio::task::yield_now().await;
}

#[async_trait]
impl GrantStore for Faulty {
    async fn revoke(
        &self,
        org: &OrgId,
        handle: Handle,
        keep_until: Timestamp,
        on: &Event,
    ) -> Result<Revoked, StoreError> {
        let org = &self.org(org, Fault::SharedMarks);
        self.until.lock().unwrap().insert(handle, keep_until);
        if self.fault == Fault::Racy {
            if self.memory.any_revoked(org, &[handle]).await? {
                return Ok(Revoked::AlreadyRevoked);
            }
            round_trip().await;
            return self.memory.revoke(org, handle, keep_until, on).await.map(|_| Revoked::Revoked);
        }
        let outcome = self.memory.revoke(org, handle, keep_until, on).await?;
        if self.fault == Fault::Talkative {
            self.memory.append(org, std::slice::from_ref(on)).await?;
        }
        Ok(outcome)
    }

    async fn any_revoked(&self, org: &OrgId, handles: &[Handle]) -> Result<bool, StoreError> {
        let now = SystemClock::new().now();
        let handles: Vec<_> = {
            let until = self.until.lock().unwrap();
            let counts = |handle: &&Handle| match self.fault {
                Fault::OwnClock => until.get(handle).is_none_or(|end| now < *end),
                Fault::Markless => until.contains_key(handle),
                _ => true,
            };
            handles.iter().filter(counts).copied().collect()
        };
        self.memory.any_revoked(&self.org(org, Fault::SharedMarks), &handles).await
    }

    async fn put_ticket(&self, org: &OrgId, ticket: &Ticket) -> Result<(), StoreError> {
        let mut ticket = Ticket { purpose: self.purpose(ticket.purpose), ..ticket.clone() };
        if self.fault == Fault::Hoarding {
            ticket.expires_at = ticket.keep_until;
        }
        self.memory.put_ticket(&self.org(org, Fault::SharedTickets), &ticket).await
    }

    async fn find_ticket(
        &self,
        org: &OrgId,
        purpose: TicketPurpose,
        hash: &SecretHash,
        now: Timestamp,
    ) -> Result<Option<FoundTicket>, StoreError> {
        self.memory
            .find_ticket(&self.org(org, Fault::SharedTickets), self.purpose(purpose), hash, self.time(now))
            .await
    }

    async fn use_ticket(
        &self,
        org: &OrgId,
        purpose: TicketPurpose,
        hash: &SecretHash,
        refresh: Option<&RefreshToken>,
        now: Timestamp,
        on: UseEvents<'_>,
    ) -> Result<TicketUse, StoreError> {
        let (org, purpose) = (&self.org(org, Fault::SharedTickets), self.purpose(purpose));
        if self.fault == Fault::Racy {
            let found = self.memory.find_ticket(org, purpose, hash, now).await?;
            round_trip().await;
            if found.is_some_and(|found| !found.used) {
                return self
                    .memory
                    .use_ticket(org, purpose, hash, refresh, now, on)
                    .await
                    .map(|_| TicketUse::Used);
            }
        }
        let outcome =
            self.memory.use_ticket(org, purpose, hash, refresh, self.time(now), self.events(on)).await?;
        Ok(match outcome {
            TicketUse::Reused if self.fault == Fault::Trusting => TicketUse::Used,
            outcome => outcome,
        })
    }

    async fn find_refresh(
        &self,
        org: &OrgId,
        hash: &SecretHash,
        now: Timestamp,
    ) -> Result<Option<FoundRefresh>, StoreError> {
        let org = self.org(org, Fault::SharedTickets);
        let found = self.memory.find_refresh(&org, hash, self.time(now)).await?;
        Ok(found.map(|found| FoundRefresh { rotated: found.rotated && self.fault != Fault::Blind, ..found }))
    }

    async fn rotate(
        &self,
        org: &OrgId,
        hash: &SecretHash,
        next: &RefreshToken,
        proven: bool,
        now: Timestamp,
        on: UseEvents<'_>,
    ) -> Result<Rotation, StoreError> {
        let (org, on) = (&self.org(org, Fault::SharedTickets), self.events(on));
        let proven = match self.fault {
            Fault::Credulous => true,
            Fault::Strict => false,
            _ => proven,
        };
        let at = self.time(now);
        if self.fault == Fault::Racy {
            // Everybody who saw the token unrotated believes to be the one who rotated it.
            let probe = self.memory.find_refresh(org, &next.hash, now).await?;
            round_trip().await;
            let outcome = self.memory.rotate(org, hash, next, proven, at, on).await?;
            return Ok(if probe.is_none() { Rotation::Rotated } else { outcome });
        }
        let outcome = self.memory.rotate(org, hash, next, proven, at, on).await?;
        if self.fault == Fault::Generous && outcome != Rotation::Rotated {
            let code = Ticket {
                purpose: TicketPurpose::AuthorizationCode,
                hash: next.hash,
                body: String::new(),
                expires_at: next.expires_at,
                keep_until: next.expires_at,
                family: None,
            };
            self.memory.put_ticket(org, &code).await?;
            let _ = self.memory.use_ticket(org, code.purpose, &code.hash, Some(next), now, on).await?;
        }
        Ok(outcome)
    }
}

/// One test: this case must fail over a store with this fault, and say this.
macro_rules! found_out {
    ($($name:ident: $case:ident over $fault:ident says $says:literal;)*) => {
        $(#[tokio::test]
        #[should_panic(expected = $says)]
        async fn $name() {
            grants::$case(&Faulty::new(Fault::$fault)).await;
        })*
    };
}

found_out! {
    a_revocation_that_checks_and_then_marks_has_two_winners: revoked_once over Racy says "Revoked";
    a_mark_that_ends_by_the_backends_own_clock_is_found_out: marks_are_kept over OwnClock says "any_revoked";
    marks_without_organization_reach_too_far: organizations_are_apart over SharedMarks says "any_revoked";
    tickets_without_organization_are_shared: organizations_are_apart over SharedTickets says "left == right";
    a_ticket_that_is_checked_and_then_used_is_used_twice: one_use_wins over Racy says "Used";
    a_ticket_that_is_used_twice_is_found_out: one_use_wins over Trusting says "Used";
    a_second_use_that_leaves_the_family_alive_is_found_out: reuse_marks_the_family over Markless says "is_dead";
    a_ticket_without_an_end_is_found_out: tickets_end over Endless says "left == right";
    a_ticket_of_any_purpose_is_found_out: tickets_round_trip over Purposeless says "left == right";
    a_rotation_that_checks_and_then_writes_has_two_winners: one_rotation_wins over Racy says "Rotated";
    a_repetition_that_leaves_the_family_alive_is_found_out: reuse_kills_the_family over Markless says "is_dead";
    a_repetition_that_is_forgiven_too_late_is_found_out: lost_races_are_forgiven over Endless says "Reused";
    a_repetition_that_is_forgiven_to_anybody_is_found_out: lost_races_are_forgiven over Credulous says "Reused";
    a_lost_race_that_is_not_forgiven_is_found_out: lost_races_are_forgiven over Strict says "Raced";
    a_loser_that_adds_its_successor_is_found_out: one_rotation_wins over Generous says "left == right";
    a_rotation_that_is_not_told_is_found_out: refresh_tokens_round_trip over Blind says "is_rotated";
    a_refresh_token_without_an_end_is_found_out: refresh_tokens_end over Endless says "left == right";
}

#[tokio::test]
#[should_panic(expected = "there is a ticket with this hash")]
async fn a_purge_that_keeps_what_nobody_used_is_found_out() {
    let store = Faulty::new(Fault::Hoarding);
    upkeep::purge_keeps_tickets(&store, &store.memory).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn an_event_without_a_change_is_found_out() {
    let store = Faulty::new(Fault::Talkative);
    let role: &dyn GrantStore = &store;
    writes_its_events(role.into(), Trail::Log(&store.memory)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn the_event_of_another_outcome_is_found_out() {
    let store = Faulty::new(Fault::Mistaken);
    let role: &dyn GrantStore = &store;
    writes_its_events(role.into(), Trail::Log(&store.memory)).await;
}

#[tokio::test]
#[should_panic(expected = "left == right")]
async fn a_use_without_its_event_is_found_out() {
    let (store, log) = (MemoryStore::new(), MemoryStore::new());
    let role: &dyn GrantStore = &store;
    writes_its_events(role.into(), Trail::Log(&log)).await;
}
