//! What a failure of sqlx means: for the connection, for another try, and for the caller.

use std::error::Error;

use lumoauth_core::store::StoreError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// A call that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    error: sqlx::Error,
    sort: Sort,
    connected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// Rolled back because of another transaction.
    Conflict,
    /// Rolled back because it took too long, or waited too long for a lock. Whoever waited has waited enough.
    TooSlow,
    /// The connection is of no use any more; what became of the call is unknown.
    Lost,
    /// The server cannot do it now.
    Unavailable,
    /// What is stored cannot be read.
    Corrupt,
    /// Anything else.
    Other,
}

/// What may be done after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The same again: nothing happened.
    Conflict,
    /// The same again, on another connection, if it does no harm to do it twice.
    Lost,
    /// Nothing.
    GiveUp,
}

impl Failure {
    /// A call on a connection failed.
    pub(crate) fn of(error: sqlx::Error) -> Self {
        Self { sort: sort(&error), error, connected: true }
    }

    /// No connection could be made.
    pub(crate) fn while_connecting(error: sqlx::Error) -> Self {
        Self { sort: sort(&error), error, connected: false }
    }

    /// Every connection was in use for too long.
    pub(crate) fn exhausted() -> Self {
        Self { error: sqlx::Error::PoolTimedOut, sort: Sort::Unavailable, connected: false }
    }

    /// No connection could be made in time.
    pub(crate) fn connecting_timed_out() -> Self {
        Self { connected: false, ..Self::timed_out() }
    }

    /// There was no answer in time.
    pub(crate) fn timed_out() -> Self {
        let error = std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time");
        Self { error: sqlx::Error::Io(error), sort: Sort::Lost, connected: true }
    }

    /// The task that had the call ended without an answer.
    pub(crate) fn stopped() -> Self {
        let error = std::io::Error::other("the call was stopped");
        Self { error: sqlx::Error::Io(error), sort: Sort::Unavailable, connected: true }
    }

    /// Whether the next call can have the connection.
    pub(crate) fn connection_is_sound(&self) -> bool {
        self.sort != Sort::Lost
    }

    /// What may be done now.
    pub(crate) fn next(&self) -> Next {
        match self.sort {
            Sort::Conflict => Next::Conflict,
            Sort::Lost if self.connected => Next::Lost,
            _ => Next::GiveUp,
        }
    }

    /// What the caller of the role learns.
    pub(crate) fn into_store_error(self, operation: &'static str) -> StoreError {
        match self.sort {
            Sort::Conflict | Sort::TooSlow => StoreError::unavailable(operation, RolledBack(self.error)),
            Sort::Lost | Sort::Unavailable => StoreError::unavailable(operation, self.error),
            Sort::Corrupt => StoreError::corrupt(operation, self.error),
            Sort::Other => StoreError::other(operation, self.error),
        }
    }
}

/// Why a call is unavailable of which it is certain that it changed nothing.
#[derive(Debug, thiserror::Error)]
#[error("it was rolled back")]
struct RolledBack(#[source] sqlx::Error);

/// Whether it is certain that a call that is unavailable now changed nothing, because PostgreSQL began it and said so.
pub(crate) fn is_rolled_back(error: &StoreError) -> bool {
    error.source().is_some_and(|source| source.is::<RolledBack>())
}

/// An error that says so, for tests of others.
#[cfg(test)]
pub(crate) fn rolled_back(operation: &'static str) -> StoreError {
    StoreError::unavailable(operation, RolledBack(sqlx::Error::PoolTimedOut))
}

fn sort(error: &sqlx::Error) -> Sort {
    match error {
        sqlx::Error::Database(database) => match database.try_downcast_ref::<PgDatabaseError>() {
            Some(answer) => sort_of_answer(answer.severity(), answer.code()),
            None => Sort::Lost,
        },
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => Sort::Corrupt,
        // Nothing was sent.
        sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => Sort::Other,
        // The socket failed, or what came from it made no sense. Of the rest nobody knows how far the call got.
        _ => Sort::Lost,
    }
}

/// PostgreSQL's SQLSTATE codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn sort_of_answer(severity: PgSeverity, code: &str) -> Sort {
    match code {
        "40001" | "40P01" => Sort::Conflict,
        // "Statement completion unknown": it may have happened.
        "40003" => Sort::Lost,
        // A standby, or a primary that became one: another connection may reach the new primary.
        "25006" => Sort::Lost,
        _ if matches!(severity, PgSeverity::Fatal | PgSeverity::Panic) => Sort::Lost,
        // statement_timeout and lock_timeout.
        "57014" | "55P03" => Sort::TooSlow,
        // Shutting down; resources, and system trouble such as a failed write.
        _ => match code.get(..2) {
            Some("08" | "57") => Sort::Lost,
            Some("53" | "58") => Sort::Unavailable,
            Some("XX") => Sort::Corrupt,
            _ => Sort::Other,
        },
    }
}

/// The name of the unique constraint that refused a row.
pub(crate) fn refused_by(error: &sqlx::Error) -> Option<&str> {
    let database = error.as_database_error()?;
    if database.is_unique_violation() { database.constraint() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_rolled_back_is_a_conflict() {
        for code in ["40001", "40P01"] {
            assert_eq!(sort_of_answer(PgSeverity::Error, code), Sort::Conflict);
        }
        // 40003 is "statement completion unknown".
        assert_eq!(sort_of_answer(PgSeverity::Error, "40003"), Sort::Lost);
    }

    #[test]
    fn what_was_rolled_back_says_so() {
        let error = |sort| {
            let failure = Failure { error: sqlx::Error::PoolTimedOut, sort, connected: true };
            failure.into_store_error("test")
        };
        for code in ["40001", "40P01", "55P03", "57014"] {
            assert!(is_rolled_back(&error(sort_of_answer(PgSeverity::Error, code))), "{code}");
        }
        for code in ["40003", "57P01", "53100"] {
            assert!(!is_rolled_back(&error(sort_of_answer(PgSeverity::Error, code))), "{code}");
        }
        assert!(!is_rolled_back(&StoreError::unavailable("test", "no answer")));
    }

    #[test]
    fn a_session_that_ended_is_lost() {
        for code in ["57P01", "57P02", "57P03", "25P03", "53300"] {
            assert_eq!(sort_of_answer(PgSeverity::Fatal, code), Sort::Lost, "{code}");
        }
        assert_eq!(sort_of_answer(PgSeverity::Error, "25006"), Sort::Lost);
    }

    #[test]
    fn a_server_in_need_is_unavailable() {
        for code in ["53100", "53200", "58030"] {
            assert_eq!(sort_of_answer(PgSeverity::Error, code), Sort::Unavailable, "{code}");
        }
        assert_eq!(sort_of_answer(PgSeverity::Error, "42601"), Sort::Other);
        assert_eq!(sort_of_answer(PgSeverity::Error, "XX001"), Sort::Corrupt);
    }
}
