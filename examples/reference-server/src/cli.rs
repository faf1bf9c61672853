//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use lumoauth_core::{id::OrgId, keys::Algorithm, organization::ActOrder, secret::Secret};

/// Authorization server for AI agents.
#[derive(Debug, Parser)]
#[command(name = "lumoauth-server", version, about)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What the server can be told to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run with no configuration: make what is missing, print how to reach it.
    Dev(DevArgs),
    /// Run what a configuration file says.
    Serve(ConfigArgs),
    /// Bring the tables of a PostgreSQL store up to this version.
    Migrate(StoreArgs),
    /// Make organizations, and switch them off and on.
    #[command(subcommand)]
    Org(OrgVerb),
    /// Check audit logs that were exported.
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Read a configuration file and report every problem in it.
    CheckConfig(CheckArgs),
}

/// How to run `dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Where to listen; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// `memory`, `embedded:PATH`, `postgres://...` or `postgres://...+redis://...`.
    // Parsed later: clap repeats a bad value in its message, and a store URL may hold a password.
    #[arg(long, value_name = "URL", default_value = crate::store::StoreUrl::DEFAULT)]
    pub(crate) store: Secret,
    /// Also write the printed variables to this file, as KEY=VALUE lines with mode 0600.
    #[arg(long, value_name = "FILE")]
    pub(crate) env_out: Option<PathBuf>,
    /// Under which URL clients reach the server [default: http:// and the address it listens on].
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// The algorithm of new signing keys: ES256, RS256 or EdDSA.
    #[arg(long, value_name = "ALG", default_value = "ES256", value_parser = algorithm)]
    pub(crate) signing_alg: Algorithm,
    /// Which records to make.
    #[arg(long, value_enum, default_value_t = FixtureSet::Basic)]
    pub(crate) fixtures: FixtureSet,
    /// Where the generated credentials are kept [default: beside an embedded store, in the state directory for
    /// PostgreSQL, nowhere for `memory`].
    #[arg(long, value_name = "FILE")]
    pub(crate) credentials: Option<PathBuf>,
    /// Fetch from this origin wherever it is, also from a private address or by http; with `=IP:PORT` behind it, from
    /// there; repeatable.
    #[arg(long = "fetch-allow", value_name = "ORIGIN")]
    pub(crate) fetch_allow: Vec<String>,
    /// Post callbacks and webhooks to this origin wherever it is; repeatable.
    #[arg(long = "post-allow", value_name = "ORIGIN")]
    pub(crate) post_allow: Vec<String>,
    /// Send mail through this SMTP server: `smtps://user:password@host`, or `smtp://` on this machine.
    #[arg(long = "mail-url", value_name = "URL")]
    pub(crate) mail_url: Option<Secret>,
    /// From this address.
    #[arg(long = "mail-from", value_name = "ADDRESS", default_value = "lumoauth@localhost.localdomain")]
    pub(crate) mail_from: String,
    /// Use this credential in place of a generated one, such as AGENT_CLIENT_SECRET=...; repeatable.
    // Other users of the machine can read command lines; the file is the better place.
    #[arg(long = "credential", value_name = "KEY=VALUE", value_parser = credential)]
    pub(crate) given: Vec<(String, Secret)>,
}

