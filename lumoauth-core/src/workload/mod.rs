//! Workloads: agents that hold no secret because their platform vouches for them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Under what an agent's trust in a platform is found: a hash of the issuer and of the one claim that names the workload.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadKey([u8; 32]);

impl WorkloadKey {
    /// The key of `workload` at `issuer`, as the claim `claim` names it.
    pub fn new(issuer: &str, claim: &str, workload: &str) -> Self {
        Self(crate::secret::sha256(format!("{issuer}\0{claim}\0{workload}").as_bytes()))
    }

    /// The bytes, as a store keys by them.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WorkloadKey").finish_non_exhaustive()
    }
}

/// Which workload may be an agent, and who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkloadTrust {
    /// The issuer of the platform's tokens, compared exactly.
    pub issuer: String,
    /// The claim that names the workload.
    pub claim: String,
    /// The value it must have, compared exactly.
    pub workload: String,
}

impl WorkloadTrust {
    /// Trust in `subject` of `issuer`.
    pub fn oidc(issuer: impl Into<String>, subject: impl Into<String>) -> Self {
        Self { issuer: issuer.into(), claim: "sub".to_owned(), workload: subject.into() }
    }

    /// Under what it is found.
    pub fn key(&self) -> WorkloadKey {
        WorkloadKey::new(&self.issuer, &self.claim, &self.workload)
    }
}
