//! The role that counts use.
//!
//! Charges, and what becomes of holds, are made in batches; see [`batch`]. What is only read is read here.
//!
//! | Part | What |
//! |---|---|
//! | [`batch`] | what a batch is, and the transaction that makes it |
//! | [`ledger`] | the decisions: counters and ids, as they were and as a batch leaves them |
//! | [`rows`] | how a ledger is read and written |
//! | [`optimistic`] | the short way, from memory |

mod batch;
mod ledger;
mod optimistic;
mod rows;

use async_trait::async_trait;
use lumoauth_core::{
    budget::{Account, COUNTERS, HeldLine, Hold, Meter, Resolution, Usage, Window},
    clock::Timestamp,
    id::{AgentId, OrgId},
    store::{BudgetStore, Charge, Charged, HoldId, Overdue, Resolved, StoreError},
};
use sqlx::{Row, postgres::PgRow};

use crate::{
    PostgresStore,
    values::{millis, whole},
};

pub(crate) use batch::Charges;
use batch::{Answer, Ask, Id, Job};
use ledger::{Promise, Written};

const CHARGE: &str = "budgets.charge";
const RESOLVE: &str = "budgets.resolve";
const HOLD: &str = "budgets.hold";
const LIVE: &str = "budgets.live_holds";
const OVERDUE: &str = "budgets.overdue";
const USAGE: &str = "budgets.usage";

// What is parked is known until it was freed, whatever its `keep_until` says.

const SELECT_HOLD: &str = "\
    SELECT hold FROM budget_charge \
    WHERE org_id = $1 AND actor = $2 AND key = $3 AND hold IS NOT NULL \
        AND (keep_until > $4 OR parked_until IS NOT NULL)";

const SELECT_LIVE: &str = "\
    SELECT hold FROM budget_charge \
    WHERE org_id = $1 AND actor = $2 AND live_until > $3 AND (keep_until > $3 OR parked_until IS NOT NULL) \
    LIMIT $4";

const SELECT_OVERDUE: &str = "\
    SELECT org_id, actor, key, hold FROM budget_charge \
    WHERE parked_until <= $1 \
    ORDER BY parked_until LIMIT $2";

const SELECT_USED: &str = "\
    SELECT meter, window_kind, used FROM budget_counter \
    WHERE org_id = $1 AND owner = $2 AND generation = $3 \
        AND (meter, window_kind, window_start) IN (SELECT * FROM unnest($4::smallint[], $5::smallint[], $6::bigint[]))";

#[async_trait]
impl BudgetStore for PostgresStore {
    async fn charge(&self, org: &OrgId, charge: &Charge<'_>, now: Timestamp) -> Result<Charged, StoreError> {
        let hold = charge.hold.map(|hold| Written::of(hold.of(charge.lines))).transpose();
        let hold = hold.map_err(|error| StoreError::other(CHARGE, error))?;
        let id = charge.id.map(|id| {
            let (request_hash, keep_until) = (id.request_hash, id.keep_until);
            (Id::of(id.actor, id.key), Promise { request_hash, keep_until, hold })
        });
        let ask = Ask::Charge { id, lines: charge.lines.to_vec() };
        match self.charges.submit(Job { org: org.clone(), ask, now }).await? {
            Answer::Charged(charged) => Ok(charged),
            Answer::Resolved(_) => Err(StoreError::other(CHARGE, OTHER_ANSWER)),
        }
    }

