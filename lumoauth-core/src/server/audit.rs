//! Reading the audit log. Before each read, events that wait in the outbox are sequenced, so what was
//! acknowledged is found at once.

use super::{ApiError, AuthorizationServer};
use crate::{
    id::{EventId, OrgId},
    store::{AuditFilter, AuditKey, AuditStats, Listing, LogEntry, Page, StoreError},
};

/// How many events one step of sequencing takes.
const BATCH: u32 = 1000;

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

    /// Brings every waiting event of the organization into the log.
    pub(super) async fn sequence(&self, org: &OrgId) -> Result<(), StoreError> {
        while self.stores().audit.sequence(org, BATCH).await? >= u64::from(BATCH) {}
        Ok(())
    }

    /// Copies events from backends that do not hold the log to the one that does. At least once: an event that
    /// arrives again is recognised by its id.
    pub(super) async fn move_outboxes(&self) -> Result<(), StoreError> {
        for outbox in &self.stores().outboxes {
            loop {
                let events = outbox.pending(BATCH).await?;
                for (org, event) in &events {
                    self.stores().audit.append(org, std::slice::from_ref(event)).await?;
                }
                let done: Vec<_> = events.iter().map(|(org, event)| (org.clone(), event.id)).collect();
                outbox.done(&done).await?;
                if done.len() < BATCH as usize {
                    break;
                }
            }
        }
        Ok(())
    }
}
