//! The role that counts use.
//!
//! Charges are made in batches, each of them one transaction under READ COMMITTED:
//! 1. The counters are locked in the order of their keys, so that two servers cannot wait for each other. From then
//!    on nobody else changes them.
//! 2. The ids of the charges are looked up, and every charge is decided in the order of arrival by core's
//!    [`admits`], each seeing what those before it in the batch did.
//! 3. What was decided is written: ids with an insert, counters with one update.
//!
//! Where no other server charges the same counters, all of that is one statement; see [`optimistic`].
//!
//! Other charges queue behind a batch, so it waits for locks only briefly; then it is rolled back, and made again charge
//! by charge. An organization whose counters somebody else holds does not stop the others.
//!
//! Two things can be found out too late, and then nothing of the batch is kept and it is made again: a counter that
//! does not exist yet (it is inserted first the next time, as a row that is not there cannot be locked), and an id that
//! another server stored meanwhile (charges with one id need not share a counter).

mod optimistic;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use lumoauth_core::{
    budget::{Account, COUNTERS, Line, Meter, Usage, Window, admits},
    clock::Timestamp,
    id::OrgId,
    store::{BudgetStore, Charge, Charged, StoreError},
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    PostgresStore,
    batcher::Work,
    pool::{End, Pool, Statement, Transaction},
    values::{from_millis, millis, whole},
};

use optimistic::{Memory, Seen, Shortcut};

const CHARGE: &str = "budgets.charge";
const USAGE: &str = "budgets.usage";

/// How often a batch is made again. Once for counters that did not exist; more only if ids are raced for.
const MAX_TRIES: u32 = 8;

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
    SELECT id.nth, charge.request_hash, charge.keep_until \
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
    INSERT INTO budget_charge (org_id, actor, key, request_hash, keep_until) \
    SELECT org_id, actor, key, request_hash, keep_until \
    FROM unnest($1::text[], $2::uuid[], $3::bytea[], $4::bytea[], $5::bigint[]) \
        WITH ORDINALITY AS id (org_id, actor, key, request_hash, keep_until, nth) \
    ORDER BY nth \
    ON CONFLICT DO NOTHING";

const SELECT_USED: &str = "\
    SELECT meter, window_kind, used FROM budget_counter \
    WHERE org_id = $1 AND owner = $2 AND generation = $3 \
        AND (meter, window_kind, window_start) IN (SELECT * FROM unnest($4::smallint[], $5::smallint[], $6::bigint[]))";

/// One charge, as it waits for its batch.
#[derive(Debug)]
pub(crate) struct Job {
    org: OrgId,
    lines: Vec<Line>,
    id: Option<Id>,
    now: Timestamp,
}

#[derive(Debug)]
struct Id {
    actor: Uuid,
    /// Any text; PostgreSQL's own texts cannot hold every one.
    key: Vec<u8>,
    request_hash: [u8; 32],
    keep_until: Timestamp,
}

#[async_trait]
impl BudgetStore for PostgresStore {
    async fn charge(&self, org: &OrgId, charge: &Charge<'_>, now: Timestamp) -> Result<Charged, StoreError> {
        let id = charge.id.map(|id| Id {
            actor: id.actor.uuid(),
            key: id.key.as_bytes().to_vec(),
            request_hash: id.request_hash,
            keep_until: id.keep_until,
        });
        let job = Job { org: org.clone(), lines: charge.lines.to_vec(), id, now };
        self.charges.submit(job).await
    }

    async fn usage(&self, org: &OrgId, account: Account, now: Timestamp) -> Result<Usage, StoreError> {
        let (meters, windows): (Vec<_>, Vec<_>) =
            COUNTERS.into_iter().map(|(meter, window)| (meter_code(meter), window_code(window))).unzip();
        let starts: Vec<_> = COUNTERS.into_iter().map(|(_, window)| millis(window.start(now))).collect();
        let rows = self
            .pool
            .repeatable(USAGE, || {
                sqlx::query(SELECT_USED)
                    .bind(org.as_str())
                    .bind(account.owner)
                    .bind(i64::from(account.generation))
                    .bind(&meters)
                    .bind(&windows)
                    .bind(&starts)
            })
            .await?;
        used_by(&rows).map_err(|error| StoreError::corrupt(USAGE, error))
    }
}

