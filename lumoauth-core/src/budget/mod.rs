//! Budgets: what an agent may use per window, in whole units.
//!
//! A [`BudgetPolicy`] is the wire form that administrators write. It turns into [`Limit`]s: a maximum per
//! [`Meter`] and [`Window`]. Windows are fixed and in UTC: the clock hour, the calendar day, the calendar
//! month. Money is whole micro-dollars and is never held in a float.

mod envelope;
mod evaluate;
mod hold;
mod policy;
mod usd;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

pub use envelope::Envelope;
pub use evaluate::{Account, Line, Standing, Usage, account_lines, admits, exceeded};
pub use hold::{HeldLine, Hold, HoldState, Resolution, Verdict, amounts, recounted};
pub use policy::{BudgetPolicy, InvalidPolicy};
pub use usd::{MicroUsd, ParseUsdError};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "every meter must be handled wherever usage is")]
pub enum Meter {
    /// Model tokens.
    Tokens,
    /// API calls.
    Calls,
    /// Cost in millionths of a US dollar.
    MicroUsd,
}

/// Over which time a maximum counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "every window must be handled wherever usage is")]
pub enum Window {
    /// The clock hour, UTC.
    Hour,
    /// The calendar day, UTC.
    Day,
    /// The calendar month, UTC.
    Month,
}

impl Window {
    /// The first instant of the window that `now` is in.
    ///
    /// ```
    /// use lumoauth_core::{budget::Window, clock::Timestamp};
    ///
    /// let now: Timestamp = "2028-02-29T23:59:59Z".parse().unwrap();
    /// assert_eq!(Window::Month.start(now).to_string(), "2028-02-01T00:00:00Z");
    /// assert_eq!(Window::Month.end(now).to_string(), "2028-03-01T00:00:00Z");
    /// ```
    pub fn start(self, now: Timestamp) -> Timestamp {
        const HOUR: u64 = 3600;
        const DAY: u64 = 24 * HOUR;
        let seconds = now.unix_seconds();
        match self {
            Self::Hour => Timestamp::from_unix_seconds(seconds - seconds % HOUR),
            Self::Day => Timestamp::from_unix_seconds(seconds - seconds % DAY),
            Self::Month => {
                let day = now.to_jiff().to_zoned(jiff::tz::TimeZone::UTC).day();
                let today = Self::Day.start(now);
                today.minus(Duration::from_secs(DAY * u64::from(day.unsigned_abs().saturating_sub(1))))
            }
        }
    }

    /// The first instant of the next window.
    pub fn end(self, now: Timestamp) -> Timestamp {
        let start = self.start(now);
        match self {
            Self::Hour => start.plus(Duration::from_secs(3600)),
            Self::Day => start.plus(Duration::from_secs(86_400)),
            // Every month is longer than 27 days and shorter than 32.
            Self::Month => Self::Month.start(start.plus(Duration::from_secs(32 * 86_400))),
        }
    }
}

/// A maximum for one meter in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limit {
    /// What is counted.
    pub meter: Meter,
    /// Over which time.
    pub window: Window,
    /// How much; zero allows nothing.
    pub max: u64,
}

impl Limit {
    /// A maximum of `max` units of `meter` per `window`.
    pub const fn new(meter: Meter, window: Window, max: u64) -> Self {
        Self { meter, window, max }
    }
}

/// The key of one counter in one agent's account: a meter over a window.
///
/// The three of the policy are the only ones that are counted.
pub const COUNTERS: [(Meter, Window); 3] =
    [(Meter::Tokens, Window::Day), (Meter::Calls, Window::Hour), (Meter::MicroUsd, Window::Month)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_begin_and_end_on_utc_boundaries() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        for (now, hour, day, month) in [
            (
                "2026-12-31T23:59:59.999Z",
                "2027-01-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
            ),
            ("2027-01-01T00:00:00Z", "2027-01-01T01:00:00Z", "2027-01-02T00:00:00Z", "2027-02-01T00:00:00Z"),
            ("2028-02-28T12:30:00Z", "2028-02-28T13:00:00Z", "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"),
        ] {
            assert_eq!(Window::Hour.end(at(now)), at(hour), "{now}");
            assert_eq!(Window::Day.end(at(now)), at(day), "{now}");
            assert_eq!(Window::Month.end(at(now)), at(month), "{now}");
        }
    }
}
