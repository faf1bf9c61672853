//! What is kept behind codes, pushed requests, questions and refresh tokens. No secret is in it: what comes back later is
//! there as a hash.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Address, Request};
use crate::{
    capability::Scope,
    clock::Timestamp,
    grant::SignIn,
    id::{AgentId, ClientId, McpServerId, UserId},
    secret::SecretHash,
    store::StoreError,
    token::ConsentEpoch,
};

/// What a person let a client do, and what that stands on. It is what a refresh token stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Authorized {
    pub(crate) client_id: ClientId,
    /// The agent that it was, since an agent that is deleted and registered again may have the same client id and epoch.
    /// `None` for an ordinary client, and in what was written before this was kept.
    #[serde(default)]
    pub(crate) agent: Option<AgentId>,
    pub(crate) user: UserId,
    pub(crate) scope: Scope,
    /// The MCP server that its access tokens are bound to.
    pub(crate) resource: Option<McpServerId>,
    pub(crate) sign_in: SignIn,
    pub(crate) consent: ConsentEpoch,
    /// Of the organization, the person and the client: what died in the meantime stays dead.
    pub(crate) epochs: [u32; 3],
}

/// What a code stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CodeBody {
    pub(crate) authorized: Authorized,
    pub(crate) redirect_uri: String,
    /// Whether the request named it, so that the token request must repeat it (RFC 6749 section 4.1.3).
    pub(crate) redirect_named: bool,
    pub(crate) code_challenge: Option<String>,
    pub(crate) nonce: Option<String>,
    /// Whether a refresh token was asked for.
    pub(crate) offline: bool,
}

/// What a `request_uri` stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PushedBody {
    pub(crate) request: Request,
    /// When its person was sent to sign in for it: only a sign-in after that is one for it. `None` as long as nobody was.
    pub(crate) sent_at: Option<Timestamp>,
}

/// A question to a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct QuestionBody {
    pub(crate) about: About,
    /// What is asked for.
    pub(crate) scope: Scope,
    pub(crate) user: UserId,
    pub(crate) session: SecretHash,
    pub(crate) csrf: SecretHash,
    pub(crate) sign_in: SignIn,
}

/// What a question is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum About {
    /// A request to the authorization endpoint.
    Request { request: Box<Request>, resource: Option<McpServerId> },
    /// What an AAuth agent asked for, under the hash of its request token.
    AAuth { asked: SecretHash, agent: ClientId, address: Address },
}

impl About {
    /// Who wants it.
    pub(crate) fn client_id(&self) -> &ClientId {
        match self {
            Self::Request { request, .. } => &request.client_id,
            Self::AAuth { agent, .. } => agent,
        }
    }

    /// Where the answer goes.
    pub(crate) fn address(&self) -> &Address {
        match self {
            Self::Request { request, .. } => &request.address,
            Self::AAuth { address, .. } => address,
        }
    }
}

/// The stored form of a body.
pub(crate) fn write(body: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(body).map_err(|_| StoreError::other("grants.body", "the body cannot be written"))
}

/// The body behind a stored form.
pub(crate) fn read<T: DeserializeOwned>(body: &str) -> Result<T, StoreError> {
    serde_json::from_str(body).map_err(|_| StoreError::other("grants.body", "the stored body cannot be read"))
}
