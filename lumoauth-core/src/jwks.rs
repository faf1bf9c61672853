//! Sets of public keys of others (RFC 7517): registered here, or fetched.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A set of public keys as it was registered. What of it can be used is decided when it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JwkSet {
    /// The keys, as they were given.
    pub keys: Vec<Value>,
}
