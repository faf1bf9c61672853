//! What shows that the audit log was not changed: signed heads, proofs, and the log as a file (RFC 9162).

use lumoauth_core::{
    server::{ApiError, TreeProof},
    wire::WireError,
};
use serde_json::json;

use super::{Call, Query, refuse};
use crate::reply::{self, Reply};

/// The most entries that one part of the file carries.
const MAX_ENTRIES: u32 = 10_000;

/// A part ends after the entry that passes this size: memory is bounded whatever the entries hold.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The most heads that one answer carries.
const MAX_HEADS: u32 = 1000;

/// GET `admin/audit-logs/tree/head`: the head as it is now, signed.
pub(crate) async fn head(call: Call) -> Result<Reply, WireError> {
    let (claims, jws) = call.server.audit_head(call.org()).await.map_err(refuse)?;
    Ok(reply::ok(&json!({
        "data": { "size": claims.size, "root": claims.root, "at": claims.at, "head": jws },
    })))
}

/// GET `admin/audit-logs/tree/checkpoints`: heads of more than `after` entries, the smallest first.
pub(crate) async fn checkpoints(call: Call) -> Result<Reply, WireError> {
    let after = number(&call.query(), "after")?.unwrap_or(0);
    let heads = call.server.audit_checkpoints(call.org(), after, MAX_HEADS).await.map_err(refuse)?;
    let heads: Vec<_> = heads.iter().map(|head| json!({ "size": head.size, "head": head.signed })).collect();
    Ok(reply::ok(&json!({ "data": heads })))
}

/// GET `admin/audit-logs/tree/inclusion`: that the entry `seq` is in the tree over the first `size` entries.
pub(crate) async fn inclusion(call: Call) -> Result<Reply, WireError> {
    let query = call.query();
    let (seq, size) = (required(&query, "seq")?, number(&query, "size")?);
    let proof = call.server.audit_inclusion(call.org(), seq, size).await.map_err(refuse)?;
    let TreeProof { of, size, root, nodes, .. } = proof;
    Ok(reply::ok(&json!({
        "data": { "seq": seq, "leaf": of, "size": size, "root": root, "proof": nodes },
    })))
}

/// GET `admin/audit-logs/tree/consistency`: that the first `from` entries of the tree over `to` are those there were.
pub(crate) async fn consistency(call: Call) -> Result<Reply, WireError> {
    let query = call.query();
    let (from, to) = (required(&query, "from")?, number(&query, "to")?);
    let proof = call.server.audit_consistency(call.org(), from, to).await.map_err(refuse)?;
    let TreeProof { of, size, root, nodes, .. } = proof;
    Ok(reply::ok(&json!({
        "data": { "from": from, "fromRoot": of, "to": size, "root": root, "proof": nodes },
    })))
}

/// GET `admin/audit-logs/tree/export`: a part of the log above `after`, as lines that can be checked offline. Parts are
/// joined as they are; one without entries is the end.
pub(crate) async fn export(call: Call) -> Result<Reply, WireError> {
    let query = call.query();
    let after = number(&query, "after")?.unwrap_or(0);
    let limit = number(&query, "limit")?.unwrap_or(MAX_ENTRIES.into()).clamp(1, MAX_ENTRIES.into());
    let limit = u32::try_from(limit).unwrap_or(MAX_ENTRIES);
    let text = call.server.audit_export(call.org(), after, limit, MAX_BYTES).await.map_err(refuse)?;
    Ok(reply::download("application/jsonl; charset=utf-8", "attachment; filename=\"audit-log.jsonl\"", text))
}

/// GET `.well-known/audit-jwks.json`: the keys that heads are and were signed with.
pub(crate) async fn jwks(call: Call) -> Result<Reply, WireError> {
    let keys = call.server.audit_keys(call.org()).await.map_err(ApiError::from).map_err(refuse)?;
    Ok(reply::metadata(&json!({ "keys": keys })))
}

fn number(query: &Query, name: &str) -> Result<Option<u64>, WireError> {
    let parse = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|_| digits)
            .ok_or_else(|| WireError::invalid_request(format!("{name} must be a number.")))
    };
    query.get(&[name]).map(parse).transpose()
}

fn required(query: &Query, name: &str) -> Result<u64, WireError> {
    number(query, name)?.ok_or_else(|| WireError::invalid_request(format!("{name} is required.")))
}
