//! Telling other servers what changed: LISTEN and NOTIFY.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use lumoauth_core::store::{Change, ChangeFeed, Notice, StoreError};
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::{runtime::Handle, sync::Mutex, time::timeout};

use crate::{PostgresStore, pool::Pool};

const PUBLISH: &str = "changes.publish";
const NEXT: &str = "changes.next";

const CHANNEL: &str = "lumoauth_changes";

const NOTIFY: &str = "SELECT pg_notify('lumoauth_changes', $1)";

/// After so long without a word the server is asked whether it is still there.
const QUIET: Duration = Duration::from_secs(10);

/// How long connecting, and the answer to that question, may take.
const PATIENCE: Duration = Duration::from_secs(3);

impl PostgresStore {
    /// The way to tell the servers on this database what changed, and to hear it from them. Listening takes one
    /// connection of its own, which is opened by the first call to [`ChangeFeed::next`].
    pub fn changes(&self) -> Arc<dyn ChangeFeed> {
        Arc::new(Changes { pool: self.pool.clone(), listening: Mutex::default() })
    }
}

struct Changes {
    pool: Pool,
    listening: Mutex<Option<Listening>>,
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

#[async_trait]
impl ChangeFeed for Changes {
    async fn publish(&self, change: &Change) -> Result<(), StoreError> {
        let text = serde_json::to_string(change).map_err(|error| StoreError::other(PUBLISH, error))?;
        self.pool.repeatable(PUBLISH, || sqlx::query(NOTIFY).bind(&text)).await?;
        Ok(())
    }

    async fn next(&self) -> Result<Notice, StoreError> {
        let mut listening = self.listening.lock().await;
        let Some(connected) = listening.as_mut() else {
            *listening = Some(Listening::start(&self.pool).await?);
            return Ok(Notice::Gap);
        };
        let heard = connected.hear().await;
        if heard.is_err() {
            *listening = None;
        }
        heard
    }
}

/// A connection that listens.
struct Listening {
    listener: Option<PgListener>,
    runtime: Handle,
}

impl Listening {
    async fn start(pool: &Pool) -> Result<Self, StoreError> {
        let listen = async {
            // The listener takes its connection from a pool. This one is its own and never has another.
            let only = PgPoolOptions::new()
                .max_connections(1)
                .acquire_timeout(PATIENCE)
                .idle_timeout(None)
                .max_lifetime(None)
                .connect_lazy_with(pool.options().clone());
            let mut listener = PgListener::connect_with(&only).await?;
            // It must not connect again by itself: what was missed meanwhile has to be told.
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok(listener)
        };
        let listener = within(PATIENCE, listen).await?;
        Ok(Self { listener: Some(listener), runtime: Handle::current() })
    }

    async fn hear(&mut self) -> Result<Notice, StoreError> {
        let lost = || StoreError::unavailable(NEXT, "the connection that listens is lost");
        let listener = self.listener.as_mut().ok_or_else(lost)?;
        loop {
            match timeout(QUIET, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    let change = serde_json::from_str(notification.payload());
                    return Ok(change.map_or(Notice::Gap, Notice::Changed));
                }
                Ok(Ok(None)) => return Err(lost()),
                Ok(Err(error)) => return Err(StoreError::unavailable(NEXT, error)),
                // What arrives together with this answer is kept for the next turn.
                Err(_) => {
                    within(PATIENCE, sqlx::query("SELECT 1").execute(&mut *listener)).await.map(drop)?
                }
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // A listener says goodbye in a task, which needs a runtime, also where there is none.
        let _inside = self.runtime.enter();
        self.listener = None;
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match timeout(limit, work).await {
        Ok(done) => done.map_err(|error| StoreError::unavailable(NEXT, error)),
        Err(_) => Err(StoreError::unavailable(NEXT, "no answer in time")),
    }
}
