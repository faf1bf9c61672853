//! What this process has taken of each counter, and what is left of that. Without I/O.

use std::{collections::HashMap, pin::Pin};

use futures_util::future::Shared;

use crate::{
    budget::{Account, BudgetPolicy, COUNTERS, HeldLine, Line, Meter, Usage, Window},
    clock::Timestamp,
    store::Charge,
};

/// How many slices there must still be room for below a maximum, for one to be taken.
const ROOM: u64 = 4;

/// From how many accounts on those that are empty are looked for.
const MANY: usize = 64;

/// How many accounts of one organization are kept at most. Charges of others are made in the durable store.
pub(super) const MOST: usize = 50_000;

/// How long not to look for those that are empty, if there are that many.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(60);

/// How long after the end of its window a counter is remembered, for clocks that are behind.
const LATE: std::time::Duration = std::time::Duration::from_secs(3600);

/// The accounts of one organization.
#[derive(Default)]
pub(super) struct Book {
    purses: HashMap<Account, Purse>,
    /// How many accounts there were after those that are empty were last dropped.
    kept: usize,
    /// When that was.
    dropped_at: Timestamp,
    /// How often slices came or went, of all accounts.
    moves: u64,
}

/// What was taken for one account.
#[derive(Default)]
struct Purse {
    stocks: Vec<Stock>,
    /// What is under way to or from the durable store: one thing at a time.
    flight: Option<Flight>,
    /// Which of the moves of the book was the last of these slices.
    moved: u64,
}

/// Something under way; whether it arrived. Whoever waits drives it, and it is kept until somebody has seen its end, so
/// that a caller who goes away takes no units along.
pub(super) type Flight = Shared<Pin<Box<dyn Future<Output = bool> + Send>>>;

/// What was taken of one counter.
#[derive(Debug)]
struct Stock {
    meter: Meter,
    window: Window,
    start: Timestamp,
    /// Units that are counted in the durable store and not used.
    left: u64,
    /// What the durable counter showed last.
    debited: u64,
    /// The maximum under which the units were taken: the largest, if there were several. A charge with a lower one must
    /// not use them, since the maximum was lowered meanwhile. [`u64::MAX`] if none was known.
    within: u64,
    /// How large the last slice was; zero when the maximum is near.
    slice: u64,
}

/// What became of a charge in the book.
pub(super) enum Spent {
    /// It is made: the counters after it.
    Done(Vec<u64>),
    /// These accounts need something first.
    Needs(Vec<(Account, Need)>),
    /// It is for the durable store.
    Strict,
}

/// What an account needs.
pub(super) enum Need {
    /// Slices, in the form of a charge.
    Slices(Vec<Line>),
    /// To give back what was taken under a higher maximum.
    GiveBack,
}

impl Stock {
    fn is(&self, meter: Meter, window: Window, start: Timestamp) -> bool {
        (self.meter, self.window, self.start) == (meter, window, start)
    }

    /// Whether its units may be used under `limit`. The counter itself counts them, so if it is not above the maximum,
    /// and was not above it when they were taken, they fit.
    fn is_within(&self, limit: Option<u64>) -> bool {
        limit.is_none_or(|max| self.within <= max && self.debited <= max)
    }

    fn used(&self) -> u64 {
        self.debited.saturating_sub(self.left)
    }

    /// The slice to take for a line that is short; none if the maximum is near.
    fn slice(&self, line: &Line, charges: u64) -> Option<Line> {
        let max = line.limit.or((self.within < u64::MAX).then_some(self.within));
        let units = charges.saturating_mul(line.amount).max(1);
        let room = max.unwrap_or(BudgetPolicy::MAX_COUNT).saturating_sub(self.debited);
        (room / ROOM >= units).then_some(Line { limit: max, amount: units, ..*line })
    }

    fn held(&self, account: Account) -> HeldLine {
        let Self { meter, window, start: window_start, left: amount, .. } = *self;
        HeldLine { account, meter, window, window_start, amount }
    }
}

