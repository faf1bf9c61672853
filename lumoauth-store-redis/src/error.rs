//! What goes wrong in Redis, without what was sent to it.

use std::{error::Error, fmt, io, sync::Arc};

use lumoauth_core::store::StoreError;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why an operation failed.
///
/// It keeps what is known to be harmless of the client's error and never its text as it is: a server that does not know
/// a command repeats the arguments, and those of the first commands are the credentials.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// No answer in time. Whether the operation was carried out is unknown.
    TimedOut,
    /// What the server or the connection said.
    Redis { kind: ErrorKind, text: String },
    /// The answer is of no form that the script gives.
    Unreadable,
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        if error.is_timeout() {
            return Self::TimedOut;
        }
        let text = match (error.source().and_then(|source| io_error(source)), error.code()) {
            // What the system or TLS says of a connection.
            (Some(cause), _) => cause.to_string(),
            (None, Some(code)) => {
                let echoes =
                    |detail: &&str| detail.contains("unknown command") || detail.contains("beginning with");
                let detail = error.detail().filter(|detail| !echoes(detail));
                detail.map_or_else(|| code.to_owned(), |detail| format!("{code}: {detail}"))
            }
            (None, None) => error.category().to_owned(),
        };
        Self::Redis { kind: error.kind(), text }
    }
}

/// The first I/O error among the causes; the client may wrap it.
fn io_error<'a>(mut error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    loop {
        // The client's source is an `Arc` of the cause.
        if let Some(shared) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
            error = &**shared;
        }
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        error = error.source()?;
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "no answer in time",
            Self::Unreadable => "an unexpected answer",
            Self::Redis { text, .. } => text,
        })
    }
}

impl Error for Failure {}

impl Failure {
    /// As the failure of `operation`.
    pub(crate) fn during(self, operation: &'static str) -> StoreError {
        match &self {
            Self::Unreadable => StoreError::corrupt(operation, self),
            Self::Redis { kind: ErrorKind::UnexpectedReturnType, .. } => StoreError::corrupt(operation, self),
            Self::Redis {
                kind:
                    ErrorKind::Server(
                        ServerErrorKind::ResponseError
                        | ServerErrorKind::NoPerm
                        | ServerErrorKind::CrossSlot
                        | ServerErrorKind::ExecAbort,
                    )
                    | ErrorKind::AuthenticationFailed
                    | ErrorKind::InvalidClientConfig
                    | ErrorKind::Client,
                ..
            } => StoreError::other(operation, self),
            // Also the codes the client does not know, such as OOM, MISCONF and NOREPLICAS: the server refuses to write.
            // And half an answer, which the client cannot parse: the connection broke.
            Self::TimedOut | Self::Redis { .. } => StoreError::unavailable(operation, self),
        }
    }
}

#[cfg(test)]
mod tests {
    use lumoauth_core::store::StoreErrorKind;

    use super::*;

    #[test]
    fn a_server_that_repeats_the_credentials_is_not_quoted() {
        let error = redis::make_extension_error(
            "ERR".into(),
            Some("unknown command `HELLO`, with args beginning with: `3` `AUTH` `u` `secret`".into()),
        );
        let failure = Failure::from(error);
        assert!(!format!("{failure} {failure:?}").contains("secret"));
    }

    #[test]
    fn a_full_server_is_unavailable() {
        let failure = Failure::from(redis::make_extension_error("OOM".into(), Some("no memory".into())));
        assert_eq!(failure.to_string(), "OOM: no memory");
        assert_eq!(failure.during("test").kind(), StoreErrorKind::Unavailable);
        assert_eq!(Failure::TimedOut.during("test").kind(), StoreErrorKind::Unavailable);
        assert_eq!(Failure::Unreadable.during("test").kind(), StoreErrorKind::Corrupt);
    }

    #[test]
    fn a_broken_connection_is_named() {
        let refused = RedisError::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(Failure::from(refused).to_string(), "connection refused");
    }
}
