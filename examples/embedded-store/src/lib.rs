//! A durable backend for lumoauth in one file, with no service to install.
//!
//! It implements every role of [`lumoauth_core::store`] on [redb], using nothing but the public API of the core, so
//! it is also the example for whoever writes a backend. Begin with `tables.rs` (what is in the file), then
//! `writer.rs` (how it is written) and `snapshot.rs` (how it is read); `records.rs` holds what the roles share, and
//! each other file is one role.
//!
//! 1. An acknowledged write is on disk. One thread writes; it commits whatever has queued in one transaction with
//!    one sync point and answers after it.
//! 2. One process at a time has the file open.
//! 3. The audit log lives in the same file and is numbered in the transaction of the change, so it has no gaps and
//!    no sequencer ([`AuditStore::sequence`](lumoauth_core::store::AuditStore::sequence) has nothing to do).
//!    [`EmbeddedStore::open_with_outbox`] is for hosts that keep the log elsewhere.
//! 4. Rate limits are in memory only: their loss is safe, and a disk write per request is not.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use embedded_store::EmbeddedStore;
//! use lumoauth_core::store::Stores;
//!
//! let stores = Stores::all(Arc::new(EmbeddedStore::open("lumoauth.redb")?));
//! # Ok::<(), embedded_store::OpenError>(())
//! ```
//!
//! [redb]: https://docs.rs/redb

mod aauth_resources;
mod agents;
mod api_keys;
mod approvals;
mod audit;
mod batch;
mod budgets;
mod cache;
mod clients;
mod consents;
mod grants;
mod jit;
mod keys;
mod mcp_servers;
mod open;
mod organizations;
mod policies;
mod rate_limits;
mod records;
mod replay;
mod snapshot;
mod tables;
mod upkeep;
mod users;
mod writer;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use lumoauth_core::store::MemoryStore;

use batch::Destination;
use snapshot::{Published, Snapshot};
use writer::Writer;

pub use open::OpenError;

/// Every role of the core in one file.
///
/// Dropping it carries out what has queued and closes the file. That waits for the disk, so drop the last handle
/// where waiting does no harm, such as after the server has drained.
pub struct EmbeddedStore {
    path: PathBuf,
    destination: Destination,
    published: Arc<Published>,
    writer: Writer,
    limits: MemoryStore,
}

impl EmbeddedStore {
    /// Opens the file at `path`, and makes it if there is none. Audit events go into its own log.
    ///
    /// # Errors
    /// [`OpenError`] if the file is in use, is no store or a newer one, is damaged, cannot be read or written, or
    /// was used as an outbox and events wait in it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        open::open(path.as_ref(), Destination::Log)
    }

    /// Opens the file at `path`, and makes it if there is none. Audit events wait in its
    /// [`Outbox`](lumoauth_core::store::Outbox) until maintenance has moved them to the audit log elsewhere.
    ///
    /// # Errors
    /// [`OpenError`] if the file is in use, is no store or a newer one, is damaged, or cannot be read or written.
    pub fn open_with_outbox(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        open::open(path.as_ref(), Destination::Outbox)
    }

    fn latest(&self) -> Arc<Snapshot> {
        self.published.latest()
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore")
            .field("path", &self.path)
            .field("destination", &self.destination)
            .finish_non_exhaustive()
    }
}
