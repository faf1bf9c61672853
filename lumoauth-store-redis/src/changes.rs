//! Change notices over pub/sub.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use futures_util::StreamExt;
use lumoauth_core::store::{Change, ChangeFeed, Notice, StoreError};
use redis::{
    Client, ConnectionInfo, Msg, ProtocolVersion,
    aio::{PubSubSink, PubSubStream},
    cmd,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout, timeout_at},
};

use crate::{RedisStore, Settings, error::Failure, keys};

/// How often a silent connection is asked whether it lives.
const SILENCE: Duration = Duration::from_secs(5);

/// Where notices come in, over a connection of its own that is made at first use.
pub(crate) struct Feed {
    hosts: Vec<ConnectionInfo>,
    settings: Settings,
    listener: Mutex<Option<Listener>>,
}

struct Listener {
    sink: PubSubSink,
    stream: PubSubStream,
    /// When to ask whether the connection lives. Kept here, since the caller may give up waiting at any time.
    ask_at: Instant,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl Feed {
    pub(crate) fn new(hosts: Vec<ConnectionInfo>, settings: Settings) -> Self {
        Self { hosts, settings, listener: Mutex::new(None) }
    }

    async fn listen(&self) -> Result<Listener, Failure> {
        let mut why = Failure::TimedOut;
        for host in &self.hosts {
            let limit = self.settings.connect_timeout + self.settings.response_timeout;
            match timeout(limit, listen_at(host)).await {
                Ok(Ok(listener)) => return Ok(listener),
                Ok(Err(failure)) => why = failure,
                Err(_) => why = Failure::TimedOut,
            }
        }
        Err(why)
    }

    async fn next(&self) -> Result<Notice, Failure> {
        let mut slot = self.listener.lock().await;
        let Some(listener) = slot.as_mut() else {
            *slot = Some(self.listen().await?);
            return Ok(Notice::Gap);
        };
        match listener.next(self.settings.response_timeout).await {
            Ok(message) => Ok(read(&message)),
            Err(failure) => {
                *slot = None;
                Err(failure)
            }
        }
    }
}

async fn listen_at(host: &ConnectionInfo) -> Result<Listener, Failure> {
    // A pub/sub connection of this client speaks the older protocol.
    let redis = host.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
    let (mut sink, stream) =
        Client::open(host.clone().set_redis_settings(redis))?.get_async_pubsub().await?.split();
    sink.subscribe(keys::CHANGES).await?;
    Ok(Listener { sink, stream, ask_at: Instant::now() + SILENCE })
}

impl Listener {
    async fn next(&mut self, response_timeout: Duration) -> Result<Msg, Failure> {
        loop {
            match timeout_at(self.ask_at, self.stream.next()).await {
                Ok(Some(message)) => {
                    self.ask_at = Instant::now() + SILENCE;
                    return Ok(message);
                }
                Ok(None) => {
                    let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                    return Err(redis::RedisError::from(broken).into());
                }
                // Messages that arrive meanwhile wait in the stream.
                Err(_) => {
                    let pong = timeout(response_timeout, self.sink.ping::<redis::Value>()).await;
                    pong.map_err(|_| Failure::TimedOut)??;
                    self.ask_at = Instant::now() + SILENCE;
                }
            }
        }
    }
}

fn read(message: &Msg) -> Notice {
    serde_json::from_slice(message.get_payload_bytes()).map_or(Notice::Gap, Notice::Changed)
}

#[async_trait]
impl ChangeFeed for RedisStore {
    async fn publish(&self, change: &Change) -> Result<(), StoreError> {
        let text =
            serde_json::to_string(change).map_err(|error| StoreError::other("telling a change", error))?;
        let mut publish = cmd("PUBLISH");
        publish.arg(keys::CHANGES).arg(text);
        let _: i64 =
            self.connection().send(&publish).await.map_err(|failure| failure.during("telling a change"))?;
        Ok(())
    }

    async fn next(&self) -> Result<Notice, StoreError> {
        self.0.feed.next().await.map_err(|failure| failure.during("listening for changes"))
    }
}
