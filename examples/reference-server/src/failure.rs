//! Why the server does not start, or stopped early.

use std::error::Error;

/// One sentence for the operator, with its cause. It never holds a secret.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    text: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure that says it all.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), source: None }
    }

    /// A failure with what lies under it.
    pub(crate) fn because(text: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { text: text.into(), source: Some(source.into()) }
    }

    /// The sentence and every cause under it, in one line.
    pub(crate) fn with_causes(&self) -> String {
        let mut text = self.text.clone();
        let mut next = self.source();
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_named_once() {
        let inner = Failure::because("b", std::io::Error::other("c"));
        assert_eq!(Failure::because("a", inner).with_causes(), "a: b: c");
    }
}
