//! Creating and changing agents from what an administrator sends.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    AAuthIdentityPatch, Agent, AgentKind, AgentStatus, AuthMethod, DelegationConsent, IdentityType,
    admission::{auth_methods, networks},
    key_set, redirect_uris,
};
use crate::{
    approval::{Lines, is_plain, shows_nothing},
    budget::BudgetPolicy,
    capability::Capability,
    id::{ClientId, Slug},
    workload::{InvalidTrust, WorkloadTrust},
};

/// The members of an agent that an administrator may set. Absent and `null` leave a member as it is;
/// everything else (ids, counters) is not settable and ignored.
///
/// Members that are set elsewhere are refused unless they are null or empty: accepting and ignoring a restriction would be
/// failing open.
#[derive(Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct AgentPatch {
    /// Display name.
    pub name: Option<String>,
    /// What it does.
    pub description: Option<String>,
    /// The short name, which never changes; at creation it is derived from the name if absent.
    pub slug: Option<String>,
    /// The OAuth client id, which never changes; at creation it is generated if absent.
    #[serde(rename = "clientId", alias = "client_id")]
    pub client_id: Option<String>,
    /// What sort of program it is.
    #[serde(rename = "type")]
    pub kind: Option<AgentKind>,
    /// How it proves who it is.
    #[serde(rename = "identityType", alias = "identity_type")]
    pub identity_type: Option<IdentityType>,
    /// What it may ask for; replaces the whole list.
    #[serde(alias = "allowedScopes", alias = "allowed_scopes", alias = "scopes")]
    pub capabilities: Option<Vec<String>>,
    /// The only tools it may use; replaces the whole list.
    #[serde(rename = "allowedTools", alias = "allowed_tools")]
    pub allowed_tools: Option<Vec<String>>,
    /// What it may use; replaces the whole policy.
    #[serde(rename = "budgetPolicy", alias = "budget_policy")]
    pub budget: Option<Box<RawValue>>,
    /// Life of its tokens, in seconds; clamped to 120..86400.
    #[serde(rename = "tokenLifetime", alias = "token_lifetime")]
    pub token_lifetime: Option<u64>,
    /// Where its public keys are published (https), in place of registered ones; empty takes it away.
    #[serde(rename = "jwksUri", alias = "jwks_uri")]
    pub jwks_uri: Option<String>,
    /// Its public keys (RFC 7517), in place of published ones; an empty set takes them away.
    pub jwks: Option<Value>,
    /// Only at creation: also make a secret for an identity type that has none by itself.
    #[serde(rename = "issueSecret", alias = "issue_secret")]
    pub issue_secret: Option<bool>,
    /// Where an authorization response may go; replaces the whole list.
    #[serde(rename = "redirectUris", alias = "redirect_uris")]
    pub redirect_uris: Option<Vec<String>>,
    /// Whether it may act for people without holding a capability of delegation.
    #[serde(rename = "canActOnBehalfOfUsers", alias = "can_act_on_behalf_of_users")]
    pub can_act_on_behalf_of_users: Option<bool>,
    /// Whether people must agree before it acts for them.
    #[serde(rename = "delegationPolicy", alias = "delegation_policy")]
    pub delegation_policy: Option<DelegationPolicy>,
    /// Which workload it is, if its platform vouches for it; an empty object takes that away.
    #[serde(rename = "workloadIdentity", alias = "workload_identity")]
    pub workload_identity: Option<Value>,
    /// Its part in AAuth; an empty object takes it away.
    #[serde(rename = "aauthIdentity", alias = "aauth_identity")]
    pub aauth_identity: Option<Value>,
    /// The same, for those who have it in parts.
    #[serde(skip)]
    pub aauth: Option<AAuthIdentityPatch>,
    /// The only addresses and networks it may come from, at most 100; replaces the whole list, and an empty one is all.
    #[serde(rename = "allowedIps", alias = "allowed_ips")]
    pub allowed_ips: Option<Vec<String>>,
    /// The only ways it may prove who it is ([`AuthMethod`]), among those of its identity type; replaces the whole list, and an
    /// empty one is all.
    #[serde(rename = "authMethods", alias = "auth_methods")]
    pub auth_methods: Option<Vec<String>>,
    /// As it is; changed at routes of their own, such as `admin/agents/{id}/disable`.
    pub status: Option<String>,
    /// The same of `isActive`.
    #[serde(rename = "isActive", alias = "is_active")]
    pub is_active: Option<bool>,
    /// Given at `admin/agents/{id}/permissions`, not here.
    pub permissions: Option<Value>,
    /// Given at `admin/agents/{id}/roles`, not here.
    pub roles: Option<Value>,
}

