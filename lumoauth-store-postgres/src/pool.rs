//! Connections, and the only ways to use them: every wait is bounded, and what is known to have been rolled back is
//! tried again.
//!
//! This is a pool of our own because that of sqlx asks the server once more on every release, in a task without a
//! limit of time. Here:
//! 1. A connection is used again only after a call on it ended well, or failed in a way that leaves it in order. In
//!    every other case (lost, timed out) it is dropped, which closes the socket without a word and without waiting.
//! 2. A caller that goes away gives up its place in the line, and nothing else: what it began (connecting, a statement, a
//!    transaction) goes on in a task that owns the connection and gives it back. Else callers that hang up would have
//!    every connection closed, and the others would wait for new ones. So a change whose caller went away may still
//!    be committed. There are never more such tasks than connections.
//! 3. A lost connection takes the idle ones with it: they lead to the same server. What is idle for longer than
//!    [`TRUSTED`] is asked before it is used.
//! 4. After a lost connection the outcome of a change is unknown, so it is never repeated here; the caller gets
//!    [`StoreErrorKind::Unavailable`](lumoauth_core::store::StoreErrorKind). What may be repeated says so by the
//!    method it calls and gets one more try on a fresh connection.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lumoauth_core::{random::random_bytes, store::StoreError};
use sqlx::{
    Connection, PgConnection, Postgres,
    postgres::{PgArguments, PgConnectOptions, PgRow},
    query::Query,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::{
    failure::{Failure, Next},
    open::Settings,
};

/// A statement with its arguments.
pub(crate) type Statement = Query<'static, Postgres, PgArguments>;

/// For how long an idle connection is believed to be alive. Servers that are busy never wait for the question;
/// the others do not notice that PostgreSQL was restarted.
const TRUSTED: Duration = Duration::from_secs(1);

/// After this time a connection is replaced, so that a server that moved to another address is found.
const LIFETIME: Duration = Duration::from_secs(1800);

/// After this time without use a connection is closed when another one is given back.
const UNUSED: Duration = Duration::from_secs(600);

/// How often a call is tried again after a conflict with another one.
const MAX_RETRIES: u32 = 5;

/// Connections to one database.
#[derive(Clone)]
pub(crate) struct Pool {
    inner: Arc<Inner>,
    /// When everything that is done through this handle has to be over; without it every operation has its own time.
    deadline: Option<Instant>,
}

struct Inner {
    options: PgConnectOptions,
    settings: Settings,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: PgConnection,
    born: Instant,
    since: Instant,
}

/// Not derived: the options show the password.
impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool without connections; the first call opens one.
    pub(crate) fn new(options: PgConnectOptions, settings: Settings) -> Self {
        let permits = usize::try_from(settings.max_connections.max(1)).unwrap_or(1);
        let permits = Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self { inner: Arc::new(Inner { options, settings, permits, idle: Mutex::default() }), deadline: None }
    }

    /// The same connections for one call of a role that takes several operations: together they have the time of one.
    pub(crate) fn one_call(&self) -> Self {
        Self { deadline: Some(self.deadline()), ..self.clone() }
    }

    /// When an operation that begins now has to be over.
    fn deadline(&self) -> Instant {
        self.deadline.unwrap_or_else(|| after(self.inner.settings.operation_timeout()))
    }

    /// How long work that others queue behind waits for a lock, as a value of `lock_timeout`: a sixth of what
    /// a statement may take, so that there is time to find out which of them has to wait.
    pub(crate) fn short_lock_timeout(&self) -> String {
        (self.inner.settings.statement_timeout / 6).as_millis().clamp(1, MAX_LOCK_TIMEOUT).to_string()
    }

    /// Runs one statement that changes something. It is repeated only if the server said that it was rolled back
    /// because of another one.
    pub(crate) async fn change(
        &self,
        operation: &'static str,
        statement: impl Fn() -> Statement + Send + Sync,
    ) -> Result<Vec<PgRow>, StoreError> {
        Ok(self.statement(Tries::new(self, operation, Repeat::Never), statement).await?.0)
    }

    /// Runs one statement that may as well run twice: one that only reads, or one whose repetition changes nothing
    /// and gives the same answer.
    pub(crate) async fn repeatable(
        &self,
        operation: &'static str,
        statement: impl Fn() -> Statement + Send + Sync,
    ) -> Result<Vec<PgRow>, StoreError> {
        Ok(self.measured(operation, statement).await?.0)
    }

    /// Like [`Pool::repeatable`], and how long the server took for the answer: without the wait for a connection.
    pub(crate) async fn measured(
        &self,
        operation: &'static str,
        statement: impl Fn() -> Statement + Send + Sync,
    ) -> Result<(Vec<PgRow>, Duration), StoreError> {
        self.statement(Tries::new(self, operation, Repeat::Once), statement).await
    }

    async fn statement(
        &self,
        mut tries: Tries,
        statement: impl Fn() -> Statement + Send + Sync,
    ) -> Result<(Vec<PgRow>, Duration), StoreError> {
        loop {
            match self.attempt(tries.deadline, &statement).await {
                Ok(rows) => return Ok(rows),
                Err(failure) => tries.again(failure).await?,
            }
        }
    }

    async fn attempt(
        &self,
        deadline: Instant,
        statement: &(impl Fn() -> Statement + Send + Sync),
    ) -> Result<(Vec<PgRow>, Duration), Failure> {
        let place = self.place(deadline).await?;
        let (pool, statement) = (self.clone(), statement());
        in_task(async move {
            let mut lease = pool.lease(place).await?;
            let asked = Instant::now();
            let answer = within(deadline, statement.fetch_all(&mut lease.connection)).await;
            let took = asked.elapsed();
            match &answer {
                Err(failure) if !failure.connection_is_sound() => pool.forget_idle(),
                _ => lease.give_back(),
            }
            answer.map(|rows| (rows, took))
        })
        .await
    }

    /// Runs `work` between `BEGIN` and its [`End`]. The whole of it has the time of one operation; it is repeated only if
    /// the server said that it was rolled back because of another one.
    pub(crate) async fn transaction<W>(
        &self,
        operation: &'static str,
        work: W,
    ) -> Result<W::Answer, StoreError>
    where
        W: Transaction + Send + 'static,
        W::Answer: 'static,
    {
        let work = Arc::new(work);
        let mut tries = Tries::new(self, operation, Repeat::Never);
        loop {
            let attempt = async {
                let place = self.place(tries.deadline).await?;
                let (pool, work, deadline) = (self.clone(), Arc::clone(&work), tries.deadline);
                in_task(async move { pool.attempt_transaction(place, deadline, &*work).await }).await
            };
            match attempt.await {
                Ok(answer) => return Ok(answer),
                Err(failure) => tries.again(failure).await?,
            }
        }
    }

    /// Like [`Pool::transaction`], with work that borrows. It is for callers that are tasks themselves: one that is dropped
    /// in the middle costs its connection.
    pub(crate) async fn transaction_of_task<W: Transaction>(
        &self,
        operation: &'static str,
        work: &W,
    ) -> Result<W::Answer, StoreError> {
        let mut tries = Tries::new(self, operation, Repeat::Never);
        loop {
            let attempt = async {
                let place = self.place(tries.deadline).await?;
                self.attempt_transaction(place, tries.deadline, work).await
            };
            match attempt.await {
                Ok(answer) => return Ok(answer),
                Err(failure) => tries.again(failure).await?,
            }
        }
    }

    async fn attempt_transaction<W: Transaction>(
        &self,
        place: Place,
        deadline: Instant,
        work: &W,
    ) -> Result<W::Answer, Failure> {
        let mut lease = self.lease(place).await?;
        let connection = &mut lease.connection;
        let answer = within(deadline, async {
            sqlx::raw_sql(BEGIN).execute(&mut *connection).await?;
            let (end, answer) = match work.run(&mut *connection).await? {
                End::Commit(answer) => (COMMIT, answer),
                End::RollBack(answer) => (ROLLBACK, answer),
            };
            sqlx::raw_sql(end).execute(connection).await?;
            Ok(answer)
        });
        let answer = answer.await;
        match &answer {
            Ok(_) => lease.give_back(),
            Err(failure) if failure.connection_is_sound() => {
                let rolled_back = within(deadline, sqlx::raw_sql(ROLLBACK).execute(&mut lease.connection));
                if rolled_back.await.is_ok() {
                    lease.give_back();
                }
            }
            Err(_) => self.forget_idle(),
        }
        answer
    }

    /// The right to a connection, for one caller. Whoever goes away while waiting for it changes nothing.
    async fn place(&self, deadline: Instant) -> Result<Place, Failure> {
        let deadline = deadline.min(after(self.inner.settings.acquire_timeout));
        let permit = timeout_at(deadline, Arc::clone(&self.inner.permits).acquire_owned())
            .await
            .map_err(|_| Failure::exhausted())?
            .map_err(|_| Failure::exhausted())?;
        Ok(Place { permit, deadline })
    }

    /// The connection, within the time that waiting for one may take.
    async fn lease(&self, place: Place) -> Result<Lease, Failure> {
        let Place { permit, deadline } = place;
        // Half of the time, so that enough is left for a fresh one.
        let half = deadline.min(after(self.inner.settings.acquire_timeout / 2));
        if let Some(Idle { connection, born, .. }) = self.idle_and_alive(half).await {
            return Ok(Lease { pool: self.clone(), connection, born, _permit: permit });
        }
        let connection = timeout_at(deadline, PgConnection::connect_with(&self.inner.options))
            .await
            .map_err(|_| Failure::connecting_timed_out())?
            .map_err(Failure::while_connecting)?;
        Ok(Lease { pool: self.clone(), connection, born: Instant::now(), _permit: permit })
    }

    /// The connection that was used last, if it is alive; else none of the idle ones is worth keeping.
    async fn idle_and_alive(&self, deadline: Instant) -> Option<Idle> {
        let mut idle = self.youthful()?;
        if idle.since.elapsed() < TRUSTED
            || matches!(timeout_at(deadline, idle.connection.ping()).await, Ok(Ok(())))
        {
            return Some(idle);
        }
        self.forget_idle();
        None
    }

    /// The connection that was used last, of those that are not too old.
    fn youthful(&self) -> Option<Idle> {
        loop {
            let idle = self.idle().pop()?;
            if idle.born.elapsed() < LIFETIME {
                return Some(idle);
            }
        }
    }

    /// How to connect, for the one connection that listens.
    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.inner.options
    }

    fn forget_idle(&self) {
        let forgotten = std::mem::take(&mut *self.idle());
        drop(forgotten);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to a connection, and until when it must be there.
struct Place {
    permit: OwnedSemaphorePermit,
    deadline: Instant,
}

/// A connection that one caller has. Dropped without [`Lease::give_back`], it is closed.
struct Lease {
    pool: Pool,
    connection: PgConnection,
    born: Instant,
    // Released last, so that whoever waits for it finds the connection.
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Lets others use the connection.
    fn give_back(self) {
        if self.born.elapsed() < LIFETIME {
            let idle = Idle { connection: self.connection, born: self.born, since: Instant::now() };
            let mut others = self.pool.idle();
            // The last one is taken first, so those that nobody needs gather at the front.
            let unused = others.iter().take_while(|other| other.since.elapsed() > UNUSED).count();
            let unused: Vec<_> = others.drain(..unused).collect();
            others.push(idle);
            drop(others);
            drop(unused);
        }
    }
}

/// What happens between `BEGIN` and `COMMIT`. A trait and not a closure, since the compiler cannot see that a future
/// of an asynchronous closure that borrows may move between threads.
pub(crate) trait Transaction: Sync {
    /// What comes out.
    type Answer: Send;

    /// Does it. If it fails, it is rolled back, and perhaps run again. An error of a statement must be passed on: after it
    /// PostgreSQL takes `COMMIT` for `ROLLBACK` without a word.
    fn run(
        &self,
        connection: &mut PgConnection,
    ) -> impl Future<Output = Result<End<Self::Answer>, sqlx::Error>> + Send;
}

/// How a transaction ends that did not fail.
#[derive(Debug)]
pub(crate) enum End<T> {
    /// What it did stays.
    Commit(T),
    /// It did nothing.
    RollBack(T),
}

/// Runs `work`, which goes on if the caller goes away. It has to bound its own time.
async fn in_task<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    tokio::spawn(work).await.unwrap_or_else(|_| Err(Failure::stopped()))
}

