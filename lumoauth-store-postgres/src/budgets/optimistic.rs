//! The short way: one statement, from what is remembered.
//!
//! A process remembers what the counters showed after its last batch. As long as no other server charges them, that is
//! what they still show, and what was decided from memory is what would have been decided under lock. So one statement
//! locks the counters, compares, and writes only if all of them are as remembered. If not, nothing is written and the
//! batch goes the long way.
//!
//! Only batches in which everything has room go this way: a refusal says what the counter shows, so it has to look.

use std::collections::HashMap;

use lumoauth_core::store::{Charged, StoreError};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{CHARGE, Columns, CounterKey, Job, Ledger};
use crate::{
    pool::{End, Pool, Statement, Transaction},
    values::millis,
};

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
        INSERT INTO budget_charge (org_id, actor, key, request_hash, keep_until) \
        SELECT id.org_id, id.actor, id.key, id.request_hash, id.keep_until \
        FROM unnest($10::text[], $11::uuid[], $12::bytea[], $13::bytea[], $14::bigint[]) WITH ORDINALITY \
            AS id (org_id, actor, key, request_hash, keep_until, nth), checked \
        WHERE checked.fits \
        ORDER BY id.nth \
        ON CONFLICT DO NOTHING \
        RETURNING 1) \
    SELECT (SELECT count(*) FROM moved) AS moved, (SELECT count(*) FROM stored) AS stored";

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
    Made(Vec<Charged>, Vec<Seen>),
    /// Something in it has no room, or says nothing new. Nothing was written.
    Unfit,
    /// The counters showed something else, or an id was stored before. Nothing was written.
    Mistaken,
}

/// Makes the batch from a ledger that was recalled.
pub(super) async fn attempt(
    pool: &Pool,
    jobs: &[Job],
    mut ledger: Ledger<'_>,
) -> Result<Shortcut, StoreError> {
    let expected: Vec<i64> = ledger.counters.values().map(|counter| counter.used.cast_signed()).collect();
    let answers: Vec<Charged> = jobs.iter().map(|job| ledger.charge(job)).collect();
    if answers.iter().any(|answer| matches!(answer, Charged::Exceeded { .. })) || !ledger.has_changed() {
        return Ok(Shortcut::Unfit);
    }
    let replace = Replace { ledger: &ledger, expected };
    let replaced = if ledger.ids.is_empty() {
        let rows = pool.change(CHARGE, || replace.statement()).await?;
        let done = rows.first().ok_or(sqlx::Error::RowNotFound).and_then(|row| replace.is_done(row));
        done.map_err(|error| StoreError::corrupt(CHARGE, error))?
    } else {
        pool.transaction_of_task(CHARGE, &replace).await?
    };
    Ok(if replaced { Shortcut::Made(answers, ledger.seen()) } else { Shortcut::Mistaken })
}

/// The statement, and what it must have done.
struct Replace<'l> {
    ledger: &'l Ledger<'l>,
    expected: Vec<i64>,
}

impl Replace<'_> {
    fn statement(&self) -> Statement {
        let next: Vec<_> = self.ledger.counters.values().map(|counter| counter.used.cast_signed()).collect();
        let ids = self.ledger.new_ids();
        Columns::of(self.ledger.counters.keys())
            .bind_to(sqlx::query(REPLACE))
            .bind(&self.expected)
            .bind(next)
            .bind(i64::try_from(self.expected.len()).unwrap_or(i64::MAX))
            .bind(ids.iter().map(|((org, ..), _)| *org).collect::<Vec<_>>())
            .bind(ids.iter().map(|((_, actor, _), _)| *actor).collect::<Vec<_>>())
            .bind(ids.iter().map(|((.., key), _)| *key).collect::<Vec<_>>())
            .bind(ids.iter().map(|(_, known)| known.request_hash.as_slice()).collect::<Vec<_>>())
            .bind(ids.iter().map(|(_, known)| millis(known.keep_until)).collect::<Vec<_>>())
    }

    /// Whether every counter and every id was written.
    fn is_done(&self, row: &sqlx::postgres::PgRow) -> Result<bool, sqlx::Error> {
        let [moved, stored]: [i64; 2] = [row.try_get("moved")?, row.try_get("stored")?];
        Ok(usize::try_from(moved) == Ok(self.expected.len())
            && usize::try_from(stored) == Ok(self.ledger.new_ids().len()))
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