/// When an agent may act for people. A rule that this server does not know is refused, not ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "serde_json::Map<String, Value>")]
#[non_exhaustive]
pub struct DelegationPolicy {
    /// Whether they must agree.
    pub consent: DelegationConsent,
}

/// From an object only: a list would be read by the order of its items.
impl TryFrom<serde_json::Map<String, Value>> for DelegationPolicy {
    type Error = String;

    fn try_from(mut members: serde_json::Map<String, Value>) -> Result<Self, String> {
        let consent = members.remove("consent").map(serde_json::from_value).transpose();
        match members.keys().next() {
            Some(unknown) => Err(format!("`{unknown}` is no member of a delegation policy")),
            None => Ok(Self { consent: consent.map_err(|error| error.to_string())?.unwrap_or_default() }),
        }
    }
}

/// An agent cannot be like that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member}: {problem}")]
#[non_exhaustive]
pub struct InvalidAgent {
    /// The wire name of the member at fault.
    pub member: &'static str,
    /// What is wrong with it, safe to show.
    pub problem: String,
}

impl From<InvalidTrust> for InvalidAgent {
    fn from(error: InvalidTrust) -> Self {
        invalid("workloadIdentity", error.to_string())
    }
}

fn invalid(member: &'static str, problem: impl Into<String>) -> InvalidAgent {
    InvalidAgent { member, problem: problem.into() }
}

impl AgentPatch {
    /// The slug for a new agent.
    ///
    /// # Errors
    /// [`InvalidAgent`] without a usable name or slug.
    pub fn new_slug(&self) -> Result<Slug, InvalidAgent> {
        match &self.slug {
            Some(text) => Slug::parse(text).map_err(|_| invalid("slug", "must be 1 to 63 of a-z, 0-9 and -")),
            None => {
                let name = self.name.as_deref().unwrap_or_default();
                Slug::from_name(name)
                    .ok_or_else(|| invalid("name", "is required, with a letter or digit in it"))
            }
        }
    }

    /// The client id for a new agent, if one is asked for.
    ///
    /// # Errors
    /// [`InvalidAgent`] if an agent cannot have it.
    pub fn new_client_id(&self) -> Result<Option<ClientId>, InvalidAgent> {
        let Some(text) = &self.client_id else { return Ok(None) };
        match ClientId::parse(text) {
            Ok(id) if !id.is_app() => Ok(Some(id)),
            _ => Err(invalid("clientId", "must be 1 to 128 of A-Z a-z 0-9 _ - . and not begin with `app_`")),
        }
    }

