//! Heads, proofs, exports and retention.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::*;
use crate::{
    audit_export::{Finding, Report, Verifier},
    clock::ManualClock,
    keys::{KeyRing, KeyRingConfig, MasterKey},
    merkle::Frontier,
    organization::Organization,
    store::{
        AuditFilter, AuditKey, AuditStats, AuditStore, Listing, LogEntry, MemoryStore, OrganizationStore,
        Page, RawEntry, Stores,
    },
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
        let store = Arc::new(MemoryStore::new());
        Self::on(store.clone(), Stores::all(store), retention).await
    }

    async fn on(store: Arc<MemoryStore>, stores: Stores, retention: Option<Duration>) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_790_000_000)));
        let keys = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
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
        let events: Vec<_> =
            (0..times).map(|_| Event::new(EventKind::AgentAction, Actor::system(), "canary", now)).collect();
        self.store.append(&self.org, &events).await.unwrap();
    }

    async fn heads(&self) -> Vec<u64> {
        let heads = self.server.audit_checkpoints(&self.org, 0, 1000).await.unwrap();
        heads.iter().map(|head| head.size).collect()
    }

    async fn verify(&self) -> Report {
        self.verified().await.unwrap()
    }

    async fn verified(&self) -> Result<Report, Finding> {
        let text = self.server.audit_export(&self.org, 0, u32::MAX, usize::MAX).await.unwrap();
        let keys = self.server.audit_keys(&self.org).await.unwrap();
        let keys = keys.iter().map(|key| serde_json::to_value(key).unwrap());
        let mut verifier = Verifier::new(Some(keys.map(|key| PublicKey::from_jwk(&key).unwrap()).collect()));
        text.lines().try_for_each(|line| verifier.line(line.as_bytes()))?;
        verifier.finish()
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

    assert_eq!(text.matches("audit.bodies_dropped").count(), 1);

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

/// What somebody with the database did to it.
#[derive(Clone, Debug)]
enum Edit {
    /// The entries above this are gone; with `true`, the head says so as well.
    Cut(u64, bool),
    /// This entry has another body, and everything that is computed from it is computed anew.
    Rewrite(u64),
    /// This entry has another body.
    Body(u64),
    /// The entries up to this have no bodies, and the log says that they were dropped.
    Emptied(u64),
    /// The newest signed head is the oldest one once more.
    OldHead,
}

/// A store that was edited.
#[derive(Debug)]
struct Edited {
    memory: Arc<MemoryStore>,
    edit: Mutex<Option<Edit>>,
    /// Heads of more entries are gone.
    heads_until: Mutex<u64>,
    /// Whoever asks for heads next waits for this.
    gate: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Edited {
    fn edit(&self) -> Option<Edit> {
        self.edit.lock().unwrap().clone()
    }

    async fn all(&self, org: &OrgId) -> Result<(Vec<RawEntry>, Frontier), StoreError> {
        let (mut entries, mut tree) = (self.memory.raw(org, 0, u32::MAX).await?, Frontier::default());
        for entry in &mut entries {
            match self.edit() {
                Some(Edit::Rewrite(seq)) if seq == entry.seq => {
                    entry.body = entry.body.take().map(|body| body.replace("canary", "forged"));
                    entry.leaf = entry.recomputed(org).unwrap();
                }
                Some(Edit::Body(seq)) if seq == entry.seq => {
                    entry.body = entry.body.take().map(|body| body.replace("canary", "forged"));
                }
                Some(Edit::Emptied(up_to)) if up_to >= entry.seq => entry.body = None,
                _ => {}
            }
        }
        if let Some(Edit::Cut(size, _)) = self.edit() {
            entries.truncate(usize::try_from(size).unwrap());
        }
        for entry in &entries {
            let _block = tree.push(entry.leaf);
        }
        Ok((entries, tree))
    }
}

#[async_trait]
impl AuditStore for Edited {
    async fn append(&self, org: &OrgId, events: &[Event]) -> Result<(), StoreError> {
        self.memory.append(org, events).await
    }

    async fn waiting(&self, max: u32) -> Result<Vec<OrgId>, StoreError> {
        self.memory.waiting(max).await
    }

    async fn sequence(&self, org: &OrgId, max: u32) -> Result<u64, StoreError> {
        self.memory.sequence(org, max).await
    }

    async fn find(&self, org: &OrgId, key: AuditKey) -> Result<Option<LogEntry>, StoreError> {
        AuditStore::find(&*self.memory, org, key).await
    }

    async fn page(
        &self,
        org: &OrgId,
        filter: &AuditFilter,
        page: Page,
    ) -> Result<Listing<LogEntry>, StoreError> {
        AuditStore::page(&*self.memory, org, filter, page).await
    }

    async fn stats(&self, org: &OrgId, filter: &AuditFilter) -> Result<AuditStats, StoreError> {
        self.memory.stats(org, filter).await
    }

    async fn head(&self, org: &OrgId) -> Result<LogHead, StoreError> {
        let mut head = self.memory.head(org).await?;
        let until = *self.heads_until.lock().unwrap();
        let signed = self.memory.checkpoints(org, 0, u32::MAX).await?;
        head.signed = signed.iter().map(|head| head.size).filter(|size| *size <= until).max().unwrap_or(0);
        match self.edit() {
            None | Some(Edit::Cut(_, false) | Edit::OldHead) => {}
            Some(Edit::Emptied(up_to)) => head.dropped = up_to,
            Some(_) => head.tree = self.all(org).await?.1,
        }
        Ok(head)
    }

    async fn nodes(&self, org: &OrgId, level: TreeLevel, range: Range<u64>) -> Result<Vec<Node>, StoreError> {
        let leaves: Vec<_> = self.all(org).await?.0.iter().map(|entry| entry.leaf).collect();
        let nodes = match level {
            TreeLevel::Leaves => leaves,
            TreeLevel::Blocks => {
                let mut tree = Frontier::default();
                leaves.into_iter().filter_map(|leaf| tree.push(leaf)).collect()
            }
        };
        let place = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(nodes.len());
        Ok(nodes[place(range.start)..place(range.end)].to_vec())
    }

    async fn raw(&self, org: &OrgId, after: u64, max: u32) -> Result<Vec<RawEntry>, StoreError> {
        let entries = self.all(org).await?.0.into_iter().filter(|entry| entry.seq > after);
        Ok(entries.take(usize::try_from(max).unwrap()).collect())
    }

    async fn sign_off(&self, org: &OrgId, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        *self.heads_until.lock().unwrap() = u64::MAX;
        self.memory.sign_off(org, checkpoint).await
    }

    async fn checkpoints(&self, org: &OrgId, after: u64, max: u32) -> Result<Vec<Checkpoint>, StoreError> {
        let gate = self.gate.lock().unwrap().take();
        if let Some(gate) = gate {
            gate.await.unwrap();
        }
        let until = *self.heads_until.lock().unwrap();
        let mut heads = self.memory.checkpoints(org, after, max).await?;
        if let (Some(Edit::OldHead), Some(newest)) = (self.edit(), heads.last_mut())
            && newest.size == 30
        {
            newest.signed = self.memory.checkpoints(org, 0, 1).await?.remove(0).signed;
        }
        Ok(heads.into_iter().filter(|head| head.size <= until).collect())
    }

    async fn unsigned(&self, by: u64, after: Option<&OrgId>, max: u32) -> Result<Vec<OrgId>, StoreError> {
        self.memory.unsigned(by, after, max).await
    }

    async fn drop_bodies(&self, org: &OrgId, from: u64, up_to: u64, on: &Event) -> Result<u64, StoreError> {
        let from = if matches!(self.edit(), Some(Edit::Emptied(_))) { 0 } else { from };
        self.memory.drop_bodies(org, from, up_to, on).await
    }
}

/// A server on an edited store. The heads are about every third entry, and about the last of the 30.
async fn edited(retention: Option<Duration>) -> (Setting, Arc<Edited>) {
    let memory = Arc::new(MemoryStore::new());
    let heads_until = Mutex::new(u64::MAX);
    let (edit, gate) = (Mutex::default(), Mutex::default());
    let edited = Arc::new(Edited { memory: memory.clone(), edit, heads_until, gate });
    let mut stores = Stores::all(memory.clone());
    stores.audit = edited.clone();
    let setting = Setting::on(memory, stores, retention).await;
    let mut size = 0;
    while size < 30 {
        setting.act(1).await;
        size = setting.store.head(&setting.org).await.unwrap().tree.size();
        if size % 3 == 0 {
            setting.server.audit_head(&setting.org).await.unwrap();
        }
    }
    (setting, edited)
}

#[tokio::test]
async fn a_tail_that_was_cut_off_is_found_by_the_heads_that_are_left() {
    for with_head in [false, true] {
        let (setting, edited) = edited(None).await;
        assert_eq!(setting.verify().await.entries, 30);
        *edited.edit.lock().unwrap() = Some(Edit::Cut(20, with_head));
        let finding = setting.verified().await.unwrap_err();
        assert_eq!((finding.first, finding.last), (21, 30), "{finding}");
        assert!(finding.problem.contains("cut off"), "{finding}");
        // In parts, of which one ends where the log ends now.
        let part = setting.server.audit_export(&setting.org, 10, 10, usize::MAX).await.unwrap();
        assert!(part.lines().last().unwrap().starts_with("{\"type\":\"head\""));
        // And never a head about less than what was signed.
        let is_refused = matches!(setting.server.audit_head(&setting.org).await, Err(ApiError::Store(_)));
        assert_eq!(is_refused, with_head);
        assert_eq!(setting.heads().await.last(), Some(&30));
    }
}

#[tokio::test]
async fn what_was_rewritten_is_not_signed_again() {
    let (setting, edited) = edited(None).await;
    *edited.edit.lock().unwrap() = Some(Edit::Rewrite(17));
    setting.act(1).await;
    assert!(setting.server.audit_head(&setting.org).await.is_err(), "the newest head says otherwise");
    // Without the heads: the process knows what it signed.
    *edited.heads_until.lock().unwrap() = 15;
    assert!(setting.server.audit_head(&setting.org).await.is_err(), "it signed something else");
    setting.server.sign_heads(true).await.unwrap();
    *edited.heads_until.lock().unwrap() = u64::MAX;
    assert_eq!(setting.heads().await.last(), Some(&30));
    let finding = setting.verified().await.unwrap_err();
    assert_eq!((finding.first, finding.last), (16, 18), "{finding}");

    *edited.edit.lock().unwrap() = None;
    assert_eq!(setting.server.audit_head(&setting.org).await.unwrap().0.size, 31);
    assert_eq!(setting.verify().await.entries, 31);
}

#[tokio::test]
async fn retention_drops_nothing_that_was_changed() {
    let (setting, edited) = edited(Some(2 * DAY)).await;
    *edited.edit.lock().unwrap() = Some(Edit::Body(17));
    setting.clock.advance(4 * DAY);
    setting.server.maintain_once().await.unwrap();
    setting.server.maintain_once().await.unwrap();
    assert_eq!(setting.store.head(&setting.org).await.unwrap().dropped, 16);
    let finding = setting.verified().await.unwrap_err();
    assert_eq!((finding.first, finding.last), (17, 17), "{finding}");
}

/// Nobody gets a reason signed for what they took away, or for what they wrote to be taken away.
#[tokio::test]
async fn retention_signs_no_reason_for_what_others_did() {
    for edit in [Edit::Emptied(20), Edit::Rewrite(17)] {
        let (setting, edited) = edited(Some(2 * DAY)).await;
        *edited.edit.lock().unwrap() = Some(edit.clone());
        setting.clock.advance(4 * DAY);
        setting.server.maintain_once().await.unwrap();
        assert_eq!(setting.store.head(&setting.org).await.unwrap().dropped, 0, "{edit:?}");
        let finding = setting.verified().await.unwrap_err();
        assert!(finding.first <= 20, "{finding}");
        // Everything is there again, and is dropped with a reason.
        *edited.edit.lock().unwrap() = None;
        setting.server.maintain_once().await.unwrap();
        assert_eq!(setting.store.head(&setting.org).await.unwrap().dropped, 30);
        setting.server.maintain_once().await.unwrap();
        assert_eq!(setting.verify().await.dropped, 30);
    }
}

/// Heads that are gone since the entries were judged cover nothing.
#[tokio::test]
async fn retention_signs_no_reason_beyond_the_newest_head() {
    let (setting, edited) = edited(Some(2 * DAY)).await;
    let leaves = edited.nodes(&setting.org, TreeLevel::Leaves, 0..30).await.unwrap();
    let check = async |count: usize| {
        setting.server.check_what_is_dropped(&setting.org, 0, &leaves[..count], None).await.is_ok()
    };
    assert!(check(30).await);
    *edited.heads_until.lock().unwrap() = 15;
    assert!(check(15).await && !check(16).await);
    *edited.heads_until.lock().unwrap() = 0;
    assert!(!check(1).await);
}

#[tokio::test]
async fn an_older_head_in_place_of_the_newest_is_found() {
    let (setting, edited) = edited(None).await;
    *edited.edit.lock().unwrap() = Some(Edit::OldHead);
    assert!(setting.server.audit_head(&setting.org).await.is_err());
    setting.verified().await.unwrap_err();
}

/// Of two who ask at once, the first looked at the log before the second one signed a longer one.
#[tokio::test]
async fn two_who_ask_for_the_head_at_once_get_one() {
    let (setting, edited) = edited(None).await;
    setting.act(1).await;
    let (go_on, gate) = oneshot::channel();
    *edited.gate.lock().unwrap() = Some(gate);
    let second = async {
        setting.act(1).await;
        let second = setting.server.audit_head(&setting.org).await;
        go_on.send(()).unwrap();
        second.unwrap().0.size
    };
    let (first, second) = tokio::join!(setting.server.audit_head(&setting.org), second);
    assert!(first.unwrap().0.size <= second);
    assert_eq!(setting.verify().await.entries, 32);
}

/// Without the keys of before, nobody can check the heads of before; the log goes on.
#[tokio::test]
async fn a_log_whose_keys_were_lost_goes_on() {
    let (setting, _) = edited(None).await;
    let keys = KeyRing::new(Arc::new(MemoryStore::new()), MasterKey::generate(), KeyRingConfig::default());
    let stores = Stores::all(setting.store.clone());
    let builder = AuthorizationServer::builder("https://auth.example", stores, Arc::new(keys));
    let server = builder.with_clock(setting.clock.clone()).build().unwrap();
    setting.act(1).await;
    assert_eq!(server.audit_head(&setting.org).await.unwrap().0.size, 31);
}

#[tokio::test]
async fn more_logs_than_are_asked_for_at_once_are_signed_in_one_round() {
    let setting = Setting::new(None).await;
    let orgs: Vec<_> = (0..3).map(|n| OrgId::parse(&format!("org-{n}")).unwrap()).collect();
    for org in &orgs {
        let event = Event::new(EventKind::AgentAction, Actor::system(), "canary", setting.server.now());
        setting.store.append(org, &[event]).await.unwrap();
    }
    setting.server.sign_heads_by(1, 2).await.unwrap();
    for org in &orgs {
        assert!(!setting.server.audit_checkpoints(org, 0, 9).await.unwrap().is_empty(), "{org}");
    }
}
