//! What can go wrong in a backend.

use std::error::Error;

/// A backend could not answer.
///
/// It says what was tried and keeps the cause for operators; a client only ever learns that the service is
/// unavailable.
#[derive(Debug, thiserror::Error)]
#[error("store {kind:?} during {operation}")]
pub struct StoreError {
    kind: StoreErrorKind,
    operation: &'static str,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What sort of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The backend cannot be reached or is overloaded; a later call may succeed.
    Unavailable,
    /// What is stored cannot be read.
    Corrupt,
    /// Anything else.
    Other,
}

impl StoreError {
    /// The backend cannot be reached or is overloaded.
    pub fn unavailable(operation: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: StoreErrorKind::Unavailable, operation, source: Some(source.into()) }
    }

    /// What is stored cannot be read.
    pub fn corrupt(operation: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: StoreErrorKind::Corrupt, operation, source: Some(source.into()) }
    }

    /// Any other failure.
    pub fn other(operation: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: StoreErrorKind::Other, operation, source: Some(source.into()) }
    }

    /// What sort of failure it is.
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later.
    pub const fn is_retryable(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Unavailable)
    }
}
