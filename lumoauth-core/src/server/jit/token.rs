//! Tokens of tasks.

use std::sync::Arc;

use super::Standing;
use crate::{
    agent::Agent,
    audit::EventKind,
    capability::Scope,
    clock::Timestamp,
    id::TokenId,
    jit::{JitRequest, RequestStatus, Task},
    keys::KeyPurpose,
    organization::Organization,
    principal::Principal,
    secret::Secret,
    server::{ApiError, AuthorizationServer, Caller, approvals::refuse_test_tokens},
    spending::{Payers, Remaining},
    token::{self, AccessClaims, Audience, KeyBinding, ParentTask},
};

use super::request::about;

/// A token that was just issued for a request.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a result, read by transports")]
pub struct JitToken {
    /// The token.
    pub access_token: Secret,
    /// `Bearer`, or `DPoP` if it is bound to the key that the agent's own token is bound to.
    pub token_type: &'static str,
    /// How many seconds it lives.
    pub expires_in: u64,
    /// What it is for.
    pub request: Arc<JitRequest>,
    /// What is left of the agent's budget.
    pub remaining: Remaining,
}

const NOT_GRANTED: ApiError = ApiError::Forbidden("This request is not granted.");
const ENDED: ApiError = ApiError::Forbidden("The grant, its task, or what they stand on has ended.");

impl AuthorizationServer {
    /// A token for a request that was granted, which is charged one API call. However often it is called, all of its tokens end
    /// when the grant ends, and with the task before that.
    ///
    /// # Errors
    /// [`ApiError`] if there is no such request, another agent made it, it was not granted, or the grant, the task or anything
    /// that they stand on has ended.
    pub async fn issue_jit_token(
        &self,
        organization: &Organization,
        principal: &Principal,
        agent: &Agent,
        id: &str,
        caller: &Caller,
    ) -> Result<JitToken, ApiError> {
        refuse_test_tokens(principal)?;
        let (org, now) = (&organization.id, self.now());
        let request = self.own_request(org, id, agent).await?;
        if request.status(now) != RequestStatus::Approved {
            return Err(NOT_GRANTED);
        }
        // What was asked for is what was granted, or somebody changed the record.
        if request.hash() != request.action_hash {
            return Err(ENDED);
        }
        let task = self.open_task_of(org, &request.task, now).await?.ok_or(ENDED)?;
        let standing = Standing::of(&task)?;
        standing.check(principal)?;
        let ends = request.granted_until().ok_or(NOT_GRANTED)?.min(task.expires_at);
        if ends.unix_seconds() <= now.unix_seconds() {
            return Err(ENDED);
        }
        let payers = Payers::of_caller(principal, agent);
        let remaining = payers.charge_call(self.stores(), org, &caller.origin, now).await??;
        let server = self.target_of(org, agent, &request.detail).await.map_err(|error| match error {
            ApiError::Invalid { .. } => ENDED,
            other => other,
        })?;
        let claims = AccessClaims {
            mcp_server_id: server.map(|server| server.server_id.clone()),
            exp: ends.unix_seconds(),
            // Whoever must prove a key to ask must prove it to use what they got.
            cnf: principal.key().map(|jkt| KeyBinding { jkt }),
            ..self.claims_of(organization, agent, &task, standing, &request, now)
        };
        // As the stores themselves say it: what ended a moment ago issues nothing.
        let stores = self.stores().uncached();
        let claims = Arc::new(claims);
        let Some(current) = stores.organizations.find(org).await? else { return Err(ENDED) };
        if let Err(dead) = token::principal_of(&stores, &current, claims.clone()).await? {
            tracing::debug!(%dead, "no token for a grant");
            return Err(ENDED);
        }
        let event = about(&request, caller.event(EventKind::JitTokenIssued, "token issued for a task", now))
            .with("jti", claims.jti.as_str());
        self.stores().audit.append(org, &[principal.in_context(event)]).await?;
        let signer = self.inner.keys.signer(org, KeyPurpose::AccessToken, now).await?;
        let access_token = Secret::from(token::sign(&*signer, "at+jwt", &*claims).await?);
        let (token_type, expires_in) = (claims.token_type(), claims.exp - claims.iat);
        Ok(JitToken { access_token, token_type, expires_in, request, remaining })
    }

    /// What a token for `request` says, of anybody who asks for one.
    fn claims_of(
        &self,
        organization: &Organization,
        agent: &Agent,
        task: &Task,
        standing: Standing,
        request: &JitRequest,
        now: Timestamp,
    ) -> AccessClaims {
        let aud = request.detail.locations().first().map_or(agent.client_id.as_str(), |location| location);
        AccessClaims {
            iss: self.issuer(&organization.id),
            sub: format!("{}:task:{}", agent.subject(), task.id),
            aud: Audience::One(aud.to_owned()),
            client_id: agent.client_id.clone(),
            agent_id: Some(agent.id),
            agent_name: Some(agent.name.clone()),
            identity_type: "agent".into(),
            act: standing.act,
            delegation_depth: standing.depth,
            may_act: None,
            auth_time: None,
            amr: Vec::new(),
            workload_identity: None,
            scope: Scope::default(),
            organization: organization.id.clone(),
            tenant: organization.id.clone(),
            mcp_server_id: None,
            cnf: None,
            test: false,
            jit: true,
            task_id: Some(task.id.clone()),
            parent_task_id: Some(ParentTask(task.ancestors.last().cloned())),
            jit_request_id: Some(request.id.clone()),
            authorization_details: vec![request.detail.clone()],
            action_hash: Some(request.action_hash.clone()),
            caep_session_id: Some(task.caep_session.clone()),
            on_behalf_of: standing.subject,
            iat: now.unix_seconds(),
            nbf: now.unix_seconds(),
            exp: task.expires_at.unix_seconds(),
            jti: TokenId::generate().to_string(),
            lin: standing.lin,
        }
    }
}
