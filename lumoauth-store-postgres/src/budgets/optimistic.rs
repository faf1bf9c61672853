//! The short way: one statement, from what is remembered.
//!
//! A process remembers what the counters showed after its last batch. As long as no other server charges them, that is
//! what they still show, and what was decided from memory is what would have been decided under lock. So one statement
//! locks the counters, compares, and writes only if all of them are as remembered. If not, nothing is written and the
//! batch goes the long way.
//!
//! Only batches in which everything has room go this way: a refusal says what the counter shows, so it has to look.
//! Holds are not remembered: those that are resolved are looked up first, and written only if they are still the same.

use std::collections::HashMap;

use lumoauth_core::store::{Charged, StoreError};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    CHARGE,
    batch::{Answer, Ask, Job},
    ledger::{Change, CounterKey, Ledger},
    rows::Columns,
};
use crate::pool::{End, Pool, Statement, Transaction};

/// Replaces counters that show what is expected, all of them or none, and stores ids with them. A counter that another
/// transaction holds is about to change, so nobody waits for it.
///
/// Rows are locked, compared as they are then, and written, in this order: `held` is read before anything is written.
const REPLACE: &str = "\
    WITH held AS MATERIALIZED ( \
        SELECT line.org_id, line.owner, line.generation, line.meter, line.window_kind, line.window_start, line.next, \
            counter.used = line.expected AS same \
        FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::smallint[], $5::smallint[], $6::bigint[], $7::bigint[], \
            $8::bigint[]) WITH ORDINALITY \
            AS line (org_id, owner, generation, meter, window_kind, window_start, expected, next, nth) \
        JOIN budget_counter AS counter USING (org_id, owner, generation, meter, window_kind, window_start) \
        ORDER BY line.nth \
        FOR UPDATE OF counter SKIP LOCKED), \
    checked AS MATERIALIZED (SELECT count(*) FILTER (WHERE same) = $9 AS fits FROM held), \
    moved AS ( \
        UPDATE budget_counter AS counter SET used = held.next FROM held, checked \
        WHERE checked.fits AND counter.org_id = held.org_id AND counter.owner = held.owner \
            AND counter.generation = held.generation AND counter.meter = held.meter \
            AND counter.window_kind = held.window_kind AND counter.window_start = held.window_start \
        RETURNING 1), \
    stored AS ( \
        INSERT INTO budget_charge (org_id, actor, key, request_hash, keep_until, hold, live_until, parked_until) \
        SELECT id.org_id, id.actor, id.key, id.request_hash, id.keep_until, id.hold, id.live_until, id.parked_until \
        FROM unnest($10::text[], $11::uuid[], $12::bytea[], $13::bytea[], $14::bigint[], $15::text[], $16::bigint[], \
            $17::bigint[]) WITH ORDINALITY \
            AS id (org_id, actor, key, request_hash, keep_until, hold, live_until, parked_until, nth), checked \
        WHERE checked.fits \
        ORDER BY id.nth \
        ON CONFLICT DO NOTHING \
        RETURNING 1), \
    resolved AS ( \
        UPDATE budget_charge AS charge \
        SET hold = id.hold, live_until = id.live_until, parked_until = id.parked_until \
        FROM unnest($18::text[], $19::uuid[], $20::bytea[], $21::text[], $22::text[], $23::bigint[], $24::bigint[]) \
            AS id (org_id, actor, key, before, hold, live_until, parked_until), checked \
        WHERE checked.fits AND charge.org_id = id.org_id AND charge.actor = id.actor AND charge.key = id.key \
            AND charge.hold = id.before \
        RETURNING 1) \
    SELECT (SELECT count(*) FROM moved) AS moved, (SELECT count(*) FROM stored) AS stored, \
        (SELECT count(*) FROM resolved) AS resolved";

/// How many counters are remembered. Those of windows that ended go when the room does.
const ROOM: usize = 16_384;

/// How many batches go the long way after one that remembered wrongly: where servers charge the same counters in turn,
/// memory is of no use.
const REST: u32 = 16;

/// What counters showed after the last batch of this process.
#[derive(Debug, Default)]
pub(super) struct Memory {
    counters: HashMap<Key, u64>,
    rest: u32,
}

type Key = (String, Uuid, i64, i16, i16, i64);

/// A counter and what it shows.
pub(super) type Seen = (Key, u64);

impl CounterKey<'_> {
    fn owned(&self) -> Key {
        let Self { org, owner, generation, meter, window_kind, window_start } = *self;
        (org.to_owned(), owner, generation, meter, window_kind, window_start)
    }
}

impl Memory {
    /// The ledger of `jobs` as far as it is remembered; `None` if not all of it is, or it should not be relied on.
    pub(super) fn recall<'j>(&mut self, jobs: &'j [Job]) -> Option<Ledger<'j>> {
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        let mut ledger = Ledger::of(jobs);
        for (key, counter) in &mut ledger.counters {
            counter.used = *self.counters.get(&key.owned())?;
        }
        Some(ledger)
    }

    /// Remembers what counters show.
    pub(super) fn learn(&mut self, seen: Vec<Seen>) {
        if self.counters.len() + seen.len() > ROOM {
            self.counters.clear();
        }
        self.counters.extend(seen);
    }

    /// It was wrong.
    pub(super) fn doubt(&mut self) {
        self.rest = REST;
    }
}

