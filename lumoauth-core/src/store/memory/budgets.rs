//! Budget counters in memory.

use std::time::Duration;

use async_trait::async_trait;

use super::{MemoryStore, fading::Fading};
use crate::{
    budget::{Account, COUNTERS, Line, Meter, Usage, Window, admits},
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{BudgetStore, Charge, Charged, StoreError},
};

/// How long after its window a counter is kept, for facts that arrive late.
const GRACE: Duration = Duration::from_secs(48 * 3600);

/// What one organization used, behind one lock: a charge is decided and counted under it.
#[derive(Default)]
pub(super) struct Book {
    counters: Fading<Counter, u64>,
    /// What was asked with which id of which actor.
    charges: Fading<(AgentId, String), [u8; 32]>,
}

type Counter = (Account, Meter, Window, Timestamp);

fn counter(line: &Line) -> Counter {
    (line.account, line.meter, line.window, line.window_start)
}

impl Book {
    fn used(&self, counter: &Counter) -> u64 {
        self.counters.get(counter).map_or(0, |(used, _)| *used)
    }

    fn charge(&mut self, charge: &Charge<'_>, now: Timestamp) -> Charged {
        if let Some(id) = &charge.id
            && let Some((hash, end)) = self.charges.get(&(id.actor, id.key.to_owned()))
            && now < end
        {
            return if *hash == id.request_hash { Charged::Repeated } else { Charged::Conflict };
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
            let end = line.window.end(line.window_start).plus(GRACE);
            *self.counters.keep(counter(line), end) = *used;
        }
        if let Some(id) = &charge.id {
            *self.charges.keep((id.actor, id.key.to_owned()), id.keep_until) = id.request_hash;
        }
        Charged::Charged(after)
    }

    /// Drops up to `max` rows without meaning at `now`; how many.
    pub(super) fn purge(&mut self, now: Timestamp, max: u64) -> u64 {
        let counters = self.counters.drop_ended(now, max);
        counters + self.charges.drop_ended(now, max - counters)
    }
}

#[async_trait]
impl BudgetStore for MemoryStore {
    async fn charge(&self, org: &OrgId, charge: &Charge<'_>, now: Timestamp) -> Result<Charged, StoreError> {
        Ok(self.books.write(org, |book| book.charge(charge, now)))
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
