//! The shared budget pool: slices are debited in the durable store first and spent in Redis.

mod request;
mod slices;

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use lumoauth_core::{
    budget::{Account, COUNTERS, Meter, Usage},
    clock::Timestamp,
    id::OrgId,
    random::random_number,
    store::{BudgetStore, Charge, Charged, StoreError},
};
use redis::Value;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{RedisStore, connection::Connection, error::Failure, keys, script};
use request::{Answer, Credits, Request, Shortage, counter};

/// How long one charge may take in all, slices included.
const DEADLINE: Duration = Duration::from_secs(3);

/// How long to wait while another process fetches a slice for the same account.
const POLL: Duration = Duration::from_millis(2);

/// How many accounts can have their slices fetched at once by this process, at most.
const TURNS: usize = 64;

const CHARGING: &str = "charging a budget in Redis";

/// Budgets in Redis, in front of a durable store.
///
/// Units are debited in the durable store first, a slice at a time, and then spent in Redis, with one round trip per
/// charge. So losing Redis wastes what is left of the slices, and never overspends. One pool is shared by all
/// processes: a limit is kept exactly, to the last unit.
///
/// If Redis cannot be asked, a charge fails; there is no way around it to the durable store, since a charge whose
/// outcome is unknown could then be made twice under one id. A charge without id whose outcome is unknown counts as
/// made. [`usage`](BudgetStore::usage) then answers with what the durable store shows, which is an upper bound.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use lumoauth_core::store::{MemoryStore, Stores};
/// use lumoauth_store_redis::{RedisBudgets, RedisStore, Settings};
///
/// # async fn compose() -> Result<(), Box<dyn std::error::Error>> {
/// let durable = Arc::new(MemoryStore::new()); // in earnest: PostgreSQL
/// let redis = RedisStore::connect("redis://127.0.0.1/", Settings::default()).await?;
/// let budgets = Arc::new(RedisBudgets::new(&redis, durable.clone()));
/// let stores = Stores { budgets, ..Stores::all(durable) };
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisBudgets(Arc<Pools>);

struct Pools {
    connection: Connection,
    durable: Arc<dyn BudgetStore>,
    /// Callers of this process that need a slice of one account stand in line here, so that they do not all ask Redis
    /// whose turn it is. Only an economy: Redis decides.
    turns: [Mutex<()>; TURNS],
}

impl RedisBudgets {
    /// Spends in `redis` what is debited in `durable`.
    pub fn new(redis: &RedisStore, durable: Arc<dyn BudgetStore>) -> Self {
        let turns = [const { Mutex::const_new(()) }; TURNS];
        Self(Arc::new(Pools { connection: redis.connection().clone(), durable, turns }))
    }
}

impl fmt::Debug for RedisBudgets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBudgets")
            .field("connection", &self.0.connection)
            .field("durable", &self.0.durable)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BudgetStore for RedisBudgets {
    async fn charge(&self, org: &OrgId, charge: &Charge<'_>, now: Timestamp) -> Result<Charged, StoreError> {
        let request = Request::new(org, charge, now)?;
        if request.is_nothing() {
            return Ok(Charged::Charged(Vec::new()));
        }
        if let Answer::Done(charged) = self.0.spend(&request, "", None).await? {
            return Ok(charged);
        }
        // In a task of its own, so that a caller who goes away does not leave a slice that nobody brings to Redis.
        let pools = Arc::clone(&self.0);
        let task = tokio::spawn(async move { pools.fetch_and_spend(request).await });
        match timeout(DEADLINE, task).await {
            Ok(Ok(charged)) => charged,
            Ok(Err(stopped)) => Err(StoreError::unavailable(CHARGING, stopped)),
            Err(_) => Err(Failure::TimedOut.during(CHARGING)),
        }
    }

    async fn usage(&self, org: &OrgId, account: Account, now: Timestamp) -> Result<Usage, StoreError> {
        // In this order a slice that is fetched meanwhile shows as used, and is not subtracted without having been
        // added.
        let left = self.0.left(org, account, now).await.unwrap_or_else(|failure| {
            tracing::debug!(%failure, "usage is shown as an upper bound");
            Vec::new()
        });
        let mut usage = self.0.durable.usage(org, account, now).await?;
        for ((meter, _), left) in COUNTERS.into_iter().zip(left) {
            let used = match meter {
                Meter::Tokens => &mut usage.tokens,
                Meter::Calls => &mut usage.calls,
                Meter::MicroUsd => &mut usage.micro_usd,
            };
            *used = used.saturating_sub(left);
        }
        Ok(usage)
    }
}

