//! The key that seals the signing keys in the store. It comes from outside the store: a variable or a file.

use std::{env, fs, io, path::Path};

use lumoauth_core::{
    clock::Timestamp,
    id::OrgId,
    keys::{KeyError, KeyProvider, KeyPurpose, MasterKey},
};
use zeroize::Zeroizing;

use crate::{failure::Failure, files};

/// The variable that gives the master key.
pub(crate) const VARIABLE: &str = "LUMOAUTH_MASTER_KEY";

/// The key in [`VARIABLE`], if it is set and not empty.
///
/// # Errors
/// [`Failure`] if it is set to something else than a key.
pub(crate) fn from_env() -> Result<Option<MasterKey>, Failure> {
    match env::var(VARIABLE).map(Zeroizing::new) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => parse(&text, VARIABLE).map(Some),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(Failure::new(format!("{VARIABLE} is not text"))),
    }
}

/// The key in a file.
///
/// # Errors
/// [`Failure`] if the file cannot be read or holds something else.
pub(crate) fn from_file(path: &Path) -> Result<MasterKey, Failure> {
    read(path)?.ok_or_else(|| Failure::new(format!("there is no master key file `{}`", path.display())))
}

/// The key in a file, which is made if it is not there and the store is `New`.
///
/// # Errors
/// [`Failure`] if the file is lost though the store was sealed with it, or cannot be read or written.
pub(crate) fn from_file_or_new(path: &Path, store: StoreAge) -> Result<MasterKey, Failure> {
    match (read(path)?, store) {
        (Some(key), _) => Ok(key),
        (None, StoreAge::InUse) => Err(Failure::new(format!(
            "the store is in use but its master key file `{}` is gone, and its signing keys cannot be opened \
             without it; put the file back, give the key in {VARIABLE}, or begin anew with another store",
            path.display()
        ))),
        (None, StoreAge::New) => {
            let key = MasterKey::generate();
            let text = Zeroizing::new(format!("{}\n", key.to_base64().as_str()));
            files::write_private(path, &text).map_err(|error| {
                Failure::because(format!("the master key file `{}` cannot be written", path.display()), error)
            })?;
            Ok(key)
        }
    }
}

/// Opens the signing key of `org`. A server with the wrong master key would start well and then fail on every
/// request; this tells at once, and spares the first request the work.
///
/// # Errors
/// [`Failure`] if the key cannot be had.
pub(crate) async fn check(keys: &dyn KeyProvider, org: &OrgId, now: Timestamp) -> Result<(), Failure> {
    match keys.signer(org, KeyPurpose::AccessToken, now).await {
        Ok(_) => Ok(()),
        Err(error @ KeyError::Sealed(_)) => {
            let what = format!("the signing keys of `{org}` were sealed with another master key");
            Err(Failure::because(what, error))
        }
        Err(error) => Err(Failure::because(format!("the signing keys of `{org}` cannot be had"), error)),
    }
}

/// Whether a store can hold anything sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreAge {
    /// It has no organization yet, so no key either.
    New,
    /// It may.
    InUse,
}

fn read(path: &Path) -> Result<Option<MasterKey>, Failure> {
    let text = match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let what = format!("the master key file `{}` cannot be read", path.display());
            return Err(Failure::because(what, error));
        }
    };
    if files::is_open_to_others(path).unwrap_or(true) {
        tracing::warn!(file = %path.display(), "others than the owner may read or change the master key file");
    }
    parse(&text, &format!("the master key file `{}`", path.display())).map(Some)
}

fn parse(text: &str, place: &str) -> Result<MasterKey, Failure> {
    MasterKey::from_base64(text.trim())
        .map_err(|error| Failure::because(format!("{place} holds no master key"), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Scratch;

    #[test]
    fn the_key_is_made_once_and_read_afterwards() {
        let scratch = Scratch::new("master-key");
        let path = scratch.0.join("data.master-key");
        let made = from_file_or_new(&path, StoreAge::New).unwrap();
        for age in [StoreAge::New, StoreAge::InUse] {
            let read = from_file_or_new(&path, age).unwrap();
            assert_eq!(*read.to_base64(), *made.to_base64());
        }
        assert!(!files::is_open_to_others(&path).unwrap());
    }

    #[test]
    fn a_lost_key_is_not_replaced() {
        let scratch = Scratch::new("master-key");
        let path = scratch.0.join("data.master-key");
        let failure = from_file_or_new(&path, StoreAge::InUse).unwrap_err();
        assert!(failure.to_string().contains(VARIABLE));
        assert!(!path.exists());
    }

    #[test]
    fn a_file_with_something_else_is_refused_without_repeating_it() {
        let scratch = Scratch::new("master-key");
        let path = scratch.0.join("data.master-key");
        fs::write(&path, "canary").unwrap();
        let text = from_file_or_new(&path, StoreAge::New).unwrap_err().with_causes();
        assert!(!text.contains("canary"), "{text}");
    }
}
