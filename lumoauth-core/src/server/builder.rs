//! Putting a server together.

use std::{collections::HashMap, sync::Arc, time::Duration};

use url::{Position, Url};

use super::{
    AuthorizationServer, Inner, PasswordHasher,
    audit_tree::{LEAST_RETENTION, SignedHeads},
    notices::Notices,
    public_path,
};
use crate::{
    aauth::{ConsentPolicy, LevelPolicy},
    authz::{Authorizer, BuiltIn},
    clock::{Clock, SystemClock},
    fetch::{Fetch, NoFetch},
    foreign_keys::ForeignKeys,
    grant::{AuthorizationCode, ClientCredentials, Grant, JwtBearer, RefreshToken, TokenExchange},
    httpsig::Accept,
    json,
    keys::KeyProvider,
    notify::Notifier,
    store::{RateLimit, Stores},
    token::VerifiedTokens,
};

/// Builds an [`AuthorizationServer`]. What is required was an argument; the rest has defaults.
#[derive(Debug)]
#[must_use]
pub struct Builder {
    public_url: String,
    stores: Stores,
    keys: Arc<dyn KeyProvider>,
    clock: Arc<dyn Clock>,
    grants: Vec<Arc<dyn Grant>>,
    password_hasher: Option<Arc<dyn PasswordHasher>>,
    failure_limit: Option<RateLimit>,
    fetch: Arc<dyn Fetch>,
    authorities: Vec<String>,
    consent_policy: Arc<dyn ConsentPolicy>,
    mail: Option<Arc<dyn Notifier>>,
    approver_page: Option<String>,
    authorizer: Option<Arc<dyn Authorizer>>,
    audit_retention: Option<Duration>,
}

/// The server cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The public URL is not an absolute http(s) URL without query, fragment and user information, or its path is not
    /// written as browsers write it.
    #[error("`{0}` is not a usable public url")]
    PublicUrl(String),
    /// An authority besides that of the public URL is not `host` or `host:port`, so that no request could be for it.
    #[error("`{0}` is not a usable authority: give `host` or `host:port`")]
    Authority(String),
    /// Something in this program switches on the feature `arbitrary_precision` of `serde_json`, with which strict JSON
    /// ([`crate::json`]) cannot be told from what only `serde_json` reads, and numbers with a fraction are refused.
    #[error("the feature `arbitrary_precision` of serde_json is on, with which decimals cannot be read")]
    ArbitraryPrecision,
    /// Two grants have one type.
    #[error("two grants of type `{0}`")]
    DuplicateGrant(&'static str),
}

impl Builder {
    pub(super) fn new(public_url: &str, stores: Stores, keys: Arc<dyn KeyProvider>) -> Self {
        Self {
            public_url: public_url.to_owned(),
            stores,
            keys,
            clock: Arc::new(SystemClock::new()),
            grants: vec![
                Arc::new(AuthorizationCode),
                Arc::new(ClientCredentials),
                Arc::new(JwtBearer),
                Arc::new(RefreshToken),
                Arc::new(TokenExchange),
            ],
            password_hasher: None,
            failure_limit: None,
            fetch: Arc::new(NoFetch),
            authorities: Vec::new(),
            consent_policy: Arc::new(LevelPolicy),
            mail: None,
            approver_page: None,
            authorizer: None,
            audit_retention: None,
        }
    }

    /// Reads the time from `clock` instead of the operating system.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Hashes the passwords of users with `hasher`.
    pub fn with_password_hasher(mut self, hasher: Arc<dyn PasswordHasher>) -> Self {
        self.password_hasher = Some(hasher);
        self
    }

    /// Refuses an address that fails to authenticate more often than this, before anything is written: nobody can
    /// guess secrets at speed or fill the log by trying.
    pub fn with_failure_limit(mut self, limit: RateLimit) -> Self {
        self.failure_limit = Some(limit);
        self
    }

    /// Fetches what others publish (the keys of clients and platforms) through `fetch`. Without it nothing leaves this
    /// server, and only keys that are registered here are used.
    pub fn with_fetch(mut self, fetch: Arc<dyn Fetch>) -> Self {
        self.fetch = fetch;
        self
    }

    /// Accepts signed requests to these authorities (`host`, or `host:port`) besides that of the public URL: a signature says
    /// whom its request is for, and is refused everywhere else.
    pub fn with_authorities<I: IntoIterator<Item: Into<String>>>(mut self, authorities: I) -> Self {
        self.authorities.extend(authorities.into_iter().map(Into::into));
        self
    }

    /// Decides by `policy` what AAuth agents get at resources. Without it the level of the resource decides:
    /// [`LevelPolicy`].
    pub fn with_consent_policy(mut self, policy: Arc<dyn ConsentPolicy>) -> Self {
        self.consent_policy = policy;
        self
    }

    /// Tells people by `mail` that something waits for them, and those who have no approver channel that an agent could not
    /// reach them. Without it the latter are told nothing, and the agent hears that nobody is reached.
    pub fn with_mail(mut self, mail: Arc<dyn Notifier>) -> Self {
        self.mail = Some(mail);
        self
    }

    /// Names the page where people see and decide what waits, for notices: a path below the public URL, in which `{org}` stands
    /// for the organization.
    pub fn with_approver_page(mut self, path: &str) -> Self {
        self.approver_page = Some(path.to_owned());
        self
    }

