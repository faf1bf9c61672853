//! The layers before routes of a host: in the process of the authorization server, and on other hosts.

#![expect(clippy::unwrap_used, reason = "tests")]

mod budget;
mod endings;
mod guard;
mod setting;
mod wire;

#[cfg(feature = "fetch")]
mod charges;
#[cfg(feature = "fetch")]
mod details;
#[cfg(feature = "fetch")]
mod line;
#[cfg(feature = "fetch")]
mod remote;
#[cfg(feature = "fetch")]
mod waiting;
