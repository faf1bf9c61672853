//! Configurations of `serve`, each in a directory of its own.

use std::{
    env,
    fmt::Write as _,
    fs,
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    Backend, KeySite, Sts, b64, https::Authority, run_server, server::Place, services::free_port, unique,
};

/// What `serve` is to run: a memory store with the organizations `acme-corp` and `globex`, on a free port, unless a
/// test says otherwise.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    dir: PathBuf,
    authority: String,
    public: String,
    scheme: &'static str,
    store: String,
    place: Option<Place>,
    lines: String,
    master_key: String,
    api_key: String,
    roots: Option<String>,
    more: Vec<(String, String)>,
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
        let authority = format!("127.0.0.1:{}", free_port());
        Self {
            dir,
            public: authority.clone(),
            authority,
            scheme: "http",
            store: "memory".to_owned(),
            place: None,
            lines: String::new(),
            master_key: STANDARD.encode(noise()),
            api_key: format!("lmk_acme-corp_{}", b64(noise())),
            roots: None,
            more: Vec::new(),
        }
    }

    /// Keeps everything in a file of the directory.
    #[must_use]
    pub fn embedded(mut self) -> Self {
        self.store = format!("embedded:{}", self.dir.join("data").display());
        self
    }

    /// Keeps everything on `backend`. What PostgreSQL needs is there once [`migrate`](Self::migrate) was called.
    ///
    /// # Panics
    /// When a service that the backend needs is not there.
    #[must_use]
    pub fn on(mut self, backend: Backend) -> Self {
        let place = Place::new(backend);
        self.store = place.store(&self.dir);
        self.place = Some(place);
        self
    }

    /// Another replica of the same server: the same database, keys and public URL, in a directory and on a port of
    /// its own.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub fn replica(&self) -> Self {
        let fresh = Self::new();
        Self { dir: fresh.dir, authority: fresh.authority, ..self.clone() }
    }

    /// Runs on another store, as the configuration names it: for services of a test's own.
    #[must_use]
    pub fn store_at(mut self, url: &str) -> Self {
        url.clone_into(&mut self.store);
        self
    }

    /// One more environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.more.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs `migrate`, as an operator does before the first start of a version.
    ///
    /// # Panics
    /// When it fails.
    pub fn migrate(&self) {
        let (code, text) = run_server(&["migrate", "--store", &self.store], &[]);
        assert_eq!(code, Some(0), "{text}");
    }

    /// Speaks TLS with this certificate and key.
    #[must_use]
    pub fn tls(mut self, cert: &Path, key: &Path) -> Self {
        self.scheme = "https";
        let _ = write!(self.lines, "\n[tls]\ncert = {cert:?}\nkey = {key:?}\n");
        self
    }

    /// Knows of the sites that are served here by https, as [`Options::knowing_our_sites`](crate::Options) says.
    ///
    /// # Panics
    /// When the certificate cannot be written.
    #[must_use]
    pub fn knowing_our_sites(mut self) -> Self {
        let roots = self.dir.join("roots.pem");
        fs::write(&roots, Authority::trusted().pem()).expect("the certificate can be written");
        self.roots = Some(roots.display().to_string());
        let origins = Sts::trusted().origins().chain([KeySite::trusted().origin().to_owned()]);
        let lines = self.line(&format!("fetch.allow = {:?}", origins.collect::<Vec<_>>()));
        lines.line(&format!("fetch.post = {:?}", [KeySite::trusted().origin()]))
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

    /// The store, as the configuration names it.
    pub fn store(&self) -> &str {
        &self.store
    }

    pub(crate) fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The first administrator's API key.
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// The same with another key for the first administrator.
    #[must_use]
    pub fn another_key(mut self) -> Self {
        self.api_key = format!("lmk_acme-corp_{}", b64(noise()));
        self
    }

    /// The variables that `serve` needs beside the file.
    pub fn variables(&self) -> Vec<(&str, &str)> {
        let roots = self.roots.as_deref().map(|file| ("SSL_CERT_FILE", file));
        let secrets =
            [("LUMOAUTH_MASTER_KEY", &*self.master_key), ("LUMOAUTH_BOOTSTRAP_API_KEY", &*self.api_key)];
        let more = self.more.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        secrets.into_iter().chain(roots).chain(more).collect()
    }

    /// Writes the file and gives its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self) -> PathBuf {
        let Self { authority, public, scheme, store, lines, .. } = self;
        let organizations: String = [("acme-corp", "Acme Corp"), ("globex", "Globex")]
            .iter()
            .map(|(slug, name)| format!("\n[[organizations]]\nslug = {slug:?}\nname = {name:?}\n"))
            .collect();
        let text = format!(
            "listen = {authority:?}\npublic_url = \"{scheme}://{public}\"\nstore = {store:?}\n{lines}{organizations}"
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