fn used_by(rows: &[PgRow]) -> Result<Usage, sqlx::Error> {
    let mut usage = Usage::default();
    for row in rows {
        let used = whole(row.try_get("used")?)?;
        let counter = (row.try_get::<i16, _>("meter")?, row.try_get::<i16, _>("window_kind")?);
        for (meter, window) in COUNTERS {
            if counter == (meter_code(meter), window_code(window)) {
                match meter {
                    Meter::Tokens => usage.tokens = used,
                    Meter::Calls => usage.calls = used,
                    Meter::MicroUsd => usage.micro_usd = used,
                }
            }
        }
    }
    Ok(usage)
}

/// As the schema documents it.
const fn meter_code(meter: Meter) -> i16 {
    match meter {
        Meter::Tokens => 1,
        Meter::Calls => 2,
        Meter::MicroUsd => 3,
    }
}

/// As the schema documents it.
const fn window_code(window: Window) -> i16 {
    match window {
        Window::Hour => 1,
        Window::Day => 2,
        Window::Month => 3,
    }
}

/// Makes batches of charges.
#[derive(Debug)]
pub(crate) struct Charges {
    pool: Pool,
    lock_timeout: String,
    memory: Mutex<Memory>,
}

impl Charges {
    /// How many batches may be under way at once. Batches with a counter in common would only wait for each other.
    pub(crate) const IN_FLIGHT: usize = 1;

    pub(crate) fn new(pool: Pool) -> Self {
        Self { lock_timeout: pool.short_lock_timeout(), pool, memory: Mutex::default() }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work for Charges {
    type Job = Job;
    type Answer = Charged;

    const OPERATION: &'static str = CHARGE;

    async fn carry_out(&self, jobs: &[Job]) -> Result<Vec<Charged>, StoreError> {
        let pool = self.pool.one_call();
        let recalled = self.memory().recall(jobs);
        if let Some(ledger) = recalled {
            match optimistic::attempt(&pool, jobs, ledger).await? {
                Shortcut::Made(answers, seen) => {
                    self.memory().learn(seen);
                    return Ok(answers);
                }
                Shortcut::Mistaken => self.memory().doubt(),
                Shortcut::Unfit => {}
            }
        }
        let mut counters = Counters::Exist;
        for _ in 0..MAX_TRIES {
            let batch = Batch { jobs, counters, lock_timeout: &self.lock_timeout };
            match pool.transaction_of_task(CHARGE, &batch).await? {
                Attempt::Made(answers, seen) => {
                    self.memory().learn(seen);
                    return Ok(answers);
                }
                Attempt::CountersMissing => counters = Counters::MayBeMissing,
                Attempt::IdsTaken => {}
            }
        }
        Err(StoreError::unavailable(CHARGE, "other servers always came first"))
    }

    fn lane(job: &Job) -> &str {
        job.org.as_str()
    }
}

/// What is known of the counters of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counters {
    Exist,
    MayBeMissing,
}

/// What became of a batch.
enum Attempt {
    /// It is made, and this is what its counters show now.
    Made(Vec<Charged>, Vec<Seen>),
    /// Not all of its counters exist; nothing changed.
    CountersMissing,
    /// Another server stored one of its ids meanwhile; nothing changed.
    IdsTaken,
}

/// One try.
struct Batch<'j> {
    jobs: &'j [Job],
    counters: Counters,
    lock_timeout: &'j str,
}

impl Transaction for Batch<'_> {
    type Answer = Attempt;

    async fn run(&self, connection: &mut PgConnection) -> Result<End<Attempt>, sqlx::Error> {
        let mut ledger = Ledger::of(self.jobs);
        if self.counters == Counters::MayBeMissing {
            ledger.insert_counters(connection, self.lock_timeout).await?;
        }
        if !ledger.lock_counters(connection, self.lock_timeout).await? {
            return Ok(End::RollBack(Attempt::CountersMissing));
        }
        ledger.find_ids(connection).await?;
        let answers = self.jobs.iter().map(|job| ledger.charge(job)).collect();
        if !ledger.store_ids(connection).await? {
            return Ok(End::RollBack(Attempt::IdsTaken));
        }
        ledger.store_counters(connection).await?;
        // If everything was refused, there is nothing to wait for a disk for.
        let made = Attempt::Made(answers, ledger.seen());
        Ok(if ledger.has_changed() { End::Commit(made) } else { End::RollBack(made) })
    }
}