    /// Applies the patch to `agent`, or nothing of it.
    ///
    /// # Errors
    /// [`InvalidAgent`] for the first member that cannot be accepted.
    pub fn apply(&self, agent: &mut Agent) -> Result<(), InvalidAgent> {
        self.refuse_members_of_elsewhere()?;
        self.refuse_changes_of_elsewhere(agent)?;
        let mut next = agent.clone();
        if let Some(name) = &self.name {
            next.name = checked_text("name", name, 1, 128)?.into();
        }
        if let Some(description) = &self.description {
            let text = checked_text("description", description, 0, 1024)?;
            next.description = Some(text).filter(|text| !text.is_empty());
        }
        if let Some(kind) = self.kind {
            next.kind = kind;
        }
        if let Some(identity_type) = self.identity_type {
            next.identity_type = identity_type;
        }
        if let Some(names) = &self.auth_methods {
            next.auth_methods = auth_methods(names)?;
        }
        if let Some(method) = next.auth_methods.iter().find(|method| !next.identity_type.may_use(**method)) {
            let (method, identity_type) = (method.as_str(), next.identity_type.as_str());
            let problem = format!("has `{method}`, which is not for the identity type {identity_type}");
            return Err(invalid("authMethods", problem));
        }
        if let Some(texts) = &self.allowed_ips {
            next.allowed_ips = networks(texts)?;
        }
        if let Some(capabilities) = &self.capabilities {
            next.capabilities = parse_capabilities("capabilities", capabilities)?;
        }
        if let Some(tools) = &self.allowed_tools {
            let tools = parse_capabilities("allowedTools", tools)?;
            if tools.iter().any(Capability::is_wildcard) {
                return Err(invalid("allowedTools", "must name each tool"));
            }
            next.allowed_tools =
                tools.iter().map(|tool| tool.as_str().trim_start_matches("tool:").to_owned()).collect();
        }
        if let Some(raw) = &self.budget {
            next.budget = parse_policy(raw)?;
        }
        if let Some(seconds) = self.token_lifetime {
            let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            next.token_lifetime = seconds.clamp(Agent::MIN_TOKEN_LIFETIME, Agent::MAX_TOKEN_LIFETIME);
        }
        if self.jwks.is_some() && self.jwks_uri.is_some() {
            // RFC 7591 section 2: nobody could say which of them holds.
            return Err(invalid("jwks", "cannot be given together with jwksUri"));
        }
        if let Some(uri) = &self.jwks_uri {
            next.jwks_uri = if uri.is_empty() { None } else { Some(https_url("jwksUri", uri)?) };
            next.jwks = None;
        }
        if let Some(keys) = &self.jwks {
            next.jwks = key_set("jwks", keys)?;
            next.jwks_uri = None;
        }
        if let Some(uris) = &self.redirect_uris {
            next.redirect_uris = redirect_uris("redirectUris", uris)?;
        }
        if let Some(may) = self.can_act_on_behalf_of_users {
            next.can_act_on_behalf_of_users = may;
        }
        if let Some(policy) = self.delegation_policy {
            next.delegation_consent = policy.consent;
        }
        if let Some(trust) = &self.workload_identity {
            let none = trust.as_object().is_some_and(serde_json::Map::is_empty);
            if !none && !next.identity_type.may_use(AuthMethod::WorkloadIdentity) {
                // It would be shown and never used.
                let text = "is for the identity types workload_identity and custom";
                return Err(invalid("workloadIdentity", text));
            }
            next.workload = if none { None } else { Some(WorkloadTrust::parse(trust)?) };
        }
        if let Some(members) = &self.aauth_identity {
            next.aauth = if members.as_object().is_some_and(serde_json::Map::is_empty) {
                None
            } else {
                let patch = AAuthIdentityPatch::deserialize(members)
                    .map_err(|error| invalid("aauthIdentity", error.to_string()))?;
                Some(Box::new(patch.applied_to(next.aauth.as_deref())?))
            };
        }
        if let Some(patch) = &self.aauth {
            next.aauth = Some(Box::new(patch.applied_to(next.aauth.as_deref())?));
        }
        *agent = next;
        Ok(())
    }

