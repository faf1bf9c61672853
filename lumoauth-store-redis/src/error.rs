//! What goes wrong in Redis, without what was sent to it.

use std::fmt;

use lumoauth_core::store::StoreError;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why an operation failed.
///
/// It keeps the kind of the client's error and never its text as it is: a server that does not know a command repeats
/// the arguments, and those of the first commands are the credentials.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No answer in time. Whether the operation was carried out is unknown.
    TimedOut,
    /// What the server or the connection said.
    Redis { kind: ErrorKind, code: Option<String>, detail: Option<String> },
    /// The answer is of no form that the script gives.
    Unreadable,
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        if error.is_timeout() {
            return Self::TimedOut;
        }
        let echoes = |detail: &&str| detail.contains("unknown command") || detail.contains("beginning with");
        Self::Redis {
            kind: error.kind(),
            code: error.code().map(str::to_owned),
            detail: error.detail().filter(|detail| !echoes(detail)).map(str::to_owned),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Unreadable => f.write_str("an unexpected answer"),
            Self::Redis { kind, code, detail } => {
                match code {
                    Some(code) => f.write_str(code)?,
                    None => write!(f, "{kind:?}")?,
                }
                detail.as_ref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
            }
        }
    }
}

impl std::error::Error for Failure {}

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
}
