//! The client: kept-alive connections that send prepared bytes, count answers, and insist on 200.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lumoauth_tests::Stopwatch;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

/// How many connections there are; each has one request under way.
const CONNECTIONS: usize = 32;

/// An answer that takes longer will not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one round showed.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// From the first request to the last answer.
    pub(crate) wall: Duration,
    /// Of each request, ascending.
    latencies: Vec<Duration>,
}

impl Round {
    /// The latency that this share of the requests did not exceed.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into a list of latencies"
        )]
        let index = (self.latencies.len() as f64 * share) as usize;
        self.latencies[index.min(self.latencies.len() - 1)]
    }
}

/// A request for a token of a client, as it goes over the wire.
pub(crate) fn token_request(
    address: SocketAddr,
    path: &str,
    client_id: &str,
    client_secret: &str,
) -> Vec<u8> {
    let body = format!("grant_type=client_credentials&client_id={client_id}&client_secret={client_secret}");
    form(address, path, &body)
}

/// A form posted to `path`, as it goes over the wire.
pub(crate) fn form(address: SocketAddr, path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: lumoauth-bench\r\nAccept: */*\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends `total` requests, going round in `requests`.
pub(crate) async fn run(address: SocketAddr, requests: Arc<[Vec<u8>]>, total: usize) -> Round {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(address).await.expect("the server accepts"));
    }
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    let watch = Stopwatch::start();
    for mut connection in connections {
        let (requests, next) = (requests.clone(), next.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::with_capacity(2 * total / CONNECTIONS);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return latencies;
                }
                let watch = Stopwatch::start();
                let answer = timeout(PATIENCE, connection.exchange(&requests[number % requests.len()])).await;
                answer.expect("an answer in time").expect("an answer of 200");
                latencies.push(watch.elapsed());
            }
        });
    }
    let mut latencies = Vec::with_capacity(total);
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done.expect("a connection works to the end"));
    }
    let wall = watch.elapsed();
    latencies.sort_unstable();
    Round { wall, latencies }
}

/// The body that one request is answered with.
pub(crate) async fn once(address: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut connection = Connection::open(address).await?;
    let (head, length) = connection.exchange(request).await?;
    Ok(connection.buffer[head..head + length].to_vec())
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 16 * 1024] })
    }

    /// Sends `request` and reads an answer with status 200. The lengths of its head and its body, which are in the
    /// buffer then.
    async fn exchange(&mut self, request: &[u8]) -> io::Result<(usize, usize)> {
        let mut sent = 0;
        while sent < request.len() {
            self.stream.writable().await?;
            sent += or_not_yet(self.stream.try_write(&request[sent..]))?;
        }
        let mut filled = 0;
        let mut whole = None;
        loop {
            if let Some((head, length)) = whole
                && filled >= head + length
            {
                return Ok((head, length));
            }
            self.stream.readable().await?;
            match self.stream.try_read(&mut self.buffer[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += or_not_yet(read)?,
            }
            if whole.is_none() {
                whole = parse_head(&self.buffer[..filled])?;
            }
        }
    }
}

fn or_not_yet(done: io::Result<usize>) -> io::Result<usize> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        done => done,
    }
}

/// The lengths of head and body, once the head is there.
fn parse_head(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = str::from_utf8(&bytes[..end]).map_err(io::Error::other)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other(format!("not a 200: {head}")));
    }
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(|| io::Error::other("no content-length"))?;
    Ok(Some((end + 4, length)))
}
