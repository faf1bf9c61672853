//! The role that keeps tickets, refresh tokens and revocation marks.

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    clock::Timestamp,
    id::OrgId,
    secret::SecretHash,
    store::{
        FoundRefresh, FoundTicket, GrantStore, Handle, ROTATION_GRACE, RefreshToken, Revoked, Rotation,
        StoreError, Ticket, TicketPurpose, TicketUse, UseEvents,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    EmbeddedStore,
    batch::{Batch, EncodedEvent, encode},
    snapshot::{decode, malformed},
    tables::{Table, mark_key, refresh_key, ticket_key},
};

/// A ticket without what its key says.
#[derive(Serialize, Deserialize)]
struct TicketRow {
    body: String,
    expires_at: Timestamp,
    keep_until: Timestamp,
    family: Option<[u8; 12]>,
    used: bool,
}

impl TicketRow {
    /// Whether it can be used, or its second use must be recognised.
    fn is_there(&self, now: Timestamp) -> bool {
        now < if self.used { self.keep_until } else { self.expires_at }
    }

    fn ticket(self, purpose: TicketPurpose, hash: SecretHash) -> Ticket {
        let Self { body, expires_at, keep_until, family, used: _ } = self;
        Ticket { purpose, hash, body, expires_at, keep_until, family: family.map(Handle::from_bytes) }
    }
}

/// A refresh token without what its key says, and what took its place.
#[derive(Serialize, Deserialize)]
struct RefreshRow {
    family: [u8; 12],
    body: String,
    expires_at: Timestamp,
    rotated: Option<Rotated>,
}

#[derive(Serialize, Deserialize)]
struct Rotated {
    at: Timestamp,
    successor: SecretHash,
}

/// A new refresh token, as the writer needs it.
struct NewToken {
    key: Vec<u8>,
    json: Vec<u8>,
    expires_at: Timestamp,
}

impl NewToken {
    fn of(org: &OrgId, token: &RefreshToken) -> Result<Self, StoreError> {
        let row = RefreshRow {
            family: *token.family.as_bytes(),
            body: token.body.clone(),
            expires_at: token.expires_at,
            rotated: None,
        };
        Ok(Self {
            key: refresh_key(org, &token.hash),
            json: encode(Table::RefreshTokens, &row)?,
            expires_at: token.expires_at,
        })
    }

    /// Fails if there is one with its hash. To be asked before anything is written.
    fn must_be_new(&self, batch: &mut Batch<'_>) -> Result<(), StoreError> {
        if batch.has(Table::RefreshTokens, &self.key)? {
            return Err(taken(Table::RefreshTokens));
        }
        Ok(())
    }

    fn add(&self, batch: &mut Batch<'_>) -> Result<(), StoreError> {
        batch.put(Table::RefreshTokens, &self.key, &self.json)?;
        batch.expires(Table::RefreshTokens, &self.key, None, self.expires_at)
    }
}

/// The events of a use, as the writer needs them.
struct EncodedEvents {
    used: EncodedEvent,
    reused: EncodedEvent,
}

impl EncodedEvents {
    fn of(on: UseEvents<'_>) -> Result<Self, StoreError> {
        Ok(Self { used: EncodedEvent::of(on.used)?, reused: EncodedEvent::of(on.reused)? })
    }
}

#[async_trait]
impl GrantStore for EmbeddedStore {
    async fn revoke(
        &self,
        org: &OrgId,
        handle: Handle,
        keep_until: Timestamp,
        on: &Event,
    ) -> Result<Revoked, StoreError> {
        let (org, event) = (org.clone(), EncodedEvent::of(on)?);
        let decide = move |batch: &mut Batch<'_>| mark(batch, &org, handle, keep_until, &event);
        self.writer.submit(decide).await
    }

