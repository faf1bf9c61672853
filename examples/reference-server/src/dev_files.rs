//! Where `dev` keeps what it generates: the master key and the credentials.
//!
//! 1. Nowhere for `memory`, and beside the file for an embedded store.
//! 2. For PostgreSQL in the state directory of the user: `$XDG_STATE_HOME/lumoauth`, or `~/.local/state/lumoauth`, or
//!    the current directory if there is neither. The names hold a hash of the place of the database, so that each
//!    database has its own, and a changed password changes nothing.
//! 3. Servers that start at the same time on one database share these files, so one after the other makes what is
//!    missing, under a lock. An embedded store lets in only one process anyway.

use std::{
    env,
    ffi::OsString,
    fmt::Write as _,
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use lumoauth_core::secret::SecretHash;
use tokio::time::{Instant, sleep};

use crate::{
    failure::Failure,
    files,
    store::{ServiceUrl, StoreUrl},
};

/// The files of one store.
#[derive(Debug)]
pub(crate) struct DevFiles {
    /// Their path up to the suffix.
    base: PathBuf,
    is_shared: bool,
}

/// No other `dev` server makes anything for this database until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct DevLock(
    #[expect(dead_code, reason = "the operating system holds the lock until it is closed")] Option<File>,
);

impl DevFiles {
    /// The files of `store`, and the folder that they are in. `None` if nothing is to be kept.
    ///
    /// # Errors
    /// [`Failure`] if the folder cannot be made.
    pub(crate) fn of(store: &StoreUrl) -> Result<Option<Self>, Failure> {
        match store {
            StoreUrl::Memory => Ok(None),
            StoreUrl::Embedded(path) => Ok(Some(Self { base: path.clone(), is_shared: false })),
            StoreUrl::Postgres { postgres, .. } => {
                let folder = state_folder(|name| env::var_os(name));
                make_private(&folder).map_err(|error| {
                    Failure::because(format!("the folder `{}` cannot be made", folder.display()), error)
                })?;
                Ok(Some(Self { base: folder.join(name_of(postgres)), is_shared: true }))
            }
        }
    }

    /// The master key.
    pub(crate) fn master_key(&self) -> PathBuf {
        files::beside(&self.base, ".master-key")
    }

    /// The credentials of the records.
    pub(crate) fn credentials(&self) -> PathBuf {
        files::beside(&self.base, ".credentials")
    }

    /// Waits until no other server makes anything for the store.
    ///
    /// # Errors
    /// [`Failure`] if the lock cannot be had within a minute.
    pub(crate) async fn lock(&self) -> Result<DevLock, Failure> {
        if !self.is_shared {
            return Ok(DevLock(None));
        }
        let path = files::beside(&self.base, ".lock");
        let failed =
            |error| Failure::because(format!("the lock file `{}` cannot be used", path.display()), error);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(DevLock(Some(file))),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOOK_AGAIN).await,
                Err(TryLockError::WouldBlock) => {
                    let what = format!("another server has had the lock `{}` for a minute", path.display());
                    return Err(Failure::new(what));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }
}

/// The folder for state that is worth keeping and belongs to one machine (XDG Base Directory Specification).
fn state_folder(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    // "All paths [..] must be absolute. If an implementation encounters a relative path [..] it should consider the
    // path invalid and ignore it."
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    match (absolute("XDG_STATE_HOME"), absolute("HOME")) {
        (Some(state), _) => state.join("lumoauth"),
        (None, Some(home)) => home.join(".local/state/lumoauth"),
        (None, None) => PathBuf::from("."),
    }
}

/// The name of the files of a database.
fn name_of(postgres: &ServiceUrl) -> String {
    let hash = SecretHash::of(postgres.place());
    let mut name = String::from("postgres-");
    for byte in &hash.as_bytes()[..8] {
        write!(name, "{byte:02x}").expect("writing to a string cannot fail");
    }
    name
}

fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Longer than any server takes to make all records, on a slow machine too.
const PATIENCE: Duration = Duration::from_secs(60);

const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Scratch;

    fn name(url: &str) -> String {
        match url.parse().unwrap() {
            StoreUrl::Postgres { postgres, .. } => name_of(&postgres),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_database_has_names_of_its_own_whoever_connects() {
        let one = name("postgres://u:p@db.example/lumoauth");
        assert_eq!(one.len(), "postgres-".len() + 16);
        for same in [
            "postgresql://v:q@db.example:5432/lumoauth?sslmode=require",
            "postgres://DB.example/lumoauth+redis://r",
        ] {
            assert_eq!(name(same), one, "{same}");
        }
        for other in [
            "postgres://u:p@db.example/other",
            "postgres://u:p@db.example:1/lumoauth",
            "postgres://u:p@db/lumoauth",
        ] {
            assert_ne!(name(other), one, "{other}");
        }
    }

    #[test]
    fn the_state_folder_is_the_user_s() {
        let folder = |variables: &[(&str, &str)]| {
            state_folder(|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            })
        };
        assert_eq!(folder(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]), Path::new("/s/lumoauth"));
        assert_eq!(folder(&[("HOME", "/h")]), Path::new("/h/.local/state/lumoauth"));
        assert_eq!(folder(&[("XDG_STATE_HOME", "s"), ("HOME", "/h")]), Path::new("/h/.local/state/lumoauth"));
        assert_eq!(folder(&[("HOME", "")]), Path::new("."));
    }

    #[tokio::test]
    async fn one_server_at_a_time_has_the_lock() {
        let scratch = Scratch::new("dev-files");
        let folder = scratch.0.join("a/b");
        make_private(&folder).unwrap();
        assert!(!files::is_open_to_others(&folder).unwrap());
        let files = DevFiles { base: folder.join("postgres-1"), is_shared: true };
        let first = files.lock().await.unwrap();
        let mut second = std::pin::pin!(files.lock());
        let waited = tokio::time::timeout(Duration::from_millis(200), second.as_mut()).await;
        assert!(waited.is_err(), "both have it");
        drop(first);
        let _second = second.await.unwrap();
    }
}
