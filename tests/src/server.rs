//! A server process under test.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Read,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use crate::{
    KeySite, Org, Request, ServeOptions, Stopwatch, Sts,
    https::Authority,
    services::{Database, redis_url},
    unique,
    watchdog::Watchdog,
};

/// Which store the server runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a new backend must be added to every list")]
pub enum Backend {
    /// In memory.
    Memory,
    /// One durable file.
    Embedded,
    /// Everything in PostgreSQL.
    Postgres,
    /// What is recorded in PostgreSQL, what is hot in Redis.
    PostgresRedis,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Embedded, Self::Postgres, Self::PostgresRedis];

    /// Those that keep what they are told over a restart.
    pub const DURABLE: [Self; 3] = [Self::Embedded, Self::Postgres, Self::PostgresRedis];

    /// Those that several replicas can run on at a time.
    pub const SHARED: [Self; 2] = [Self::Postgres, Self::PostgresRedis];
}

/// Databases that a server runs on, which outlive it until the last holder lets go.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    backend: Backend,
    database: Option<Arc<Database>>,
    redis: Option<String>,
}

impl Place {
    pub(crate) fn new(backend: Backend) -> Self {
        let database = Backend::SHARED.contains(&backend).then(|| Arc::new(Database::create()));
        let redis = (backend == Backend::PostgresRedis).then(redis_url);
        Self { backend, database, redis }
    }

    /// As `--store` and the configuration name it, for a server whose files are in `dir`.
    pub(crate) fn store(&self, dir: &Path) -> String {
        let database = || self.database.as_ref().map(|database| database.url()).unwrap_or_default();
        match (self.backend, &self.redis) {
            (Backend::Memory, _) => "memory".to_owned(),
            (Backend::Embedded, _) => format!("embedded:{}", dir.join("data").display()),
            (_, None) => database().to_owned(),
            (_, Some(redis)) => format!("{}+{redis}", database()),
        }
    }
}

/// How to start a server.
///
/// Servers that are started with the same options, or with clones of them, run on the same databases.
#[derive(Clone, Debug)]
pub struct Options {
    place: Place,
    store: Option<String>,
    listen: String,
    dir: Option<PathBuf>,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    wrapper: Vec<String>,
    roots: Option<&'static str>,
}

impl Options {
    /// A server on `backend`, in a directory of its own, on a free port.
    ///
    /// # Panics
    /// When a service that the backend needs is not there.
    pub fn new(backend: Backend) -> Self {
        Self {
            place: Place::new(backend),
            store: None,
            listen: "127.0.0.1:0".to_owned(),
            dir: None,
            arguments: Vec::new(),
            variables: Vec::new(),
            wrapper: Vec::new(),
            roots: None,
        }
    }

    /// Listens at a given address, for a restart under the same URL.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Self {
        address.clone_into(&mut self.listen);
        self
    }

    /// Keeps its data in `dir`, which outlives the server.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Runs on another store than the backend's, as `--store` names it: for services of a test's own, over
    /// [`Backend::Memory`], which starts none.
    #[must_use]
    pub fn store(mut self, url: &str) -> Self {
        self.store = Some(url.to_owned());
        self
    }

    /// The passwords in the URLs of the backend's services.
    pub fn passwords(&self) -> Vec<String> {
        let urls = [self.place.database.as_ref().map(|database| database.url()), self.place.redis.as_deref()];
        let password = |url: &str| {
            let (user, _) = url.split_once("://")?.1.split_once('@')?;
            Some(user.split_once(':')?.1.to_owned())
        };
        urls.into_iter().flatten().filter_map(password).collect()
    }

    /// One more command line argument.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// One more environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Knows of the sites that are served here by https, [`Sts`] and [`KeySite::trusted`]: trusts their certificate, as
    /// `SSL_CERT_FILE` says, and may reach them on the loopback.
    #[must_use]
    pub fn knowing_our_sites(mut self) -> Self {
        self.roots = Some(Authority::trusted().pem());
        let origins = Sts::trusted().origins().chain([KeySite::trusted().origin().to_owned()]);
        let options = self.argument("--post-allow").argument(KeySite::trusted().origin());
        origins.fold(options, |options, origin| options.argument("--fetch-allow").argument(&origin))
    }

    /// Runs the server under another program, which must replace itself with the server (`strace -D` does).
    #[must_use]
    pub fn under(mut self, program: &[&str]) -> Self {
        self.wrapper = program.iter().map(|&word| word.to_owned()).collect();
        self
    }
}

