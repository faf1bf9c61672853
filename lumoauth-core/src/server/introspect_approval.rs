//! Introspection of approvals: whether what an agent shows was agreed to, and using it up.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{AuthorizationServer, Introspection, TokenRequest, approvals::stands};
use crate::{
    approval::{Approval, ApprovalToken},
    audit::{Event, EventKind, Target},
    client_auth::AuthenticatedClient,
    clock::Timestamp,
    grant::TokenError,
    jit::ActionHash,
    organization::Organization,
    principal::client_actor,
    store::Consume,
};

/// The facts of an approval that may be used now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ActiveApproval {
    /// Always `approval`.
    pub token_type: &'static str,
    /// Always `approved`.
    pub status: &'static str,
    /// The agent's own name for what it is doing.
    pub task_id: String,
    /// The agent that may do it.
    pub agent_id: String,
    /// The client id of the agent.
    pub client_id: String,
    /// The person for whom it is done; if it is for nobody in particular, who agreed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// The person for whom it is done, as [`Approval::action`] has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// Who agreed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<ApprovedBy>,
    /// What they agreed to, in words.
    pub reason: String,
    /// How bad it would be if it went wrong.
    pub impact: &'static str,
    /// What else they were shown.
    pub meta: Map<String, Value>,
    /// Names all of that: see [`Approval::action`].
    pub action_hash: ActionHash,
    /// The organization.
    pub organization: String,
    /// Not valid from this Unix second on.
    pub exp: u64,
    /// Whether it is used up by this very answer.
    pub consumed: bool,
}

/// Who agreed, as agents are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a number, and nothing else of a person")]
pub struct ApprovedBy {
    /// The integer id of the person.
    pub user_id: u64,
}

impl AuthorizationServer {
    /// Whether an approval may be used now. With `action_hash` only if it is about exactly that; with `consume=true` it is used
    /// up by the answer, and never active again.
    pub(super) async fn introspect_approval(
        &self,
        organization: &Organization,
        caller: &AuthenticatedClient,
        token: &ApprovalToken,
        request: &TokenRequest<'_>,
        now: Timestamp,
    ) -> Result<Introspection, TokenError> {
        let consume = match request.params.get("consume") {
            None | Some("" | "false") => false,
            Some("true") => true,
            Some(_) => return Err(TokenError::InvalidRequest("consume is true or false.")),
        };
        let (org, stores) = (&organization.id, self.stores());
        let Some(approval) = stores.approvals.find(org, token).await? else {
            return Ok(Introspection::INACTIVE);
        };
        let action_hash = ActionHash::of(&approval.action());
        let named = request.params.get("action_hash").filter(|hash| !hash.is_empty());
        let is_meant = named.is_none_or(|hash| hash == action_hash.as_str());
        if !is_meant || !approval.is_usable(now) || !stands(stores, org, &approval).await? {
            return Ok(Introspection::INACTIVE);
        }
        if consume {
            let event =
                Event::new(EventKind::ApprovalConsumed, client_actor(caller), "approval used up", now)
                    .on(Target::new("approval", approval.token.fingerprint()))
                    .from_origin(request.origin)
                    .with("agent_id", approval.agent.to_string())
                    .with("action_hash", action_hash.as_str());
            match stores.approvals.consume(org, &approval, now, &event).await? {
                Consume::Consumed => {}
                Consume::AlreadyConsumed | Consume::NotApproved | Consume::Missing => {
                    return Ok(Introspection::INACTIVE);
                }
            }
        }
        Ok(Introspection {
            active: true,
            token: None,
            approval: Some(ActiveApproval::new(&approval, action_hash, organization, consume)),
        })
    }
}

impl ActiveApproval {
    fn new(
        approval: &Approval,
        action_hash: ActionHash,
        organization: &Organization,
        consumed: bool,
    ) -> Self {
        let decision = approval.decision.as_ref();
        Self {
            token_type: "approval",
            status: "approved",
            task_id: approval.task_id.clone(),
            agent_id: approval.agent.to_string(),
            client_id: approval.client_id.to_string(),
            sub: approval
                .on_behalf_of
                .or(decision.and_then(|decision| decision.by))
                .map(|user| user.to_string()),
            on_behalf_of: approval.on_behalf_of.map(|user| user.to_string()),
            approved_by: decision
                .and_then(|decision| decision.number)
                .map(|number| ApprovedBy { user_id: number.value() }),
            reason: approval.reason.clone(),
            impact: approval.impact.as_str(),
            meta: approval.meta.clone(),
            action_hash,
            organization: organization.id.to_string(),
            exp: approval.usable_until().map_or(0, Timestamp::unix_seconds),
            consumed,
        }
    }
}
