//! What happens when Redis loses its memory, or a part of it is away: nothing is spent or accepted twice, and no more is
//! wasted than the store documents.
//!
//! `LUMOAUTH_LOSS_ROUNDS` says how many rounds of each.

mod away;
mod budgets;
mod holds;
mod moves;
mod roles;

use std::{env, sync::Arc, time::Duration};

use lumoauth_core::{
    budget::{Account, BudgetPolicy, Line, Standing, Usage, account_lines},
    clock::{Clock, SystemClock, Timestamp},
    id::{AgentId, OrgId},
    store::{BudgetStore, Charge, Charged},
};
use lumoauth_store_redis::RedisBudgets;
use tokio::task::JoinSet;

fn rounds() -> u64 {
    env::var("LUMOAUTH_LOSS_ROUNDS")
        .map_or(4, |count| count.parse().expect("LUMOAUTH_LOSS_ROUNDS is a number"))
}

fn org() -> OrgId {
    OrgId::parse("acme").unwrap()
}

fn some_account() -> Account {
    Account::agent(AgentId::generate(), 0)
}

fn now() -> Timestamp {
    SystemClock::new().now()
}

/// The time of every charge, so that none straddles two windows.
fn at() -> Timestamp {
    Timestamp::from_unix_seconds(1_790_000_000)
}

/// API calls in the hour of [`at`].
fn calls(account: Account, limit: Option<u64>, amount: u64) -> Line {
    let policy = BudgetPolicy::default();
    let [mut line] = account_lines(account, &policy, &Usage::ONE_CALL, Standing::MustFit, at())
        .try_into()
        .expect("one line for one call");
    (line.limit, line.amount) = (limit, amount);
    line
}

async fn charge(pool: &dyn BudgetStore, line: Line) -> Charged {
    pool.charge(&org(), &Charge::once(&[line]), at()).await.unwrap()
}

async fn used(store: &dyn BudgetStore, account: Account) -> u64 {
    store.usage(&org(), account, at()).await.unwrap().calls
}

/// Charges single calls until there is no room; how many were charged.
async fn drain(pool: &dyn BudgetStore, account: Account, limit: u64) -> u64 {
    let mut charged = 0;
    while let Charged::Charged(_) = charge(pool, calls(account, Some(limit), 1)).await {
        charged += 1;
    }
    charged
}

/// How many callers [`Load`] has.
const CALLERS: u64 = 16;

/// Callers that charge single calls all the while.
struct Load(JoinSet<u64>);

impl Load {
    fn start(pool: &Arc<RedisBudgets>, account: Account, limit: u64, end: tokio::time::Instant) -> Self {
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let pool = pool.clone();
            callers.spawn(async move {
                let mut acknowledged = 0;
                while tokio::time::Instant::now() < end {
                    let line = [calls(account, Some(limit), 1)];
                    match pool.charge(&org(), &Charge::once(&line), at()).await {
                        Ok(Charged::Charged(_)) => acknowledged += 1,
                        Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                    }
                }
                acknowledged
            });
        }
        Self(callers)
    }

    /// How many charges were acknowledged.
    async fn end(self) -> u64 {
        self.0.join_all().await.into_iter().sum()
    }
}
