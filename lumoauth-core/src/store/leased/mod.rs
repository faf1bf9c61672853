//! Budgets that are spent in the memory of one process, out of slices that a durable store has counted before.

mod book;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::{
    FutureExt,
    future::join_all,
    stream::{self, StreamExt},
};

use super::{BudgetStore, Charge, Charged, HoldId, Overdue, Resolved, StoreError, memory::PerOrg};
use crate::{
    budget::{Account, HeldLine, Hold, Line, Meter, Resolution, Usage, Verdict},
    clock::Timestamp,
    id::{AgentId, OrgId},
};
use book::{Book, Flight, Need, Spent};

/// How often a charge waits for slices before it is made in the durable store.
const ATTEMPTS: u32 = 16;

/// How many accounts give back at once.
const AT_ONCE: usize = 32;

const GIVING_BACK: &str = "giving back slices of budgets";

/// Budgets in front of a durable store, for one process.
///
/// Units are counted in the durable store first, a slice at a time, and are then spent under a short lock. A charge
/// without id waits for the durable store only when its slices are used up; so does the settling of one. What has an id
/// goes to the durable store as it is. If that has no room, what this process has left for these accounts is given back,
/// and it is tried once more.
///
/// - **No maximum is passed**, under any number of processes in front of one durable store, and whatever crashes: what
///   a process may spend is counted already. A maximum that was lowered holds at once in each process that is told it.
/// - **Near a maximum it is exact.** A slice is worth 100 charges like the one that needs it, and is taken only while
///   there is room for four; from there on each charge is made in the durable store. Of several processes that keep
///   asking, the last unit is given to one; a process may be refused before, while another still has some left.
/// - **A crash wastes what is left.** With charges of up to `a` units and slices of 100 that is at most `101 a - 1` units of
///   each counter and process. Waste counts as used until the window ends. [`Self::give_back`] at the end of the process
///   wastes nothing. A slice whose taking or giving back fails with an unknown outcome is waste too.
/// - [`usage`](BudgetStore::usage) counts what other processes have left as used.
/// - **Memory**: an account is kept here, with some 300 bytes, while something is left for it and its window is not over: for
///   those whose amounts count by the month, until then. One for which nothing is left is dropped when many are known. No more
///   than [`Self::ACCOUNTS`] of an organization are kept; each charge of another one is made in the durable store.
/// - What is under way and was given up by whoever waited is driven on by the next charge of its account, or by
///   [`Self::give_back`]; without either, its record stays in memory with this.
///
/// ```
/// use std::sync::Arc;
///
/// use lumoauth_core::store::{LeasedBudgets, MemoryStore, Stores};
///
/// let durable = Arc::new(MemoryStore::new()); // in earnest: PostgreSQL
/// let budgets = Arc::new(LeasedBudgets::new(durable.clone(), LeasedBudgets::SLICE));
/// let stores = Stores { budgets, ..Stores::all(durable) };
/// ```
#[derive(Clone)]
pub struct LeasedBudgets(Arc<Leases>);

struct Leases {
    durable: Arc<dyn BudgetStore>,
    charges: u64,
    books: PerOrg<Book>,
}

impl LeasedBudgets {
    /// For how many charges a slice is meant to last, unless something speaks for another number.
    pub const SLICE: u32 = 100;

    /// For how many accounts of one organization slices are kept at most. An agent has one account, and so has a token
    /// exchange with a budget of its own.
    pub const ACCOUNTS: usize = book::MOST;

    /// Spends here what is counted in `durable`, in slices worth `slice` charges.
    pub fn new(durable: Arc<dyn BudgetStore>, slice: u32) -> Self {
        Self(Arc::new(Leases { durable, charges: u64::from(slice).max(1), books: PerOrg::default() }))
    }

