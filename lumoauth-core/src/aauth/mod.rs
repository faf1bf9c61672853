//! AAuth: agents that prove who they are by a key instead of a secret, request by request.
//!
//! | file | what it holds |
//! |---|---|
//! | `confirmation` | the `cnf` claim: the key that a token is bound to |
//! | `agent_token` | `agent+jwt`: an agent, or a delegate that it vouches for, and its key |
//! | `resource_token` | `resource+jwt`: what a resource wants an agent to be allowed |
//! | `auth_token` | `auth+jwt`: what an agent may do at a resource; the only one that gives access |
//! | `lineage` | what an auth token stands on, and whether that still holds |
//! | `policy` | who decides whether an agent gets what it asks for: [`ConsentPolicy`] |
//! | `error` | why there is no token |
//! | `fields` | the header fields by which agents say who they are |
//! | `resource_server` | what a resource does: who calls, and what is missing |
//! | `refusal` | what a resource demands, and what it answers to those who do not have it |
//! | [`client`] | what an agent does: it signs, and gets the tokens that resources want |
//! | `context` | who calls a resource, as its handlers see it |
//! | `verified` | auth tokens that a resource saw before |
//!
//! 1. Each of the three tokens has a type of its own and one reader; no door takes another's.
//! 2. A token says who may use it: the holder of one key. It counts only together with a request that this key signed
//!    ([`crate::httpsig`]).
//! 3. Whose key signs a token is looked up by who it claims to be from, among those who are registered here; nothing that a
//!    token says about keys of its issuer is believed.
//! 4. Authority only shrinks: of an auth token, to what the resource asked for, the agent may have and, for an exchange, the
//!    token before it carried.

mod agent_token;
mod auth_token;
pub mod client;
mod confirmation;
mod context;
mod error;
pub(crate) mod fields;
mod lineage;
mod policy;
mod refusal;
mod resource_server;
mod resource_token;
mod verified;

pub use agent_token::{AgentToken, UnverifiedAgentToken};
pub use auth_token::{ActedFor, AuthClaims, UnverifiedAuthToken};
pub use confirmation::Confirmation;
pub use context::{AAuthCaller, AAuthContext};
pub use error::{AAuthError, Unauthenticated};
pub use lineage::{AuthLineage, alive};
pub use policy::{AuthorizationFacts, ConsentPolicy, Decision, LevelPolicy};
pub use refusal::{Demand, Refusal, RefusalCause};
pub use resource_server::{
    AuthTokenIssuer, IssuerUnavailable, PublishedIssuer, Recognized, ResourceServer, Scheme, Seen,
};
pub(crate) use resource_token::NewResourceToken;
pub use resource_token::{ResourceToken, UnverifiedResourceToken};

use std::time::Duration;

/// How far ahead of ours the clock of whoever signed a token may be.
pub(crate) const SKEW: Duration = Duration::from_secs(60);
/// The longest life of an agent token and of an auth token.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// The longest life of a resource token.
pub const RESOURCE_TOKEN_LIFE: Duration = Duration::from_secs(300);
