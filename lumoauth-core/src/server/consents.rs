//! What people allowed, for them and for administrators to see and to take back.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{ApiError, AuthorizationServer, Caller, retrying, shown::Shows, written};
use crate::{
    audit::{EventKind, Target},
    consent::{Consent, Place},
    id::{ClientId, OrgId, UserId},
    organization::Organization,
    principal::{Identity, Principal},
    store::{ConsentKey, Listing, Page},
};

/// The scopes with which an application sees and takes back what its user allowed others.
const FOR_ALL: [&str; 2] = ["consents", "admin"];

/// What of a person's consents a token lets see and take back.
enum Sees<'a> {
    All,
    Only(&'a ClientId),
}

/// The person behind `principal`, if it is one in person.
fn in_person(principal: &Principal) -> Result<(UserId, Sees<'_>), ApiError> {
    match &principal.identity {
        Identity::User(person) if person.acts_in_person() => {
            let granted = principal.token_scope().unwrap_or_default();
            let all = granted.iter().any(|item| FOR_ALL.contains(&item.as_str()));
            let sees = if all { Sees::All } else { Sees::Only(person.client.client_id()) };
            Ok((person.user.id, sees))
        }
        Identity::User(_)
        | Identity::Agent(_)
        | Identity::Client(_)
        | Identity::ApiKey(_)
        | Identity::Remote(_) => Err(ApiError::Forbidden("This route is for people in person.")),
    }
}

impl AuthorizationServer {
    /// A page of what the person behind `principal` allowed, if it is one in person. An application that the person did not
    /// let see it all (scope `consents` or `admin`) is shown only what it is allowed itself.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`] if it is not: an agent must not see what it is allowed.
    pub async fn own_consents(
        &self,
        org: &OrgId,
        principal: &Principal,
        page: Page,
    ) -> Result<Listing<Arc<Consent>>, ApiError> {
        let (user, sees) = in_person(principal)?;
        let Sees::Only(client_id) = sees else { return self.consents(org, user, page).await };
        let found = self.stores().consents.find(org, ConsentKey::Between(user, client_id)).await?;
        let total = u64::from(found.is_some());
        let here = found.filter(|_| page.offset == 0 && page.limit > 0);
        Ok(Listing { items: here.into_iter().collect(), total })
    }

    /// Takes back what the person behind `principal` allowed the client with this id, as
    /// [`withdraw_consent`](Self::withdraw_consent) does. An application that the person did not let do that (scope
    /// `consents` or `admin`) can only give up what it is allowed itself.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`] if it is no person in person, [`ApiError::InsufficientScope`] for another client without that
    /// scope, and what `withdraw_consent` says.
    pub async fn withdraw_own_consent(
        &self,
        org: &OrgId,
        principal: &Principal,
        client_id: &str,
        caller: &Caller,
    ) -> Result<(), ApiError> {
        let (user, sees) = in_person(principal)?;
        if matches!(sees, Sees::Only(own) if own.as_str() != client_id) {
            let granted = principal.token_scope().unwrap_or_default().iter().map(ToString::to_string);
            return Err(ApiError::InsufficientScope {
                required: FOR_ALL.map(ToOwned::to_owned).to_vec(),
                granted: granted.collect(),
            });
        }
        self.withdraw_consent(org, user, client_id, caller).await
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
                .with("consent", consent.id.to_string())
                .changed(&json!({ "active": true }), &json!({ "active": false }));
            written(consents.update(org, &consent, &event).await?, "consent", || ())
        })
        .await
    }

    /// A consent as the API shows it, with the name of its client if there still is one. `scopes` is everything that it lists;
    /// `resources` says what of that is for MCP servers and AAuth resources, if
    /// anything is.
    ///
    /// # Errors
    /// [`ApiError`] if the stores cannot answer.
    pub async fn consent_view(
        &self,
        organization: &Organization,
        consent: &Consent,
    ) -> Result<Value, ApiError> {
        let (kind, name) = self.client_name(organization, &consent.client_id).await?;
        let mut view = json!({
            "id": consent.id.to_string(),
            "userId": consent.user.to_string(),
            "clientId": consent.client_id,
            "clientName": name,
            "clientKind": kind,
            "scopes": consent.everything().as_slice(),
            "active": consent.active,
            "createdAt": consent.created_at.to_string(),
            "updatedAt": consent.updated_at.to_string(),
        });
        if !consent.at.is_empty() {
            let at = consent.at.iter().map(|(place, scope)| match place {
                Place::Mcp(id) => json!({ "serverId": id, "scopes": scope.as_slice() }),
                Place::AAuth(id) => json!({ "resourceId": id, "scopes": scope.as_slice() }),
            });
            view["resources"] = at.collect();
        }
        Ok(view)
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
