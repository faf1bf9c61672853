//! Access tokens: their claims, what they stand on, how they are signed and read.
//!
//! A token is a JWT (`typ: at+jwt`, RFC 9068). No row is written per token: everything that decides whether it
//! is alive is in its claims ([`Lineage`]) and in the records of its principals.

mod claims;
pub(crate) mod dpop;
pub(crate) mod foreign;
mod jwt;
mod lineage;
mod liveness;
mod remote;
mod verified;

pub use claims::{AccessClaims, Act, Audience, KeyBinding, MayAct, ParentTask};
pub use dpop::{DPOP_ALGORITHMS, DpopRequest, InvalidProof};
pub use jwt::{InvalidToken, MAX_TOKEN_BYTES, verify};
pub use lineage::{ClientEpoch, ConsentEpoch, Lineage, Subject};
pub use liveness::{Dead, principal_of};
pub use remote::RemoteToken;

pub(crate) use jwt::{sign, unverified_issuer};
pub(crate) use lineage::{aauth_handle, family_handle, handles_text, token_handle};
pub(crate) use verified::VerifiedTokens;
