//! Files that only the server may read.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Writes `text` to `path` with mode 0600. A reader sees the file from before or the whole new one, and the new
/// one is on disk when this returns.
///
/// What is there and is no regular file (a pipe, `/dev/stdout`) is written to, never replaced.
///
/// # Errors
/// What the operating system says; then the file from before is untouched.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes());
    }
    let folder = folder_of(path);
    let draft = draft_of(path)?;
    let written = write_draft(&draft, text).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // Best effort: the draft holds secrets and nobody will read it.
        let _ = fs::remove_file(&draft);
    }
    written?;
    // Without this the rename itself could be lost with the power.
    File::open(folder)?.sync_all()
}

/// Whether others than the owner may read or change the file.
pub(crate) fn is_open_to_others(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

/// The path of a file beside `path`: its name with `suffix`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// The folder that holds `path`.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn draft_of(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut draft = OsString::from(".");
    draft.push(name);
    draft.push(format!(".{}.tmp", std::process::id()));
    Ok(folder_of(path).join(draft))
}

fn write_draft(draft: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // A draft of an earlier process with our id, which died over it.
        Ok(()) | Err(_) => {}
    }
    // `create_new` never follows a link that somebody left in a shared folder.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A folder of its own for one test, gone when dropped.
    #[derive(Debug)]
    pub(crate) struct Scratch(pub(crate) PathBuf);

    impl Scratch {
        pub(crate) fn new(name: &str) -> Self {
            let number = lumoauth_core::random::random_number();
            let folder = std::env::temp_dir().join(format!("lumoauth-{name}-{number}"));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_private_file_is_private_and_whole_and_leaves_no_draft() {
        let scratch = Scratch::new("files");
        let path = scratch.0.join("secret");
        fs::write(&path, "from before, readable by all").unwrap();
        write_private(&path, "one").unwrap();
        write_private(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!is_open_to_others(&path).unwrap());
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_changes_nothing() {
        let scratch = Scratch::new("files");
        let path = scratch.0.join("secret");
        write_private(&path, "one").unwrap();
        assert!(write_private(&scratch.0.join("no-such-folder/secret"), "two").is_err());
        assert!(write_private(&scratch.0, "two").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
    }

    #[test]
    fn beside_keeps_the_folder() {
        assert_eq!(beside(Path::new("./data"), ".credentials"), Path::new("./data.credentials"));
        assert_eq!(folder_of(Path::new("data")), Path::new("."));
    }
}
