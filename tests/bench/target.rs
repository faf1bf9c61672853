//! Servers to send load to.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use lumoauth_tests::{Stopwatch, unique};

use crate::{Options, agents, bare, host, load, place::Place, process::Process};

/// A server with the requests it is sent.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) requests: Arc<[Vec<u8>]>,
}

/// One measured round.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Of the server, per request.
    pub(crate) cpu: Duration,
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// How the audit rows of a token are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appends {
    /// With those of other requests, as the store does it.
    Together,
    /// Each with a commit of its own.
    OneByOne,
}

impl Appends {
    /// As the command line of the server in this binary has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Together => "together",
            Self::OneByOne => "one-by-one",
        }
    }
}

impl Target {
    /// The reference server in `dev`, asked for tokens of its load test agent.
    pub(crate) fn reference(options: &Options, place: &Place) -> Self {
        let (target, _) = Self::reference_with_variables(options, place);
        target
    }

    /// The same, with what tells a client how to use its records.
    pub(crate) fn reference_with_variables(
        options: &Options,
        place: &Place,
    ) -> (Self, BTreeMap<String, String>) {
        let directory = place.directory();
        let variables_file = directory.join(unique("env"));
        let mut command = Command::new(&options.server);
        command
            .args(["dev", "--listen", "127.0.0.1:0", "--store", place.store(), "--fixtures", "full"])
            .arg("--env-out")
            .arg(&variables_file)
            .current_dir(directory)
            // Where `dev` keeps its secrets when the store is no file that they could lie beside.
            .env("XDG_STATE_HOME", directory)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::null());
        let mut process = Process::start(&mut command);
        let variables = wait_for_variables(&mut process, &variables_file);
        let variable = |name: &str| variables.get(name).unwrap_or_else(|| panic!("no {name}")).as_str();
        let address = variable("LUMOAUTH_URL").trim_start_matches("http://").parse().expect("an address");
        let path = token_path(variable("LUMOAUTH_ORG_ID"));
        let request =
            load::token_request(address, &path, variable("LOAD_CLIENT_ID"), variable("LOAD_CLIENT_SECRET"));
        let name = format!("lumoauth-server, {}", place.kind.name());
        (Self { name, process, address, requests: [request].into() }, variables)
    }

    /// The yardstick, signing and answering about as many bytes as `real` does.
    pub(crate) fn bare_like(real: &Self) -> Self {
        let (signed, answer) = answer_of(real.address, &real.requests[0]);
        let (process, address) = own("bare", &[signed.to_string(), answer.to_string(), "0".to_owned()]);
        // Credentials of the same length, since they are parsed as well.
        let (client_id, client_secret) = agents::credentials(0);
        let request = load::token_request(address, bare::PATH, &client_id, &client_secret);
        let name = format!("bare axum, signs {signed} B, answers {answer} B");
        Self { name, process, address, requests: [request].into() }
    }

    /// The yardstick for exchanges, which checks `checks` signatures: for one whose form is `body` and that `request`
    /// asks of the server at `real`.
    pub(crate) fn bare_exchange(real: SocketAddr, request: &[u8], body: &str, checks: usize) -> Self {
        let (signed, answer) = answer_of(real, request);
        let (process, address) = own("bare", &[signed, answer, checks].map(|number| number.to_string()));
        let request = load::form(address, bare::EXCHANGE, body);
        let name = format!("bare axum, signs {signed} B, checks {checks} signatures, answers {answer} B");
        Self { name, process, address, requests: [request].into() }
    }

    /// The service over a memory store with `count` agents.
    pub(crate) fn hosted(count: usize) -> Self {
        let (process, address) = own("host", &["memory".to_owned(), count.to_string()]);
        let mut target =
            Self { name: format!("memory, {count} agents"), process, address, requests: [].into() };
        target.ask_for(host::ORG, count);
        target
    }

    /// The service over PostgreSQL with one agent.
    pub(crate) fn on_postgres(url: &str, appends: Appends) -> Self {
        let arguments = ["postgres", url, appends.name()].map(str::to_owned);
        let (process, address) = own("host", &arguments);
        let name = format!("postgres, audit rows {}", appends.name());
        let mut target = Self { name, process, address, requests: [].into() };
        target.ask_for(host::ORG, 1);
        target
    }

    /// From now on asks for tokens of agents drawn evenly from the first `count` of the seeded ones.
    pub(crate) fn ask_for(&mut self, org: &str, count: usize) {
        const DRAWN: usize = 50_000;
        // A full-period step through a power of two, cut to the range: even, and the same in every run.
        let range = count.next_power_of_two();
        let mut number = 12_345 % range;
        let mut draw = || {
            loop {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) % range;
                if number < count {
                    return number;
                }
            }
        };
        let path = token_path(org);
        self.requests = (0..DRAWN)
            .map(|_| {
                let (client_id, client_secret) = agents::credentials(draw());
                load::token_request(self.address, &path, &client_id, &client_secret)
            })
            .collect();
    }

    /// One round of `total` requests.
    pub(crate) fn measure(&self, total: usize) -> Sample {
        let before = self.process.cpu();
        let round = crate::one_thread().block_on(load::run(self.address, self.requests.clone(), total));
        let used = self.process.cpu().saturating_sub(before);
        let count = u32::try_from(total).expect("a round is not that long");
        Sample {
            cpu: used / count,
            per_second: f64::from(count) / round.wall.as_secs_f64(),
            p50: round.quantile(0.5),
            p99: round.quantile(0.99),
        }
    }
}

/// How many bytes are signed for this request, and how many are its answer.
fn answer_of(address: SocketAddr, request: &[u8]) -> (usize, usize) {
    let answer = crate::one_thread().block_on(load::once(address, request)).expect("the server answers");
    let json: serde_json::Value = serde_json::from_slice(&answer).expect("the answer is JSON");
    let token = json["access_token"].as_str().expect("a token");
    (token.rfind('.').expect("a signature"), answer.len())
}

/// Starts one of the servers in this binary.
fn own(verb: &str, arguments: &[String]) -> (Process, SocketAddr) {
    let mut command = Command::new(env::current_exe().expect("this binary has a path"));
    command.arg(verb).args(arguments).stdout(Stdio::piped());
    let mut process = Process::start(&mut command);
    let address = process.first_line().parse().expect("an address");
    (process, address)
}

/// Tells the harness that a server of its own accepts at `address`.
pub(crate) fn announce(address: SocketAddr) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{address}").and_then(|()| output.flush()).expect("the harness listens");
}

pub(crate) fn token_path(org: &str) -> String {
    format!("/orgs/{org}/api/v1/oauth/token")
}

/// What `dev` writes once it accepts connections.
fn wait_for_variables(process: &mut Process, file: &Path) -> BTreeMap<String, String> {
    let watch = Stopwatch::start();
    loop {
        if let Ok(text) = fs::read_to_string(file)
            && text.ends_with('\n')
            && text.contains("OTHER_CLIENT_SECRET=")
        {
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            return pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        }
        process.assert_alive();
        assert!(watch.elapsed() < Duration::from_secs(60), "the server does not come up");
        thread::sleep(Duration::from_millis(2));
    }
}
