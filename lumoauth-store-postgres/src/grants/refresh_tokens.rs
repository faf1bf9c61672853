//! Refresh tokens. As in `tickets`, a rotation is one guarded statement. What is asked after one that changed nothing is
//! still true when the family is marked: a token that was rotated stays so, and so does its successor.

use lumoauth_core::{
    clock::Timestamp,
    id::OrgId,
    secret::SecretHash,
    store::{
        FoundRefresh, Handle, ROTATION_GRACE, RefreshToken, Revoked, Rotation, StoreError, Unique, UseEvents,
    },
};

use super::{body, handle, instant, marks};
use crate::{
    pool::{Pool, Statement},
    records::{self, Recorded, changed, millis, recorded, value},
};

const FIND: &str = "SELECT family, body, expires_at, successor IS NOT NULL FROM refresh_token
    WHERE org_id = $1 AND hash = $2 AND expires_at > $3";

// A hash that is taken fails the whole statement, so nothing is rotated.
const ROTATE: &str = recorded!(
    "UPDATE refresh_token SET rotated_at = $6, successor = $7
    WHERE org_id = $1 AND hash = $5 AND successor IS NULL AND expires_at > $6",
    also: "added AS (
        INSERT INTO refresh_token (org_id, hash, family, body, expires_at)
        SELECT $1, $7, $8, $9, $10 FROM changed)"
);

const FIND_ROTATED: &str = "SELECT token.family, token.rotated_at,
        EXISTS (
            SELECT 1 FROM refresh_token AS next
            WHERE next.org_id = token.org_id AND next.hash = token.successor AND next.successor IS NULL)
    FROM refresh_token AS token
    WHERE token.org_id = $1 AND token.hash = $2 AND token.successor IS NOT NULL AND token.expires_at > $3";

/// The refresh token, rotated or not, if its time is not over.
pub(super) async fn find(
    pool: &Pool,
    org: &OrgId,
    hash: &SecretHash,
    now: Timestamp,
) -> Result<Option<FoundRefresh>, StoreError> {
    const OPERATION: &str = "grants.find_refresh";
    let statement =
        || sqlx::query(FIND).bind(org.as_str()).bind(hash.as_bytes().as_slice()).bind(millis(now));
    let rows = pool.repeatable(OPERATION, statement).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let token = RefreshToken {
        hash: *hash,
        family: handle(OPERATION, value(OPERATION, row, 0)?)?,
        body: body(OPERATION, value(OPERATION, row, 1)?)?,
        expires_at: instant(OPERATION, value(OPERATION, row, 2)?)?,
    };
    Ok(Some(FoundRefresh { token, rotated: value(OPERATION, row, 3)? }))
}

/// `statement` with the arguments of a token to add: hash, family, body and end, all of them NULL if there is none.
pub(super) fn bind(statement: Statement, token: Option<&RefreshToken>) -> Statement {
    statement
        .bind(token.map(|token| token.hash.as_bytes().as_slice()))
        .bind(token.map(|token| token.family.as_bytes().as_slice()))
        .bind(token.map(|token| token.body.as_bytes()))
        .bind(token.map(|token| millis(token.expires_at)))
}

/// What the caller learns if a token to add has a hash that is taken. PostgreSQL's own words would repeat the hash.
pub(super) fn refused(operation: &'static str, error: StoreError) -> StoreError {
    match records::taken(&error, &[("refresh_token_hash", Unique::KeyHash)]) {
        Some(_) => StoreError::other(operation, "there is a refresh token with this hash"),
        None => error,
    }
}

/// A token that was rotated.
struct Rotated {
    family: Handle,
    at: Timestamp,
    successor_is_unused: bool,
}

impl Rotated {
    async fn find(
        pool: &Pool,
        operation: &'static str,
        org: &OrgId,
        hash: &SecretHash,
        now: Timestamp,
    ) -> Result<Option<Self>, StoreError> {
        let statement = || {
            let statement = sqlx::query(FIND_ROTATED).bind(org.as_str());
            statement.bind(hash.as_bytes().as_slice()).bind(millis(now))
        };
        let rows = pool.repeatable(operation, statement).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Self {
            family: handle(operation, value(operation, row, 0)?)?,
            at: instant(operation, value(operation, row, 1)?)?,
            successor_is_unused: value(operation, row, 2)?,
        }))
    }
}

/// Puts `next` in the place of the token. Takes several statements if it was rotated before, so `pool` should be of one
/// call.
pub(super) async fn rotate(
    pool: &Pool,
    org: &OrgId,
    hash: &SecretHash,
    next: &RefreshToken,
    proven: bool,
    now: Timestamp,
    on: UseEvents<'_>,
) -> Result<Rotation, StoreError> {
    const OPERATION: &str = "grants.rotate";
    let used = Recorded::new(OPERATION, org, on.used)?;
    let rotate = || {
        let statement = used.statement(ROTATE).bind(hash.as_bytes().as_slice()).bind(millis(now));
        bind(statement, Some(next))
    };
    let rows = pool.change(OPERATION, rotate).await.map_err(|error| refused(OPERATION, error))?;
    if changed(OPERATION, &rows)? {
        return Ok(Rotation::Rotated);
    }
    // One that is not rotated was added since: at the instant of the rotation there was none.
    let Some(rotated) = Rotated::find(pool, OPERATION, org, hash, now).await? else {
        return Ok(Rotation::Missing);
    };
    if proven && rotated.successor_is_unused && now < rotated.at.plus(ROTATION_GRACE) {
        return Ok(Rotation::Raced);
    }
    match marks::mark(pool, OPERATION, org, rotated.family, next.expires_at, on.reused).await? {
        Revoked::Revoked | Revoked::AlreadyRevoked => Ok(Rotation::Reused),
    }
}
