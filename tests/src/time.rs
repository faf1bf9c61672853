//! The only place of the tests that reads a clock.

use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Seconds since 1970, from the machine's clock, which the server under test shares.
pub fn unix_now() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "a black-box test has no other clock than the server's")]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).expect("the machine's clock is after 1970");
    i64::try_from(since.as_secs()).expect("seconds fit")
}

/// Waits when the UTC hour is about to end.
///
/// Budget windows are clock hours and days, so a test that counts calls must not straddle one. Every day ends with
/// an hour, so this covers both.
pub fn avoid_hour_edge() {
    const MARGIN: i64 = 20;
    let left = 3600 - unix_now() % 3600;
    if left < MARGIN {
        thread::sleep(Duration::from_secs(u64::try_from(left).expect("positive") + 1));
    }
}

/// Waits when the minute is about to end: rate limits count by clock minutes.
pub fn avoid_minute_edge() {
    const MARGIN: i64 = 6;
    let left = 60 - unix_now() % 60;
    if left < MARGIN {
        thread::sleep(Duration::from_secs(u64::try_from(left).expect("positive")));
    }
}

/// `seconds` since 1970 as RFC 3339 in UTC.
pub fn rfc3339(seconds: i64) -> String {
    // Civil date from day number, after Howard Hinnant's `civil_from_days`.
    let days = seconds.div_euclid(86_400) + 719_468;
    let clock = seconds.rem_euclid(86_400);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", clock / 3600, clock / 60 % 60, clock % 60)
}

/// Measures how long something took.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[expect(clippy::disallowed_methods, reason = "measures and times out, decides nothing the server sees")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_are_written_as_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_790_000_000), "2026-09-21T14:13:20Z");
    }
}
