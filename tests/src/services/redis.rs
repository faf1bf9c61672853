//! A private Redis.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{Read, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::Duration,
};

use super::{folder, free_port, output_of, password, program, wait_until};
use crate::watchdog::Watchdog;

/// How many databases a private Redis has, so that each server under test gets one of its own.
const DATABASES: u16 = 256;

/// The URL of a Redis for one server under test: the one that `REDIS_URL` names, or a database of its own in the
/// private one that this process shares.
///
/// # Panics
/// When a private one is needed and does not come up.
pub fn redis_url() -> String {
    static SHARED: OnceLock<Redis> = OnceLock::new();
    static NEXT: AtomicU16 = AtomicU16::new(0);
    match env::var("REDIS_URL") {
        Ok(url) if !url.is_empty() => url,
        _ => {
            let database = NEXT.fetch_add(1, Ordering::Relaxed) % DATABASES;
            SHARED.get_or_init(Redis::start).url_of(database)
        }
    }
}

/// What `redis-cli` says to a command on the Redis at `url`.
///
/// # Panics
/// When it fails.
pub fn redis_command(url: &str, words: &[&str]) -> String {
    let mut command = Command::new(program("redis-cli", "redis-tools"));
    // Without a name it would give the empty one, and that user does not exist.
    let url = url.replace("://:", "://default:");
    command.args(["--no-auth-warning", "-u", &url]).args(words);
    output_of(&mut command).trim_end().to_owned()
}

/// A Redis on a free port that keeps nothing on disk; dropping it kills it.
#[derive(Debug)]
pub struct Redis {
    dir: PathBuf,
    port: u16,
    password: String,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    _watchdog: Watchdog,
}

impl Redis {
    /// Makes a new one and waits until it answers.
    ///
    /// # Panics
    /// When Redis is not installed, or does not come up; the message carries its log.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with lines of its own in the configuration, such as `maxmemory 10mb`.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_with(lines: &[&str]) -> Self {
        let password = password();
        Self::start_on(free_port, &password, lines)
    }

    /// The same on a port that `port` finds.
    pub(super) fn start_on(port: impl Fn() -> u16, password: &str, lines: &[&str]) -> Self {
        let mut failures = String::new();
        for _ in 0..5 {
            let mut redis = Self {
                dir: folder("lumoauth-redis"),
                port: port(),
                password: password.to_owned(),
                running: None,
            };
            redis.configure(lines);
            match redis.run() {
                Ok(()) => return redis,
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

    /// Its URL.
    pub fn url(&self) -> String {
        self.url_at(self.address())
    }

    /// Its URL for a client that goes through `address`, where a proxy listens.
    pub fn url_at(&self, address: SocketAddr) -> String {
        format!("redis://:{}@{address}", self.password)
    }

    fn url_of(&self, database: u16) -> String {
        format!("{}/{database}", self.url())
    }

    /// What it wrote to its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join(LOG)).unwrap_or_default()
    }

    /// What `redis-cli` says to a command.
    ///
    /// # Panics
    /// When it fails.
    pub fn command(&self, words: &[&str]) -> String {
        redis_command(&self.url(), words)
    }

    /// SIGKILL; waits until it is gone, and with it all that it knew.
    pub fn kill(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let _ = running.child.kill();
        let _ = running.child.wait();
    }

    /// Starts it again, empty, on the same port, after [`kill`](Self::kill).
    ///
    /// # Panics
    /// When it does not come up; the message carries its log.
    pub fn restart(&mut self) {
        assert!(self.running.is_none(), "it is running");
        // A client may have the port for a moment.
        for _ in 0..20 {
            match self.run() {
                Ok(()) => return,
                Err(failure) if !failure.contains("Could not create server TCP") => panic!("{failure}"),
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
        panic!("Redis does not get its port back: {}", self.log());
    }

    fn configure(&self, lines: &[&str]) {
        let mut text = format!(
            "bind 127.0.0.1\nport {}\nrequirepass {}\ndir {}\nlogfile \"\"\ndaemonize no\nsave \"\"\nappendonly no\n\
             maxmemory-policy noeviction\ndatabases {DATABASES}\n",
            self.port,
            self.password,
            self.dir.display()
        );
        for line in lines {
            let _ = writeln!(text, "{line}");
        }
        fs::write(self.dir.join(CONFIG), text).expect("a configuration");
    }

    fn run(&mut self) -> Result<(), String> {
        let path = self.dir.join(LOG);
        let log = fs::OpenOptions::new().create(true).append(true).open(&path).expect("a log file");
        let mut command = Command::new(program("redis-server", "redis-server"));
        command.arg(self.dir.join(CONFIG)).current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let watchdog = Watchdog::kill(child.id(), Some(&self.dir));
        wait_until("Redis", &mut child, &path, |_| self.answers())?;
        self.running = Some(Running { child, _watchdog: watchdog });
        Ok(())
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect_timeout(&self.address(), Duration::from_secs(1)) else {
            return false;
        };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let asked = stream.write_all(format!("AUTH {}\r\nPING\r\nQUIT\r\n", self.password).as_bytes());
        let mut answer = String::new();
        asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.contains("+PONG")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

const LOG: &str = "log";
const CONFIG: &str = "redis.conf";
