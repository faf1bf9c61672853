//! Revocation marks.

use lumoauth_core::{
    audit::Event,
    clock::Timestamp,
    id::OrgId,
    store::{Handle, Revoked, StoreError},
};

use crate::{
    pool::Pool,
    records::{Recorded, changed, millis, recorded},
};

const MARK: &str = recorded!(
    "INSERT INTO revocation_mark (org_id, handle, keep_until)
    VALUES ($1, $5, $6)
    ON CONFLICT (org_id, handle) DO NOTHING"
);

const KEEP: &str = "UPDATE revocation_mark SET keep_until = greatest(keep_until, $3)
    WHERE org_id = $1 AND handle = $2
    RETURNING 1";

const ANY: &str = "SELECT 1 FROM revocation_mark WHERE org_id = $1 AND handle = ANY($2) LIMIT 1";

/// How often a mark that a purge took away between two statements is made anew.
const MAX_TRIES: u32 = 5;

/// Marks `handle` until `keep_until` or later. Takes several statements, so `pool` should be of one call.
pub(super) async fn mark(
    pool: &Pool,
    operation: &'static str,
    org: &OrgId,
    handle: Handle,
    keep_until: Timestamp,
    on: &Event,
) -> Result<Revoked, StoreError> {
    let on = Recorded::new(operation, org, on)?;
    let keep_until = millis(keep_until);
    let handle = handle.as_bytes().as_slice();
    for _ in 0..MAX_TRIES {
        let mark = || on.statement(MARK).bind(handle).bind(keep_until);
        if changed(operation, &pool.change(operation, mark).await?)? {
            return Ok(Revoked::Revoked);
        }
        let keep = || sqlx::query(KEEP).bind(org.as_str()).bind(handle).bind(keep_until);
        if !pool.repeatable(operation, keep).await?.is_empty() {
            return Ok(Revoked::AlreadyRevoked);
        }
    }
    Err(StoreError::unavailable(operation, "the mark is purged as fast as it is made"))
}

/// Whether any of `handles` is marked.
pub(super) async fn any(pool: &Pool, org: &OrgId, handles: &[Handle]) -> Result<bool, StoreError> {
    if handles.is_empty() {
        return Ok(false);
    }
    let handles: Vec<&[u8]> = handles.iter().map(|handle| handle.as_bytes().as_slice()).collect();
    let statement = || sqlx::query(ANY).bind(org.as_str()).bind(&handles);
    Ok(!pool.repeatable("grants.any_revoked", statement).await?.is_empty())
}
