//! MCP servers: the protected resources that tokens are bound to (RFC 8707, RFC 9728).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::{
    capability::Capability,
    clock::Timestamp,
    id::{AgentId, ClientId, McpServerId, Number},
};

/// A registered MCP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct McpServer {
    /// The integer id of the admin API.
    pub number: Number,
    /// The public id.
    pub server_id: McpServerId,
    /// Display name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The resource identifier, exactly as registered: the `aud` of its tokens.
    pub resource_uri: ResourceUri,
    /// Other identifiers that name the same server.
    pub aliases: Vec<ResourceUri>,
    /// Where it listens.
    pub endpoint_url: Option<String>,
    /// How it speaks.
    pub transport: Transport,
    /// Whether it wants tokens.
    pub auth_mode: AuthMode,
    /// Whether tokens are issued for it.
    pub active: bool,
    /// Its scope vocabulary; empty means it has none and bounds nothing.
    pub scopes_supported: Vec<Capability>,
    /// A sentence per scope, for people.
    pub scope_descriptions: BTreeMap<String, String>,
    /// The OAuth clients that may get tokens; empty means all.
    pub allowed_client_ids: Vec<ClientId>,
    /// The agents that may get tokens; empty means all.
    pub allowed_agent_ids: Vec<AgentId>,
    /// The client with which the server itself introspects tokens bound to it.
    pub resource_client_id: Option<ClientId>,
    /// Life of its tokens, in seconds.
    pub token_lifetime: u32,
    /// The version a store guards updates with.
    pub version: u64,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// How an MCP server speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Transport {
    /// Streamable HTTP.
    #[default]
    HttpStreamable,
    /// HTTP with server-sent events.
    HttpSse,
    /// Standard input and output.
    Stdio,
}

/// Whether an MCP server wants tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuthMode {
    /// OAuth tokens bound to it.
    #[default]
    Oauth,
    /// None; it has no metadata and gets no tokens.
    None,
}

/// The identifier of a protected resource: an `https` URL (or `http` on a loopback host) without fragment or
/// user information, or a `urn:`.
///
/// ```
/// use lumoauth_core::mcp::ResourceUri;
///
/// let uri = ResourceUri::parse("https://MCP.example:443/mcp/").unwrap();
/// assert_eq!(uri.as_str(), "https://MCP.example:443/mcp/");
/// assert_eq!(uri.normalized(), "https://mcp.example/mcp");
/// assert!(ResourceUri::parse("https://mcp.example/mcp#part").is_err());
/// assert!(ResourceUri::parse("urn:mcp:financial-data").is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceUri {
    text: String,
    normalized: String,
}

/// The text is not a resource identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a resource is an https URL without fragment (http only on a loopback host), or a urn")]
#[non_exhaustive]
pub struct ParseResourceError;

impl ResourceUri {
    /// Parses the text form.
    ///
    /// # Errors
    /// [`ParseResourceError`] if it is not a resource identifier.
    pub fn parse(text: &str) -> Result<Self, ParseResourceError> {
        if text.len() > 512 || text.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'"') {
            return Err(ParseResourceError);
        }
        let url = Url::parse(text).map_err(|_| ParseResourceError)?;
        let loopback = match url.host() {
            Some(url::Host::Domain(domain)) => domain == "localhost",
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        let scheme_fits = match url.scheme() {
            "https" => url.has_host(),
            "http" => loopback,
            "urn" => url.path().contains(':'),
            _ => false,
        };
        let clean = url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
        if !(scheme_fits && clean) {
            return Err(ParseResourceError);
        }
        // `Url` has already lowered scheme and host and dropped the default port. Clients disagree about one
        // trailing slash, so it does not count.
        let whole = url.as_str();
        // A host is percent-decoded: what must not stand in the text must not come out of it either.
        if whole.contains('"') {
            return Err(ParseResourceError);
        }
        let normalized = match url.query() {
            None => whole.strip_suffix('/').unwrap_or(whole).to_owned(),
            Some(_) => whole.to_owned(),
        };
        Ok(Self { text: text.to_owned(), normalized })
    }

    /// The text as it was registered or sent.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The form that is compared: lower-case scheme and host, no default port, no single trailing slash.
    pub fn normalized(&self) -> &str {
        &self.normalized
    }
}

impl TryFrom<String> for ResourceUri {
    type Error = ParseResourceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<ResourceUri> for String {
    fn from(uri: ResourceUri) -> Self {
        uri.text
    }
}

impl McpServer {
    /// Shortest life of a token, in seconds.
    pub const MIN_TOKEN_LIFETIME: u32 = 60;
    /// Longest life of a token, in seconds.
    pub const MAX_TOKEN_LIFETIME: u32 = 86_400;
    /// How many servers one organization may register.
    pub const MAX_PER_ORG: usize = 1000;

    /// A new, active server.
    pub fn new(name: impl Into<String>, resource_uri: ResourceUri, now: Timestamp) -> Self {
        Self {
            number: Number::generate(),
            server_id: McpServerId::generate(),
            name: name.into(),
            description: None,
            resource_uri,
            aliases: Vec::new(),
            endpoint_url: None,
            transport: Transport::default(),
            auth_mode: AuthMode::default(),
            active: true,
            scopes_supported: Vec::new(),
            scope_descriptions: BTreeMap::new(),
            allowed_client_ids: Vec::new(),
            allowed_agent_ids: Vec::new(),
            resource_client_id: None,
            token_lifetime: 3600,
            version: 0,
            created_at: now,
            updated_at: now,
        }
    }

    /// The normalized identifiers that name this server. A store keeps each unique in the organization.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.resource_uri).chain(&self.aliases).map(ResourceUri::normalized)
    }

    /// Whether the client (and, if it is one, agent) may get a token for it: it is active, wants tokens, and
    /// lists the caller or nobody.
    pub fn admits(&self, client: &ClientId, agent: Option<AgentId>) -> bool {
        let open = self.allowed_agent_ids.is_empty() && self.allowed_client_ids.is_empty();
        let listed = self.allowed_client_ids.contains(client)
            || agent.is_some_and(|agent| self.allowed_agent_ids.contains(&agent));
        self.active && self.auth_mode == AuthMode::Oauth && (open || listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_compared_without_url_trivia() {
        let normal = |text: &str| ResourceUri::parse(text).unwrap().normalized().to_owned();
        assert_eq!(normal("HTTPS://mcp.example"), normal("https://MCP.example:443/"));
        assert_ne!(normal("https://mcp.example/a"), normal("https://mcp.example/A"));
        assert_ne!(normal("https://mcp.example/a"), normal("https://mcp.example/a?x"));
        assert_ne!(normal("https://mcp.example"), normal("https://mcp.example:8443"));
    }

    #[test]
    fn resources_that_are_not_one_are_refused() {
        for bad in [
            "",
            "mcp",
            "/mcp",
            "http://mcp.example",
            "ftp://a",
            "javascript:alert(1)",
            "https://",
            "urn:",
            "https://a/b#c",
            "https://u:p@a/",
            "https://a b/",
            "https://a/\"",
            "https://a%22b/",
        ] {
            assert!(ResourceUri::parse(bad).is_err(), "{bad}");
        }
        assert!(ResourceUri::parse("http://127.0.0.1:9000/mcp").is_ok());
    }
}
