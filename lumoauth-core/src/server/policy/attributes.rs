//! Attributes: what there are, and what they are of people, agents and resources.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ApiError, AuthorizationServer, Caller, Plan, Shows, description, invalid, label, require_scope};
use crate::{
    agent::checked_text,
    audit::{EventKind, Target},
    authorize::person_claims,
    capability::Scope,
    id::{Label, Number, OrgId},
    policy::{
        AttributeDefinition, AttributeKind, AttributeOwner, AttributeValue, DataType, Entry, Holder, Snapshot,
    },
    principal::{Identity, Principal},
    server::{RequestFacts, authz::reads_permissions},
};

/// The members of an attribute's definition. Absent and `null` leave a member as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AttributeRequest {
    /// Display name.
    pub name: Option<String>,
    /// Its name in policies; it never changes.
    pub slug: Option<String>,
    /// What it means.
    pub description: Option<String>,
    /// Of what it is one: `user`, `agent`, `resource` or `environment`; it never changes.
    #[serde(alias = "attribute_type", alias = "type")]
    pub attribute_type: Option<String>,
    /// What its values are.
    #[serde(alias = "data_type")]
    pub data_type: Option<String>,
    /// Not enforced.
    #[serde(alias = "validation_rules")]
    pub validation_rules: Option<Value>,
    /// Not enforced.
    #[serde(alias = "default_value")]
    pub default_value: Option<Value>,
    /// Not enforced.
    #[serde(alias = "is_required")]
    pub is_required: Option<bool>,
}

/// The attributes of a resource.
pub type ResourceAttributes = Map<String, Value>;

/// The longest value, as JSON, in bytes.
const MAX_VALUE: usize = 16 * 1024;

impl AuthorizationServer {
    /// Every attribute, or those of one kind.
    ///
    /// # Errors
    /// [`ApiError`] if the store cannot answer.
    pub async fn attributes(
        &self,
        org: &OrgId,
        kind: Option<AttributeKind>,
    ) -> Result<Vec<AttributeDefinition>, ApiError> {
        self.with_policy(org, |snapshot| {
            snapshot.attributes().filter(|it| kind.is_none_or(|kind| it.kind == kind)).cloned().collect()
        })
        .await
    }

