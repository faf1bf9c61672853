//! Trust as administrators write and read it: the JSON of `workloadIdentity`.
//!
//! What is accepted names exactly one workload. Whatever would reach further, could never match, or would be ignored is
//! refused with the name of the member at fault.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use url::{Host, Url};

use super::{
    GOOGLE, PinnedKeys, Provider, RoleArn, Workload, WorkloadTrust, aws::partition_of_region,
    claims::azure_issuers, is_of_this_server, shared::Shared,
};
use crate::jwks::{JwkSet, PublicKeys};

/// A trust cannot be like that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member}: {problem}")]
#[non_exhaustive]
pub struct InvalidTrust {
    /// The wire name of the member at fault.
    pub member: &'static str,
    /// What is wrong with it, safe to show.
    pub problem: String,
}

fn invalid(member: &'static str, problem: impl Into<String>) -> InvalidTrust {
    InvalidTrust { member, problem: problem.into() }
}

/// The members of a trust, as they are shown, and what else they may be called.
const MEMBERS: [(&str, &str); 15] = [
    ("provider", "provider"),
    ("issuer", "issuer"),
    ("namespace", "namespace"),
    ("serviceAccount", "service_account"),
    ("roleArn", "role_arn"),
    ("region", "region"),
    ("serviceAccountEmail", "service_account_email"),
    ("projectId", "project_id"),
    ("clientId", "client_id"),
    ("tenantId", "tenant_id"),
    ("subject", "subject"),
    ("audience", "audience"),
    ("jwksUri", "jwks_uri"),
    ("jwks", "jwks"),
    ("claims", "claims"),
];

/// The longest text of a member, in bytes.
const MAX_TEXT: usize = 2048;

/// How many further claims may be required.
const MAX_CLAIMS: usize = 16;

/// What is given and not yet taken.
struct Members<'a>(BTreeMap<&'static str, &'a Value>);

impl<'a> Members<'a> {
    fn read(value: &'a Value) -> Result<Self, InvalidTrust> {
        let Value::Object(given) = value else { return Err(invalid("provider", "is required")) };
        let mut members = BTreeMap::new();
        for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
            let known = MEMBERS.iter().find(|(camel, snake)| name == camel || name == snake);
            // What is not understood may be a restriction: to ignore it would be to match too much.
            let Some((member, _)) = known else {
                let shown: String = name.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
                return Err(invalid("provider", format!("there is no member `{shown}`")));
            };
            if members.insert(*member, value).is_some() {
                return Err(invalid(member, "is given twice"));
            }
        }
        Ok(Self(members))
    }

    /// A text without spaces and without what looks like a pattern.
    fn text(&mut self, member: &'static str) -> Result<Option<String>, InvalidTrust> {
        let Some(value) = self.0.remove(member) else { return Ok(None) };
        let Value::String(text) = value else { return Err(invalid(member, "must be a string")) };
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(invalid(member, format!("must have 1 to {MAX_TEXT} bytes")));
        }
        if text.contains('*') {
            return Err(invalid(member, "must be exact: there are no wildcards"));
        }
        if !text.chars().any(char::is_alphanumeric) {
            return Err(invalid(member, "must name something"));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(invalid(member, "must not contain spaces or control characters"));
        }
        Ok(Some(text.clone()))
    }

    fn required(&mut self, member: &'static str) -> Result<String, InvalidTrust> {
        self.text(member)?.ok_or_else(|| invalid(member, "is required"))
    }

    fn issuer(&mut self) -> Result<Option<String>, InvalidTrust> {
        let Some(text) = self.text("issuer")? else { return Ok(None) };
        check_url("issuer", &text)?;
        if text.contains(['?', '#']) {
            return Err(invalid("issuer", "must not have a query or fragment"));
        }
        check_is_one_tenant(&text)?;
        Ok(Some(text))
    }

    fn keys(&mut self) -> Result<Option<PinnedKeys>, InvalidTrust> {
        let uri = self.text("jwksUri")?;
        match (self.0.remove("jwks"), uri) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(invalid("jwks", "goes without jwksUri")),
            (None, Some(uri)) => {
                check_url("jwksUri", &uri)?;
                Ok(Some(PinnedKeys::JwksUri(uri)))
            }
            (Some(value), None) => {
                let Some(keys) = value.get("keys").and_then(Value::as_array).filter(|keys| !keys.is_empty())
                else {
                    return Err(invalid("jwks", "must be a key set with at least one key"));
                };
                let set = JwkSet { keys: keys.clone() };
                set.check().map_err(|error| invalid("jwks", error.to_string()))?;
                let keys = PublicKeys::of(&set);
                if keys.is_empty() || keys.has_mixed_order() {
                    return Err(invalid(
                        "jwks",
                        "has no key that can be used, or one with a part of small order",
                    ));
                }
                Ok(Some(PinnedKeys::Jwks(set)))
            }
        }
    }

    fn claims(&mut self) -> Result<BTreeMap<String, Value>, InvalidTrust> {
        let Some(value) = self.0.remove("claims") else { return Ok(BTreeMap::new()) };
        let Value::Object(claims) = value else { return Err(invalid("claims", "must be an object")) };
        if claims.len() > MAX_CLAIMS {
            return Err(invalid("claims", format!("has more than {MAX_CLAIMS} members")));
        }
        for (name, value) in claims {
            if matches!(name.as_str(), "iss" | "aud" | "exp" | "nbf" | "iat" | "jti") {
                return Err(invalid("claims", format!("`{name}` is checked by itself")));
            }
            let exact = match value {
                Value::String(text) => !text.is_empty() && text.len() <= MAX_TEXT && !text.contains('*'),
                Value::Bool(_) => true,
                Value::Number(number) => number.is_i64() || number.is_u64(),
                Value::Null | Value::Array(_) | Value::Object(_) => false,
            };
            // Who requires that an address is not verified requires nothing.
            if name == "email_verified" && *value != Value::Bool(true) {
                return Err(invalid("claims", "`email_verified` can only be required to be true"));
            }
            if name.is_empty() || name.len() > 256 || !exact {
                return Err(invalid(
                    "claims",
                    "each must be text without wildcards, a whole number, true or false",
                ));
            }
        }
        Ok(claims.clone().into_iter().collect())
    }

    /// Whatever nobody took does not belong there.
    fn finish(&self, provider: Provider) -> Result<(), InvalidTrust> {
        match self.0.keys().next() {
            Some(member) => Err(invalid(member, format!("means nothing for {}", provider.as_str()))),
            None => Ok(()),
        }
    }
}

