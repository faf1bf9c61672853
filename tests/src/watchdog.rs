//! What ends the processes of a test run, however it ends.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

/// Ends a process, or drops a database, when this process is gone.
///
/// What is shared lives in a static, which is never dropped, and a test run may itself be killed. The watchdog's
/// standard input is a pipe from here: it closes when this process is gone. Dropping the watchdog calls it off.
#[derive(Debug)]
pub(crate) struct Watchdog(Child);

impl Watchdog {
    /// Kills the process `pid`, then removes `dir`, if one is named.
    pub(crate) fn kill(pid: u32, dir: Option<&Path>) -> Self {
        Self::run("kill -9 \"$1\"; sleep 0.2; test -z \"$2\" || rm -rf \"$2\"", &pid.to_string(), dir)
    }

    /// Lets the PostgreSQL `pid` stop at once by itself, which frees its shared memory, then removes `dir`.
    pub(crate) fn quit(pid: u32, dir: &Path) -> Self {
        let script = "kill -QUIT \"$1\"; i=0; \
            while kill -0 \"$1\" 2>/dev/null && test $i -lt 50; do sleep 0.1; i=$((i+1)); done; \
            kill -9 \"$1\"; sleep 0.2; rm -rf \"$2\"";
        Self::run(script, &pid.to_string(), Some(dir))
    }

    /// Runs `statement` on the PostgreSQL at `url`.
    pub(crate) fn execute(url: &str, statement: &str) -> Self {
        Self::run("psql -X -q -c \"$2\" \"$1\"", url, Some(Path::new(statement)))
    }

    fn run(script: &str, first: &str, second: Option<&Path>) -> Self {
        let mut command = Command::new("sh");
        // A Ctrl-C goes to every process of the terminal, and this one must outlive the others.
        command.args(["-c", &format!("trap '' INT TERM HUP; cat >/dev/null; {script}"), "watchdog", first]);
        command.arg(second.unwrap_or(Path::new("")));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("a shell is there"))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Before the pid that it watches can be given to another process.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
