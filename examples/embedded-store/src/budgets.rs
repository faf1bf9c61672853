//! The role that counts use.
//!
//! A charge is one operation of the writer: it reads every counter, asks [`admits`] for every line, and only then
//! writes. So is what becomes of a hold, which [`Hold::resolve`] decides. They are never concurrent, so nothing is
//! locked and no counter is ever read twice.

mod kept;

use std::time::Duration;

use async_trait::async_trait;
use lumoauth_core::{
    budget::{
        Account, COUNTERS, HeldLine, Hold, Line, Meter, Resolution, Usage, Verdict, admits, amounts,
        recounted,
    },
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{BudgetStore, Charge, Charged, HoldId, Overdue, Resolved, StoreError},
};

use crate::{
    EmbeddedStore,
    batch::Batch,
    snapshot::{Order, Snapshot, Visit, malformed},
    tables::{Table, charge_id, charge_key, counter_key, line_key, live_from, parked_until},
};

pub(crate) use kept::Kept;

/// How long a counter is kept after its window, for whoever asks late.
const GRACE: Duration = Duration::from_secs(48 * 3600);

#[async_trait]
impl BudgetStore for EmbeddedStore {
    async fn charge(&self, org: &OrgId, charge: &Charge<'_>, now: Timestamp) -> Result<Charged, StoreError> {
        let hold = charge.hold.map(|hold| hold.of(charge.lines));
        let id = charge.id.map(|id| {
            let kept = Kept { keep_until: id.keep_until, request_hash: id.request_hash, hold };
            (charge_key(org, id.actor, id.key), kept)
        });
        let lines: Vec<(Vec<u8>, Line)> =
            charge.lines.iter().map(|line| (line_key(org, line), *line)).collect();
        self.writer.submit(move |batch| decide(batch, id.as_ref(), &lines, now)).await
    }

    async fn resolve(
        &self,
        org: &OrgId,
        id: Option<HoldId<'_>>,
        lines: &[HeldLine],
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<Resolved, StoreError> {
        let org = org.clone();
        let Some(id) = id else {
            let hold = Hold::without_end(lines);
            let decide = move |batch: &mut Batch<'_>| Ok(resolve(batch, &org, &hold, resolution, now)?.0);
            return self.writer.submit(decide).await;
        };
        let key = charge_key(&org, id.actor, id.key);
        let decide = move |batch: &mut Batch<'_>| {
            let row = batch.get(Table::Charges, &key)?;
            let Some(kept) = row.map(|row| Kept::of(&row)).transpose()?.filter(|kept| kept.is_known(now))
            else {
                return Ok(Resolved::Unknown);
            };
            let Some(hold) = &kept.hold else { return Ok(Resolved::Unknown) };
            let (resolved, next) = resolve(batch, &org, hold, resolution, now)?;
            if next.is_some() {
                let Kept { keep_until, request_hash, .. } = kept;
                let next = Kept { keep_until, request_hash, hold: next };
                next.write(batch, &key, Some(&kept))?;
            }
            Ok(resolved)
        };
        self.writer.submit(decide).await
    }

    async fn hold(&self, org: &OrgId, id: HoldId<'_>, now: Timestamp) -> Result<Option<Hold>, StoreError> {
        hold(&self.latest(), &charge_key(org, id.actor, id.key), now)
    }

    async fn live_holds(
        &self,
        org: &OrgId,
        actor: AgentId,
        now: Timestamp,
        max: u32,
    ) -> Result<Vec<Hold>, StoreError> {
        let snapshot = self.latest();
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let mut live = Vec::new();
        let visit = |_: &[u8], key: &[u8]| {
            if live.len() >= max {
                return Ok(Visit::Stop);
            }
            live.extend(hold(&snapshot, key, now)?.filter(|hold| hold.is_live(now)));
            Ok(Visit::Next)
        };
        snapshot.walk(Table::LiveHolds, live_from(org, actor, now), Order::Ascending, visit).await?;
        Ok(live)
    }

