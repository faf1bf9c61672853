//! Which store to run on, as an operator names it.
//!
//! 1. `memory`, `embedded:PATH`, `postgres://...`, or `postgres://...+redis://...`: what begins at `+redis://` or
//!    `+rediss://` is the URL of Redis.
//! 2. URLs hold passwords. No error and no `Debug` repeats them; [`ServiceUrl::place`] is what a log may say.
//! 3. What a driver would quietly ignore or complete is refused: a URL names its host, PostgreSQL's also its database,
//!    and every parameter is known.

use std::{fmt, path::PathBuf, str::FromStr};

use lumoauth_core::secret::Secret;
use url::Url;

use crate::failure::Failure;

/// A store, as an operator names it.
#[derive(Clone, Debug)]
pub(crate) enum StoreUrl {
    /// `memory`: everything is gone when the process ends.
    Memory,
    /// `embedded:PATH`: one durable file.
    Embedded(PathBuf),
    /// `postgres://...`: a database for any number of servers, with or without Redis for the hot roles.
    Postgres {
        /// The database.
        postgres: ServiceUrl,
        /// Redis, if there is one.
        redis: Option<ServiceUrl>,
    },
}

/// The URL of PostgreSQL or Redis.
#[derive(Clone)]
pub(crate) struct ServiceUrl {
    text: Secret,
    place: String,
}

/// The text names no store. The message does not repeat it: a store URL may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseStoreError {
    /// No path to keep the file at.
    #[error("`embedded:` needs a path, as in `embedded:./lumoauth-data`")]
    NoPath,
    /// Redis without a system of record.
    #[error(
        "Redis holds only what may be lost; name PostgreSQL before it, as in `postgres://...+redis://...`"
    )]
    RedisAlone,
    /// The URL of PostgreSQL is none.
    #[error("the PostgreSQL URL {0}")]
    Postgres(UrlProblem),
    /// The URL of Redis is none.
    #[error("the Redis URL {0}")]
    Redis(UrlProblem),
    /// Anything else.
    #[error("must be `memory`, `embedded:PATH`, `postgres://...` or `postgres://...+redis://...`")]
    Unknown,
}

/// What is wrong with a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlProblem {
    /// It cannot be read at all.
    #[error("cannot be read: {0}; characters such as / # ? @ in a password are written %2F %23 %3F %40")]
    Syntax(url::ParseError),
    /// A part that nobody asked for, most likely of a password.
    #[error("has a fragment; a # in a password is written %23")]
    Fragment,
    /// Nowhere to connect to.
    #[error("names no host")]
    NoHost,
    /// Several databases live on one server, and none is meant.
    #[error("names no database, as `/lumoauth` after the host does")]
    NoDatabase,
    /// A path of several parts, most likely of a password.
    #[error(
        "has more than the name of a database after its host; a / in a password is written %2F, an @ %40"
    )]
    Path,
    /// The path is no number.
    #[error("must have the number of a database after the host, or nothing")]
    DatabaseNumber,
    /// A parameter that the driver would ignore.
    #[error("has a parameter that is not known, or whose value makes no sense")]
    Parameter,
}

impl FromStr for StoreUrl {
    type Err = ParseStoreError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "memory" {
            return Ok(Self::Memory);
        }
        match text.split_once(':') {
            Some(("embedded", "")) => Err(ParseStoreError::NoPath),
            Some(("embedded", path)) => Ok(Self::Embedded(PathBuf::from(path))),
            Some(("postgres" | "postgresql", _)) => {
                let (postgres, redis) = split(text);
                Ok(Self::Postgres {
                    postgres: ServiceUrl::postgres(postgres).map_err(ParseStoreError::Postgres)?,
                    redis: redis.map(ServiceUrl::redis).transpose().map_err(ParseStoreError::Redis)?,
                })
            }
            Some(("redis" | "rediss", _)) => Err(ParseStoreError::RedisAlone),
            _ => Err(ParseStoreError::Unknown),
        }
    }
}

impl StoreUrl {
    /// The store of a first try.
    pub(crate) const DEFAULT: &str = "embedded:./lumoauth-data";

    /// The store that was given with `--store`.
    ///
    /// # Errors
    /// [`Failure`] if it is none.
    pub(crate) fn from_argument(text: &Secret) -> Result<Self, Failure> {
        text.expose().parse().map_err(|error: ParseStoreError| Failure::because("--store", error))
    }
}

