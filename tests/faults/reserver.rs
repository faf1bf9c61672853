//! Clients that reserve, settle and release, note what they were told, and check it afterwards.

use std::{
    fmt, io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use lumoauth_tests::{Connection, Request, Response, Server, Stopwatch, text, unique};

use crate::{answers::is_not_now, ledger::Agent, writers::Expect};

/// The maximum of a spender in micro-dollars, and as its policy says it.
pub(crate) const MAX_MICRO: u64 = 4000;
pub(crate) const MAX: &str = "0.004";

/// Above this a human is asked, and this is above it.
pub(crate) const THRESHOLD: &str = "0.001";
pub(crate) const PARKED: u64 = 1001;

const PATH: &str = "/agents/me/budget/reservations";

impl Agent {
    /// A request about the reservation `id`; `end` is what follows the id in the path.
    pub(crate) fn reservation(&self, server: &Server, method: &str, id: &str, end: &str) -> Request {
        server.acme().request(method, &format!("{PATH}/{id}{end}")).bearer(&self.token)
    }

    /// A request to hold `micro` micro-dollars.
    fn reserve(&self, server: &Server, id: &str, micro: u64) -> Request {
        let body = format!(r#"{{"id":"{id}","cost_usd":"{}","lease_seconds":3600}}"#, dollars(micro));
        server.acme().post(PATH).bearer(&self.token).body("application/json", body)
    }

    /// How many micro-dollars it holds, as it is shown.
    fn held(&self, server: &Server) -> u64 {
        micro(&server.acme().get("/agents/me/budget").bearer(&self.token).send().ok()["held"]["cost_usd"])
    }

    fn resolve(&self, server: &Server, entry: &Entry) -> Request {
        match entry.end {
            End::Settled(micro) => {
                let body = format!(r#"{{"cost_usd":"{}"}}"#, dollars(micro));
                self.reservation(server, "POST", &entry.id, "/settle").body("application/json", body)
            }
            End::Kept | End::Released => self.reservation(server, "POST", &entry.id, "/release"),
        }
    }
}

fn dollars(micro: u64) -> String {
    format!("0.{micro:06}")
}

/// The micro-dollars of an amount in an answer.
fn micro(amount: &serde_json::Value) -> u64 {
    let text = text(amount);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{fraction:0<6}").parse().unwrap_or_else(|_| panic!("{amount} is no amount"))
}

/// Makes a reservation that waits for a human; its id.
pub(crate) fn park(server: &Server, spender: &Agent) -> String {
    let id = unique("parked");
    let made = spender.reserve(server, &id, PARKED).send().expect(202).json();
    assert_eq!(made["status"], "pending_approval");
    id
}

/// How a reservation is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Settled(u64),
    Released,
    Kept,
}

/// What a caller knows about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It was not made.
    Nothing,
    Done,
    Unknown,
}

/// One reservation, as its maker knows it.
#[derive(Clone, Debug)]
struct Entry {
    id: String,
    amount: u64,
    end: End,
    made: Told,
    ended: Told,
    /// Whether what it stands in was lost since it was made, or may have been.
    lost: bool,
}

/// All reservations of one spender.
#[derive(Debug, Default)]
pub(crate) struct Book {
    entries: Mutex<Vec<Entry>>,
    refused: AtomicU64,
    stopped: AtomicBool,
    steps: AtomicU64,
}

impl Book {
    /// Reservers may go on until what is returned is dropped, also in a panic.
    #[must_use]
    pub(crate) fn open(&self) -> Load<'_> {
        Load(self)
    }

    /// How many calls were acknowledged since the last time that this was asked.
    pub(crate) fn take_steps(&self) -> u64 {
        self.steps.swap(0, Ordering::Relaxed)
    }
}

/// While it is there, reservers reserve.
#[derive(Debug)]
pub(crate) struct Load<'a>(&'a Book);

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

/// One client, which reserves at one server and resolves at another.
#[derive(Debug)]
pub(crate) struct Reserver<'a> {
    pub(crate) servers: [&'a Server; 2],
    pub(crate) spender: &'a Agent,
    pub(crate) book: &'a Book,
    pub(crate) expect: [Expect; 2],
}

/// What became of a request.
enum Fate {
    Answered(Response),
    Unknown,
    Died,
}

