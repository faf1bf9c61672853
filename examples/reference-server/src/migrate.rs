//! `migrate`: the tables of PostgreSQL as this version needs them, before the first server of this version starts.

use std::io::{self, Write};

use crate::{
    cli::StoreArgs,
    config::{Config, PostgresConfig},
    failure::Failure,
    logging, serve,
    store::StoreUrl,
};

/// Migrates the store and says what was done. Any number may run at once, and it may be run again.
///
/// # Errors
/// [`Failure`] if the store cannot be migrated.
pub(crate) async fn run(args: StoreArgs) -> Result<(), Failure> {
    let (store, _) = named_store(&args)?;
    let done = match store.migrate().await? {
        None => "nothing to do: this store has no migrations".to_owned(),
        Some(0) => "nothing to do".to_owned(),
        Some(1) => "1 migration applied".to_owned(),
        Some(steps) => format!("{steps} migrations applied"),
    };
    writeln!(io::stdout(), "{done}").map_err(|error| Failure::because("cannot print", error))
}

/// The store that the arguments or their configuration name, and how it is used. Begins to log as either says.
///
/// # Errors
/// [`Failure`] if it cannot be read.
pub(crate) fn named_store(args: &StoreArgs) -> Result<(StoreUrl, PostgresConfig), Failure> {
    match (&args.store, &args.config) {
        (Some(url), _) => {
            logging::init(logging::Format::Text, logging::DEFAULT_LEVEL)?;
            Ok((StoreUrl::from_argument(url)?, PostgresConfig::default()))
        }
        (None, Some(path)) => {
            let config: Config = serve::load(path)?;
            logging::init(config.log_format, &config.log_level)?;
            Ok((config.store, config.postgres))
        }
        (None, None) => Err(Failure::new("give the store with --store or --config")),
    }
}
