//! The store: which one, how it is opened, and how it is put together of its backends.

mod url;

use std::{error::Error, fs, path::Path, sync::Arc, time::Duration};

use embedded_store::EmbeddedStore;
use lumoauth_core::{
    clock::{Clock, SyncedClock, SystemClock},
    store::{CacheConfig, Cached, ChangeFeed, MemoryStore, OrganizationStore, Stores},
};
use lumoauth_store_postgres::{OpenError as PostgresError, PostgresStore, Settings as PostgresSettings};
use lumoauth_store_redis::{OpenError as RedisError, RedisBudgets, RedisStore, Settings as RedisSettings};
use tokio::time::{Instant, sleep};

pub(crate) use self::url::{ServiceUrl, StoreUrl};
use crate::{config::PostgresConfig, failure::Failure, files::folder_of};

/// A store that answers.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Its backends, role by role.
    pub(crate) stores: Stores,
    /// The clock of the store, if it has one; replicas agree on the time by it.
    pub(crate) synced: Option<Arc<SyncedClock>>,
}

impl Opened {
    fn alone(stores: Stores) -> Self {
        Self { stores, synced: None }
    }

    /// The clock that the server reads.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        match &self.synced {
            Some(clock) => clock.clone(),
            None => Arc::new(SystemClock::new()),
        }
    }
}

impl StoreUrl {
    /// Opens it, and makes the file and its folder if it is a file and not there. A service that does not answer yet
    /// has half a minute to come up.
    ///
    /// # Errors
    /// [`Failure`] if it cannot be opened, for example because another process has the file, or because the tables
    /// of the database are not those of this version.
    pub(crate) async fn open(&self, config: &PostgresConfig) -> Result<Opened, Failure> {
        match self {
            Self::Memory => Ok(Opened::alone(Stores::all(Arc::new(MemoryStore::from_the_beginning())))),
            Self::Embedded(path) => open_embedded(path).map(Opened::alone),
            Self::Postgres { postgres, redis } => {
                let postgres = open_postgres(postgres, config).await?;
                let redis = match redis {
                    Some(redis) => Some(open_redis(redis).await?),
                    None => None,
                };
                if let Some(redis) = &redis {
                    let no_writes = |error| Failure::because("Redis takes no writes", error);
                    let memory = redis.memory().await.map_err(no_writes)?;
                    let organizations: &dyn OrganizationStore = &*postgres;
                    let first = organizations.list(None, 1).await;
                    // Before there is an organization there is nobody whom anything can be presented to.
                    if first.map_err(|error| Failure::because("PostgreSQL cannot be read", error))?.is_empty()
                    {
                        redis.nothing_came_before(&memory).await.map_err(no_writes)?;
                    }
                }
                Ok(compose(&postgres, redis))
            }
        }
    }

    /// Brings the tables up to this version, and tells how many steps that took. `None` for a store that has no tables
    /// of this kind.
    ///
    /// # Errors
    /// [`Failure`] if PostgreSQL does not answer or refuses, or if a newer version made the tables.
    pub(crate) async fn migrate(&self) -> Result<Option<u32>, Failure> {
        let Self::Postgres { postgres, .. } = self else { return Ok(None) };
        // Opening has a limit of seconds where migrating has one of minutes, so this is what waits for PostgreSQL.
        match connect_postgres(postgres, PostgresSettings::default()).await {
            Ok(_) => return Ok(Some(0)),
            Err(PostgresError::NeedsMigration { .. }) => {}
            Err(error) => return Err(unusable("PostgreSQL", postgres, error)),
        }
        let steps = PostgresStore::migrate(postgres.expose()).await;
        steps.map(Some).map_err(|error| unusable("PostgreSQL", postgres, error))
    }
}

fn open_embedded(path: &Path) -> Result<Stores, Failure> {
    let failed = || format!("the store `{}` cannot be opened", path.display());
    fs::create_dir_all(folder_of(path)).map_err(|error| Failure::because(failed(), error))?;
    let store = EmbeddedStore::open(path).map_err(|error| Failure::because(failed(), error))?;
    Ok(Stores::all(Arc::new(store)))
}

async fn open_postgres(url: &ServiceUrl, config: &PostgresConfig) -> Result<Arc<PostgresStore>, Failure> {
    let mut settings = PostgresSettings::default();
    if let Some(max) = config.max_connections {
        settings = settings.with_max_connections(max);
    }
    if let Some(limit) = config.acquire_timeout {
        settings = settings.with_acquire_timeout(limit);
    }
    if let Some(limit) = config.statement_timeout {
        settings = settings.with_statement_timeout(limit);
    }
    let opened = connect_postgres(url, settings).await;
    opened.map(Arc::new).map_err(|error| unusable("PostgreSQL", url, error))
}

