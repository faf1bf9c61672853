//! What shows that the audit log was not changed: signed heads, proofs and exports; and retention, which keeps them valid.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;

use super::{ApiError, AuthorizationServer};
use crate::{
    audit::{Actor, Event, EventKind},
    audit_export::{DROP_TYPE, DropClaims, FORMAT, HEAD_TYPE, HeadClaims, Line},
    clock::Timestamp,
    id::OrgId,
    jwks::PublicKey,
    keys::{Jwk, KeyError, KeyPurpose},
    merkle::{self, BLOCK, Node},
    store::{AuditFilter, Checkpoint, LogEntry, LogHead, Page, StoreError, StoreErrorKind, TreeLevel},
    token,
};

/// How many entries an organization may gain before its head is signed at once.
const SIGN_AFTER: u64 = 1000;

/// How many entries are read at once.
const STEP: u32 = 1000;

/// About how many entries lose their bodies at once, with one event that says so.
const MOST_DROPPED: u64 = 10_000;

/// How often that happens in one round for an organization.
const MAX_DROPS: u32 = 10;

/// How many organizations are asked for at a time.
const ORGANIZATIONS: u32 = 1000;

const PROOF: &str = "audit.proof";

/// A proof (RFC 9162 sections 2.1.3 and 2.1.4), and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TreeProof {
    /// The leaf of the entry, or the root of the older tree.
    pub of: Node,
    /// How many entries the (newer) tree has.
    pub size: u64,
    /// Its root.
    pub root: Node,
    /// The hashes of the proof.
    pub nodes: Vec<Node>,
}

impl AuthorizationServer {
    /// The signed head of the log as it is now: what it says, and the compact JWS. It is signed now if it was not yet.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if the log has no entries; [`ApiError`] if the store or the key cannot be used.
    pub async fn audit_head(&self, org: &OrgId) -> Result<(HeadClaims, String), ApiError> {
        self.sequence(org).await?;
        let signed = self.sign_head(org).await?.ok_or(ApiError::NotFound("audit entry"))?;
        let claims = HeadClaims::unverified(&signed);
        let claims = claims.ok_or_else(|| StoreError::corrupt("audit.checkpoints", "not a signed head"))?;
        Ok((claims, signed))
    }