impl Reserver<'_> {
    /// Reserves and resolves until the load ends or a server dies.
    pub(crate) fn reserve(&self, number: usize) {
        let connect = |server: &Server| Connection::open(server.authority()).expect("the server listens");
        let [mut here, mut there] = self.servers.map(connect);
        let mut mine = Vec::new();
        for step in number.. {
            if self.book.stopped.load(Ordering::Relaxed)
                || !self.step(step, &mut mine, [&mut here, &mut there])
            {
                break;
            }
        }
        self.book.entries.lock().unwrap_or_else(PoisonError::into_inner).extend(mine);
    }

    /// One reservation. Gives whether the servers live.
    fn step(&self, step: usize, mine: &mut Vec<Entry>, [here, there]: [&mut Connection; 2]) -> bool {
        let step = u64::try_from(step).expect("fits");
        let end = match step % 32 {
            31 => End::Kept,
            odd if odd % 2 == 1 => End::Settled(step % 5),
            _ => End::Released,
        };
        let amount = 200 + step * 137 % 700;
        let entry =
            Entry { id: unique("r"), amount, end, made: Told::Unknown, ended: Told::Nothing, lost: false };
        mine.push(entry);
        let entry = mine.last_mut().expect("just pushed");
        match self.send(0, here, &self.spender.reserve(self.servers[0], &entry.id, amount)) {
            Fate::Died => return false,
            Fate::Unknown => return true,
            Fate::Answered(response) if response.status == 429 => {
                response.refused(429, "budget_exceeded");
                self.book.refused.fetch_add(1, Ordering::Relaxed);
                entry.made = Told::Nothing;
                return true;
            }
            Fate::Answered(response) => {
                let body = response.expect(201).json();
                assert!(micro(&body["remaining"]["cost_usd"]) + amount <= MAX_MICRO, "{body}");
                entry.made = Told::Done;
            }
        }
        if end == End::Kept {
            return true;
        }
        entry.ended = Told::Unknown;
        match self.send(1, there, &self.spender.resolve(self.servers[1], entry)) {
            Fate::Died => return false,
            Fate::Unknown => {}
            // What it was held in was lost since.
            Fate::Answered(response) if response.status == 404 && self.expect[1] == Expect::StoreFails => {
                (entry.ended, entry.lost) = (Told::Nothing, true);
            }
            Fate::Answered(response) => {
                response.ok();
                entry.ended = Told::Done;
            }
        }
        true
    }

    fn send(&self, place: usize, connection: &mut Connection, request: &Request) -> Fate {
        let answer: io::Result<Response> = connection.send(request);
        match (answer, self.expect[place]) {
            (Ok(response), _) if response.status < 500 => {
                self.book.steps.fetch_add(1, Ordering::Relaxed);
                Fate::Answered(response)
            }
            (Ok(response), Expect::StoreFails) => {
                assert!(is_not_now(&response), "{response}");
                thread::sleep(Duration::from_millis(50));
                Fate::Unknown
            }
            (Err(_), Expect::ServerDies) => Fate::Died,
            (Ok(response), _) => panic!("{response}\n{}", self.servers[place].log()),
            (Err(error), _) => panic!("no answer: {error}\n{}", self.servers[place].log()),
        }
    }
}

/// What a fault may take along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    Nothing,
    /// Reservations that were there when it happened. What they held counts as spent.
    OfWhatWasThere,
}

/// What was seen over all rounds.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    made: usize,
    refused: u64,
    settled: usize,
    released: usize,
    kept: usize,
    unknown: usize,
    happened: usize,
    repeated: usize,
    lost: usize,
    wasted: Vec<u64>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { made, refused, settled, released, kept, unknown, happened, repeated, lost, wasted } = self;
        write!(
            f,
            "{made} reservations made, {refused} refused, {settled} settled, {released} released, {kept} held to the end; \
             {unknown} answers lost ({happened} of these reservations were made), {repeated} resolutions repeated; \
             {lost} reservations lost"
        )?;
        let wasted = wasted.iter().filter(|wasted| **wasted > 0);
        let (times, most) = wasted.fold((0, 0), |(times, most), wasted| (times + 1, (*wasted).max(most)));
        write!(f, ", waste in {times} rounds, {most} micro-dollars at most")
    }
}