    /// The attribute with this id, or `kind:slug`.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn attribute(&self, org: &OrgId, name: &str) -> Result<AttributeDefinition, ApiError> {
        self.with_policy(org, |snapshot| found(snapshot, name).cloned()).await?
    }

    /// Defines an attribute.
    ///
    /// # Errors
    /// [`ApiError`] if a member is not acceptable or the slug is taken.
    pub async fn create_attribute(
        &self,
        org: &OrgId,
        request: &AttributeRequest,
        caller: &Caller,
    ) -> Result<AttributeDefinition, ApiError> {
        let kind = request.attribute_type.as_deref().unwrap_or("user");
        let kind = AttributeKind::named(kind)
            .ok_or_else(|| invalid("attributeType", "must be user, agent, resource or environment"))?;
        let name = request.name.as_deref().or(request.slug.as_deref()).unwrap_or_default();
        let name = checked_text("name", name, 1, 128)?;
        let slug = label("slug", request.slug.as_deref(), &name)?;
        if slug.as_str().contains('.') {
            return Err(invalid("slug", "must not contain a dot: that goes into values"));
        }
        if Snapshot::is_built_in(kind, &slug) {
            return Err(invalid("slug", "is a fact of its own"));
        }
        let mut definition = AttributeDefinition::new(kind, slug, name, self.now());
        change(&mut definition, request)?;
        let plan = |snapshot: &Snapshot| {
            if snapshot.attribute(kind, &definition.slug).is_some() {
                return Err(ApiError::Conflict("An attribute with this slug exists."));
            }
            let plan = Plan::new(
                EventKind::AttributeCreated,
                "attribute defined",
                target(&definition),
                definition.clone(),
            );
            Ok(plan.made(definition.view()).insert(&Entry::Attribute(definition.clone())))
        };
        self.change_policy(org, caller, plan).await.map(|(definition, _)| definition)
    }

    /// Changes the definition of an attribute.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such attribute or a member is not acceptable.
    pub async fn update_attribute(
        &self,
        org: &OrgId,
        name: &str,
        request: &AttributeRequest,
        caller: &Caller,
    ) -> Result<AttributeDefinition, ApiError> {
        let plan = |snapshot: &Snapshot| {
            let old = found(snapshot, name)?;
            caller.expects(old)?;
            let mut definition = old.clone();
            let fixed = |given: &Option<String>, own: &str| given.as_deref().is_none_or(|given| given == own);
            if !fixed(&request.slug, old.slug.as_str()) || !fixed(&request.attribute_type, old.kind.as_str())
            {
                return Err(invalid("slug", "and attributeType never change"));
            }
            change(&mut definition, request)?;
            let plan =
                Plan::new(EventKind::AttributeUpdated, "attribute changed", target(old), definition.clone());
            if definition == *old {
                return Ok(plan);
            }
            definition.updated_at = self.now();
            let mut plan = plan
                .changed(&old.view(), &definition.view())
                .put(snapshot, &Entry::Attribute(definition.clone()));
            plan.result = definition;
            Ok(plan)
        };
        self.change_policy(org, caller, plan).await.map(|(definition, _)| definition)
    }

    /// Removes the definition of an attribute: no more values can be set. Those that are set stay.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] if there is none.
    pub async fn delete_attribute(&self, org: &OrgId, name: &str, caller: &Caller) -> Result<(), ApiError> {
        let plan = |snapshot: &Snapshot| {
            let old = found(snapshot, name)?;
            caller.expects(old)?;
            let plan = Plan::new(EventKind::AttributeDeleted, "attribute removed", target(old), ());
            Ok(plan.gone(old.view()).remove(snapshot, &Entry::Attribute(old.clone())))
        };
        self.change_policy(org, caller, plan).await.map(|((), _)| ())
    }

    /// Whether the caller may set attributes: people in person do, with the scope `abac:write` and the permission
    /// `abac.manage`.
    ///
    /// # Errors
    /// [`ApiError`] if not.
    pub async fn check_sets_attributes(
        &self,
        principal: &Principal,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<(), ApiError> {
        require_scope(principal, &["abac:write"])?;
        if self.holds_permission(principal, "abac.manage", facts, &caller.origin).await? {
            return Ok(());
        }
        Err(ApiError::Forbidden("The permission abac.manage is required."))
    }

    /// Sets an attribute of somebody or something; `null` takes it away. For who may, see
    /// [`Self::check_sets_attributes`].
    ///
    /// # Errors
    /// [`ApiError`] if the caller may not, there is no such attribute, or the value is not acceptable.
    pub async fn set_attribute(
        &self,
        principal: &Principal,
        owner: AttributeOwner,
        slug: &str,
        value: &Value,
        facts: RequestFacts<'_>,
        caller: &Caller,
    ) -> Result<(), ApiError> {
        let org = &principal.org;
        self.check_sets_attributes(principal, facts, caller).await?;
        let kind = match &owner {
            AttributeOwner::Agent(_) => AttributeKind::Agent,
            AttributeOwner::Resource { .. } => AttributeKind::Resource,
            AttributeOwner::User(_) => AttributeKind::User,
        };
        let missing = || ApiError::NotFound("attribute");
        let slug = Label::parse(slug).map_err(|_| missing())?;
        let plan = |snapshot: &Snapshot| {
            let definition = snapshot.attribute(kind, &slug);
            let target = Target::new("attribute", owner.to_string()).named(slug.as_str());
            let plan = Plan::new(EventKind::AttributeSet, "attribute set", target, ());
            let entry = Entry::Value(AttributeValue::new(owner.clone(), slug.clone(), value.clone()));
            // What it was and is may be personal, and the log is for ever: only whether it is set is told.
            let is_set = |set: bool| json!({ "isSet": set });
            if value.is_null() {
                // A value outlives the definition of its attribute, and can be taken away all the same.
                return match (snapshot.find(&entry.id()), definition) {
                    (Some(_), _) => Ok(plan
                        .with("slug", slug.as_str())
                        .with("value", Value::Null)
                        .replaced(is_set(true), is_set(false))
                        .remove(snapshot, &entry)),
                    (None, Some(_)) => Ok(plan),
                    (None, None) => Err(missing()),
                };
            }
            let definition = definition.ok_or_else(missing)?;
            if !definition.data_type.admits(value) {
                return Err(invalid(
                    "value",
                    format!("must be of the type {}", definition.data_type.as_str()),
                ));
            }
            if value.to_string().len() > MAX_VALUE {
                return Err(invalid("value", "is too large"));
            }
            let old = snapshot.find(&entry.id()).map(|(_, found)| found);
            if old == Some(&entry) {
                return Ok(plan);
            }
            let plan = plan.replaced(is_set(old.is_some()), is_set(true));
            Ok(plan.with("slug", slug.as_str()).put(snapshot, &entry))
        };
        self.change_policy(org, caller, plan).await.map(|((), _)| ())
    }

    /// What policies see of the caller: its own facts, as far as the token's scope shows them, and what the
    /// organization set.
    ///
    /// # Errors
    /// [`ApiError`] if the caller is neither an agent nor a person, or lacks the scope `abac:read`.
    pub async fn own_attributes(
        &self,
        principal: &Principal,
    ) -> Result<(String, Map<String, Value>), ApiError> {
        require_scope(principal, &["abac:read", "abac:write"])?;
        let (id, mut own, owner, holder) = match &principal.identity {
            Identity::Agent(agent) => {
                let own = vec![
                    ("agent_id", agent.id.to_string().into()),
                    ("type", agent.kind.as_str().into()),
                    ("slug", agent.slug.as_str().into()),
                    ("name", (*agent.name).into()),
                    ("identityType", agent.identity_type.as_str().into()),
                    ("capabilities", json!(agent.capabilities)),
                ];
                let holder = Some(Holder::Agent(agent.id));
                (agent.id.to_string(), own, AttributeOwner::Agent(agent.id), holder)
            }
            Identity::User(person) => {
                let user = &person.user;
                let scope = principal.token_scope().unwrap_or_default();
                let mut shown = person_claims(user, &Scope::new(scope.iter().cloned()));
                let mut own = vec![("type", Value::from("user"))];
                own.extend(
                    ["email", "name"].into_iter().filter_map(|name| Some((name, shown.remove(name)?))),
                );
                let told = reads_permissions(person, scope);
                if told {
                    own.push(("isAdmin", user.is_admin.into()));
                }
                let holder = told.then_some(Holder::User(user.id));
                (user.id.to_string(), own, AttributeOwner::User(user.id), holder)
            }
            Identity::Client(_) | Identity::ApiKey(_) | Identity::Remote(_) => {
                return Err(crate::server::me::FOR_AGENTS_AND_PEOPLE);
            }
        };
        own.push(("id", (*id).into()));
        let mut attributes: Map<String, Value> =
            own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.with_policy(&principal.org, |snapshot| {
            if let Some(holder) = &holder {
                attributes.insert("roles".to_owned(), json!(super::grants(snapshot, holder).0));
            }
            let values = snapshot.values_of(&owner).into_iter();
            attributes.extend(values.map(|(slug, value)| (slug.to_string(), value)));
        })
        .await?;
        Ok((id, attributes))
    }

    /// What the organization knows of a resource.
    ///
    /// # Errors
    /// [`ApiError`] if there can be no such resource, or the caller lacks the scope `abac:read`.
    pub async fn resource_attributes(
        &self,
        principal: &Principal,
        kind: &str,
        id: &str,
    ) -> Result<ResourceAttributes, ApiError> {
        require_scope(principal, &["abac:read", "abac:write"])?;
        let owner = AttributeOwner::resource(kind, id).ok_or(ApiError::NotFound("resource"))?;
        let values = self.with_policy(&principal.org, |snapshot| snapshot.values_of(&owner)).await?;
        let mut attributes: Map<String, Value> =
            values.into_iter().map(|(slug, value)| (slug.to_string(), value)).collect();
        attributes.insert("id".to_owned(), id.into());
        attributes.insert("type".to_owned(), kind.into());
        Ok(attributes)
    }

    /// The attributes that there are, for whoever may ask about attributes.
    ///
    /// # Errors
    /// [`ApiError`] if the caller lacks the scope `abac:read`.
    pub async fn readable_attributes(
        &self,
        principal: &Principal,
        kind: Option<AttributeKind>,
    ) -> Result<Vec<AttributeDefinition>, ApiError> {
        require_scope(principal, &["abac:read", "abac:write"])?;
        self.attributes(&principal.org, kind).await
    }
}