    async fn overdue(&self, now: Timestamp, max: u32) -> Result<Vec<Overdue>, StoreError> {
        let snapshot = self.latest();
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let mut overdue = Vec::new();
        let visit = |_: &[u8], charge: &[u8]| {
            if overdue.len() >= max {
                return Ok(Visit::Stop);
            }
            let (org, actor, key) = charge_id(charge).ok_or_else(|| malformed(Table::ParkedHolds))?;
            let hold = hold(&snapshot, charge, now)?;
            overdue.extend(hold.map(|hold| Overdue { org, actor, key, hold }));
            Ok(Visit::Next)
        };
        snapshot.walk(Table::ParkedHolds, parked_until(now), Order::Ascending, visit).await?;
        Ok(overdue)
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

/// The hold of the charge with this key, if it is known.
fn hold(snapshot: &Snapshot, key: &[u8], now: Timestamp) -> Result<Option<Hold>, StoreError> {
    let kept = snapshot.get(Table::Charges, key)?.map(|row| Kept::of(row.value())).transpose()?;
    Ok(kept.filter(|kept| kept.is_known(now)).and_then(|kept| kept.hold))
}

/// A counter that an operation touches.
struct Counter<'k> {
    key: &'k [u8],
    stored: Option<u64>,
    used: u64,
    expires: Timestamp,
}

impl<'k> Counter<'k> {
    fn read(batch: &mut Batch<'_>, key: &'k [u8], line: &Line) -> Result<Self, StoreError> {
        let stored = batch.get(Table::Counters, key)?.map(|row| used_of(&row)).transpose()?;
        let expires = line.window.end(line.window_start).plus(GRACE);
        Ok(Self { key, stored, used: stored.unwrap_or_default(), expires })
    }

