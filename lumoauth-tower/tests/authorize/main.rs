//! The authorization endpoint and what comes of it, over the service and in memory.

#![expect(clippy::unwrap_used, reason = "tests")]

mod approvals;
mod ask;
mod authorizer;
mod bench;
mod budgets;
mod codes;
mod consents;
mod jit;
mod limits;
mod pages;
mod parking;
mod pushed;
mod refresh;
mod standing;