    async fn any_revoked(&self, org: &OrgId, handles: &[Handle]) -> Result<bool, StoreError> {
        if handles.is_empty() {
            return Ok(false);
        }
        let snapshot = self.latest();
        for handle in handles {
            if snapshot.get(Table::Marks, &mark_key(org, handle))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn put_ticket(&self, org: &OrgId, ticket: &Ticket) -> Result<(), StoreError> {
        let key = ticket_key(org, ticket.purpose, &ticket.hash);
        let expires_at = ticket.expires_at;
        let row = TicketRow {
            body: ticket.body.clone(),
            expires_at,
            keep_until: ticket.keep_until,
            family: ticket.family.map(|family| *family.as_bytes()),
            used: false,
        };
        let json = encode(Table::Tickets, &row)?;
        let decide = move |batch: &mut Batch<'_>| {
            if batch.has(Table::Tickets, &key)? {
                return Err(taken(Table::Tickets));
            }
            batch.put(Table::Tickets, &key, &json)?;
            // Until it is used there is nothing to remember after that.
            batch.expires(Table::Tickets, &key, None, expires_at)
        };
        self.writer.submit(decide).await
    }

    async fn find_ticket(
        &self,
        org: &OrgId,
        purpose: TicketPurpose,
        hash: &SecretHash,
        now: Timestamp,
    ) -> Result<Option<FoundTicket>, StoreError> {
        let key = ticket_key(org, purpose, hash);
        let snapshot = self.latest();
        let Some(row) = snapshot.get(Table::Tickets, &key)? else { return Ok(None) };
        let row: TicketRow = decode(Table::Tickets, row.value())?;
        let used = row.used;
        Ok(row.is_there(now).then(|| FoundTicket { ticket: row.ticket(purpose, *hash), used }))
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
        let (org, hash, on) = (org.clone(), *hash, EncodedEvents::of(on)?);
        let key = ticket_key(&org, purpose, &hash);
        let refresh = refresh.map(|token| NewToken::of(&org, token)).transpose()?;
        let decide = move |batch: &mut Batch<'_>| {
            let Some(stored) = batch.get(Table::Tickets, &key)? else { return Ok(TicketUse::Missing) };
            let mut row: TicketRow = decode(Table::Tickets, &stored)?;
            if !row.is_there(now) {
                return Ok(TicketUse::Missing);
            }
            if row.used {
                if let Some(family) = row.family.map(Handle::from_bytes) {
                    let dead_until = row.ticket(purpose, hash).dead_until(now);
                    let _ = mark(batch, &org, family, dead_until, &on.reused)?;
                }
                return Ok(TicketUse::Reused);
            }
            refresh.iter().try_for_each(|token| token.must_be_new(batch))?;
            row.used = true;
            batch.put(Table::Tickets, &key, &encode(Table::Tickets, &row)?)?;
            batch.expires(Table::Tickets, &key, Some(row.expires_at), row.keep_until)?;
            refresh.iter().try_for_each(|token| token.add(batch))?;
            batch.record(&org, &on.used)?;
            Ok(TicketUse::Used)
        };
        self.writer.submit(decide).await
    }

    async fn find_refresh(
        &self,
        org: &OrgId,
        hash: &SecretHash,
        now: Timestamp,
    ) -> Result<Option<FoundRefresh>, StoreError> {
        let snapshot = self.latest();
        let Some(row) = snapshot.get(Table::RefreshTokens, &refresh_key(org, hash))? else {
            return Ok(None);
        };
        let RefreshRow { family, body, expires_at, rotated } = decode(Table::RefreshTokens, row.value())?;
        let token = RefreshToken { hash: *hash, family: Handle::from_bytes(family), body, expires_at };
        let rotated = rotated.is_some();
        Ok((now < expires_at).then_some(FoundRefresh { token, rotated }))
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
        let (org, key, on) = (org.clone(), refresh_key(org, hash), EncodedEvents::of(on)?);
        let (successor, next) = (next.hash, NewToken::of(&org, next)?);
        let decide = move |batch: &mut Batch<'_>| {
            let Some(mut row) = refresh_row(batch, &key)? else { return Ok(Rotation::Missing) };
            if row.expires_at <= now {
                return Ok(Rotation::Missing);
            }
            if let Some(rotated) = &row.rotated {
                let in_time = now < rotated.at.plus(ROTATION_GRACE);
                if proven && in_time && is_newest(batch, &refresh_key(&org, &rotated.successor))? {
                    return Ok(Rotation::Raced);
                }
                let _ = mark(batch, &org, Handle::from_bytes(row.family), next.expires_at, &on.reused)?;
                return Ok(Rotation::Reused);
            }
            next.must_be_new(batch)?;
            row.rotated = Some(Rotated { at: now, successor });
            batch.put(Table::RefreshTokens, &key, &encode(Table::RefreshTokens, &row)?)?;
            next.add(batch)?;
            batch.record(&org, &on.used)?;
            Ok(Rotation::Rotated)
        };
        self.writer.submit(decide).await
    }
}

/// Marks `handle`, and writes `on` if it was not marked.
fn mark(
    batch: &mut Batch<'_>,
    org: &OrgId,
    handle: Handle,
    keep_until: Timestamp,
    on: &EncodedEvent,
) -> Result<Revoked, StoreError> {
    let key = mark_key(org, &handle);
    let marked = match batch.get(Table::Marks, &key)? {
        Some(until) => Some(keep_until_of(&until).ok_or_else(|| malformed(Table::Marks))?),
        None => None,
    };
    // A later call may need the mark for longer than the first one did.
    if marked.is_none_or(|until| until < keep_until) {
        batch.put(Table::Marks, &key, &keep_until.unix_millis().to_be_bytes())?;
        batch.expires(Table::Marks, &key, marked, keep_until)?;
    }
    if marked.is_some() {
        return Ok(Revoked::AlreadyRevoked);
    }
    batch.record(org, on)?;
    Ok(Revoked::Revoked)
}

fn keep_until_of(value: &[u8]) -> Option<Timestamp> {
    value.try_into().ok().map(u64::from_be_bytes).map(Timestamp::from_unix_millis)
}

fn refresh_row(batch: &mut Batch<'_>, key: &[u8]) -> Result<Option<RefreshRow>, StoreError> {
    let row = batch.get(Table::RefreshTokens, key)?;
    row.map(|row| decode(Table::RefreshTokens, &row)).transpose()
}

/// Whether there is a refresh token that was not rotated.
fn is_newest(batch: &mut Batch<'_>, key: &[u8]) -> Result<bool, StoreError> {
    Ok(refresh_row(batch, key)?.is_some_and(|row| row.rotated.is_none()))
}

fn taken(table: Table) -> StoreError {
    StoreError::other(table.name(), "there is one with this hash")
}