impl WorkloadTrust {
    /// Reads a trust from `workloadIdentity`, in either style of member names.
    ///
    /// # Errors
    /// [`InvalidTrust`] for the first member that would match too much, never match, or be ignored.
    pub fn parse(value: &Value) -> Result<Self, InvalidTrust> {
        let mut members = Members::read(value)?;
        let names = "must be kubernetes, aws, gcp, azure, oidc or spiffe";
        let provider =
            Provider::parse(&members.required("provider")?).ok_or_else(|| invalid("provider", names))?;
        let keys = members.keys()?;
        let workload = match provider {
            Provider::Kubernetes => kubernetes(&mut members)?,
            Provider::Aws => aws(&mut members)?,
            Provider::Gcp => gcp(&mut members)?,
            Provider::Azure => azure(&mut members)?,
            Provider::Oidc => oidc(&mut members)?,
            Provider::Spiffe => spiffe(&mut members, keys.as_ref())?,
        };
        let trust = Self { workload, audience: members.text("audience")?, keys, claims: members.claims()? };
        members.finish(provider)?;
        trust.check_combination()?;
        Ok(trust)
    }

    fn check_combination(&self) -> Result<(), InvalidTrust> {
        match &self.workload {
            // Its tokens are for applications that are registered there, never for an issuer's URL.
            Workload::Azure { .. } if self.audience.is_none() => {
                Err(invalid("audience", "is required: the application that the tokens are asked for"))
            }
            Workload::Aws { issuer: None, .. }
                if self.audience.is_some() || self.keys.is_some() || !self.claims.is_empty() =>
            {
                Err(invalid(
                    "issuer",
                    "is required for tokens; without it the role signs requests, which have no audience, keys or claims",
                ))
            }
            Workload::Oidc { issuer, subject } => self.check_pins_tenant(issuer, subject),
            _ => Ok(()),
        }
    }

    /// Some issuers serve everybody and let each customer shape `sub`: then another customer's can look the same. So the
    /// subject names whose it is, or a claim does that customers cannot choose.
    fn check_pins_tenant(&self, issuer: &str, subject: &str) -> Result<(), InvalidTrust> {
        let Some(shared) = Shared::of(issuer) else { return Ok(()) };
        for pin in shared.pins {
            // Customers of these issuers have names and numbers. `false` is nobody, though it looks like "not needed".
            if matches!(self.claims.get(*pin), Some(Value::Bool(_))) {
                return Err(invalid("claims", format!("`{pin}` must name one, as text or a number")));
            }
        }
        if shared.owns(subject) || shared.pins.iter().any(|pin| self.claims.contains_key(*pin)) {
            return Ok(());
        }
        let (form, pins) = (shared.form, shared.pins.join(", "));
        Err(invalid("subject", format!("must be like `{form}`, or one of these claims be required: {pins}")))
    }