impl Tally {
    /// Checks that the servers know what was acknowledged, that what is shown as used is what is known, and that it fits.
    pub(crate) fn add(&mut self, servers: &[Server], spender: &Agent, book: Book, loss: Loss) {
        self.refused += book.refused.into_inner();
        let entries = book.entries.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut askers: Vec<_> = servers.iter().map(|server| Asker::new(server, spender)).collect();
        let (mut counted, mut lost, mut held) = (0, 0, 0);
        for (number, entry) in entries.iter().enumerate() {
            let place = number % askers.len();
            let asker = &mut askers[place];
            self.made += usize::from(entry.made == Told::Done);
            self.unknown += usize::from(entry.made == Told::Unknown || entry.ended == Told::Unknown);
            let found = asker.found(entry);
            match (found, entry.made) {
                (None, Told::Nothing | Told::Unknown) => {}
                (None, Told::Done) => {
                    assert_eq!(loss, Loss::OfWhatWasThere, "{entry:?} is lost");
                    self.lost += 1;
                    lost += entry.least();
                }
                (Some(found), made) => {
                    assert_ne!(made, Told::Nothing, "{entry:?} was refused, and is {found:?}");
                    self.happened += usize::from(made == Told::Unknown);
                    let found = if entry.ended == Told::Unknown && number % 3 > 0 {
                        self.repeated += 1;
                        asker.repeat(entry)
                    } else {
                        found
                    };
                    assert!(entry.allows(found), "{entry:?} is {found:?}");
                    if number % 7 == 0 {
                        asker.reserve_again(entry);
                    }
                    match found {
                        End::Kept => {
                            (counted, held) = (counted + entry.amount, held + entry.amount);
                            self.kept += 1;
                        }
                        End::Settled(used) => {
                            counted += used;
                            self.settled += 1;
                        }
                        End::Released => self.released += 1,
                    }
                }
            }
        }
        for server in servers {
            let (used, live) = (spender.used(server), spender.held(server));
            assert!(used <= MAX_MICRO, "{used} micro-dollars are used");
            assert_eq!(live, held);
            match loss {
                Loss::Nothing => assert_eq!(used, counted, "{entries:?}"),
                Loss::OfWhatWasThere => {
                    assert!(used >= counted + lost, "{used}: {counted}, {lost}: {entries:?}")
                }
            }
        }
        self.wasted.push(spender.used(&servers[0]) - counted - lost);
    }
}

impl Entry {
    /// Whether it may have ended like this.
    fn allows(&self, found: End) -> bool {
        match (self.ended, found) {
            (Told::Nothing, _) => found == End::Kept && !self.lost,
            (Told::Done, _) => found == self.end,
            (Told::Unknown, _) => found == End::Kept || found == self.end,
        }
    }

    /// What it must count if nobody knows it any more.
    const fn least(&self) -> u64 {
        match (self.ended, self.end) {
            (Told::Nothing, _) | (_, End::Kept) => self.amount,
            (Told::Done | Told::Unknown, End::Settled(used)) => used,
            (Told::Done | Told::Unknown, End::Released) => 0,
        }
    }
}

/// The spender at one server, once the fault is over.
struct Asker<'a> {
    server: &'a Server,
    spender: &'a Agent,
    connection: Connection,
}

impl<'a> Asker<'a> {
    fn new(server: &'a Server, spender: &'a Agent) -> Self {
        let connection = Connection::open(server.authority()).expect("the server listens");
        Self { server, spender, connection }
    }

    /// The answer, once there is one.
    fn ask(&mut self, request: &Request) -> Response {
        let watch = Stopwatch::start();
        loop {
            let response = self.connection.send(request).expect("an answer");
            if !is_not_now(&response) {
                return response;
            }
            assert!(watch.elapsed() < Duration::from_secs(30), "it does not recover: {response}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn found(&mut self, entry: &Entry) -> Option<End> {
        let response = self.ask(&self.spender.reservation(self.server, "GET", &entry.id, ""));
        if response.status == 404 {
            return None;
        }
        Some(end_of(&response))
    }

    /// Repeats how it was to end, as a careful client does that was not answered.
    fn repeat(&mut self, entry: &Entry) -> End {
        let end = end_of(&self.ask(&self.spender.resolve(self.server, entry)));
        assert_eq!(end, entry.end, "{entry:?}");
        end
    }

    /// Repeats its making, which changes nothing.
    fn reserve_again(&mut self, entry: &Entry) {
        self.ask(&self.spender.reserve(self.server, &entry.id, entry.amount)).ok();
    }
}

#[track_caller]
fn end_of(response: &Response) -> End {
    let body = response.ok();
    match text(&body["status"]) {
        "held" => End::Kept,
        "released" => End::Released,
        "settled" => End::Settled(micro(&body["charged"]["cost_usd"])),
        other => panic!("{other}: {body}"),
    }
}
