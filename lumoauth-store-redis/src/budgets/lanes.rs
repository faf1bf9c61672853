//! Charges that are made at the same time share one call: the script reads and writes each pool once for all of them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use lumoauth_core::id::OrgId;
use tokio::{sync::oneshot, task::yield_now};

use super::{
    Pools,
    batch::Batch,
    request::{Answer, Request},
};
use crate::error::Failure;

/// How many charges share one call at most. It keeps Redis busy for a fraction of a millisecond.
const MOST: usize = 64;

/// Those that wait, per organization: keys of two organizations are in two slots. While there is an entry, a task is
/// at work on it.
#[derive(Default)]
pub(super) struct Lanes(Mutex<HashMap<OrgId, VecDeque<Waiting>>>);

pub(super) struct Waiting {
    request: Arc<Request>,
    answer: oneshot::Sender<Result<Answer, Failure>>,
}

impl Lanes {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<OrgId, VecDeque<Waiting>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether nobody is at work on this lane.
    fn enter(&self, waiting: Waiting) -> bool {
        self.with(|lanes| {
            if let Some(lane) = lanes.get_mut(waiting.request.org()) {
                lane.push_back(waiting);
                return false;
            }
            lanes.insert(waiting.request.org().clone(), VecDeque::from([waiting]));
            true
        })
    }

    /// The next that wait; none ends the lane. Whoever has gone away is left out, and is not charged.
    fn next(&self, org: &OrgId) -> Vec<Waiting> {
        self.with(|lanes| {
            let Some(lane) = lanes.get_mut(org) else { return Vec::new() };
            let mut next = Vec::with_capacity(lane.len().min(MOST));
            while next.len() < MOST
                && let Some(waiting) = lane.pop_front()
            {
                if !waiting.answer.is_closed() {
                    next.push(waiting);
                }
            }
            if next.is_empty() {
                lanes.remove(org);
            }
            next
        })
    }
}

/// The task at work on a lane. If it stops early, those that wait are told, and the next one begins a new lane.
struct AtWork {
    pools: Arc<Pools>,
    org: OrgId,
    ended: bool,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if !self.ended {
            self.pools.lanes.with(|lanes| lanes.remove(&self.org));
        }
    }
}

impl AtWork {
    async fn run(mut self) {
        loop {
            // Those that were just answered come back first, so that they are not left to the next call.
            yield_now().await;
            let waiting = self.pools.lanes.next(&self.org);
            if waiting.is_empty() {
                self.ended = true;
                return;
            }
            let mut batch = Batch::default();
            for waiting in &waiting {
                batch.charge(&waiting.request, None);
            }
            match self.pools.call(batch, waiting.len()).await {
                Ok(answers) => {
                    for (waiting, answer) in waiting.into_iter().zip(answers) {
                        let answer = waiting.request.read(answer);
                        let _ = waiting.answer.send(answer);
                    }
                }
                Err(failure) => {
                    for waiting in waiting {
                        let _ = waiting.answer.send(Err(failure.clone()));
                    }
                }
            }
        }
    }
}

/// Spends from the pools, together with whoever else does so now.
pub(super) async fn spend(pools: &Arc<Pools>, request: &Arc<Request>) -> Result<Answer, Failure> {
    let (sender, answer) = oneshot::channel();
    if pools.lanes.enter(Waiting { request: Arc::clone(request), answer: sender }) {
        // In a task of its own: a caller who goes away must not take the others' answers along.
        let at_work = AtWork { pools: Arc::clone(pools), org: request.org().clone(), ended: false };
        tokio::spawn(at_work.run());
    }
    match tokio::time::timeout(pools.connection.response_timeout, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => Err(Failure::TimedOut),
    }
}
