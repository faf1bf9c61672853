//! A small blocking HTTP/1.1 client.

use std::{
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

/// A request that is being put together; [`Request::send`] sends it on a connection of its own.
#[derive(Clone, Debug)]
#[must_use]
pub struct Request {
    authority: String,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    /// A request to `authority` (`host:port`) for `target` (path and query).
    pub fn new(authority: &str, method: &str, target: &str) -> Self {
        Self {
            authority: authority.to_owned(),
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: None,
        }
    }

    /// Adds a header as it is; a second one with the same name is sent twice.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `Authorization: Bearer`.
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// `Authorization: Basic`, both halves form-encoded as RFC 6749 section 2.3.1 wants.
    pub fn basic(self, id: &str, secret: &str) -> Self {
        let pair = format!("{}:{}", percent_encode(id), percent_encode(secret));
        self.header("Authorization", &format!("Basic {}", STANDARD.encode(pair)))
    }

    /// `X-API-Key`.
    pub fn api_key(self, key: &str) -> Self {
        self.header("X-API-Key", key)
    }

    /// A form body.
    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        let mut body = String::new();
        for (name, value) in fields {
            if !body.is_empty() {
                body.push('&');
            }
            let _ = write!(body, "{}={}", percent_encode(name), percent_encode(value));
        }
        self.body("application/x-www-form-urlencoded", body)
    }

    /// A JSON body.
    pub fn json(self, value: Value) -> Self {
        self.body("application/json", value.to_string())
    }

    /// Any body.
    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.header("Content-Type", content_type)
    }

    /// A body of which no field says what it is.
    pub fn content(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sends the request and reads the whole answer.
    ///
    /// # Panics
    /// When there is no HTTP answer, or when it is a server fault (5xx): no input may cause one.
    #[track_caller]
    pub fn send(&self) -> Response {
        let answer = Connection::open(&self.authority).and_then(|mut connection| connection.send(self));
        let response = match answer {
            Ok(response) => response,
            Err(error) => panic!("{} {} got no answer: {error}", self.method, self.target),
        };
        assert!(response.status < 500, "{} {} caused a server fault: {response}", self.method, self.target);
        response
    }

    /// What goes on the wire.
    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let mut has_host = false;
        for (name, value) in &self.headers {
            has_host |= name.eq_ignore_ascii_case("host");
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if !has_host {
            let _ = write!(head, "Host: {}\r\n", self.authority);
        }
        match &self.body {
            Some(body) => {
                let _ = write!(head, "Content-Length: {}\r\n", body.len());
            }
            // The official SDK sends empty posts exactly like this.
            None if self.method != "GET" && self.method != "HEAD" => head.push_str("Content-Length: 0\r\n"),
            None => {}
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

/// One kept-alive connection.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(authority: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(authority)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Sends `request` and reads the answer; any status is an answer.
    ///
    /// # Errors
    /// When the connection breaks before the answer is complete.
    pub fn send(&mut self, request: &Request) -> io::Result<Response> {
        self.send_in(request, &request.bytes(), &[])
    }

    /// The same, with the body in a packet of its own after a while, as many clients send it.
    ///
    /// # Errors
    /// When the connection breaks before the answer is complete.
    pub fn send_body_late(&mut self, request: &Request) -> io::Result<Response> {
        let bytes = request.bytes();
        let (head, body) = bytes.split_at(bytes.len() - request.body.as_ref().map_or(0, Vec::len));
        self.send_in(request, head, body)
    }

    fn send_in(&mut self, request: &Request, head: &[u8], body: &[u8]) -> io::Result<Response> {
        // A server may answer and close before it has read an oversized body, so a failed write is no reason not to
        // read.
        let mut written = self.reader.get_mut().write_all(head);
        if written.is_ok() && !body.is_empty() {
            thread::sleep(Duration::from_millis(30));
            written = self.reader.get_mut().write_all(body);
        }
        match read_response(&mut self.reader, request.method == "HEAD") {
            Ok(response) => Ok(response),
            Err(error) => written.and(Err(error)),
        }
    }
}

/// Sends `bytes` as they are and reads one answer; `None` when the server closes or waits for more.
///
/// # Panics
/// When nobody listens at `authority`.
pub fn raw_exchange(authority: &str, bytes: &[u8]) -> Option<Response> {
    let mut connection = Connection::open(authority).expect("the server listens");
    let stream = connection.reader.get_mut();
    // A request that is cut short leaves the server waiting; that is not worth half a minute.
    stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a socket takes a timeout");
    let _ = stream.write_all(bytes);
    read_response(&mut connection.reader, false).ok()
}

/// An answer, read whole.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers in the order they came.
    pub headers: Vec<(String, String)>,
    /// Body, decoded if it was chunked.
    pub body: Vec<u8>,
}

impl Response {
    /// First header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    /// Itself, if the status is `status`.
    ///
    /// # Panics
    /// When it is another one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self}");
        self
    }

    /// The JSON of a 200.
    ///
    /// # Panics
    /// When the status is another one, or the body is no JSON with the right content type.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self}");
        self.assert_json_type();
        self.json()
    }

    /// The JSON of a refusal, after checking what every refusal owes its client.
    ///
    /// # Panics
    /// When the status or `error` differs, or the body is not the error superset.
    #[track_caller]
    pub fn refused(&self, status: u16, error: &str) -> Value {
        assert_eq!(self.status, status, "{self}");
        let body = self.refused_somehow();
        assert_eq!(body["error"], error, "{self}");
        body
    }

    /// The JSON of any 4xx, after checking what every refusal owes its client.
    ///
    /// # Panics
    /// When the status is no 4xx or the body is not the error superset.
    #[track_caller]
    pub fn refused_somehow(&self) -> Value {
        assert!((400..500).contains(&self.status), "{self}");
        self.assert_json_type();
        let body = self.json();
        // A boolean `error` breaks the command line client and leaves the SDK without a code.
        assert!(body["error"].is_string(), "{self}");
        let explained = |key: &str| body[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(explained("error_description") || explained("message"), "{self}");
        if !body["status"].is_null() {
            assert_eq!(body["status"], self.status, "{self}");
        }
        assert!(body["code"].is_null() || body["code"].is_string(), "{self}");
        body
    }

    #[track_caller]
    fn assert_json_type(&self) {
        assert_eq!(self.header("content-type"), Some("application/json; charset=utf-8"), "{self}");
    }
}

impl std::fmt::Display for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "HTTP {}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        f.write_str(&self.text().chars().take(2000).collect::<String>())
    }
}

/// Percent-encodes all but unreserved characters.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn read_response(reader: &mut BufReader<TcpStream>, headless: bool) -> io::Result<Response> {
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let line = read_line(reader)?;
    let status =
        line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| broken("status line"))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| broken("header"))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut response = Response { status, headers, body: Vec::new() };
    if headless || status == 204 || status == 304 {
        return Ok(response);
    }
    if response.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        loop {
            let line = read_line(reader)?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
                .map_err(|_| broken("chunk size"))?;
            let start = response.body.len();
            response.body.resize(start + size, 0);
            reader.read_exact(&mut response.body[start..])?;
            read_line(reader)?;
            if size == 0 {
                return Ok(response);
            }
        }
    }
    match response.header("content-length").map(str::parse) {
        Some(Ok(length)) => {
            response.body.resize(length, 0);
            reader.read_exact(&mut response.body)?;
        }
        Some(Err(_)) => return Err(broken("content length")),
        None => {
            reader.read_to_end(&mut response.body)?;
        }
    }
    Ok(response)
}

fn read_line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}
