//! Who decides what agents ask people for.
//!
//! A person in person and nobody else: an agent is none, nor is a person whose token an agent has, nor one whom an agent acts
//! for. So an agent approves nothing of its own, whatever tokens it holds.

use std::sync::Arc;

use super::{ApiError, AuthorizationServer, RequestFacts};
use crate::{
    audit::Origin,
    capability::Capability,
    id::{OrgId, UserId},
    policy::DecidedBy,
    principal::Principal,
    user::User,
};

/// A person in person, and what they and the way by which they came let them decide.
///
/// What one is asked oneself one decides by any application; what agents ask for just in time, by one with the scope
/// `jit:approve`. What others are asked, and what nobody in particular is asked, takes a permission: `approvals.manage` for
/// approvals, `jit.approve` for what agents ask for just in time. Whoever has it by name, by a role or as a permission of
/// their own, needs no scope. Administrators have both because they are administrators, and that counts for as much as
/// the application says with its scope: they administer by no application that did not ask for it. A scope by itself gives
/// nothing that is of others.
#[derive(Clone, Debug)]
pub struct Reviewer {
    org: OrgId,
    user: Arc<User>,
    /// What others are asked, and what nobody in particular is asked.
    approvals: Reach,
    /// What agents ask for just in time.
    jit: Reach,
    granted: Vec<String>,
}

/// How far somebody decides.
#[derive(Clone, Copy, Debug)]
struct Reach {
    /// Whether the way by which they came lets them.
    scope: bool,
    /// What of the organization lets them, if anything does.
    permitted: Option<DecidedBy>,
}

impl Reach {
    fn is_whole(self) -> bool {
        match self.permitted {
            None => false,
            Some(DecidedBy::Administrator) => self.scope,
            Some(_) => true,
        }
    }
}

/// With which an application sees and decides what its user decides for others.
const MANAGE_APPROVALS: [&str; 2] = ["approvals.manage", "admin"];

/// With which an application decides what agents ask for just in time.
const DECIDE_JIT: [&str; 3] = ["jit:approve", "jit.approve", "admin"];

impl AuthorizationServer {
    /// The person behind a token, as somebody who decides.
    ///
    /// # Errors
    /// [`ApiError`] if it is no person in person, or what they may cannot be decided now.
    pub async fn reviewer(
        &self,
        principal: &Principal,
        facts: RequestFacts<'_>,
        origin: &Origin,
    ) -> Result<Reviewer, ApiError> {
        let refused = ApiError::Forbidden("Only a person decides, by an application that is no agent's.");
        let user = principal.person().ok_or(refused)?;
        let holds = |names: &[&str]| {
            names.iter().any(|name| Capability::parse(name).is_ok_and(|it| principal.decide(&it).is_allow()))
        };
        let scopes = [holds(&MANAGE_APPROVALS), holds(&DECIDE_JIT)];
        let granted = principal.token_scope().unwrap_or_default().iter().map(ToString::to_string).collect();
        self.reviewer_with(&principal.org, user, scopes, granted, (facts, origin)).await
    }

    /// A person who signed in at this server itself and reads its own page, as somebody who decides.
    ///
    /// # Security
    /// It must be the person's own session: what they decide with it is decided for good.
    ///
    /// # Errors
    /// [`ApiError`] if what they may cannot be decided now.
    pub async fn reviewer_in_session(
        &self,
        org: &OrgId,
        user: &Arc<User>,
        facts: RequestFacts<'_>,
        origin: &Origin,
    ) -> Result<Reviewer, ApiError> {
        self.reviewer_with(org, user, [true; 2], Vec::new(), (facts, origin)).await
    }

    async fn reviewer_with(
        &self,
        org: &OrgId,
        user: &Arc<User>,
        [approvals, jit]: [bool; 2],
        granted: Vec<String>,
        (facts, origin): (RequestFacts<'_>, &Origin),
    ) -> Result<Reviewer, ApiError> {
        let permitted = |permission| self.permitted_by(org, user, permission, facts, origin);
        Ok(Reviewer {
            org: org.clone(),
            user: user.clone(),
            approvals: Reach { scope: approvals, permitted: permitted("approvals.manage").await? },
            jit: Reach { scope: jit, permitted: permitted("jit.approve").await? },
            granted,
        })
    }
}

impl Reviewer {
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
        (!self.approvals.is_whole()).then_some(self.user.id)
    }

    /// Whose requests of tasks they see; `None` for everybody's.
    ///
    /// # Errors
    /// [`ApiError::InsufficientScope`] if neither the way by which they came nor a permission lets them.
    pub(super) fn sees_jit_of(&self) -> Result<Option<UserId>, ApiError> {
        if self.jit.is_whole() {
            return Ok(None);
        }
        if self.jit.scope { Ok(Some(self.user.id)) } else { Err(self.lacks(&DECIDE_JIT[..1])) }
    }

    /// What one is asked oneself one decides by any application.
    pub(super) fn check_approval_of(&self, asked: Option<UserId>) -> Result<(), ApiError> {
        if asked == Some(self.user.id) || self.approvals.is_whole() {
            return Ok(());
        }
        if self.approvals.permitted.is_some() {
            return Err(self.lacks(&MANAGE_APPROVALS));
        }
        Err(ApiError::Forbidden("Somebody else is asked for this approval."))
    }

    /// What agents ask for just in time for oneself needs the scope.
    pub(super) fn check_jit_of(&self, asked: Option<UserId>) -> Result<(), ApiError> {
        let seen = self.sees_jit_of()?;
        if seen.is_none() || seen == asked {
            return Ok(());
        }
        Err(ApiError::Forbidden("Somebody else decides on what is asked here."))
    }

    fn lacks(&self, required: &[&str]) -> ApiError {
        let required = required.iter().map(|name| (*name).to_owned()).collect();
        ApiError::InsufficientScope { required, granted: self.granted.clone() }
    }
}
