//! Asking people: the parts of the authorization endpoint (RFC 6749 section 4.1) that need no store.
//!
//! | file | what |
//! |---|---|
//! | `request` | the parameters of a request, and what is wrong with them |
//! | `redirect` | where an answer may go, and how it looks |
//! | `scope` | what a client may be given by a person, and what that means in words |
//! | `pkce` | RFC 7636 |
//! | `tickets` | what codes, pushed requests, questions and refresh tokens stand for |
//! | `claims` | what a client learns about a person |
//!
//! The flow is [`AuthorizationServer::authorize`](crate::server::AuthorizationServer::authorize) and
//! [`decide`](crate::server::AuthorizationServer::decide).
//!
//! 1. Until the client and its redirect URI are known to be good, nothing is ever redirected: a stranger's URL must not
//!    get a browser from us.
//! 2. Every answer names its issuer (RFC 9207) and repeats `state`.
//! 3. What a person agrees to is listed literally. An agent is never given what only people decide.

mod claims;
mod error;
pub(crate) mod pkce;
pub(crate) mod redirect;
mod request;
mod scope;
mod tickets;

pub use error::{AuthorizeError, RequestError};
pub use scope::IDENTITY_SCOPES;

pub(crate) use claims::person_claims;
pub(crate) use request::{Address, Request};
pub(crate) use scope::{decide as decide_scope, describe, is_identity_scope, narrowed, still_allowed};
pub(crate) use tickets::{About, Authorized, CodeBody, PushedBody, QuestionBody, read, write};
