//! AAuth at services of a host: those that agents call ([`AAuthLayer`]), and agents
//! that call them ([`AAuthClientLayer`]).

mod checked_body;
mod client;
mod layer;

pub use checked_body::{CheckedBody, CheckedBodyError};
pub use client::{AAuthClient, AAuthClientError, AAuthClientLayer, PendingConsent, WantedScope};
pub use layer::{AAuth, AAuthLayer, resource_document, resource_jwks};
