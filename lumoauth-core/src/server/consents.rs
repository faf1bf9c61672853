//! What people allowed, for them and for administrators to see and to take back.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{ApiError, AuthorizationServer, Caller, retrying, written};
use crate::{
    audit::{EventKind, Target},
    consent::Consent,
    id::{ClientId, OrgId, UserId},
    organization::Organization,
    principal::Principal,
    store::{ConsentKey, Listing, Page},
};

impl AuthorizationServer {
    /// The person behind `principal`, if it is one in person: an agent must not see or change what it is allowed.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`] if it is not.
    pub fn in_person(&self, principal: &Principal) -> Result<UserId, ApiError> {
        let person = principal.person().ok_or(ApiError::Forbidden("This route is for people in person."))?;
        Ok(person.id)
    }

    /// A page of what `user` allowed, by client id, also what was taken back.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn consents(
        &self,
        org: &OrgId,
        user: UserId,
        page: Page,
    ) -> Result<Listing<Arc<Consent>>, ApiError> {
        Ok(self.stores().consents.list(org, user, page).await?)
    }

    /// Takes back what `user` allowed the client with this id. Every token that stands on it is dead from now on, also when
    /// the person agrees anew. Taking back what does not hold changes nothing.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if the person never allowed it anything.
    pub async fn withdraw_consent(
        &self,
        org: &OrgId,
        user: UserId,
        client_id: &str,
        caller: &Caller,
    ) -> Result<(), ApiError> {
        let now = self.now();
        let client_id = ClientId::parse(client_id).map_err(|_| ApiError::NotFound("consent"))?;
        let consents = &self.stores().consents;
        retrying(|| async {
            let found = consents.find(org, ConsentKey::Between(user, &client_id)).await?;
            let mut consent = (*found.ok_or(ApiError::NotFound("consent"))?).clone();
            if !consent.withdraw() {
                return Ok(Some(()));
            }
            consent.updated_at = now;
            let event = caller
                .event(EventKind::ConsentRevoked, "consent taken back", now)
                .on(Target::new("client", client_id.as_str()))
                .with("user", user.to_string())
                .with("consent", consent.id.to_string());
            written(consents.update(org, &consent, &event).await?, "consent", || ())
        })
        .await
    }

    /// A consent as the API shows it, with the name of its client if there still is one.
    ///
    /// # Errors
    /// [`ApiError`] if the stores cannot answer.
    pub async fn consent_view(
        &self,
        organization: &Organization,
        consent: &Consent,
    ) -> Result<Value, ApiError> {
        let (kind, name) = self.client_name(organization, &consent.client_id).await?;
        Ok(json!({
            "id": consent.id.to_string(),
            "userId": consent.user.to_string(),
            "clientId": consent.client_id,
            "clientName": name,
            "clientKind": kind,
            "scopes": consent.scope.as_slice(),
            "active": consent.active,
            "createdAt": consent.created_at.to_string(),
            "updatedAt": consent.updated_at.to_string(),
        }))
    }

    async fn client_name(
        &self,
        organization: &Organization,
        id: &ClientId,
    ) -> Result<(&'static str, Option<String>), ApiError> {
        use crate::store::{AgentKey, ClientKey};
        let org = &organization.id;
        Ok(if id.is_app() {
            let client = self.stores().clients.find(org, ClientKey::ClientId(id)).await?;
            ("client", client.map(|client| client.name.clone()))
        } else {
            let agent = self.stores().agents.find(org, AgentKey::ClientId(id)).await?;
            ("agent", agent.map(|agent| agent.name.to_string()))
        })
    }
}
