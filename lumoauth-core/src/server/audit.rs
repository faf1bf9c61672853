//! Reading the audit log. Before each read, events that wait in the outbox are sequenced, so what was
//! acknowledged is found at once.

use std::collections::BTreeMap;

use super::{ApiError, AuthorizationServer};
use crate::{
    audit::Event,
    id::{EventId, OrgId},
    store::{AuditFilter, AuditKey, AuditStats, Listing, LogEntry, Outbox, Page, StoreError},
};

/// How many events one step of sequencing takes.
const BATCH: u32 = 1000;

/// How many steps one call takes at most.
const MAX_STEPS: u32 = 100;

impl AuthorizationServer {
    /// A page of the entries that match, newest first.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn audit_log(
        &self,
        org: &OrgId,
        filter: &AuditFilter,
        page: Page,
    ) -> Result<Listing<LogEntry>, ApiError> {
        self.sequence(org).await?;
        Ok(self.stores().audit.page(org, filter, page).await?)
    }

    /// The entry with this number or event id.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn audit_entry(&self, org: &OrgId, name: &str) -> Result<LogEntry, ApiError> {
        let key = match (name.parse(), EventId::parse(name)) {
            (Ok(seq), _) => AuditKey::Seq(seq),
            (_, Ok(id)) => AuditKey::Event(id),
            _ => return Err(ApiError::NotFound("audit entry")),
        };
        self.sequence(org).await?;
        self.stores().audit.find(org, key).await?.ok_or(ApiError::NotFound("audit entry"))
    }

    /// Whether the log has this entry.
    pub(super) async fn audit_has(&self, org: &OrgId, key: AuditKey) -> Result<bool, StoreError> {
        self.sequence(org).await?;
        Ok(self.stores().audit.find(org, key).await?.is_some())
    }

    /// How many entries match, by kind and severity.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn audit_stats(&self, org: &OrgId, filter: &AuditFilter) -> Result<AuditStats, ApiError> {
        self.sequence(org).await?;
        Ok(self.stores().audit.stats(org, filter).await?)
    }

    /// Brings the waiting events of the organization into the log and returns how many they were. Others may add more
    /// all the time, so it does not go on for ever: what waited when it was called is a few steps, unless maintenance
    /// has not run for long.
    pub(super) async fn sequence(&self, org: &OrgId) -> Result<u64, StoreError> {
        let mut moved = 0;
        for _ in 0..MAX_STEPS {
            let step = self.stores().audit.sequence(org, BATCH).await?;
            moved += step;
            if step < u64::from(BATCH) {
                break;
            }
        }
        Ok(moved)
    }

    /// Copies events from a backend that does not hold the log to the one that does. At least once: an event that
    /// arrives again is recognised by its id.
    pub(super) async fn move_events(&self, outbox: &dyn Outbox) -> Result<(), StoreError> {
        for _ in 0..MAX_STEPS {
            let events = outbox.pending(BATCH).await?;
            let full = events.len() >= BATCH as usize;
            let mut by_org: BTreeMap<OrgId, Vec<Event>> = BTreeMap::new();
            for (org, event) in events {
                by_org.entry(org).or_default().push(event);
            }
            let mut done = Vec::new();
            for (org, events) in by_org {
                self.stores().audit.append(&org, &events).await?;
                done.extend(events.iter().map(|event| (org.clone(), event.id)));
            }
            outbox.done(&done).await?;
            if !full {
                break;
            }
        }
        Ok(())
    }
}