    /// Whether it is in somebody else than this server, of which `ours` is the issuer of one organization: its tokens are
    /// about agents, and none of them makes another one.
    ///
    /// # Errors
    /// [`InvalidTrust`] with the member that names this server.
    pub(crate) fn check_is_foreign(&self, ours: &str) -> Result<(), InvalidTrust> {
        let issuer = match &self.workload {
            Workload::Kubernetes { issuer, .. } | Workload::Oidc { issuer, .. } => Some(issuer),
            Workload::Aws { issuer, .. } | Workload::Spiffe { issuer, .. } => issuer.as_ref(),
            Workload::Gcp { .. } | Workload::Azure { .. } => None,
        };
        if issuer.is_some_and(|issuer| is_of_this_server(ours, issuer)) {
            return Err(invalid("issuer", "is this server: its tokens vouch for no workload"));
        }
        match &self.keys {
            Some(PinnedKeys::JwksUri(uri)) if is_of_this_server(ours, uri) => {
                Err(invalid("jwksUri", "is this server's: its tokens vouch for no workload"))
            }
            _ => Ok(()),
        }
    }

    /// The trust, as administrators see it.
    pub fn view(&self) -> Value {
        let (jwks, jwks_uri) = match &self.keys {
            None => (None, None),
            Some(PinnedKeys::Jwks(set)) => (Some(set), None),
            Some(PinnedKeys::JwksUri(uri)) => (None, Some(uri)),
        };
        let common = json!({
            "provider": self.provider().as_str(),
            "audience": self.audience,
            "jwksUri": jwks_uri,
            "jwks": jwks,
            "claims": self.claims,
        });
        let own = match &self.workload {
            Workload::Kubernetes { issuer, namespace, service_account } => {
                json!({ "issuer": issuer, "namespace": namespace, "serviceAccount": service_account })
            }
            Workload::Aws { issuer, role, region } => {
                json!({ "issuer": issuer, "roleArn": role, "region": region })
            }
            Workload::Gcp { email, project_id } => {
                json!({ "serviceAccountEmail": email, "projectId": project_id })
            }
            Workload::Azure { tenant_id, client_id, subject } => {
                json!({ "tenantId": tenant_id, "clientId": client_id, "subject": subject })
            }
            Workload::Oidc { issuer, subject } => json!({ "issuer": issuer, "subject": subject }),
            Workload::Spiffe { issuer, id } => json!({ "issuer": issuer, "subject": id }),
        };
        let members = [common, own].into_iter().filter_map(|part| match part {
            Value::Object(members) => Some(members),
            _ => None,
        });
        Value::Object(members.flatten().collect::<Map<_, _>>())
    }
}

fn kubernetes(members: &mut Members<'_>) -> Result<Workload, InvalidTrust> {
    let issuer = members.issuer()?.ok_or_else(|| invalid("issuer", "is required"))?;
    let namespace = kubernetes_name(members, "namespace", 63, "a-z, 0-9 and -")?;
    let service_account = kubernetes_name(members, "serviceAccount", 253, "a-z, 0-9, - and .")?;
    Ok(Workload::Kubernetes { issuer, namespace, service_account })
}

/// A name in the cluster. With a colon in it, two names could change places in `system:serviceaccount:{}:{}`.
fn kubernetes_name(
    members: &mut Members<'_>,
    member: &'static str,
    most: usize,
    of: &str,
) -> Result<String, InvalidTrust> {
    let text = members.required(member)?;
    let dot = of.contains('.');
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || (dot && b == b'.');
    if text.len() > most || !text.bytes().all(fits) {
        return Err(invalid(member, format!("must be 1 to {most} of {of}")));
    }
    Ok(text)
}

fn aws(members: &mut Members<'_>) -> Result<Workload, InvalidTrust> {
    let role = RoleArn::parse(&members.required("roleArn")?)
        .map_err(|_| invalid("roleArn", "must be like arn:aws:iam::123456789012:role/name"))?;
    let (issuer, region) = (members.issuer()?, members.text("region")?);
    if let Some(region) = &region {
        if issuer.is_some() {
            return Err(invalid("region", "goes without issuer: it is for signed requests"));
        }
        if partition_of_region(region) != Some(role.partition()) {
            return Err(invalid("region", "is not a region of the role's partition"));
        }
    }
    Ok(Workload::Aws { issuer, role, region })
}

