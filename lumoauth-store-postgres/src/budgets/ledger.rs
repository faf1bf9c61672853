//! The counters and ids of a batch, and what is decided on them.

use std::collections::{BTreeMap, btree_map::Entry};

use lumoauth_core::{
    budget::{HeldLine, Hold, HoldState, Line, Resolution, Verdict, admits, amounts, recounted},
    clock::Timestamp,
    id::OrgId,
    store::{Charged, Resolved},
};
use uuid::Uuid;

use super::{
    batch::{Answer, Ask, Id, Job},
    meter_code, window_code,
};
use crate::values::millis;

/// The counters and ids of a batch: as they are stored, and then as the batch leaves them.
pub(super) struct Ledger<'j> {
    pub(super) counters: BTreeMap<CounterKey<'j>, Counter>,
    pub(super) ids: BTreeMap<IdKey<'j>, Option<Known>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CounterKey<'j> {
    pub(super) org: &'j str,
    pub(super) owner: Uuid,
    pub(super) generation: i64,
    pub(super) meter: i16,
    pub(super) window_kind: i16,
    pub(super) window_start: i64,
}

pub(super) struct Counter {
    pub(super) ends_at: i64,
    pub(super) used: u64,
    pub(super) changed: bool,
}

pub(super) type IdKey<'j> = (&'j str, Uuid, &'j [u8]);

/// What is kept under the id of a charge.
#[derive(Clone, Debug)]
pub(super) struct Promise {
    pub(super) request_hash: [u8; 32],
    pub(super) keep_until: Timestamp,
    pub(super) hold: Option<Written>,
}

/// A hold, and how its column has it.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) hold: Hold,
    pub(super) json: String,
}

impl Written {
    pub(super) fn of(hold: Hold) -> Result<Self, sqlx::Error> {
        let json = serde_json::to_string(&hold).map_err(|error| sqlx::Error::Encode(error.into()))?;
        Ok(Self { hold, json })
    }

    pub(super) fn read(json: String) -> Result<Self, sqlx::Error> {
        let hold = serde_json::from_str(&json).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(Self { hold, json })
    }
}

impl Promise {
    /// Whether it counts. What is parked does until somebody has freed it.
    fn is_known(&self, now: Timestamp) -> bool {
        let parked = self.hold.as_ref().is_some_and(|kept| kept.hold.state == HoldState::Parked);
        parked || now < self.keep_until
    }
}

/// What is known of an id.
pub(super) struct Known {
    pub(super) promise: Promise,
    /// Its row, if there is one.
    pub(super) stored: Option<Stored>,
    pub(super) change: Change,
}

/// What a row says that nobody else may have changed.
pub(super) struct Stored {
    pub(super) keep_until: i64,
    pub(super) hold: Option<String>,
}

/// What a batch does to an id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    /// It stores it, in place of one that ended if there is a row.
    New,
    /// It resolves the hold of the row.
    Resolved,
}

impl<'j> CounterKey<'j> {
    fn of(org: &'j OrgId, line: &Line) -> Self {
        Self {
            org: org.as_str(),
            owner: line.account.owner,
            generation: i64::from(line.account.generation),
            meter: meter_code(line.meter),
            window_kind: window_code(line.window),
            window_start: millis(line.window_start),
        }
    }
}

fn id_key<'j>(org: &'j OrgId, id: &'j Id) -> IdKey<'j> {
    (org.as_str(), id.actor, &id.key)
}

impl<'j> Ledger<'j> {
    pub(super) fn of(jobs: &'j [Job]) -> Self {
        let mut ledger = Self { counters: BTreeMap::new(), ids: BTreeMap::new() };
        for Job { org, ask, .. } in jobs {
            let id = match ask {
                Ask::Charge { id, lines } => {
                    lines.iter().for_each(|line| ledger.touch(org, line));
                    id.as_ref().map(|(id, _)| id)
                }
                Ask::Resolve { id, lines, .. } => {
                    lines.iter().for_each(|line| ledger.touch(org, &line.counting(0)));
                    id.as_ref()
                }
            };
            if let Some(id) = id {
                ledger.ids.insert(id_key(org, id), None);
            }
        }
        ledger
    }

    fn touch(&mut self, org: &'j OrgId, line: &Line) {
        let ends_at = millis(line.window.end(line.window_start));
        let counter = Counter { ends_at, used: 0, changed: false };
        self.counters.entry(CounterKey::of(org, line)).or_insert(counter);
    }

