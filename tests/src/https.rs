//! Sites that servers under test reach by https: an authority of our own, and what is served under its certificate.

use std::{
    env, fmt, fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::Command,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use serde_json::Value;
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::{STS_HOSTS, unique};

/// An authority that issued one certificate, for every name that our sites have.
pub(crate) struct Authority {
    pem: String,
    tls: Arc<ServerConfig>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// The one that servers trust which know of our sites.
    pub(crate) fn trusted() -> &'static Self {
        static AUTHORITY: OnceLock<Authority> = OnceLock::new();
        AUTHORITY.get_or_init(Self::new)
    }

    /// One that nobody trusts.
    pub(crate) fn new() -> Self {
        let dir = env::temp_dir().join(unique("lumoauth-authority"));
        fs::create_dir_all(&dir).expect("a test directory can be made");
        let names: String = STS_HOSTS.iter().map(|host| format!("DNS:{host},")).collect();
        openssl(&dir, &["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority of the tests"]);
        let names = format!("subjectAltName={names}DNS:localhost");
        let leaf = ["-keyout", "site.key", "-out", "site.pem", "-subj", "/CN=site", "-addext", &names];
        let issued = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"];
        openssl(&dir, &[&leaf[..], &issued].concat());
        let pem = fs::read_to_string(dir.join("ca.pem")).expect("openssl wrote it");
        let chain = CertificateDer::pem_file_iter(dir.join("site.pem")).expect("openssl wrote it");
        let chain = chain.collect::<Result<_, _>>().expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(dir.join("site.key")).expect("a key");
        fs::remove_dir_all(dir).expect("the directory can go");
        let tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("they fit");
        Self { pem, tls: Arc::new(tls) }
    }

    /// Its own certificate, as `SSL_CERT_FILE` takes it.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Serves what `answer` says, on a free port of the loopback, until the process ends; gives the port.
    pub(crate) fn serve(&self, answer: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (tls, answer) = (self.tls.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, answer) = (tls.clone(), answer.clone());
                thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
                    let connection = ServerConnection::new(tls).expect("a configuration that fits");
                    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
                    // Whoever does not trust the certificate goes before there is a request.
                    let Some(received) = Received::read(&mut stream) else { return };
                    let Answer { status, headers, body } = answer(&received);
                    let stream = stream.get_mut();
                    let length = body.len();
                    let _ = write!(
                        stream,
                        "HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}",
                    );
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                });
            }
        });
        port
    }
}

fn openssl(dir: &Path, more: &[&str]) {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let output =
        Command::new("openssl").args(["req", "-x509"]).args(key).args(more).current_dir(dir).output();
    let output = output.expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Received {
    fn read(stream: &mut impl BufRead) -> Option<Self> {
        let line = |stream: &mut _| {
            let mut line = String::new();
            BufRead::read_line(stream, &mut line).ok()?;
            Some(line.trim_end().to_owned())
        };
        let first = line(stream)?;
        let mut words = first.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut received = Self { method, target, headers: Vec::new(), body: String::new() };
        loop {
            let line = line(stream)?;
            let Some((name, value)) = line.split_once(':') else { break };
            received.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length: usize = received.header("content-length").map_or(Some(0), |text| text.parse().ok())?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        received.body = String::from_utf8(body).ok()?;
        Some(received)
    }

    /// The header of this name, if there is exactly one.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().filter(|_| found.next().is_none()).map(|(_, value)| value.as_str())
    }
}

/// What a site says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Whole lines.
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        let headers = "Content-Type: application/json\r\n".to_owned();
        Self { status, headers, body: body.to_string() }
    }
}