impl Ledger<'_> {
    /// What the counters show now.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.counters.iter().map(|(key, counter)| (key.owned(), counter.used)).collect()
    }
}

/// What became of a batch on the short way.
pub(super) enum Shortcut {
    /// It is made.
    Made(Vec<Answer>, Vec<Seen>),
    /// Something in it has no room, or says nothing new. Nothing was written.
    Unfit,
    /// The counters or a hold showed something else, or an id was stored before. Nothing was written.
    Mistaken,
}

/// Makes the batch from a ledger that was recalled.
pub(super) async fn attempt(
    pool: &Pool,
    jobs: &[Job],
    mut ledger: Ledger<'_>,
) -> Result<Shortcut, StoreError> {
    let expected: Vec<u64> = ledger.counters.values().map(|counter| counter.used).collect();
    if jobs.iter().any(|job| matches!(job.ask, Ask::Resolve { id: Some(_), .. })) {
        return pool.transaction_of_task(CHARGE, &LookAndReplace { jobs, expected }).await;
    }
    let corrupt = |error| StoreError::corrupt(CHARGE, error);
    let answers = ledger.decide(jobs).map_err(corrupt)?;
    if !ledger.is_fit(&answers) {
        return Ok(Shortcut::Unfit);
    }
    let replace = Replace { ledger: &ledger, expected: &expected };
    let replaced = if ledger.ids.is_empty() {
        let rows = pool.change(CHARGE, || replace.statement()).await?;
        let done = rows.first().ok_or(sqlx::Error::RowNotFound).and_then(|row| replace.is_done(row));
        done.map_err(corrupt)?
    } else {
        pool.transaction_of_task(CHARGE, &replace).await?
    };
    Ok(if replaced { Shortcut::Made(answers, ledger.seen()) } else { Shortcut::Mistaken })
}

impl Ledger<'_> {
    /// Whether what was decided from memory can be written as it is.
    fn is_fit(&self, answers: &[Answer]) -> bool {
        let full = |answer: &Answer| matches!(answer, Answer::Charged(Charged::Exceeded { .. }));
        // An id that ended makes room only on the long way.
        let ended = self.ids_with(Change::New).iter().any(|(_, known)| known.stored.is_some());
        !answers.iter().any(full) && !ended && self.has_changed()
    }
}

/// The statement, and what it must have done.
struct Replace<'l> {
    ledger: &'l Ledger<'l>,
    expected: &'l [u64],
}

impl Replace<'_> {
    fn statement(&self) -> Statement {
        let counters = self.ledger.counters.values();
        let statement = Columns::of(self.ledger.counters.keys())
            .bind_to(sqlx::query(REPLACE))
            .bind(self.expected.iter().map(|used| used.cast_signed()).collect::<Vec<_>>())
            .bind(counters.map(|counter| counter.used.cast_signed()).collect::<Vec<_>>())
            .bind(i64::try_from(self.expected.len()).unwrap_or(i64::MAX));
        self.ledger.bind_resolved(self.ledger.bind_new(statement))
    }

    /// Whether every counter, every id and every hold was written.
    fn is_done(&self, row: &PgRow) -> Result<bool, sqlx::Error> {
        for (written, expected) in [
            ("moved", self.expected.len()),
            ("stored", self.ledger.ids_with(Change::New).len()),
            ("resolved", self.ledger.ids_with(Change::Resolved).len()),
        ] {
            if usize::try_from(row.try_get::<i64, _>(written)?) != Ok(expected) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// With ids the statement stands in a transaction: if one of them was stored before, the counters must not move.
impl Transaction for Replace<'_> {
    type Answer = bool;

    async fn run(&self, connection: &mut PgConnection) -> Result<End<bool>, sqlx::Error> {
        let row = self.statement().fetch_one(connection).await?;
        Ok(if self.is_done(&row)? { End::Commit(true) } else { End::RollBack(false) })
    }
}

/// The same for a batch with holds, which have to be looked up before anything is decided.
struct LookAndReplace<'j> {
    jobs: &'j [Job],
    expected: Vec<u64>,
}

impl Transaction for LookAndReplace<'_> {
    type Answer = Shortcut;

    async fn run(&self, connection: &mut PgConnection) -> Result<End<Shortcut>, sqlx::Error> {
        let mut ledger = Ledger::of(self.jobs);
        for (counter, used) in ledger.counters.values_mut().zip(&self.expected) {
            counter.used = *used;
        }
        ledger.find_ids(connection).await?;
        let answers = ledger.decide(self.jobs)?;
        if !ledger.is_fit(&answers) {
            return Ok(End::RollBack(Shortcut::Unfit));
        }
        let replace = Replace { ledger: &ledger, expected: &self.expected };
        Ok(match replace.run(connection).await? {
            End::Commit(_) => End::Commit(Shortcut::Made(answers, ledger.seen())),
            End::RollBack(_) => End::RollBack(Shortcut::Mistaken),
        })
    }
}
