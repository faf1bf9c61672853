//! Configurations of `serve`, each in a directory of its own.

use std::{
    env,
    fmt::Write as _,
    fs,
    hash::{BuildHasher, RandomState},
    net::TcpListener,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{b64, unique};

/// What `serve` is to run: a memory store with the organizations `acme-corp` and `globex`, on a free port, unless a
/// test says otherwise.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    dir: PathBuf,
    authority: String,
    scheme: &'static str,
    store: String,
    lines: String,
    master_key: String,
    api_key: String,
}

impl ServeOptions {
    /// A configuration in a new directory.
    ///
    /// # Panics
    /// When there is no room for one.
    #[expect(clippy::new_without_default, reason = "it makes a directory, which a default should not")]
    pub fn new() -> Self {
        let dir = env::temp_dir().join(unique("lumoauth-serve"));
        fs::create_dir_all(&dir).expect("a test directory can be made");
        Self {
            dir,
            authority: format!("127.0.0.1:{}", free_port()),
            scheme: "http",
            store: "memory".to_owned(),
            lines: String::new(),
            master_key: STANDARD.encode(noise()),
            api_key: format!("lmk_acme-corp_{}", b64(noise())),
        }
    }

    /// Keeps everything in a file of the directory.
    #[must_use]
    pub fn embedded(mut self) -> Self {
        self.store = format!("embedded:{}", self.dir.join("data").display());
        self
    }

    /// Speaks TLS with this certificate and key.
    #[must_use]
    pub fn tls(mut self, cert: &Path, key: &Path) -> Self {
        self.scheme = "https";
        let _ = write!(self.lines, "\n[tls]\ncert = {cert:?}\nkey = {key:?}\n");
        self
    }

    /// More of the file, before its tables.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.lines.insert_str(0, &format!("{line}\n"));
        self
    }

    /// `host:port`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The first administrator's API key.
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// The variables that `serve` needs beside the file.
    pub fn variables(&self) -> Vec<(&str, &str)> {
        vec![("LUMOAUTH_MASTER_KEY", &self.master_key), ("LUMOAUTH_BOOTSTRAP_API_KEY", &self.api_key)]
    }

    /// Writes the file and gives its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self) -> PathBuf {
        let Self { authority, scheme, store, lines, .. } = self;
        let organizations: String = [("acme-corp", "Acme Corp"), ("globex", "Globex")]
            .iter()
            .map(|(slug, name)| format!("\n[[organizations]]\nslug = {slug:?}\nname = {name:?}\n"))
            .collect();
        let text = format!(
            "listen = {authority:?}\npublic_url = \"{scheme}://{authority}\"\nstore = {store:?}\n{lines}{organizations}"
        );
        let path = self.dir.join("lumoauth.toml");
        fs::write(&path, text).expect("the configuration can be written");
        path
    }
}

/// 32 bytes that nobody else has.
fn noise() -> [u8; 32] {
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&RandomState::new().hash_one(unique("noise")).to_le_bytes());
    }
    bytes
}

/// The public URL must be known before the server listens, so the system cannot choose the port. It is below those
/// that the system gives to the clients of the other tests.
fn free_port() -> u16 {
    for _ in 0..100 {
        let noise = RandomState::new().hash_one(unique("port")) % 12_000;
        let port = 20_000 + u16::try_from(noise).expect("below 12000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}
