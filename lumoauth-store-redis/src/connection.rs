//! The connection, and how a script is called over it.

use std::{fmt, sync::Arc, time::Duration};

use redis::{
    Cmd, FromRedisValue, RedisError, ServerErrorKind, Value,
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    error::Failure,
    script::Call,
    single::{self, Numbered, Single},
};

/// How long to wait before a call that the server refused without carrying it out is made again.
const PAUSE: Duration = Duration::from_millis(20);

/// One server, or a cluster.
#[derive(Clone)]
pub(crate) enum Link {
    Single(Arc<Single>),
    Cluster(ClusterConnection),
}

#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) link: Link,
    pub(crate) response_timeout: Duration,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.link {
            Link::Single(_) => "Single",
            Link::Cluster(_) => "Cluster",
        })
    }
}

impl Connection {
    /// Calls a script. It is carried out once at most, whatever the answer: a call is only made again when the server
    /// said that it did not carry it out, or was never reached.
    pub(crate) async fn call<T: FromRedisValue>(&self, call: &Call) -> Result<T, Failure> {
        let deadline = Instant::now() + self.response_timeout;
        timeout_at(deadline, self.until_carried_out(call)).await.map_err(|_| Failure::TimedOut)?
    }

    /// Sends one command that has no keys.
    pub(crate) async fn send<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        let deadline = Instant::now() + self.response_timeout;
        Ok(timeout_at(deadline, self.query(command)).await.map_err(|_| Failure::TimedOut)??)
    }

    async fn until_carried_out<T: FromRedisValue>(&self, call: &Call) -> Result<T, Failure> {
        let mut command = call.by_hash();
        let mut moved_to = None;
        let (mut refused, mut replaced) = (false, false);
        loop {
            let single = self.single();
            let answer = match (moved_to.take(), &single) {
                (Some((host, port)), _) => self.ask(&command, host, port).await,
                (None, Some((_, current))) => command.query_async(&mut current.link.clone()).await,
                (None, None) => self.query(&command).await,
            };
            let error = match answer {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match error.kind() {
                redis::ErrorKind::Server(ServerErrorKind::NoScript) => command = call.whole(),
                // The slot is being moved, and the key is at its new node already.
                redis::ErrorKind::Server(ServerErrorKind::Ask) => {
                    moved_to = Some(new_node(&error).ok_or(Failure::Unreadable)?);
                }
                // The client has begun to ask who holds which slot, or a slot is half moved.
                redis::ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::TryAgain) => {
                    sleep(PAUSE).await;
                }
                // The connection broke before this call, and the client made a new one in vain: once more, since the
                // server may be back.
                _ if error.is_connection_refusal() && !refused => {
                    refused = true;
                    sleep(PAUSE).await;
                }
                _ => match &single {
                    // The address may lead to another server by now. Once more, if it does.
                    Some((single, current))
                        if !replaced && single::is_of_a_replica(&error) && single.replace(current).await =>
                    {
                        replaced = true;
                    }
                    _ => return Err(error.into()),
                },
            }
        }
    }

    /// The one server and its connection, unless it is a cluster.
    fn single(&self) -> Option<(&Single, Numbered)> {
        match &self.link {
            Link::Single(single) => Some((single, single.current())),
            Link::Cluster(_) => None,
        }
    }

    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        match &self.link {
            Link::Single(single) => command.query_async(&mut single.current().link).await,
            Link::Cluster(link) => command.query_async(&mut link.clone()).await,
        }
    }

    /// Sends a command to a node that does not yet hold the slot.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd, host: String, port: u16) -> Result<T, RedisError> {
        let Link::Cluster(link) = &self.link else { return self.query(command).await };
        let mut both = redis::pipe();
        both.cmd("ASKING").add_command(command.clone());
        let node = SingleNodeRoutingInfo::ByAddress { host, port };
        let mut answers = link.clone().route_pipeline(both, 0, 2, node).await?;
        Ok(T::from_redis_value(answers.pop().unwrap_or(Value::Nil).extract_error()?)?)
    }

    /// Sends one command to every node of a cluster that takes writes, or to the one server. The answer is a map from
    /// nodes to their answers, or the answer.
    pub(crate) async fn ask_every_master(&self, command: &Cmd) -> Result<Value, Failure> {
        let deadline = Instant::now() + self.response_timeout;
        let answer = async {
            match &self.link {
                Link::Single(_) => self.query(command).await,
                Link::Cluster(link) => {
                    let masters = redis::cluster_routing::MultipleNodeRoutingInfo::AllMasters;
                    link.clone().route_command(command.clone(), RoutingInfo::MultiNode((masters, None))).await
                }
            }
        };
        Ok(timeout_at(deadline, answer).await.map_err(|_| Failure::TimedOut)??)
    }
}

/// Where an ASK error sends its caller.
fn new_node(error: &RedisError) -> Option<(String, u16)> {
    let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}
