#![doc = include_str!("../README.md")]

mod budgets;
mod changes;
mod connection;
mod error;
mod keys;
mod open;
mod rate_limits;
mod replay;
mod script;
mod single;
mod upkeep;
mod url;

use std::{fmt, sync::Arc, time::Duration};

use connection::Connection;

pub use budgets::RedisBudgets;
pub use open::OpenError;
pub use replay::Memory;

/// How long a [`RedisStore`] waits.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// For a connection to be made. 1 s unless set.
    pub connect_timeout: Duration,
    /// For the answer to one operation. 1 s unless set.
    pub response_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(1), response_timeout: Duration::from_secs(1) }
    }
}

/// The roles whose loss is safe, on one Redis server or on a Redis Cluster.
///
/// It is cheap to clone; all clones share one connection per server. Keys and the channel of the notices have no prefix
/// of a deployment: each deployment has a Redis, or a cluster, of its own.
#[derive(Clone)]
pub struct RedisStore(Arc<Inner>);

struct Inner {
    connection: Connection,
    feed: changes::Feed,
}

impl RedisStore {
    /// Connects to the server at `url`, or to the cluster that it is a part of.
    ///
    /// The URL has the form `redis://[[user]:password@]host[:port][,host[:port]..][/database]`, or `rediss://` for
    /// TLS. Several hosts are nodes of one cluster, any of which may be down. Whether it is a cluster is asked, not
    /// configured.
    ///
    /// # Errors
    /// [`OpenError`] if the URL cannot be read, no host answers, or a server may evict keys (its `maxmemory-policy`
    /// is not `noeviction`, or cannot be asked for).
    pub async fn connect(url: &str, settings: Settings) -> Result<Self, OpenError> {
        open::open(url, settings).await
    }

    fn connection(&self) -> &Connection {
        &self.0.connection
    }
}

/// Without addresses and passwords.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("connection", &self.0.connection).finish_non_exhaustive()
    }
}