    /// Decides every job, in the order of arrival.
    ///
    /// # Errors
    /// A hold has other lines than its caller says; nothing of the ledger may be kept then.
    pub(super) fn decide(&mut self, jobs: &'j [Job]) -> Result<Vec<Answer>, sqlx::Error> {
        let decide = |job: &'j Job| match &job.ask {
            Ask::Charge { id, lines } => Ok(Answer::Charged(self.charge(job, id.as_ref(), lines))),
            Ask::Resolve { id, lines, resolution } => {
                self.resolve(job, id.as_ref(), lines, *resolution).map(Answer::Resolved)
            }
        };
        jobs.iter().map(decide).collect()
    }

    /// Decides one charge and counts it.
    fn charge(&mut self, job: &'j Job, id: Option<&'j (Id, Promise)>, lines: &[Line]) -> Charged {
        let id = id.map(|(id, promise)| (id_key(&job.org, id), promise));
        if let Some((key, promise)) = &id
            && let Some(Some(known)) = self.ids.get(key)
            && known.promise.is_known(job.now)
        {
            let same = known.promise.request_hash == promise.request_hash;
            return if same { Charged::Repeated } else { Charged::Conflict };
        }

        let mut after: BTreeMap<CounterKey<'j>, u64> = BTreeMap::new();
        let mut shown = Vec::with_capacity(lines.len());
        for (index, line) in lines.iter().enumerate() {
            let key = CounterKey::of(&job.org, line);
            // Two lines for one counter are against the contract; even then it is not oversold.
            let used = match after.entry(key) {
                Entry::Occupied(earlier) => earlier.into_mut(),
                Entry::Vacant(vacant) => {
                    vacant.insert(self.counters.get(&key).map_or(0, |counter| counter.used))
                }
            };
            if !admits(*used, line) {
                return Charged::Exceeded { line: index, used: *used };
            }
            *used = used.saturating_add(line.amount).min(CEILING);
            shown.push(*used);
        }
        for (key, used) in after {
            if let Some(counter) = self.counters.get_mut(&key) {
                counter.show(used);
            }
        }
        if let Some((key, promise)) = id {
            let known = self.ids.entry(key).or_default();
            let stored = known.take().and_then(|known| known.stored);
            *known = Some(Known { promise: promise.clone(), stored, change: Change::New });
        }
        Charged::Charged(shown)
    }

    /// Decides one resolution and corrects the counters of its hold.
    fn resolve(
        &mut self,
        job: &'j Job,
        id: Option<&'j Id>,
        lines: &[HeldLine],
        resolution: Resolution,
    ) -> Result<Resolved, sqlx::Error> {
        let known = id.and_then(|id| self.ids.get_mut(&id_key(&job.org, id)).and_then(Option::as_mut));
        let known = known.filter(|known| known.promise.is_known(job.now));
        let mut hold = match (id, &known) {
            (None, _) => Hold::without_end(lines),
            (Some(_), Some(Known { promise: Promise { hold: Some(kept), .. }, .. })) => kept.hold.clone(),
            (Some(_), _) => return Ok(Resolved::Unknown),
        };
        let (state, ends, after, late) = match hold.resolve(resolution, job.now) {
            Verdict::Stays(state) => return Ok(Resolved::Stays(state)),
            Verdict::Becomes { state, ends, amounts, late } => (state, ends, amounts, late),
        };
        let before = amounts(&hold.lines, hold.state);
        let mut counters = Vec::with_capacity(after.len());
        for (line, (before, after)) in hold.lines.iter().zip(before.into_iter().zip(after)) {
            let key = CounterKey::of(&job.org, &line.counting(after));
            let counter = self.counters.get_mut(&key);
            let counter = counter.ok_or_else(|| sqlx::Error::Decode("a hold has other lines".into()))?;
            counter.show(recounted(counter.used, before, after).min(CEILING));
            counters.push(counter.used);
        }
        (hold.state, hold.ends) = (state, ends);
        if let Some(known) = known {
            known.promise.hold = Some(Written::of(hold)?);
            if known.change == Change::Nothing {
                known.change = Change::Resolved;
            }
        }
        Ok(Resolved::Done { counters, late })
    }

    /// The ids to which this batch does `change`.
    pub(super) fn ids_with(&self, change: Change) -> Vec<(&IdKey<'j>, &Known)> {
        let ids = self.ids.iter();
        ids.filter_map(|(key, known)| Some((key, known.as_ref().filter(|known| known.change == change)?)))
            .collect()
    }

    /// Whether there is anything to commit.
    pub(super) fn has_changed(&self) -> bool {
        self.counters.values().any(|counter| counter.changed)
            || self.ids.values().flatten().any(|known| known.change != Change::Nothing)
    }
}

impl Counter {
    fn show(&mut self, used: u64) {
        self.changed |= self.used != used;
        self.used = used;
    }
}

/// The most that a counter shows: what its column holds.
const CEILING: u64 = i64::MAX.unsigned_abs();
