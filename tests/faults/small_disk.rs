//! A small file system of a test's own, which can be filled and emptied.

use std::{
    env,
    fs::{self, File},
    io::Write,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use lumoauth_tests::unique;

/// A file system in memory; dropping it unmounts it.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    path: PathBuf,
    /// Unmounts it when this process is gone, however it ended: its standard input is a pipe from here.
    watchdog: Child,
}

impl SmallDisk {
    /// A file system of so many megabytes, which belongs to whom `like` belongs.
    ///
    /// # Panics
    /// When it cannot be mounted. Without it nothing is proven, so a test that needs it fails and is not left out.
    pub(crate) fn mount(megabytes: u32, like: &Path) -> Self {
        let path = env::temp_dir().join(unique("lumoauth-disk"));
        fs::create_dir_all(&path).expect("a test directory can be made");
        let size = format!("size={megabytes}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).output();
        let mounted = mounted.unwrap_or_else(|error| panic!("`mount` cannot be run: {error}"));
        assert!(
            mounted.status.success(),
            "this test fills a disk and must be allowed to mount a small one: run it as root, in a container with \
             the capability SYS_ADMIN: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        let script = "trap '' INT TERM HUP; cat >/dev/null; umount -l \"$1\"; rmdir \"$1\"";
        let watchdog = Command::new("sh")
            .args(["-c", script, "watchdog"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell is there");
        let disk = Self { path, watchdog };
        let owner = fs::metadata(like).expect("it is there");
        chown(&disk.path, Some(owner.uid()), Some(owner.gid())).expect("root may give files away");
        disk
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves no byte free.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.filler()).expect("a file");
        // Large pieces first, and then what is left between the blocks.
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Frees what [`fill`](Self::fill) took.
    pub(crate) fn empty(&self) {
        fs::remove_file(self.filler()).expect("the file can go");
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        // Lazily: a process that has just been killed may have a file open for a moment.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        let _ = fs::remove_dir(&self.path);
    }
}