    /// Writes it if it changed.
    fn write(&self, batch: &mut Batch<'_>) -> Result<(), StoreError> {
        if self.used == self.stored.unwrap_or_default() {
            return Ok(());
        }
        batch.put(Table::Counters, self.key, &self.used.to_be_bytes())?;
        if self.stored.is_none() {
            batch.expires(Table::Counters, self.key, None, self.expires)?;
        }
        Ok(())
    }
}

fn decide(
    batch: &mut Batch<'_>,
    id: Option<&(Vec<u8>, Kept)>,
    lines: &[(Vec<u8>, Line)],
    now: Timestamp,
) -> Result<Charged, StoreError> {
    let mut forgotten = None;
    if let Some((key, new)) = id
        && let Some(row) = batch.get(Table::Charges, key)?
    {
        let kept = Kept::of(&row)?;
        if kept.is_known(now) {
            let same = kept.request_hash == new.request_hash;
            return Ok(if same { Charged::Repeated } else { Charged::Conflict });
        }
        forgotten = Some(kept);
    }

    let mut counters: Vec<Counter<'_>> = Vec::with_capacity(lines.len());
    let mut after = Vec::with_capacity(lines.len());
    for (index, (key, line)) in lines.iter().enumerate() {
        let position = match counters.iter().position(|counter| counter.key == key) {
            Some(position) => position,
            None => {
                counters.push(Counter::read(batch, key, line)?);
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

    counters.iter().try_for_each(|counter| counter.write(batch))?;
    if let Some((key, new)) = id {
        new.write(batch, key, forgotten.as_ref())?;
    }
    Ok(Charged::Charged(after))
}

/// Makes `resolution` hold of `hold`, and corrects its counters: what became of it, and the hold if it changed.
fn resolve(
    batch: &mut Batch<'_>,
    org: &OrgId,
    hold: &Hold,
    resolution: Resolution,
    now: Timestamp,
) -> Result<(Resolved, Option<Hold>), StoreError> {
    let (state, ends, after, late) = match hold.resolve(resolution, now) {
        Verdict::Stays(state) => return Ok((Resolved::Stays(state), None)),
        Verdict::Becomes { state, ends, amounts, late } => (state, ends, amounts, late),
    };
    let before = amounts(&hold.lines, hold.state);
    let mut counters = Vec::with_capacity(after.len());
    for (line, (before, after)) in hold.lines.iter().zip(before.into_iter().zip(after)) {
        let line = line.counting(after);
        let key = line_key(org, &line);
        let mut counter = Counter::read(batch, &key, &line)?;
        counter.used = recounted(counter.used, before, after);
        counter.write(batch)?;
        counters.push(counter.used);
    }
    let mut next = hold.clone();
    (next.state, next.ends) = (state, ends);
    Ok((Resolved::Done { counters, late }, Some(next)))
}

fn used_of(row: &[u8]) -> Result<u64, StoreError> {
    row.try_into().map(u64::from_be_bytes).map_err(|_| malformed(Table::Counters))
}

#[cfg(test)]
mod tests {
    use lumoauth_core::{
        budget::HoldState,
        store::{
            ChargeId, NewHold, Upkeep,
            conformance::{now, some_org},
        },
    };

    use super::*;

    async fn rows(store: &EmbeddedStore) -> [usize; 4] {
        let mut rows = [0; 4];
        let tables = [Table::Charges, Table::LiveHolds, Table::ParkedHolds, Table::Expiries];
        for (table, rows) in tables.into_iter().zip(&mut rows) {
            let visit = |_: &[u8], _: &[u8]| {
                *rows += 1;
                Ok(Visit::Next)
            };
            store.latest().walk(table, Vec::new()..vec![0xff; 99], Order::Ascending, visit).await.unwrap();
        }
        rows
    }

    /// Charges, live holds, parked holds and expiries, as a hold goes its way.
    #[tokio::test]
    async fn no_row_that_leads_to_a_hold_is_left_behind() {
        let file = std::env::temp_dir().join(format!("lumoauth-holds-{}", AgentId::generate()));
        let store = EmbeddedStore::open(&file).unwrap();
        let (org, actor) = (some_org(), AgentId::generate());
        let at = |seconds| now().plus(Duration::from_secs(seconds));
        let make = async |key, parked, at: Timestamp| {
            let keep_until = at.plus(Duration::from_secs(100));
            let id = ChargeId { actor, key, request_hash: [1; 32], keep_until };
            let hold = NewHold { parked, ends: at.plus(Duration::from_secs(60)), note: "" };
            let charged = store.charge(&org, &Charge::held(id, &[], hold), at).await.unwrap();
            assert_eq!(charged, Charged::Charged(vec![]));
        };
        let resolve = async |key, resolution| {
            let id = Some(HoldId { actor, key });
            let resolved = store.resolve(&org, id, &[], resolution, now()).await.unwrap();
            assert!(matches!(resolved, Resolved::Done { .. }), "{resolved:?}");
        };

        make("a", true, now()).await;
        make("b", false, now()).await;
        assert_eq!(rows(&store).await, [2, 2, 1, 1]);
        resolve("a", Resolution::Unpark(at(90))).await;
        assert_eq!(rows(&store).await, [2, 2, 0, 2]);
        resolve("a", Resolution::Settle(Usage::default())).await;
        assert_eq!(rows(&store).await, [2, 1, 0, 2]);
        // An id that ended is made anew, also over a hold whose lease ended.
        make("b", true, at(100)).await;
        assert_eq!(rows(&store).await, [2, 1, 1, 1]);
        assert_eq!(store.purge(at(9999), 9).await.unwrap(), 1);
        assert_eq!(rows(&store).await, [1, 1, 1, 0]);
        resolve("b", Resolution::Deny).await;
        let hold = store.hold(&org, HoldId { actor, key: "b" }, at(150)).await.unwrap();
        assert_eq!(hold.map(|hold| hold.state), Some(HoldState::Denied));
        make("c", false, now()).await;
        assert_eq!(store.purge(at(9999), 9).await.unwrap(), 2);
        assert_eq!(rows(&store).await, [0; 4]);
        drop(store);
        std::fs::remove_file(file).unwrap();
    }
}
