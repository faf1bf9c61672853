//! `lumoauth-bench`: what the token endpoint costs, against a bare one in the same run.
//!
//! Each goal compares two servers in alternating rounds of the same number of requests, by the CPU time that the
//! server process used, and reports the median of the ratios of the rounds. So noise from outside, which comes and
//! goes, hits both sides. `README.md` says how to run it and what each ratio means.

mod agents;
mod bare;
mod goals;
mod host;
mod load;
mod process;
mod report;
mod target;

use std::{env, path::PathBuf, process::ExitCode};

use tokio::runtime::{Builder, Runtime};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How many pairs of rounds.
    pub(crate) rounds: usize,
    /// How many requests a round has.
    pub(crate) requests: usize,
    /// Whether the comparison by size goes to a million agents.
    pub(crate) million: bool,
    /// The server that is measured.
    pub(crate) server: PathBuf,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        // The two servers that the harness starts from its own binary.
        ["bare", message, answer] => many_threads().block_on(bare::serve(number(message), number(answer))),
        ["host", agents] => many_threads().block_on(host::serve(number(agents))),
        [goal @ ("g1" | "g2" | "g10" | "g14" | "all"), rest @ ..] => match options(rest) {
            Ok(options) => measure(goal, &options),
            Err(problem) => return usage(&problem),
        },
        _ => return usage("which goal?"),
    }
    ExitCode::SUCCESS
}

fn measure(goal: &str, options: &Options) {
    let mut report = report::Report::default();
    let wanted = |name| goal == name || goal == "all";
    if wanted("g1") {
        goals::memory(options, &mut report);
    }
    if wanted("g2") {
        goals::embedded(options, &mut report);
    }
    if wanted("g10") {
        goals::sizes(options, &mut report);
    }
    if wanted("g14") {
        goals::start(options, &mut report);
    }
    report.summary();
}

fn options(words: &[&str]) -> Result<Options, String> {
    let mut options = Options { rounds: 7, requests: 30_000, million: false, server: default_server()? };
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let mut value = || words.next().copied().ok_or_else(|| format!("{word} needs a value"));
        match word {
            "--rounds" => options.rounds = count(value()?)?,
            "--requests" => options.requests = count(value()?)?,
            "--server" => options.server = value()?.into(),
            "--million" => options.million = true,
            _ => return Err(format!("`{word}` is no option")),
        }
    }
    if options.server.is_file() {
        Ok(options)
    } else {
        Err(format!(
            "{} is missing: build it with `cargo build --release -p lumoauth-server`",
            options.server.display()
        ))
    }
}

fn default_server() -> Result<PathBuf, String> {
    let own = env::current_exe().map_err(|error| format!("this binary has no path: {error}"))?;
    Ok(own.with_file_name(format!("lumoauth-server{}", env::consts::EXE_SUFFIX)))
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("`{text}` is no number from 1"))
}

/// An argument that the harness itself wrote.
fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

fn usage(problem: &str) -> ExitCode {
    eprintln!(
        "error: {problem}\n\
         usage: lumoauth-bench g1|g2|g10|g14|all [--rounds N] [--requests N] [--million] [--server FILE]"
    );
    ExitCode::FAILURE
}

/// What a server runs on: one worker per core, as the reference server has it.
fn many_threads() -> Runtime {
    Builder::new_multi_thread().enable_all().build().expect("the runtime starts")
}

/// What the harness itself runs on: one thread, so that it takes no more than one core from the servers.
fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("the runtime starts")
}
