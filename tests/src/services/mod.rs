//! PostgreSQL and Redis for the tests: private ones from installed programs, or those that `DATABASE_URL` and
//! `REDIS_URL` name.
//!
//! Each private service has a folder and a free port of its own, keeps the durable settings of its default
//! configuration, and is gone when its value is dropped or this process ends. A test that kills a service starts one
//! for itself; everything else uses [`Database::create`] and [`redis_url`].

mod cluster;
mod database;
mod postgres;
mod proxy;
mod redis;

use std::{
    env, fs,
    hash::{BuildHasher, RandomState},
    net::TcpListener,
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

pub use self::{
    cluster::RedisCluster,
    database::{Database, query},
    postgres::Postgres,
    proxy::{Direction, Proxy},
    redis::{Redis, redis_command, redis_url},
};
use crate::{Stopwatch, b64, unique};

/// An installed program.
///
/// # Panics
/// When it is not there: a test that needs it must fail and not be left out. The message names the Debian package.
fn program(name: &str, package: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian keeps the programs of a PostgreSQL server out of the path. The newest version is taken.
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort_by_key(|path| {
        let version = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        std::cmp::Reverse(version.and_then(|version| version.parse::<u32>().ok()))
    });
    let found =
        env::split_paths(&path).chain(versions).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| {
        panic!("`{name}` is missing: install the Debian package `{package}`, or what brings it elsewhere")
    })
}

/// A port that nobody listens on. It is below those that the system gives to clients.
///
/// Somebody may take it before it is used, so what starts on it must be ready to try another one.
///
/// # Panics
/// When none is found.
pub(crate) fn free_port() -> u16 {
    free_port_in(20_000..32_000, &[0])
}

/// A port within `range` such that it and those at the `offsets` from it are free.
fn free_port_in(range: Range<u16>, offsets: &[u16]) -> u16 {
    let width = u64::from(range.end - range.start);
    for _ in 0..1000 {
        let noise = RandomState::new().hash_one(unique("port")) % width;
        let port = range.start + u16::try_from(noise).expect("below the width of the range");
        if offsets.iter().all(|offset| TcpListener::bind(("127.0.0.1", port + offset)).is_ok()) {
            return port;
        }
    }
    panic!("no free port");
}

/// A password that nobody else has, without characters that mean something in a URL.
fn password() -> String {
    let noise: Vec<u8> =
        (0..3).flat_map(|_| RandomState::new().hash_one(unique("noise")).to_le_bytes()).collect();
    b64(noise)
}

/// A new folder for a service.
fn folder(prefix: &str) -> PathBuf {
    let dir = env::temp_dir().join(unique(prefix));
    fs::create_dir_all(&dir).expect("a test directory can be made");
    dir
}

/// Waits until `ready` says so of the process id.
///
/// # Errors
/// When `child` ends, or after a minute, when it is killed; the text carries `log`.
fn wait_until(
    what: &str,
    child: &mut Child,
    log: &Path,
    mut ready: impl FnMut(u32) -> bool,
) -> Result<(), String> {
    let watch = Stopwatch::start();
    let text = || fs::read_to_string(log).unwrap_or_default();
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Err(format!("{what} ended with {status}: {}", text()));
        }
        if ready(child.id()) {
            return Ok(());
        }
        if watch.elapsed() > Duration::from_secs(60) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{what} does not come up: {}", text()));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to processes. One that is gone already is no failure.
fn signal(name: &str, pids: &[u32]) {
    let mut command = Command::new("kill");
    command.arg(format!("-{name}")).args(pids.iter().map(u32::to_string));
    command.stderr(Stdio::null());
    command.status().expect("kill runs");
}

/// Runs a program to its end and gives what it wrote.
///
/// # Panics
/// When it fails; the message carries all its output.
fn output_of(command: &mut Command) -> String {
    let program = command.get_program().to_owned();
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {program:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program:?} failed with {}: {text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn killed_postgres_comes_back_with_what_was_committed() {
        let mut postgres = Postgres::start();
        let database = Database::create_in(&postgres);
        query(database.url(), "CREATE TABLE kept (value int); INSERT INTO kept VALUES (7)");
        for _ in 0..2 {
            postgres.kill();
            postgres.restart();
            assert_eq!(query(database.url(), "SELECT value FROM kept"), "7");
        }
        assert!(postgres.log().contains("database system was not properly shut down"), "{}", postgres.log());
        assert_eq!(query(database.url(), "SELECT current_setting('fsync')"), "on");
        postgres.stop();
        postgres.restart();
        assert_eq!(query(database.url(), "SELECT value FROM kept"), "7");
        assert!(database.url().ends_with(database.name()));
        let dir = postgres.dir().to_owned();
        drop(postgres);
        assert!(!dir.exists());
    }

    #[test]
    fn killed_redis_comes_back_empty() {
        let mut redis = Redis::start();
        assert_eq!(redis.command(&["SET", "kept", "7"]), "OK");
        redis.kill();
        redis.restart();
        assert_eq!(redis.command(&["GET", "kept"]), "");
        assert_eq!(redis.command(&["CONFIG", "GET", "maxmemory-policy"]), "maxmemory-policy\nnoeviction");
    }

    #[test]
    fn cluster_refuses_what_spans_two_slots() {
        let mut cluster = RedisCluster::start();
        assert_eq!(cluster.url().split(',').count(), 3);
        let [first, ..] = cluster.nodes() else { panic!("three nodes") };
        let text = first.command(&["MSET", "{a}1", "x", "{b}1", "x"]);
        assert!(text.contains("CROSSSLOT"), "{text}");
    }
}
