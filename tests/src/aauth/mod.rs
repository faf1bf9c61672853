//! AAuth as its agents and resources do it: keys, tokens and signed requests, made without the code under test.

mod call;
mod key;
mod parties;

pub use call::{Call, Sent};
pub use key::Ed25519;
pub use parties::{AAuthAgent, AAuthResource};