/// Which configuration to run.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// What can be done with organizations.
#[derive(Debug, Subcommand)]
pub(crate) enum OrgVerb {
    /// Make an organization, and print the API key of its first administrator, which is shown once.
    Create {
        /// Its slug: 1 to 63 of a-z, 0-9 and -.
        #[arg(value_parser = slug)]
        slug: OrgId,
        /// Its display name [default: the slug].
        #[arg(long)]
        name: Option<String>,
        /// How the `act` claims of its delegated tokens are nested.
        #[arg(long, value_enum, default_value_t = ActOrderName::Seed)]
        act_order: ActOrderName,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Refuse every credential of an organization. What was issued until then stays dead.
    Disable {
        /// Its slug.
        #[arg(value_parser = slug)]
        slug: OrgId,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Let an organization work again.
    Enable {
        /// Its slug.
        #[arg(value_parser = slug)]
        slug: OrgId,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Print slug, status and name of every organization, one a line.
    List {
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// What can be done with an exported audit log.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditVerb {
    /// Say whether a log is what was signed, or which entry is the first that is not. Works offline.
    Verify {
        /// The export of the log (GET admin/audit-logs/tree/export), or its parts in their order.
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Signed heads that were kept from earlier: the log must still begin with what they are about.
        #[arg(long, value_name = "FILE")]
        head: Option<PathBuf>,
        /// The public keys of the server (.well-known/audit-jwks.json), fetched when they could be trusted.
        #[arg(long, value_name = "FILE", required_unless_present = "no_jwks")]
        jwks: Option<PathBuf>,
        /// Take the keys from the export itself: that says whether it fits together, and not who made it.
        #[arg(long, conflicts_with = "jwks")]
        no_jwks: bool,
    },
}

/// How `act` claims are nested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ActOrderName {
    /// The first agent outermost.
    Seed,
    /// The current agent outermost (RFC 8693 section 4.1).
    Rfc8693,
}

impl From<ActOrderName> for ActOrder {
    fn from(name: ActOrderName) -> Self {
        match name {
            ActOrderName::Seed => Self::FirstOutermost,
            ActOrderName::Rfc8693 => Self::Rfc8693,
        }
    }
}

/// Which store to work on.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct StoreArgs {
    /// The store, as `dev` takes it.
    // Other users of the machine can read command lines; a configuration is the better place for a password.
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<Secret>,
    /// The configuration file (TOML) that names the store.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Which configuration to check.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The configuration file (TOML).
    #[arg(value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// How much `dev` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FixtureSet {
    /// One organization with two agents, a person, an application and an MCP server.
    Basic,
    /// Also an agent for load tests and a second organization.
    Full,
}

/// The algorithm with this name, or which names there are.
pub(crate) fn algorithm(name: &str) -> Result<Algorithm, &'static str> {
    Algorithm::from_wire(name).ok_or("must be ES256, RS256 or EdDSA")
}

fn slug(text: &str) -> Result<OrgId, &'static str> {
    OrgId::parse(text).map_err(|_| "must be 1 to 63 of a-z, 0-9 and -")
}

fn credential(text: &str) -> Result<(String, Secret), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => {
            Ok((key.to_owned(), Secret::from(value)))
        }
        _ => Err("must be KEY=VALUE"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn given_credentials_do_not_print() {
        let store = "postgres://u:canary@h/d";
        for words in [
            &["x", "dev", "--credential", "AGENT_CLIENT_SECRET=canary"][..],
            &["x", "dev", "--store", store],
            &["x", "migrate", "--store", store],
            &["x", "org", "list", "--store", store],
        ] {
            let cli = Cli::parse_from(words);
            assert!(!format!("{cli:?}").contains("canary"));
        }
    }

    #[test]
    fn one_store_is_migrated() {
        let parse = |words: &[&str]| Cli::try_parse_from([&["x", "migrate"], words].concat());
        assert!(parse(&["--store", "memory"]).is_ok() && parse(&["--config", "file"]).is_ok());
        assert!(parse(&[]).is_err() && parse(&["--store", "memory", "--config", "file"]).is_err());
    }

    #[test]
    fn an_organization_is_named_by_its_slug_in_one_store() {
        let parse = |words: &[&str]| Cli::try_parse_from([&["x", "org"], words].concat());
        assert!(parse(&["create", "acme", "--act-order", "rfc8693", "--store", "memory"]).is_ok());
        assert!(parse(&["list", "--config", "file"]).is_ok());
        for bad in [
            &["create", "acme"][..],
            &["create", "Not A Slug", "--store", "memory"],
            &["create", "acme", "--act-order", "other", "--store", "memory"],
            &["disable", "--store", "memory"],
            &["list", "--store", "memory", "--config", "file"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
