//! What the durable store owes its callers: nothing acknowledged is lost, and nothing is acknowledged too early.

mod kill;
mod ledger;
mod strace_sync;
mod trace;
