//! Several servers of one deployment: one database, the same keys and credentials, one public URL.

use std::{
    env, fs,
    hash::{BuildHasher, RandomState},
    net::TcpListener,
    path::PathBuf,
};

use lumoauth_tests::{Backend, Options, Server, unique};

/// Where the replicas of one deployment listen, and what they share besides the database.
#[derive(Debug)]
pub(crate) struct Deployment {
    dir: PathBuf,
    addresses: Vec<String>,
}

impl Deployment {
    /// A deployment of `replicas` servers, none of which runs yet.
    pub(crate) fn of(replicas: usize) -> Self {
        let dir = env::temp_dir().join(unique("lumoauth-deployment"));
        fs::create_dir_all(&dir).expect("a test directory can be made");
        let mut addresses = Vec::new();
        while addresses.len() < replicas {
            let address = free_address();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Self { dir, addresses }
    }

    /// How to start the replica of this number on `store`. It always has the same address.
    pub(crate) fn options(&self, number: usize, store: &str) -> Options {
        let credentials = self.dir.join("credentials");
        // The services are the test's own, so none are made for the server.
        Options::new(Backend::Memory)
            .store(store)
            .listen(&self.addresses[number])
            .argument("--public-url")
            .argument(&format!("http://{}", self.addresses[0]))
            .argument("--credentials")
            .argument(credentials.to_str().expect("a plain path"))
            .variable("LUMOAUTH_MASTER_KEY", MASTER_KEY)
    }

    /// Starts all of them on one store.
    pub(crate) fn start(&self, store: &str) -> Vec<Server> {
        (0..self.addresses.len()).map(|number| Server::start(&self.options(number, store))).collect()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// 32 bytes in Base64; it protects nothing.
const MASTER_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// An address that nobody listens on, below the ports that the system gives to clients: a server that is started
/// again finds it free.
fn free_address() -> String {
    for _ in 0..1000 {
        let noise = RandomState::new().hash_one(unique("port")) % 12_000;
        let address = format!("127.0.0.1:{}", 20_000 + noise);
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
    panic!("no free port");
}
