//! The authorization endpoint and what comes of it, over the service and in memory.

#![expect(clippy::unwrap_used, reason = "tests")]

mod ask;
mod bench;
mod codes;
mod consents;
mod pages;
mod pushed;
mod refresh;