async fn connect_postgres(
    url: &ServiceUrl,
    settings: PostgresSettings,
) -> Result<PostgresStore, PostgresError> {
    let may_come_up = |error: &PostgresError| matches!(error, PostgresError::Database(_));
    patiently(START, "PostgreSQL", url, may_come_up, async || {
        PostgresStore::connect(url.expose(), settings).await
    })
    .await
}

async fn open_redis(url: &ServiceUrl) -> Result<Arc<RedisStore>, Failure> {
    let may_come_up = |error: &RedisError| matches!(error, RedisError::Connection(_));
    let open = async || RedisStore::connect(url.expose(), RedisSettings::default()).await;
    let opened = patiently(START, "Redis", url, may_come_up, open).await;
    opened.map(Arc::new).map_err(|error| unusable("Redis", url, error))
}

/// PostgreSQL holds everything, and Redis, if there is one, the roles whose loss is safe. Records that every request
/// needs are kept for a second; what changes them on another replica comes over the faster of the two.
fn compose(postgres: &Arc<PostgresStore>, redis: Option<Arc<RedisStore>>) -> Opened {
    let all = Stores::all(postgres.clone());
    let (stores, feed): (Stores, Arc<dyn ChangeFeed>) = match redis {
        None => (all, postgres.changes()),
        Some(redis) => {
            let stores = Stores {
                budgets: Arc::new(RedisBudgets::new(&redis, postgres.clone())),
                replay: redis.clone(),
                rate_limits: redis.clone(),
                upkeep: vec![postgres.clone(), redis.clone()],
                ..all
            };
            (stores, redis)
        }
    };
    let stores = Cached::over(stores, &CacheConfig::default(), Some(feed));
    Opened { stores, synced: Some(postgres.clock()) }
}

/// Tries again for a while if the service does not answer: containers start in any order.
async fn patiently<T, E: Error + 'static>(
    patience: Duration,
    service: &str,
    url: &ServiceUrl,
    may_come_up: impl Fn(&E) -> bool,
    open: impl AsyncFn() -> Result<T, E>,
) -> Result<T, E> {
    let deadline = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        match open().await {
            Err(error) if may_come_up(&error) && Instant::now() + pause < deadline => {
                let error = &error as &dyn Error;
                tracing::warn!(error, place = url.place(), "{service} does not answer yet; trying again");
            }
            done => return done,
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

fn unusable(service: &str, url: &ServiceUrl, error: impl Error + Send + Sync + 'static) -> Failure {
    Failure::because(format!("{service} at `{}` cannot be used", url.place()), error)
}

/// How long a service may take to come up after the server has asked for it first.
const START: Duration = Duration::from_secs(30);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Refusal {
        #[error("not yet")]
        Passing,
        #[error("never")]
        Final,
    }

    /// How often it was tried, and what came of it in the end.
    async fn open_after(
        failures: u32,
        last: Result<(), Refusal>,
        patience: Duration,
    ) -> (u32, Result<(), Refusal>) {
        let Ok(StoreUrl::Postgres { postgres, .. }) = "postgres://h/d".parse() else { panic!("a url") };
        let (tries, last) = (Cell::new(0), Cell::new(Some(last)));
        let passing = |error: &Refusal| matches!(error, Refusal::Passing);
        let done = patiently(patience, "It", &postgres, passing, async || {
            tries.set(tries.get() + 1);
            if tries.get() > failures { last.take().unwrap() } else { Err(Refusal::Passing) }
        });
        let done = done.await;
        (tries.get(), done)
    }

    #[tokio::test]
    async fn a_service_has_some_time_to_come_up() {
        assert!(matches!(open_after(2, Ok(()), START).await, (3, Ok(()))));
        assert!(matches!(open_after(1, Err(Refusal::Final), START).await, (2, Err(Refusal::Final))));
        let begin = Instant::now();
        let patience = Duration::from_millis(250);
        assert!(matches!(open_after(9, Ok(()), patience).await, (2, Err(Refusal::Passing))));
        assert!(begin.elapsed() < patience);
    }

    #[tokio::test]
    async fn stores_of_one_process_need_no_migration() {
        assert!(matches!(StoreUrl::Memory.migrate().await, Ok(None)));
    }
}
