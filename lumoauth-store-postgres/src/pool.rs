//! Connections, and the only ways to use them: every wait is bounded, and what is known to have been rolled back is
//! tried again.
//!
//! This is a pool of our own because that of sqlx asks the server once more on every release, in a task without a
//! limit of time. Here:
//! 1. A connection is used again only after a call on it ended well, or failed in a way that leaves it in order. In
//!    every other case (lost, timed out, caller gone in the middle) it is dropped, which closes the socket without
//!    a word and without waiting.
//! 2. A lost connection takes the idle ones with it: they lead to the same server. What is idle for longer than
//!    [`TRUSTED`] is asked before it is used.
//! 3. After a lost connection the outcome of a change is unknown, so it is never repeated here; the caller gets
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

/// How often a call is tried again after a conflict with another one.
const MAX_RETRIES: u32 = 5;

/// Connections to one database.
#[derive(Clone)]
pub(crate) struct Pool {
    inner: Arc<Inner>,
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
        Self { inner: Arc::new(Inner { options, settings, permits, idle: Mutex::default() }) }
    }

    /// Runs one statement that changes something. It is repeated only if the server said that it was rolled back
    /// because of another one.
    pub(crate) async fn change(
        &self,
        operation: &'static str,
        statement: impl Fn() -> Statement + Send + Sync,
    ) -> Result<Vec<PgRow>, StoreError> {
        self.statement(Tries::new(self, operation, Repeat::Never), statement).await
    }

    /// Runs one statement that may as well run twice: one that only reads, or one whose repetition changes nothing
    /// and gives the same answer.
    pub(crate) async fn repeatable(
        &self,
        operation: &'static str,
        statement: impl Fn() -> Statement + Send + Sync,
    ) -> Result<Vec<PgRow>, StoreError> {
        self.statement(Tries::new(self, operation, Repeat::Once), statement).await
    }

    async fn statement(
        &self,
        mut tries: Tries,
        statement: impl Fn() -> Statement + Send + Sync,
    ) -> Result<Vec<PgRow>, StoreError> {
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
    ) -> Result<Vec<PgRow>, Failure> {
        // A caller that goes away in here drops the lease, and with it the connection.
        let mut lease = self.lease().await?;
        let answer = within(deadline, statement().fetch_all(&mut lease.connection)).await;
        match &answer {
            Err(failure) if !failure.connection_is_sound() => self.forget_idle(),
            _ => lease.give_back(),
        }
        answer
    }

    /// Runs `work` between `BEGIN` and its [`End`]. The whole of it has the time of one operation; it is repeated only if
    /// the server said that it was rolled back because of another one.
    pub(crate) async fn transaction<W: Transaction>(
        &self,
        operation: &'static str,
        work: &W,
    ) -> Result<W::Answer, StoreError> {
        let mut tries = Tries::new(self, operation, Repeat::Never);
        loop {
            match self.attempt_transaction(tries.deadline, work).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => tries.again(failure).await?,
            }
        }
    }

    async fn attempt_transaction<W: Transaction>(
        &self,
        deadline: Instant,
        work: &W,
    ) -> Result<W::Answer, Failure> {
        let mut lease = self.lease().await?;
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

    /// A connection for one caller, within the time that waiting for one may take.
    async fn lease(&self) -> Result<Lease, Failure> {
        let limit = self.inner.settings.acquire_timeout;
        let deadline = after(limit);
        let permit = timeout_at(deadline, Arc::clone(&self.inner.permits).acquire_owned())
            .await
            .map_err(|_| Failure::exhausted())?
            .map_err(|_| Failure::exhausted())?;
        // Half of the time, so that enough is left for a fresh one.
        if let Some(Idle { connection, born, .. }) = self.idle_and_alive(after(limit / 2)).await {
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
        let mut idle = self.idle().pop()?;
        if idle.since.elapsed() < TRUSTED
            || matches!(timeout_at(deadline, idle.connection.ping()).await, Ok(Ok(())))
        {
            return Some(idle);
        }
        self.forget_idle();
        None
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
            self.pool.idle().push(idle);
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
        let deadline = after(pool.inner.settings.operation_timeout());
        Self { operation, deadline, repeat, conflicts: 0 }
    }

    /// Waits as long as is wise before the next try.
    async fn again(&mut self, failure: Failure) -> Result<(), StoreError> {
        match failure.next() {
            Next::Conflict if self.conflicts < MAX_RETRIES && Instant::now() < self.deadline => {
                self.conflicts += 1;
                // 1, 2, 4 .. ms at most, of which a random part: callers that met once should not meet again.
                let [random] = random_bytes::<1>();
                let most = 1000_u64 << self.conflicts.min(6);
                tokio::time::sleep(Duration::from_micros(most * (u64::from(random) + 1) / 256)).await;
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

const BEGIN: &str = "BEGIN";
const COMMIT: &str = "COMMIT";
const ROLLBACK: &str = "ROLLBACK";