    /// Decides by `authorizer` what may be done, instead of by the policy that organizations write down here. To ask that as
    /// well, give it a [`BuiltIn`].
    pub fn with_authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizer = Some(authorizer);
        self
    }

    /// Drops the contents of audit entries that are older than this, in whole days and at least one; without it they are kept
    /// for ever. What stays is the number, the id, the time, the kind, the outcome and the hash: every proof stays valid.
    pub fn with_audit_retention(mut self, kept: Duration) -> Self {
        self.audit_retention = Some(kept.max(LEAST_RETENTION));
        self
    }

    /// Adds a grant of the host's own.
    pub fn with_grant(mut self, grant: impl Grant) -> Self {
        self.grants.push(Arc::new(grant));
        self
    }

    /// The server.
    ///
    /// # Errors
    /// [`ConfigError`] if the parts do not fit together.
    pub fn build(self) -> Result<AuthorizationServer, ConfigError> {
        if json::check(b"0.5").is_err() {
            return Err(ConfigError::ArbitraryPrecision);
        }
        let trimmed = self.public_url.trim_end_matches('/');
        let usable = Url::parse(trimmed).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none()
                // Pages name this path as it is written. It must mean to browsers what it means to us: with two slashes at
                // its begin it would be another host.
                && url.path().trim_end_matches('/') == public_path(trimmed)
                && !url.path().contains("//")
        });
        let Some(url) = usable else { return Err(ConfigError::PublicUrl(self.public_url)) };
        if let Some(bad) = self.authorities.iter().find(|authority| !is_authority(authority)) {
            return Err(ConfigError::Authority(bad.clone()));
        }
        // Whatever is compared with this as text (issuers, authorities, the scheme of what is signed) has the usual form.
        let public_url = format!("{}{}", url.origin().ascii_serialization(), public_path(trimmed));
        let mut grants = HashMap::new();
        for grant in self.grants {
            let grant_type = grant.grant_type();
            if grants.insert(grant_type, grant).is_some() {
                return Err(ConfigError::DuplicateGrant(grant_type));
            }
        }
        let own = url[Position::BeforeHost..Position::AfterPort].to_owned();
        let authorities = [own].into_iter().chain(self.authorities);
        let policy = BuiltIn::new(self.stores.policies.clone());
        let authorizer = self.authorizer.unwrap_or_else(|| Arc::new(policy.clone()));
        let inner = Inner {
            signed_heads: SignedHeads::default(),
            policy,
            authorizer,
            signed_here: Accept::at(authorities),
            audit_retention: self.audit_retention,
            consent_policy: self.consent_policy,
            notices: Notices::default(),
            mail: self.mail,
            approver_page: self.approver_page,
            public_url,
            stores: self.stores,
            keys: self.keys,
            clock: self.clock,
            grants,
            password_hasher: self.password_hasher,
            failure_limit: self.failure_limit,
            foreign_keys: ForeignKeys::new(self.fetch.clone()),
            fetch: self.fetch,
            verified: VerifiedTokens::new(),
        };
        Ok(AuthorizationServer { inner: Arc::new(inner) })
    }
}

/// Whether `text` is a host, or a host and a port, and nothing else. Case does not count, nor the port that the scheme has
/// anyway.
fn is_authority(text: &str) -> bool {
    let Ok(url) = Url::parse(&format!("https://{text}")) else { return false };
    let Some(host) = url.host_str() else { return false };
    let with_port = format!("{host}:{}", url.port().unwrap_or(443));
    text.eq_ignore_ascii_case(host) || text.eq_ignore_ascii_case(&with_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        keys::{KeyRing, KeyRingConfig, MasterKey},
        store::MemoryStore,
    };

    fn builder(public_url: &str) -> Builder {
        let store = Arc::new(MemoryStore::new());
        let keys = KeyRing::new(store.clone(), MasterKey::generate(), KeyRingConfig::default());
        Builder::new(public_url, Stores::all(store), Arc::new(keys))
    }

    fn path_of(public_url: &str) -> Option<String> {
        builder(public_url).build().ok().map(|server| server.public_path().to_owned())
    }

    #[test]
    fn a_public_url_has_one_form() {
        for (given, kept) in [
            ("HTTPS://Auth.Example:443", "https://auth.example"),
            ("https://auth.example:8443/id/", "https://auth.example:8443/id"),
            ("Http://[::1]:80", "http://[::1]"),
            ("http://127.0.0.1:8080/A%20b", "http://127.0.0.1:8080/A%20b"),
        ] {
            assert_eq!(builder(given).build().unwrap().public_url(), kept, "{given}");
        }
    }

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        let with = |authority: &str| builder("https://auth.example").with_authorities([authority]).build();
        for good in
            ["api.example", "API.example:8443", "api.example:443", "127.0.0.1:80", "[::1]:8080", "localhost"]
        {
            assert!(with(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "https://api.example",
            "api.example/",
            "api.example/a",
            "u@api.example",
            "api.example?",
            "a b",
            ":80",
        ] {
            assert_eq!(with(bad).unwrap_err(), ConfigError::Authority(bad.to_owned()));
        }
    }

    #[test]
    fn a_public_url_may_have_a_path_that_browsers_write_so() {
        for (url, path) in [
            ("https://auth.example", ""),
            ("https://auth.example/", ""),
            ("HTTPS://Auth.Example:443", ""),
            ("https://auth.example/id/p/", "/id/p"),
            ("http://127.0.0.1:8080/a%20b", "/a%20b"),
        ] {
            assert_eq!(path_of(url).as_deref(), Some(path), "{url}");
        }
        for url in [
            "auth.example",
            "ftp://auth.example",
            "https://u@auth.example",
            "https://auth.example?x",
            "https://auth.example#x",
            "https://auth.example//evil.example",
            "https://auth.example/a//b",
            "https://auth.example\\evil.example",
            "https://auth.example/a/../b",
            "https://auth.example/a b",
            "https://auth.example/\u{e9}",
            "https://auth.example/a\tb",
        ] {
            assert_eq!(path_of(url), None, "{url}");
        }
    }
}
