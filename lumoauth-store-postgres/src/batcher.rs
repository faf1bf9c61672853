//! Group commit: concurrent calls of one kind share one transaction.
//!
//! 1. One task takes whatever has queued, up to [`BATCH`] calls, and carries it out as one batch. While that is in
//!    flight the next one gathers by itself, so the cost of a commit is shared by as many callers as there are, and a
//!    lone caller never waits for others.
//! 2. Every caller gets its own answer, after the commit. Whoever goes away meanwhile does not stop the batch.
//! 3. A batch that the database refused, or rolled back because it waited too long for a lock, changed nothing. It is
//!    replayed call by call, so that one bad row fails alone, and a locked one fails only the calls of its [`Work::lane`].
//! 4. A batch whose outcome is unknown (the connection broke, time ran out) is not replayed here: its callers are told
//!    that the store is unavailable. What may be repeated is for the work itself to know.
//! 5. Every wait has an end: every call is answered within [`Patience::batch`]. If that is while its batch is under
//!    way, the batch goes on, and what became of the call is unknown to its caller.
//! 6. A batch runs in a task of its own; if it panics, its callers are told, and the next batch is carried out.
//! 7. The task ends when the last handle is gone and the queue is empty.

use std::{collections::BTreeMap, fmt, slice, sync::Arc, time::Duration};

use lumoauth_core::store::{StoreError, StoreErrorKind};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::yield_now,
    time::{Instant, timeout_at},
};

use crate::failure::is_rolled_back;

/// How many calls one batch carries at most.
const BATCH: usize = 256;
/// How often other tasks get a turn before a batch begins that is smaller than the last one. A turn is a microsecond or
/// a few, and a commit hundreds.
const TURNS: u32 = 32;
/// How many calls may wait.
const QUEUE: usize = 4096;

/// What the calls of one kind have done.
pub(crate) trait Work: Send + Sync + 'static {
    /// What one call wants.
    type Job: Send + Sync + 'static;
    /// What it gets.
    type Answer: Send + 'static;

    /// How errors name it.
    const OPERATION: &'static str;

    /// Carries out all of `jobs` or none, in their order, and returns an answer for each.
    ///
    /// An error other than [`StoreErrorKind::Unavailable`], and one that [`is_rolled_back`], must mean that nothing was
    /// changed: the jobs are then carried out again, each by itself.
    fn carry_out(
        &self,
        jobs: &[Self::Job],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, StoreError>> + Send;

    /// What `job` may have to wait for. When one call of a lane was rolled back in a replay, the others of the same lane
    /// are not tried, as each would take as long and those of other lanes would wait for all of them.
    fn lane(_job: &Self::Job) -> &str {
        ""
    }
}

/// The way to the task that makes batches of `W`. Clones share it.
pub(crate) struct Batcher<W: Work> {
    queue: mpsc::Sender<Call<W>>,
    patience: Patience,
}

impl<W: Work> Clone for Batcher<W> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), patience: self.patience }
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Waiting for a place in the queue.
    pub(crate) place: Duration,
    /// A batch with its replays; and a whole call, whatever it waits for.
    pub(crate) batch: Duration,
}

struct Call<W: Work> {
    job: W::Job,
    reply: Reply<W::Answer>,
    deadline: Instant,
}

struct Reply<T>(oneshot::Sender<Result<T, StoreError>>);

impl<T> Reply<T> {
    fn give(self, answer: Result<T, StoreError>) {
        // A caller that went away wants no answer.
        let _ = self.0.send(answer);
    }
}

/// Why a call was not carried out, or what became of its batch.
#[derive(Debug, thiserror::Error)]
enum BatchError {
    #[error("too many calls wait")]
    Full,
    #[error("the call waited too long")]
    Late,
    #[error("the batch took too long")]
    Slow,
    #[error("no answer in time")]
    NoAnswer,
    #[error("the batch has stopped")]
    Stopped,
    #[error("a call of the batch has no answer")]
    Miscounted,
    #[error("the batch failed")]
    Failed(#[source] Arc<StoreError>),
}

impl<W: Work> Batcher<W> {
    /// Starts the task, which has up to `in_flight` batches under way at once.
    ///
    /// It must be called in a Tokio runtime.
    pub(crate) fn start(work: W, in_flight: usize, patience: Patience) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(serve(Arc::new(work), waiting, in_flight, patience));
        Self { queue, patience }
    }

    /// Has `job` carried out with whatever else waits.
    pub(crate) async fn submit(&self, job: W::Job) -> Result<W::Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + self.patience.batch;
        let call = Call { job, reply: Reply(reply), deadline };
        self.queue.send_timeout(call, self.patience.place).await.map_err(|error| {
            unavailable::<W>(match error {
                mpsc::error::SendTimeoutError::Timeout(_) => BatchError::Full,
                mpsc::error::SendTimeoutError::Closed(_) => BatchError::Stopped,
            })
        })?;
        match timeout_at(deadline, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(unavailable::<W>(BatchError::Stopped))),
            Err(_) => Err(unavailable::<W>(BatchError::NoAnswer)),
        }
    }
}

