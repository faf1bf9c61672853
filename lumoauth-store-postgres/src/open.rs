//! Opening the database: what is accepted, and what is refused and why.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use lumoauth_core::clock::SyncedClock;
use sqlx::{ConnectOptions, postgres::PgConnectOptions};

use crate::{
    audit::Appends,
    batcher::{Batcher, Patience},
    budgets::Charges,
    pool::Pool,
    schema::{self, KNOWN},
    sequencer::Sequencer,
};

/// How the store uses the database. The defaults suit one server of a few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// How many connections at most. Together with those of the other servers they must fit into PostgreSQL's
    /// `max_connections`.
    pub max_connections: u32,
    /// How long an operation waits for a connection before it fails as unavailable.
    pub acquire_timeout: Duration,
    /// How long PostgreSQL may work on one statement, and wait for one lock.
    pub statement_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 16,
            acquire_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(3),
        }
    }
}

impl Settings {
    /// The same with this many connections at most; at least 1.
    #[must_use]
    pub const fn with_max_connections(self, max_connections: u32) -> Self {
        Self { max_connections, ..self }
    }

    /// The same with this limit on waiting for a connection.
    #[must_use]
    pub const fn with_acquire_timeout(self, acquire_timeout: Duration) -> Self {
        Self { acquire_timeout, ..self }
    }

    /// The same with this limit on one statement; at least 1 ms.
    #[must_use]
    pub const fn with_statement_timeout(self, statement_timeout: Duration) -> Self {
        Self { statement_timeout, ..self }
    }

    /// How long an operation may take in all, repetitions included. A second more than the server has, so that its
    /// own answer comes first if it comes at all.
    pub(crate) fn operation_timeout(&self) -> Duration {
        self.acquire_timeout.saturating_add(self.statement_timeout).saturating_add(Duration::from_secs(1))
    }
}

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL is not one. What it says is not repeated, since it may hold a password.
    #[error("the URL of the database is not valid: {0}")]
    Url(&'static str),
    /// A newer version of this crate made the schema. Nothing was changed.
    #[error("the database has schema {found}, and this version knows {known} at most")]
    NewerSchema {
        /// Its schema.
        found: u32,
        /// The newest one that is known here.
        known: u32,
    },
    /// The schema is older, or there is none. Run `migrate` ([`PostgresStore::migrate`]) first.
    #[error("the database has schema {found}, and {known} is needed: run `migrate` first")]
    NeedsMigration {
        /// Its schema; 0 if it has none.
        found: u32,
        /// The one that is needed.
        known: u32,
    },
    /// PostgreSQL cannot be reached, or refused.
    #[error("cannot open the database")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What becomes of the events that the roles write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Events {
    /// They get numbers in the log of this database.
    Numbered,
    /// They wait until they are moved to a log elsewhere.
    Moved,
}

/// Every role on one PostgreSQL database.
///
/// Cloning is cheap; the clones share their connections.
///
/// As an [`Outbox`](lumoauth_core::store::Outbox) it has something to move only if it was opened by
/// [`PostgresStore::connect_with_outbox`]. Otherwise its events wait for their number in its own log, and nobody else
/// sees them or takes them away.
#[derive(Clone)]
pub struct PostgresStore {
    pub(crate) pool: Pool,
    pub(crate) appends: Batcher<Appends>,
    pub(crate) charges: Batcher<Charges>,
    pub(crate) clock: Arc<SyncedClock>,
    pub(crate) sequencer: Sequencer,
    pub(crate) events: Events,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Opens the database at `url` (`postgres://user:password@host:5432/database?sslmode=verify-full`).
    ///
    /// What the URL leaves out is taken from the environment (`PGHOST`, `PGPASSWORD`, ..) and from `~/.pgpass`, as
    /// `psql` does it.
    ///
    /// # Errors
    /// [`OpenError`] if PostgreSQL cannot be reached or its schema is not the one that this version works with.
    pub async fn connect(url: &str, settings: Settings) -> Result<Self, OpenError> {
        Self::open(url, settings, Events::Numbered).await
    }

