//! How the ledger of a batch is read and written.

use lumoauth_core::budget::HoldState;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::ledger::{Change, CounterKey, IdKey, Known, Ledger, Promise, Stored, Written};
use crate::{
    pool::Statement,
    values::{from_millis, millis, whole},
};

// The first statement of a transaction also sets for how long it waits for locks. All of it is read, and sorted, before
// the first lock is taken.

/// Inserts counters that do not exist yet.
const INSERT_COUNTERS: &str = "\
    INSERT INTO budget_counter (org_id, owner, generation, meter, window_kind, window_start, ends_at, used) \
    SELECT org_id, owner, generation, meter, window_kind, window_start, ends_at, 0 \
    FROM (SELECT set_config('lock_timeout', $8, true)) AS patience, \
        unnest($1::text[], $2::uuid[], $3::bigint[], $4::smallint[], $5::smallint[], $6::bigint[], $7::bigint[]) \
        WITH ORDINALITY AS line (org_id, owner, generation, meter, window_kind, window_start, ends_at, nth) \
    ORDER BY nth \
    ON CONFLICT DO NOTHING";

/// Locks counters in the order in which they are given, and shows them.
const LOCK_COUNTERS: &str = "\
    SELECT line.nth, counter.used \
    FROM (SELECT set_config('lock_timeout', $7, true)) AS patience \
    CROSS JOIN unnest($1::text[], $2::uuid[], $3::bigint[], $4::smallint[], $5::smallint[], $6::bigint[]) \
        WITH ORDINALITY AS line (org_id, owner, generation, meter, window_kind, window_start, nth) \
    JOIN budget_counter AS counter USING (org_id, owner, generation, meter, window_kind, window_start) \
    ORDER BY line.nth \
    FOR UPDATE OF counter";

const UPDATE_COUNTERS: &str = "\
    UPDATE budget_counter AS counter SET used = line.used \
    FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::smallint[], $5::smallint[], $6::bigint[], $7::bigint[]) \
        AS line (org_id, owner, generation, meter, window_kind, window_start, used) \
    WHERE counter.org_id = line.org_id AND counter.owner = line.owner AND counter.generation = line.generation \
        AND counter.meter = line.meter AND counter.window_kind = line.window_kind AND counter.window_start = line.window_start";

const FIND_IDS: &str = "\
    SELECT id.nth, charge.request_hash, charge.keep_until, charge.hold \
    FROM unnest($1::text[], $2::uuid[], $3::bytea[]) WITH ORDINALITY AS id (org_id, actor, key, nth) \
    JOIN budget_charge AS charge USING (org_id, actor, key)";

/// Drops ids that have ended and are about to be stored anew.
const DELETE_IDS: &str = "\
    DELETE FROM budget_charge AS charge \
    USING unnest($1::text[], $2::uuid[], $3::bytea[], $4::bigint[]) AS id (org_id, actor, key, keep_until) \
    WHERE charge.org_id = id.org_id AND charge.actor = id.actor AND charge.key = id.key \
        AND charge.keep_until = id.keep_until";

/// Stores ids, in the order in which they are given. Whoever finds one that is not committed yet waits for it.
const INSERT_IDS: &str = "\
    INSERT INTO budget_charge (org_id, actor, key, request_hash, keep_until, hold, live_until, parked_until) \
    SELECT org_id, actor, key, request_hash, keep_until, hold, live_until, parked_until \
    FROM unnest($1::text[], $2::uuid[], $3::bytea[], $4::bytea[], $5::bigint[], $6::text[], $7::bigint[], $8::bigint[]) \
        WITH ORDINALITY AS id (org_id, actor, key, request_hash, keep_until, hold, live_until, parked_until, nth) \
    ORDER BY nth \
    ON CONFLICT DO NOTHING";

/// Stores holds that became something else, of those that are still what they were.
const UPDATE_HOLDS: &str = "\
    UPDATE budget_charge AS charge \
    SET hold = id.hold, live_until = id.live_until, parked_until = id.parked_until \
    FROM unnest($1::text[], $2::uuid[], $3::bytea[], $4::text[], $5::text[], $6::bigint[], $7::bigint[]) \
        AS id (org_id, actor, key, before, hold, live_until, parked_until) \
    WHERE charge.org_id = id.org_id AND charge.actor = id.actor AND charge.key = id.key AND charge.hold = id.before";

