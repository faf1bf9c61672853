//! Tickets, refresh tokens and revocation marks in memory.

use async_trait::async_trait;

use super::{MemoryStore, Outcome, fading::Fading};
use crate::{
    audit::Event,
    clock::Timestamp,
    id::OrgId,
    secret::SecretHash,
    store::{
        FoundRefresh, FoundTicket, GrantStore, Handle, ROTATION_GRACE, RefreshToken, Revoked, Rotation,
        StoreError, Ticket, TicketPurpose, TicketUse, UseEvents,
    },
};

/// What one organization granted and took back.
#[derive(Default)]
pub(super) struct Grants {
    tickets: Fading<(TicketPurpose, SecretHash), Option<FoundTicket>>,
    refresh_tokens: Fading<SecretHash, Option<Issued>>,
    marks: Fading<Handle, ()>,
}

/// A refresh token, and what has taken its place.
struct Issued {
    token: RefreshToken,
    rotated: Option<(Timestamp, SecretHash)>,
}

impl Grants {
    /// Drops up to `max` things whose time is over; how many.
    pub(super) fn purge(&mut self, now: Timestamp, max: u64) -> u64 {
        let mut dropped = self.marks.drop_ended(now, max);
        dropped += self.tickets.drop_ended(now, max - dropped);
        dropped + self.refresh_tokens.drop_ended(now, max - dropped)
    }

    fn mark(&mut self, handle: Handle, keep_until: Timestamp) -> Revoked {
        let known = self.marks.get(&handle).is_some();
        self.marks.keep(handle, keep_until);
        if known { Revoked::AlreadyRevoked } else { Revoked::Revoked }
    }

    fn ticket(&self, purpose: TicketPurpose, hash: &SecretHash) -> Option<&FoundTicket> {
        self.tickets.get(&(purpose, *hash)).and_then(|(ticket, _)| ticket.as_ref())
    }

    fn issued(&self, hash: &SecretHash) -> Option<&Issued> {
        self.refresh_tokens.get(hash).and_then(|(issued, _)| issued.as_ref())
    }

    fn add(&mut self, token: &RefreshToken) {
        let issued = Issued { token: token.clone(), rotated: None };
        *self.refresh_tokens.keep(token.hash, token.expires_at) = Some(issued);
    }
}

/// What a step came to, and whether something was marked.
struct Done<T> {
    outcome: T,
    /// Which event tells it.
    event: Option<Told>,
}

#[derive(Clone, Copy)]
enum Told {
    Used,
    Reused,
}

impl<T> Done<T> {
    const fn nothing(outcome: T) -> Self {
        Self { outcome, event: None }
    }
}

impl MemoryStore {
    /// Makes `step`, and writes the event that tells it before anybody can see it.
    fn told<T>(&self, org: &OrgId, on: UseEvents<'_>, step: impl FnOnce(&mut Grants) -> Done<T>) -> T {
        self.grants.write(org, |grants| {
            let Done { outcome, event } = step(grants);
            let event = event.map(|event| match event {
                Told::Used => on.used,
                Told::Reused => on.reused,
            });
            self.journal.write(org, event.map(|event| event.clone().into()));
            outcome
        })
    }
}

#[async_trait]
impl GrantStore for MemoryStore {
    async fn revoke(
        &self,
        org: &OrgId,
        handle: Handle,
        keep_until: Timestamp,
        on: &Event,
    ) -> Result<Revoked, StoreError> {
        Ok(self.recorded(&self.grants, org, on, |grants| grants.mark(handle, keep_until)))
    }

    async fn any_revoked(&self, org: &OrgId, handles: &[Handle]) -> Result<bool, StoreError> {
        Ok(self.grants.read(org, |grants| handles.iter().any(|handle| grants.marks.get(handle).is_some())))
    }

    async fn put_ticket(&self, org: &OrgId, ticket: &Ticket) -> Result<(), StoreError> {
        self.grants.write(org, |grants| {
            if grants.ticket(ticket.purpose, &ticket.hash).is_some() {
                return Err(StoreError::other("grants.put_ticket", "there is a ticket with this hash"));
            }
            let found = FoundTicket { ticket: ticket.clone(), used: false };
            *grants.tickets.keep((ticket.purpose, ticket.hash), ticket.expires_at) = Some(found);
            Ok(())
        })
    }

    async fn find_ticket(
        &self,
        org: &OrgId,
        purpose: TicketPurpose,
        hash: &SecretHash,
        now: Timestamp,
    ) -> Result<Option<FoundTicket>, StoreError> {
        Ok(self
            .grants
            .read(org, |grants| grants.ticket(purpose, hash).filter(|found| is_there(found, now)).cloned()))
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
        self.told(org, on, |grants| {
            let Some(found) = grants.ticket(purpose, hash).filter(|found| is_there(found, now)).cloned()
            else {
                return Done::nothing(Ok(TicketUse::Missing));
            };
            let Ticket { family, keep_until, .. } = found.ticket;
            if found.used {
                let dead_until = found.ticket.dead_until(now);
                let marked = family.is_some_and(|family| grants.mark(family, dead_until).is_change());
                return Done { outcome: Ok(TicketUse::Reused), event: marked.then_some(Told::Reused) };
            }
            if refresh.is_some_and(|token| grants.issued(&token.hash).is_some()) {
                return Done::nothing(Err(taken("grants.use_ticket")));
            }
            let used = FoundTicket { used: true, ..found };
            *grants.tickets.keep((purpose, *hash), keep_until) = Some(used);
            refresh.into_iter().for_each(|token| grants.add(token));
            Done { outcome: Ok(TicketUse::Used), event: Some(Told::Used) }
        })
    }

    async fn find_refresh(
        &self,
        org: &OrgId,
        hash: &SecretHash,
        now: Timestamp,
    ) -> Result<Option<FoundRefresh>, StoreError> {
        Ok(self.grants.read(org, |grants| {
            let issued = grants.issued(hash).filter(|issued| now < issued.token.expires_at);
            issued
                .map(|issued| FoundRefresh { token: issued.token.clone(), rotated: issued.rotated.is_some() })
        }))
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
        self.told(org, on, |grants| {
            let Some(issued) = grants.issued(hash).filter(|issued| now < issued.token.expires_at) else {
                return Done::nothing(Ok(Rotation::Missing));
            };
            if let Some((at, successor)) = issued.rotated {
                let family = issued.token.family;
                let unused = grants.issued(&successor).is_some_and(|successor| successor.rotated.is_none());
                if proven && unused && now < at.plus(ROTATION_GRACE) {
                    return Done::nothing(Ok(Rotation::Raced));
                }
                let marked = grants.mark(family, next.expires_at).is_change();
                return Done { outcome: Ok(Rotation::Reused), event: marked.then_some(Told::Reused) };
            }
            if grants.issued(&next.hash).is_some() {
                return Done::nothing(Err(taken("grants.rotate")));
            }
            let token = issued.token.clone();
            let expires_at = token.expires_at;
            *grants.refresh_tokens.keep(*hash, expires_at) =
                Some(Issued { rotated: Some((now, next.hash)), token });
            grants.add(next);
            Done { outcome: Ok(Rotation::Rotated), event: Some(Told::Used) }
        })
    }
}

/// Whether the ticket can be used, or its second use must be recognised.
fn is_there(found: &FoundTicket, now: Timestamp) -> bool {
    now < if found.used { found.ticket.keep_until } else { found.ticket.expires_at }
}

fn taken(operation: &'static str) -> StoreError {
    StoreError::other(operation, "there is a refresh token with this hash")
}
