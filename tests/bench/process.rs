//! Processes under measurement: what they use, and that none of them outlives the harness.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use lumoauth_tests::{Stopwatch, unique};

/// A running process; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    watchdog: Child,
}

impl Process {
    /// Starts `command`.
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let watchdog = watchdog(&child.id().to_string(), Path::new(""));
        Self { child, watchdog }
    }

    /// The next line of its standard output, which must be a pipe. What comes later is read and dropped, so that
    /// the process never waits for a reader.
    pub(crate) fn first_line(&mut self) -> String {
        let mut output = BufReader::new(self.child.stdout.take().expect("standard output is a pipe"));
        let mut line = String::new();
        let read = output.read_line(&mut line).expect("standard output can be read");
        assert!(read > 0, "the process ended before it was ready");
        thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        line.trim().to_owned()
    }

    /// CPU time it has used so far, in user and kernel mode, by all of its threads.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(&self.proc("stat"))
    }

    /// Its resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
        resident_of(&self.proc("status"))
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn terminate(mut self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "SIGTERM can be sent");
        let watch = Stopwatch::start();
        while watch.elapsed() < Duration::from_secs(30) {
            if self.child.try_wait().expect("a child can be waited for").is_some() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the server ignores SIGTERM");
    }

    /// Panics if it has ended.
    pub(crate) fn assert_alive(&mut self) {
        let ended = self.child.try_wait().expect("a child can be waited for");
        assert!(ended.is_none(), "the process ended: {ended:?}");
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("the process is there")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        end(&mut self.watchdog);
    }
}

/// CPU time that this process has used so far.
pub(crate) fn own_cpu() -> Duration {
    cpu_of(&fs::read_to_string("/proc/self/stat").expect("this process is there"))
}

/// Resident memory of this process in bytes.
pub(crate) fn own_resident() -> u64 {
    resident_of(&fs::read_to_string("/proc/self/status").expect("this process is there"))
}

fn resident_of(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn cpu_of(stat: &str) -> Duration {
    // The unit of these fields is fixed for user space, whatever the kernel ticks at.
    const TICK: Duration = Duration::from_millis(10);
    // The name of the program comes first, in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')').expect("the name ends");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |field: usize| fields[field].parse::<u32>().expect("a number of ticks");
    TICK * (ticks(11) + ticks(12))
}

/// A directory of this run; dropping it removes it.
#[derive(Debug)]
pub(crate) struct TempDir {
    path: PathBuf,
    watchdog: Child,
}

impl TempDir {
    pub(crate) fn new() -> Self {
        let path = env::temp_dir().join(unique("lumoauth-bench"));
        fs::create_dir_all(&path).expect("a directory can be made");
        let watchdog = watchdog("", &path);
        Self { path, watchdog }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        end(&mut self.watchdog);
    }
}

/// Kills `pid` and removes `dir` when this process ends in any way, also one that runs no destructors. Its standard
/// input is a pipe from here, which closes then. An interrupt from the terminal goes to it as well, and it is
/// needed just then.
fn watchdog(pid: &str, dir: &Path) -> Child {
    const SCRIPT: &str = r#"trap '' INT TERM HUP
        cat >/dev/null
        test -z "$1" || kill -9 "$1"
        sleep 0.3
        test -z "$2" || rm -rf "$2""#;
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "watchdog", pid]).arg(dir);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("a shell is there")
}

/// Ends a watchdog whose charge is gone.
fn end(watchdog: &mut Child) {
    // By the pipe it would act, and the number of the process may be somebody else's by now.
    let _ = watchdog.kill();
    let _ = watchdog.wait();
}
