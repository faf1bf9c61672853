//! What the stores owe their callers: nothing acknowledged is lost, nothing is acknowledged too early, nothing happens
//! twice, and while it cannot be kept the promise is not made. Shown by breaking what the server stands on.
//!
//! `run --quick` is part of `tests/run`; `run --full` breaks everything many more times.

mod answers;
mod asks;
mod asks_kill;
mod audit_down;
mod clock;
mod counts;
mod cuts_server;
mod cuts_store;
mod deployment;
mod disk_full;
mod expiry;
mod hang_up;
mod kill;
mod ledger;
mod overload;
mod postgres_kill;
mod redis_kill;
mod replica_kill;
mod reservations;
mod reserver;
mod retention;
mod single_use;
mod skew;
mod small_disk;
mod strace_sync;
mod trace;
mod writers;