    /// The same for a server whose audit log is kept elsewhere: events wait here until the server's maintenance has
    /// moved them, and what a log can do is refused
    /// ([`StoreErrorKind::Other`](lumoauth_core::store::StoreErrorKind)). Every server of this database must open it in
    /// the same way.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    /// use lumoauth_core::store::Stores;
    /// use lumoauth_store_postgres::{PostgresStore, Settings};
    ///
    /// # async fn open(url: &str, log_url: &str) -> Result<Stores, lumoauth_store_postgres::OpenError> {
    /// let records = Arc::new(PostgresStore::connect_with_outbox(url, Settings::default()).await?);
    /// let log = Arc::new(PostgresStore::connect(log_url, Settings::default()).await?);
    /// Ok(Stores {
    ///     audit: log.clone(),
    ///     outboxes: vec![records.clone()],
    ///     upkeep: vec![records.clone(), log],
    ///     ..Stores::all(records)
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`PostgresStore::connect`].
    pub async fn connect_with_outbox(url: &str, settings: Settings) -> Result<Self, OpenError> {
        Self::open(url, settings, Events::Moved).await
    }

    async fn open(url: &str, settings: Settings, events: Events) -> Result<Self, OpenError> {
        let pool = Pool::new(session(parse(url)?, &settings), settings);
        match schema::version(&pool).await? {
            found if found > KNOWN => return Err(OpenError::NewerSchema { found, known: KNOWN }),
            found if found < KNOWN => return Err(OpenError::NeedsMigration { found, known: KNOWN }),
            _ => {}
        }
        let patience = Patience { place: settings.acquire_timeout, batch: settings.operation_timeout() };
        let store = Self {
            appends: Batcher::start(Appends::new(pool.clone()), Appends::IN_FLIGHT, patience),
            charges: Batcher::start(Charges::new(pool.clone()), Charges::IN_FLIGHT, patience),
            clock: Arc::new(SyncedClock::new()),
            sequencer: Sequencer::new(pool.clone(), patience.batch),
            pool,
            events,
        };
        store.sync_clock().await.map_err(|error| OpenError::Database(Box::new(error)))?;
        Ok(store)
    }

    /// Brings the schema of the database at `url` up to date and returns how many steps that took. Does nothing if
    /// it is up to date. Any number of servers may call it at once; one does the work and the others wait.
    ///
    /// # Errors
    /// [`OpenError`] if PostgreSQL cannot be reached, refuses, or has a newer schema.
    pub async fn migrate(url: &str) -> Result<u32, OpenError> {
        schema::migrate(parse(url)?).await
    }
}

/// The parameters of a URL that mean something here. sqlx logs the others with their values, and a mistyped
/// `pasword=` should not end up in a log.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "options",
    "statement-cache-capacity",
];

fn parse(url: &str) -> Result<PgConnectOptions, OpenError> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(OpenError::Url("it must begin with `postgres://`"));
    }
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let mut names = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split('=').next());
    if !names.all(|name| name.is_some_and(|name| PARAMETERS.contains(&name))) {
        return Err(OpenError::Url("it has a parameter that is not known"));
    }
    let options = PgConnectOptions::from_str(url).map_err(|_| OpenError::Url("it cannot be parsed"))?;
    Ok(options.application_name("lumoauth").disable_statement_logging())
}

/// What every session is told. `synchronous_commit` is not left to the server's configuration: what was
/// acknowledged must survive a crash.
fn session(options: PgConnectOptions, settings: &Settings) -> PgConnectOptions {
    let millis = settings.statement_timeout.as_millis().clamp(1, MAX_MILLIS).to_string();
    options.options([
        ("synchronous_commit", "on"),
        ("default_transaction_isolation", "read committed"),
        ("statement_timeout", &millis),
        ("lock_timeout", &millis),
        ("idle_in_transaction_session_timeout", &millis),
        // Every statement of ours is a look-up by index, or reads one organization. A plan that was made while a table was
        // small would go on to read it whole when it has grown, until the next ANALYZE.
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
    ])
}

/// The most that PostgreSQL's settings take.
const MAX_MILLIS: u128 = 2_147_483_647;