    /// Who is told that an agent was stopped must be able to rely on it.
    fn refuse_changes_of_elsewhere(&self, agent: &Agent) -> Result<(), InvalidAgent> {
        let differs = |given: &Option<String>, is: &str| given.as_deref().is_some_and(|given| given != is);
        let is_active = agent.status == AgentStatus::Active;
        if differs(&self.status, agent.status.as_str()) {
            return Err(invalid("status", "changes at routes of its own, as `disable` of the agent"));
        }
        if self.is_active.is_some_and(|given| given != is_active) {
            return Err(invalid("isActive", "changes at routes of its own, as `disable` of the agent"));
        }
        if differs(&self.slug, agent.slug.as_str()) {
            return Err(invalid("slug", "never changes"));
        }
        if differs(&self.client_id, agent.client_id.as_str()) {
            return Err(invalid("clientId", "never changes"));
        }
        Ok(())
    }

    fn refuse_members_of_elsewhere(&self) -> Result<(), InvalidAgent> {
        for (member, value) in [("permissions", &self.permissions), ("roles", &self.roles)] {
            let empty = match value {
                None | Some(Value::Null | Value::Bool(false)) => true,
                Some(Value::Array(items)) => items.is_empty(),
                Some(Value::Object(members)) => members.is_empty(),
                Some(_) => false,
            };
            if !empty {
                return Err(invalid(member, "has routes of its own below the agent"));
            }
        }
        Ok(())
    }
}

/// Reads a budget policy, with the member at fault in the error.
pub(crate) fn parse_policy(raw: &RawValue) -> Result<BudgetPolicy, InvalidAgent> {
    serde_json::from_str(raw.get())
        .map_err(|error| invalid("budgetPolicy", without_position(&error.to_string())))
}

