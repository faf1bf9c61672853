//! The writer: one thread, one queue, one transaction for whatever has queued.
//!
//! 1. A batch is everything that waits, up to [`BATCH`] operations. While one is being synced the next one gathers,
//!    so the cost of a sync is shared by as many callers as there are. Callers that were just answered get
//!    [`GATHER`] to come back; without it they would split into two groups that take turns, and every sync would
//!    serve half of them. A lone caller never waits for that, except once after others have gone.
//! 2. Nobody is answered before the commit that contains its operation, and everything it saw, is on disk. That
//!    holds for refusals as well: what they are based on may have been written by a neighbour in the batch.
//! 3. An operation that wrote something and then failed takes the transaction with it. The batch is replayed one by
//!    one, so it fails alone.
//! 4. A commit that fails has an unknown outcome. Its callers are told "unavailable", nothing is replayed, and the
//!    file is opened again, since redb neither reads nor writes before that. If it cannot be, every batch tries.
//! 5. A full queue refuses at once. Dropping a caller's future does not stop its operation; dropping the store
//!    carries out what has queued.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use futures_channel::oneshot;
use lumoauth_core::store::StoreError;
use redb::{CommitError, Database, DatabaseError, TransactionError, WriteTransaction};

use crate::{
    batch::{Batch, Destination},
    snapshot::Published,
};

/// How many operations one transaction carries at most.
const BATCH: usize = 256;
/// How many operations may wait: what the disk does in about a second.
const QUEUE: usize = 4096;
/// How long a batch may wait for callers that are expected. Most of what a commit costs does not depend on how much is
/// in it, so it pays to wait for them. Measured with 32 callers of the token endpoint on two cores: this makes batches
/// of 31, and 0.3 ms batches of 18 and a token a seventh dearer; 2 ms costs throughput on a fast disk.
const GATHER: Duration = Duration::from_millis(1);

/// How the file is opened again after a failure.
pub(crate) type Reopen = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// The way to the writer thread.
pub(crate) struct Writer {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(
        database: Database,
        reopen: Reopen,
        published: Arc<Published>,
        destination: Destination,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let mut engine = Engine { database: Some(database), reopen, published, destination, broken: false };
        let stopped = StopOnDrop(queue.clone());
        let thread = std::thread::Builder::new().name("embedded-store".to_owned()).spawn(move || {
            while let Some(batch) = stopped.0.next_batch() {
                let done = engine.carry_out(batch);
                stopped.0.expect_again(done.len());
                done.into_iter().for_each(|(operation, failure)| operation.answer(failure));
            }
            engine.close();
        })?;
        Ok(Self { queue, thread: Some(thread) })
    }

    /// Has `decide` carried out in a write transaction. `decide` may be called again on a fresh transaction.
    pub(crate) async fn submit<T, F>(&self, decide: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Batch<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.queue.add(Box::new(Job { decide, outcome: None, reply }))?;
        answer
            .await
            .unwrap_or_else(|oneshot::Canceled| Err(StoreError::unavailable("write", WriteError::Stopped)))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.lock().closing = true;
        self.queue.arrived.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook, and its callers were told.
            let _ = thread.join();
        }
    }
}

/// Why a write could not be made.
#[derive(Clone, Debug, thiserror::Error)]
enum WriteError {
    #[error("too many writes wait")]
    Full,
    #[error("the writer has stopped")]
    Stopped,
    #[error("the transaction was rolled back")]
    RolledBack,
    #[error("the transaction failed")]
    Transaction(#[source] Arc<redb::Error>),
}

#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    arrived: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<Box<dyn Operation>>,
    /// How many callers there seem to be.
    expected: usize,
    /// How many must wait for the writer to be woken.
    wanted: usize,
    /// Nothing more will be added.
    closing: bool,
    /// Nobody takes from it any more.
    stopped: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, operation: Box<dyn Operation>) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.stopped {
            return Err(StoreError::unavailable("write", WriteError::Stopped));
        }
        if state.waiting.len() >= QUEUE {
            return Err(StoreError::unavailable("write", WriteError::Full));
        }
        state.waiting.push_back(operation);
        if state.waiting.len() == state.wanted {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// The next operations to carry out together, or `None` in the end.
    fn next_batch(&self) -> Option<Vec<Box<dyn Operation>>> {
        let mut state = self.lock();
        state.wanted = 1;
        state = self
            .arrived
            .wait_while(state, |state| state.waiting.is_empty() && !state.closing)
            .unwrap_or_else(PoisonError::into_inner);
        state.wanted = state.expected.min(BATCH);
        let (mut state, _) = self
            .arrived
            .wait_timeout_while(state, GATHER, |state| state.waiting.len() < state.wanted && !state.closing)
            .unwrap_or_else(PoisonError::into_inner);
        let size = state.waiting.len().min(BATCH);
        (size > 0).then(|| state.waiting.drain(..size).collect())
    }

    /// Notes that `answered` callers are about to be free to call again.
    fn expect_again(&self, answered: usize) {
        let mut state = self.lock();
        state.expected = answered + state.waiting.len();
    }
}

/// Lives in the writer thread: however that ends, nobody waits for it any longer.
struct StopOnDrop(Arc<Queue>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.stopped = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
    }
}

