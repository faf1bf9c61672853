//! Tickets: authorization codes, pushed requests, questions to people.
//!
//! A use is one guarded statement. Only if it changed nothing, a second one asks why, and a third marks the family: what
//! they find (a ticket that was used) never becomes untrue, so nothing that happens in between makes the outcome wrong.

use lumoauth_core::{
    clock::Timestamp,
    id::OrgId,
    secret::SecretHash,
    store::{FoundTicket, RefreshToken, Revoked, StoreError, Ticket, TicketPurpose, TicketUse, UseEvents},
};
use sqlx::postgres::PgRow;

use super::{body, handle, instant, marks, refresh_tokens};
use crate::{
    pool::Pool,
    records::{Recorded, changed, millis, recorded, value},
};

const PUT: &str = "INSERT INTO ticket (org_id, purpose, hash, body, expires_at, keep_until, family, used)
    VALUES ($1, $2, $3, $4, $5, $6, $7, false)
    ON CONFLICT (org_id, purpose, hash) DO NOTHING
    RETURNING 1";

const FIND: &str = "SELECT body, expires_at, keep_until, family, used FROM ticket
    WHERE org_id = $1 AND purpose = $2 AND hash = $3
        AND CASE WHEN used THEN keep_until ELSE expires_at END > $4";

// A hash that is taken fails the whole statement, so the ticket is not used up.
const USE: &str = recorded!(
    "UPDATE ticket SET used = true
    WHERE org_id = $1 AND purpose = $5 AND hash = $6 AND NOT used AND expires_at > $7",
    also: "added AS (
        INSERT INTO refresh_token (org_id, hash, family, body, expires_at)
        SELECT $1, $8, $9, $10, $11 FROM changed WHERE $8 IS NOT NULL)"
);

/// Keeps a new ticket.
pub(super) async fn put(pool: &Pool, org: &OrgId, ticket: &Ticket) -> Result<(), StoreError> {
    const OPERATION: &str = "grants.put_ticket";
    let put = || {
        sqlx::query(PUT)
            .bind(org.as_str())
            .bind(ticket.purpose.as_str())
            .bind(ticket.hash.as_bytes().as_slice())
            .bind(ticket.body.as_bytes())
            .bind(millis(ticket.expires_at))
            .bind(millis(ticket.keep_until))
            .bind(ticket.family.as_ref().map(|family| family.as_bytes().as_slice()))
    };
    if pool.change(OPERATION, put).await?.is_empty() {
        return Err(StoreError::other(OPERATION, "there is a ticket with this hash"));
    }
    Ok(())
}

/// The ticket, if its time is not over.
pub(super) async fn find(
    pool: &Pool,
    operation: &'static str,
    org: &OrgId,
    purpose: TicketPurpose,
    hash: &SecretHash,
    now: Timestamp,
) -> Result<Option<FoundTicket>, StoreError> {
    let statement = || {
        let statement = sqlx::query(FIND).bind(org.as_str()).bind(purpose.as_str());
        statement.bind(hash.as_bytes().as_slice()).bind(millis(now))
    };
    let rows = pool.repeatable(operation, statement).await?;
    rows.first().map(|row| found(operation, purpose, *hash, row)).transpose()
}

/// What a row of [`FIND`] says.
fn found(
    operation: &'static str,
    purpose: TicketPurpose,
    hash: SecretHash,
    row: &PgRow,
) -> Result<FoundTicket, StoreError> {
    let family: Option<&[u8]> = value(operation, row, 3)?;
    let ticket = Ticket {
        purpose,
        hash,
        body: body(operation, value(operation, row, 0)?)?,
        expires_at: instant(operation, value(operation, row, 1)?)?,
        keep_until: instant(operation, value(operation, row, 2)?)?,
        family: family.map(|bytes| handle(operation, bytes)).transpose()?,
    };
    Ok(FoundTicket { ticket, used: value(operation, row, 4)? })
}

/// Uses the ticket. Takes several statements if it cannot be used, so `pool` should be of one call.
pub(super) async fn use_up(
    pool: &Pool,
    org: &OrgId,
    purpose: TicketPurpose,
    hash: &SecretHash,
    refresh: Option<&RefreshToken>,
    now: Timestamp,
    on: UseEvents<'_>,
) -> Result<TicketUse, StoreError> {
    const OPERATION: &str = "grants.use_ticket";
    let used = Recorded::new(OPERATION, org, on.used)?;
    let use_up = || {
        let statement = used.statement(USE).bind(purpose.as_str());
        let statement = statement.bind(hash.as_bytes().as_slice()).bind(millis(now));
        refresh_tokens::bind(statement, refresh)
    };
    let rows = pool.change(OPERATION, use_up).await;
    if changed(OPERATION, &rows.map_err(|error| refresh_tokens::refused(OPERATION, error))?)? {
        return Ok(TicketUse::Used);
    }
    // One that is not used was put here since: at the instant of the use there was none.
    let Some(FoundTicket { ticket, used: true }) = find(pool, OPERATION, org, purpose, hash, now).await?
    else {
        return Ok(TicketUse::Missing);
    };
    if let Some(family) = ticket.family {
        match marks::mark(pool, OPERATION, org, family, ticket.dead_until(now), on.reused).await? {
            Revoked::Revoked | Revoked::AlreadyRevoked => {}
        }
    }
    Ok(TicketUse::Reused)
}
