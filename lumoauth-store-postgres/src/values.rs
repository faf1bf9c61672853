//! Core's numbers and texts as PostgreSQL has them: integers are signed there, and no text holds a NUL.

use std::borrow::Cow;

use lumoauth_core::{clock::Timestamp, store::StoreError};

/// An instant as a column keeps it. What PostgreSQL cannot count is 292 million years ahead, so the last instant that it
/// can stands for it.
pub(crate) fn millis(at: Timestamp) -> i64 {
    column(at.unix_millis())
}

/// The instant that [`millis`] wrote.
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

/// An integer as a column keeps it.
pub(crate) fn stored(operation: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|error| StoreError::other(operation, error))
}

/// An integer that is looked for. No column holds a negative one, so what cannot be stored is not found.
pub(crate) fn sought(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(-1)
}

/// Text as a column keeps it. PostgreSQL has no place for U+0000, and what comes from outside may contain it; so U+FFFF,
/// which is no character, begins an escape.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    if text.contains(['\0', ESCAPE]) {
        Cow::Owned(text.replace(ESCAPE, "\u{ffff}1").replace('\0', "\u{ffff}0"))
    } else {
        Cow::Borrowed(text)
    }
}

const ESCAPE: char = '\u{ffff}';

/// What a search without regard to ASCII case looks for. The columns are lowered by PostgreSQL, which under
/// `COLLATE "C"` does it for ASCII letters and no others.
pub(crate) fn needle(search: &str) -> String {
    text(&search.to_ascii_lowercase()).into_owned()
}

/// `text` for columns that are only searched, beside a document that is searched as well: with the replacement character
/// for NUL, as such documents are read. Different texts may become one, so it is not for keys. What is looked for must
/// go through here as well.
pub(crate) fn searchable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_a_nul_stays_as_it_is() {
        assert_eq!(text("Ünïcode"), "Ünïcode");
        assert!(matches!(text("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn different_texts_stay_different() {
        let texts = ["a", "a\0", "a\0\0", "a\u{ffff}", "a\u{ffff}0", "a\u{ffff}1", "a0", "\0a"];
        for (i, one) in texts.iter().enumerate() {
            assert!(!text(one).contains('\0'));
            for other in &texts[i + 1..] {
                assert_ne!(text(one), text(other));
            }
        }
    }

    #[test]
    fn what_cannot_be_stored_is_not_found() {
        assert_eq!(sought(u64::MAX), -1);
        assert_eq!(sought(7), 7);
        assert!(stored("test", u64::MAX).is_err());
    }
}
