//! Calls from a number of callers for some time, and how many were answered.

use std::{future::Future, time::Duration};

use lumoauth_tests::Stopwatch;
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{Options, process::own_cpu, report::describe_rates};

/// What one round showed.
#[derive(Clone, Debug)]
pub(crate) struct Rate {
    /// Calls that were answered, per second.
    pub(crate) per_second: f64,
    /// CPU time of this process per call.
    pub(crate) cpu: Duration,
    /// The latency that half of them did not exceed.
    pub(crate) p50: Duration,
    /// The latency that 99 in 100 did not exceed.
    pub(crate) p99: Duration,
}

/// Runs `call` for `length`, `callers` at a time; each caller makes the next call when it has an answer. The call is
/// told the number of its caller.
pub(crate) fn measure<F, R>(runtime: &Runtime, callers: usize, length: Duration, call: F) -> Rate
where
    F: Fn(usize) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send,
{
    runtime.block_on(async {
        let before = own_cpu();
        let watch = Stopwatch::start();
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let call = call.clone();
            tasks.spawn(async move {
                let mut latencies = Vec::new();
                while watch.elapsed() < length {
                    let watch = Stopwatch::start();
                    call(caller).await;
                    latencies.push(watch.elapsed());
                }
                latencies
            });
        }
        let latencies = tasks.join_all().await;
        let (wall, cpu) = (watch.elapsed(), own_cpu().saturating_sub(before));
        Rate::of(latencies.concat(), wall, cpu)
    })
}

impl Rate {
    fn of(mut latencies: Vec<Duration>, wall: Duration, cpu: Duration) -> Self {
        latencies.sort_unstable();
        let count = u32::try_from(latencies.len()).expect("a round is not that long");
        let quantile = |percent: usize| latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)];
        let per_second = f64::from(count) / wall.as_secs_f64();
        Self { per_second, cpu: cpu / count, p50: quantile(50), p99: quantile(99) }
    }
}

/// One side of a comparison.
pub(crate) struct Contender<'a> {
    name: String,
    round: Box<dyn Fn(Duration) -> Rate + 'a>,
}

impl<'a> Contender<'a> {
    /// `round` measures it for as long as it is told.
    pub(crate) fn new(name: impl Into<String>, round: impl Fn(Duration) -> Rate + 'a) -> Self {
        Self { name: name.into(), round: Box::new(round) }
    }
}

/// Rounds of all contenders in turn; the rates of each.
pub(crate) fn alternate(options: &Options, contenders: &[Contender<'_>]) -> Vec<Vec<f64>> {
    let mut rounds = vec![Vec::new(); contenders.len()];
    for contender in contenders {
        let _ = (contender.round)(options.length / 4);
    }
    for _ in 0..options.rounds {
        for (contender, rounds) in contenders.iter().zip(&mut rounds) {
            rounds.push((contender.round)(options.length));
        }
    }
    for (contender, rounds) in contenders.iter().zip(&rounds) {
        describe_rates(&contender.name, rounds);
    }
    rounds.iter().map(|rounds| rounds.iter().map(|rate| rate.per_second).collect()).collect()
}
