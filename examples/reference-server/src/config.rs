//! The configuration of `serve`: a TOML file, and over it the variables `LUMOAUTH_SERVER_*`.
//!
//! 1. `LUMOAUTH_SERVER_LOG__LEVEL` is the key `log.level`: lower case, `__` for the dot. The prefix is not
//!    plain `LUMOAUTH_`, because clients on the same machine use that for themselves.
//! 2. A key that nobody knows is refused by name, in the file and in the environment: a setting that is
//!    misspelt must not look as if it held.
//! 3. All problems are reported together, so that one run of `check-config` is enough.
//! 4. Secrets are not here: the master key and the bootstrap API key come from variables or files of their own, and a
//!    store URL with a password belongs in `LUMOAUTH_SERVER_STORE`, or in a file that only the server reads.

mod reader;

use std::{
    collections::BTreeSet,
    fmt, fs,
    net::SocketAddr,
    num::NonZero,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use lumoauth_core::{id::OrgId, keys::Algorithm, secret::Secret};
use serde::Deserialize;
use url::{Host, Url};

use self::reader::Reader;
use crate::{cli, fetch, listen, logging, mail::Smtp, store::StoreUrl, tls::TlsFiles};

/// What `serve` runs.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// Under which URL clients reach the server, without a slash at its end.
    pub(crate) public_url: String,
    /// Which store to run on.
    pub(crate) store: StoreUrl,
    /// How it is used, if it is PostgreSQL.
    pub(crate) postgres: PostgresConfig,
    /// Where the master key is, unless it comes from its variable.
    pub(crate) master_key_file: Option<PathBuf>,
    /// The algorithm of new signing keys.
    pub(crate) signing_alg: Algorithm,
    /// Whether requests are counted and refused beyond the limits.
    pub(crate) rate_limits: RateLimiting,
    /// How many connections are held at a time.
    pub(crate) max_connections: NonZero<u16>,
    /// How long the contents of audit entries are kept; for ever, if nothing is set.
    pub(crate) audit_retention: Option<Duration>,
    /// How log lines look.
    pub(crate) log_format: logging::Format,
    /// Which log lines are written.
    pub(crate) log_level: String,
    /// Certificate and key, if the server is to speak TLS itself.
    pub(crate) tls: Option<TlsFiles>,
    /// Origins that keys may be fetched from wherever they are.
    pub(crate) fetch_allow: Vec<String>,
    /// Origins that callbacks and webhooks may be posted to wherever they are.
    pub(crate) fetch_post: Vec<String>,
    /// How mail is sent, if any is.
    pub(crate) mail: Option<MailConfig>,
    /// Organizations that are made if they are missing.
    pub(crate) organizations: Vec<OrganizationConfig>,
}

/// How PostgreSQL is used. What is not set is left to the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PostgresConfig {
    /// How many connections are opened at most.
    pub(crate) max_connections: Option<u32>,
    /// How long a request waits for one of them.
    pub(crate) acquire_timeout: Option<Duration>,
    /// How long a statement may take.
    pub(crate) statement_timeout: Option<Duration>,
}

/// How mail is sent.
#[derive(Debug)]
pub(crate) struct MailConfig {
    /// The SMTP server, perhaps with a password.
    pub(crate) url: Secret,
    /// From which address.
    pub(crate) from: String,
}

/// Whether requests are limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateLimiting {
    /// By the standard limits.
    Standard,
    /// Not here; something in front of the server does it.
    Off,
}

/// An organization to make.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrganizationConfig {
    /// Its slug.
    pub(crate) slug: OrgId,
    /// Its display name.
    pub(crate) name: String,
}

