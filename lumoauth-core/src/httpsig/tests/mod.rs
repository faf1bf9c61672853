//! The signature core against the RFC's vectors, the contract's, and what must be refused.

/// Checks that an outcome is a refusal of this form.
macro_rules! refused {
    ($outcome:expr, $pattern:pat $(if $guard:expr)?) => {{
        let outcome = $outcome;
        assert!(matches!(outcome, Err($pattern) $(if $guard)?), "{outcome:?} is not {}", stringify!($pattern));
    }};
}

mod content;
mod coverage;
mod flips;
mod parameters;
mod replay;
mod support;
mod syntax;
mod target;
mod vectors;
