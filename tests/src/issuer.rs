//! A platform's token issuer: discovery, keys that can be changed, and tokens with real signatures.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use crate::AttackerKey;

/// The one issuer that servers under test may fetch keys from.
pub fn fetched_issuer() -> &'static Issuer {
    static ISSUER: OnceLock<Issuer> = OnceLock::new();
    ISSUER.get_or_init(Issuer::start)
}

/// A key with its `kid`.
type NamedKey = (String, Arc<AttackerKey>);

/// A running issuer; it ends with the process.
#[derive(Clone, Debug)]
pub struct Issuer {
    url: String,
    keys: Arc<Mutex<Vec<NamedKey>>>,
    asked: Arc<AtomicU64>,
}

impl Issuer {
    /// Starts one on a free port of the loopback, with a key that is called `k1`.
    ///
    /// # Panics
    /// When there is no port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let issuer = Self { url, keys: Arc::default(), asked: Arc::default() };
        issuer.rotate("k1");
        let serving = issuer.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let issuer = serving.clone();
                thread::spawn(move || issuer.answer(stream));
            }
        });
        issuer
    }

    /// The `iss` of its tokens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How often its keys were asked for.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Makes `kid` its only key.
    ///
    /// # Panics
    /// Never in practice.
    pub fn rotate(&self, kid: &str) {
        let key = (kid.to_owned(), Arc::new(AttackerKey::generate()));
        *self.keys.lock().expect("no panic under this lock") = vec![key];
    }

    /// Its keys, as it publishes them.
    ///
    /// # Panics
    /// Never in practice.
    pub fn jwks(&self) -> Value {
        let keys = self.keys.lock().expect("no panic under this lock");
        json!({ "keys": keys.iter().map(|(kid, key)| key.jwk(kid)).collect::<Vec<_>>() })
    }

    /// A token with these claims, signed by its key.
    ///
    /// # Panics
    /// Never in practice.
    pub fn sign(&self, claims: &Value) -> String {
        let keys = self.keys.lock().expect("no panic under this lock");
        let (kid, key) = keys.first().expect("there is a key");
        key.sign(&json!({ "alg": "ES256", "kid": kid, "typ": "JWT" }), claims)
    }

    fn answer(&self, mut stream: TcpStream) {
        let Ok(reading) = stream.try_clone() else { return };
        let mut lines = BufReader::new(reading).lines().map_while(Result::ok);
        let first = lines.next().unwrap_or_default();
        for line in lines {
            if line.is_empty() {
                break;
            }
        }
        let body = match first.split(' ').nth(1) {
            Some("/.well-known/openid-configuration") => {
                json!({ "issuer": self.url, "jwks_uri": format!("{}/jwks", self.url) })
            }
            Some("/jwks") => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                self.jwks()
            }
            _ => Value::Null,
        };
        let status = if body.is_null() { "404 Not Found" } else { "200 OK" };
        let body = body.to_string();
        let _ = write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
}