/// The counters and ids of a batch: as they are stored, and then as the batch leaves them.
struct Ledger<'j> {
    counters: BTreeMap<CounterKey<'j>, Counter>,
    ids: BTreeMap<IdKey<'j>, Option<Known>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct CounterKey<'j> {
    org: &'j str,
    owner: Uuid,
    generation: i64,
    meter: i16,
    window_kind: i16,
    window_start: i64,
}

struct Counter {
    ends_at: i64,
    used: u64,
    changed: bool,
}

type IdKey<'j> = (&'j str, Uuid, &'j [u8]);

/// What is known of an id.
struct Known {
    request_hash: [u8; 32],
    keep_until: Timestamp,
    /// Until when the stored row says that it is kept, if there is one.
    stored: Option<i64>,
    /// Whether this batch stores it.
    new: bool,
}

impl<'j> CounterKey<'j> {
    fn of(org: &'j OrgId, line: &Line) -> Self {
        Self {
            org: org.as_str(),
            owner: line.account.owner,
            generation: i64::from(line.account.generation),
            meter: meter_code(line.meter),
            window_kind: window_code(line.window),
            window_start: millis(line.window_start),
        }
    }
}

impl<'j> Ledger<'j> {
    fn of(jobs: &'j [Job]) -> Self {
        let mut ledger = Self { counters: BTreeMap::new(), ids: BTreeMap::new() };
        for job in jobs {
            for line in &job.lines {
                let ends_at = millis(line.window.end(line.window_start));
                let counter = Counter { ends_at, used: 0, changed: false };
                ledger.counters.entry(CounterKey::of(&job.org, line)).or_insert(counter);
            }
            if let Some(id) = &job.id {
                ledger.ids.insert((job.org.as_str(), id.actor, &id.key), None);
            }
        }
        ledger
    }

    /// Decides one charge and counts it.
    fn charge(&mut self, job: &'j Job) -> Charged {
        let id = job.id.as_ref().map(|id| (id, (job.org.as_str(), id.actor, id.key.as_slice())));
        if let Some((id, key)) = &id
            && let Some(Some(known)) = self.ids.get(key)
            && job.now < known.keep_until
        {
            let same = known.request_hash == id.request_hash;
            return if same { Charged::Repeated } else { Charged::Conflict };
        }

        let mut after: BTreeMap<CounterKey<'j>, u64> = BTreeMap::new();
        let mut shown = Vec::with_capacity(job.lines.len());
        for (index, line) in job.lines.iter().enumerate() {
            let key = CounterKey::of(&job.org, line);
            // Two lines for one counter are against the contract; even then it is not oversold.
            let used = match after.entry(key) {
                Entry::Occupied(earlier) => earlier.into_mut(),
                Entry::Vacant(vacant) => {
                    vacant.insert(self.counters.get(&key).map_or(0, |counter| counter.used))
                }
            };
            if !admits(*used, line) {
                return Charged::Exceeded { line: index, used: *used };
            }
            *used = used.saturating_add(line.amount).min(CEILING);
            shown.push(*used);
        }
        for (key, used) in after {
            if let Some(counter) = self.counters.get_mut(&key)
                && counter.used != used
            {
                counter.used = used;
                counter.changed = true;
            }
        }
        if let Some((id, key)) = id {
            let known = self.ids.entry(key).or_default();
            let stored = known.as_ref().and_then(|known| known.stored);
            let (request_hash, keep_until) = (id.request_hash, id.keep_until);
            *known = Some(Known { request_hash, keep_until, stored, new: true });
        }
        Charged::Charged(shown)
    }
}

