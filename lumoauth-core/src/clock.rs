//! Time as a value: [`Timestamp`], and the [`Clock`] that the server reads it from.
//!
//! Every decision in this crate takes `now` as an argument. Only the server asks a [`Clock`], once per
//! request, so a test (or a replica with a synced clock) decides what time it is.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// An instant: whole milliseconds since 1970-01-01T00:00:00Z.
///
/// ```
/// use lumoauth_core::clock::Timestamp;
///
/// let at = Timestamp::from_unix_seconds(1_790_000_000);
/// assert_eq!(at.to_string(), "2026-09-21T14:13:20Z");
/// assert_eq!("2026-09-21T14:13:20Z".parse::<Timestamp>().unwrap(), at);
/// assert!("yesterday".parse::<Timestamp>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The instant `seconds` after the Unix epoch.
    pub const fn from_unix_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// The instant `millis` milliseconds after the Unix epoch.
    pub const fn from_unix_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Whole seconds since the Unix epoch, rounded down (the unit of JWT times).
    pub const fn unix_seconds(self) -> u64 {
        self.0 / 1000
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_millis(self) -> u64 {
        self.0
    }

    /// This instant moved `by` into the future; saturates.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This instant moved `by` into the past; saturates at the epoch.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this instant is; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn to_jiff(self) -> jiff::Timestamp {
        i64::try_from(self.0)
            .ok()
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .unwrap_or(jiff::Timestamp::MAX)
    }
}

/// RFC 3339, in UTC with `Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_jiff(), f)
    }
}

/// Reads RFC 3339 with any offset, or a bare date (its first instant in UTC).
impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.parse::<jiff::Timestamp>().or_else(|_| {
            text.parse::<jiff::civil::Date>()
                .and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC))
                .map(|zoned| zoned.timestamp())
        });
        let millis = parsed.map_err(|_| ParseTimestampError)?.as_millisecond();
        u64::try_from(millis).map(Self).map_err(|_| ParseTimestampError)
    }
}

/// The text is not an RFC 3339 time at or after 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time")]
#[non_exhaustive]
pub struct ParseTimestampError;

/// Where the server reads the time from.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SystemClock;

impl SystemClock {
    /// The operating system's clock.
    pub const fn new() -> Self {
        Self
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system clock")]
    fn now(&self) -> Timestamp {
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}

/// How much time has passed, whatever the clocks say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Begins to measure.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads monotonic time")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since then.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that follows another one, such as that of the database which several servers share: what it was last
/// set to, and the time that has passed since.
///
/// It starts with the operating system's time. Between two settings it runs evenly, also when somebody moves the
/// operating system's clock.
///
/// ```
/// use lumoauth_core::clock::{Clock, SyncedClock, Timestamp};
/// use std::time::Duration;
///
/// let clock = SyncedClock::new();
/// assert!(clock.drift() < Duration::from_secs(5));
/// clock.set(Timestamp::from_unix_seconds(100));
/// assert_eq!(clock.now().unix_seconds(), 100);
/// assert!(clock.drift() > Duration::from_secs(5));
/// ```
#[derive(Debug)]
pub struct SyncedClock {
    running: Stopwatch,
    /// What it showed when it began to run.
    start: AtomicU64,
}

impl SyncedClock {
    /// A clock that shows the operating system's time until it is set.
    pub fn new() -> Self {
        Self { running: Stopwatch::start(), start: AtomicU64::new(SystemClock::new().now().0) }
    }

    /// From now on it is `now`, and later what has passed since. It may move backwards.
    pub fn set(&self, now: Timestamp) {
        self.start.store(now.minus(self.running.elapsed()).0, Ordering::Relaxed);
    }

    /// How far it is from the operating system's clock, in either direction.
    pub fn drift(&self) -> Duration {
        let (own, system) = (self.now(), SystemClock::new().now());
        own.since(system).max(system.since(own))
    }
}

impl Default for SyncedClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SyncedClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.start.load(Ordering::Relaxed)).plus(self.running.elapsed())
    }
}

/// A clock that stands still until a test moves it.
///
/// ```
/// use lumoauth_core::clock::{Clock, ManualClock, Timestamp};
/// use std::time::Duration;
///
/// let clock = ManualClock::at(Timestamp::from_unix_seconds(100));
/// clock.advance(Duration::from_secs(5));
/// assert_eq!(clock.now().unix_seconds(), 105);
/// ```
#[cfg(any(test, feature = "test-util"))]
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

#[cfg(any(test, feature = "test-util"))]
impl ManualClock {
    /// A clock that shows `start`.
    pub const fn at(start: Timestamp) -> Self {
        Self(AtomicU64::new(start.0))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let now = self.now().plus(by);
        self.set(now);
    }

    /// Sets the clock, also backwards.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}
