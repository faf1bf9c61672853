//! Budget counters in memory.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;

use super::{MemoryStore, fading::Fading};
use crate::{
    budget::{
        Account, COUNTERS, HeldLine, Hold, HoldState, Line, Meter, Resolution, Usage, Verdict, Window,
        admits, amounts, recounted,
    },
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{BudgetStore, Charge, Charged, HoldId, Overdue, Resolved, StoreError},
};

/// How long after its window a counter is kept, for facts that arrive late.
const GRACE: Duration = Duration::from_secs(48 * 3600);

/// What one organization used, behind one lock: a charge is decided and counted under it.
#[derive(Default)]
pub(super) struct Book {
    counters: Fading<Counter, u64>,
    charges: Fading<Key, Known>,
    /// The ids of holds that may still hold something.
    live: BTreeSet<Key>,
    /// The ids of parked holds, by the end of their wait.
    parked: BTreeSet<(Timestamp, Key)>,
}

type Key = (AgentId, String);

/// What was asked with an id.
#[derive(Default)]
struct Known {
    request_hash: [u8; 32],
    keep_until: Timestamp,
    hold: Option<Hold>,
}

impl Known {
    /// When it may be forgotten. What is parked is known until somebody has freed it.
    fn end(&self) -> Timestamp {
        let parked = self.hold.as_ref().is_some_and(|hold| hold.state == HoldState::Parked);
        if parked { Timestamp::from_unix_millis(u64::MAX) } else { self.keep_until }
    }
}

type Counter = (Account, Meter, Window, Timestamp);

fn counter(line: &Line) -> Counter {
    (line.account, line.meter, line.window, line.window_start)
}

impl Book {
    fn used(&self, counter: &Counter) -> u64 {
        self.counters.get(counter).map_or(0, |(used, _)| *used)
    }

    fn count(&mut self, line: &Line, used: u64) {
        let end = line.window.end(line.window_start).plus(GRACE);
        *self.counters.keep(counter(line), end) = used;
    }

    fn charge(&mut self, charge: &Charge<'_>, now: Timestamp) -> Charged {
        if let Some(id) = &charge.id
            && let Some((known, end)) = self.charges.get(&(id.actor, id.key.to_owned()))
            && now < end
        {
            return if known.request_hash == id.request_hash { Charged::Repeated } else { Charged::Conflict };
        }
        let mut after = Vec::with_capacity(charge.lines.len());
        for (index, line) in charge.lines.iter().enumerate() {
            // Two lines for one counter are against the contract; counting the first of them here keeps even
            // that from overselling.
            let earlier = charge.lines[..index].iter().rposition(|earlier| counter(earlier) == counter(line));
            let used = earlier.map_or_else(|| self.used(&counter(line)), |earlier| after[earlier]);
            if !admits(used, line) {
                return Charged::Exceeded { line: index, used };
            }
            after.push(used.saturating_add(line.amount));
        }
        for (line, used) in charge.lines.iter().zip(&after) {
            self.count(line, *used);
        }
        if let Some(id) = &charge.id {
            let key = (id.actor, id.key.to_owned());
            let hold = charge.hold.map(|hold| hold.of(charge.lines));
            self.list(&key, hold.as_ref());
            let known = Known { request_hash: id.request_hash, keep_until: id.keep_until, hold };
            let end = known.end();
            *self.charges.keep(key.clone(), end) = known;
            self.charges.end_at(&key, end);
        }
        Charged::Charged(after)
    }

    fn resolve(
        &mut self,
        id: Option<HoldId<'_>>,
        lines: &[HeldLine],
        resolution: Resolution,
        now: Timestamp,
    ) -> Resolved {
        let key = id.map(|id| (id.actor, id.key.to_owned()));
        let stored = match &key {
            None => None,
            Some(key) => match self.hold(key, now) {
                None => return Resolved::Unknown,
                hold => hold.cloned(),
            },
        };
        let hold = stored.unwrap_or_else(|| Hold::without_end(lines));
        let (state, ends, after, late) = match hold.resolve(resolution, now) {
            Verdict::Stays(state) => return Resolved::Stays(state),
            Verdict::Becomes { state, ends, amounts, late } => (state, ends, amounts, late),
        };
        let before = amounts(&hold.lines, hold.state);
        let mut counters = Vec::with_capacity(after.len());
        for (line, (before, after)) in hold.lines.iter().zip(before.into_iter().zip(after)) {
            let line = line.counting(after);
            let used = recounted(self.used(&counter(&line)), before, after);
            self.count(&line, used);
            counters.push(used);
        }
        if let Some(key) = key {
            self.parked.remove(&(hold.ends, key.clone()));
            let hold = Hold { state, ends, ..hold };
            self.list(&key, Some(&hold));
            if let Some(known) = self.charges.get_mut(&key) {
                known.hold = Some(hold);
                let end = known.end();
                self.charges.end_at(&key, end);
            }
        }
        Resolved::Done { counters, late }
    }

