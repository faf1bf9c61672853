//! The claims of an access token.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};

use super::Lineage;
use crate::{
    capability::Scope,
    id::{AgentId, ClientId, McpServerId, OrgId, TaskId},
    jit::{ActionHash, AuthorizationDetail, JitRequestId},
    jwks::Thumbprint,
    organization::ActOrder,
};

/// What a task is part of, if it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[expect(clippy::exhaustive_structs, reason = "a claim")]
pub struct ParentTask(pub Option<TaskId>);

/// The claims of an access token of ours (RFC 9068, RFC 8693).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccessClaims {
    /// Issuer.
    pub iss: String,
    /// Subject: the UUID of a person, `agent:<slug>` of an agent, the client id of an ordinary client.
    pub sub: String,
    /// Audience.
    pub aud: Audience,
    /// The client the token was issued to.
    pub client_id: ClientId,
    /// The agent the token was issued to.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "agent_id_text")]
    pub agent_id: Option<AgentId>,
    /// Display name of that agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<Arc<str>>,
    /// What sort of principal uses the token: `agent`, `client` or `user`.
    pub identity_type: Cow<'static, str>,
    /// Who acts for the subject (RFC 8693 section 4.1), nested as [`Lineage::act_order`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Act>>,
    /// How many actors there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegation_depth: Option<u8>,
    /// Who alone may become an actor for the subject (RFC 8693 section 4.4). The exchange honours it; no route of this server
    /// puts it into a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_act: Option<MayAct>,
    /// When the person signed in, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<u64>,
    /// How the person or workload was recognised (RFC 8176).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<Cow<'static, str>>,
    /// Which workload the agent is, if its platform vouched for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<String>,
    /// What the token may be used for.
    pub scope: Scope,
    /// The organization.
    pub organization: OrgId,
    /// The organization again, under its older name.
    pub tenant: OrgId,
    /// The MCP server it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_server_id: Option<McpServerId>,
    /// The key whose holder alone may use it (RFC 9449 section 6.1). A token that has one proves nothing by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<KeyBinding>,
    /// Made by an administrator to try things out.
    #[serde(default, skip_serializing_if = "is_false")]
    pub test: bool,
    /// Made for one task (just in time). Such a token is never exchanged.
    #[serde(default, skip_serializing_if = "is_false")]
    pub jit: bool,
    /// The task that it ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// The task that that one is part of: with the token of a task always said, and `null` if it is part of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_task_id: Option<ParentTask>,
    /// What it was granted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jit_request_id: Option<JitRequestId>,
    /// What exactly it is for (RFC 9396 section 9.1).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorization_details: Vec<AuthorizationDetail>,
    /// Names everything that was asked for when it was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_hash: Option<ActionHash>,
    /// Names its task to those who watch sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caep_session_id: Option<Arc<str>>,
    /// The subject of the chain that its task was opened in; the `sub` of such a token is the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// When it was issued, in Unix seconds.
    pub iat: u64,
    /// Not valid before, in Unix seconds.
    pub nbf: u64,
    /// Not valid from this Unix second on.
    pub exp: u64,
    /// Its id.
    pub jti: String,
    /// What it stands on; for this server only.
    pub lin: Lineage,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_false(value: &bool) -> bool {
    !value
}

/// One actor, and those that it is nested with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "the claim has these members")]
pub struct Act {
    /// `agent:<slug>`.
    pub sub: String,
    /// Its id.
    #[serde(with = "required_agent_id_text")]
    pub agent_id: AgentId,
    /// Its client id.
    pub client_id: ClientId,
    /// The next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Act>>,
}

/// The `cnf` claim of an access token (RFC 7800 section 3). One that says more than we ever write is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "the claim has this member")]
pub struct KeyBinding {
    /// The thumbprint of the key.
    pub jkt: Thumbprint,
}

/// The `may_act` claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "the claim has this member")]
pub struct MayAct {
    /// The `sub` of the one actor.
    pub sub: String,
}

impl AccessClaims {
    /// The actors, the first one first, whatever the order of their nesting.
    pub fn actors(&self) -> Vec<&Act> {
        let mut actors: Vec<_> =
            std::iter::successors(self.act.as_deref(), |act| act.act.as_deref()).collect();
        if self.lin.act_order == ActOrder::Rfc8693 {
            actors.reverse();
        }
        actors
    }

    /// How it is presented (RFC 6749 section 7.1): `DPoP` with a proof if it is bound to a key, else `Bearer`.
    pub fn token_type(&self) -> &'static str {
        if self.cnf.is_some() { "DPoP" } else { "Bearer" }
    }

    /// Whether the token is meant for this server's own routes: its audience is its own client, its own agent,
    /// or the issuer. A token bound to another resource is not, nor one that was made for a task.
    pub fn is_for_own_routes(&self) -> bool {
        !self.jit
            && self.mcp_server_id.is_none()
            && (self.aud.contains(self.client_id.as_str())
                || self.aud.contains(&self.iss)
                || self.agent_id.is_some_and(|id| self.aud.contains(&id.to_string())))
    }

    /// Whether the token is meant for `resource`. One that was made for a task is not, whatever it names as its place: it is
    /// for what it says in detail, and for nothing else.
    pub fn is_for_resource(&self, resource: &str) -> bool {
        !self.jit && self.aud.contains(resource)
    }

    /// Whether the token may be looked at where `resource` asks for authorization details: it was made for a task there, or
    /// for no place in particular; or it says at least who calls, because it is good at this server's own routes or at the
    /// resource.
    pub fn is_for_details_at(&self, resource: &str) -> bool {
        let placeless = self.jit && self.aud.contains(self.client_id.as_str());
        placeless || self.is_for_own_routes() || self.aud.contains(resource)
    }
}

/// The `aud` claim: one value or several (RFC 7519 section 4.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[expect(clippy::exhaustive_enums, reason = "the standard has these two forms")]
pub enum Audience {
    /// One value.
    One(String),
    /// Several values.
    Many(Vec<String>),
}

impl Audience {
    /// Whether `value` is in it, compared exactly.
    pub fn contains(&self, value: &str) -> bool {
        match self {
            Self::One(one) => one == value,
            Self::Many(many) => many.iter().any(|one| one == value),
        }
    }
}

mod required_agent_id_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::id::AgentId;

    pub(super) fn serialize<S: Serializer>(id: &AgentId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AgentId, D::Error> {
        AgentId::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

mod agent_id_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::id::AgentId;

    #[expect(clippy::ref_option, reason = "the form that serde calls")]
    pub(super) fn serialize<S: Serializer>(id: &Option<AgentId>, serializer: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => serializer.collect_str(id),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<AgentId>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| AgentId::parse(&text).map_err(D::Error::custom))
            .transpose()
    }
}
