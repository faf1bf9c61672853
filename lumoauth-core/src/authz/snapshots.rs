//! The snapshots of organizations, kept up to date by what changed.

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::lock::Mutex;
use moka::sync::Cache;

use crate::{
    id::OrgId,
    policy::{Record, RecordId, Snapshot},
    store::{PolicyStore, Since, StoreError},
};

/// How much memory all snapshots together take, about, in [`UNIT`]s; those that were not used for longest go first.
const MOST: u64 = (512 << 20) / UNIT;
/// In what they are weighed, in bytes.
const UNIT: u64 = 4096;
/// After this time without use a snapshot goes as well.
const IDLE: Duration = Duration::from_secs(1800);
/// How many records a page has.
const PAGE: u32 = 2_000;
/// With more changes than these it is as well to read everything.
const MOST_CHANGES: u32 = 10_000;
/// How often it is tried again when others write faster than they are read.
const ATTEMPTS: usize = 8;

/// Snapshots by organization. Each decision asks the store whether there is anything new; where [`Cached`] is in front of
/// it, at most once in its time to live.
///
/// [`Cached`]: crate::store::Cached
pub(crate) struct Snapshots(pub(super) Cache<OrgId, Arc<Kept>>);

/// The snapshot of one organization.
#[derive(Default)]
pub(crate) struct Kept {
    /// `None` until it was first read.
    snapshot: RwLock<Option<Snapshot>>,
    /// What it weighed when that was last looked at.
    weighed: AtomicU64,
    /// Who reads everything: one is enough.
    reading: Mutex<()>,
    /// How far maintenance has looked for what is left of others.
    swept: RwLock<Option<RecordId>>,
}

impl Default for Snapshots {
    fn default() -> Self {
        let weigh = |_: &OrgId, kept: &Arc<Kept>| {
            let weight = kept.weight();
            kept.weighed.store(weight, Ordering::Relaxed);
            u32::try_from(weight).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(MOST).weigher(weigh).time_to_idle(IDLE).build())
    }
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots").field("organizations", &self.0.entry_count()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("records", &self.len()).finish_non_exhaustive()
    }
}

impl Snapshots {
    /// The snapshot of `org`, as fresh as `store` says.
    pub(crate) async fn current(
        &self,
        store: &dyn PolicyStore,
        org: &OrgId,
    ) -> Result<Arc<Kept>, StoreError> {
        let kept = self.0.get_with_by_ref(org, Arc::default);
        kept.update(store, org).await?;
        // It was weighed when it was put there, without anything in it.
        let (weight, weighed) = (kept.weight(), kept.weighed.load(Ordering::Relaxed));
        if weight.abs_diff(weighed) > weighed / 4 {
            self.0.insert(org.clone(), kept.clone());
        }
        Ok(kept)
    }

    /// Those that are kept now. They do not count as used by that.
    pub(crate) fn all(&self) -> Vec<(Arc<OrgId>, Arc<Kept>)> {
        self.0.iter().collect()
    }
}

impl Kept {
    /// Looks at the snapshot. Nobody writes meanwhile, so `look` must be short.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        match &*self.snapshot.read().unwrap_or_else(PoisonError::into_inner) {
            Some(snapshot) => look(snapshot),
            None => look(&Snapshot::default()),
        }
    }

    pub(crate) fn swept(&self) -> Option<RecordId> {
        self.swept.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_swept(&self, last: Option<RecordId>) {
        *self.swept.write().unwrap_or_else(PoisonError::into_inner) = last;
    }

    fn len(&self) -> usize {
        self.read(Snapshot::len)
    }

    pub(super) fn weight(&self) -> u64 {
        self.read(Snapshot::bytes) / UNIT + 1
    }

    fn revision(&self) -> Option<u64> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(Snapshot::revision)
    }

    pub(crate) async fn update(&self, store: &dyn PolicyStore, org: &OrgId) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS {
            let Some(revision) = self.revision() else {
                self.read_all(store, org, None).await?;
                continue;
            };
            match store.since(org, revision, MOST_CHANGES).await? {
                Since::UpToDate => return Ok(()),
                Since::Changed { records, revision } => return self.take_over(&records, revision),
                Since::TooOld => self.read_all(store, org, Some(revision)).await?,
            }
        }
        Err(StoreError::unavailable("policies.since", "it changes faster than it can be read"))
    }

    /// Takes over what changed up to `revision`, unless somebody was faster.
    pub(crate) fn take_over(&self, records: &[Record], revision: u64) -> Result<(), StoreError> {
        let mut slot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        let Some(snapshot) = slot.as_mut() else { return Ok(()) };
        if snapshot.revision() >= revision {
            return Ok(());
        }
        for record in records {
            if let Err(error) = snapshot.apply(record) {
                // It is of no revision now. Whoever comes next reads everything, and fails like this.
                *slot = None;
                return Err(StoreError::corrupt("policies.since", error));
            }
        }
        snapshot.advance(revision);
        Ok(())
    }

    /// What this server itself has just written, at `revision`: seen at once, unless others wrote in between, which `since`
    /// will tell.
    pub(crate) fn written(&self, records: &[Record], revision: u64) -> Result<(), StoreError> {
        if self.revision().is_some_and(|own| own + 1 == revision) {
            self.take_over(records, revision)
        } else {
            Ok(())
        }
    }

    /// Reads everything, unless somebody did since the snapshot was at `old`.
    async fn read_all(
        &self,
        store: &dyn PolicyStore,
        org: &OrgId,
        old: Option<u64>,
    ) -> Result<(), StoreError> {
        let _alone = self.reading.lock().await;
        if self.revision() != old {
            return Ok(());
        }
        // In this order: what is written after the first question, the last one tells.
        let revision = store.revision(org).await?;
        let mut fresh = Snapshot::default();
        let mut after = None;
        loop {
            let page = store.page(org, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id.clone());
            for record in &page {
                fresh.apply(record).map_err(|error| StoreError::corrupt("policies.page", error))?;
            }
        }
        // Pages may have shown later revisions; those are told again.
        fresh.set_back(revision);
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        Ok(())
    }
}
