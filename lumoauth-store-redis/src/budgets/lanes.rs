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

/// How many calls are under way per organization: while Redis works on one, the next one is prepared.
const CALLS: usize = 2;

/// Those that wait, per organization: keys of two organizations are in two slots. While there is an entry, tasks are
/// at work on it.
#[derive(Default)]
pub(super) struct Lanes(Mutex<HashMap<OrgId, Lane>>);

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    /// Tasks at work, and how many charges are in their calls.
    at_work: usize,
    called: usize,
}

pub(super) struct Waiting {
    request: Arc<Request>,
    answer: oneshot::Sender<Result<Answer, Failure>>,
}

impl Lanes {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<OrgId, Lane>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether one more task should be at work on this lane.
    fn enter(&self, waiting: Waiting) -> bool {
        self.with(|lanes| {
            let lane = match lanes.get_mut(waiting.request.org()) {
                Some(lane) => lane,
                None => lanes.entry(waiting.request.org().clone()).or_default(),
            };
            lane.waiting.push_back(waiting);
            let one_more = lane.at_work < CALLS;
            lane.at_work += usize::from(one_more);
            one_more
        })
    }

    /// The next that wait, after a call with `answered` charges; none ends the task. Whoever has gone away is left out,
    /// and is not charged.
    fn next(&self, org: &OrgId, answered: usize) -> Vec<Waiting> {
        self.with(|lanes| {
            let Some(lane) = lanes.get_mut(org) else { return Vec::new() };
            lane.called -= answered;
            // A fair share: with all of them in one call there would be none to prepare meanwhile.
            let share = (lane.waiting.len() + lane.called).div_ceil(CALLS).min(MOST);
            let mut next = Vec::with_capacity(share);
            while next.len() < share
                && let Some(waiting) = lane.waiting.pop_front()
            {
                if !waiting.answer.is_closed() {
                    next.push(waiting);
                }
            }
            lane.called += next.len();
            if next.is_empty() {
                Self::leave(lanes, org);
            }
            next
        })
    }

    fn leave(lanes: &mut HashMap<OrgId, Lane>, org: &OrgId) {
        if let Some(lane) = lanes.get_mut(org) {
            lane.at_work -= 1;
            if lane.at_work == 0 {
                lanes.remove(org);
            }
        }
    }
}

/// A task at work on a lane. If it stops early, its callers are told, and somebody else comes to work.
struct AtWork {
    pools: Arc<Pools>,
    org: OrgId,
    /// How many charges are in its call.
    called: usize,
    ended: bool,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if !self.ended {
            self.pools.lanes.with(|lanes| {
                if let Some(lane) = lanes.get_mut(&self.org) {
                    lane.called -= self.called;
                    if lane.at_work == 1 {
                        // Nobody would answer those that wait. Without an entry, the next one begins anew.
                        lane.waiting.clear();
                    }
                }
                Lanes::leave(lanes, &self.org);
            });
        }
    }
}

impl AtWork {
    async fn run(mut self) {
        loop {
            // Those that were just answered come back first, so that they are not left to the next call.
            yield_now().await;
            let waiting = self.pools.lanes.next(&self.org, self.called);
            self.called = waiting.len();
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
        let at_work =
            AtWork { pools: Arc::clone(pools), org: request.org().clone(), called: 0, ended: false };
        tokio::spawn(at_work.run());
    }
    match tokio::time::timeout(pools.connection.response_timeout, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => Err(Failure::TimedOut),
    }
}