    /// Up to `max` heads that were signed, of more than `after` entries, the smallest first.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn audit_checkpoints(
        &self,
        org: &OrgId,
        after: u64,
        max: u32,
    ) -> Result<Vec<Checkpoint>, ApiError> {
        Ok(self.stores().audit.checkpoints(org, after, max).await?)
    }

    /// The public keys that heads are and were signed with. They are never removed.
    ///
    /// # Errors
    /// [`KeyError`] if they cannot be read.
    pub async fn audit_keys(&self, org: &OrgId) -> Result<Vec<Jwk>, KeyError> {
        let keys = self.inner.keys.verifying_keys(org, KeyPurpose::AuditHead, self.now()).await?;
        Ok(keys.iter().map(|key| key.jwk().clone()).collect())
    }

    /// The proof that the entry `seq` is in the tree over the first `size` entries, or over all that there are.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is no such entry in such a tree.
    pub async fn audit_inclusion(
        &self,
        org: &OrgId,
        seq: u64,
        size: Option<u64>,
    ) -> Result<TreeProof, ApiError> {
        let size = self.tree_size(org, size).await?;
        let index = seq.checked_sub(1).ok_or(ApiError::NotFound("audit entry"))?;
        let ranges = merkle::inclusion_ranges(index, size).ok_or(ApiError::NotFound("audit entry"))?;
        let leaves = self.stores().audit.nodes(org, TreeLevel::Leaves, index..seq).await?;
        let of = leaves.first().copied().ok_or(ApiError::NotFound("audit entry"))?;
        self.proof(org, of, size, ranges).await
    }

    /// The proof that the tree over the first `from` entries is the beginning of that over the first `to` ones, or over
    /// all that there are.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there are no such trees.
    pub async fn audit_consistency(
        &self,
        org: &OrgId,
        from: u64,
        to: Option<u64>,
    ) -> Result<TreeProof, ApiError> {
        let size = self.tree_size(org, to).await?;
        let ranges = merkle::consistency_ranges(from, size).ok_or(ApiError::NotFound("audit tree"))?;
        let older = self.hashes(org, std::slice::from_ref(&(0..from))).await?;
        let of = older.first().copied().ok_or_else(incomplete)?;
        self.proof(org, of, size, ranges).await
    }

    /// A part of the log as a file that can be checked without this server: up to `max` entries above `after`. What the
    /// lines are: [`crate::audit_export`].
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if the log has no entries; [`ApiError`] if the store or the key cannot be used.
    pub async fn audit_export(
        &self,
        org: &OrgId,
        after: u64,
        max: u32,
        max_bytes: usize,
    ) -> Result<String, ApiError> {
        let end = match self.audit_head(org).await {
            Ok((head, _)) => head.size,
            // What was signed contradicts what is there. Whoever checks the file is to see both.
            Err(ApiError::Store(error)) if error.kind() == StoreErrorKind::Corrupt => u64::MAX,
            Err(error) => return Err(error),
        };
        let mut text = String::new();
        let mut add = |line: &Line| -> Result<usize, ApiError> {
            let line = line.to_text().map_err(|error| StoreError::other("audit.export", error))?;
            text.push_str(&line);
            Ok(text.len())
        };
        add(&Line::Log { format: FORMAT.to_owned(), org: org.clone() })?;
        for key in self.audit_keys(org).await? {
            let jwk = serde_json::to_value(key).map_err(|error| StoreError::other("audit.export", error))?;
            add(&Line::Key { jwk })?;
        }
        let (mut at, part) = (after, end.min(after.saturating_add(u64::from(max))));
        let mut size = 0;
        while at < part && size < max_bytes {
            let step = u32::try_from(part - at).unwrap_or(u32::MAX).min(STEP);
            let heads = self.stores().audit.checkpoints(org, at, step).await?;
            let mut heads = heads.into_iter().peekable();
            let entries = self.stores().audit.raw(org, at, step).await?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                at = entry.seq;
                size = add(&Line::entry(entry))?;
                if let Some(head) = heads.next_if(|head| head.size == at) {
                    size = add(&Line::Head { jws: head.signed })?;
                }
                if size >= max_bytes {
                    break;
                }
            }
        }
        if at < end && self.stores().audit.raw(org, at, 1).await?.is_empty() {
            // What signed heads say that there was is gone. The first of them shows it, and so do all others.
            for head in self.stores().audit.checkpoints(org, at, STEP).await? {
                if head.size <= end {
                    add(&Line::Head { jws: head.signed })?;
                }
            }
        }
        Ok(text)
    }

    async fn tree_size(&self, org: &OrgId, wanted: Option<u64>) -> Result<u64, ApiError> {
        self.sequence(org).await?;
        let there = self.stores().audit.head(org).await?.tree.size();
        let size = wanted.unwrap_or(there);
        if size > there { Err(ApiError::NotFound("audit tree")) } else { Ok(size) }
    }

    async fn proof(
        &self,
        org: &OrgId,
        of: Node,
        size: u64,
        mut ranges: Vec<Range<u64>>,
    ) -> Result<TreeProof, ApiError> {
        ranges.push(0..size);
        let mut nodes = self.hashes(org, &ranges).await?;
        let root = nodes.pop().ok_or_else(incomplete)?;
        Ok(TreeProof { of, size, root, nodes })
    }

    /// The hashes of ranges of leaves, from the roots of whole blocks and the leaves of few.
    async fn hashes(&self, org: &OrgId, ranges: &[Range<u64>]) -> Result<Vec<Node>, StoreError> {
        let audit = &self.stores().audit;
        let end = ranges.iter().map(|range| merkle::whole_blocks(range).0.end).max().unwrap_or(0);
        let blocks = if end > 0 { audit.nodes(org, TreeLevel::Blocks, 0..end).await? } else { Vec::new() };
        let mut leaves = BTreeMap::new();
        for block in merkle::blocks_of(ranges) {
            let start = block * BLOCK;
            leaves.insert(block, audit.nodes(org, TreeLevel::Leaves, start..start + BLOCK).await?);
        }
        let hash = |range: &Range<u64>| {
            let (whole, rest) = merkle::whole_blocks(range);
            let within = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            let whole = blocks.get(within(whole.start)..within(whole.end))?;
            let first = rest.start / BLOCK * BLOCK;
            let rest = match leaves.get(&(rest.start / BLOCK)) {
                Some(leaves) => leaves.get(within(rest.start - first)..within(rest.end - first))?,
                None if rest.is_empty() => &[],
                None => return None,
            };
            Some(merkle::range_root(whole, rest))
        };
        ranges.iter().map(hash).collect::<Option<_>>().ok_or_else(incomplete)
    }

    /// Signs the head of the log unless that is done. The signed head; `None` if the log has no entries.
    async fn sign_head(&self, org: &OrgId) -> Result<Option<String>, ApiError> {
        let audit = &self.stores().audit;
        // Before the log is looked at: what is signed here meanwhile is about more than was there then.
        let known = self.inner.signed_heads.last(org);
        let head = audit.head(org).await?;
        let size = head.tree.size();
        if head.signed > size {
            return Err(contradicted(org, "a signed head is about more entries than there are").into());
        }
        if size == 0 {
            return Ok(None);
        }
        if head.signed != size {
            self.compare_with_what_was_signed(org, &head, known, Strangers::Believed).await?;
            let now = self.now();
            let (iss, root) = (self.issuer(org), head.tree.root());
            let claims = HeadClaims { iss, org: org.clone(), size, root, at: now.unix_millis() };
            let signer = self.inner.keys.signer(org, KeyPurpose::AuditHead, now).await?;
            let signed = token::sign(&*signer, HEAD_TYPE, &claims).await?;
            audit.sign_off(org, &Checkpoint { size, signed }).await?;
            self.inner.signed_heads.keep(org, size, root);
        }
        // Another server may have been first, and its head stays.
        let kept = audit.checkpoints(org, size - 1, 1).await?.into_iter().next();
        let kept = kept.filter(|kept| kept.size == size).ok_or_else(incomplete)?;
        let says = HeadClaims::unverified(&kept.signed);
        if says.is_none_or(|says| (&says.org, says.size, says.root) != (org, size, head.tree.root())) {
            return Err(contradicted(org, "the signed head of this size is that of something else").into());
        }
        Ok(Some(kept.signed))
    }

    /// Fails unless the log goes on from the newest signed head that is kept, and from the one that was `known` here before
    /// the log was looked at: what was rewritten is not signed again.
    async fn compare_with_what_was_signed(
        &self,
        org: &OrgId,
        head: &LogHead,
        known: Option<(u64, Node)>,
        strangers: Strangers,
    ) -> Result<(), ApiError> {
        let mut said = vec![(head.tree.size(), head.tree.root())];
        let newest = match head.signed {
            0 => Vec::new(),
            signed => self.stores().audit.checkpoints(org, signed - 1, 1).await?,
        };
        if let Some(newest) = newest.first() {
            let claims = match HeadClaims::verified(&newest.signed, &self.public_audit_keys(org).await?) {
                Err(problem @ HeadClaims::UNKNOWN_KEY) if strangers == Strangers::Believed => {
                    // Whoever can write heads can take them away as well, so a log whose keys were lost goes on.
                    tracing::warn!(%org, problem, "the newest signed head cannot be checked");
                    HeadClaims::unverified(&newest.signed).ok_or(problem)
                }
                verified => verified,
            };
            let claims = claims.map_err(|problem| contradicted(org, problem))?;
            if claims.org != *org || claims.size != newest.size {
                return Err(contradicted(org, "the newest signed head is that of something else").into());
            }
            said.push((claims.size, claims.root));
        }
        said.extend(known);
        let (ranges, roots): (Vec<_>, Vec<_>) = said.into_iter().map(|(size, root)| (0..size, root)).unzip();
        let longest = ranges.iter().map(|range| range.end).max();
        if longest != Some(head.tree.size()) || self.hashes(org, &ranges).await? != roots {
            return Err(contradicted(org, "what was signed contradicts what is there").into());
        }
        Ok(())
    }

    async fn public_audit_keys(&self, org: &OrgId) -> Result<Vec<PublicKey>, KeyError> {
        let keys = self.audit_keys(org).await?;
        let keys = keys.iter().filter_map(|key| PublicKey::from_jwk(&serde_json::to_value(key).ok()?));
        Ok(keys.collect())
    }

    /// Signs the heads of logs that have grown: by any number, or only those that have grown much.
    pub(super) async fn sign_heads(&self, all: bool) -> Result<(), StoreError> {
        self.sign_heads_by(if all { 1 } else { SIGN_AFTER }, ORGANIZATIONS).await
    }

    /// Signs the heads of logs that have grown by so many entries, a page of organizations after the other.
    async fn sign_heads_by(&self, by: u64, page: u32) -> Result<(), StoreError> {
        let mut last: Option<OrgId> = None;
        loop {
            let orgs = self.stores().audit.unsigned(by, last.as_ref(), page).await?;
            for org in &orgs {
                if let Err(error) = self.sign_head(org).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, %org, "cannot sign the head of the audit log");
                }
            }
            if orgs.len() < page as usize {
                return Ok(());
            }
            last = orgs.into_iter().next_back();
        }
    }

    /// Drops the bodies of entries that are older than they are kept, if the host wants that. The log says so itself:
    /// whoever checks it later finds the signed reason in it.
    pub(super) async fn drop_old_bodies(&self, org: &OrgId, now: Timestamp) -> Result<(), ApiError> {
        const DAY: u64 = 86_400;
        let Some(kept) = self.inner.audit_retention else { return Ok(()) };
        // Whole days, so that it happens once a day.
        let before = Timestamp::from_unix_seconds(now.minus(kept).unix_seconds() / DAY * DAY);
        for _ in 0..MAX_DROPS {
            let known = self.inner.signed_heads.last(org);
            let dropped = self.stores().audit.head(org).await?.dropped;
            // The reason of what was dropped last may still wait for its number.
            self.sequence(org).await?;
            let (up_to, leaves) = self.old_entries(org, dropped, before).await?;
            if up_to == dropped {
                break;
            }
            self.check_what_is_dropped(org, dropped, &leaves, known).await?;
            let (iss, org_id) = (self.issuer(org), org.clone());
            let claims = DropClaims { iss, org: org_id, up_to, before: before.unix_millis() };
            let signer = self.inner.keys.signer(org, KeyPurpose::AuditHead, now).await?;
            let message = "the contents of old entries were dropped";
            let event = Event::new(EventKind::AuditBodiesDropped, Actor::system(), message, now)
                .with("up_to", up_to)
                .with("before", before.to_string())
                .with("signed", token::sign(&*signer, DROP_TYPE, &claims).await?);
            // Another server may have been first.
            if self.stores().audit.drop_bodies(org, dropped, up_to, &event).await? == 0 {
                break;
            }
        }
        self.sequence(org).await?;
        Ok(())
    }

    /// Fails unless `leaves`, those after the first `dropped`, are what was signed, and what was dropped before them was
    /// dropped here: a reason is signed for nothing that somebody else took away or wrote.
    async fn check_what_is_dropped(
        &self,
        org: &OrgId,
        dropped: u64,
        leaves: &[Node],
        known: Option<(u64, Node)>,
    ) -> Result<(), ApiError> {
        let audit = &self.stores().audit;
        let kind = Some(EventKind::AuditBodiesDropped.as_str().to_owned());
        let reasons = AuditFilter { kind, ..AuditFilter::default() };
        let last = audit.page(org, &reasons, Page::first(1)).await?.items.pop();
        let explained = match last {
            None => 0,
            Some(LogEntry { event, .. }) => {
                let signed = event.context.get("signed").and_then(Value::as_str).unwrap_or_default();
                let claims = DropClaims::verified(signed, &self.public_audit_keys(org).await?);
                let claims = claims.filter(|claims| claims.org == *org);
                claims.ok_or_else(|| contradicted(org, "the last reason of retention is not signed"))?.up_to
            }
        };
        // More is explained if another server was first, which is found when it is dropped.
        if explained < dropped {
            return Err(contradicted(org, "contents are missing that nobody has dropped").into());
        }
        let head = audit.head(org).await?;
        self.compare_with_what_was_signed(org, &head, known, Strangers::Refused).await?;
        // The roots of whole blocks were compared, and so are those of what is dropped, with the leaves in them.
        let end = dropped + leaves.len() as u64;
        // The heads that there were when these were judged may be gone.
        if end > head.signed {
            return Err(contradicted(org, "what is old enough to be dropped is not signed any more").into());
        }
        let (first, last) = (dropped / BLOCK, end.div_ceil(BLOCK));
        // In this order: a block may become whole meanwhile.
        let blocks = audit.nodes(org, TreeLevel::Blocks, first..last).await?;
        let there = audit.nodes(org, TreeLevel::Leaves, first * BLOCK..last * BLOCK).await?;
        let skipped = usize::try_from(dropped - first * BLOCK).unwrap_or(usize::MAX);
        let whole = usize::try_from(BLOCK).unwrap_or(usize::MAX);
        let roots = there.chunks_exact(whole).map(|leaves| merkle::range_root(&[], leaves));
        let same = there.get(skipped..).is_some_and(|there| there.starts_with(leaves));
        if !same || !roots.take(blocks.len()).eq(blocks) {
            return Err(contradicted(org, "what is old enough to be dropped is not what was signed").into());
        }
        Ok(())
    }

    /// Up to which entry those after the first `dropped` may lose their bodies now, and their hashes. What was changed stays
    /// as it is: without its body nobody could see that any more. What no signed head is about stays as well.
    async fn old_entries(
        &self,
        org: &OrgId,
        dropped: u64,
        before: Timestamp,
    ) -> Result<(u64, Vec<Node>), StoreError> {
        let (mut up_to, mut leaves) = (dropped, Vec::new());
        let signed = self.stores().audit.head(org).await?.signed;
        // Mostly there is nothing to do, and one entry tells.
        let mut step = 1;
        while up_to - dropped < MOST_DROPPED {
            let entries = self.stores().audit.raw(org, up_to, step).await?;
            if entries.is_empty() {
                break;
            }
            step = STEP;
            for entry in entries {
                if entry.at >= before || entry.seq > signed {
                    return Ok((up_to, leaves));
                }
                if entry.recomputed(org) != Some(entry.leaf) {
                    tracing::error!(%org, seq = entry.seq, "an audit entry was changed; nothing is dropped from it on");
                    return Ok((up_to, leaves));
                }
                up_to = entry.seq;
                leaves.push(entry.leaf);
            }
        }
        Ok((up_to, leaves))
    }
}