/// What must be left for `line`. An amount of zero asks for room, and a unit that is left is room.
fn needed(line: &Line) -> u64 {
    if line.limit.is_some() { line.amount.max(1) } else { line.amount }
}

impl Purse {
    fn stock(&mut self, meter: Meter, window: Window, start: Timestamp) -> Option<&mut Stock> {
        self.stocks.iter_mut().find(|stock| stock.is(meter, window, start))
    }

    fn of(&mut self, line: &Line) -> Option<&mut Stock> {
        self.stock(line.meter, line.window, line.window_start)
    }

    /// Whether there is nothing in it that can be spent at `now`, or comes. What the durable counters showed last it may forget:
    /// the next charge is made there, and learns it again.
    fn is_empty(&self, now: Timestamp) -> bool {
        self.flight.is_none() && self.stocks.iter().all(|stock| stock.left == 0 || is_over(stock, now))
    }
}

fn is_over(stock: &Stock, now: Timestamp) -> bool {
    stock.window.end(stock.start).plus(LATE) <= now
}

impl Book {
    /// Makes a charge out of what is left, or says what it takes to make it.
    pub(super) fn spend(&mut self, charge: &Charge<'_>, charges: u64) -> Spent {
        let lines = charge.lines;
        let same = |a: &Line, b: &Line| {
            (a.account, a.meter, a.window, a.window_start) == (b.account, b.meter, b.window, b.window_start)
        };
        let twice = |(n, line)| lines[..n].iter().any(|earlier| same(earlier, line));
        if charge.id.is_some() || lines.iter().enumerate().any(twice) {
            return Spent::Strict;
        }
        let mut needs = Vec::new();
        for lines in lines.chunk_by(|a, b| a.account == b.account) {
            let account = lines[0].account;
            let Some(purse) = self.purses.get_mut(&account) else { return Spent::Strict };
            let mut slices = Vec::new();
            for line in lines {
                let Some(stock) = purse.of(line) else { return Spent::Strict };
                if !stock.is_within(line.limit) && stock.left > 0 {
                    needs.push((account, Need::GiveBack));
                } else if stock.left < needed(line) || !stock.is_within(line.limit) {
                    let Some(slice) = stock.slice(line, charges) else {
                        stock.slice = 0;
                        return Spent::Strict;
                    };
                    slices.push(slice);
                }
            }
            if !slices.is_empty() {
                needs.push((account, Need::Slices(slices)));
            }
        }
        if !needs.is_empty() {
            return Spent::Needs(needs);
        }
        let mut counters = Vec::with_capacity(lines.len());
        for lines in lines.chunk_by(|a, b| a.account == b.account) {
            let Some(purse) = self.purses.get_mut(&lines[0].account) else { continue };
            for line in lines {
                let Some(stock) = purse.of(line) else { continue };
                stock.left -= line.amount;
                counters.push(stock.used());
            }
        }
        Spent::Done(counters)
    }

    /// Corrects a charge that was made here, if that takes no more than what is left, and frees no more than a slice.
    pub(super) fn correct(&mut self, lines: &[HeldLine], after: &[u64]) -> Option<Vec<u64>> {
        let both = || lines.iter().zip(after);
        let fits = both().all(|(line, after)| {
            let Some(purse) = self.purses.get_mut(&line.account) else { return false };
            let is_still = purse.flight.is_none();
            purse.stock(line.meter, line.window, line.window_start).is_some_and(|stock| {
                match after.checked_sub(line.amount) {
                    Some(more) => stock.left >= more,
                    None => is_still && stock.left.saturating_add(line.amount - after) <= stock.slice,
                }
            })
        });
        let twice = |(n, line): (usize, &HeldLine)| {
            let is = |other: &HeldLine| HeldLine { amount: 0, ..*other } == HeldLine { amount: 0, ..*line };
            lines[..n].iter().any(is)
        };
        if !fits || lines.iter().enumerate().any(twice) {
            return None;
        }
        let counters = both().filter_map(|(line, after)| {
            let purse = self.purses.get_mut(&line.account)?;
            let stock = purse.stock(line.meter, line.window, line.window_start)?;
            stock.left = (stock.left + line.amount).saturating_sub(*after);
            Some(stock.used())
        });
        Some(counters.collect())
    }

