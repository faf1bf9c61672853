//! Consents, cached by id. By person and client they are only asked for where one is given.

use std::sync::Arc;

use async_trait::async_trait;

use super::Cached;
use crate::{
    audit::Event,
    consent::Consent,
    id::{OrgId, UserId},
    store::{ChangedRecord, ConsentKey, ConsentStore, Insert, Listing, Page, StoreError, Update},
};

#[async_trait]
impl ConsentStore for Cached {
    async fn insert(&self, org: &OrgId, consent: &Consent, on: &Event) -> Result<Insert, StoreError> {
        self.consents.insert(org, consent, on).await
    }

    async fn find(&self, org: &OrgId, key: ConsentKey<'_>) -> Result<Option<Arc<Consent>>, StoreError> {
        let ConsentKey::Id(id) = key else { return self.consents.find(org, key).await };
        let kept = (org.clone(), id);
        if let Some(consent) = self.kept_consents.get(&kept) {
            return Ok(Some(consent));
        }
        let reading = self.kept_consents.reading();
        let found = self.consents.find(org, key).await?;
        if let Some(consent) = &found {
            self.kept_consents.keep(reading, kept, consent);
        }
        Ok(found)
    }

    async fn update(&self, org: &OrgId, consent: &Consent, on: &Event) -> Result<Update, StoreError> {
        let change = self.consents.update(org, consent, on);
        self.change(org, ChangedRecord::Consent(consent.id), change).await
    }

    async fn list(&self, org: &OrgId, user: UserId, page: Page) -> Result<Listing<Arc<Consent>>, StoreError> {
        self.consents.list(org, user, page).await
    }
}
