//! Who decides what agents ask people for.
//!
//! A person in person and nobody else: an agent is none, nor is a person whose token an agent has, nor one whom an agent acts
//! for. So an agent approves nothing of its own, whatever tokens it holds.

use std::sync::Arc;

use super::ApiError;
use crate::{
    capability::Capability,
    id::{OrgId, UserId},
    principal::Principal,
    user::User,
};

/// A person in person, and what the way by which they came lets them decide.
#[derive(Clone, Debug)]
pub struct Reviewer {
    org: OrgId,
    user: Arc<User>,
    /// What others are asked, and what nobody in particular is asked.
    manages_approvals: bool,
    /// What agents ask for just in time, of themselves.
    decides_jit: bool,
    /// The same, for others and for nobody in particular.
    manages_jit: bool,
    granted: Vec<String>,
}

/// With which an application sees and decides what its user, an administrator, decides for others.
const MANAGE_APPROVALS: [&str; 2] = ["approvals.manage", "admin"];

/// With which an application decides what agents ask for just in time.
const DECIDE_JIT: [&str; 3] = ["jit:approve", "jit.approve", "admin"];

impl Reviewer {
    /// The person behind a token.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`] if it is no person in person.
    pub fn of(principal: &Principal) -> Result<Self, ApiError> {
        let refused = ApiError::Forbidden("Only a person decides, by an application that is no agent's.");
        let user = principal.person().ok_or(refused)?;
        let holds = |names: &[&str]| {
            names.iter().any(|name| Capability::parse(name).is_ok_and(|it| principal.decide(&it).is_allow()))
        };
        let (approvals, jit) = (holds(&MANAGE_APPROVALS), holds(&DECIDE_JIT));
        let granted = principal.token_scope().unwrap_or_default().iter().map(ToString::to_string).collect();
        Ok(Self { granted, ..Self::with(principal.org.clone(), user.clone(), approvals, jit) })
    }

    /// A person who signed in at this server itself and reads its own page.
    ///
    /// # Security
    /// It must be the person's own session: what they decide with it is decided for good.
    pub fn in_session(org: OrgId, user: Arc<User>) -> Self {
        Self::with(org, user, true, true)
    }

    /// What people may decide, by what they are and by what they came with: a scope bounds what an application may do for a
    /// person, and gives the person nothing. Roles and permissions of a policy belong here.
    fn with(org: OrgId, user: Arc<User>, approvals: bool, jit: bool) -> Self {
        let is_admin = user.is_admin;
        Self {
            org,
            manages_approvals: approvals && is_admin,
            decides_jit: jit,
            manages_jit: jit && is_admin,
            granted: Vec::new(),
            user,
        }
    }

    /// The organization.
    pub fn org(&self) -> &OrgId {
        &self.org
    }

    /// Who it is.
    pub fn user(&self) -> &Arc<User> {
        &self.user
    }

    /// Whose approvals they see; `None` for everybody's.
    pub(super) fn sees_approvals_of(&self) -> Option<UserId> {
        (!self.manages_approvals).then_some(self.user.id)
    }

    /// Whose requests of tasks they see; `None` for everybody's.
    ///
    /// # Errors
    /// [`ApiError::InsufficientScope`] if they came without the scope for it.
    pub(super) fn sees_jit_of(&self) -> Result<Option<UserId>, ApiError> {
        if !self.decides_jit {
            return Err(self.lacks(&DECIDE_JIT[..1]));
        }
        Ok((!self.manages_jit).then_some(self.user.id))
    }

    /// What one is asked oneself one decides by any application.
    pub(super) fn check_approval_of(&self, asked: Option<UserId>) -> Result<(), ApiError> {
        if asked == Some(self.user.id) || self.manages_approvals {
            return Ok(());
        }
        if self.user.is_admin {
            return Err(self.lacks(&MANAGE_APPROVALS));
        }
        Err(ApiError::Forbidden("Somebody else is asked for this approval."))
    }

    /// What agents ask for just in time needs the scope, whoever is asked.
    pub(super) fn check_jit_of(&self, asked: Option<UserId>) -> Result<(), ApiError> {
        if !self.decides_jit {
            return Err(self.lacks(&DECIDE_JIT[..1]));
        }
        if asked == Some(self.user.id) || self.manages_jit {
            return Ok(());
        }
        Err(ApiError::Forbidden("Somebody else decides on this request."))
    }

    fn lacks(&self, required: &[&str]) -> ApiError {
        let required = required.iter().map(|name| (*name).to_owned()).collect();
        ApiError::InsufficientScope { required, granted: self.granted.clone() }
    }
}
