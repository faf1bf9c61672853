//! Slices: debited in the durable store by one caller at a time, and brought to Redis.

use std::{sync::Arc, time::Duration};

use lumoauth_core::{
    random::random_number,
    store::{Charge, Charged, StoreError},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    CHARGING, DEADLINE, Pools, TURNS,
    batch::Batch,
    lanes,
    request::{Answer, Outcome, Request, Shortage},
    slices::Credit,
};
use crate::error::Failure;

/// How long to wait while another process fetches a slice for the same account.
const POLL: Duration = Duration::from_millis(2);

/// A caller that fetches slices, and what it brings.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) token: u64,
    /// Whose memory the slices were asked for.
    pub(super) memory: String,
    pub(super) credits: Vec<Credit>,
}

/// How often callers wait for somebody else's slice and try again together, before each stands in line.
const TOGETHER: u32 = 8;

/// Charges a request whose pools were short.
pub(super) async fn fetch_and_spend(pools: Arc<Pools>, request: Arc<Request>) -> Result<Outcome, StoreError> {
    let deadline = Instant::now() + DEADLINE;
    let line = &pools.turns[request.shard() % TURNS];
    let in_line =
        async || timeout_at(deadline, line.lock()).await.map_err(|_| Failure::TimedOut.during(CHARGING));
    for _ in 0..TOGETHER {
        if line.try_lock().is_ok() {
            break;
        }
        // What is brought now is mostly enough for many: in line each of them would make a call of its own to find out.
        drop(in_line().await?);
        let answer = lanes::spend(&pools, &request).await.map_err(|failure| failure.during(CHARGING))?;
        if let Answer::Done(outcome) = answer {
            return Ok(outcome);
        }
    }
    let _turn = in_line().await?;
    let mut request = Request::clone(&request);
    let mut turn = Turn { token: random_number(), ..Turn::default() };
    while Instant::now() < deadline {
        let answer =
            pools.spend_in_turn(&request, &turn).await.map_err(|failure| failure.during(CHARGING))?;
        // They are brought once.
        turn.credits.clear();
        match answer {
            Answer::Done(outcome) => return Ok(request.with_passed(outcome)),
            Answer::Busy => sleep(POLL).await,
            Answer::Short(shortage) => match pools.fetch(&mut request, &shortage, deadline).await {
                Ok(credits) => (turn.memory, turn.credits) = (shortage.memory, credits),
                Err(error) => {
                    pools.give_up(&request, &turn).await;
                    return Err(error);
                }
            },
        }
    }
    // What was debited last is brought all the same: others can use it.
    pools.give_up(&request, &turn).await;
    Err(Failure::TimedOut.during(CHARGING))
}

impl Pools {
    async fn spend_in_turn(&self, request: &Request, turn: &Turn) -> Result<Answer, Failure> {
        let mut batch = Batch::default();
        batch.charge(request, Some(turn));
        request.read(self.call(batch, 1).await?.remove(0))
    }

    /// Debits a slice for every line that is short, or learns which of them has no room.
    async fn fetch(
        &self,
        request: &mut Request,
        shortage: &Shortage,
        deadline: Instant,
    ) -> Result<Vec<Credit>, StoreError> {
        let mut wanted = request.wanted(shortage);
        loop {
            let lines = request.slices(&wanted);
            // Without an id: a slice whose debit has an unknown outcome is waste.
            let charge = Charge::once(&lines);
            let debit = self.durable.charge(request.org(), &charge, request.now());
            match timeout_at(deadline, debit).await.map_err(|_| Failure::TimedOut.during(CHARGING))?? {
                Charged::Charged(counters) => return Ok(request.credits(&wanted, &counters)),
                Charged::Exceeded { line, used } => {
                    let Some(slice) = wanted.get_mut(line) else {
                        return Err(Failure::Unreadable.during(CHARGING));
                    };
                    if !slice.shrink(used) {
                        return Ok(vec![slice.exhausted(used)]);
                    }
                }
                Charged::Repeated | Charged::Conflict => return Err(Failure::Unreadable.during(CHARGING)),
            }
        }
    }

    async fn give_up(&self, request: &Request, turn: &Turn) {
        let mut batch = Batch::default();
        batch.release(request, turn);
        if let Err(failure) = self.call(batch, 1).await {
            // The turn ends by itself a second after it began.
            tracing::debug!(%failure, "could not end a turn to fetch slices");
        }
    }
}