/// One queued call, whatever its outcome type.
trait Operation: Send {
    /// Does it in `batch`, and keeps the outcome for later. Whether it succeeded.
    fn apply(&mut self, batch: &mut Batch<'_>) -> bool;

    /// Tells the caller: its own error if it has one, else `failure` of the batch, else its outcome.
    fn answer(self: Box<Self>, failure: Option<WriteError>);
}

struct Job<T, F> {
    decide: F,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Operation for Job<T, F>
where
    T: Send,
    F: FnMut(&mut Batch<'_>) -> Result<T, StoreError> + Send,
{
    fn apply(&mut self, batch: &mut Batch<'_>) -> bool {
        self.outcome.insert((self.decide)(batch)).is_ok()
    }

    fn answer(self: Box<Self>, failure: Option<WriteError>) {
        let answer = match (self.outcome, failure) {
            (Some(Err(error)), _) => Err(error),
            (_, Some(failure)) => Err(StoreError::unavailable("commit", failure)),
            (Some(Ok(outcome)), None) => Ok(outcome),
            (None, None) => Err(StoreError::unavailable("write", WriteError::Stopped)),
        };
        // The caller may have gone; what it asked for is done all the same.
        let _ = self.reply.send(answer);
    }
}

/// What the writer thread owns.
struct Engine {
    /// Absent while the file cannot be opened.
    database: Option<Database>,
    reopen: Reopen,
    published: Arc<Published>,
    destination: Destination,
    /// Whether redb must be opened again before it can write.
    broken: bool,
}

/// An operation, and the failure of its batch.
type Done = (Box<dyn Operation>, Option<WriteError>);

/// Why a batch was not carried out.
enum Failure {
    /// It was rolled back: an operation failed half way.
    RolledBack(WriteError),
    /// The file failed; whether the batch is on disk is unknown.
    File(WriteError),
}

impl Engine {
    /// Carries out a batch. What each caller is to be told, now that it is on disk or is not.
    fn carry_out(&mut self, mut batch: Vec<Box<dyn Operation>>) -> Vec<Done> {
        let error = match self.attempt(&mut batch) {
            Ok(()) => return batch.into_iter().map(|operation| (operation, None)).collect(),
            Err(Failure::RolledBack(_)) if batch.len() > 1 => return self.replay(batch),
            Err(Failure::RolledBack(error) | Failure::File(error)) => error,
        };
        batch.into_iter().map(|operation| (operation, Some(error.clone()))).collect()
    }

    /// Carries out each operation in a transaction of its own, until the file itself fails.
    fn replay(&mut self, batch: Vec<Box<dyn Operation>>) -> Vec<Done> {
        let mut file_failure = None;
        let alone = |mut operation: Box<dyn Operation>| {
            if file_failure.is_some() {
                return (operation, file_failure.clone());
            }
            match self.attempt(std::slice::from_mut(&mut operation)) {
                Ok(()) => (operation, None),
                Err(Failure::RolledBack(error)) => (operation, Some(error)),
                Err(Failure::File(error)) => (operation, file_failure.insert(error).clone().into()),
            }
        };
        batch.into_iter().map(alone).collect()
    }

    fn attempt(&mut self, operations: &mut [Box<dyn Operation>]) -> Result<(), Failure> {
        self.mend()?;
        let result = match &self.database {
            Some(database) => transact(database, operations, self.destination, &self.published),
            None => Err(Failure::File(WriteError::Stopped)),
        };
        if matches!(result, Err(Failure::File(_))) {
            self.broken = true;
            // At once, since until then redb refuses readers as well. If it cannot be done now, the next batch
            // tries again.
            let _ = self.mend();
        }
        result
    }

    /// Opens the file again if redb has given it up.
    fn mend(&mut self) -> Result<(), Failure> {
        let suspect = self.published.take_suspicion();
        if !(self.broken || suspect || self.database.is_none()) {
            return Ok(());
        }
        self.broken = true;
        // It holds the lock on the file, so it must go before the next one comes.
        self.close();
        let database = (self.reopen)().map_err(file_failure)?;
        self.published.replace(&database, None).map_err(file_failure)?;
        tracing::info!("embedded store opened again after a failure");
        self.database = Some(database);
        self.broken = false;
        Ok(())
    }

    fn close(&mut self) {
        if let Some(Err(error)) = self.database.take().map(Database::close) {
            tracing::warn!(%error, "embedded store did not close cleanly; the next open repairs it");
        }
    }
}

/// One transaction for all of `operations`.
fn transact(
    database: &Database,
    operations: &mut [Box<dyn Operation>],
    destination: Destination,
    published: &Published,
) -> Result<(), Failure> {
    let transaction = begin(database).map_err(file_failure)?;
    let mut batch = Batch::new(&transaction, destination);
    for operation in operations {
        let before = batch.writes();
        if !operation.apply(&mut batch) && batch.writes() != before {
            drop(batch);
            transaction.abort().map_err(file_failure)?;
            return Err(Failure::RolledBack(WriteError::RolledBack));
        }
    }
    let writes = batch.writes();
    if writes == 0 {
        drop(batch);
        return transaction.abort().map_err(file_failure);
    }
    let changed = match batch.finish() {
        Ok(changed) => changed,
        Err(_) => {
            transaction.abort().map_err(file_failure)?;
            return Err(Failure::RolledBack(WriteError::RolledBack));
        }
    };
    match transaction.commit() {
        Ok(()) => {}
        // redb has rolled it back, so every operation may be tried alone.
        Err(error @ CommitError::TransactionPoisoned) => {
            return Err(Failure::RolledBack(WriteError::Transaction(Arc::new(error.into()))));
        }
        Err(error) => return Err(file_failure(error)),
    }
    published.replace(database, Some(&changed)).map_err(file_failure)
}

/// A transaction that is on disk when its commit returns, and leaves nothing to repair after a crash.
pub(crate) fn begin(database: &Database) -> Result<WriteTransaction, TransactionError> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

fn file_failure(error: impl Into<redb::Error>) -> Failure {
    let error = Arc::new(error.into());
    tracing::error!(%error, "embedded store cannot write");
    Failure::File(WriteError::Transaction(error))
}

#[cfg(test)]
mod tests;
