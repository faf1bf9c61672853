//! The shared budget pool: slices are debited in the durable store first and spent in Redis.

mod batch;
mod fetch;
mod holds;
mod lanes;
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
    budget::{Account, COUNTERS, HeldLine, Hold, Meter, Resolution, Usage},
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{BudgetStore, Charge, Charged, HoldId, Overdue, Resolved, StoreError},
};
use redis::Value;
use tokio::{sync::Mutex, time::timeout};

use crate::{RedisStore, connection::Connection, error::Failure, keys, script};
use batch::{Batch, Counter};
use lanes::Lanes;
use request::{Answer, Outcome, Request};

/// How long it may take to fetch slices for one charge.
const DEADLINE: Duration = Duration::from_secs(3);

/// How many accounts can have their slices fetched at once by this process, at most.
const TURNS: usize = 64;

const CHARGING: &str = "charging a budget in Redis";
const READING: &str = "reading holds in Redis";

/// Budgets in Redis, in front of a durable store.
///
/// Units are debited in the durable store first, a slice at a time, and then spent in Redis, with one round trip that
/// concurrent charges of an organization share. So losing Redis wastes what is left of the slices, and never overspends;
/// the crate's documentation says how much that is at most. One pool is shared by all processes: a limit is kept
/// exactly, to the last unit.
///
/// Holds live in Redis only. A hold that Redis has lost is unknown, and its amount counts as used. What was used beyond a
/// hold and the pool is debited in the durable store before it is acknowledged.
///
/// A caller may go away at any time: its charge is then made once, or not at all.
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
    lanes: Lanes,
    /// Callers of this process that need a slice of one account stand in line here, so that they do not all ask Redis
    /// whose turn it is. Only an economy: Redis decides.
    turns: [Mutex<()>; TURNS],
}

impl RedisBudgets {
    /// Spends in `redis` what is debited in `durable`.
    pub fn new(redis: &RedisStore, durable: Arc<dyn BudgetStore>) -> Self {
        let connection = redis.connection().clone();
        let turns = [const { Mutex::const_new(()) }; TURNS];
        Self(Arc::new(Pools { connection, durable, lanes: Lanes::default(), turns }))
    }
}

impl RedisBudgets {
    async fn make(&self, request: Request) -> Result<Outcome, StoreError> {
        let request = Arc::new(request);
        let answer = lanes::spend(&self.0, &request).await.map_err(|failure| failure.during(CHARGING))?;
        if let Answer::Done(outcome) = answer {
            return Ok(outcome);
        }
        // In a task of its own, so that a caller who goes away does not leave a slice that nobody brings to Redis.
        let task = tokio::spawn(fetch::fetch_and_spend(Arc::clone(&self.0), request));
        match timeout(DEADLINE, task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(stopped)) => Err(StoreError::unavailable(CHARGING, stopped)),
            Err(_) => Err(Failure::TimedOut.during(CHARGING)),
        }
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
        if request.id().is_some_and(request::Id::is_parked) {
            self.0.list(org).await.map_err(|failure| failure.during(CHARGING))?;
        }
        self.make(request).await?.charged().map_err(|failure| failure.during(CHARGING))
    }

    async fn resolve(
        &self,
        org: &OrgId,
        id: Option<HoldId<'_>>,
        lines: &[HeldLine],
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<Resolved, StoreError> {
        let plan =
            match holds::plan(id, lines, resolution, now).map_err(|failure| failure.during(CHARGING))? {
                Ok(plan) => plan,
                Err(state) => return Ok(Resolved::Stays(state)),
            };
        let request = Request::ending(org, lines, plan, now)?;
        self.make(request).await?.resolved().map_err(|failure| failure.during(CHARGING))
    }

    async fn hold(&self, org: &OrgId, id: HoldId<'_>, now: Timestamp) -> Result<Option<Hold>, StoreError> {
        self.0.hold(org, id, now).await.map_err(|failure| failure.during(READING))
    }

    async fn live_holds(
        &self,
        org: &OrgId,
        actor: AgentId,
        now: Timestamp,
        max: u32,
    ) -> Result<Vec<Hold>, StoreError> {
        self.0.live_holds(org, actor, now, max).await.map_err(|failure| failure.during(READING))
    }

    async fn overdue(&self, now: Timestamp, max: u32) -> Result<Vec<Overdue>, StoreError> {
        self.0.overdue(now, max).await.map_err(|failure| failure.during(READING))
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
    /// The answers to the charges of `batch`, one per charge.
    async fn call(&self, batch: Batch, charges: usize) -> Result<Vec<Vec<Value>>, Failure> {
        let answers: Vec<Vec<Value>> = self.connection.call(&batch.call()?).await?;
        if answers.len() == charges { Ok(answers) } else { Err(Failure::Unreadable) }
    }

    /// What is left in the pool of `account`, per counter; nothing if it is void.
    async fn left(&self, org: &OrgId, account: Account, now: Timestamp) -> Result<Vec<u64>, Failure> {
        let names = COUNTERS
            .into_iter()
            .map(|(meter, window)| Counter(meter, window, window.start(now)).to_string().into_bytes());
        let call = script::LEFT.call(vec![keys::pool(org, account)], names.collect());
        self.connection.call(&call).await
    }
}

/// Which of the turns `account` has.
fn shard(org: &OrgId, account: Account) -> usize {
    let mut hasher = DefaultHasher::new();
    (org, account).hash(&mut hasher);
    usize::try_from(hasher.finish() % (TURNS as u64)).unwrap_or_default()
}
