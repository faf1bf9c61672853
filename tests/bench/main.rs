//! `lumoauth-bench`: what the token endpoint and the stores cost, against bare ones in the same run.
//!
//! Each goal compares two contenders in alternating rounds and reports the median of the ratios of the rounds. So
//! noise from outside, which comes and goes, hits both sides. Servers are compared by the CPU time that their process
//! used for the same number of requests, stores by how many calls they answer in the same time. `README.md` says how
//! to run it and what each ratio means.

mod agents;
mod bare;
mod goals;
mod host;
mod load;
mod place;
mod process;
mod rate;
mod raw;
mod report;
mod target;

use std::{env, path::PathBuf, process::ExitCode, time::Duration};

use tokio::runtime::{Builder, Runtime};

use crate::target::Appends;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How many rounds each contender has.
    pub(crate) rounds: usize,
    /// How many requests a round of a server has.
    pub(crate) requests: usize,
    /// How long a round of a store is.
    pub(crate) length: Duration,
    /// The only store that is wanted.
    pub(crate) store: Option<StoreKind>,
    /// Whether the comparison by size goes to a million agents.
    pub(crate) million: bool,
    /// The server that is measured.
    pub(crate) server: PathBuf,
}

impl Options {
    pub(crate) fn wants(&self, kind: StoreKind) -> bool {
        self.store.is_none_or(|only| only == kind)
    }
}

/// What a server keeps its records in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Memory,
    Embedded,
    Postgres,
}

impl StoreKind {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Embedded, Self::Postgres];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Embedded => "embedded",
            Self::Postgres => "postgres",
        }
    }
}

/// A goal, and what measures it.
struct Goal {
    name: &'static str,
    measure: fn(&Options, &mut report::Report),
}

const GOALS: [Goal; 12] = [
    Goal { name: "g1", measure: goals::tokens::memory },
    Goal { name: "g2", measure: goals::tokens::durable },
    Goal { name: "g4", measure: goals::exchange::exchange },
    Goal { name: "g5", measure: goals::layers::layers },
    Goal { name: "g7", measure: goals::charges::strict },
    Goal { name: "g8", measure: goals::pool::pool },
    Goal { name: "g9", measure: goals::layers::leases },
    Goal { name: "g10", measure: goals::sizes::sizes },
    Goal { name: "g11", measure: goals::policy::writes },
    Goal { name: "g12", measure: goals::appends::appends },
    Goal { name: "g13", measure: goals::trees::trees },
    Goal { name: "g14", measure: goals::start::start },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        // What the harness starts from its own binary: servers, and what needs a process of its own.
        ["bare", message, answer, checks] => {
            many_threads().block_on(bare::serve(number(message), number(answer), number(checks)));
        }
        ["counters"] => goals::layers::count(),
        ["host", "memory", agents] => many_threads().block_on(host::memory(number(agents))),
        ["host", "postgres", url, appends] => {
            let together = *appends == Appends::Together.name();
            let appends = if together { Appends::Together } else { Appends::OneByOne };
            many_threads().block_on(host::postgres(url, appends));
        }
        [name, rest @ ..] if *name == "all" || GOALS.iter().any(|goal| goal.name == *name) => {
            match options(rest) {
                Ok(options) => measure(name, &options),
                Err(problem) => return usage(&problem),
            }
        }
        _ => return usage("which goal?"),
    }
    ExitCode::SUCCESS
}

fn measure(name: &str, options: &Options) {
    let mut report = report::Report::default();
    for goal in GOALS.iter().filter(|goal| name == goal.name || name == "all") {
        (goal.measure)(options, &mut report);
    }
    report.summary();
}

fn options(words: &[&str]) -> Result<Options, String> {
    let mut options = Options {
        rounds: 7,
        requests: 30_000,
        length: Duration::from_secs(2),
        store: None,
        million: false,
        server: default_server()?,
    };
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let mut value = || words.next().copied().ok_or_else(|| format!("{word} needs a value"));
        match word {
            "--rounds" => options.rounds = count(value()?)?,
            "--requests" => options.requests = count(value()?)?,
            "--millis" => options.length = Duration::from_millis(count(value()?)? as u64),
            "--store" => options.store = Some(store(value()?)?),
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

fn store(name: &str) -> Result<StoreKind, String> {
    let kind = StoreKind::ALL.into_iter().find(|kind| kind.name() == name);
    kind.ok_or_else(|| format!("`{name}` is none of memory, embedded, postgres"))
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("`{text}` is no number from 1"))
}

/// An argument that the harness itself wrote.
fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

fn usage(problem: &str) -> ExitCode {
    let goals = GOALS.map(|goal| goal.name).join("|");
    eprintln!(
        "error: {problem}\n\
         usage: lumoauth-bench {goals}|all [--rounds N] [--requests N] [--millis N] [--million] \
         [--store memory|embedded|postgres] [--server FILE]"
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