/// A running server; dropping it kills it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    // Called off once the process is gone, and before its id can be given to another one.
    _watchdog: Watchdog,
    // Given back once the process is gone, and not before.
    _place: Option<Place>,
    authority: String,
    variables: BTreeMap<String, String>,
    dir: PathBuf,
    owns_dir: bool,
}

/// The server that all tests of this binary share, one per backend.
pub fn shared(backend: Backend) -> &'static Server {
    static MEMORY: OnceLock<Server> = OnceLock::new();
    static EMBEDDED: OnceLock<Server> = OnceLock::new();
    static POSTGRES: OnceLock<Server> = OnceLock::new();
    static POSTGRES_REDIS: OnceLock<Server> = OnceLock::new();
    let cell = match backend {
        Backend::Memory => &MEMORY,
        Backend::Embedded => &EMBEDDED,
        Backend::Postgres => &POSTGRES,
        Backend::PostgresRedis => &POSTGRES_REDIS,
    };
    cell.get_or_init(|| Server::start(&Options::new(backend).knowing_our_sites()))
}

impl Server {
    /// Starts a server and waits until it accepts connections.
    ///
    /// # Panics
    /// When it does not come up; the message carries its log.
    pub fn start(options: &Options) -> Self {
        let dir = options.dir.clone().unwrap_or_else(|| env::temp_dir().join(unique("lumoauth-test")));
        fs::create_dir_all(&dir).expect("a test directory can be made");
        let env_file = dir.join(unique("env"));
        let log = log_file(&dir);
        let store = options.store.clone().unwrap_or_else(|| options.place.store(&dir));
        let mut words = options.wrapper.iter().map(Into::into).collect::<Vec<std::ffi::OsString>>();
        words.push(binary().into());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["dev", "--listen", &options.listen, "--store", &store, "--fixtures", "full", "--env-out"])
            .arg(&env_file)
            .args(&options.arguments)
            .current_dir(&dir)
            // Where `dev` keeps its secrets when the store is no file that they could lie beside.
            .env("XDG_STATE_HOME", &dir)
            .envs(options.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        if let Some(roots) = options.roots {
            let file = dir.join("roots.pem");
            fs::write(&file, roots).expect("the certificate can be written");
            command.env("SSL_CERT_FILE", file);
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let watchdog = Watchdog::kill(child.id(), options.dir.is_none().then_some(&*dir));
        let variables = wait_for_variables(&mut child, &env_file, &dir);
        let url = variables.get("LUMOAUTH_URL").expect("the server names its URL");
        let authority = match options.listen.strip_suffix(":0") {
            Some(_) => url.strip_prefix("http://").expect("dev speaks plain http").trim_end_matches('/'),
            // Replicas share one public URL and are reached one by one.
            None => &options.listen,
        };
        let authority = authority.to_owned();
        let place = Some(options.place.clone());
        let owns_dir = options.dir.is_none();
        Self { child, _watchdog: watchdog, _place: place, authority, variables, dir, owns_dir }
    }

    /// Starts `serve` and waits until it accepts connections. Only [`Server::acme`] has an administrator.
    ///
    /// # Panics
    /// When it does not come up; the message carries its log.
    pub fn serve(options: &ServeOptions) -> Self {
        let dir = options.dir().to_owned();
        let log = log_file(&dir);
        let mut command = clean_command();
        command
            .args(["serve", "--config"])
            .arg(options.write())
            .current_dir(&dir)
            .envs(options.variables())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let watchdog = Watchdog::kill(child.id(), None);
        let watch = Stopwatch::start();
        while TcpStream::connect(options.authority()).is_err() {
            let log = || fs::read_to_string(dir.join(LOG)).unwrap_or_default();
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                panic!("the server ended with {status}: {}", log());
            }
            assert!(watch.elapsed() < Duration::from_secs(60), "the server does not come up: {}", log());
            thread::sleep(Duration::from_millis(5));
        }
        let variables = [("LUMOAUTH_ORG_ID", "acme-corp"), ("LUMOAUTH_API_KEY", options.api_key())];
        let variables = variables.into_iter().map(variable).collect();
        let authority = options.authority().to_owned();
        let place = options.place().cloned();
        Self { child, _watchdog: watchdog, _place: place, authority, variables, dir, owns_dir: false }
    }

