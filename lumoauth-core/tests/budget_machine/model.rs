//! The model: counters and holds in plain maps, and the rules in plain words.

use std::collections::BTreeMap;

use lumoauth_core::{
    budget::{Account, COUNTERS, HeldLine, Hold, HoldState, Line, Meter, Resolution, Usage, Window},
    clock::Timestamp,
    id::AgentId,
    store::{ChargeId, Charged, NewHold, Overdue, Resolved},
};

/// A small generator (splitmix64): a seed is a history.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `most`; zero if there is none.
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.next().checked_rem(most).unwrap_or_default()
    }
}

/// What happened, so that a generator that stopped making something is noticed.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    charged: u64,
    exceeded: u64,
    repeated: u64,
    conflicts: u64,
    settled: u64,
    overshot: u64,
    late: u64,
    released: u64,
    unparked: u64,
    denied: u64,
    expired: u64,
    unknown: u64,
    refused: u64,
}

impl Seen {
    fn all(&self) -> [u64; 13] {
        let Self { charged, exceeded, repeated, conflicts, settled, overshot, late, .. } = *self;
        let Self { released, unparked, denied, expired, unknown, refused, .. } = *self;
        [
            charged, exceeded, repeated, conflicts, settled, overshot, late, released, unparked, denied,
            expired, unknown, refused,
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let [
            charged,
            exceeded,
            repeated,
            conflicts,
            settled,
            overshot,
            late,
            released,
            unparked,
            denied,
            expired,
            unknown,
            refused,
        ] = other.all();
        self.charged += charged;
        self.exceeded += exceeded;
        self.repeated += repeated;
        self.conflicts += conflicts;
        self.settled += settled;
        self.overshot += overshot;
        self.late += late;
        self.released += released;
        self.unparked += unparked;
        self.denied += denied;
        self.expired += expired;
        self.unknown += unknown;
        self.refused += refused;
    }

    pub(crate) fn assert_everything_happened(&self) {
        assert!(self.all().iter().all(|count| *count > 0), "{self:?}");
    }
}

pub(crate) type Counter = (Account, Meter, Window, Timestamp);

struct Known {
    hash: [u8; 32],
    keep_until: Timestamp,
    hold: Option<Held>,
}

impl Known {
    /// Whether the id means something at `now`. What is parked is known until it was freed.
    fn holds(&self, now: Timestamp) -> bool {
        now < self.keep_until || self.hold.as_ref().is_some_and(|hold| hold.state == HoldState::Parked)
    }
}

struct Held {
    lines: Vec<HeldLine>,
    state: HoldState,
    ends: Timestamp,
}

#[derive(Default)]
pub(crate) struct Model {
    /// What the counters show. They saturate.
    counters: BTreeMap<Counter, u64>,
    /// The sum of what is counted in each, entry by entry; none once it was too much for a counter.
    sums: BTreeMap<Counter, Option<u64>>,
    ids: BTreeMap<(AgentId, String), Known>,
    pub(crate) seen: Seen,
}

fn counter(line: &Line) -> Counter {
    (line.account, line.meter, line.window, line.window_start)
}

impl Model {
    /// An entry of a counter comes, or comes in place of another one.
    fn enter(&mut self, counter: Counter, before: u64, after: u64) {
        let sum = self.sums.entry(counter).or_insert(Some(0));
        *sum = sum.and_then(|sum| sum.checked_sub(before)?.checked_add(after));
    }

    /// Every counter whose entries can be summed up, with the sum.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (Counter, u64)> {
        self.sums.iter().filter_map(|(counter, sum)| Some((*counter, (*sum)?)))
    }

    fn used(&self, counter: &Counter) -> u64 {
        self.counters.get(counter).copied().unwrap_or_default()
    }