/// The URL of PostgreSQL, and that of Redis. A password cannot be taken for the border: its slashes are escaped.
fn split(text: &str) -> (&str, Option<&str>) {
    let at = ["+redis://", "+rediss://"].iter().filter_map(|begin| text.find(begin)).min();
    match at {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

impl ServiceUrl {
    fn postgres(text: &str) -> Result<Self, UrlProblem> {
        let url = parse(text)?;
        let mut host = url.host_str().unwrap_or_default().to_owned();
        let mut port = url.port().unwrap_or(5432);
        let mut database = url.path().trim_start_matches('/').to_owned();
        for (name, value) in url.query_pairs() {
            match &*name {
                // The parameters that say the same as the parts of a URL win, as they do in the driver.
                "host" | "hostaddr" => host = value.into_owned(),
                "port" => port = value.parse().map_err(|_| UrlProblem::Parameter)?,
                "dbname" => database = value.into_owned(),
                "user" | "password" | "options" | "sslmode" | "sslrootcert" | "sslcert" | "sslkey" => {}
                _ => return Err(UrlProblem::Parameter),
            }
        }
        if host.is_empty() {
            return Err(UrlProblem::NoHost);
        }
        // Paths of sockets keep their case, names have none.
        if !host.starts_with(['/', '%']) {
            host.make_ascii_lowercase();
        }
        if database.is_empty() {
            return Err(UrlProblem::NoDatabase);
        }
        if database.contains(['/', '@']) {
            return Err(UrlProblem::Path);
        }
        Ok(Self { text: Secret::from(text), place: format!("{host}:{port}/{database}") })
    }

    /// Several hosts, with commas between them, are nodes of one cluster.
    fn redis(text: &str) -> Result<Self, UrlProblem> {
        let authority = text.find("://").map_or(0, |at| at + "://".len());
        let end = text[authority..].find(['/', '?', '#']).map_or(text.len(), |at| authority + at);
        let hosts = text[..end].rfind('@').map_or(authority, |at| at + 1);
        let (before, after) = (&text[..hosts], &text[end..]);
        let mut places = Vec::new();
        let mut database = String::new();
        for host in text[hosts..end].split(',') {
            let url = parse(&format!("{before}{host}{after}"))?;
            let host = url.host_str().filter(|host| !host.is_empty()).ok_or(UrlProblem::NoHost)?;
            places.push(format!("{}:{}", host.to_ascii_lowercase(), url.port().unwrap_or(6379)));
            database = match url.path().trim_start_matches('/') {
                "" => "0".to_owned(),
                number if number.bytes().all(|b| b.is_ascii_digit()) => number.to_owned(),
                _ => return Err(UrlProblem::DatabaseNumber),
            };
            if url.query().is_some() {
                return Err(UrlProblem::Parameter);
            }
        }
        Ok(Self { text: Secret::from(text), place: format!("{}/{database}", places.join(",")) })
    }

    /// The whole URL, with its password, for the driver.
    pub(crate) fn expose(&self) -> &str {
        self.text.expose()
    }

    /// Host, port and database, for people.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceUrl({})", self.place())
    }
}

fn parse(text: &str) -> Result<Url, UrlProblem> {
    let url = Url::parse(text).map_err(UrlProblem::Syntax)?;
    match url.fragment() {
        Some(_) => Err(UrlProblem::Fragment),
        None => Ok(url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> StoreUrl {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn problem(text: &str) -> ParseStoreError {
        text.parse::<StoreUrl>().expect_err(text)
    }

    /// Where PostgreSQL and Redis are.
    fn places(text: &str) -> (String, Option<String>) {
        match read(text) {
            StoreUrl::Postgres { postgres, redis } => {
                (postgres.place().to_owned(), redis.map(|redis| redis.place().to_owned()))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn stores_without_a_service_are_read() {
        assert!(matches!(read("memory"), StoreUrl::Memory));
        assert!(matches!(read("embedded:./a b:c"), StoreUrl::Embedded(path) if path == *"./a b:c"));
        assert!(matches!(read(StoreUrl::DEFAULT), StoreUrl::Embedded(_)));
    }

    #[test]
    fn services_are_read() {
        let postgres = |text| places(text).0;
        assert_eq!(postgres("postgres://u:p@db.example/lumoauth"), "db.example:5432/lumoauth");
        assert_eq!(postgres("postgresql://[::1]:6000/lumoauth?sslmode=verify-full"), "[::1]:6000/lumoauth");
        assert_eq!(postgres("postgres:///lumoauth?host=/run/pg&user=u&port=1"), "/run/pg:1/lumoauth");
        assert_eq!(places("postgres://h/d").1, None);
        let redis = |text| places(text).1.unwrap();
        assert_eq!(redis("postgres://h/d+redis://:p@cache"), "cache:6379/0");
        assert_eq!(redis("postgres://h/d?sslmode=require+rediss://u:p@cache:7000/3"), "cache:7000/3");
        assert_eq!(redis("postgres://h/d+redis://u:p,q@A:1,b,[::1]:3"), "a:1,b:6379,[::1]:3/0");
    }

    #[test]
    fn the_driver_gets_each_url_whole() {
        let StoreUrl::Postgres { postgres, redis } = read("postgres://u:a%2Bb+c@h/d+rediss://:x%20y@r:1/2")
        else {
            panic!("two services")
        };
        assert_eq!(postgres.expose(), "postgres://u:a%2Bb+c@h/d");
        assert_eq!(redis.unwrap().expose(), "rediss://:x%20y@r:1/2");
    }

    #[test]
    fn what_names_no_store_is_told_apart() {
        use ParseStoreError as E;
        assert_eq!(problem("embedded:"), E::NoPath);
        assert_eq!(problem("redis://h"), E::RedisAlone);
        assert_eq!(problem("rediss://h"), E::RedisAlone);
        for bad in ["", "Memory", "memory:", "/var/lib/data", "mysql://h/d", "redis+postgres://h/d"] {
            assert_eq!(problem(bad), E::Unknown, "{bad}");
        }
        for bad in ["postgres:", "postgres:///d", "postgres:d"] {
            assert_eq!(problem(bad), E::Postgres(UrlProblem::NoHost), "{bad}");
        }
        for bad in ["postgres://h", "postgres://h/", "postgres://u:p@h:1?sslmode=require"] {
            assert_eq!(problem(bad), E::Postgres(UrlProblem::NoDatabase), "{bad}");
        }
        assert_eq!(problem("postgres://h/d/e"), E::Postgres(UrlProblem::Path));
        assert_eq!(problem("postgres://h/d+REDIS://h"), E::Postgres(UrlProblem::Path));
        assert_eq!(problem("postgres://h/d?timeout=1"), E::Postgres(UrlProblem::Parameter));
        assert_eq!(problem("postgres://h/d?port=x"), E::Postgres(UrlProblem::Parameter));
        assert!(matches!(problem("postgres://h:port/d"), E::Postgres(UrlProblem::Syntax(_))));
        assert_eq!(problem("postgres://h/d+redis://h/x"), E::Redis(UrlProblem::DatabaseNumber));
        assert_eq!(problem("postgres://h/d+redis://h?db=1"), E::Redis(UrlProblem::Parameter));
        // With this fragment the driver would trust any certificate.
        assert_eq!(problem("postgres://h/d+rediss://h#insecure"), E::Redis(UrlProblem::Fragment));
        for bad in ["postgres://h/d+redis://", "postgres://h/d+redis://:p@", "postgres://h/d+redis://a,,b"] {
            assert!(matches!(problem(bad), E::Redis(UrlProblem::NoHost | UrlProblem::Syntax(_))), "{bad}");
        }
    }

    #[test]
    fn passwords_never_print() {
        for good in [
            "postgres://u:canary@h/d",
            "postgres://h/d?password=canary",
            "postgres://u:canary@h/d+redis://u:canary@h",
        ] {
            assert!(!format!("{:?}", read(good)).contains("canary"), "{good}");
        }
        for bad in [
            "postgres://u:ca#canary@h/d",
            "postgres://u:1#canary@h/d",
            "postgres://u:ca/canary@h/d",
            "postgres://u:1/canary@h/d",
            "postgres://u:1/canary@h/d?canary",
            "postgres://u:1?canary@h/d",
            "postgres://u:canary@h:x/d",
            "postgres://u:canary@h/d?canary=1",
            "postgres://u:canary@h",
            "postgres://h/d+redis://:canary@h/canary",
            "postgres://h/d+redis://:canary@h1,h2:x",
            "postgres://h/d+redis://:1/canary@h",
            "mysql://u:canary@h/d",
        ] {
            let error = problem(bad);
            assert!(!format!("{error} {error:?}").contains("canary"), "{bad}: {error}");
        }
    }
}
