//! Core's numbers and texts as PostgreSQL has them: integers are signed there, and no text holds a NUL.

use std::borrow::Cow;

use lumoauth_core::clock::Timestamp;

/// The instant that [`millis`](crate::records::millis) wrote.
pub(crate) fn from_millis(millis: i64) -> Result<Timestamp, sqlx::Error> {
    whole(millis).map(Timestamp::from_unix_millis)
}

/// A count, a number or a time as it is stored. Nothing negative ever is; taken for zero, it would grant something.
pub(crate) fn whole(stored: i64) -> Result<u64, sqlx::Error> {
    u64::try_from(stored).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// `number` as columns hold it: what is larger than the largest is the largest.
pub(crate) fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// `text` for columns that are only searched: with the replacement character for NUL. What is looked for must go
/// through here as well.
pub(crate) fn searchable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}