    /// What must have become of a charge.
    pub(crate) fn charge(
        &mut self,
        id: Option<ChargeId<'_>>,
        lines: &[Line],
        hold: Option<NewHold<'_>>,
        now: Timestamp,
        outcome: &Charged,
    ) {
        if let Some(id) = id
            && let Some(known) = self.ids.get(&(id.actor, id.key.to_owned()))
            && known.holds(now)
        {
            let same = known.hash == id.request_hash;
            assert_eq!(*outcome, if same { Charged::Repeated } else { Charged::Conflict });
            *(if same { &mut self.seen.repeated } else { &mut self.seen.conflicts }) += 1;
            return;
        }
        for (index, line) in lines.iter().enumerate() {
            let used = self.used(&counter(line));
            let fits = match line.limit {
                None => true,
                // Used up means refused, whatever is asked for.
                Some(max) => used < max && u128::from(used) + u128::from(line.amount) <= u128::from(max),
            };
            if !fits {
                assert_eq!(*outcome, Charged::Exceeded { line: index, used });
                self.seen.exceeded += 1;
                return;
            }
        }
        let mut after = Vec::new();
        for line in lines {
            let used = self.used(&counter(line)).saturating_add(line.amount);
            if let Some(max) = line.limit {
                assert!(used <= max, "nothing but a fact passes a maximum");
            }
            self.counters.insert(counter(line), used);
            self.enter(counter(line), 0, line.amount);
            after.push(used);
        }
        assert_eq!(*outcome, Charged::Charged(after));
        self.seen.charged += 1;
        if let Some(id) = id {
            let state = |hold: NewHold<'_>| if hold.parked { HoldState::Parked } else { HoldState::Held };
            let lines = lines.iter().map(HeldLine::from).collect();
            let hold = hold.map(|hold| Held { lines, state: state(hold), ends: hold.ends });
            let known = Known { hash: id.request_hash, keep_until: id.keep_until, hold };
            self.ids.insert((id.actor, id.key.to_owned()), known);
        }
    }

    /// One of the holds that hold something, if there are any.
    pub(crate) fn some_live(&self, choice: u64) -> Option<(AgentId, String)> {
        let is_live = |known: &Known| {
            known.hold.as_ref().is_some_and(|hold| matches!(hold.state, HoldState::Held | HoldState::Parked))
        };
        let mut live = self.ids.iter().filter(|(_, known)| is_live(known)).map(|(id, _)| id.clone());
        live.nth(usize::try_from(choice).unwrap_or_default())
    }

    /// The lines of a hold; any lines if there is none.
    pub(crate) fn lines_of(&self, actor: AgentId, key: &str) -> Vec<HeldLine> {
        let hold = self.ids.get(&(actor, key.to_owned())).and_then(|known| known.hold.as_ref());
        hold.map(|hold| hold.lines.clone()).unwrap_or_default()
    }

    pub(crate) fn resolve(
        &mut self,
        actor: AgentId,
        key: &str,
        resolution: Resolution,
        now: Timestamp,
        outcome: &Resolved,
    ) {
        let known = self.ids.get_mut(&(actor, key.to_owned())).filter(|known| known.holds(now));
        let Some(hold) = known.and_then(|known| known.hold.as_mut()) else {
            assert_eq!(*outcome, Resolved::Unknown);
            self.seen.unknown += 1;
            return;
        };
        let in_time = now < hold.ends;
        let allowed = match (resolution, hold.state) {
            (Resolution::Settle(_), state) => state == HoldState::Held,
            (Resolution::Release, state) => matches!(state, HoldState::Held | HoldState::Parked),
            (Resolution::Unpark(_), state) => state == HoldState::Parked && in_time,
            (Resolution::Deny, state) => state == HoldState::Parked,
            (Resolution::Expire, state) => state == HoldState::Parked && !in_time,
        };
        if !allowed {
            assert_eq!(*outcome, Resolved::Stays(hold.state));
            self.seen.refused += 1;
            return;
        }
        let late = hold.state == HoldState::Held && !in_time;
        let after: Vec<u64> = hold
            .lines
            .iter()
            .map(|line| match resolution {
                Resolution::Settle(used) => used.of(line.meter),
                Resolution::Unpark(_) => line.amount,
                Resolution::Release | Resolution::Deny | Resolution::Expire => 0,
            })
            .collect();
        let before = hold.lines.clone();
        hold.state = match resolution {
            Resolution::Settle(used) => HoldState::Settled(used),
            Resolution::Release => HoldState::Released,
            Resolution::Unpark(ends) => {
                hold.ends = ends;
                HoldState::Held
            }
            Resolution::Deny => HoldState::Denied,
            Resolution::Expire => HoldState::Expired,
        };
        let counters = self.replace(&before, &after);
        assert_eq!(*outcome, Resolved::Done { counters, late });
        *(match resolution {
            Resolution::Settle(_) if late => &mut self.seen.late,
            Resolution::Settle(_) => &mut self.seen.settled,
            Resolution::Release => &mut self.seen.released,
            Resolution::Unpark(_) => &mut self.seen.unparked,
            Resolution::Deny => &mut self.seen.denied,
            Resolution::Expire => &mut self.seen.expired,
        }) += 1;
        self.note_overshoot(&before, &after);
    }