impl Ledger<'_> {
    pub(super) async fn insert_counters(
        &self,
        connection: &mut PgConnection,
        lock_timeout: &str,
    ) -> Result<(), sqlx::Error> {
        let keys = Columns::of(self.counters.keys());
        let ends: Vec<_> = self.counters.values().map(|counter| counter.ends_at).collect();
        let insert = keys.bind_to(sqlx::query(INSERT_COUNTERS)).bind(ends).bind(lock_timeout);
        insert.execute(connection).await?;
        Ok(())
    }

    /// Whether all of them exist.
    pub(super) async fn lock_counters(
        &mut self,
        connection: &mut PgConnection,
        lock_timeout: &str,
    ) -> Result<bool, sqlx::Error> {
        if self.counters.is_empty() {
            return Ok(true);
        }
        let keys = Columns::of(self.counters.keys());
        let lock = keys.bind_to(sqlx::query(LOCK_COUNTERS)).bind(lock_timeout);
        let rows = lock.fetch_all(connection).await?;
        if rows.len() < self.counters.len() {
            return Ok(false);
        }
        // The rows come in the order of the keys.
        for (row, counter) in rows.iter().zip(self.counters.values_mut()) {
            counter.used = whole(row.try_get("used")?)?;
        }
        Ok(true)
    }

    pub(super) async fn find_ids(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.ids.is_empty() {
            return Ok(());
        }
        let ids = IdColumns::of(self.ids.keys());
        let rows = ids.bind_to(sqlx::query(FIND_IDS)).fetch_all(connection).await?;
        let mut known: Vec<_> = self.ids.values_mut().collect();
        for row in rows {
            let nth = usize::try_from(row.try_get::<i64, _>("nth")?).unwrap_or_default();
            let request_hash: Vec<u8> = row.try_get("request_hash")?;
            let request_hash =
                request_hash.try_into().map_err(|_| sqlx::Error::Decode("not a hash".into()))?;
            let stored = Stored { keep_until: row.try_get("keep_until")?, hold: row.try_get("hold")? };
            if let Some(known) = nth.checked_sub(1).and_then(|index| known.get_mut(index)) {
                let keep_until = from_millis(stored.keep_until)?;
                let hold = stored.hold.clone().map(Written::read).transpose()?;
                let promise = Promise { request_hash, keep_until, hold };
                **known = Some(Known { promise, stored: Some(stored), change: Change::Nothing });
            }
        }
        Ok(())
    }

    /// Whether none of them was stored by another server meanwhile.
    pub(super) async fn store_ids(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let new = self.ids_with(Change::New);
        if new.is_empty() {
            return Ok(true);
        }
        let ended: Vec<_> =
            new.iter().filter_map(|(key, known)| Some((*key, known.stored.as_ref()?.keep_until))).collect();
        if !ended.is_empty() {
            IdColumns::of(ended.iter().map(|(key, _)| *key))
                .bind_to(sqlx::query(DELETE_IDS))
                .bind(ended.iter().map(|(_, keep_until)| *keep_until).collect::<Vec<_>>())
                .execute(&mut *connection)
                .await?;
        }
        let stored = self.bind_new(sqlx::query(INSERT_IDS)).execute(connection).await?;
        Ok(usize::try_from(stored.rows_affected()) == Ok(new.len()))
    }

    /// Whether none of them was resolved by another server meanwhile.
    pub(super) async fn store_holds(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let resolved = self.ids_with(Change::Resolved).len();
        if resolved == 0 {
            return Ok(true);
        }
        let stored = self.bind_resolved(sqlx::query(UPDATE_HOLDS)).execute(connection).await?;
        Ok(usize::try_from(stored.rows_affected()) == Ok(resolved))
    }

    pub(super) async fn store_counters(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let changed = || self.counters.iter().filter(|(_, counter)| counter.changed);
        let keys = Columns::of(changed().map(|(key, _)| key));
        if keys.is_empty() {
            return Ok(());
        }
        let used: Vec<_> = changed().map(|(_, counter)| counter.used.cast_signed()).collect();
        keys.bind_to(sqlx::query(UPDATE_COUNTERS)).bind(used).execute(connection).await?;
        Ok(())
    }

    /// Eight arrays: the ids that this batch stores, and what is kept under them.
    pub(super) fn bind_new(&self, statement: Statement) -> Statement {
        let new = self.ids_with(Change::New);
        let hashes: Vec<_> = new.iter().map(|(_, known)| known.promise.request_hash.as_slice()).collect();
        let ends: Vec<_> = new.iter().map(|(_, known)| millis(known.promise.keep_until)).collect();
        let holds = HoldColumns::of(&new);
        let ids = IdColumns::of(new.iter().map(|(key, _)| *key));
        holds.bind_to(ids.bind_to(statement).bind(hashes).bind(ends))
    }

    /// Seven arrays: the ids whose holds this batch resolves, the holds as they were, and as they are now.
    pub(super) fn bind_resolved(&self, statement: Statement) -> Statement {
        let resolved = self.ids_with(Change::Resolved);
        let before: Vec<_> =
            resolved.iter().map(|(_, known)| known.stored.as_ref()?.hold.as_deref()).collect();
        let holds = HoldColumns::of(&resolved);
        let ids = IdColumns::of(resolved.iter().map(|(key, _)| *key));
        holds.bind_to(ids.bind_to(statement).bind(before))
    }
}

