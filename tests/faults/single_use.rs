//! Single-use values, presented to two stores at a time while the service behind them is killed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lumoauth_core::{
    clock::{Clock, SystemClock, Timestamp},
    id::OrgId,
    random::random_bytes,
    store::{Remembered, ReplayStore, StoreError, StoreErrorKind},
};
use lumoauth_tests::{Stopwatch, unique};
use tokio::{runtime::Runtime, task::JoinHandle};

/// What a kill of the service does to its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Nothing.
    Stays,
    /// It is gone. What is older than the new one is refused.
    Goes,
}

/// Two stores on one service, and every value that was presented to them.
#[derive(Debug)]
pub(crate) struct SingleUse {
    runtime: Runtime,
    stores: [Arc<dyn ReplayStore>; 2],
    org: OrgId,
    memory: Memory,
    new: Arc<Mutex<Vec<Mark>>>,
    old: Vec<Mark>,
    firsts: u64,
    unknown: u64,
}

/// A value, and how often it was accepted.
#[derive(Clone, Copy, Debug)]
struct Mark {
    key: [u8; 32],
    issued: Timestamp,
    firsts: u32,
    unknown: u32,
}

impl Mark {
    fn note(&mut self, answer: Option<Remembered>) {
        self.firsts += u32::from(answer == Some(Remembered::First));
        self.unknown += u32::from(answer.is_none());
    }
}

/// While it is there, values are presented.
#[derive(Debug)]
pub(crate) struct Presenting<'a> {
    runtime: &'a Runtime,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl SingleUse {
    /// Two stores that `connect` opens.
    pub(crate) fn of<S: ReplayStore>(memory: Memory, connect: impl AsyncFn() -> S) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let stores = runtime.block_on(async {
            let (one, two): (Arc<dyn ReplayStore>, Arc<dyn ReplayStore>) =
                (Arc::new(connect().await), Arc::new(connect().await));
            [one, two]
        });
        let org = OrgId::parse(&unique("single")).expect("letters, digits and `-`");
        let (new, old) = (Arc::default(), Vec::new());
        Self { runtime, stores, org, memory, new, old, firsts: 0, unknown: 0 }
    }

    /// Begins to present values, up to 400 a second, each three times to both stores at once.
    pub(crate) fn present(&self) -> Presenting<'_> {
        let stop = Arc::new(AtomicBool::new(false));
        let task = || {
            let (stores, org, marks, stop) =
                (self.stores.clone(), self.org.clone(), self.new.clone(), stop.clone());
            async move {
                while !stop.load(Ordering::Relaxed) {
                    let mut mark =
                        Mark { key: random_bytes(), issued: SystemClock::new().now(), firsts: 0, unknown: 0 };
                    // Again and again, while the service may be going down or coming up.
                    for _ in 0..3 {
                        let answers =
                            tokio::join!(ask(&*stores[0], &org, &mark), ask(&*stores[1], &org, &mark));
                        mark.note(answers.0);
                        mark.note(answers.1);
                        tokio::time::sleep(Duration::from_millis(3)).await;
                    }
                    marks.lock().unwrap_or_else(PoisonError::into_inner).push(mark);
                    if mark.unknown > 0 {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        };
        let tasks = (0..4).map(|_| self.runtime.spawn(task())).collect();
        Presenting { runtime: &self.runtime, stop, tasks }
    }

    /// Presents everything from since the last check once more: nothing that was accepted is accepted again.
    pub(crate) fn check(&mut self) {
        let marks = std::mem::take(&mut *self.new.lock().unwrap_or_else(PoisonError::into_inner));
        assert!(!marks.is_empty(), "nothing was presented");
        for (mut mark, again) in self.insist(marks) {
            assert!(mark.firsts <= 1, "accepted twice: {mark:?}");
            if self.memory == Memory::Stays {
                assert!(mark.firsts + mark.unknown > 0, "new, and refused by both: {mark:?}");
            }
            self.unknown += u64::from(mark.unknown > 0);
            // If it was not accepted, whether for want of an answer or at the border of a new memory, it may be now.
            assert!(again != Remembered::First || mark.firsts == 0, "accepted again: {mark:?}");
            mark.firsts += u32::from(again == Remembered::First);
            self.firsts += u64::from(mark.firsts);
            self.old.push(mark);
        }
        // Also what is long ago.
        let sample = self.old.iter().copied().step_by(1 + self.old.len() / 100).collect();
        for (mark, again) in self.insist(sample) {
            match self.memory {
                Memory::Stays => assert_eq!(again, Remembered::Replay, "{mark:?}"),
                Memory::Goes => assert!(again != Remembered::First, "{mark:?}"),
            }
        }
    }

    pub(crate) fn summary(&self) -> String {
        format!("{} values used once, {} of unknown fate", self.firsts, self.unknown)
    }

    /// The answer to each, once there is one.
    fn insist(&self, marks: Vec<Mark>) -> Vec<(Mark, Remembered)> {
        let share = (marks.len() / 16).max(1);
        let tasks: Vec<_> = marks
            .chunks(share)
            .zip(self.stores.iter().cycle())
            .map(|(marks, store)| {
                let (store, org, marks) = (store.clone(), self.org.clone(), marks.to_vec());
                self.runtime.spawn(async move {
                    let mut answers = Vec::new();
                    for mark in marks {
                        answers.push((mark, insist(&*store, &org, &mark).await));
                    }
                    answers
                })
            })
            .collect();
        self.runtime.block_on(async {
            let mut answers = Vec::new();
            for task in tasks {
                answers.append(&mut task.await.expect("no panic"));
            }
            answers
        })
    }
}

/// The answer, once there is one.
async fn insist(store: &dyn ReplayStore, org: &OrgId, mark: &Mark) -> Remembered {
    let watch = Stopwatch::start();
    loop {
        if let Some(answer) = ask(store, org, mark).await {
            return answer;
        }
        assert!(watch.elapsed() < Duration::from_secs(30), "the store does not recover");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The answer, or `None` if there is none.
async fn ask(store: &dyn ReplayStore, org: &OrgId, mark: &Mark) -> Option<Remembered> {
    let now = SystemClock::new().now();
    let until = mark.issued.plus(Duration::from_secs(3600));
    match store.remember(org, "fault", &mark.key, mark.issued, until, now).await {
        Ok(answer) => Some(answer),
        Err(error) => {
            assert_unavailable(&error);
            None
        }
    }
}

/// Fails if it is any other error than that the store cannot be asked.
#[track_caller]
pub(crate) fn assert_unavailable(error: &StoreError) {
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
}

impl Drop for Presenting<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.tasks) {
            let ended = self.runtime.block_on(task);
            assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
        }
    }
}
