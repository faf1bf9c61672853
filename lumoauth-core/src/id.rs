//! Identifiers: parsed at the edge, opaque inside, safe to log.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use url::{Host, Url};
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    random::{random_bytes, random_number},
};

/// The text is not an id of this kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}")]
#[non_exhaustive]
pub struct ParseIdError {
    /// What was expected, in words.
    pub kind: &'static str,
}

/// Ids that are checked text: the parse rule is the type.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "Arc<str>", into = "Arc<str>")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses the text form.
            ///
            /// # Errors
            /// [`ParseIdError`] if the text is not one.
            pub fn parse(text: &str) -> Result<Self, ParseIdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.into())) } else { Err(ParseIdError { kind: $kind }) }
            }

            /// The text form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<Arc<str>> for $name {
            type Error = ParseIdError;

            fn try_from(text: Arc<str>) -> Result<Self, Self::Error> {
                Self::parse(&text)
            }
        }

        impl From<$name> for Arc<str> {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

fn is_slug(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_printable_token(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// Whether `text` is `prefix` and 24 hexadecimal digits.
fn is_minted(text: &str, prefix: &str) -> bool {
    let hex = text.strip_prefix(prefix);
    hex.is_some_and(|hex| hex.len() == 24 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

fn is_aauth_identifier(text: &str) -> bool {
    // Parsers of URLs forgive spaces, line ends and backslashes; what is compared as text and quoted in headers must not
    // have them.
    let of_a_url = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'`' | b'\\');
    if text.len() > 512 || !text.bytes().all(of_a_url) || text.contains(['?', '#']) {
        return false;
    }
    // `https:host` is a URL for a lenient parser and a relative path for others.
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') {
        return false;
    }
    Url::parse(text).is_ok_and(|url| match scheme {
        "https" => url.has_host(),
        "http" => match url.host() {
            Some(Host::Domain(domain)) => domain == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        },
        _ => false,
    })
}

text_id!(
    /// An organization (tenant): its slug, `[a-z0-9][a-z0-9-]{0,62}`.
    ///
    /// It is the first argument of every store operation and the first column of every key.
    ///
    /// ```
    /// use lumoauth_core::id::OrgId;
    ///
    /// assert_eq!(OrgId::parse("acme-corp").unwrap().as_str(), "acme-corp");
    /// assert!(OrgId::parse("Acme Corp").is_err());
    /// ```
    OrgId, "organization slug", is_slug
);
text_id!(
    /// The short name of an agent inside its organization; the `research-bot` of `agent:research-bot`.
    Slug, "slug", is_slug
);
text_id!(
    /// An OAuth `client_id`: 1 to 128 of `A-Z a-z 0-9 _ - .`.
    ClientId, "client id", is_printable_token
);
text_id!(
    /// The `kid` of a signing key.
    KeyId, "key id", is_printable_token
);
text_id!(
    /// A registered MCP server: `mcp_` and 24 hexadecimal digits.
    McpServerId, "MCP server id", |text| is_minted(text, "mcp_")
);

text_id!(
    /// The identifier of an AAuth agent or resource: an `https` URL (or `http` on a loopback host) without user
    /// information, query and fragment, of printable ASCII without quotes and backslash, at most 512 bytes.
    ///
    /// It is compared byte for byte and never normalized: it stands in tokens of others, whose readers compare text.
    ///
    /// ```
    /// use lumoauth_core::id::AAuthIdentifier;
    ///
    /// assert_eq!(AAuthIdentifier::parse("https://agent.example").unwrap().as_str(), "https://agent.example");
    /// assert_ne!(AAuthIdentifier::parse("https://agent.example"), AAuthIdentifier::parse("https://agent.example/"));
    /// assert!(AAuthIdentifier::parse("http://agent.example").is_err());
    /// ```
    AAuthIdentifier, "AAuth identifier", is_aauth_identifier
);
text_id!(
    /// A registered AAuth resource: `res_` and 24 hexadecimal digits.
    AAuthResourceId, "AAuth resource id", |text| is_minted(text, AAuthResourceId::PREFIX)
);

text_id!(
    /// A task in which an agent asks for permissions just in time: `task_` and 24 hexadecimal digits.
    TaskId, "task id", |text| is_minted(text, "task_")
);
text_id!(
    /// A request for a permission just in time: `jit_` and 24 hexadecimal digits.
    JitRequestId, "request id", |text| is_minted(text, "jit_")
);

impl TaskId {
    /// A new random id.
    pub fn generate() -> Self {
        Self(format!("task_{}", hex::<12>(&random_bytes())).into())
    }
}

impl JitRequestId {
    /// A new random id.
    pub fn generate() -> Self {
        Self(format!("jit_{}", hex::<12>(&random_bytes())).into())
    }
}

impl AAuthResourceId {
    const PREFIX: &'static str = "res_";

    /// A new random id.
    pub fn generate() -> Self {
        Self(format!("{}{}", Self::PREFIX, hex::<12>(&random_bytes())).into())
    }
}

impl ClientId {
    /// Prefix of the client ids of ordinary OAuth clients; no agent's client id starts with it, so the id
    /// alone says which register it is in.
    pub const APP_PREFIX: &'static str = "app_";

    /// A new client id for an agent.
    pub fn generate_for_agent() -> Self {
        Self(format!("cli_{}", hex::<12>(&random_bytes())).into())
    }

    /// A new client id for an ordinary OAuth client.
    pub fn generate_for_app() -> Self {
        Self(format!("{}{}", Self::APP_PREFIX, hex::<12>(&random_bytes())).into())
    }

    /// Whether it has the form of the ids that are generated here.
    pub fn looks_minted(&self) -> bool {
        [Self::APP_PREFIX, "cli_"].iter().any(|prefix| {
            let hex = self.0.strip_prefix(prefix);
            hex.is_some_and(|hex| hex.len() == 24 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
        })
    }

    /// Whether this names an ordinary OAuth client (and not an agent).
    pub fn is_app(&self) -> bool {
        self.0.starts_with(Self::APP_PREFIX)
    }
}

impl McpServerId {
    /// A new random id.
    pub fn generate() -> Self {
        Self(format!("mcp_{}", hex::<12>(&random_bytes())).into())
    }
}

impl Slug {
    /// The slug that a display name suggests: lower case, runs of anything else become one `-`.
    ///
    /// ```
    /// use lumoauth_core::id::Slug;
    ///
    /// assert_eq!(Slug::from_name("Research Assistant Bot").unwrap().as_str(), "research-assistant-bot");
    /// assert!(Slug::from_name("???").is_none());
    /// ```
    pub fn from_name(name: &str) -> Option<Self> {
        let mut slug = String::new();
        for c in name.chars() {
            if c.is_ascii_alphanumeric() {
                slug.push(c.to_ascii_lowercase());
            } else if !slug.is_empty() && !slug.ends_with('-') {
                slug.push('-');
            }
        }
        slug.truncate(63);
        Self::parse(slug.trim_end_matches('-')).ok()
    }
}

text_id!(
    /// A short name in policy: of a role, an attribute, a namespace or a relation. 1 to 64 of `A-Z a-z 0-9 _ . -`.
    ///
    /// ```
    /// use lumoauth_core::id::Label;
    ///
    /// assert_eq!(Label::parse("ROLE_ANALYST").unwrap().as_str(), "ROLE_ANALYST");
    /// assert!(Label::parse("two words").is_err());
    /// ```
    Label,
    "name of 1 to 64 of A-Z a-z 0-9 _ . -",
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
);

impl std::borrow::Borrow<str> for Label {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Ids that are a UUID inside.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The id with these 128 bits.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The 128 bits.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

uuid_id!(
    /// An agent. One value, two text forms: `agt_` and 32 hexadecimal digits ([`fmt::Display`]), and the plain
    /// UUID ([`AgentId::uuid`]). Never used again, not even for an agent with the same slug.
    ///
    /// ```
    /// use lumoauth_core::id::AgentId;
    ///
    /// let id = AgentId::generate();
    /// assert_eq!(AgentId::parse(&id.to_string()), Ok(id));
    /// assert_eq!(AgentId::parse(&id.uuid().to_string()), Ok(id));
    /// ```
    AgentId
);
uuid_id!(
    /// A person. Its text form is the plain UUID, the `sub` of the person's tokens.
    UserId
);
uuid_id!(
    /// What a person allowed a client. Its text form is the plain UUID.
    ConsentId
);
uuid_id!(
    /// An audit event: a UUID of version 7, so ids made later sort later. Text form: 32 hexadecimal digits.
    EventId
);
uuid_id!(
    /// The `jti` of a token. Text form: the plain UUID.
    TokenId
);

fn random_uuid() -> Uuid {
    uuid::Builder::from_random_bytes(random_bytes()).into_uuid()
}

fn hex<const N: usize>(bytes: &[u8; N]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * N), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

impl AgentId {
    /// A new random id.
    pub fn generate() -> Self {
        Self(random_uuid())
    }

    /// Parses either text form.
    ///
    /// # Errors
    /// [`ParseIdError`] if the text is neither.
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        let error = ParseIdError { kind: "agent id" };
        let uuid = match text.strip_prefix("agt_") {
            Some(hex) if hex.len() == 32 && !hex.bytes().any(|b| b.is_ascii_uppercase()) => {
                Uuid::try_parse(hex).map_err(|_| error)?
            }
            Some(_) => return Err(error),
            None if text.len() == 36 => Uuid::try_parse(text).map_err(|_| error)?,
            None => return Err(error),
        };
        Ok(Self(uuid))
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "agt_{}", self.0.simple())
    }
}

impl UserId {
    /// A new random id.
    pub fn generate() -> Self {
        Self(random_uuid())
    }

    /// Parses the text form.
    ///
    /// # Errors
    /// [`ParseIdError`] if the text is not one.
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        if text.len() != 36 {
            return Err(ParseIdError { kind: "user id" });
        }
        Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError { kind: "user id" })
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl ConsentId {
    /// A new random id.
    pub fn generate() -> Self {
        Self(random_uuid())
    }

    /// Parses the text form.
    ///
    /// # Errors
    /// [`ParseIdError`] if the text is not one.
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        if text.len() != 36 {
            return Err(ParseIdError { kind: "consent id" });
        }
        Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError { kind: "consent id" })
    }
}

impl fmt::Display for ConsentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl TokenId {
    /// A new random id.
    pub fn generate() -> Self {
        Self(random_uuid())
    }

    /// Parses the text form.
    ///
    /// # Errors
    /// [`ParseIdError`] if the text is not one.
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        if text.len() != 36 {
            return Err(ParseIdError { kind: "token id" });
        }
        Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError { kind: "token id" })
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl EventId {
    /// A new id for an event that happens `now`.
    pub fn generate(now: Timestamp) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(now.unix_millis(), &random_bytes()).into_uuid())
    }

    /// The id of the one event that `facts` describe: the same facts give the same id, so an event that must
    /// be logged once (a limit that was first exceeded in a window) can be appended any number of times.
    pub fn derived(now: Timestamp, facts: &[&str]) -> Self {
        let mut text = String::new();
        for fact in facts {
            text.push_str(fact);
            text.push('\0');
        }
        let digest = crate::secret::sha256(text.as_bytes());
        let mut tail = [0; 10];
        tail.copy_from_slice(&digest[..10]);
        Self(uuid::Builder::from_unix_timestamp_millis(now.unix_millis(), &tail).into_uuid())
    }

    /// Parses the text form (with or without hyphens).
    ///
    /// # Errors
    /// [`ParseIdError`] if the text is not one.
    pub fn parse(text: &str) -> Result<Self, ParseIdError> {
        Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError { kind: "event id" })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.simple(), f)
    }
}