fn found<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a AttributeDefinition, ApiError> {
    let number = name.parse().map(Number::new);
    let wanted = |it: &&AttributeDefinition| match number {
        Ok(number) => it.number == number,
        Err(_) => name.split_once(':') == Some((it.kind.as_str(), it.slug.as_str())),
    };
    snapshot.attributes().find(wanted).ok_or(ApiError::NotFound("attribute"))
}

fn target(definition: &AttributeDefinition) -> Target {
    Target::new("attribute", definition.number.to_string()).named(definition.slug.as_str())
}

fn change(definition: &mut AttributeDefinition, request: &AttributeRequest) -> Result<(), ApiError> {
    let unused = [
        ("validationRules", request.validation_rules.as_ref().is_some_and(|it| !is_empty(it))),
        ("defaultValue", request.default_value.as_ref().is_some_and(|it| !it.is_null())),
        ("isRequired", request.is_required == Some(true)),
    ];
    if let Some((member, _)) = unused.into_iter().find(|(_, given)| *given) {
        return Err(invalid(member, "is not supported by this server"));
    }
    if let Some(name) = &request.name {
        definition.name = checked_text("name", name, 1, 128)?;
    }
    if request.description.is_some() {
        definition.description = description(request.description.as_deref())?;
    }
    if let Some(name) = &request.data_type {
        definition.data_type = DataType::named(name)
            .ok_or_else(|| invalid("dataType", "must be string, number, boolean, array, datetime or any"))?;
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

impl AttributeDefinition {
    /// As clients see it.
    pub fn view(&self) -> Value {
        json!({
            "id": self.number,
            "name": self.name,
            "slug": self.slug,
            "description": self.description,
            "attributeType": self.kind.as_str(),
            "dataType": self.data_type.as_str(),
            "isRequired": false,
            "isSystem": false,
            "createdAt": self.created_at.to_string(),
            "updatedAt": self.updated_at.to_string(),
        })
    }
}