    /// Learns what the durable counters show after a charge or a correction of `lines` there; what they show without what
    /// is left here.
    pub(super) fn learn(&mut self, lines: &[Line], counters: Vec<u64>, now: Timestamp) -> Vec<u64> {
        let mut used = Vec::with_capacity(lines.len());
        for (line, counter) in lines.iter().zip(counters) {
            let Some(stock) = self.known(line, now) else {
                used.push(counter);
                continue;
            };
            stock.debited = counter;
            if let Some(max) = line.limit {
                stock.within = if stock.left == 0 { max } else { stock.within.max(max) };
            }
            used.push(stock.used());
        }
        used
    }

    /// Learns that there was no room for `line`; what its counter shows without what is left here.
    pub(super) fn learn_refused(&mut self, line: &Line, used: u64) -> u64 {
        match self.purses.get_mut(&line.account).and_then(|purse| purse.of(line)) {
            Some(stock) => {
                (stock.debited, stock.slice) = (used, 0);
                stock.used()
            }
            None => used,
        }
    }

    /// Adds slices of one account that were taken in the durable store.
    pub(super) fn credit(&mut self, slices: &[Line], counters: &[u64], now: Timestamp) {
        for (slice, counter) in slices.iter().zip(counters) {
            self.moved(slice.account);
            // There is no place for more accounts: the slice is waste.
            let Some(stock) = self.known(slice, now) else { continue };
            let max = slice.limit.unwrap_or(u64::MAX);
            stock.within = if stock.left == 0 { max } else { stock.within.max(max) };
            stock.left = stock.left.saturating_add(slice.amount);
            (stock.debited, stock.slice) = (*counter, slice.amount);
        }
    }

    /// Takes everything that is left for `account`.
    pub(super) fn take(&mut self, account: Account) -> Vec<HeldLine> {
        self.moved(account);
        let Some(purse) = self.purses.get_mut(&account) else { return Vec::new() };
        let left = purse.stocks.iter_mut().filter(|stock| stock.left > 0);
        left.map(|stock| {
            let taken = stock.held(account);
            stock.left = 0;
            taken
        })
        .collect()
    }

    /// Slices of `account` come or go. The number is that of no other move, also if the account was dropped meanwhile.
    fn moved(&mut self, account: Account) {
        if let Some(purse) = self.purses.get_mut(&account) {
            self.moves += 1;
            purse.moved = self.moves;
        }
    }

    /// Which move of slices of `account` was the last.
    pub(super) fn last_move(&self, account: Account) -> Option<u64> {
        self.purses.get(&account).map(|purse| purse.moved)
    }

    pub(super) fn flight(&self, account: Account) -> Option<Flight> {
        self.purses.get(&account)?.flight.clone()
    }

    pub(super) fn set_flight(&mut self, account: Account, flight: Option<Flight>) {
        self.purses.entry(account).or_default().flight = flight;
    }

    /// The accounts for which something is left, or under way.
    pub(super) fn open(&self) -> Vec<Account> {
        let open = self
            .purses
            .iter()
            .filter(|(_, purse)| purse.flight.is_some() || purse.stocks.iter().any(|stock| stock.left > 0));
        open.map(|(account, _)| *account).collect()
    }

    /// What is left for `account` in the windows that `now` is in.
    pub(super) fn left(&self, account: Account, now: Timestamp) -> Usage {
        let mut left = Usage::default();
        for (meter, window) in COUNTERS {
            let start = window.start(now);
            let stocks = self.purses.get(&account).map_or(&[][..], |purse| &purse.stocks);
            let units =
                stocks.iter().find(|stock| stock.is(meter, window, start)).map_or(0, |stock| stock.left);
            match meter {
                Meter::Tokens => left.tokens = units,
                Meter::Calls => left.calls = units,
                Meter::MicroUsd => left.micro_usd = units,
            }
        }
        left
    }