    /// `host:port`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Public URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A line of the `--env-out` file.
    ///
    /// # Panics
    /// When the server did not write it.
    #[track_caller]
    pub fn variable(&self, name: &str) -> &str {
        self.variables.get(name).unwrap_or_else(|| panic!("the server did not write {name}"))
    }

    /// All lines of the `--env-out` file.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// A request to this server, path as given.
    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(&self.authority, method, target)
    }

    /// The first organization, as its administrator sees it.
    pub fn acme(&self) -> Org<'_> {
        Org::new(self, self.variable("LUMOAUTH_ORG_ID"), self.variable("LUMOAUTH_API_KEY"))
    }

    /// The second organization, as its administrator sees it.
    pub fn globex(&self) -> Org<'_> {
        Org::new(self, self.variable("OTHER_ORG_ID"), self.variable("OTHER_API_KEY"))
    }

    /// The organization `slug`, as the holder of this API key sees it.
    pub fn organization(&self, slug: &str, key: &str) -> Org<'_> {
        Org::new(self, slug, key)
    }

    /// Everything the server wrote to its standard output and error so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join(LOG)).expect("the log can be read")).into_owned()
    }

    /// Directory of its data and its log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(mut self) {
        self.kill_and_wait();
    }

    /// SIGTERM, and waits; gives the exit code.
    ///
    /// # Panics
    /// When it has not stopped within 15 s.
    pub fn terminate(self) -> Option<i32> {
        self.ask_to_stop();
        self.wait_for_end()
    }

    /// SIGTERM, and nothing more.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn ask_to_stop(&self) {
        let status = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "SIGTERM can be sent");
    }

    /// Waits until it has ended by itself; gives the exit code.
    ///
    /// # Panics
    /// When it has not stopped within 15 s.
    pub fn wait_for_end(mut self) -> Option<i32> {
        let watch = Stopwatch::start();
        while watch.elapsed() < Duration::from_secs(15) {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the server ignores SIGTERM: {}", self.log());
    }

    fn kill_and_wait(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill_and_wait();
        if self.owns_dir && !thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Runs the server with `arguments` until it ends by itself; gives the exit code and all it printed.
///
/// # Panics
/// When it has not ended within 15 s.
pub fn run_server(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = clean_command();
    command.args(arguments).envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let watch = Stopwatch::start();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if watch.elapsed() > Duration::from_secs(15) {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} does not end");
        }
        thread::sleep(Duration::from_millis(5));
    };
    let mut text = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("text");
    child.stderr.take().expect("a pipe").read_to_string(&mut text).expect("text");
    (status.code(), text)
}

/// The server without what the shell says about it: `serve` refuses variables that it does not know, also the
/// harness's own.
fn clean_command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("LUMOAUTH_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

fn log_file(dir: &Path) -> fs::File {
    fs::OpenOptions::new().create(true).append(true).open(dir.join(LOG)).expect("a log file")
}

const LOG: &str = "server.log";

fn wait_for_variables(child: &mut Child, env_file: &Path, dir: &Path) -> BTreeMap<String, String> {
    let log = || fs::read_to_string(dir.join(LOG)).unwrap_or_default();
    let watch = Stopwatch::start();
    loop {
        // The file is complete once it is there with a last line; dev writes it when it accepts connections.
        if let Ok(text) = fs::read_to_string(env_file)
            && text.ends_with('\n')
            && text.contains("LUMOAUTH_API_KEY=")
            && text.contains("OTHER_CLIENT_SECRET=")
        {
            let _ = fs::remove_file(env_file);
            return text.lines().filter_map(|line| line.split_once('=')).map(variable).collect();
        }
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            panic!("the server ended with {status}: {}", log());
        }
        assert!(watch.elapsed() < Duration::from_secs(60), "the server does not come up: {}", log());
        thread::sleep(Duration::from_millis(5));
    }
}

fn variable((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.trim_matches(['"', '\'']).to_owned())
}

/// The built server: `LUMOAUTH_SERVER_BIN`, or beside the directory of the running test.
fn binary() -> PathBuf {
    if let Some(path) = env::var_os("LUMOAUTH_SERVER_BIN") {
        return path.into();
    }
    let test = env::current_exe().expect("a running test has a path");
    let profile = test.parent().and_then(Path::parent).expect("tests run from target/<profile>/deps");
    let binary = profile.join(format!("lumoauth-server{}", env::consts::EXE_SUFFIX));
    assert!(
        binary.is_file(),
        "{} is missing: build it with `cargo build -p lumoauth-server`",
        binary.display()
    );
    binary
}
