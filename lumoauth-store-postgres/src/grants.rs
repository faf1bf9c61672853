//! Tickets, refresh tokens and revocation marks on PostgreSQL.

mod marks;
mod refresh_tokens;
mod tickets;

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    clock::Timestamp,
    id::OrgId,
    secret::SecretHash,
    store::{
        FoundRefresh, FoundTicket, GrantStore, Handle, RefreshToken, Revoked, Rotation, StoreError, Ticket,
        TicketPurpose, TicketUse, UseEvents,
    },
};

use crate::{PostgresStore, values::from_millis};

#[async_trait]
impl GrantStore for PostgresStore {
    async fn revoke(
        &self,
        org: &OrgId,
        handle: Handle,
        keep_until: Timestamp,
        on: &Event,
    ) -> Result<Revoked, StoreError> {
        marks::mark(&self.pool.one_call(), "grants.revoke", org, handle, keep_until, on).await
    }

    async fn any_revoked(&self, org: &OrgId, handles: &[Handle]) -> Result<bool, StoreError> {
        marks::any(&self.pool, org, handles).await
    }

    async fn put_ticket(&self, org: &OrgId, ticket: &Ticket) -> Result<(), StoreError> {
        tickets::put(&self.pool, org, ticket).await
    }

    async fn find_ticket(
        &self,
        org: &OrgId,
        purpose: TicketPurpose,
        hash: &SecretHash,
        now: Timestamp,
    ) -> Result<Option<FoundTicket>, StoreError> {
        tickets::find(&self.pool, "grants.find_ticket", org, purpose, hash, now).await
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
        tickets::use_up(&self.pool.one_call(), org, purpose, hash, refresh, now, on).await
    }

    async fn find_refresh(
        &self,
        org: &OrgId,
        hash: &SecretHash,
        now: Timestamp,
    ) -> Result<Option<FoundRefresh>, StoreError> {
        refresh_tokens::find(&self.pool, org, hash, now).await
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
        refresh_tokens::rotate(&self.pool.one_call(), org, hash, next, proven, now, on).await
    }
}

/// An instant from a column.
fn instant(operation: &'static str, stored: i64) -> Result<Timestamp, StoreError> {
    from_millis(stored).map_err(|error| StoreError::corrupt(operation, error))
}

/// A handle from a column.
fn handle(operation: &'static str, stored: &[u8]) -> Result<Handle, StoreError> {
    stored.try_into().map(Handle::from_bytes).map_err(|error| StoreError::corrupt(operation, error))
}

/// What the protocol keeps, from a column. Columns hold it as bytes, since no text of PostgreSQL holds every character.
fn body(operation: &'static str, stored: &[u8]) -> Result<String, StoreError> {
    let text = str::from_utf8(stored).map_err(|error| StoreError::corrupt(operation, error))?;
    Ok(text.to_owned())
}