/// Reading and writing.
impl Ledger<'_> {
    async fn insert_counters(
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
    async fn lock_counters(
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

    async fn find_ids(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.ids.is_empty() {
            return Ok(());
        }
        let rows = sqlx::query(FIND_IDS)
            .bind(self.ids.keys().map(|(org, ..)| *org).collect::<Vec<_>>())
            .bind(self.ids.keys().map(|(_, actor, _)| *actor).collect::<Vec<_>>())
            .bind(self.ids.keys().map(|(.., key)| *key).collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
        let mut known: Vec<_> = self.ids.values_mut().collect();
        for row in rows {
            let nth = usize::try_from(row.try_get::<i64, _>("nth")?).unwrap_or_default();
            let request_hash: Vec<u8> = row.try_get("request_hash")?;
            let request_hash =
                request_hash.try_into().map_err(|_| sqlx::Error::Decode("not a hash".into()))?;
            let stored: i64 = row.try_get("keep_until")?;
            if let Some(known) = nth.checked_sub(1).and_then(|index| known.get_mut(index)) {
                let keep_until = from_millis(stored)?;
                **known = Some(Known { request_hash, keep_until, stored: Some(stored), new: false });
            }
        }
        Ok(())
    }

    /// Whether none of them was stored by another server meanwhile.
    async fn store_ids(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let new = self.new_ids();
        if new.is_empty() {
            return Ok(true);
        }
        let ended: Vec<_> = new.iter().filter_map(|(key, known)| Some((*key, known.stored?))).collect();
        if !ended.is_empty() {
            sqlx::query(DELETE_IDS)
                .bind(ended.iter().map(|((org, ..), _)| *org).collect::<Vec<_>>())
                .bind(ended.iter().map(|((_, actor, _), _)| *actor).collect::<Vec<_>>())
                .bind(ended.iter().map(|((.., key), _)| *key).collect::<Vec<_>>())
                .bind(ended.iter().map(|(_, keep_until)| *keep_until).collect::<Vec<_>>())
                .execute(&mut *connection)
                .await?;
        }
        let stored = sqlx::query(INSERT_IDS)
            .bind(new.iter().map(|((org, ..), _)| *org).collect::<Vec<_>>())
            .bind(new.iter().map(|((_, actor, _), _)| *actor).collect::<Vec<_>>())
            .bind(new.iter().map(|((.., key), _)| *key).collect::<Vec<_>>())
            .bind(new.iter().map(|(_, known)| known.request_hash.as_slice()).collect::<Vec<_>>())
            .bind(new.iter().map(|(_, known)| millis(known.keep_until)).collect::<Vec<_>>())
            .execute(connection)
            .await?;
        Ok(usize::try_from(stored.rows_affected()) == Ok(new.len()))
    }

    async fn store_counters(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let changed = || self.counters.iter().filter(|(_, counter)| counter.changed);
        let keys = Columns::of(changed().map(|(key, _)| key));
        if keys.is_empty() {
            return Ok(());
        }
        let used: Vec<_> = changed().map(|(_, counter)| counter.used.cast_signed()).collect();
        keys.bind_to(sqlx::query(UPDATE_COUNTERS)).bind(used).execute(connection).await?;
        Ok(())
    }

    /// The ids that this batch stores.
    fn new_ids(&self) -> Vec<(&IdKey<'_>, &Known)> {
        let ids = self.ids.iter();
        ids.filter_map(|(key, known)| Some((key, known.as_ref().filter(|known| known.new)?))).collect()
    }

    /// Whether there is anything to commit.
    fn has_changed(&self) -> bool {
        self.counters.values().any(|counter| counter.changed)
            || self.ids.values().flatten().any(|known| known.new)
    }
}

/// Keys of counters, column by column, as statements take them.
struct Columns<'j> {
    org: Vec<&'j str>,
    owner: Vec<Uuid>,
    generation: Vec<i64>,
    meter: Vec<i16>,
    window_kind: Vec<i16>,
    window_start: Vec<i64>,
}

impl<'j> Columns<'j> {
    fn of<'k>(keys: impl Iterator<Item = &'k CounterKey<'j>> + Clone) -> Self
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

    fn bind_to(self, statement: Statement) -> Statement {
        statement
            .bind(self.org)
            .bind(self.owner)
            .bind(self.generation)
            .bind(self.meter)
            .bind(self.window_kind)
            .bind(self.window_start)
    }
}

/// The most that a counter shows: what its column holds.
const CEILING: u64 = i64::MAX.unsigned_abs();
