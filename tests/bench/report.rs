//! What is printed.

use std::{io::Write as _, time::Duration};

use crate::{rate::Rate, target::Sample};

/// Results against their goals, for the table at the end.
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    goal: &'static str,
    what: String,
    measured: Spread,
    limit: Limit,
}

/// What a goal asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// A ratio of at most this.
    AtMost(f64),
    /// A ratio of at least this.
    AtLeast(f64),
    /// An absolute value of at most this.
    Value(f64, &'static str),
    /// Nothing: shown for information.
    None,
}

/// The middle and the ends of some measurements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (first, last) = (values.first().expect("a measurement"), values.last().expect("a measurement"));
        let upper = values[values.len() / 2];
        let lower = values[(values.len() - 1) / 2];
        Self { median: f64::midpoint(lower, upper), min: *first, max: *last }
    }

    pub(crate) fn median(&self) -> f64 {
        self.median
    }
}

impl Report {
    /// Adds a result to the table.
    pub(crate) fn add(
        &mut self,
        goal: &'static str,
        what: impl Into<String>,
        measured: Spread,
        limit: Limit,
    ) {
        self.lines.push(Line { goal, what: what.into(), measured, limit });
    }

    /// Prints the table.
    pub(crate) fn summary(&self) {
        say(&format!(
            "\n{:<5} {:<66} {:>9} {:>9} {:>9}   {:<10} {}",
            "goal", "what", "median", "min", "max", "limit", "reached"
        ));
        for Line { goal, what, measured: Spread { median, min, max }, limit } in &self.lines {
            let (wanted, reached) = match limit {
                Limit::AtMost(most) => (format!("<= {most:.2}"), Some(median <= most)),
                Limit::AtLeast(least) => (format!(">= {least:.2}"), Some(median >= least)),
                Limit::Value(most, unit) => (format!("<= {most} {unit}"), Some(median <= most)),
                Limit::None => (String::new(), None),
            };
            let reached = reached.map_or("", |reached| if reached { "yes" } else { "NO" });
            say(&format!(
                "{goal:<5} {what:<66} {median:>9.3} {min:>9.3} {max:>9.3}   {wanted:<10} {reached}"
            ));
        }
    }
}

/// Prints what the rounds of one server showed.
pub(crate) fn describe(name: &str, samples: &[Sample]) {
    let of = |value: fn(&Sample) -> f64| Spread::of(samples.iter().map(value)).median;
    say(&format!(
        "  {name:<66} {:>7.1} us CPU/request {:>8.0} requests/s   p50 {:>7.0} us   p99 {:>7.0} us",
        of(|sample| micros(sample.cpu)),
        of(|sample| sample.per_second),
        of(|sample| micros(sample.p50)),
        of(|sample| micros(sample.p99)),
    ));
}

/// Prints what the rounds of one contender showed.
pub(crate) fn describe_rates(name: &str, rounds: &[Rate]) {
    let of = |value: fn(&Rate) -> f64| Spread::of(rounds.iter().map(value)).median;
    say(&format!(
        "  {name:<66} {:>7.1} us client CPU/call {:>8.0} /s   p50 {:>7.0} us   p99 {:>7.0} us",
        of(|rate| micros(rate.cpu)),
        of(|rate| rate.per_second),
        of(|rate| micros(rate.p50)),
        of(|rate| micros(rate.p99)),
    ));
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

pub(crate) fn megabytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "shown with three decimals")]
    let bytes = bytes as f64;
    bytes / 1e6
}

/// One line of output.
pub(crate) fn say(line: &str) {
    // A reader that has seen enough closes the pipe; the servers are still to be stopped in order.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
