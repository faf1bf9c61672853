//! Opening the file: what is accepted, and what is refused and why.

use std::{
    error::Error,
    fs::{File, OpenOptions},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use lumoauth_core::store::{MemoryStore, StoreError};
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTableMetadata, StorageError, TableError,
    WriteTransaction,
};

use crate::{
    EmbeddedStore,
    batch::{Batch, Destination},
    snapshot::Published,
    tables::{FORMAT, FORMAT_KEY, HASHED_LOGS, SCHEMA, SCHEMA_KEY, Table},
    writer::{Reopen, Writer, begin},
};

/// The memory redb may use for pages. Hot pages fit, and resident memory does not grow with the file.
const CACHE: usize = 16 * 1024 * 1024;

/// The file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another handle of this one, has it open.
    #[error("`{}` is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is something else. It was left as it is.
    #[error("`{}` is not a lumoauth store", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer version wrote it. It was left as it is.
    #[error("`{}` has schema {found}, and this version knows {SCHEMA} at most", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
    },
    /// Events wait in its outbox, so a log of its own would lack them. Open it with
    /// [`EmbeddedStore::open_with_outbox`] until they are moved.
    #[error("`{}` has {events} audit events in its outbox that must be moved first", path.display())]
    EventsWait {
        /// The file.
        path: PathBuf,
        /// How many.
        events: u64,
    },
    /// Its contents make no sense.
    #[error("`{}` is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What redb says, where it says anything.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// It cannot be read or written.
    #[error("cannot open `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

pub(crate) fn open(path: &Path, destination: Destination) -> Result<EmbeddedStore, OpenError> {
    // Absolute, since the file may have to be opened again after the host has changed its directory.
    let path = std::path::absolute(path).map_err(|error| unreadable(path, error))?;
    prepare(&path).map_err(|error| unreadable(&path, error))?;
    let reopen: Reopen = {
        let path = path.clone();
        Box::new(move || Builder::new().set_cache_size(CACHE).open(&path))
    };
    // redb trusts a file that was closed cleanly and may panic over one that was cut or changed since.
    let database = catch_unwind(AssertUnwindSafe(|| Builder::new().set_cache_size(CACHE).create(&path)))
        .unwrap_or(Err(DatabaseError::Storage(StorageError::Corrupted("redb panicked".to_owned()))))
        .map_err(|error| refused(&path, error))?;
    start(&path, database, reopen, destination)
}

/// A store on an open database.
pub(crate) fn start(
    path: &Path,
    database: Database,
    reopen: Reopen,
    destination: Destination,
) -> Result<EmbeddedStore, OpenError> {
    if is_empty(&database).map_err(|error| broken(path, error))? {
        initialize(&database).map_err(|error| broken(path, error))?;
    }
    let found = check(path, &database)?;
    if found < SCHEMA {
        upgrade(path, &database, found)?;
    }
    if destination == Destination::Log {
        check_outbox(path, &database)?;
    }
    let published = Arc::new(Published::new(&database).map_err(|error| broken(path, error))?);
    let writer = Writer::start(database, reopen, published.clone(), destination)
        .map_err(|error| unreadable(path, error))?;
    Ok(EmbeddedStore { path: path.to_owned(), destination, published, writer, limits: MemoryStore::new() })
}

/// Makes the file if there is none, readable by its owner only, since hashes and sealed keys are in it. And puts its
/// name on disk: a commit syncs the file and not the directory it is in.
fn prepare(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    if cfg!(unix) {
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    }
    Ok(())
}

fn is_empty(database: &Database) -> Result<bool, redb::Error> {
    let transaction = database.begin_read()?;
    Ok(transaction.list_tables()?.next().is_none() && transaction.list_multimap_tables()?.next().is_none())
}

/// Makes a file what it is, in one step.
fn initialize(database: &Database) -> Result<(), redb::Error> {
    let transaction = begin(database)?;
    make_tables(&transaction)?;
    transaction.commit()?;
    Ok(())
}

/// Brings a file of the layout `found` to this version's, in one step. A newer one has tables more; and from
/// [`HASHED_LOGS`] on the entries of the log are in a hash tree.
fn upgrade(path: &Path, database: &Database, found: u64) -> Result<(), OpenError> {
    let damaged =
        |error| OpenError::Damaged { path: path.to_owned(), source: Some(Box::<StoreError>::new(error)) };
    let transaction = begin(database).map_err(|error| broken(path, error))?;
    make_tables(&transaction).map_err(|error| broken(path, error))?;
    if found < HASHED_LOGS {
        let mut batch = Batch::new(&transaction, Destination::Log);
        batch.hash_logs().map_err(damaged)?;
        batch.finish().map_err(damaged)?;
    }
    transaction.commit().map_err(|error| broken(path, error))
}

/// Makes every table that is missing, so that no reader ever misses one, and says what the file is.
fn make_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    for table in Table::ALL {
        transaction.open_table(table.definition())?;
    }
    let mut meta = transaction.open_table(Table::Meta.definition())?;
    meta.insert(FORMAT_KEY, FORMAT)?;
    meta.insert(SCHEMA_KEY, SCHEMA.to_be_bytes().as_slice())?;
    Ok(())
}

/// The layout of the file, which is not newer than this version's.
fn check(path: &Path, database: &Database) -> Result<u64, OpenError> {
    let foreign = || OpenError::Foreign { path: path.to_owned() };
    let transaction = database.begin_read().map_err(|error| broken(path, error))?;
    let meta = match transaction.open_table(Table::Meta.definition()) {
        Ok(meta) => meta,
        Err(TableError::Storage(error)) => return Err(broken(path, error)),
        Err(_) => return Err(foreign()),
    };
    let read = |key: &[u8]| meta.get(key).map_err(|error| broken(path, error));
    if read(FORMAT_KEY)?.is_none_or(|format| format.value() != FORMAT) {
        return Err(foreign());
    }
    let schema = read(SCHEMA_KEY)?.and_then(|schema| schema.value().try_into().ok().map(u64::from_be_bytes));
    match schema {
        Some(found @ 1..=SCHEMA) => Ok(found),
        Some(found) if found > SCHEMA => Err(OpenError::Newer { path: path.to_owned(), found }),
        _ => Err(OpenError::Damaged { path: path.to_owned(), source: None }),
    }
}

fn check_outbox(path: &Path, database: &Database) -> Result<(), OpenError> {
    let waiting = || -> Result<u64, redb::Error> {
        Ok(database.begin_read()?.open_table(Table::Outbox.definition())?.len()?)
    };
    match waiting().map_err(|error| broken(path, error))? {
        0 => Ok(()),
        events => Err(OpenError::EventsWait { path: path.to_owned(), events }),
    }
}

fn refused(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::InUse { path: path.to_owned() }
        }
        // What redb says of a file that does not begin as its files do.
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            OpenError::Foreign { path: path.to_owned() }
        }
        error => broken(path, error),
    }
}

fn broken(path: &Path, error: impl Into<redb::Error>) -> OpenError {
    match error.into() {
        redb::Error::Io(error) => unreadable(path, error),
        error => OpenError::Damaged { path: path.to_owned(), source: Some(Box::new(error)) },
    }
}

fn unreadable(path: &Path, error: impl Into<Box<dyn Error + Send + Sync>>) -> OpenError {
    OpenError::Io { path: path.to_owned(), source: error.into() }
}
