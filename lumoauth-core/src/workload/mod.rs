//! Workloads: agents that hold no secret because their platform vouches for them.
//!
//! A [`WorkloadTrust`] says which workload may be an agent, and who vouches for it. It is the one trust configuration for
//! every platform, and it never matches more than one workload:
//!
//! 1. Every value is compared exactly. There are no patterns, prefixes or defaults that reach further.
//! 2. What it expects of a token is all in the configuration: issuer, keys and audience never come from the token.
//! 3. A configuration that would match too much, or that can never match, is refused when it is set.
//! 4. For AWS the role is in `sub`. A platform that names it in another claim is an `oidc` issuer with `claims`.

mod admin;
mod aws;
mod claims;
mod shared;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::jwks::JwkSet;

pub use admin::InvalidTrust;
pub use aws::{InvalidArn, RoleArn};
pub(crate) use aws::{StsHost, role_of_caller};
pub use claims::Mismatch;

/// Whether `url` is under an organization of the server whose issuer of one organization is `ours`, by either of its prefixes:
/// what this server says about itself is no word of a platform.
pub(crate) fn is_of_this_server(ours: &str, url: &str) -> bool {
    let base = ours.strip_suffix("/api/v1").and_then(|text| text.rsplit_once("/orgs/")).map(|(base, _)| base);
    let rest = base.and_then(|base| url.strip_prefix(base));
    url == ours || rest.is_some_and(|rest| rest.starts_with("/orgs/") || rest.starts_with("/t/"))
}

/// The issuer of Google's identity tokens.
const GOOGLE: &str = "https://accounts.google.com";

/// Who answers a signed `GetCallerIdentity` request.
const AWS_STS: &str = "https://sts.amazonaws.com";

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

    /// The keys of every trust that a token of `issuer` with these claims may fit. They only say which agents to look at:
    /// the claims need not be verified yet.
    pub fn candidates(issuer: Option<&str>, claims: &Map<String, Value>) -> Vec<Self> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let mut keys = Vec::new();
        if let Some(id) = text("sub").filter(|sub| sub.starts_with("spiffe://")) {
            keys.push(Self::of_spiffe(id));
        }
        let Some(issuer) = issuer else { return keys };
        if let Some(sub) = text("sub") {
            keys.push(Self::new(issuer, "sub", sub));
            keys.extend(role_of_caller(sub).map(|role| Self::new(issuer, "sub", &role.without_path())));
        }
        if issuer == GOOGLE {
            keys.extend(text("email").map(|email| Self::new(GOOGLE, "email", email)));
        }
        if let Some(tenant) = claims::azure_tenant(issuer) {
            keys.extend(
                ["azp", "appid"].into_iter().filter_map(text).map(|id| Self::of_azure(tenant, "azp", id)),
            );
            keys.extend(
                ["sub", "oid"].into_iter().filter_map(text).map(|id| Self::of_azure(tenant, "sub", id)),
            );
        }
        keys
    }

    fn of_spiffe(id: &str) -> Self {
        Self::new("spiffe", "sub", id)
    }

    /// Both issuers of a tenant name the same workloads.
    fn of_azure(tenant: &str, claim: &str, value: &str) -> Self {
        Self::new(&claims::azure_issuers(tenant)[0], claim, value)
    }
}

impl fmt::Debug for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WorkloadKey").finish_non_exhaustive()
    }
}

/// A sort of platform, as `provider` and `subject_issuer` name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every platform must be handled where workloads are matched")]
pub enum Provider {
    /// A Kubernetes cluster, by service account tokens.
    Kubernetes,
    /// Amazon Web Services, by web identity tokens or signed requests.
    Aws,
    /// Google Cloud, by identity tokens of service accounts.
    Gcp,
    /// Microsoft Entra, by tokens of applications and managed identities.
    Azure,
    /// Any issuer of OpenID Connect.
    Oidc,
    /// A SPIFFE trust domain, by JWT-SVIDs.
    Spiffe,
}

impl Provider {
    const ALL: [Self; 6] = [Self::Kubernetes, Self::Aws, Self::Gcp, Self::Azure, Self::Oidc, Self::Spiffe];

    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Aws => "aws",
            Self::Gcp => "gcp",
            Self::Azure => "azure",
            Self::Oidc => "oidc",
            Self::Spiffe => "spiffe",
        }
    }

    /// The provider of this name; `None` if there is none.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.as_str() == name)
    }
}

/// Which workload may be an agent, and who vouches for it.
///
/// ```
/// use lumoauth_core::workload::WorkloadTrust;
/// use serde_json::json;
///
/// let trust = WorkloadTrust::parse(&json!({
///     "provider": "kubernetes",
///     "issuer": "https://oidc.cluster.example",
///     "namespace": "ops",
///     "serviceAccount": "invoice-bot",
/// }))?;
/// assert_eq!(trust.to_string(), "kubernetes:system:serviceaccount:ops:invoice-bot");
///
/// let too_much = WorkloadTrust::parse(&json!({
///     "provider": "kubernetes",
///     "issuer": "https://oidc.cluster.example",
///     "namespace": "ops",
///     "serviceAccount": "*",
/// }));
/// assert_eq!(too_much.unwrap_err().member, "serviceAccount");
/// # Ok::<_, lumoauth_core::workload::InvalidTrust>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkloadTrust {
    /// The workload, and its platform.
    pub workload: Workload,
    /// The audience that its tokens must have; the organization's issuer if there is none.
    pub audience: Option<String>,
    /// Where the platform's keys are, if not where its issuer says.
    pub keys: Option<PinnedKeys>,
    /// Further claims that its tokens must have, compared exactly.
    pub claims: BTreeMap<String, Value>,
}