/// `serde_json` appends where in the text it stood; the sender knows the member and not our positions.
fn without_position(text: &str) -> String {
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

pub(crate) fn parse_capabilities(
    member: &'static str,
    items: &[String],
) -> Result<Vec<Capability>, InvalidAgent> {
    const MOST: usize = 1000;
    if items.len() > MOST {
        return Err(invalid(member, format!("has more than {MOST} items")));
    }
    let mut seen = std::collections::HashSet::new();
    let mut capabilities = Vec::with_capacity(items.len());
    for item in items {
        let capability = Capability::parse(item).map_err(|error| invalid(member, error.to_string()))?;
        if seen.insert(capability.clone()) {
            capabilities.push(capability);
        }
    }
    Ok(capabilities)
}

/// Scopes as an administrator writes them: a list, or text with spaces or commas between.
pub(crate) fn scope_list(member: &'static str, scopes: &Value) -> Result<Vec<Capability>, InvalidAgent> {
    let items: Option<Vec<String>> = match scopes {
        Value::String(text) => {
            Some(text.split([' ', ',']).filter(|item| !item.is_empty()).map(ToOwned::to_owned).collect())
        }
        Value::Array(items) => items.iter().map(|item| item.as_str().map(ToOwned::to_owned)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    };
    let items = items.ok_or_else(|| invalid(member, "must be a list of texts"))?;
    parse_capabilities(member, &items)
}

/// Text for people in one line: bounded, and without what could forge a line of a log or a page. What shows nothing is none.
pub(crate) fn checked_text(
    member: &'static str,
    text: &str,
    least: usize,
    most: usize,
) -> Result<String, InvalidAgent> {
    let text = text.trim();
    if text.len() > most {
        return Err(invalid(member, format!("is longer than {most} bytes")));
    }
    if !is_plain(text, Lines::One) {
        return Err(invalid(member, "contains control characters"));
    }
    let text = if shows_nothing(text) { "" } else { text };
    if text.len() < least {
        return Err(invalid(member, "is required"));
    }
    Ok(text.to_owned())
}

pub(crate) fn https_url(member: &'static str, text: &str) -> Result<String, InvalidAgent> {
    let fits = text.len() <= 512
        && url::Url::parse(text).is_ok_and(|url| {
            url.scheme() == "https" && url.has_host() && url.username().is_empty() && url.password().is_none()
        });
    if fits { Ok(text.to_owned()) } else { Err(invalid(member, "must be an https URL")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn patch(text: &str) -> AgentPatch {
        serde_json::from_str(text).unwrap()
    }

    fn agent() -> Agent {
        Agent::new("A", Slug::parse("a").unwrap(), Timestamp::default())
    }

    #[test]
    fn text_that_shows_nothing_is_none() {
        let checked = |text, least| checked_text("name", text, least, 9).ok();
        for text in ["", "  ", "\u{200d}", "\u{a0}\u{fe0f} "] {
            assert_eq!((checked(text, 1), checked(text, 0)), (None, Some(String::new())), "{text:?}");
        }
        for text in ["a\u{200b}", "\u{202e}a", "a\nb", "\u{feff}", "a\u{2067}b", "0123456789"] {
            assert_eq!((checked(text, 1), checked(text, 0)), (None, None), "{text:?}");
        }
        assert_eq!(checked(" a \u{e9} ", 1).as_deref(), Some("a \u{e9}"));
    }

    #[test]
    fn both_key_styles_are_read() {
        let mut one = agent();
        patch(r#"{"budget_policy":{"max_tokens_per_day":1},"token_lifetime":5,"allowedScopes":["a:b"]}"#)
            .apply(&mut one)
            .unwrap();
        assert_eq!(one.budget.max_tokens_per_day, Some(1));
        assert_eq!(one.token_lifetime, Agent::MIN_TOKEN_LIFETIME);
        assert_eq!(one.capabilities.len(), 1);
    }

    #[test]
    fn what_is_set_elsewhere_is_refused_unless_empty() {
        let mut one = agent();
        assert!(patch(r#"{"permissions":["read:a"]}"#).apply(&mut one).is_err());
        assert!(
            patch(r#"{"permissions":null,"roles":[],"canActOnBehalfOfUsers":false}"#).apply(&mut one).is_ok()
        );
    }

    #[test]
    fn what_changes_elsewhere_is_said_as_it_is_or_not_at_all() {
        let mut one = agent();
        for text in [
            r#"{"status":"suspended"}"#,
            r#"{"status":"revoked","name":"B"}"#,
            r#"{"isActive":false}"#,
            r#"{"slug":"b"}"#,
            r#"{"client_id":"b"}"#,
        ] {
            assert!(patch(text).apply(&mut one).is_err(), "{text}");
            assert_eq!(*one.name, *"A", "{text}");
        }
        let as_it_is = format!(
            r#"{{"status":"active","isActive":true,"slug":"a","clientId":"{}","name":"B"}}"#,
            one.client_id.as_str(),
        );
        patch(&as_it_is).apply(&mut one).unwrap();
        assert_eq!(*one.name, *"B");
        one.change_status(crate::agent::StatusChange::Disable).unwrap();
        assert!(patch(r#"{"isActive":true}"#).apply(&mut one).is_err());
    }

    #[test]
    fn members_of_delegation_are_set_and_withdrawn() {
        let mut one = agent();
        patch(
            r#"{"redirectUris":["https://a.test/cb"],"canActOnBehalfOfUsers":true,
                "delegationPolicy":{"consent":"implicit"}}"#,
        )
        .apply(&mut one)
        .unwrap();
        assert_eq!(one.redirect_uris, ["https://a.test/cb"]);
        assert!(one.may_delegate());
        assert_eq!(one.delegation_consent, DelegationConsent::Implicit);
        let before = one.clone();
        patch(r#"{"redirect_uris":null,"can_act_on_behalf_of_users":null,"delegation_policy":null}"#)
            .apply(&mut one)
            .unwrap();
        assert_eq!(one, before);
        patch(r#"{"redirect_uris":[],"can_act_on_behalf_of_users":false,"delegation_policy":{}}"#)
            .apply(&mut one)
            .unwrap();
        assert!(one.redirect_uris.is_empty() && !one.may_delegate());
        assert_eq!(one.delegation_consent, DelegationConsent::Required);
    }

    #[test]
    fn members_of_delegation_that_nobody_understands_are_refused() {
        for bad in [
            r#"{"redirectUris":"https://a.test/cb"}"#,
            r#"{"canActOnBehalfOfUsers":"yes"}"#,
            r#"{"delegationPolicy":{"consent":"none"}}"#,
            r#"{"delegationPolicy":{"consent":null}}"#,
            r#"{"delegationPolicy":{"consent":"required","maxDepth":3}}"#,
            r#"{"delegationPolicy":"implicit"}"#,
        ] {
            assert!(serde_json::from_str::<AgentPatch>(bad).is_err(), "{bad}");
        }
        let mut one = agent();
        let refused = patch(r#"{"redirectUris":["http://a.test/cb"]}"#).apply(&mut one).unwrap_err();
        assert_eq!(refused.member, "redirectUris");
    }

    #[test]
    fn keys_are_registered_or_published_and_not_both() {
        const KEYS: &str =
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let uri = "https://a.test/jwks.json";
        let mut one = agent();
        patch(&format!(r#"{{"jwks":{KEYS}}}"#)).apply(&mut one).unwrap();
        assert!(one.jwks.is_some());
        patch(&format!(r#"{{"jwksUri":"{uri}"}}"#)).apply(&mut one).unwrap();
        assert_eq!((one.jwks.is_some(), one.jwks_uri.as_deref()), (false, Some(uri)));
        assert!(patch(&format!(r#"{{"jwks":{KEYS},"jwksUri":"{uri}"}}"#)).apply(&mut one).is_err());
        assert!(patch(r#"{"jwks":{"keys":[{"kty":"oct","k":"eA"}]}}"#).apply(&mut one).is_err());
        patch(r#"{"jwksUri":""}"#).apply(&mut one).unwrap();
        assert_eq!(one.jwks_uri, None);
        patch(&format!(r#"{{"jwks":{KEYS}}}"#)).apply(&mut one).unwrap();
        patch(r#"{"jwks":{"keys":[]}}"#).apply(&mut one).unwrap();
        assert_eq!(one.jwks, None);
    }

    #[test]
    fn a_workload_is_set_kept_and_taken_away() {
        let mut one = agent();
        let set =
            r#"{"workload_identity":{"provider":"oidc","issuer":"https://idp.example","subject":"bot"}}"#;
        assert_eq!(patch(set).apply(&mut one).unwrap_err().member, "workloadIdentity");
        patch(r#"{"identityType":"workload_identity"}"#).apply(&mut one).unwrap();
        patch(set).apply(&mut one).unwrap();
        assert!(one.workload.is_some());
        let before = one.clone();
        patch(r#"{"workloadIdentity":null}"#).apply(&mut one).unwrap();
        let bad = r#"{"workloadIdentity":{"provider":"oidc","issuer":"https://idp.example","subject":"*"}}"#;
        let error = patch(bad).apply(&mut one).unwrap_err();
        assert!(error.member == "workloadIdentity" && error.problem.starts_with("subject: "), "{error}");
        assert_eq!(one, before);
        patch(r#"{"workloadIdentity":{}}"#).apply(&mut one).unwrap();
        assert!(one.workload.is_none());
    }

    #[test]
    fn a_bad_member_changes_nothing() {
        let mut one = agent();
        let before = one.clone();
        assert!(patch(r#"{"name":"B","capabilities":["a b"]}"#).apply(&mut one).is_err());
        assert_eq!(one, before);
    }

    #[test]
    fn read_only_members_are_ignored() {
        let mut one = agent();
        let before = one.clone();
        patch(r#"{"id":"x","epoch":9,"organization":"globex"}"#).apply(&mut one).unwrap();
        assert_eq!(one, before);
    }

    #[test]
    fn names_cannot_forge_lines() {
        let mut one = agent();
        assert!(patch(r#"{"name":"a\nlevel=error"}"#).apply(&mut one).is_err());
        assert!(patch(r#"{"name":"a\u202eb"}"#).apply(&mut one).is_err());
    }
}