/// Ids, column by column, as statements take them.
struct IdColumns<'k> {
    org: Vec<&'k str>,
    actor: Vec<Uuid>,
    key: Vec<&'k [u8]>,
}

impl<'k> IdColumns<'k> {
    fn of(ids: impl Iterator<Item = &'k IdKey<'k>> + Clone) -> Self {
        Self {
            org: ids.clone().map(|(org, ..)| *org).collect(),
            actor: ids.clone().map(|(_, actor, _)| *actor).collect(),
            key: ids.map(|(.., key)| *key).collect(),
        }
    }

    fn bind_to(self, statement: Statement) -> Statement {
        statement.bind(self.org).bind(self.actor).bind(self.key)
    }
}

/// Holds, column by column.
#[derive(Default)]
struct HoldColumns<'k> {
    hold: Vec<Option<&'k str>>,
    live_until: Vec<Option<i64>>,
    parked_until: Vec<Option<i64>>,
}

impl<'k> HoldColumns<'k> {
    fn of(ids: &[(&IdKey<'_>, &'k Known)]) -> Self {
        let mut columns = Self::default();
        for (_, known) in ids {
            let kept = known.promise.hold.as_ref();
            let (live_until, parked_until) = match kept.map(|kept| (kept.hold.state, kept.hold.ends)) {
                Some((HoldState::Held, ends)) => (Some(millis(ends)), None),
                Some((HoldState::Parked, ends)) => (Some(NO_END), Some(millis(ends))),
                Some(_) | None => (None, None),
            };
            columns.hold.push(kept.map(|kept| &*kept.json));
            columns.live_until.push(live_until);
            columns.parked_until.push(parked_until);
        }
        columns
    }

    fn bind_to(self, statement: Statement) -> Statement {
        statement.bind(self.hold).bind(self.live_until).bind(self.parked_until)
    }
}

/// What is parked is held until somebody frees it.
const NO_END: i64 = i64::MAX;

/// Keys of counters, column by column, as statements take them.
pub(super) struct Columns<'j> {
    org: Vec<&'j str>,
    owner: Vec<Uuid>,
    generation: Vec<i64>,
    meter: Vec<i16>,
    window_kind: Vec<i16>,
    window_start: Vec<i64>,
}

impl<'j> Columns<'j> {
    pub(super) fn of<'k>(keys: impl Iterator<Item = &'k CounterKey<'j>> + Clone) -> Self
    where
        'j: 'k,
    {
        Self {
            org: keys.clone().map(|key| key.org).collect(),
            owner: keys.clone().map(|key| key.owner).collect(),
            generation: keys.clone().map(|key| key.generation).collect(),
            meter: keys.clone().map(|key| key.meter).collect(),
            window_kind: keys.clone().map(|key| key.window_kind).collect(),
            window_start: keys.map(|key| key.window_start).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.org.is_empty()
    }

    pub(super) fn bind_to(self, statement: Statement) -> Statement {
        statement
            .bind(self.org)
            .bind(self.owner)
            .bind(self.generation)
            .bind(self.meter)
            .bind(self.window_kind)
            .bind(self.window_start)
    }
}
