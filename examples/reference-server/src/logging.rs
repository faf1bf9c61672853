//! Logs: to standard error, for people (`text`) or machines (`json`).

use std::{env, io};

use serde::Deserialize;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::failure::Failure;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The level that is used when nobody asks for another.
pub(crate) const DEFAULT_LEVEL: &str = "info";

/// Starts logging. `RUST_LOG` wins over `level`.
///
/// # Errors
/// [`Failure`] if the level is none, or logging has been started before.
pub(crate) fn init(format: Format, level: &str) -> Result<(), Failure> {
    let from_env = env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.is_empty());
    let filter = match &from_env {
        Some(text) => filter(text).map_err(|error| {
            Failure::because(format!("{} is no log level", EnvFilter::DEFAULT_ENV), error)
        })?,
        None => filter(level).map_err(|error| Failure::because("log.level is no log level", error))?,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match format {
        Format::Text => lines.try_init(),
        Format::Json => {
            lines.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
        }
    };
    started.map_err(|error| Failure::because("logging does not start", error))
}

/// The filter that `text` asks for.
///
/// The transport crates stay at `info` whatever is asked: below that they write what they read, and headers
/// carry credentials. The database driver stays at `warn`: at `info` it repeats every notice of the server.
///
/// # Errors
/// If the text is no level or list of directives.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    let default = LevelFilter::INFO.into();
    let mut filter = EnvFilter::builder().with_default_directive(default).parse(text)?;
    for quiet in ["h2=info", "hyper=info", "hyper_util=info", "rustls=info", "sqlx=warn"] {
        filter = filter.add_directive(quiet.parse()?);
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_read() {
        for good in ["info", "warn", "off", "lumoauth_core=debug,info"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        assert!(filter("lumoauth_core=loud").is_err());
    }

    #[test]
    fn the_transport_never_writes_headers() {
        let filter = filter("trace,h2=trace").unwrap().to_string();
        assert!(filter.contains("h2=info") && !filter.contains("h2=trace"), "{filter}");
    }
}