    /// Gives back everything that is left: for the end of the process, after its last charge.
    ///
    /// # Errors
    /// [`StoreError`] if the durable store did not take all of it. The rest counts as used.
    pub async fn give_back(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut open = Vec::new();
        self.0.books.read_each(|org, book| {
            open.extend(book.open().into_iter().map(|account| (org.clone(), account)));
        });
        let given = stream::iter(open)
            .map(async |(org, account)| {
                // What was under way may have been a slice that arrived.
                let mut all = true;
                while let Some(flight) = self.0.give_back(&org, account, now) {
                    all &= flight.await;
                }
                all
            })
            .buffer_unordered(AT_ONCE);
        if given.fold(true, async |all, given| all && given).await {
            return Ok(());
        }
        Err(StoreError::unavailable(GIVING_BACK, "some slices were not given back, and count as used"))
    }
}

impl fmt::Debug for LeasedBudgets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedBudgets")
            .field("durable", &self.0.durable)
            .field("charges", &self.0.charges)
            .finish_non_exhaustive()
    }
}

impl Leases {
    /// Takes slices, unless something is under way for that account already: then it is waited for first.
    fn fetch(self: &Arc<Self>, org: &OrgId, account: Account, slices: Vec<Line>, now: Timestamp) -> Flight {
        self.books.write(org, |book| {
            if let Some(flight) = book.flight(account) {
                return flight;
            }
            let (leases, org) = (Arc::clone(self), org.clone());
            let flight = async move {
                // Without an id: slices whose taking has an unknown outcome are waste.
                let taken = leases.durable.charge(&org, &Charge::once(&slices), now).await;
                leases.books.write(&org, |book| {
                    book.set_flight(account, None);
                    match taken {
                        Ok(Charged::Charged(counters)) => {
                            book.credit(&slices, &counters, now);
                            true
                        }
                        Ok(Charged::Exceeded { line, used }) => {
                            if let Some(slice) = slices.get(line) {
                                book.learn_refused(slice, used);
                            }
                            true
                        }
                        Ok(Charged::Repeated | Charged::Conflict) => false,
                        Err(error) => {
                            tracing::debug!(%error, "no slices could be taken");
                            false
                        }
                    }
                })
            };
            let flight = flight.boxed().shared();
            book.set_flight(account, Some(flight.clone()));
            flight
        })
    }

    /// Gives back what is left for `account`. If something is under way for it, that is waited for first; nothing if there
    /// is nothing to do.
    fn give_back(self: &Arc<Self>, org: &OrgId, account: Account, now: Timestamp) -> Option<Flight> {
        self.books.write(org, |book| {
            if let Some(flight) = book.flight(account) {
                return Some(flight);
            }
            let left = book.take(account);
            if left.is_empty() {
                return None;
            }
            let (leases, org) = (Arc::clone(self), org.clone());
            let flight = async move {
                // They are a part of charges of this process that were not used, and this part is corrected once.
                let given = leases.durable.resolve(&org, None, &left, Resolution::Release, now).await;
                leases.books.write(&org, |book| {
                    book.set_flight(account, None);
                    match given {
                        Ok(Resolved::Done { counters, .. }) => {
                            book.learn(&counting(&left), counters, now);
                            true
                        }
                        Ok(Resolved::Stays(_) | Resolved::Unknown) => false,
                        Err(error) => {
                            tracing::debug!(%error, "slices could not be given back, and count as used");
                            false
                        }
                    }
                })
            };
            let flight = flight.boxed().shared();
            book.set_flight(account, Some(flight.clone()));
            Some(flight)
        })
    }

    /// Sees to it that accounts have what they need; whether it is worth trying again.
    async fn provide(self: &Arc<Self>, org: &OrgId, needs: Vec<(Account, Need)>, now: Timestamp) -> bool {
        let flights = needs.into_iter().filter_map(|(account, need)| match need {
            Need::Slices(slices) => Some(self.fetch(org, account, slices, now)),
            Need::GiveBack => self.give_back(org, account, now),
        });
        join_all(flights).await.into_iter().all(|arrived| arrived)
    }
}

/// The same counters as lines of a charge.
fn counting(lines: &[HeldLine]) -> Vec<Line> {
    lines.iter().map(|line| line.counting(line.amount)).collect()
}

