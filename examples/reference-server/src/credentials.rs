//! The credentials of the `dev` records, in a file that outlives the process.
//!
//! The store keeps only hashes, so the clear text has to be somewhere for a restart to print it again. It is
//! written **before** the records are: if the process dies in between, the next start inserts the missing
//! records with the credentials of the file, and nothing in the store is unreachable.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
};

use lumoauth_core::secret::Secret;
use zeroize::Zeroizing;

use crate::{failure::Failure, files};

/// Credentials by the name of their variable, such as `AGENT_CLIENT_SECRET`.
#[derive(Debug)]
pub(crate) struct Credentials {
    file: Option<PathBuf>,
    values: BTreeMap<String, Secret>,
    unsaved: BTreeSet<String>,
}

impl Credentials {
    /// What the file holds; nothing if there is no file yet, or none is wanted.
    ///
    /// # Errors
    /// [`Failure`] if the file cannot be read or understood.
    pub(crate) fn open(file: Option<PathBuf>) -> Result<Self, Failure> {
        let values = match &file {
            None => BTreeMap::new(),
            Some(path) => match fs::read_to_string(path).map(Zeroizing::new) {
                Ok(text) => {
                    if files::is_open_to_others(path).unwrap_or(true) {
                        tracing::warn!(file = %path.display(), "others than the owner may read or change the credentials");
                    }
                    parse(&text).map_err(|line| {
                        let path = path.display();
                        Failure::new(format!("line {line} of the credentials file `{path}` is not KEY=VALUE"))
                    })?
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
                Err(error) => {
                    let what = format!("the credentials file `{}` cannot be read", path.display());
                    return Err(Failure::because(what, error));
                }
            },
        };
        Ok(Self { file, values, unsaved: BTreeSet::new() })
    }

    /// The credential with this name.
    pub(crate) fn find(&self, key: &str) -> Option<&Secret> {
        self.values.get(key)
    }

    /// The credential with this name, which somebody must have set before.
    ///
    /// # Errors
    /// [`Failure`] if nobody has.
    pub(crate) fn require(&self, key: &str) -> Result<&Secret, Failure> {
        self.find(key).ok_or_else(|| Failure::new(format!("there is no credential {key}")))
    }

    /// Sets a credential; the file learns of it by [`Credentials::save`].
    pub(crate) fn set(&mut self, key: &str, value: Secret) {
        let same = self.find(key).is_some_and(|old| old.hash().matches(&value));
        if !same {
            self.values.insert(key.to_owned(), value);
            self.unsaved.insert(key.to_owned());
        }
    }

    /// Whether the credential is newer than the file.
    pub(crate) fn is_unsaved(&self, key: &str) -> bool {
        self.unsaved.contains(key)
    }

    /// Writes the file if there is one and anything changed.
    ///
    /// # Errors
    /// [`Failure`] if it cannot be written.
    pub(crate) fn save(&mut self) -> Result<(), Failure> {
        if let Some(path) = &self.file
            && !self.unsaved.is_empty()
        {
            let mut text = Zeroizing::new(String::from(HEADER));
            for (key, value) in &self.values {
                for part in [key, "=", value.expose(), "\n"] {
                    text.push_str(part);
                }
            }
            files::write_private(path, &text).map_err(|error| {
                Failure::because(
                    format!("the credentials file `{}` cannot be written", path.display()),
                    error,
                )
            })?;
        }
        self.unsaved.clear();
        Ok(())
    }

    /// What to tell an operator whose store has records for which nobody knows these credentials any more.
    pub(crate) fn lost(&self, keys: &BTreeSet<&str>) -> Failure {
        let keys = keys.iter().copied().collect::<Vec<_>>().join(", ");
        let file = match &self.file {
            Some(path) => format!("put the credentials file `{}` back", path.display()),
            None => "name the credentials file with --credentials FILE".to_owned(),
        };
        Failure::new(format!(
            "the store has the dev records, but these of their credentials are lost: {keys}; {file}, give each \
             with --credential KEY=VALUE, or begin anew with another store"
        ))
    }
}

const HEADER: &str =
    "# Credentials of the records that `lumoauth-server dev` made. Keep it as long as the store.\n";

/// The credentials in `text`, or the number of the line that is none.
fn parse(text: &str) -> Result<BTreeMap<String, Secret>, usize> {
    let mut values = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => {
                values.insert(key.to_owned(), Secret::from(value));
            }
            _ => return Err(number),
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::files::tests::Scratch;

    #[test]
    fn the_next_start_reads_what_was_saved() {
        let scratch = Scratch::new("credentials");
        let path = scratch.0.join("data.credentials");
        let secret = Secret::generate("lms_");
        let mut first = Credentials::open(Some(path.clone())).unwrap();
        first.set("AGENT_CLIENT_SECRET", secret.clone());
        first.save().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let second = Credentials::open(Some(path)).unwrap();
        assert_eq!(second.require("AGENT_CLIENT_SECRET").unwrap().expose(), secret.expose());
        assert!(second.require("SUBAGENT_CLIENT_SECRET").is_err());
    }

    #[test]
    fn nothing_new_is_nothing_written() {
        let scratch = Scratch::new("credentials");
        let path = scratch.0.join("data.credentials");
        let mut credentials = Credentials::open(Some(path.clone())).unwrap();
        credentials.save().unwrap();
        assert!(!path.exists());
        credentials.set("A", Secret::from("1"));
        credentials.save().unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        credentials.set("A", Secret::from("1"));
        credentials.save().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    }

    #[test]
    fn a_damaged_file_is_named_with_its_line_and_not_repeated() {
        let scratch = Scratch::new("credentials");
        let path = scratch.0.join("data.credentials");
        fs::write(&path, "# note\n\nA=1\ncanary\n").unwrap();
        let text = Credentials::open(Some(path)).unwrap_err().with_causes();
        assert!(text.contains("line 4") && !text.contains("canary"), "{text}");
    }

    #[test]
    fn what_is_lost_is_named_with_what_to_do() {
        let credentials = Credentials::open(Some("data.credentials".into())).unwrap();
        let text = credentials.lost(&BTreeSet::from(["AGENT_CLIENT_SECRET"])).to_string();
        for part in ["AGENT_CLIENT_SECRET", "data.credentials", "--credential"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
