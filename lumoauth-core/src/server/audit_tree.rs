//! What shows that the audit log was not changed: signed heads, proofs and exports; and retention, which keeps them valid.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use super::{ApiError, AuthorizationServer};
use crate::{
    audit::{Actor, Event, EventKind},
    audit_export::{FORMAT, HEAD_TYPE, HeadClaims, Line},
    clock::Timestamp,
    id::OrgId,
    keys::{Jwk, KeyError, KeyPurpose},
    merkle::{self, BLOCK, Node},
    store::{Checkpoint, StoreError, TreeLevel},
    token,
};

/// How many entries an organization may gain before its head is signed at once.
const SIGN_AFTER: u64 = 1000;

/// How many entries are read or lose their bodies at once.
const STEP: u32 = 1000;

/// How many steps of retention one round takes for an organization.
const MAX_STEPS: u32 = 100;

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
        let (head, _) = self.audit_head(org).await?;
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
        let (mut at, end) = (after, head.size.min(after.saturating_add(u64::from(max))));
        let mut size = 0;
        while at < end && size < max_bytes {
            let step = u32::try_from(end - at).unwrap_or(u32::MAX).min(STEP);
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
        let head = audit.head(org).await?;
        let size = head.tree.size();
        if size == 0 {
            return Ok(None);
        }
        if head.signed != size {
            let now = self.now();
            let claims = HeadClaims {
                iss: self.issuer(org),
                org: org.clone(),
                size,
                root: head.tree.root(),
                at: now.unix_millis(),
            };
            let signer = self.inner.keys.signer(org, KeyPurpose::AuditHead, now).await?;
            let signed = token::sign(&*signer, HEAD_TYPE, &claims).await?;
            audit.sign_off(org, &Checkpoint { size, signed }).await?;
        }
        // Another server may have been first, and its head stays.
        let kept = audit.checkpoints(org, size - 1, 1).await?.into_iter().next();
        Ok(Some(kept.ok_or_else(incomplete)?.signed))
    }

    /// Signs the heads of logs that have grown: by any number, or only those that have grown much.
    pub(super) async fn sign_heads(&self, all: bool) -> Result<(), StoreError> {
        let by = if all { 1 } else { SIGN_AFTER };
        for org in self.stores().audit.unsigned(by, ORGANIZATIONS).await? {
            if let Err(error) = self.sign_head(&org).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, %org, "cannot sign the head of the audit log");
            }
        }
        Ok(())
    }

    /// Drops the bodies of entries that are older than they are kept, if the host wants that. Before, the log says so
    /// itself: whoever checks it later finds the reason in it.
    pub(super) async fn drop_old_bodies(&self, org: &OrgId, now: Timestamp) -> Result<(), StoreError> {
        const DAY: u64 = 86_400;
        let Some(kept) = self.inner.audit_retention else { return Ok(()) };
        // Whole days, so that a busy log says it once a day.
        let before = Timestamp::from_unix_seconds(now.minus(kept).unix_seconds() / DAY * DAY);
        for _ in 0..MAX_STEPS {
            let dropped = self.stores().audit.head(org).await?.dropped;
            let mut up_to = dropped;
            // Mostly there is nothing to do, and one entry tells.
            for max in [1, STEP] {
                let entries = self.stores().audit.raw(org, dropped, max).await?;
                let old = entries.iter().take_while(|entry| entry.at < before);
                up_to = old.last().map_or(dropped, |entry| entry.seq);
                if up_to == dropped {
                    break;
                }
            }
            if up_to == dropped {
                break;
            }
            let message = "the contents of old entries were dropped";
            let event = Event::new(EventKind::AuditBodiesDropped, Actor::system(), message, now)
                .with("up_to", up_to)
                .with("before", before.to_string());
            self.stores().audit.append(org, &[event]).await?;
            self.sequence(org).await?;
            self.stores().audit.drop_bodies(org, up_to).await?;
        }
        Ok(())
    }
}

/// What is there does not fit its head.
fn incomplete() -> StoreError {
    StoreError::corrupt(PROOF, "hashes of the log are missing")
}

