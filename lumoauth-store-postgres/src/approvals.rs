//! What agents ask people to allow, on PostgreSQL.

use std::sync::Arc;

use async_trait::async_trait;
use lumoauth_core::{
    approval::{Approval, ApprovalStatus, ApprovalToken, Decision},
    audit::Event,
    clock::Timestamp,
    id::{OrgId, UserId},
    store::{ApprovalStore, Consume, Decide, Listing, NewApproval, Page, StoreError},
};

use sqlx::{PgConnection, Row};

use crate::{
    PostgresStore,
    jit::lock_load,
    pool::{End, Transaction},
    records::{self, Recorded, bounds, changed, listing, millis, recorded, to_json, value},
};

const INSERT: &str = recorded!(
    "INSERT INTO approval
        (org_id, token, agent, on_behalf_of, expires_at, keep_until, open, decided, consumed, record, bounded)
    VALUES ($1, $5, $6, $7, $8, $9, NOT $10, $10, $11, $12::json, $13)
    ON CONFLICT DO NOTHING"
);

const COUNT: &str = "SELECT count(*) FROM approval WHERE org_id = $1 AND agent = $2 \
    AND on_behalf_of IS NOT DISTINCT FROM $3 AND open AND bounded AND expires_at > $4";

const FIND: &str = "SELECT record::text FROM approval WHERE org_id = $1 AND token = $2";

const DECIDE: &str = recorded!(
    "UPDATE approval SET open = false, decided = true, record = $7::json
    WHERE org_id = $1 AND token = $5 AND open AND expires_at > $6"
);

const LAPSE: &str = recorded!(
    "UPDATE approval SET open = false WHERE org_id = $1 AND token = $5 AND open AND expires_at <= $6"
);

const ENDED: &str = "SELECT record::text FROM approval WHERE org_id = $1 AND open AND expires_at <= $2 \
    ORDER BY expires_at LIMIT $3";

const CONSUME: &str = recorded!(
    "UPDATE approval SET consumed = true, record = $6::json
    WHERE org_id = $1 AND token = $5 AND decided AND NOT consumed"
);

const CONSUMED: &str = "SELECT consumed FROM approval WHERE org_id = $1 AND token = $2";

const STANDING: &str = "SELECT decided FROM approval WHERE org_id = $1 AND token = $2";

const PENDING: &str = listing!(
    "FROM approval WHERE org_id = $1 AND open AND expires_at > $2
        AND ($3::uuid IS NULL OR on_behalf_of = $3)",
    order: "expires_at, token", offset: "$4", limit: "$5"
);

#[async_trait]
impl ApprovalStore for PostgresStore {
    async fn insert(&self, org: &OrgId, approval: &Approval, on: &Event) -> Result<NewApproval, StoreError> {
        const OPERATION: &str = "approvals.insert";
        let work = Open {
            on: Recorded::new(OPERATION, org, on)?,
            org: org.clone(),
            record: to_json(OPERATION, approval)?,
            approval: approval.clone(),
        };
        self.pool.transaction(OPERATION, work).await
    }

    async fn find(&self, org: &OrgId, token: &ApprovalToken) -> Result<Option<Arc<Approval>>, StoreError> {
        let statement = || sqlx::query(FIND).bind(org.as_str()).bind(token.as_str());
        records::find(&self.pool, "approvals.find", statement).await
    }

    async fn decide(
        &self,
        org: &OrgId,
        approval: &Approval,
        decision: &Decision,
        now: Timestamp,
        on: &Event,
    ) -> Result<Decide, StoreError> {
        const OPERATION: &str = "approvals.decide";
        let on = Recorded::new(OPERATION, org, on)?;
        let record = to_json(OPERATION, &approval.with_decision(decision.clone()))?;
        let token = approval.token.as_str();
        let decide = || on.statement(DECIDE).bind(token).bind(millis(now)).bind(record.as_str());
        let pool = self.pool.one_call();
        if changed(OPERATION, &pool.change(OPERATION, decide).await?)? {
            return Ok(Decide::Decided);
        }
        // An approval that is there and was not decided had expired: one that was put there since was not there then, and
        // the caller cannot know it.
        let standing = || sqlx::query(STANDING).bind(org.as_str()).bind(token);
        let rows = pool.repeatable(OPERATION, standing).await?;
        let Some(row) = rows.first() else { return Ok(Decide::Missing) };
        Ok(if value(OPERATION, row, 0)? { Decide::AlreadyDecided } else { Decide::Expired })
    }