/// A random integer id from 1 to 2^53 - 1, for the records whose clients want an integer. Made here, kept
/// unique by the store; no store allocates ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number(u64);

impl Number {
    /// A new random number.
    pub fn generate() -> Self {
        Self(random_number())
    }

    /// The number `value`, as stored or as a client sent it.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The integer.
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_ids_have_exactly_two_text_forms() {
        let id = AgentId::generate();
        let text = id.to_string();
        assert_eq!(text.len(), 36);
        assert!(AgentId::parse(&text.to_uppercase()).is_err());
        assert!(AgentId::parse(&id.uuid().simple().to_string()).is_err());
        assert!(AgentId::parse(&format!("{{{}}}", id.uuid())).is_err());
    }

    #[test]
    fn numbers_fit_in_a_json_double() {
        for _ in 0..1000 {
            assert!((1..1 << 53).contains(&Number::generate().value()));
        }
    }

    #[test]
    fn aauth_identifiers_are_plain_urls() {
        let long = format!("https://a.test/{}", "x".repeat(498));
        for good in [
            "https://a.test",
            "https://a.test/",
            "https://A.test:443/Agent/1%20b",
            "http://localhost:9000",
            "http://127.0.0.1:9000/agent",
            "http://[::1]/",
            &long[..512],
        ] {
            assert_eq!(AAuthIdentifier::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "a.test",
            "/agent",
            "//a.test",
            "https:a.test",
            "https:/a.test",
            "https://",
            "https:///a.test",
            "HTTPS://a.test",
            "http://a.test",
            "http://10.0.0.1",
            "http://localhost.a.test",
            "http://127.0.0.1.a.test",
            "urn:a:b",
            "javascript:alert(1)",
            "ftp://localhost",
            "https://u@a.test",
            "https://u:p@a.test",
            "https://@a.test",
            "https://a.test?b",
            "https://a.test?",
            "https://a.test#b",
            "https://a.test#",
            "https://a.test/a b",
            " https://a.test",
            "https://a.test\n",
            "https://a.te\tst",
            "https://a.test/\u{7f}",
            "https://a.test/\"",
            "https://a.test/'",
            "https://a.test\\@b.test",
            "https://a.test/\u{e9}",
            "https://\u{e9}.test",
            "https://a.test:99999",
            &long,
        ] {
            assert!(AAuthIdentifier::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_of_aauth_resources_are_like_those_of_mcp_servers() {
        let id = AAuthResourceId::generate();
        assert_eq!(AAuthResourceId::parse(id.as_str()), Ok(id.clone()));
        assert!(McpServerId::parse(id.as_str()).is_err());
        assert!(AAuthResourceId::parse(&id.as_str().to_uppercase()).is_err());
        assert!(AAuthResourceId::parse(&id.as_str()[..27]).is_err());
    }

    #[test]
    fn derived_event_ids_repeat() {
        let now = Timestamp::from_unix_seconds(1);
        assert_eq!(EventId::derived(now, &["a", "b"]), EventId::derived(now, &["a", "b"]));
        assert_ne!(EventId::derived(now, &["a", "b"]), EventId::derived(now, &["ab"]));
    }
}
