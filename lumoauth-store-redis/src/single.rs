//! The connection to one server, whose address may begin to lead to another one.

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use redis::{
    Client, ConnectionInfo, ErrorKind, RedisError, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{Settings, error::Failure};

/// How many commands may wait to be written.
const QUEUE: usize = 1024;

/// How often a new connection is tried at most, while what the address leads to takes no writes.
const EVERY: Duration = Duration::from_millis(100);

/// A connection that is replaced when its server turns out to be a replica. The client makes a new one only when the
/// old one breaks, and a master that was demoted keeps its connections.
pub(crate) struct Single {
    host: ConnectionInfo,
    settings: Settings,
    current: RwLock<Numbered>,
    /// When a new connection was last tried. Whoever holds this tries.
    tried: Mutex<Option<Instant>>,
}

/// A connection, and how many there were before it.
#[derive(Clone)]
pub(crate) struct Numbered {
    pub(crate) link: ConnectionManager,
    number: u64,
}

impl Single {
    pub(crate) fn new(host: ConnectionInfo, settings: Settings, link: ConnectionManager) -> Self {
        let current = RwLock::new(Numbered { link, number: 0 });
        Self { host, settings, current, tried: Mutex::new(None) }
    }

    pub(crate) fn current(&self) -> Numbered {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the address again, since the server behind `refused` takes no writes. Whether there is another connection
    /// now; what it leads to is for the next call to find out.
    pub(crate) async fn replace(&self, refused: &Numbered) -> bool {
        let mut tried = self.tried.lock().await;
        if self.current().number != refused.number {
            return true;
        }
        if tried.is_some_and(|at| at.elapsed() < EVERY) {
            return false;
        }
        *tried = Some(Instant::now());
        match connect(&self.host, self.settings).await {
            Ok(link) => {
                let new = Numbered { link, number: refused.number + 1 };
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
                true
            }
            Err(failure) => {
                tracing::debug!(%failure, "Redis takes no writes, and no other server is found at its address");
                false
            }
        }
    }
}

pub(crate) async fn connect(host: &ConnectionInfo, settings: Settings) -> Result<ConnectionManager, Failure> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(settings.connect_timeout))
        .set_response_timeout(Some(settings.response_timeout))
        .set_pipeline_buffer_size(QUEUE)
        // These are retries of connecting, not of commands.
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(Duration::from_millis(100))
        .set_number_of_retries(6);
    let connect = ConnectionManager::new_with_config(Client::open(host.clone())?, config);
    Ok(timeout(settings.connect_timeout, connect).await.map_err(|_| Failure::TimedOut)??)
}

/// Whether a server refused a call, without having carried it out, because it is a replica.
pub(crate) fn is_of_a_replica(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => true,
        // Redis 6 wraps what a script runs into.
        ErrorKind::Server(ServerErrorKind::ResponseError) => error
            .detail()
            .is_some_and(|detail| detail.contains("-READONLY ") || detail.contains("-MASTERDOWN ")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> RedisError {
        let (code, detail) = text.split_once(' ').unwrap();
        redis::make_extension_error(code.into(), Some(detail.into()))
    }

    #[test]
    fn a_replica_is_told_by_its_refusals() {
        for text in
            ["MASTERDOWN Link with MASTER is down.", "READONLY You can't write against a read only replica."]
        {
            let (code, detail) = text.split_once(' ').unwrap();
            let kind =
                if code == "READONLY" { ServerErrorKind::ReadOnly } else { ServerErrorKind::MasterDown };
            let error = RedisError::from((ErrorKind::Server(kind), "refused", detail.to_owned()));
            assert!(is_of_a_replica(&error), "{text}");
        }
        let wrapped =
            "Error running script: @user_script:12: -READONLY You can't write against a read only replica.";
        let error = RedisError::from((
            ErrorKind::Server(ServerErrorKind::ResponseError),
            "refused",
            wrapped.to_owned(),
        ));
        assert!(is_of_a_replica(&error));
        assert!(!is_of_a_replica(&said("OOM command not allowed when used memory > 'maxmemory'.")));
    }
}