/// Everything that is wrong with a configuration, one sentence each.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Problems(pub(crate) Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Config {
    /// Reads a file and the environment of the process.
    ///
    /// # Errors
    /// [`Problems`] if the server could not run with it.
    pub(crate) fn load(path: &Path) -> Result<Self, Problems> {
        let text = fs::read_to_string(path)
            .map_err(|error| Problems(vec![format!("`{}` cannot be read: {error}", path.display())]))?;
        // `vars` would panic over variables that are no text, and those cannot be ours.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::parse(&text, &path.display().to_string(), variables)
    }

    /// Reads the text of a file and the variables over it.
    fn parse(
        text: &str,
        file: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Problems> {
        let mut reader = Reader::new(text, file, variables)?;
        let listen =
            reader.parsed("listen", |text| text.parse().map_err(|_| "must be an IP address and a port"));
        let public_url = reader.parsed("public_url", public_url);
        let store = reader.parsed("store", str::parse);
        let postgres = postgres(&mut reader, store.as_ref());
        let signing_alg = reader.parsed("signing_alg", cli::algorithm);
        let log_level = reader.parsed("log.level", |text| logging::filter(text).map(|_| text.to_owned()));
        let max_connections = reader.value("max_connections");
        let audit_retention = reader
            .number("audit.retention_days", RETENTION_DAYS)
            .map(|days| Duration::from_secs(u64::from(days) * 86_400));
        let organizations: Vec<OrganizationConfig> = reader.value("organizations").unwrap_or_default();
        let rate_limits = match reader.value("rate_limits") {
            Some(false) => RateLimiting::Off,
            Some(true) | None => RateLimiting::Standard,
        };
        let fetch_allow: Vec<String> = reader.value("fetch.allow").unwrap_or_default();
        let fetch_post: Vec<String> = reader.value("fetch.post").unwrap_or_default();
        for (key, allow, post) in [("allow", &fetch_allow[..], &[][..]), ("post", &[][..], &fetch_post[..])] {
            if let Err(failure) = fetch::guarded(allow, post) {
                reader.problem(format!("`fetch.{key}`: {}", failure.with_causes()));
            }
        }
        let tls = match (reader.value("tls.cert"), reader.value("tls.key")) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            _ => {
                reader.problem("`tls.cert` and `tls.key` belong together");
                None
            }
        };
        let mail = match (reader.value::<Secret>("mail.url"), reader.value::<String>("mail.from")) {
            (Some(url), Some(from)) => {
                if let Err(error) = Smtp::new(&url, &from) {
                    reader.problem(format!("`mail.url` or `mail.from`: {error}"));
                }
                Some(MailConfig { url, from })
            }
            (None, None) => None,
            _ => {
                reader.problem("`mail.url` and `mail.from` belong together");
                None
            }
        };
        if !reader.has("public_url") {
            reader.problem("`public_url` is required: the URL under which clients reach the server");
        }
        let mut slugs = BTreeSet::new();
        if let Some(twice) = organizations.iter().find(|organization| !slugs.insert(&organization.slug)) {
            reader.problem(format!("`organizations` names `{}` twice", twice.slug));
        }
        let config = Self {
            listen: listen.unwrap_or(DEFAULT_LISTEN),
            public_url: public_url.unwrap_or_default(),
            store: store.unwrap_or(StoreUrl::Memory),
            postgres,
            master_key_file: reader.value("master_key_file"),
            signing_alg: signing_alg.unwrap_or(Algorithm::Es256),
            rate_limits,
            max_connections: max_connections.unwrap_or(listen::DEFAULT_MAX_CONNECTIONS),
            audit_retention,
            log_format: reader.value("log.format").unwrap_or_default(),
            log_level: log_level.unwrap_or_else(|| logging::DEFAULT_LEVEL.to_owned()),
            tls,
            fetch_allow,
            fetch_post,
            mail,
            organizations,
        };
        if !reader.has("store") {
            reader.problem(
                "`store` is required: `embedded:PATH`, `postgres://...`, or `memory` to forget everything at the end",
            );
        }
        reader.finish().map(|()| config)
    }
}

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

fn postgres(reader: &mut Reader, store: Option<&StoreUrl>) -> PostgresConfig {
    let max_connections = reader.number("postgres.max_connections", CONNECTIONS);
    let mut millis = |key| reader.number(key, MILLIS).map(|number| Duration::from_millis(u64::from(number)));
    let acquire_timeout = millis("postgres.acquire_timeout_ms");
    let statement_timeout = millis("postgres.statement_timeout_ms");
    if let Some(StoreUrl::Memory | StoreUrl::Embedded(_)) = store
        && reader.has("postgres")
    {
        reader.problem("`postgres` says how PostgreSQL is used, and `store` is something else");
    }
    PostgresConfig { max_connections, acquire_timeout, statement_timeout }
}

/// From a day, which is what retention counts in, to a century.
const RETENTION_DAYS: RangeInclusive<u32> = 1..=36_525;

/// What a pool may have. PostgreSQL itself admits 100 if nobody says otherwise; thousands only slow it down.
const CONNECTIONS: RangeInclusive<u32> = 1..=1000;

/// How long a request may wait, in milliseconds. Less is no chance on a busy machine; after a minute clients have gone.
const MILLIS: RangeInclusive<u32> = 100..=60_000;

/// Every token, and every secret that clients send for one, goes to this URL: plain http is for this machine
/// only.
fn public_url(text: &str) -> Result<String, &'static str> {
    let url = Url::parse(text).map_err(|_| "must be a URL")?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        _ => return Err("must be https (http only on a loopback host)"),
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err("must have no user, query or fragment");
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests;