impl Pools {
    async fn spend(
        &self,
        request: &Request,
        token: &str,
        credits: Option<&Credits>,
    ) -> Result<Answer, StoreError> {
        let answer: Result<Vec<Value>, _> = self.connection.call(&request.call(token, credits)).await;
        answer.and_then(|answer| request.read(answer)).map_err(|failure| failure.during(CHARGING))
    }

    /// Charges a request whose pools were short.
    async fn fetch_and_spend(&self, mut request: Request) -> Result<Charged, StoreError> {
        let deadline = Instant::now() + DEADLINE;
        let turn = &self.turns[request.shard() % TURNS];
        let _turn =
            timeout_at(deadline, turn.lock()).await.map_err(|_| Failure::TimedOut.during(CHARGING))?;
        let token = format!("{:x}", random_number());
        let mut credits = None;
        while Instant::now() < deadline {
            match self.spend(&request, &token, credits.take().as_ref()).await? {
                Answer::Done(charged) => return Ok(request.with_passed(charged)),
                Answer::Busy => sleep(POLL).await,
                Answer::Short(shortage) => match self.fetch(&mut request, &shortage).await {
                    Ok(fetched) => credits = Some(fetched),
                    Err(error) => {
                        self.give_up(&request, &token).await;
                        return Err(error);
                    }
                },
            }
        }
        self.give_up(&request, &token).await;
        Err(Failure::TimedOut.during(CHARGING))
    }

    /// Debits a slice for every line that is short, or learns which of them has no room.
    async fn fetch(&self, request: &mut Request, shortage: &Shortage) -> Result<Credits, StoreError> {
        let mut wanted = request.wanted(shortage);
        loop {
            let lines = request.slices(&wanted);
            // Without an id: a slice whose debit has an unknown outcome is waste.
            match self.durable.charge(request.org(), &Charge::once(&lines), request.now()).await? {
                Charged::Charged(counters) => return Ok(request.credits(shortage, &wanted, &counters)),
                Charged::Exceeded { line, used } => {
                    let Some(slice) = wanted.get_mut(line) else {
                        return Err(Failure::Unreadable.during(CHARGING));
                    };
                    if !slice.shrink(used) {
                        return Ok(slice.exhausted(shortage, used));
                    }
                }
                Charged::Repeated | Charged::Conflict => return Err(Failure::Unreadable.during(CHARGING)),
            }
        }
    }

    async fn give_up(&self, request: &Request, token: &str) {
        let release = script::RELEASE.call(request.pools(), vec![token.as_bytes().to_vec()]);
        let released: Result<Value, _> = self.connection.call(&release).await;
        if let Err(failure) = released {
            // The turn ends by itself a second after it began.
            tracing::debug!(%failure, "could not end a turn to fetch slices");
        }
    }

    /// What is left in the pool of `account`, per counter; nothing if it is void.
    async fn left(&self, org: &OrgId, account: Account, now: Timestamp) -> Result<Vec<u64>, Failure> {
        let fields = COUNTERS
            .into_iter()
            .map(|(meter, window)| format!("l{}", counter(meter, window, window.start(now))).into_bytes());
        let args = std::iter::once(b"r".to_vec()).chain(fields).collect();
        self.connection.call(&script::LEFT.call(vec![keys::pool(org, account)], args)).await
    }
}

/// Which of the turns `account` has.
fn shard(org: &OrgId, account: Account) -> usize {
    let mut hasher = DefaultHasher::new();
    (org, account).hash(&mut hasher);
    usize::try_from(hasher.finish() % (TURNS as u64)).unwrap_or_default()
}