fn gcp(members: &mut Members<'_>) -> Result<Workload, InvalidTrust> {
    let email = members.required("serviceAccountEmail")?;
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    let (name, domain) = email.split_once('@').unwrap_or_default();
    if name.is_empty() || !email.bytes().all(|b| fits(b) || b == b'@') || domain.contains('@') {
        return Err(invalid("serviceAccountEmail", "must be an address in lower case"));
    }
    if !domain.ends_with(".gserviceaccount.com") {
        return Err(invalid("serviceAccountEmail", "must be a service account's, at *.gserviceaccount.com"));
    }
    let project_id = members.required("projectId")?;
    if !project_id.bytes().all(|b| fits(b) || b == b':') {
        return Err(invalid("projectId", "must be the id of a project"));
    }
    if members.issuer()?.is_some_and(|issuer| issuer != GOOGLE) {
        return Err(invalid("issuer", format!("can only be {GOOGLE}")));
    }
    Ok(Workload::Gcp { email, project_id })
}

fn azure(members: &mut Members<'_>) -> Result<Workload, InvalidTrust> {
    let tenant_id = guid("tenantId", members.required("tenantId")?)?;
    // The tenant of everybody's personal accounts.
    if tenant_id == "9188040d-6c67-4b5b-b112-36a304b66dad" {
        return Err(invalid("tenantId", "must be one organization's: this is everybody's"));
    }
    let client_id = members.text("clientId")?.map(|id| guid("clientId", id)).transpose()?;
    let subject = members.text("subject")?;
    if client_id.is_none() && subject.is_none() {
        return Err(invalid("clientId", "is required, or subject"));
    }
    if members.issuer()?.is_some_and(|issuer| !azure_issuers(&tenant_id).contains(&issuer)) {
        return Err(invalid("issuer", "can only be that of the tenant"));
    }
    Ok(Workload::Azure { tenant_id, client_id, subject })
}

fn guid(member: &'static str, text: String) -> Result<String, InvalidTrust> {
    let fits = text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
        });
    if fits { Ok(text) } else { Err(invalid(member, "must be a UUID in lower case")) }
}

fn oidc(members: &mut Members<'_>) -> Result<Workload, InvalidTrust> {
    let issuer = members.issuer()?.ok_or_else(|| invalid("issuer", "is required"))?;
    let subject = members.required("subject")?;
    // Nothing is a prefix here, and an issuer writes that only where it has nothing to say.
    if subject.ends_with(':') {
        return Err(invalid("subject", "must be the whole subject, and not how it begins"));
    }
    Ok(Workload::Oidc { issuer, subject })
}

fn spiffe(members: &mut Members<'_>, keys: Option<&PinnedKeys>) -> Result<Workload, InvalidTrust> {
    let id = members.required("subject")?;
    if !is_spiffe_id(&id) {
        return Err(invalid("subject", "must be like spiffe://trust-domain/path"));
    }
    let issuer = members.issuer()?;
    if issuer.is_none() && keys.is_none() {
        return Err(invalid("issuer", "is required, or jwksUri or jwks"));
    }
    Ok(Workload::Spiffe { issuer, id })
}

/// A workload's id: a trust domain and a path that can be written in one way only.
fn is_spiffe_id(text: &str) -> bool {
    let Some((domain, path)) = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let in_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    let is_segment = |segment: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        !matches!(segment, "" | "." | "..") && segment.bytes().all(fits)
    };
    (1..=255).contains(&domain.len()) && domain.bytes().all(in_domain) && path.split('/').all(is_segment)
}

/// An absolute URL that is written in the one way in which platforms write theirs: tokens are compared with it exactly.
fn check_url(member: &'static str, text: &str) -> Result<(), InvalidTrust> {
    let url = Url::parse(text).map_err(|_| invalid(member, "must be an https URL"))?;
    let near = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_private(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() != "https" && !(url.scheme() == "http" && near) {
        return Err(invalid(member, "must be an https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() || text.contains('@') {
        return Err(invalid(member, "must not have user information"));
    }
    // An empty path is the one thing that has two spellings, and both occur.
    let written = url.as_str();
    if text != written && Some(text) != written.strip_suffix('/') {
        return Err(invalid(
            member,
            "is not written as a token would have it: lower-case host, no default port, plain path",
        ));
    }
    Ok(())
}

/// These stand for every tenant at once, and no token is ever issued by them.
fn check_is_one_tenant(issuer: &str) -> Result<(), InvalidTrust> {
    let hosts = ["https://login.microsoftonline.com/", "https://sts.windows.net/"];
    let tenant =
        hosts.iter().find_map(|host| issuer.strip_prefix(host)).and_then(|rest| rest.split('/').next());
    match tenant {
        Some("" | "common" | "organizations" | "consumers" | "9188040d-6c67-4b5b-b112-36a304b66dad") => {
            Err(invalid("issuer", "must be that of one tenant"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
