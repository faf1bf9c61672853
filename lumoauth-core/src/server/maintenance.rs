//! Periodic work, as one future that the host spawns.

use std::{future::Future, time::Duration};

use futures_timer::Delay;
use futures_util::future::join4;

use super::AuthorizationServer;
use crate::{id::OrgId, store::StoreError};

/// How long after a round of telling others the next one begins.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How often waiting audit events are moved and numbered.
const AUDIT_EVERY: Duration = Duration::from_secs(1);

/// How many of those rounds lie between two rounds of purging and key rotation.
const ROUNDS_BETWEEN_UPKEEP: u32 = 60;

/// How many organizations are asked for at a time.
const ORGANIZATIONS: u32 = 1000;

/// How many times one round asks for organizations: purging must have its turn, however much others write.
const MAX_AUDIT_STEPS: u32 = 100;

/// The most rows that one step of purging drops.
const PURGE_BATCH: u32 = 1000;

impl AuthorizationServer {
    /// All periodic work: moving and numbering audit events, signing heads of logs, freeing reservations that nobody decided
    /// about, telling callbacks and people, purging, making and rotating keys, syncing clocks, and hearing what other servers
    /// changed. It never ends; spawn it.
    ///
    /// A server without it stays correct, only untidy: expiry is decided when something is read, and audit reads
    /// number what waits.
    pub fn maintenance(&self) -> impl Future<Output = ()> + Send + 'static {
        let server = self.clone();
        async move {
            // Beside each other: how long others take to answer holds up nothing of ours.
            join4(server.rounds(), server.follow_changes(), server.calling_back(), server.telling()).await;
        }
    }

    async fn calling_back(&self) {
        loop {
            if let Err(error) = self.deliver_callbacks().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot deliver callbacks");
            }
            Delay::new(TELL_EVERY).await;
        }
    }

    async fn telling(&self) {
        loop {
            while self.deliver_notices().await {}
            Delay::new(TELL_EVERY).await;
        }
    }

    async fn follow_changes(&self) {
        if let Some(cached) = &self.stores().cached {
            cached.follow().await;
        }
    }

    async fn rounds(&self) {
        for round in 0u32.. {
            if let Err(error) = self.audit_round().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "audit maintenance failed");
            }
            if let Err(error) = self.expire_parked().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot free parked reservations");
            }
            let upkeep = round % ROUNDS_BETWEEN_UPKEEP == 0;
            if upkeep {
                self.upkeep_round().await;
            }
            if let Err(error) = self.sign_heads(upkeep).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot find audit logs to sign");
            }
            Delay::new(AUDIT_EVERY).await;
        }
    }

    /// One round of everything, now: what [`AuthorizationServer::maintenance`] does over time.
    ///
    /// # Errors
    /// The first [`StoreError`]: reservations cannot be freed, callbacks cannot be tried, an audit log cannot be brought up
    /// to date, of all organizations or of one, or logs to sign cannot be found. What can be done is done all the same.
    pub async fn maintain_once(&self) -> Result<(), StoreError> {
        self.upkeep_round().await;
        let freed = self.expire_parked().await;
        let told = self.deliver_callbacks().await;
        let _more = self.deliver_notices().await;
        let numbered = self.audit_round().await;
        let signed = self.sign_heads(true).await;
        freed.and(told).and(numbered).and(signed)
    }

    /// Does what can be done, whatever fails, and returns the first failure.
    async fn audit_round(&self) -> Result<(), StoreError> {
        let mut failed = None;
        for outbox in &self.stores().outboxes {
            if let Err(error) = self.move_events(&**outbox).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot move audit events");
                failed.get_or_insert(error);
            }
        }
        for _ in 0..MAX_AUDIT_STEPS {
            let orgs = self.stores().audit.waiting(ORGANIZATIONS).await?;
            let mut moved = 0;
            for org in &orgs {
                match self.sequence(org).await {
                    Ok(events) => moved += events,
                    Err(error) => {
                        let cause = &error as &dyn std::error::Error;
                        tracing::warn!(error = cause, %org, "cannot number audit events");
                        failed.get_or_insert(error);
                    }
                }
            }
            // Somebody else may be numbering them, or nobody can: either way there is another round.
            if orgs.len() < ORGANIZATIONS as usize || moved == 0 {
                break;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn upkeep_round(&self) {
        for store in &self.stores().upkeep {
            if let Err(error) = store.ping().await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, store = store.name(), "the store does not answer");
                continue;
            }
            loop {
                match store.purge(self.now(), PURGE_BATCH).await {
                    Ok(dropped) if dropped >= u64::from(PURGE_BATCH) => {}
                    Ok(_) => break,
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, store = store.name(), "purge failed");
                        break;
                    }
                }
            }
        }
        self.sweep_policies().await;
        let now = self.now();
        match self.all_organizations().await {
            Ok(orgs) => {
                for org in orgs {
                    if let Err(error) = self.inner.keys.maintain(&org, now).await {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, %org, "key maintenance failed");
                    }
                    if let Err(error) = self.tell_ended_approvals(&org, now).await {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, %org, "cannot tell which approvals have ended");
                    }
                    if let Err(error) = self.drop_old_bodies(&org, now).await {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, %org, "audit retention failed");
                    }
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot list organizations");
            }
        }
    }

    async fn all_organizations(&self) -> Result<Vec<OrgId>, StoreError> {
        let mut ids: Vec<OrgId> = Vec::new();
        loop {
            let page = self.stores().organizations.list(ids.last(), ORGANIZATIONS).await?;
            ids.extend(page.iter().map(|organization| organization.id.clone()));
            if page.len() < ORGANIZATIONS as usize {
                return Ok(ids);
            }
        }
    }
}

#[cfg(test)]
mod tests;
