//! The tenants of the server: making them, and switching them off.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{ApiError, AuthorizationServer, Caller, retrying, shown::Shows, written};
use crate::{
    agent::checked_text,
    api_key::ApiKey,
    audit::{EventKind, Target},
    capability::Capability,
    id::OrgId,
    jit::{AuthorizationDetail, RiskTable},
    organization::{ActOrder, Organization},
    secret::Secret,
    store::{Insert, Page},
    wire::view,
};

impl AuthorizationServer {
    /// Makes an organization. Its signing keys are made by [`AuthorizationServer::prepare`], or with its first token.
    ///
    /// # Errors
    /// [`ApiError::Conflict`] if there is one with this id, [`ApiError::Invalid`] if the name is no text of 1 to 128 bytes.
    pub async fn create_organization(
        &self,
        org: &OrgId,
        name: &str,
        act_order: ActOrder,
        caller: &Caller,
    ) -> Result<Arc<Organization>, ApiError> {
        let now = self.now();
        let mut organization = Organization::new(org.clone(), checked_text("name", name, 1, 128)?, now);
        organization.act_order = act_order;
        let event = caller
            .event(EventKind::OrganizationCreated, format!("organization {org} created"), now)
            .on(target(&organization))
            .made(told(&organization));
        match self.stores().organizations.insert(&organization, &event).await? {
            Insert::Inserted => Ok(Arc::new(organization)),
            Insert::Taken(_) => Err(ApiError::Conflict("An organization with this id exists.")),
        }
    }

    /// Makes the API key of an organization's first administrator, with every administrative scope. `None` if the
    /// organization has a key already: further ones are for its administrators to make.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such organization or the store cannot answer.
    pub async fn create_first_api_key(
        &self,
        org: &OrgId,
        caller: &Caller,
    ) -> Result<Option<Secret>, ApiError> {
        let now = self.now();
        self.organization(org).await?;
        if self.stores().api_keys.list(org, Page::first(1)).await?.total > 0 {
            return Ok(None);
        }
        let scopes = ["admin", "authz:check"].into_iter().filter_map(|scope| Capability::parse(scope).ok());
        let (key, secret) = ApiKey::new(org, "first administrator", scopes.collect(), now);
        let event = caller
            .event(EventKind::ApiKeyCreated, "first API key created", now)
            .on(Target::new("api_key", key.number.to_string()).named(&*key.name))
            .with("scopes", json!(key.scopes))
            .made(view::api_key(&key));
        match self.stores().api_keys.insert(org, &key, &event).await? {
            Insert::Inserted => Ok(Some(secret)),
            Insert::Taken(_) => Err(ApiError::Conflict("An API key with this id exists.")),
        }
    }

    /// Switches an organization off or on. Off, none of its credentials is accepted, and nothing that was issued before
    /// works again when it is switched on.
    ///
    /// # Errors
    /// [`ApiError::TenantNotFound`] if there is none.
    pub async fn set_organization_active(
        &self,
        org: &OrgId,
        active: bool,
        caller: &Caller,
    ) -> Result<Arc<Organization>, ApiError> {
        let now = self.now();
        retrying(|| async {
            let current = self.organization(org).await?;
            let mut next = (*current).clone();
            if !next.set_active(active) {
                return Ok(Some(current));
            }
            let (kind, text) = if active {
                (EventKind::OrganizationEnabled, "organization enabled")
            } else {
                (EventKind::OrganizationDisabled, "organization disabled")
            };
            let event =
                caller.event(kind, text, now).on(target(&next)).changed(&told(&current), &told(&next));
            written(self.stores().organizations.update(&next, &event).await?, "organization", || {
                next.version += 1;
                Arc::new(next)
            })
        })
        .await
    }