    pub(crate) fn settle_without_id(&mut self, lines: &[HeldLine], used: Usage, outcome: &Resolved) {
        let after: Vec<_> = lines.iter().map(|line| used.of(line.meter)).collect();
        let counters = self.replace(lines, &after);
        assert_eq!(*outcome, Resolved::Done { counters, late: false });
        self.note_overshoot(lines, &after);
    }

    fn note_overshoot(&mut self, before: &[HeldLine], after: &[u64]) {
        let more = before.iter().zip(after).any(|(before, after)| *after > before.amount);
        self.seen.overshot += u64::from(more);
    }

    /// What was counted as `before` counts as `after` from now on.
    fn replace(&mut self, before: &[HeldLine], after: &[u64]) -> Vec<u64> {
        let pairs = before.iter().zip(after);
        pairs
            .map(|(line, after)| {
                let counter = (line.account, line.meter, line.window, line.window_start);
                let used = self.used(&counter).saturating_sub(line.amount).saturating_add(*after);
                self.counters.insert(counter, used);
                self.enter(counter, line.amount, *after);
                used
            })
            .collect()
    }

    pub(crate) fn check_usage(&self, account: Account, now: Timestamp, usage: &Usage) {
        for (meter, window) in COUNTERS {
            let used = self.used(&(account, meter, window, window.start(now)));
            assert_eq!(usage.of(meter), used, "{meter:?} of {account:?}");
        }
    }

    pub(crate) fn check_live(&self, actor: AgentId, now: Timestamp, live: &[Hold]) {
        let known = self.ids.iter().filter(|((owner, _), known)| *owner == actor && known.holds(now));
        let expected = known.filter_map(|(_, known)| known.hold.as_ref()).filter(|hold| match hold.state {
            HoldState::Held => now < hold.ends,
            HoldState::Parked => true,
            _ => false,
        });
        let shown = live.iter().map(|hold| (hold.ends, &*hold.lines, hold.state));
        assert_eq!(sorted(shown), sorted(expected.map(|hold| (hold.ends, &*hold.lines, hold.state))));
    }

    pub(crate) fn check_overdue(&self, now: Timestamp, overdue: &[Overdue]) {
        let known = self.ids.iter().filter(|(_, known)| known.holds(now));
        let holds = known.filter_map(|(id, known)| Some((id, known.hold.as_ref()?)));
        let expected = holds.filter(|(_, hold)| hold.state == HoldState::Parked && hold.ends <= now);
        let shown = overdue
            .iter()
            .map(|over| (over.actor, &*over.key, over.hold.ends, &*over.hold.lines, over.hold.state));
        let expected =
            expected.map(|((actor, key), hold)| (*actor, &**key, hold.ends, &*hold.lines, hold.state));
        assert_eq!(sorted(shown), sorted(expected));
    }
}

/// All of them as text, in one order.
fn sorted<T: std::fmt::Debug>(items: impl Iterator<Item = T>) -> Vec<String> {
    let mut all: Vec<_> = items.map(|item| format!("{item:?}")).collect();
    all.sort();
    all
}