    async fn consume(
        &self,
        org: &OrgId,
        approval: &Approval,
        now: Timestamp,
        on: &Event,
    ) -> Result<Consume, StoreError> {
        const OPERATION: &str = "approvals.consume";
        let token = approval.token.as_str();
        let pool = self.pool.one_call();
        // What was decided stays as it is, so what was found to be agreed to still is.
        if approval.status(now) == ApprovalStatus::Approved {
            let on = Recorded::new(OPERATION, org, on)?;
            let record = to_json(OPERATION, &approval.with_consumption(now))?;
            let consume = || on.statement(CONSUME).bind(token).bind(record.as_str());
            if changed(OPERATION, &pool.change(OPERATION, consume).await?)? {
                return Ok(Consume::Consumed);
            }
        }
        let consumed = || sqlx::query(CONSUMED).bind(org.as_str()).bind(token);
        let rows = pool.repeatable(OPERATION, consumed).await?;
        let Some(row) = rows.first() else { return Ok(Consume::Missing) };
        Ok(if value(OPERATION, row, 0)? { Consume::AlreadyConsumed } else { Consume::NotApproved })
    }

    async fn ended(&self, org: &OrgId, now: Timestamp, max: u32) -> Result<Vec<Arc<Approval>>, StoreError> {
        const OPERATION: &str = "approvals.ended";
        let ended = || sqlx::query(ENDED).bind(org.as_str()).bind(millis(now)).bind(i64::from(max));
        let rows = self.pool.one_call().repeatable(OPERATION, ended).await?;
        rows.iter()
            .map(|row| records::from_json(OPERATION, value(OPERATION, row, 0)?).map(Arc::new))
            .collect()
    }

    async fn lapse(
        &self,
        org: &OrgId,
        approval: &Approval,
        now: Timestamp,
        on: &Event,
    ) -> Result<bool, StoreError> {
        const OPERATION: &str = "approvals.lapse";
        let on = Recorded::new(OPERATION, org, on)?;
        let lapse = || on.statement(LAPSE).bind(approval.token.as_str()).bind(millis(now));
        changed(OPERATION, &self.pool.one_call().change(OPERATION, lapse).await?)
    }

    async fn pending(
        &self,
        org: &OrgId,
        user: Option<UserId>,
        now: Timestamp,
        page: Page,
    ) -> Result<Listing<Arc<Approval>>, StoreError> {
        let (offset, limit) = bounds(page);
        let user = user.map(UserId::uuid);
        let statement = || {
            let statement = sqlx::query(PENDING).bind(org.as_str()).bind(millis(now));
            statement.bind(user).bind(offset).bind(limit)
        };
        records::list(&self.pool, "approvals.pending", statement).await
    }
}

/// An approval is opened, if not too many wait.
struct Open {
    org: OrgId,
    approval: Approval,
    record: String,
    on: Recorded,
}

impl Transaction for Open {
    type Answer = NewApproval;

    async fn run(&self, connection: &mut PgConnection) -> Result<End<NewApproval>, sqlx::Error> {
        let Self { org, approval, record, on } = self;
        let (agent, user) = (approval.agent.uuid(), approval.on_behalf_of.map(UserId::uuid));
        // The agent asks one after the other, so that each of its requests counts what the others wrote.
        lock_load(connection, org, approval.agent).await?;
        let insert = on
            .statement(INSERT)
            .bind(approval.token.as_str())
            .bind(agent)
            .bind(user)
            .bind(millis(approval.expires_at))
            .bind(millis(approval.keep_until()))
            .bind(approval.decision.is_some())
            .bind(approval.consumed_at.is_some())
            .bind(record.as_str())
            .bind(approval.is_bounded());
        let inserted: i64 = insert.fetch_one(&mut *connection).await?.try_get(0)?;
        if inserted == 0 {
            return Ok(End::RollBack(NewApproval::Taken));
        }
        if !approval.is_bounded() {
            return Ok(End::Commit(NewApproval::Inserted));
        }
        let count = sqlx::query(COUNT).bind(org.as_str()).bind(agent).bind(user);
        let count = count.bind(millis(approval.created_at)).fetch_one(connection).await?;
        if count.try_get::<i64, _>(0)? > i64::from(Approval::MAX_PENDING) {
            return Ok(End::RollBack(NewApproval::TooMany));
        }
        Ok(End::Commit(NewApproval::Inserted))
    }
}