impl<W: Work> fmt::Debug for Batcher<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("operation", &W::OPERATION).finish_non_exhaustive()
    }
}

async fn serve<W: Work>(
    work: Arc<W>,
    mut waiting: mpsc::Receiver<Call<W>>,
    in_flight: usize,
    patience: Patience,
) {
    let places = Arc::new(Semaphore::new(in_flight));
    let mut last = 0;
    while let Ok(place) = places.clone().acquire_owned().await {
        // Callers that were just answered get a chance to call again. Without it they split into groups that take
        // turns, and every commit serves only one of them.
        for _ in 0..TURNS {
            yield_now().await;
            if waiting.len() >= last {
                break;
            }
        }
        let mut calls = Vec::new();
        if waiting.recv_many(&mut calls, BATCH).await == 0 {
            break;
        }
        last = calls.len();
        let work = work.clone();
        tokio::spawn(async move {
            batch(&*work, calls, patience.batch).await;
            drop(place);
        });
    }
}

/// Carries out `calls` and answers each of them.
async fn batch<W: Work>(work: &W, calls: Vec<Call<W>>, patience: Duration) {
    let start = Instant::now();
    let (late, calls): (Vec<_>, Vec<_>) = calls.into_iter().partition(|call| start >= call.deadline);
    late.into_iter().for_each(|call| call.reply.give(Err(unavailable::<W>(BatchError::Late))));
    let (jobs, replies): (Vec<_>, Vec<_>) = calls.into_iter().map(|call| (call.job, call.reply)).unzip();
    if jobs.is_empty() {
        return;
    }

    let deadline = start + patience;
    match carry_out(work, &jobs, deadline).await {
        Ok(answers) => {
            replies.into_iter().zip(answers).for_each(|(reply, answer)| reply.give(Ok(answer)));
        }
        Err(error) if jobs.len() == 1 => {
            if let Some(reply) = replies.into_iter().next() {
                reply.give(Err(error));
            }
        }
        Err(error) if error.kind() == StoreErrorKind::Unavailable && !is_rolled_back(&error) => {
            let error = Arc::new(error);
            for reply in replies {
                reply.give(Err(unavailable::<W>(BatchError::Failed(error.clone()))));
            }
        }
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                calls = jobs.len(),
                "a batch failed and is replayed call by call"
            );
            replay(work, &jobs, replies, deadline).await;
        }
    }
}

/// Carries out `jobs` one by one.
async fn replay<W: Work>(work: &W, jobs: &[W::Job], replies: Vec<Reply<W::Answer>>, deadline: Instant) {
    let mut blocked: BTreeMap<&str, Arc<StoreError>> = BTreeMap::new();
    for (job, reply) in jobs.iter().zip(replies) {
        let lane = W::lane(job);
        let answer = match blocked.get(lane) {
            Some(error) => Err(unavailable::<W>(BatchError::Failed(error.clone()))),
            None => match carry_out(work, slice::from_ref(job), deadline).await {
                Ok(answers) => {
                    let only = answers.into_iter().next();
                    only.ok_or_else(|| StoreError::other(W::OPERATION, BatchError::Miscounted))
                }
                Err(error) if is_rolled_back(&error) => {
                    let error = Arc::new(error);
                    blocked.insert(lane, error.clone());
                    Err(unavailable::<W>(BatchError::Failed(error)))
                }
                Err(error) => Err(error),
            },
        };
        reply.give(answer);
    }
}

/// Carries out `jobs` before `deadline`, with an answer for each.
async fn carry_out<W: Work>(
    work: &W,
    jobs: &[W::Job],
    deadline: Instant,
) -> Result<Vec<W::Answer>, StoreError> {
    // What is not begun cannot be left in the middle.
    if Instant::now() >= deadline {
        return Err(unavailable::<W>(BatchError::Slow));
    }
    match timeout_at(deadline, work.carry_out(jobs)).await {
        Err(_) => Err(unavailable::<W>(BatchError::Slow)),
        // It was carried out, so it must not be replayed.
        Ok(Ok(answers)) if answers.len() != jobs.len() => Err(unavailable::<W>(BatchError::Miscounted)),
        Ok(done) => done,
    }
}