/// What a head that was signed with a key that is not known any more is good for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strangers {
    /// To go on from.
    Believed,
    /// For nothing.
    Refused,
}

/// The heads that this process signed last: what it knows even if somebody rewrites all that is stored.
#[derive(Debug, Default)]
pub(super) struct SignedHeads(Mutex<HashMap<OrgId, (u64, Node)>>);

impl SignedHeads {
    fn last(&self, org: &OrgId) -> Option<(u64, Node)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(org).copied()
    }

    fn keep(&self, org: &OrgId, size: u64, root: Node) {
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match heads.get_mut(org) {
            Some(last) if last.0 >= size => {}
            Some(last) => *last = (size, root),
            None => drop(heads.insert(org.clone(), (size, root))),
        }
    }
}

/// The log is not what was signed of it. The administrator must look.
fn contradicted(org: &OrgId, problem: &'static str) -> StoreError {
    tracing::error!(%org, problem, "the audit log is not what was signed; nothing about it is signed");
    StoreError::corrupt("audit.sign", problem)
}

/// What is there does not fit its head.
fn incomplete() -> StoreError {
    StoreError::corrupt(PROOF, "hashes of the log are missing")
}

/// How long bodies are kept at least: shorter would drop what administrators look at every day.
pub(super) const LEAST_RETENTION: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests;
