//! Whether verified claims are those of the workload that an agent trusts.

use serde_json::{Map, Value};

use super::{GOOGLE, Workload, WorkloadTrust};

/// Why claims are not those of the workload. For the log: clients never learn it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Mismatch(&'static str);

impl Mismatch {
    pub(crate) const NO_ISSUER: Self = Self("the token names no issuer");
}

fn require(holds: bool, reason: &'static str) -> Result<(), Mismatch> {
    if holds { Ok(()) } else { Err(Mismatch(reason)) }
}

impl WorkloadTrust {
    /// Whether tokens of `issuer` can be those of the workload.
    pub fn accepts_issuer(&self, issuer: Option<&str>) -> bool {
        match &self.workload {
            Workload::Kubernetes { issuer: own, .. } | Workload::Oidc { issuer: own, .. } => {
                issuer == Some(own.as_str())
            }
            // Without an issuer a role signs requests, and there are no tokens.
            Workload::Aws { issuer: own, .. } => own.is_some() && issuer == own.as_deref(),
            Workload::Gcp { .. } => issuer == Some(GOOGLE),
            Workload::Azure { tenant_id, .. } => {
                issuer.is_some_and(|issuer| azure_issuers(tenant_id).iter().any(|own| own == issuer))
            }
            // The standard for JWT-SVIDs requires no issuer: the keys are those of the trust domain.
            Workload::Spiffe { issuer: Some(own), .. } => issuer == Some(own.as_str()),
            Workload::Spiffe { issuer: None, .. } => true,
        }
    }

    /// Whether the verified `claims` of `issuer` are those of the workload, in a token that is meant for its audience, or
    /// for `default_audience` if it has none of its own.
    ///
    /// # Errors
    /// [`Mismatch`] with the first check that fails.
    pub fn check(
        &self,
        issuer: Option<&str>,
        claims: &Map<String, Value>,
        default_audience: &str,
    ) -> Result<(), Mismatch> {
        require(self.accepts_issuer(issuer), "the issuer is another")?;
        let audience = self.audience.as_deref().unwrap_or(default_audience);
        require(is_meant_for(claims, audience), "the audience is another")?;
        self.check_subject(claims)?;
        let fits = |(name, value): (&String, &Value)| claims.get(name) == Some(value);
        require(self.claims.iter().all(fits), "a required claim is another")
    }

    fn check_subject(&self, claims: &Map<String, Value>) -> Result<(), Mismatch> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let is = |name: &str, value: &str| text(name) == Some(value);
        match &self.workload {
            Workload::Kubernetes { namespace, service_account, .. } => {
                require(is("sub", &self.subject()), "the service account is another")?;
                let agrees = claims.get("kubernetes.io").is_none_or(|bound| {
                    bound["namespace"] == namespace.as_str()
                        && bound["serviceaccount"]["name"] == service_account.as_str()
                });
                require(agrees, "the token contradicts itself about the service account")
            }
            Workload::Aws { role, .. } => {
                require(text("sub").is_some_and(|sub| role.is_caller(sub)), "the role is another")
            }
            Workload::Gcp { email, project_id } => {
                require(is("email", email), "the service account is another")?;
                require(
                    claims.get("email_verified") == Some(&Value::Bool(true)),
                    "the address is not verified",
                )?;
                let project =
                    claims.get("google").and_then(|google| google.pointer("/compute_engine/project_id"));
                let agrees = project.is_none_or(|project| project == project_id.as_str());
                require(agrees, "the project is another")
            }
            Workload::Azure { tenant_id, client_id, subject } => {
                require(is("tid", tenant_id), "the tenant is another")?;
                // A person's token names the application that obtained it, too.
                let is_app =
                    !claims.contains_key("scp") && claims.get("idtyp").is_none_or(|kind| kind == "app");
                require(is_app, "the token is a person's")?;
                if let Some(id) = client_id {
                    let mut named =
                        ["azp", "appid"].into_iter().filter_map(|name| claims.get(name)).peekable();
                    let fits = named.peek().is_some() && named.all(|value| value == id.as_str());
                    require(fits, "the application is another")?;
                }
                match subject {
                    Some(id) => require(is("sub", id) || is("oid", id), "the service principal is another"),
                    None => Ok(()),
                }
            }
            Workload::Oidc { subject, .. } => require(is("sub", subject), "the subject is another"),
            Workload::Spiffe { id, .. } => require(is("sub", id), "the SPIFFE id is another"),
        }
    }

    /// Whether its audience is one that the platform gives tokens by default: then other services get such tokens too,
    /// and could present them here.
    pub fn has_generic_audience(&self) -> bool {
        const GENERIC: [&str; 15] = [
            "https://kubernetes.default.svc",
            "https://kubernetes.default.svc.cluster.local",
            "https://kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes",
            "api",
            "sts.amazonaws.com",
            "https://sts.amazonaws.com",
            "api://AzureADTokenExchange",
            "https://management.azure.com",
            "https://management.core.windows.net",
            "https://graph.microsoft.com",
            "00000003-0000-0000-c000-000000000000",
            "https://iam.googleapis.com",
            "https://oauth2.googleapis.com/token",
        ];
        let audience = self.audience.as_deref().unwrap_or_default();
        // Kubernetes takes the issuer for the audience of tokens that ask for none.
        let of_issuer = matches!(&self.workload, Workload::Kubernetes { issuer, .. } if audience == issuer);
        of_issuer || GENERIC.contains(&audience.strip_suffix('/').unwrap_or(audience))
    }
}

/// Whether `aud`, a text or a list of nothing but texts (RFC 7519 section 4.1.3), contains exactly `audience`.
fn is_meant_for(claims: &Map<String, Value>, audience: &str) -> bool {
    match claims.get("aud") {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(several)) => {
            several.iter().all(Value::is_string) && several.iter().any(|one| one == audience)
        }
        _ => false,
    }
}

/// The issuers of a Microsoft Entra tenant: of version 2 and version 1 tokens.
pub(super) fn azure_issuers(tenant: &str) -> [String; 2] {
    [format!("https://login.microsoftonline.com/{tenant}/v2.0"), format!("https://sts.windows.net/{tenant}/")]
}

/// The tenant whose issuer this is.
pub(super) fn azure_tenant(issuer: &str) -> Option<&str> {
    let version_2 =
        issuer.strip_prefix("https://login.microsoftonline.com/").and_then(|rest| rest.strip_suffix("/v2.0"));
    let tenant = version_2.or_else(|| issuer.strip_prefix("https://sts.windows.net/")?.strip_suffix('/'))?;
    (!tenant.contains('/')).then_some(tenant)
}

#[cfg(test)]
mod tests;