    /// Notes in which lists the hold of `key` belongs.
    fn list(&mut self, key: &Key, hold: Option<&Hold>) {
        match hold.map(|hold| (hold.state, hold.ends)) {
            Some((HoldState::Held, _)) => {
                self.live.insert(key.clone());
            }
            Some((HoldState::Parked, ends)) => {
                self.live.insert(key.clone());
                self.parked.insert((ends, key.clone()));
            }
            Some(_) | None => {
                self.live.remove(key);
            }
        }
    }

    fn hold(&self, key: &Key, now: Timestamp) -> Option<&Hold> {
        self.charges.get(key).filter(|(_, end)| now < *end).and_then(|(known, _)| known.hold.as_ref())
    }

    fn live(&self, actor: AgentId, now: Timestamp, max: u32) -> Vec<Hold> {
        let holds = self.live.range((actor, String::new())..).take_while(|(owner, _)| *owner == actor);
        let live = holds.filter_map(|key| self.hold(key, now)).filter(|hold| hold.is_live(now));
        live.take(usize::try_from(max).unwrap_or(usize::MAX)).cloned().collect()
    }

    fn overdue(&self, now: Timestamp, max: usize) -> Vec<(Key, Hold)> {
        let over = self.parked.iter().take_while(|(ends, _)| *ends <= now).take(max);
        over.filter_map(|(_, key)| Some((key.clone(), self.hold(key, now)?.clone()))).collect()
    }

    /// Drops up to `max` rows without meaning at `now`; how many.
    pub(super) fn purge(&mut self, now: Timestamp, max: u64) -> u64 {
        let counters = self.counters.drop_ended(now, max);
        let charges = self.charges.drop_ended(now, max - counters);
        if charges > 0 {
            let Self { charges, live, parked, .. } = self;
            live.retain(|key| charges.get(key).is_some());
            parked.retain(|(_, key)| charges.get(key).is_some());
        }
        counters + charges
    }
}

#[async_trait]
impl BudgetStore for MemoryStore {
    async fn charge(&self, org: &OrgId, charge: &Charge<'_>, now: Timestamp) -> Result<Charged, StoreError> {
        Ok(self.books.write(org, |book| book.charge(charge, now)))
    }

    async fn resolve(
        &self,
        org: &OrgId,
        id: Option<HoldId<'_>>,
        lines: &[HeldLine],
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<Resolved, StoreError> {
        Ok(self.books.write(org, |book| book.resolve(id, lines, resolution, now)))
    }

    async fn hold(&self, org: &OrgId, id: HoldId<'_>, now: Timestamp) -> Result<Option<Hold>, StoreError> {
        Ok(self.books.read(org, |book| book.hold(&(id.actor, id.key.to_owned()), now).cloned()))
    }

    async fn live_holds(
        &self,
        org: &OrgId,
        actor: AgentId,
        now: Timestamp,
        max: u32,
    ) -> Result<Vec<Hold>, StoreError> {
        Ok(self.books.read(org, |book| book.live(actor, now, max)))
    }

    async fn overdue(&self, now: Timestamp, max: u32) -> Result<Vec<Overdue>, StoreError> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let mut overdue = Vec::new();
        self.books.read_each(|org, book| {
            let parked = book.overdue(now, max).into_iter();
            overdue.extend(parked.map(|((actor, key), hold)| Overdue { org: org.clone(), actor, key, hold }));
        });
        overdue.sort_by_key(|overdue| overdue.hold.ends);
        overdue.truncate(max);
        Ok(overdue)
    }

    async fn usage(&self, org: &OrgId, account: Account, now: Timestamp) -> Result<Usage, StoreError> {
        Ok(self.books.read(org, |book| {
            let mut usage = Usage::default();
            for (meter, window) in COUNTERS {
                let used = book.used(&(account, meter, window, window.start(now)));
                match meter {
                    Meter::Tokens => usage.tokens = used,
                    Meter::Calls => usage.calls = used,
                    Meter::MicroUsd => usage.micro_usd = used,
                }
            }
            usage
        }))
    }
}
