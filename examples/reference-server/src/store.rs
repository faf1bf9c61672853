//! Which store to run on.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use embedded_store::EmbeddedStore;
use lumoauth_core::store::{MemoryStore, Stores};

use crate::{failure::Failure, files::folder_of};

/// A store, as an operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    /// `memory`: everything is gone when the process ends.
    Memory,
    /// `embedded:PATH`: one durable file.
    Embedded(PathBuf),
}

/// The text names no store. The message does not repeat it: a store URL may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseStoreError {
    /// A store that a later version brings.
    #[error("the PostgreSQL store is not built in yet; use `memory` or `embedded:PATH`")]
    NotBuiltIn,
    /// No path to keep the file at.
    #[error("`embedded:` needs a path, as in `embedded:./lumoauth-data`")]
    NoPath,
    /// Anything else.
    #[error("must be `memory` or `embedded:PATH`")]
    Unknown,
}

impl FromStr for StoreUrl {
    type Err = ParseStoreError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "memory" {
            return Ok(Self::Memory);
        }
        match text.split_once(':') {
            Some(("embedded", "")) => Err(ParseStoreError::NoPath),
            Some(("embedded", path)) => Ok(Self::Embedded(PathBuf::from(path))),
            Some(("postgres" | "postgresql", _)) => Err(ParseStoreError::NotBuiltIn),
            _ => Err(ParseStoreError::Unknown),
        }
    }
}

impl StoreUrl {
    /// The store of a first try.
    pub(crate) const DEFAULT: &str = "embedded:./lumoauth-data";

    /// The file of the store, if it has one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Memory => None,
            Self::Embedded(path) => Some(path),
        }
    }

    /// Opens it, and makes the file and its folder if they are not there.
    ///
    /// # Errors
    /// [`Failure`] if it cannot be opened, for example because another process has it.
    pub(crate) fn open(&self) -> Result<Stores, Failure> {
        match self {
            Self::Memory => Ok(Stores::all(Arc::new(MemoryStore::new()))),
            Self::Embedded(path) => {
                let failed = || format!("the store `{}` cannot be opened", path.display());
                fs::create_dir_all(folder_of(path)).map_err(|error| Failure::because(failed(), error))?;
                let store = EmbeddedStore::open(path).map_err(|error| Failure::because(failed(), error))?;
                Ok(Stores::all(Arc::new(store)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stores_that_are_built_in_are_read() {
        assert_eq!("memory".parse(), Ok(StoreUrl::Memory));
        assert_eq!("embedded:./a b:c".parse(), Ok(StoreUrl::Embedded("./a b:c".into())));
        assert!(matches!(StoreUrl::DEFAULT.parse(), Ok(StoreUrl::Embedded(_))));
    }

    #[test]
    fn other_stores_are_refused_without_repeating_the_password() {
        for url in ["postgres://u:canary@h/db", "postgresql://u:canary@h/db", "postgres://h/d+redis://h"] {
            let error = url.parse::<StoreUrl>().unwrap_err();
            assert_eq!(error, ParseStoreError::NotBuiltIn);
            assert!(!error.to_string().contains("canary"));
        }
        assert_eq!("embedded:".parse::<StoreUrl>(), Err(ParseStoreError::NoPath));
        for bad in ["", "Memory", "memory:", "redis://h", "/var/lib/data"] {
            assert_eq!(bad.parse::<StoreUrl>(), Err(ParseStoreError::Unknown), "{bad}");
        }
    }
}