/// Waits for `work` until `deadline`.
async fn within<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, sqlx::Error>> + Send,
) -> Result<T, Failure> {
    timeout_at(deadline, work).await.map_err(|_| Failure::timed_out())?.map_err(Failure::of)
}

/// The instant at which a wait that begins now ends. A day is as good as for ever, and no instant is too far away.
fn after(limit: Duration) -> Instant {
    Instant::now() + limit.min(Duration::from_secs(86_400))
}

/// What may be done about a lost connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Never,
    Once,
}

/// How often and how long an operation is tried.
struct Tries {
    operation: &'static str,
    deadline: Instant,
    repeat: Repeat,
    conflicts: u32,
}

impl Tries {
    fn new(pool: &Pool, operation: &'static str, repeat: Repeat) -> Self {
        Self { operation, deadline: pool.deadline(), repeat, conflicts: 0 }
    }

    /// Waits as long as is wise before the next try.
    async fn again(&mut self, failure: Failure) -> Result<(), StoreError> {
        match failure.next() {
            Next::Conflict if self.conflicts < MAX_RETRIES => {
                self.conflicts += 1;
                // 1, 2, 4 .. ms at most, of which a random part: callers that met once should not meet again.
                let [random] = random_bytes::<1>();
                let most = 1000_u64 << self.conflicts.min(6);
                let wait = Duration::from_micros(most * (u64::from(random) + 1) / 256);
                if Instant::now() + wait >= self.deadline {
                    return Err(failure.into_store_error(self.operation));
                }
                tokio::time::sleep(wait).await;
                Ok(())
            }
            Next::Lost if self.repeat == Repeat::Once && Instant::now() < self.deadline => {
                self.repeat = Repeat::Never;
                Ok(())
            }
            _ => Err(failure.into_store_error(self.operation)),
        }
    }
}

/// The most that PostgreSQL takes, in milliseconds.
const MAX_LOCK_TIMEOUT: u128 = 2_147_483_647;

const BEGIN: &str = "BEGIN";
const COMMIT: &str = "COMMIT";
const ROLLBACK: &str = "ROLLBACK";
