//! A network that misbehaves on purpose.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    mem,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two ways")]
pub enum Direction {
    /// From the client to the service: requests are lost.
    ToService,
    /// From the service to the client: answers are lost.
    ToClient,
}

/// Stands between a client and a service, and passes everything on until told otherwise.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    connections: BTreeMap<u64, (TcpStream, TcpStream)>,
    accepted: u64,
    /// How many bytes still pass, by direction, before the connection that carries the last of them is cut.
    until_cut: [Option<u64>; 2],
    passed: [u64; 2],
    cuts: u64,
    delay: Duration,
    stalled: bool,
    refusing: bool,
    over: bool,
}

impl Proxy {
    /// Listens on a free port for clients of `target`.
    ///
    /// # Panics
    /// When there is no port.
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let shared =
            Arc::new(Shared { target: Mutex::new(target), state: Mutex::default(), changed: Condvar::new() });
        let accepting = shared.clone();
        thread::spawn(move || accepting.accept(&listener));
        Self { address, shared }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets `bytes` more pass in `direction`, over all connections, and then cuts the connection that carried the
    /// last one. Once; the other connections stay, and new ones are accepted.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.shared.lock().until_cut[direction as usize] = Some(bytes);
    }

    /// Takes back a [`cut_after`](Self::cut_after) that has not happened.
    pub fn do_not_cut(&self) {
        self.shared.lock().until_cut = [None; 2];
    }

    /// Cuts every connection now. New ones are accepted.
    pub fn cut_all(&self) {
        self.shared.lock().cut_all();
    }

    /// From now on no byte passes, and nothing is closed: a network that swallows packets.
    pub fn stall(&self) {
        self.shared.lock().stalled = true;
    }

    /// Everything passes again, also what was held back.
    pub fn resume(&self) {
        self.shared.lock().stalled = false;
        self.shared.changed.notify_all();
    }

    /// Holds back each piece of data for this long, both ways.
    pub fn delay(&self, delay: Duration) {
        self.shared.lock().delay = delay;
    }

    /// Cuts every connection and closes new ones at once, until [`accept`](Self::accept).
    pub fn refuse(&self) {
        let mut state = self.shared.lock();
        state.refusing = true;
        state.cut_all();
    }

    /// Takes connections again.
    pub fn accept(&self) {
        self.shared.lock().refusing = false;
    }

    /// Leads new connections to another service; the others stay where they are, as when a name gets a new address.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// How many bytes went in `direction` so far.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.shared.lock().passed[direction as usize]
    }

    /// How many connections were passed on so far.
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// How many connections [`cut_after`](Self::cut_after) has cut so far.
    pub fn cuts(&self) -> u64 {
        self.shared.lock().cuts
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.over = true;
            state.stalled = false;
            state.cut_all();
        }
        self.shared.changed.notify_all();
        // The thread that accepts waits for a client.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming().flatten() {
            if self.lock().over {
                return;
            }
            if !self.lock().refusing {
                // A service that does not listen is seen by the client as a connection that is closed at once.
                let _ = self.connect(client);
            }
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> std::io::Result<()> {
        let target = *self.target.lock().unwrap_or_else(PoisonError::into_inner);
        let service = TcpStream::connect(target)?;
        client.set_nodelay(true)?;
        service.set_nodelay(true)?;
        let pair = (client.try_clone()?, service.try_clone()?);
        let id = {
            let mut state = self.lock();
            // Whoever refuses from here on cuts this one as well.
            if state.refusing || state.over {
                return Ok(());
            }
            state.accepted += 1;
            let id = state.accepted;
            state.connections.insert(id, pair);
            id
        };
        for (direction, from, to) in [
            (Direction::ToService, client.try_clone()?, service.try_clone()?),
            (Direction::ToClient, service, client),
        ] {
            let shared = self.clone();
            thread::spawn(move || shared.pump(id, direction, from, to));
        }
        Ok(())
    }

    fn pump(&self, id: u64, direction: Direction, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let delay = self.lock().delay;
            if !delay.is_zero() {
                thread::sleep(delay);
            }
            let mut state = self.lock();
            while state.stalled {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let (pass, cut) = state.admit(direction, read);
            drop(state);
            let written = to.write_all(&buffer[..pass]);
            if cut || written.is_err() {
                break;
            }
        }
        // Both ways at once: half of a connection is of no use to these clients, and a cut leaves none.
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
        self.lock().connections.remove(&id);
    }
}

impl State {
    /// How many of `read` bytes go on, and whether the connection ends after them.
    fn admit(&mut self, direction: Direction, read: usize) -> (usize, bool) {
        let way = direction as usize;
        let wanted = u64::try_from(read).expect("a buffer is small");
        let pass = match &mut self.until_cut[way] {
            Some(left) if *left < wanted => {
                let pass = *left;
                self.until_cut[way] = None;
                self.cuts += 1;
                pass
            }
            Some(left) => {
                *left -= wanted;
                wanted
            }
            None => wanted,
        };
        self.passed[way] += pass;
        (usize::try_from(pass).expect("no more than was read"), pass < wanted)
    }

    fn cut_all(&mut self) {
        for (client, service) in mem::take(&mut self.connections).into_values() {
            let _ = client.shutdown(Shutdown::Both);
            let _ = service.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends back what it gets.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut buffer = [0; 64];
                    while let Ok(read @ 1..) = stream.read(&mut buffer) {
                        let _ = stream.write_all(&buffer[..read]);
                    }
                });
            }
        });
        address
    }

    fn exchange(stream: &mut TcpStream, text: &str) -> String {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let _ = stream.write_all(text.as_bytes());
        let mut answer = vec![0; text.len()];
        let mut got = 0;
        while got < answer.len() {
            match stream.read(&mut answer[got..]) {
                Ok(read @ 1..) => got += read,
                _ => break,
            }
        }
        String::from_utf8_lossy(&answer[..got]).into_owned()
    }

    #[test]
    fn a_connection_is_cut_after_so_many_bytes_and_the_next_one_is_whole() {
        let proxy = Proxy::start(echo());
        let connect = || TcpStream::connect(proxy.address()).unwrap();
        let (mut first, mut second) = (connect(), connect());
        assert_eq!(exchange(&mut first, "hello"), "hello");
        assert_eq!(exchange(&mut second, "hello"), "hello");
        proxy.cut_after(Direction::ToClient, 7);
        assert_eq!(exchange(&mut first, "hello"), "hello");
        assert_eq!(exchange(&mut first, "hello"), "he");
        assert_eq!((proxy.cuts(), proxy.passed(Direction::ToClient)), (1, 17));
        assert_eq!(exchange(&mut second, "hello"), "hello");
        proxy.cut_after(Direction::ToService, 0);
        assert_eq!(exchange(&mut second, "hello"), "");
        assert_eq!(exchange(&mut connect(), "hello"), "hello");
    }

    #[test]
    fn a_stalled_connection_goes_on_and_a_refused_one_ends() {
        let proxy = Proxy::start(echo());
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(exchange(&mut stream, "hello"), "hello");
        proxy.stall();
        stream.write_all(b"later").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(stream.read(&mut [0; 5]).is_err());
        proxy.resume();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut late = [0; 5];
        stream.read_exact(&mut late).unwrap();
        assert_eq!(&late, b"later");
        proxy.refuse();
        assert_eq!(exchange(&mut stream, "hello"), "");
        assert_eq!(exchange(&mut TcpStream::connect(proxy.address()).unwrap(), "hello"), "");
        proxy.accept();
        assert_eq!(exchange(&mut TcpStream::connect(proxy.address()).unwrap(), "hello"), "hello");
    }
}