/// A workload, by what its platform names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "provider", rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "every platform must be handled where workloads are matched")]
pub enum Workload {
    /// A service account of a Kubernetes cluster.
    Kubernetes {
        /// The issuer of the cluster's tokens.
        issuer: String,
        /// The namespace.
        namespace: String,
        /// The name of the service account.
        service_account: String,
    },
    /// A role of an AWS account.
    Aws {
        /// The issuer of its web identity tokens. Without it the role signs requests, and there are no tokens.
        issuer: Option<String>,
        /// The role.
        role: RoleArn,
        /// The only region whose STS its signed requests may go to.
        region: Option<String>,
    },
    /// A service account of Google Cloud.
    Gcp {
        /// Its address.
        email: String,
        /// The project of the machine it runs on.
        project_id: String,
    },
    /// An application or managed identity of a Microsoft Entra tenant. It has a client id, a subject, or both.
    Azure {
        /// The tenant.
        tenant_id: String,
        /// The application.
        client_id: Option<String>,
        /// The service principal: `sub` or `oid` of its tokens.
        subject: Option<String>,
    },
    /// A subject of an issuer.
    Oidc {
        /// The issuer.
        issuer: String,
        /// The `sub` of its tokens.
        subject: String,
    },
    /// A SPIFFE identity.
    Spiffe {
        /// The issuer, if the tokens of the trust domain have one.
        issuer: Option<String>,
        /// The SPIFFE id.
        id: String,
    },
}

/// Where the keys of a platform are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "keys are registered here or published there")]
pub enum PinnedKeys {
    /// Registered here.
    Jwks(JwkSet),
    /// Published there.
    JwksUri(String),
}

impl WorkloadTrust {
    /// Trust in `subject` of `issuer`, with the organization's issuer as the audience. Nothing is checked:
    /// [`WorkloadTrust::parse`] is for configurations that come from outside.
    pub fn oidc(issuer: impl Into<String>, subject: impl Into<String>) -> Self {
        Self {
            workload: Workload::Oidc { issuer: issuer.into(), subject: subject.into() },
            audience: None,
            keys: None,
            claims: BTreeMap::new(),
        }
    }

    /// Under what it is found.
    pub fn key(&self) -> WorkloadKey {
        match &self.workload {
            Workload::Kubernetes { issuer, .. } => WorkloadKey::new(issuer, "sub", &self.subject()),
            Workload::Aws { issuer: Some(issuer), role, .. } => {
                WorkloadKey::new(issuer, "sub", &role.without_path())
            }
            Workload::Aws { issuer: None, role, .. } => {
                WorkloadKey::new(AWS_STS, "arn", &role.without_path())
            }
            Workload::Gcp { email, .. } => WorkloadKey::new(GOOGLE, "email", email),
            Workload::Azure { tenant_id, client_id: Some(id), .. } => {
                WorkloadKey::of_azure(tenant_id, "azp", id)
            }
            Workload::Azure { tenant_id, .. } => WorkloadKey::of_azure(tenant_id, "sub", &self.subject()),
            Workload::Oidc { issuer, subject } => WorkloadKey::new(issuer, "sub", subject),
            Workload::Spiffe { id, .. } => WorkloadKey::of_spiffe(id),
        }
    }

    /// The platform.
    pub fn provider(&self) -> Provider {
        match self.workload {
            Workload::Kubernetes { .. } => Provider::Kubernetes,
            Workload::Aws { .. } => Provider::Aws,
            Workload::Gcp { .. } => Provider::Gcp,
            Workload::Azure { .. } => Provider::Azure,
            Workload::Oidc { .. } => Provider::Oidc,
            Workload::Spiffe { .. } => Provider::Spiffe,
        }
    }

    /// What the platform calls the workload.
    pub fn subject(&self) -> String {
        match &self.workload {
            Workload::Kubernetes { namespace, service_account, .. } => {
                format!("system:serviceaccount:{namespace}:{service_account}")
            }
            Workload::Aws { role, .. } => role.to_string(),
            Workload::Gcp { email, .. } => email.clone(),
            Workload::Azure { client_id, subject, .. } => {
                client_id.as_ref().or(subject.as_ref()).cloned().unwrap_or_default()
            }
            Workload::Oidc { subject, .. } => subject.clone(),
            Workload::Spiffe { id, .. } => id.clone(),
        }
    }
}

/// What the claim `workload_identity` says: the platform, and what the platform calls the workload. Where a platform names
/// workloads per tenant or issuer, that is part of it.
impl fmt::Display for WorkloadTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.provider().as_str())?;
        match &self.workload {
            Workload::Azure { tenant_id, .. } => write!(f, "{tenant_id}:")?,
            Workload::Oidc { issuer, .. } => write!(f, "{issuer}:")?,
            Workload::Kubernetes { .. }
            | Workload::Aws { .. }
            | Workload::Gcp { .. }
            | Workload::Spiffe { .. } => {}
        }
        f.write_str(&self.subject())
    }
}