    /// The stock of the counter of `line`, as a new one if there is none. What is over or empty makes room for it; `None` if there
    /// is no room.
    fn known(&mut self, line: &Line, now: Timestamp) -> Option<&mut Stock> {
        if !self.purses.contains_key(&line.account) {
            let is_full = self.purses.len() >= MOST;
            // Looking for room takes time in proportion to how many there are.
            let is_due = match is_full {
                true => now.since(self.dropped_at) >= PAUSE,
                false => self.purses.len() >= MANY.max(2 * self.kept),
            };
            if is_due {
                self.purses.retain(|_, purse| !purse.is_empty(now));
                (self.kept, self.dropped_at) = (self.purses.len(), now);
            }
            if self.purses.len() >= MOST {
                return None;
            }
        }
        let Line { meter, window, window_start: start, .. } = *line;
        let purse = self.purses.entry(line.account).or_default();
        let at = purse.stocks.iter().position(|stock| stock.is(meter, window, start)).unwrap_or_else(|| {
            purse.stocks.retain(|stock| !is_over(stock, now));
            let within = line.limit.unwrap_or(u64::MAX);
            purse.stocks.push(Stock { meter, window, start, left: 0, debited: 0, within, slice: 0 });
            purse.stocks.len() - 1
        });
        purse.stocks.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        budget::{Standing, account_lines},
        id::AgentId,
    };

    #[test]
    fn accounts_for_which_nothing_is_left_are_dropped() {
        let now = Timestamp::from_unix_seconds(1_790_000_000);
        let mut book = Book::default();
        let lines_of_next = || {
            let account = Account::agent(AgentId::generate(), 0);
            account_lines(account, &BudgetPolicy::default(), &Usage::ONE_CALL, Standing::Hold, now)
        };
        // Something is left for these.
        let full: Vec<_> = (0..10).map(|_| lines_of_next()).collect();
        for lines in &full {
            book.credit(lines, &[0, 100, 0], now);
        }
        for _ in 0..10_000 {
            book.learn(&lines_of_next(), vec![0, 1, 0], now);
        }
        assert!(book.purses.len() <= MANY + full.len(), "{}", book.purses.len());
        for lines in &full {
            assert_eq!(book.left(lines[0].account, now).calls, 1);
        }
    }

    #[test]
    fn more_accounts_than_that_are_not_kept() {
        let now = Timestamp::from_unix_seconds(1_790_000_000);
        let mut book = Book::default();
        let lines_of_next = |now| {
            let account = Account::agent(AgentId::generate(), 0);
            account_lines(account, &BudgetPolicy::default(), &Usage::ONE_CALL, Standing::Hold, now)
        };
        let first = lines_of_next(now);
        book.credit(&first, &[0, 100, 0], now);
        for _ in 0..MOST {
            book.credit(&lines_of_next(now), &[0, 100, 0], now);
        }
        assert_eq!(book.purses.len(), MOST);
        // The others are charged in the durable store, and shown what it counts. Those that are known go on as before.
        let next = lines_of_next(now);
        assert_eq!(book.learn(&next, vec![0, 7, 0], now), [0, 7, 0][..next.len()]);
        assert!(matches!(book.spend(&Charge::once(&next), 100), Spent::Strict));
        assert!(matches!(book.spend(&Charge::once(&first), 100), Spent::Done(_)));
        assert_eq!(book.purses.len(), MOST);
        // The hour is over, and what was left of it.
        let later = now.plus(LATE * 3);
        let next = lines_of_next(later);
        book.learn(&next, vec![0, 7, 0], later);
        assert_eq!(book.purses.len(), 1);
    }
}