/// How long bodies are kept at least: shorter would drop what administrators look at every day.
pub(super) const LEAST_RETENTION: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        audit_export::{Report, Verifier},
        clock::ManualClock,
        jwks::PublicKey,
        keys::{KeyRing, KeyRingConfig, MasterKey},
        organization::Organization,
        store::{AuditStore, MemoryStore, OrganizationStore, Stores},
    };

    const DAY: Duration = Duration::from_secs(86_400);

    struct Setting {
        server: AuthorizationServer,
        store: Arc<MemoryStore>,
        clock: Arc<ManualClock>,
        org: OrgId,
    }

    impl Setting {
        async fn new(retention: Option<Duration>) -> Self {
            let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_790_000_000)));
            let store = Arc::new(MemoryStore::new());
            let keys = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
            let stores = Stores::all(store.clone());
            let mut builder = AuthorizationServer::builder("https://auth.example", stores, Arc::new(keys));
            if let Some(kept) = retention {
                builder = builder.with_audit_retention(kept);
            }
            let server = builder.with_clock(clock.clone()).build().unwrap();
            let org = OrgId::parse("acme").unwrap();
            let organization = Organization::new(org.clone(), "Acme", server.now());
            let event = Event::new(EventKind::OrganizationCreated, Actor::system(), "made", server.now());
            let _ = OrganizationStore::insert(&*store, &organization, &event).await.unwrap();
            server.maintain_once().await.unwrap();
            Self { server, store, clock, org }
        }

        async fn act(&self, times: usize) {
            let now = self.server.now();
            let events: Vec<_> = (0..times)
                .map(|_| Event::new(EventKind::AgentAction, Actor::system(), "canary", now))
                .collect();
            self.store.append(&self.org, &events).await.unwrap();
        }

        async fn heads(&self) -> Vec<u64> {
            let heads = self.server.audit_checkpoints(&self.org, 0, 1000).await.unwrap();
            heads.iter().map(|head| head.size).collect()
        }

        async fn verify(&self) -> Report {
            let text = self.server.audit_export(&self.org, 0, u32::MAX, usize::MAX).await.unwrap();
            let keys = self.server.audit_keys(&self.org).await.unwrap();
            let keys = keys.iter().map(|key| serde_json::to_value(key).unwrap());
            let mut verifier =
                Verifier::new(Some(keys.map(|key| PublicKey::from_jwk(&key).unwrap()).collect()));
            text.lines().for_each(|line| verifier.line(line.as_bytes()).unwrap());
            verifier.finish().unwrap()
        }
    }

    #[tokio::test]
    async fn heads_are_signed_after_a_minute_or_a_thousand_entries() {
        let setting = Setting::new(None).await;
        let before = setting.heads().await;
        setting.act(999).await;
        setting.server.sign_heads(false).await.unwrap();
        assert_eq!(setting.heads().await, before);
        setting.act(1).await;
        setting.server.sign_heads(false).await.unwrap();
        let size = setting.heads().await.pop().unwrap();
        assert_eq!(size, before.last().unwrap() + 1000);
        setting.act(1).await;
        setting.server.sign_heads(true).await.unwrap();
        setting.server.sign_heads(true).await.unwrap();
        assert_eq!(setting.heads().await, [before, vec![size, size + 1]].concat());
        assert_eq!(setting.verify().await.entries, size + 1);
    }

    #[tokio::test]
    async fn proofs_hold_over_blocks() {
        let setting = Setting::new(None).await;
        setting.act(2500).await;
        let (head, _) = setting.server.audit_head(&setting.org).await.unwrap();
        for seq in [1, 2, 1023, 1024, 1025, 2048, 2049, head.size] {
            for size in [seq, 2048.max(seq), head.size] {
                let proof = setting.server.audit_inclusion(&setting.org, seq, Some(size)).await.unwrap();
                assert!(merkle::verify_inclusion(proof.of, seq - 1, size, &proof.nodes, proof.root));
                assert!(size != head.size || proof.root == head.root);
                let grown = setting.server.audit_consistency(&setting.org, seq, Some(size)).await.unwrap();
                assert!(merkle::verify_consistency((seq, grown.of), (size, grown.root), &grown.nodes));
            }
        }
        assert_eq!(setting.verify().await.root, head.root);
    }

    #[tokio::test]
    async fn retention_keeps_every_proof_and_says_what_it_did() {
        let setting = Setting::new(Some(2 * DAY)).await;
        setting.act(1200).await;
        let (old, _) = setting.server.audit_head(&setting.org).await.unwrap();
        setting.clock.advance(DAY);
        setting.act(3).await;
        setting.server.maintain_once().await.unwrap();
        assert_eq!(setting.verify().await.dropped, 0);
        setting.clock.advance(2 * DAY);
        setting.server.maintain_once().await.unwrap();

        let report = setting.verify().await;
        assert_eq!(report.dropped, old.size);
        let proof = setting.server.audit_inclusion(&setting.org, 1, Some(old.size)).await.unwrap();
        assert_eq!(proof.root, old.root);
        let grown = setting.server.audit_consistency(&setting.org, old.size, None).await.unwrap();
        assert!(merkle::verify_consistency((old.size, old.root), (grown.size, grown.root), &grown.nodes));
        let text = setting.server.audit_export(&setting.org, 0, u32::MAX, usize::MAX).await.unwrap();
        assert_eq!(text.matches("canary").count(), 3);

        // What is done is not done again.
        setting.server.maintain_once().await.unwrap();
        assert_eq!(setting.verify().await.entries, report.entries);
    }

    #[tokio::test]
    async fn the_clock_goes_back_and_the_order_stays() {
        let setting = Setting::new(None).await;
        setting.act(2).await;
        let now = setting.server.now();
        setting.clock.set(now.minus(Duration::from_secs(3600)));
        setting.act(2).await;
        let report = setting.verify().await;
        let raw = setting.store.raw(&setting.org, report.entries - 4, 9).await.unwrap();
        let times: Vec<_> = raw.iter().map(|entry| entry.at < now).collect();
        assert_eq!(times, [false, false, true, true]);
    }

    #[tokio::test]
    async fn without_entries_there_is_no_head() {
        let setting = Setting::new(None).await;
        let nobody = OrgId::parse("nobody").unwrap();
        assert!(matches!(setting.server.audit_head(&nobody).await, Err(ApiError::NotFound(_))));
    }
}
