//! Connecting, and what is demanded of the server.

use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::time::Duration;

use redis::{
    ConnectionInfo, ErrorKind, ProtocolVersion, ServerErrorKind, Value, aio::ConnectionManager,
    cluster::ClusterClientBuilder, cmd,
};
use tokio::time::timeout;

use crate::{
    Inner, RedisStore, Settings,
    changes::Feed,
    connection::{Connection, Link},
    error::Failure,
    single::{self, Single},
    url,
};

/// How long what was sent may stay unacknowledged by the other machine before the connection counts as broken. Otherwise a
/// machine that is gone without a word holds the connection for a quarter of an hour.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

/// Why a [`RedisStore`] cannot be opened. It never contains the URL or a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The text is no URL of the form that [`RedisStore::connect`] takes.
    #[error(
        "the Redis URL is not of the form redis://[[user]:password@]host[:port][,host[:port]..][/database]"
    )]
    Url,
    /// Several hosts are given, and they are no cluster.
    #[error(
        "several Redis hosts are given, which is for the nodes of a cluster, and this one is in no cluster"
    )]
    NoCluster,
    /// A server may evict keys: replay marks would be forgotten before their time.
    #[error("the maxmemory-policy of Redis is `{policy}`, and must be `noeviction`")]
    Eviction {
        /// Its policy.
        policy: String,
    },
    /// Whether a server may evict keys cannot be found out.
    #[error(
        "the maxmemory-policy of Redis cannot be read: its user may run neither CONFIG GET nor INFO memory on every server"
    )]
    UnknownEviction,
    /// No host answers as a Redis server that accepts the credentials.
    #[error("Redis cannot be used: {0}")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> Self {
        Self::Connection(failure.into())
    }
}

pub(crate) async fn open(url: &str, settings: Settings) -> Result<RedisStore, OpenError> {
    let mut hosts = url::hosts(url).ok_or(OpenError::Url)?;
    if url.starts_with("rediss://") {
        // The client takes the provider of the process. If the host has installed one, that one stays.
        let _ = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
    // With this protocol the client hears that a connection broke, and makes a new one before it is needed.
    for host in &mut hosts {
        let redis = host.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        *host = host.clone().set_redis_settings(redis);
        #[cfg(target_os = "linux")]
        {
            let tcp = host.tcp_settings().clone().set_user_timeout(UNACKNOWLEDGED);
            *host = host.clone().set_tcp_settings(tcp);
        }
    }
    let (first, is_cluster) = first_to_answer(&hosts, settings).await?;
    let link = match (is_cluster, &hosts[..]) {
        (true, _) => Link::Cluster(cluster(&hosts, settings).await?),
        (false, [host]) => Link::Single(Arc::new(Single::new(host.clone(), settings, first))),
        (false, _) => return Err(OpenError::NoCluster),
    };
    let connection = Connection { link, response_timeout: settings.response_timeout };
    refuse_eviction(&connection).await?;
    let feed = Feed::new(hosts, settings);
    let store = RedisStore(Arc::new(Inner { connection, feed }));
    store.begin_to_remember().await?;
    Ok(store)
}

async fn first_to_answer(
    hosts: &[ConnectionInfo],
    settings: Settings,
) -> Result<(ConnectionManager, bool), OpenError> {
    let mut why = Failure::TimedOut;
    for host in hosts {
        match single(host, settings).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => why = failure,
        }
    }
    Err(why.into())
}

async fn single(host: &ConnectionInfo, settings: Settings) -> Result<(ConnectionManager, bool), Failure> {
    let mut link = single::connect(host, settings).await?;
    let info: String = cmd("INFO").arg("cluster").query_async(&mut link).await?;
    let is_cluster = info.lines().any(|line| line.trim() == "cluster_enabled:1");
    Ok((link, is_cluster))
}

async fn cluster(
    hosts: &[ConnectionInfo],
    settings: Settings,
) -> Result<redis::cluster_async::ClusterConnection, Failure> {
    let client = ClusterClientBuilder::new(hosts.iter().cloned())
        // A retried command could be carried out twice. What is safe to send again, `Connection::call` does.
        .retries(0)
        .use_protocol(ProtocolVersion::RESP3)
        .connection_timeout(settings.connect_timeout)
        .response_timeout(settings.response_timeout)
        .overall_response_timeout(Some(settings.response_timeout))
        .build()?;
    let connect = client.get_async_connection();
    Ok(timeout(settings.connect_timeout * 2, connect).await.map_err(|_| Failure::TimedOut)??)
}

/// Fails unless every server that takes writes keeps what it has.
pub(crate) async fn refuse_eviction(connection: &Connection) -> Result<(), OpenError> {
    let questions =
        [cmd("INFO").arg("memory").to_owned(), cmd("CONFIG").arg("GET").arg("maxmemory-policy").to_owned()];
    for question in questions {
        let answer = match connection.ask_every_master(&question).await {
            Ok(answer) => answer,
            Err(Failure::Redis {
                kind:
                    ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::ResponseError)
                    | ErrorKind::Extension,
                ..
            }) => continue,
            Err(failure) => return Err(failure.into()),
        };
        let answers = match (&connection.link, answer) {
            (Link::Cluster(_), Value::Map(nodes)) => nodes.into_iter().map(|(_, answer)| answer).collect(),
            (_, answer) => vec![answer],
        };
        let policies: Option<Vec<String>> = answers.iter().map(policy).collect();
        match policies {
            Some(policies) if !policies.is_empty() => {
                let evicting = policies.into_iter().find(|policy| policy != "noeviction");
                return evicting.map_or(Ok(()), |policy| Err(OpenError::Eviction { policy }));
            }
            _ => {}
        }
    }
    Err(OpenError::UnknownEviction)
}

/// The policy in an answer to `CONFIG GET maxmemory-policy` or `INFO memory`.
fn policy(answer: &Value) -> Option<String> {
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    };
    match answer {
        Value::Map(pairs) => pairs.first().and_then(|(_, policy)| text(policy)),
        Value::Array(pair) => pair.get(1).and_then(text),
        info => text(info)?
            .lines()
            .find_map(|line| line.strip_prefix("maxmemory_policy:"))
            .map(|policy| policy.trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_read_from_both_answers() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let pair = (bulk("maxmemory-policy"), bulk("allkeys-lru"));
        assert_eq!(policy(&Value::Map(vec![pair.clone()])).as_deref(), Some("allkeys-lru"));
        assert_eq!(policy(&Value::Array(vec![pair.0, pair.1])).as_deref(), Some("allkeys-lru"));
        let info = bulk("# Memory\r\nused_memory:1\r\nmaxmemory_policy:noeviction\r\n");
        assert_eq!(policy(&info).as_deref(), Some("noeviction"));
        for unknown in [Value::Nil, Value::Map(vec![]), Value::Array(vec![]), bulk("# Memory\r\n")] {
            assert_eq!(policy(&unknown), None);
        }
    }

    #[tokio::test]
    async fn an_error_does_not_show_the_password() {
        for url in ["redis://u:secret@127.0.0.1:1/0", "redis://u:secret@h:port", "secret"] {
            let error = RedisStore::connect(url, Settings::default()).await.unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
    }
}