fn unavailable<W: Work>(error: BatchError) -> StoreError {
    StoreError::unavailable(W::OPERATION, error)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::failure::rolled_back;

    const PATIENCE: Patience = Patience { place: Duration::from_millis(50), batch: Duration::from_secs(5) };

    /// Squares numbers, and remembers its batches. Some numbers are trouble.
    #[derive(Clone, Default)]
    struct Squares {
        batches: Arc<Mutex<Vec<Vec<u32>>>>,
        hold: Arc<tokio::sync::Mutex<()>>,
    }

    const REFUSED: u32 = 1000;
    const LOST: u32 = 1001;
    const PANICS: u32 = 1002;
    const HANGS: u32 = 1003;
    /// Numbers from here on are of the other lane.
    const LOCKED: u32 = 2000;

    impl Work for Squares {
        type Job = u32;
        type Answer = u32;

        const OPERATION: &'static str = "squares";

        async fn carry_out(&self, jobs: &[u32]) -> Result<Vec<u32>, StoreError> {
            self.batches.lock().unwrap().push(jobs.to_vec());
            let _turn = self.hold.lock().await;
            match jobs.iter().find(|job| **job >= REFUSED) {
                None => Ok(jobs.iter().map(|job| job * job).collect()),
                Some(&REFUSED) => Err(StoreError::other("squares", "refused")),
                Some(&LOST) => Err(StoreError::unavailable("squares", "lost")),
                Some(&HANGS) => std::future::pending().await,
                Some(&(LOCKED..)) => Err(rolled_back("squares")),
                Some(other) => panic!("{other}"),
            }
        }

        fn lane(job: &u32) -> &str {
            if *job < LOCKED { "free" } else { "locked" }
        }
    }

    /// Submits `jobs` such that they share a batch: on one thread, they queue before the batcher has its turn.
    async fn submit(
        work: &Squares,
        batcher: &Batcher<Squares>,
        jobs: &[u32],
    ) -> Vec<Result<u32, StoreErrorKind>> {
        let turn = work.hold.lock().await;
        let calls: Vec<_> = jobs
            .iter()
            .map(|&job| {
                let batcher = batcher.clone();
                tokio::spawn(async move { batcher.submit(job).await })
            })
            .collect();
        while work.batches.lock().unwrap().is_empty() {
            yield_now().await;
        }
        drop(turn);
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await.unwrap().map_err(|error| error.kind()));
        }
        answers
    }

    fn start() -> (Squares, Batcher<Squares>) {
        let work = Squares::default();
        let batcher = Batcher::start(work.clone(), 1, PATIENCE);
        (work, batcher)
    }

    #[tokio::test]
    async fn waiting_calls_share_a_batch_and_each_gets_its_answer() {
        let (work, batcher) = start();
        assert_eq!(submit(&work, &batcher, &[2, 3, 4]).await, [Ok(4), Ok(9), Ok(16)]);
        assert_eq!(*work.batches.lock().unwrap(), [vec![2, 3, 4]]);
    }

    #[tokio::test]
    async fn a_bad_call_fails_alone() {
        let (work, batcher) = start();
        let answers = submit(&work, &batcher, &[2, REFUSED, 3]).await;
        assert_eq!(answers, [Ok(4), Err(StoreErrorKind::Other), Ok(9)]);
        assert_eq!(*work.batches.lock().unwrap(), [vec![2, REFUSED, 3], vec![2], vec![REFUSED], vec![3]]);
    }

    #[tokio::test]
    async fn a_locked_call_fails_its_lane_only() {
        let (work, batcher) = start();
        let answers = submit(&work, &batcher, &[2, LOCKED, LOCKED + 1, 3]).await;
        let locked = Err(StoreErrorKind::Unavailable);
        assert_eq!(answers, [Ok(4), locked, locked, Ok(9)]);
        let tried = [vec![2, LOCKED, LOCKED + 1, 3], vec![2], vec![LOCKED], vec![3]];
        assert_eq!(*work.batches.lock().unwrap(), tried);
    }

    #[tokio::test]
    async fn what_may_have_happened_is_not_repeated() {
        let (work, batcher) = start();
        let answers = submit(&work, &batcher, &[2, LOST]).await;
        assert_eq!(answers, [Err(StoreErrorKind::Unavailable); 2]);
        assert_eq!(work.batches.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_panic_ends_its_batch_only() {
        let (_, batcher) = start();
        assert_eq!(batcher.submit(PANICS).await.unwrap_err().kind(), StoreErrorKind::Unavailable);
        assert_eq!(batcher.submit(2).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn no_wait_is_endless() {
        let short = Patience { batch: Duration::from_millis(50), ..PATIENCE };
        let batcher = Batcher::start(Squares::default(), 1, short);
        assert_eq!(batcher.submit(HANGS).await.unwrap_err().kind(), StoreErrorKind::Unavailable);
        assert_eq!(batcher.submit(2).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_does_not_stop_its_batch() {
        let (work, batcher) = start();
        let turn = work.hold.lock().await;
        let gone = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.submit(2).await }
        });
        while work.batches.lock().unwrap().is_empty() {
            yield_now().await;
        }
        gone.abort();
        drop(turn);
        assert_eq!(batcher.submit(3).await.unwrap(), 9);
        assert_eq!(*work.batches.lock().unwrap(), [[2], [3]]);
    }
}
