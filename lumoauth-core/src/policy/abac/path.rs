//! What a condition can look at.

use std::{borrow::Cow, collections::HashMap};

use serde_json::{Value, json};

use crate::{
    agent::Agent,
    id::Label,
    policy::{AttributeKind, AttributeOwner, AttributeValue, Environment, Resource},
    user::User,
};

/// Where a path begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// The person, or if there is none, the agent.
    Subject,
    User,
    Agent,
    Resource,
    Environment,
}

/// The name of a fact, such as `user.department` or `resource.owner.id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    root: Root,
    first: Box<str>,
    rest: Vec<Box<str>>,
}

impl Path {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (root, names) = text.split_once('.')?;
        let root = match root {
            "subject" => Root::Subject,
            "user" => Root::User,
            "agent" => Root::Agent,
            "resource" => Root::Resource,
            "environment" => Root::Environment,
            _ => return None,
        };
        let mut names = names.split('.').map(Box::from);
        let first: Box<str> = names.next()?;
        let rest: Vec<Box<str>> = names.collect();
        let valid = |name: &str| (1..=64).contains(&name.len());
        (valid(&first) && rest.len() < 8 && rest.iter().all(|name| valid(name))).then_some(Self {
            root,
            first,
            rest,
        })
    }
}

/// The values of attributes, by whose they are.
#[derive(Clone, Debug, Default)]
pub(in crate::policy) struct Values(HashMap<AttributeOwner, HashMap<Label, Value>>);

impl Values {
    pub(in crate::policy) fn set(&mut self, value: &AttributeValue) {
        self.0.entry(value.owner.clone()).or_default().insert(value.slug.clone(), value.value.clone());
    }

    pub(in crate::policy) fn unset(&mut self, value: &AttributeValue) {
        if let Some(values) = self.0.get_mut(&value.owner) {
            values.remove(&value.slug);
            if values.is_empty() {
                self.0.remove(&value.owner);
            }
        }
    }

    pub(in crate::policy) fn of(&self, owner: &AttributeOwner) -> Option<&HashMap<Label, Value>> {
        self.0.get(owner)
    }

    fn get(&self, owner: &AttributeOwner, name: &str) -> Option<&Value> {
        self.0.get(owner)?.get(name)
    }
}

/// Everything that a condition can look at in one decision. Nothing is put together before a condition asks for it.
#[derive(Clone, Copy)]
pub(in crate::policy) struct Facts<'a> {
    pub(in crate::policy) values: &'a Values,
    pub(in crate::policy) user: Option<(&'a User, &'a dyn Fn() -> Vec<Label>)>,
    pub(in crate::policy) agent: Option<(&'a Agent, &'a dyn Fn() -> Vec<Label>)>,
    pub(in crate::policy) resource: &'a Resource<'a>,
    pub(in crate::policy) environment: &'a Environment<'a>,
}

impl<'a> Facts<'a> {
    /// The fact, if there is one; `null` is none.
    pub(super) fn find(&self, path: &Path) -> Option<Cow<'a, Value>> {
        let name = &*path.first;
        let found = match path.root {
            Root::User => self.of_user(name),
            Root::Agent => self.of_agent(name),
            Root::Subject if self.user.is_some() => self.of_user(name),
            Root::Subject => self.of_agent(name),
            Root::Resource => self.of_resource(name),
            Root::Environment => self.environment.get(name),
        };
        let mut found = found?;
        for name in &path.rest {
            found = match found {
                Cow::Borrowed(value) => Cow::Borrowed(value.get(&**name)?),
                Cow::Owned(mut value) => Cow::Owned(value.get_mut(&**name)?.take()),
            };
        }
        (!found.is_null()).then_some(found)
    }

    fn of_user(&self, name: &str) -> Option<Cow<'a, Value>> {
        let (user, roles) = self.user?;
        Some(Cow::Owned(match name {
            "id" => json!(user.id),
            "type" => "user".into(),
            "email" => user.email.as_str().into(),
            "name" => json!(user.name),
            "isAdmin" => user.is_admin.into(),
            "roles" => json!(roles()),
            _ => return self.values.get(&AttributeOwner::User(user.id), name).map(Cow::Borrowed),
        }))
    }

    fn of_agent(&self, name: &str) -> Option<Cow<'a, Value>> {
        let (agent, roles) = self.agent?;
        Some(Cow::Owned(match name {
            "id" | "agent_id" => agent.id.to_string().into(),
            "type" => agent.kind.as_str().into(),
            "slug" => agent.slug.as_str().into(),
            "name" => (*agent.name).into(),
            "identityType" => agent.identity_type.as_str().into(),
            "capabilities" => json!(agent.capabilities),
            "roles" => json!(roles()),
            _ => return self.values.get(&AttributeOwner::Agent(agent.id), name).map(Cow::Borrowed),
        }))
    }

    fn of_resource(&self, name: &str) -> Option<Cow<'a, Value>> {
        match name {
            "type" => return self.resource.kind.map(|kind| Cow::Owned(kind.into())),
            "id" => return self.resource.id.map(|id| Cow::Owned(id.into())),
            _ => {}
        }
        let owner = AttributeOwner::resource(self.resource.kind?, self.resource.id?);
        let stored = owner.and_then(|owner| self.values.get(&owner, name));
        // What the organization knows of a resource nobody can claim otherwise.
        stored.or_else(|| self.resource.given?.get(name)).map(Cow::Borrowed)
    }
}

/// Names that are facts of their own, so no attribute can have them.
pub(in crate::policy) fn is_built_in(kind: AttributeKind, name: &str) -> bool {
    match kind {
        AttributeKind::User => ["id", "type", "email", "name", "isAdmin", "roles"].contains(&name),
        AttributeKind::Agent => {
            ["id", "agent_id", "type", "slug", "name", "identityType", "capabilities", "roles"]
                .contains(&name)
        }
        AttributeKind::Resource => ["id", "type"].contains(&name),
        AttributeKind::Environment => false,
    }
}
