//! A private PostgreSQL.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use super::{folder, free_port, output_of, password, program, signal, wait_until};
use crate::{Stopwatch, watchdog::Watchdog};

/// A PostgreSQL server on a free port, with the durable settings that it has by default; dropping it stops it and
/// removes its data.
#[derive(Debug)]
pub struct Postgres {
    dir: PathBuf,
    port: u16,
    password: String,
    settings: Vec<String>,
    variables: Vec<(String, String)>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    _watchdog: Watchdog,
}

impl Postgres {
    /// Makes a new one and waits until it answers.
    ///
    /// # Panics
    /// When PostgreSQL is not installed, or does not come up; the message carries its log.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings of its own, such as `max_connections=20`.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_with(settings: &[&str]) -> Self {
        Self::new(settings, &[])
    }

    /// The same with environment variables of its own, such as those of a clock that is moved.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_under(variables: &[(&str, &str)]) -> Self {
        Self::new(&[], variables)
    }

    fn new(settings: &[&str], variables: &[(&str, &str)]) -> Self {
        let dir = folder("lumoauth-postgres");
        let password = password();
        let (passwords, data) = (dir.join("password"), dir.join("data"));
        fs::write(&passwords, &password).expect("a password file");
        fs::set_permissions(&passwords, fs::Permissions::from_mode(0o600)).expect("permissions can be set");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("permissions can be set");
        if let Some(user) = unprivileged() {
            for path in [&dir, &passwords] {
                chown(path, Some(user.0), Some(user.1)).expect("root may give files away");
            }
        }
        // The files of an empty cluster need not outlive a power cut; what is written to it later does.
        let mut initdb = command("initdb");
        initdb.args(["--no-sync", "--locale=C", "--encoding=UTF8", "--username", USER]);
        // The password itself, over the loopback: proving knowledge of it costs an unoptimized client 0.2 s each time.
        initdb.args(["--auth=password", "--pwfile"]).arg(&passwords).arg("--pgdata").arg(&data);
        output_of(initdb.current_dir(&dir));

        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let variables = variables.iter().map(owned).collect();
        let mut postgres = Self { dir, port: 0, password, settings, variables, running: None };
        let mut failures = String::new();
        for _ in 0..5 {
            postgres.port = free_port();
            match postgres.run() {
                Ok(()) => return postgres,
                // Somebody else may have been faster on this port.
                Err(failure) => failures.push_str(&failure),
            }
        }
        panic!("{failures}");
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The URL of `database`; `postgres` is always there.
    pub fn url(&self, database: &str) -> String {
        self.url_at(self.address(), database)
    }

    /// The URL of `database` for a client that goes through `address`, where a proxy listens.
    pub fn url_at(&self, address: SocketAddr, database: &str) -> String {
        format!("postgres://{USER}:{}@{address}/{database}", self.password)
    }

    /// Its folder: `data` has the cluster, `log` what it said.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it wrote to its log so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join(LOG)).unwrap_or_default()).into_owned()
    }

    /// SIGKILL to all its processes at once, as a power cut would do; waits until they are gone.
    ///
    /// # Panics
    /// When one of them is still there after ten seconds.
    pub fn kill(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let postmaster = running.child.id();
        // Each of its processes has a process group of its own. While the postmaster stands still it makes no more.
        signal("STOP", &[postmaster]);
        let mut all = children_of(postmaster);
        let children = all.clone();
        all.push(postmaster);
        signal("KILL", &all);
        let _ = running.child.wait();
        let watch = Stopwatch::start();
        while children.iter().any(|pid| is_postgres(*pid)) {
            assert!(watch.elapsed() < Duration::from_secs(10), "PostgreSQL does not die");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Starts it again on the same port and data, after [`kill`](Self::kill) or [`stop`](Self::stop).
    ///
    /// # Panics
    /// When it does not come up; the message carries its log.
    pub fn restart(&mut self) {
        assert!(self.running.is_none(), "it is running");
        // A client may have the port for a moment.
        for _ in 0..20 {
            match self.run() {
                Ok(()) => return,
                Err(failure) if !failure.contains("could not bind") => panic!("{failure}"),
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
        panic!("PostgreSQL does not get its port back: {}", self.log());
    }

    /// Stops it in good order: clients are cut off, everything that was committed stays.
    ///
    /// # Panics
    /// When it has not stopped after 30 seconds.
    pub fn stop(&mut self) {
        self.end("INT", Duration::from_secs(30));
    }

    fn end(&mut self, by: &str, patience: Duration) {
        let Some(mut running) = self.running.take() else { return };
        signal(by, &[running.child.id()]);
        let watch = Stopwatch::start();
        while running.child.try_wait().expect("a child can be waited for").is_none() {
            if watch.elapsed() > patience {
                let _ = running.child.kill();
                let _ = running.child.wait();
                assert!(thread::panicking(), "PostgreSQL does not stop: {}", self.log());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn run(&mut self) -> Result<(), String> {
        let path = self.dir.join(LOG);
        let log = fs::OpenOptions::new().create(true).append(true).open(&path).expect("a log file");
        let data = self.dir.join("data");
        let mut postgres = command_under("postgres", &self.variables);
        postgres.arg("-D").arg(&data).current_dir(&self.dir);
        let mut set = |setting: &str| {
            postgres.args(["-c", setting]);
        };
        set("listen_addresses=127.0.0.1");
        set(&format!("port={}", self.port));
        set("unix_socket_directories=");
        set("max_connections=200");
        for setting in &self.settings {
            set(setting);
        }
        postgres.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let mut child = postgres.spawn().unwrap_or_else(|error| panic!("cannot start {postgres:?}: {error}"));
        let watchdog = Watchdog::quit(child.id(), &self.dir);
        // Its first line has the process id, the last one tells when it takes clients.
        let status = data.join("postmaster.pid");
        wait_until("PostgreSQL", &mut child, &path, |pid| {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let mut lines = text.lines();
            lines.next() == Some(&pid.to_string()) && lines.last().is_some_and(|line| line.trim() == "ready")
        })?;
        self.running = Some(Running { child, _watchdog: watchdog });
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once, since its data goes as well, but by itself: only then does it free its shared memory.
        self.end("QUIT", Duration::from_secs(10));
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

const USER: &str = "lumoauth";
const LOG: &str = "log";

/// A program of PostgreSQL, which refuses to run as root and takes settings from variables.
fn command(name: &str) -> Command {
    command_under(name, &[])
}

/// The same with these variables, which whoever starts it as somebody else does not get: a library that is loaded by it
/// would make files that only root may open.
fn command_under(name: &str, variables: &[(String, String)]) -> Command {
    let program = program(name, "postgresql");
    let given: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut command = match unprivileged() {
        Some((user, group)) => {
            let mut command = Command::new(super::program("setpriv", "util-linux"));
            command.args([
                format!("--reuid={user}"),
                format!("--regid={group}"),
                "--clear-groups".to_owned(),
            ]);
            command.arg(super::program("env", "coreutils"));
            command
        }
        None => Command::new(super::program("env", "coreutils")),
    };
    command.args(given).arg(program);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("PG") {
            command.env_remove(variable);
        }
    }
    // Its messages are compared, and its speed must not depend on the language of the machine.
    command.env("LC_ALL", "C").env("TZ", "UTC");
    command
}

/// Whom to run as: user and group, when this process is root.
fn unprivileged() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| -> Option<u32> {
        let output = Command::new("id").args(arguments).stderr(Stdio::null()).output().expect("id is there");
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let of = |user: &str| Some((id(&["-u", user])?, id(&["-g", user])?));
    let user = of("postgres").or_else(|| of("nobody"));
    Some(user.expect("PostgreSQL refuses to run as root, and neither `postgres` nor `nobody` is a user here"))
}

/// The processes whose parent is `pid`. Where there is no `/proc` they are left to notice their parent's end.
fn children_of(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let processes = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    processes.filter(|one| parent_of(*one) == Some(pid)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    stat_of(pid)?.1
}

/// Whether `pid` is still a process of PostgreSQL. One that is dead and not yet collected is none.
fn is_postgres(pid: u32) -> bool {
    let state = stat_of(pid).map(|(state, _)| state);
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    state.is_some_and(|state| state != 'Z') && name.trim() == "postgres"
}

/// State and parent of a process.
fn stat_of(pid: u32) -> Option<(char, Option<u32>)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may contain anything.
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()))
}
