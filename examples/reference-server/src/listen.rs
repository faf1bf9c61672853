//! The listener: HTTP/1.1 and HTTP/2 on one port, with a bound on everything a peer can hold.
//!
//! 1. At most `max_connections` at a time; further peers wait in the kernel's queue.
//! 2. A TLS handshake and the head of a request have 10 seconds each. (How long a body may take is the
//!    service's to say.)
//! 3. A connection on which nothing was answered and nothing is being answered for 20 to 40 seconds is closed,
//!    also one that never began to speak or does not read its answers.
//! 4. A panic in one request ends its task, and so at most its connection.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    num::NonZero,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{Instant, interval_at, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{app::App, failure::Failure};

/// How many connections a server holds if nobody says otherwise.
pub(crate) const DEFAULT_MAX_CONNECTIONS: NonZero<u16> = NonZero::new(4096).expect("it is not zero");

/// A bound port, ready to accept.
pub(crate) struct Listener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    max_connections: u32,
}

impl Listener {
    /// Binds `address`; a port of 0 becomes a free one.
    ///
    /// # Errors
    /// [`Failure`] if the address is taken or not ours.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let tcp = TcpListener::bind(address)
            .await
            .map_err(|error| Failure::because(format!("cannot listen on {address}"), error))?;
        Ok(Self { tcp, tls: None, max_connections: u32::from(DEFAULT_MAX_CONNECTIONS.get()) })
    }

    /// The same, speaking TLS.
    #[must_use]
    pub(crate) fn with_tls(mut self, tls: Option<TlsAcceptor>) -> Self {
        self.tls = tls;
        self
    }

    /// The same, holding at most so many connections.
    #[must_use]
    pub(crate) fn with_max_connections(mut self, max: NonZero<u16>) -> Self {
        self.max_connections = u32::from(max.get());
        self
    }

    /// Where it listens.
    ///
    /// # Errors
    /// [`Failure`] if the operating system does not know.
    pub(crate) fn address(&self) -> Result<SocketAddr, Failure> {
        self.tcp.local_addr().map_err(|error| Failure::because("cannot tell the port", error))
    }

    /// Accepts and answers until `stop` turns true, then lets running requests end. Returns when the last
    /// connection is closed; whoever cannot wait so long drops this future.
    pub(crate) async fn run(self, app: Arc<App>, mut stop: watch::Receiver<bool>) {
        let Self { tcp, tls, max_connections } = self;
        let http = Arc::new(http());
        let slots = Arc::new(Semaphore::new(usize::try_from(max_connections).unwrap_or(usize::MAX)));
        let stopped = stop.clone();
        let accepting = async {
            loop {
                let Ok(slot) = slots.clone().acquire_owned().await else { return };
                let (stream, peer) = accept(&tcp).await;
                let (http, app, tls, stop) = (http.clone(), app.clone(), tls.clone(), stopped.clone());
                tokio::spawn(async move {
                    let _slot = slot;
                    serve(stream, peer, tls, &http, app, stop).await;
                });
            }
        };
        tokio::select! {
            () = accepting => {}
            // An error means that the sender is gone, which is as good a reason to stop.
            _ = stop.wait_for(|stop| *stop) => {}
        }
        drop(tcp);
        // Every connection holds a slot, so having all of them means that there is none left.
        let _ = slots.acquire_many(max_connections).await;
    }
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD_BYTES_HTTP2)
        .max_concurrent_streams(100)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    http
}

async fn accept(tcp: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match tcp.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_about_the_peer(&error) => {}
            Err(error) => {
                // Out of file descriptors or memory: asking again at once would only burn the processor.
                tracing::warn!(%error, "cannot accept connections");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn is_about_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    http: &auto::Builder<TokioExecutor>,
    app: Arc<App>,
    stop: watch::Receiver<bool>,
) {
    // Answers are written whole; waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    match tls {
        None => speak(stream, peer, http, app, stop).await,
        Some(tls) => match timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => speak(stream, peer, http, app, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        },
    }
}

/// Drives one connection to its end.
async fn speak<I>(
    stream: I,
    peer: SocketAddr,
    http: &auto::Builder<TokioExecutor>,
    app: Arc<App>,
    mut stop: watch::Receiver<bool>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::default());
    let service = service_fn(|request| {
        let running = Running::start(&activity);
        let app = app.clone();
        async move {
            let response = app.handle(request, peer).await;
            drop(running);
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut ticks = interval_at(Instant::now() + IDLE, IDLE);
    let mut seen = 0;
    let mut closing = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error = &*error, "connection ended early");
                }
                return;
            }
            _ = stop.wait_for(|stop| *stop), if !closing => {
                closing = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = ticks.tick() => match activity.since(seen) {
                Since::Busy(now) => seen = now,
                // Asked to close and still here: the peer does not read what we have for it.
                Since::Idle if closing => return,
                Since::Idle => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
            },
        }
    }
}

/// What happens on a connection, for whoever has to decide whether it is still of use.
#[derive(Debug, Default)]
struct Activity {
    /// Requests that began and requests that ended, together: odd or even says nothing, a change does.
    steps: AtomicU64,
    running: AtomicU64,
}

enum Since {
    Busy(u64),
    Idle,
}

impl Activity {
    fn since(&self, seen: u64) -> Since {
        let now = self.steps.load(Ordering::Acquire);
        if now != seen || self.running.load(Ordering::Acquire) > 0 { Since::Busy(now) } else { Since::Idle }
    }
}

/// A request that is being answered; dropped when it is, or when the peer went away.
struct Running(Arc<Activity>);

impl Running {
    fn start(activity: &Arc<Activity>) -> Self {
        activity.steps.fetch_add(1, Ordering::AcqRel);
        activity.running.fetch_add(1, Ordering::AcqRel);
        Self(activity.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.steps.fetch_add(1, Ordering::AcqRel);
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// For a TLS handshake, and for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Twice in a row nothing, and the connection is closed.
const IDLE: Duration = Duration::from_secs(20);

/// A token of 16 KiB and what else a client sends fit; hyper answers 431 to more.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEAD_BYTES_HTTP2: u32 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_only_without_any_request_since_the_last_look() {
        let activity = Arc::new(Activity::default());
        assert!(matches!(activity.since(0), Since::Idle));
        let running = Running::start(&activity);
        let Since::Busy(seen) = activity.since(0) else { panic!("a request began") };
        assert!(matches!(activity.since(seen), Since::Busy(_)), "it is still running");
        drop(running);
        let Since::Busy(seen) = activity.since(seen) else { panic!("it ended since") };
        assert!(matches!(activity.since(seen), Since::Idle));
    }
}
