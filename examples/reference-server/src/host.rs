//! The life of the process: maintenance, listener, signals, and an orderly end.

use std::{sync::Arc, time::Duration};

use lumoauth_core::server::AuthorizationServer;
use tokio::{
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{app::App, failure::Failure, listen::Listener};

/// A server that accepts connections.
#[derive(Debug)]
pub(crate) struct Host {
    app: Arc<App>,
    stop: watch::Sender<bool>,
    listening: JoinHandle<()>,
    maintenance: JoinHandle<()>,
    signals: Signals,
}

impl Host {
    /// Begins to accept.
    ///
    /// # Errors
    /// [`Failure`] if signals cannot be caught.
    pub(crate) fn start(listener: Listener, app: App, server: AuthorizationServer) -> Result<Self, Failure> {
        let signals = Signals::catch()?;
        let (stop, stopped) = watch::channel(false);
        let maintenance = tokio::spawn(maintain(server));
        let app = Arc::new(app);
        let listening = tokio::spawn(listener.run(app.clone(), stopped));
        Ok(Self { app, stop, listening, maintenance, signals })
    }

    /// Runs until SIGTERM or SIGINT, then stops accepting and gives running requests 30 seconds. A second
    /// signal ends the wait.
    ///
    /// # Errors
    /// [`Failure`] if the listener ended by itself.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let Self { app, stop, mut listening, maintenance, mut signals } = self;
        tokio::select! {
            ended = &mut listening => {
                let what = "the listener ended";
                return Err(ended.err().map_or_else(|| Failure::new(what), |error| Failure::because(what, error)));
            }
            name = signals.next() => tracing::info!(signal = name, "stopping"),
        }
        app.drain();
        stop.send_replace(true);
        tokio::select! {
            drained = timeout(DRAIN, &mut listening) => {
                if drained.is_err() {
                    tracing::warn!("some requests did not end in time");
                }
            }
            _ = signals.next() => tracing::warn!("not waiting for running requests"),
        }
        listening.abort();
        // What was acknowledged is in the store already; what it still has queued it writes when its last
        // handle goes, which these tasks hold.
        maintenance.abort();
        let _ = maintenance.await;
        drop(app);
        settle().await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Waits until the tasks of the stores have ended, which they do when their last handle is gone. Nobody waits for an
/// answer of theirs any more, so one that hangs is not worth more than a moment.
async fn settle() {
    let metrics = Handle::current().metrics();
    let ended = timeout(SETTLE, async {
        while metrics.num_alive_tasks() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    });
    if ended.await.is_err() {
        tracing::debug!(tasks = metrics.num_alive_tasks(), "some background tasks did not end in time");
    }
}

/// Runs maintenance for as long as the process lives. Without it the server is correct but untidy, so its end
/// is worth a line and another try, and not the process.
async fn maintain(server: AuthorizationServer) {
    loop {
        let ended = Maintenance(tokio::spawn(server.maintenance())).end().await;
        match ended {
            Ok(()) => tracing::error!("maintenance ended; starting it again"),
            Err(error) => tracing::error!(%error, "maintenance failed; starting it again"),
        }
        sleep(RESTART).await;
    }
}

/// A maintenance task that ends with whoever waits for it.
struct Maintenance(JoinHandle<()>);

impl Maintenance {
    async fn end(mut self) -> Result<(), tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The signals that end the process.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> Result<Self, Failure> {
        let catch = |kind| signal(kind).map_err(|error| Failure::because("cannot catch signals", error));
        Ok(Self { terminate: catch(SignalKind::terminate())?, interrupt: catch(SignalKind::interrupt())? })
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// How long running requests may take once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(30);

/// How long background tasks may take once everything else has ended.
const SETTLE: Duration = Duration::from_secs(2);

/// How long maintenance rests after it failed.
const RESTART: Duration = Duration::from_secs(5);
