//! Batches of charges and of resolutions, each of them one transaction under READ COMMITTED:
//! 1. The counters are locked in the order of their keys, so that two servers cannot wait for each other. From then
//!    on nobody else changes them. A resolution brings the lines of its hold, so its counters are among them.
//! 2. The ids are looked up, and everything is decided in the order of arrival by core's pure functions, each job
//!    seeing what those before it in the batch did; see [`Ledger`].
//! 3. What was decided is written: new ids with an insert, holds that changed with an update, counters with another.
//!
//! Where no other server charges the same counters, all of that is one statement; see [`optimistic`].
//!
//! Other calls queue behind a batch, so it waits for locks only briefly; then it is rolled back, and made again call
//! by call. An organization whose counters somebody else holds does not stop the others.
//!
//! Two things can be found out too late, and then nothing of the batch is kept and it is made again: a counter that
//! does not exist yet (it is inserted first the next time, as a row that is not there cannot be locked), and an id that
//! another server stored meanwhile, or a hold that it resolved (those who name one id need not share a counter).

use std::sync::{Mutex, MutexGuard, PoisonError};

use lumoauth_core::{
    budget::{HeldLine, Line, Resolution},
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{Charged, Resolved, StoreError},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    CHARGE,
    ledger::{Ledger, Promise},
    optimistic::{self, Memory, Seen, Shortcut},
};
use crate::{
    batcher::Work,
    pool::{End, Pool, Transaction},
};

/// How often a batch is made again. Once for counters that did not exist; more only if ids are raced for.
const MAX_TRIES: u32 = 8;

/// One call, as it waits for its batch.
#[derive(Debug)]
pub(crate) struct Job {
    pub(super) org: OrgId,
    pub(super) ask: Ask,
    pub(super) now: Timestamp,
}

/// What a call wants.
#[derive(Debug)]
pub(super) enum Ask {
    /// To count every line, or none.
    Charge { id: Option<(Id, Promise)>, lines: Vec<Line> },
    /// To have something become of a hold.
    Resolve { id: Option<Id>, lines: Vec<HeldLine>, resolution: Resolution },
}

/// Whose id, and its text.
#[derive(Debug)]
pub(super) struct Id {
    pub(super) actor: Uuid,
    /// Any text; PostgreSQL's own texts cannot hold every one.
    pub(super) key: Vec<u8>,
}

impl Id {
    pub(super) fn of(actor: AgentId, key: &str) -> Self {
        Self { actor: actor.uuid(), key: key.as_bytes().to_vec() }
    }
}

/// What a call gets: that of its own kind.
#[derive(Debug)]
pub(crate) enum Answer {
    Charged(Charged),
    Resolved(Resolved),
}

/// Makes batches.
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
    type Answer = Answer;

    const OPERATION: &'static str = CHARGE;

    async fn carry_out(&self, jobs: &[Job]) -> Result<Vec<Answer>, StoreError> {
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
    Made(Vec<Answer>, Vec<Seen>),
    /// Not all of its counters exist; nothing changed.
    CountersMissing,
    /// Another server stored or resolved one of its ids meanwhile; nothing changed.
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
        let answers = ledger.decide(self.jobs)?;
        if !ledger.store_ids(connection).await? || !ledger.store_holds(connection).await? {
            return Ok(End::RollBack(Attempt::IdsTaken));
        }
        ledger.store_counters(connection).await?;
        // If everything was refused, there is nothing to wait for a disk for.
        let made = Attempt::Made(answers, ledger.seen());
        Ok(if ledger.has_changed() { End::Commit(made) } else { End::RollBack(made) })
    }
}
