//! The role that counts use.
//!
//! A charge is one operation of the writer: it reads every counter, asks [`admits`] for every line, and only then
//! writes. Charges are never concurrent, so nothing is locked and no counter is ever read twice.

use std::time::Duration;

use async_trait::async_trait;
use lumoauth_core::{
    budget::{Account, COUNTERS, Line, Meter, Usage, admits},
    clock::Timestamp,
    id::OrgId,
    store::{BudgetStore, Charge, Charged, StoreError},
};

use crate::{
    EmbeddedStore,
    batch::Batch,
    snapshot::malformed,
    tables::{Table, charge_key, counter_key, line_key},
};

/// How long a counter is kept after its window, for whoever asks late.
const GRACE: Duration = Duration::from_secs(48 * 3600);

/// The id of a charge, as a row.
struct Id {
    key: Vec<u8>,
    request_hash: [u8; 32],
    keep_until: Timestamp,
}

/// A counter that a charge touches.
struct Counter {
    key: Vec<u8>,
    stored: Option<u64>,
    used: u64,
    expires: Timestamp,
}

#[async_trait]
impl BudgetStore for EmbeddedStore {
    async fn charge(&self, org: &OrgId, charge: &Charge<'_>, now: Timestamp) -> Result<Charged, StoreError> {
        let id = charge.id.map(|id| Id {
            key: charge_key(org, id.actor, id.key),
            request_hash: id.request_hash,
            keep_until: id.keep_until,
        });
        let lines: Vec<(Vec<u8>, Line)> =
            charge.lines.iter().map(|line| (line_key(org, line), *line)).collect();
        self.writer.submit(move |batch| decide(batch, id.as_ref(), &lines, now)).await
    }

    async fn usage(&self, org: &OrgId, account: Account, now: Timestamp) -> Result<Usage, StoreError> {
        let snapshot = self.latest();
        let mut usage = Usage::default();
        for (meter, window) in COUNTERS {
            let key = counter_key(org, account, meter, window, window.start(now));
            let Some(row) = snapshot.get(Table::Counters, &key)? else { continue };
            let used = used_of(row.value())?;
            match meter {
                Meter::Tokens => usage.tokens = used,
                Meter::Calls => usage.calls = used,
                Meter::MicroUsd => usage.micro_usd = used,
            }
        }
        Ok(usage)
    }
}

fn decide(
    batch: &mut Batch<'_>,
    id: Option<&Id>,
    lines: &[(Vec<u8>, Line)],
    now: Timestamp,
) -> Result<Charged, StoreError> {
    let mut forgotten = None;
    if let Some(id) = id
        && let Some(row) = batch.get(Table::Charges, &id.key)?
    {
        let (keep_until, request_hash) = charge_of(&row).ok_or_else(|| malformed(Table::Charges))?;
        if now < keep_until {
            let same = request_hash == id.request_hash;
            return Ok(if same { Charged::Repeated } else { Charged::Conflict });
        }
        forgotten = Some(keep_until);
    }

    let mut counters: Vec<Counter> = Vec::with_capacity(lines.len());
    let mut after = Vec::with_capacity(lines.len());
    for (index, (key, line)) in lines.iter().enumerate() {
        let position = match counters.iter().position(|counter| counter.key == *key) {
            Some(position) => position,
            None => {
                let stored = batch.get(Table::Counters, key)?.map(|row| used_of(&row)).transpose()?;
                let expires = line.window.end(line.window_start).plus(GRACE);
                let used = stored.unwrap_or_default();
                counters.push(Counter { key: key.clone(), stored, used, expires });
                counters.len() - 1
            }
        };
        let counter = &mut counters[position];
        if !admits(counter.used, line) {
            return Ok(Charged::Exceeded { line: index, used: counter.used });
        }
        counter.used = counter.used.saturating_add(line.amount);
        after.push(counter.used);
    }

    for counter in counters.iter().filter(|counter| counter.used != counter.stored.unwrap_or_default()) {
        batch.put(Table::Counters, &counter.key, &counter.used.to_be_bytes())?;
        if counter.stored.is_none() {
            batch.expires(Table::Counters, &counter.key, None, counter.expires)?;
        }
    }
    if let Some(id) = id {
        let row = [&id.keep_until.unix_millis().to_be_bytes()[..], &id.request_hash].concat();
        batch.put(Table::Charges, &id.key, &row)?;
        batch.expires(Table::Charges, &id.key, forgotten, id.keep_until)?;
    }
    Ok(Charged::Charged(after))
}

fn used_of(row: &[u8]) -> Result<u64, StoreError> {
    row.try_into().map(u64::from_be_bytes).map_err(|_| malformed(Table::Counters))
}

/// Until when a charge id is kept, and the hash of its request.
fn charge_of(row: &[u8]) -> Option<(Timestamp, [u8; 32])> {
    let (keep_until, request_hash) = row.split_first_chunk()?;
    let keep_until = Timestamp::from_unix_millis(u64::from_be_bytes(*keep_until));
    Some((keep_until, request_hash.try_into().ok()?))
}
