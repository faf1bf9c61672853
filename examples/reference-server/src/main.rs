//! The reference server of lumoauth: its library, a store, keys and a listener, put together as a host does it.
//!
//! `dev` runs with no configuration and makes what a first try needs; `serve` runs what a configuration file says; `migrate`
//! prepares a database for either; `org` makes organizations and switches them off; `audit`
//! checks an exported audit log; `check-config` reads a configuration and reports. The README beside this package has all keys and files.

mod accounts;
mod app;
mod audit;
mod cli;
mod config;
mod credentials;
mod dev;
mod dev_files;
mod failure;
mod fetch;
mod files;
mod fixtures;
mod health;
mod host;
mod listen;
mod logging;
mod mail;
mod master_key;
mod migrate;
mod org;
mod passwords;
mod serve;
mod store;
mod tls;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    cli::{Cli, Verb},
    failure::Failure,
};

/// A request is some hundred small pieces of memory, on as many threads as there are cores: this allocator spends about a
/// tenth less CPU on a token than the platform's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Dev(args) => in_runtime(dev::run(args)),
        Verb::Serve(args) => in_runtime(serve::run(args)),
        Verb::Migrate(args) => in_runtime(migrate::run(args)),
        Verb::Org(verb) => in_runtime(org::run(verb)),
        Verb::Audit(verb) => audit::run(verb),
        Verb::CheckConfig(args) => serve::check(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.with_causes());
            ExitCode::FAILURE
        }
    }
}

/// One worker thread per core; the runtime, and with it every task, is gone when this returns.
fn in_runtime(verb: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("the runtime does not start", error))?;
    runtime.block_on(verb)
}