    async fn resolve(
        &self,
        org: &OrgId,
        id: Option<HoldId<'_>>,
        lines: &[HeldLine],
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<Resolved, StoreError> {
        let id = id.map(|id| Id::of(id.actor, id.key));
        let ask = Ask::Resolve { id, lines: lines.to_vec(), resolution };
        match self.charges.submit(Job { org: org.clone(), ask, now }).await? {
            Answer::Resolved(resolved) => Ok(resolved),
            Answer::Charged(_) => Err(StoreError::other(RESOLVE, OTHER_ANSWER)),
        }
    }

    async fn hold(&self, org: &OrgId, id: HoldId<'_>, now: Timestamp) -> Result<Option<Hold>, StoreError> {
        let rows = self
            .pool
            .repeatable(HOLD, || {
                sqlx::query(SELECT_HOLD)
                    .bind(org.as_str())
                    .bind(id.actor.uuid())
                    .bind(id.key.as_bytes())
                    .bind(millis(now))
            })
            .await?;
        let hold = rows.first().map(hold_of).transpose();
        hold.map_err(|error| StoreError::corrupt(HOLD, error))
    }

    async fn live_holds(
        &self,
        org: &OrgId,
        actor: AgentId,
        now: Timestamp,
        max: u32,
    ) -> Result<Vec<Hold>, StoreError> {
        let rows = self
            .pool
            .repeatable(LIVE, || {
                sqlx::query(SELECT_LIVE)
                    .bind(org.as_str())
                    .bind(actor.uuid())
                    .bind(millis(now))
                    .bind(i64::from(max))
            })
            .await?;
        let holds = rows.iter().map(hold_of).collect::<Result<_, _>>();
        holds.map_err(|error| StoreError::corrupt(LIVE, error))
    }

    async fn overdue(&self, now: Timestamp, max: u32) -> Result<Vec<Overdue>, StoreError> {
        let select = || sqlx::query(SELECT_OVERDUE).bind(millis(now)).bind(i64::from(max));
        let rows = self.pool.repeatable(OVERDUE, select).await?;
        let overdue = rows.iter().map(overdue_of).collect::<Result<_, _>>();
        overdue.map_err(|error| StoreError::corrupt(OVERDUE, error))
    }

    async fn usage(&self, org: &OrgId, account: Account, now: Timestamp) -> Result<Usage, StoreError> {
        let (meters, windows): (Vec<_>, Vec<_>) =
            COUNTERS.into_iter().map(|(meter, window)| (meter_code(meter), window_code(window))).unzip();
        let starts: Vec<_> = COUNTERS.into_iter().map(|(_, window)| millis(window.start(now))).collect();
        let rows = self
            .pool
            .repeatable(USAGE, || {
                sqlx::query(SELECT_USED)
                    .bind(org.as_str())
                    .bind(account.owner)
                    .bind(i64::from(account.generation))
                    .bind(&meters)
                    .bind(&windows)
                    .bind(&starts)
            })
            .await?;
        used_by(&rows).map_err(|error| StoreError::corrupt(USAGE, error))
    }
}

const OTHER_ANSWER: &str = "the batch answered another question";

fn hold_of(row: &PgRow) -> Result<Hold, sqlx::Error> {
    Ok(Written::read(row.try_get("hold")?)?.hold)
}

fn overdue_of(row: &PgRow) -> Result<Overdue, sqlx::Error> {
    let decode = |error| sqlx::Error::Decode(error);
    let org = OrgId::parse(row.try_get("org_id")?).map_err(|error| decode(error.into()))?;
    let key = String::from_utf8(row.try_get("key")?).map_err(|error| decode(error.into()))?;
    Ok(Overdue { org, actor: AgentId::from_uuid(row.try_get("actor")?), key, hold: hold_of(row)? })
}

fn used_by(rows: &[PgRow]) -> Result<Usage, sqlx::Error> {
    let mut usage = Usage::default();
    for row in rows {
        let used = whole(row.try_get("used")?)?;
        let counter = (row.try_get::<i16, _>("meter")?, row.try_get::<i16, _>("window_kind")?);
        for (meter, window) in COUNTERS {
            if counter == (meter_code(meter), window_code(window)) {
                match meter {
                    Meter::Tokens => usage.tokens = used,
                    Meter::Calls => usage.calls = used,
                    Meter::MicroUsd => usage.micro_usd = used,
                }
            }
        }
    }
    Ok(usage)
}

/// As the schema documents it.
const fn meter_code(meter: Meter) -> i16 {
    match meter {
        Meter::Tokens => 1,
        Meter::Calls => 2,
        Meter::MicroUsd => 3,
    }
}

/// As the schema documents it.
const fn window_code(window: Window) -> i16 {
    match window {
        Window::Hour => 1,
        Window::Day => 2,
        Window::Month => 3,
    }
}