    /// Up to `max` organizations with an id above `after`, by id.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn organizations(
        &self,
        after: Option<&OrgId>,
        max: u32,
    ) -> Result<Vec<Arc<Organization>>, ApiError> {
        Ok(self.stores().organizations.list(after, max).await?)
    }

    /// Says how risky types of permissions are in the organization, in place of what was said before.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such organization, or the table is too large.
    pub async fn set_risk_table(
        &self,
        org: &OrgId,
        table: &RiskTable,
        caller: &Caller,
    ) -> Result<Arc<Organization>, ApiError> {
        const MOST: usize = 256;
        let is_type = |kind: &String| {
            !crate::approval::shows_nothing(kind) && kind.len() <= AuthorizationDetail::MAX_TYPE
        };
        if table.len() > MOST || !table.keys().all(is_type) {
            let problem = "must have at most 256 types of at most 256 bytes".to_owned();
            return Err(ApiError::Invalid { member: "types", problem });
        }
        let now = self.now();
        retrying(|| async {
            let current = self.stores().uncached().organizations.find(org).await?;
            let current = current.ok_or(ApiError::TenantNotFound)?;
            caller.expects(&*current)?;
            let mut next = (*current).clone();
            if next.jit_risk == *table {
                return Ok(Some(current));
            }
            next.jit_risk.clone_from(table);
            let shown = |table: &RiskTable| serde_json::to_value(table).unwrap_or_default();
            let event = caller
                .event(EventKind::JitPolicyUpdated, "risk of permissions changed", now)
                .on(target(&current))
                .changed(&shown(&current.jit_risk), &shown(table));
            written(self.stores().organizations.update(&next, &event).await?, "organization", || {
                next.version += 1;
                Arc::new(next)
            })
        })
        .await
    }
}

/// What the log says of an organization.
fn told(organization: &Organization) -> Value {
    json!({
        "name": organization.name,
        "active": organization.is_active(),
        "act_order": organization.act_order.as_str(),
    })
}

fn target(organization: &Organization) -> Target {
    Target::new("organization", organization.id.as_str()).named(&*organization.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{Actor, Origin},
        keys::{KeyRing, KeyRingConfig, MasterKey},
        server::{Credential, Door},
        store::{MemoryStore, Stores},
    };

    fn server() -> AuthorizationServer {
        let store = Arc::new(MemoryStore::new());
        let keys = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
        AuthorizationServer::builder("https://auth.test", Stores::all(store), Arc::new(keys)).build().unwrap()
    }

    fn caller() -> Caller {
        Caller::new(Actor::system(), Origin::default())
    }

    fn acme() -> OrgId {
        OrgId::parse("acme").unwrap()
    }

    #[tokio::test]
    async fn an_organization_is_made_once_with_one_first_key() {
        let server = server();
        let create =
            async |name| server.create_organization(&acme(), name, ActOrder::Rfc8693, &caller()).await;
        assert!(matches!(create("").await, Err(ApiError::Invalid { member: "name", .. })));
        assert!(matches!(
            server.create_first_api_key(&acme(), &caller()).await,
            Err(ApiError::TenantNotFound)
        ));
        assert_eq!(create("Acme").await.unwrap().act_order, ActOrder::Rfc8693);
        assert!(matches!(create("Other").await, Err(ApiError::Conflict(_))));
        assert_eq!(&*server.organization(&acme()).await.unwrap().name, "Acme");
        assert!(server.create_first_api_key(&acme(), &caller()).await.unwrap().is_some());
        assert!(server.create_first_api_key(&acme(), &caller()).await.unwrap().is_none());
        assert_eq!(server.organizations(None, 9).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn nothing_of_a_disabled_organization_works() {
        let server = server();
        assert!(matches!(
            server.set_organization_active(&acme(), false, &caller()).await,
            Err(ApiError::TenantNotFound)
        ));
        let made = server.create_organization(&acme(), "Acme", ActOrder::default(), &caller()).await.unwrap();
        assert_eq!((made.act_order, made.epoch), (ActOrder::FirstOutermost, 0));
        let key = server.create_first_api_key(&acme(), &caller()).await.unwrap().unwrap();
        let accepted = async || {
            let organization = server.organization(&acme()).await.unwrap();
            server
                .authenticate(&organization, Credential::ApiKey(key.expose()), Door::Own, &Origin::default())
                .await
                .is_ok()
        };
        assert!(accepted().await);
        let disabled = server.set_organization_active(&acme(), false, &caller()).await.unwrap();
        assert!(!disabled.is_active() && !accepted().await);
        let again = server.set_organization_active(&acme(), false, &caller()).await.unwrap();
        assert_eq!((again.epoch, again.version), (1, disabled.version));
        let enabled = server.set_organization_active(&acme(), true, &caller()).await.unwrap();
        assert!(enabled.is_active() && accepted().await);
        // What was issued before stays dead.
        assert_eq!(enabled.epoch, 1);
    }
}