#[async_trait]
impl BudgetStore for LeasedBudgets {
    async fn charge(&self, org: &OrgId, charge: &Charge<'_>, now: Timestamp) -> Result<Charged, StoreError> {
        let leases = &self.0;
        let mut attempts = 0;
        loop {
            let spent = leases.books.write(org, |book| book.spend(charge, leases.charges));
            match spent {
                Spent::Done(counters) => return Ok(Charged::Charged(counters)),
                Spent::Needs(needs) => {
                    attempts += 1;
                    if leases.provide(org, needs, now).await && attempts < ATTEMPTS {
                        continue;
                    }
                }
                Spent::Strict => {}
            }
            match leases.durable.charge(org, charge, now).await? {
                Charged::Charged(counters) => {
                    let used = leases.books.write(org, |book| book.learn(charge.lines, counters, now));
                    return Ok(Charged::Charged(used));
                }
                Charged::Exceeded { line, used } => {
                    let Some(refused) = charge.lines.get(line) else {
                        return Ok(Charged::Exceeded { line, used });
                    };
                    let used = leases.books.write(org, |book| book.learn_refused(refused, used));
                    if attempts >= ATTEMPTS {
                        return Ok(Charged::Exceeded { line, used });
                    }
                    // Units that are on their way here, or back, count as used there.
                    let accounts = charge.lines.chunk_by(|a, b| a.account == b.account);
                    let accounts = accounts.map(|lines| lines[0].account);
                    let flights: Vec<_> =
                        accounts.filter_map(|account| leases.give_back(org, account, now)).collect();
                    if flights.is_empty() {
                        return Ok(Charged::Exceeded { line, used });
                    }
                    attempts += 1;
                    join_all(flights).await;
                }
                other @ (Charged::Repeated | Charged::Conflict) => return Ok(other),
            }
        }
    }

    async fn resolve(
        &self,
        org: &OrgId,
        id: Option<HoldId<'_>>,
        lines: &[HeldLine],
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<Resolved, StoreError> {
        if id.is_none() {
            let after = match Hold::without_end(lines).resolve(resolution, now) {
                Verdict::Stays(state) => return Ok(Resolved::Stays(state)),
                Verdict::Becomes { amounts, .. } => amounts,
            };
            if let Some(counters) = self.0.books.write(org, |book| book.correct(lines, &after)) {
                return Ok(Resolved::Done { counters, late: false });
            }
        }
        Ok(match self.0.durable.resolve(org, id, lines, resolution, now).await? {
            Resolved::Done { counters, late } => {
                let lines = counting(lines);
                let counters = self.0.books.write(org, |book| book.learn(&lines, counters, now));
                Resolved::Done { counters, late }
            }
            other @ (Resolved::Stays(_) | Resolved::Unknown) => other,
        })
    }

    async fn hold(&self, org: &OrgId, id: HoldId<'_>, now: Timestamp) -> Result<Option<Hold>, StoreError> {
        self.0.durable.hold(org, id, now).await
    }

    async fn live_holds(
        &self,
        org: &OrgId,
        actor: AgentId,
        now: Timestamp,
        max: u32,
    ) -> Result<Vec<Hold>, StoreError> {
        self.0.durable.live_holds(org, actor, now, max).await
    }

    async fn overdue(&self, now: Timestamp, max: u32) -> Result<Vec<Overdue>, StoreError> {
        self.0.durable.overdue(now, max).await
    }

    async fn usage(&self, org: &OrgId, account: Account, now: Timestamp) -> Result<Usage, StoreError> {
        // Whether the durable counter has a slice that is taken or given back meanwhile is not known. So nothing is subtracted
        // then: what is left may show as used.
        let left = || self.0.books.read(org, |book| (book.left(account, now), book.last_move(account)));
        let (before, moved) = left();
        let used = self.0.durable.usage(org, account, now).await?;
        let (mut after, moved_since) = left();
        if moved != moved_since {
            after = Usage::default();
        }
        let without = |meter| used.of(meter).saturating_sub(before.of(meter).min(after.of(meter)));
        Ok(Usage {
            tokens: without(Meter::Tokens),
            calls: without(Meter::Calls),
            micro_usd: without(Meter::MicroUsd),
        })
    }
}
