use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::HeaderName;
use lumoauth_core::secret::Secret;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::*;

/// A server on the loopback that does with each connection what a test says.
struct Server {
    origin: String,
    connections: Arc<AtomicUsize>,
    requests: mpsc::UnboundedReceiver<String>,
}

impl Server {
    /// After the head of each request, `answer` has the connection.
    async fn new<F>(answer: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let (seen, requests) = mpsc::unbounded_channel();
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut text = vec![0; 16 * 1024];
                let read = stream.read(&mut text).await.unwrap_or_default();
                let _ = seen.send(String::from_utf8_lossy(&text[..read]).into_owned());
                answer(stream).await;
            }
        });
        Self { origin, connections, requests }
    }

    /// Answers every request with this text.
    async fn fixed(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(answer.into());
        Self::new(move |mut stream| {
            let answer = answer.clone();
            async move {
                let _ = stream.write_all(&answer).await;
            }
        })
        .await
    }

    fn url(&self) -> Url {
        format!("{}/keys", self.origin).parse().unwrap()
    }

    async fn get(&self, change: impl FnOnce(&mut FetchRequest)) -> Result<Vec<u8>, FetchError> {
        let mut request = FetchRequest::get(self.url());
        change(&mut request);
        GuardedFetch::new().unwrap().allow_origin(&self.origin).unwrap().fetch(request).await
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A name that nobody's resolver knows is at the address that the host gave, under its own name and nowhere else.
#[tokio::test]
async fn an_allowed_origin_is_at_the_address_that_the_host_gives() {
    let mut server = Server::fixed(ok("{}")).await;
    let at: SocketAddr = server.origin.strip_prefix("http://").unwrap().parse().unwrap();
    let fetch = GuardedFetch::new().unwrap().allow_origin_at("http://sts.invalid", at).unwrap();
    let fetch = fetch.allow_origin_at("http://keys.invalid", at).unwrap();
    let get = async |url: &str| fetch.fetch(FetchRequest::get(url.parse().unwrap())).await;
    for host in ["sts.invalid", "keys.invalid"] {
        assert_eq!(get(&format!("http://{host}/x")).await.unwrap(), b"{}");
        let request = server.requests.recv().await.unwrap().to_ascii_lowercase();
        assert!(request.contains(&format!("host: {host}\r\n")), "{request}");
    }
    for other in ["http://a.sts.invalid/", "http://sts.invalid:81/", &server.origin] {
        assert!(matches!(get(other).await, Err(FetchError::NotAllowed)), "{other}");
    }
    assert!(get("https://sts.invalid/").await.is_err(), "another scheme is another origin");
    assert_eq!(server.connections(), 2);
}

#[test]
fn an_address_is_given_for_a_name_and_its_port() {
    let at = |origin: &str| {
        GuardedFetch::new().unwrap().allow_origin_at(origin, "127.0.0.1:9000".parse().unwrap()).map(drop)
    };
    at("https://sts.eu-west-1.amazonaws.com").unwrap();
    at("https://keys.test:9000").unwrap();
    for origin in ["https://keys.test:9001", "https://10.0.0.1", "https://[::1]:9000"] {
        assert!(matches!(at(origin), Err(GuardedFetchError::Address(_))), "{origin}");
    }
    for origin in ["keys.test", "https://keys.test/", "https://keys.test/x", "ftp://keys.test"] {
        assert!(matches!(at(origin), Err(GuardedFetchError::Origin(_))), "{origin}");
    }
}

#[tokio::test]
async fn a_plain_success_is_its_body() {
    let mut server = Server::fixed(ok("{}")).await;
    assert_eq!(server.get(|_| {}).await.unwrap(), b"{}");
    let request = server.requests.recv().await.unwrap().to_ascii_lowercase();
    assert!(request.starts_with("get /keys http/1.1\r\n"), "{request}");
    assert!(request.contains("accept: application/json\r\n"), "{request}");
    for unwanted in ["accept-encoding", "cookie", "referer", "authorization"] {
        assert!(!request.contains(unwanted), "{request}");
    }
}

#[tokio::test]
async fn forms_and_headers_are_sent() {
    let mut server = Server::fixed(ok("{}")).await;
    let form = FetchRequest::post_form(server.url(), Secret::from("a=1&b=2"));
    server
        .get(|request| {
            *request = form;
            request.headers.push((HeaderName::from_static("accept"), HeaderValue::from_static("text/x")));
            request.headers.push((HeaderName::from_static("x-one"), HeaderValue::from_static("1")));
        })
        .await
        .unwrap();
    let request = server.requests.recv().await.unwrap().to_ascii_lowercase();
    assert!(
        request.starts_with("post /keys http/1.1\r\n") && request.ends_with("\r\n\r\na=1&b=2"),
        "{request}"
    );
    assert!(request.contains("content-type: application/x-www-form-urlencoded\r\n"), "{request}");
    assert!(request.contains("accept: text/x\r\n") && request.contains("x-one: 1\r\n"), "{request}");
    assert_eq!(request.matches("accept:").count(), 1);
}

#[tokio::test]
async fn only_200_is_a_success() {
    for status in [201, 202, 203, 204, 206, 400, 401, 404, 418, 429, 500, 503] {
        let server = Server::fixed(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n")).await;
        let refused = server.get(|_| {}).await.unwrap_err();
        assert!(matches!(refused, FetchError::Unusable(found) if found == status), "{status}: {refused:?}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let target = Server::fixed(ok("{}")).await;
    for status in [301, 302, 303, 307, 308] {
        for to in
            [format!("{}/x", target.origin), "http://169.254.169.254/latest".to_owned(), "/x".to_owned()]
        {
            let answer = format!("HTTP/1.1 {status} X\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
            let server = Server::fixed(answer).await;
            let refused = server.get(|_| {}).await.unwrap_err();
            assert!(matches!(refused, FetchError::Unusable(found) if found == status), "{refused:?}");
            assert_eq!(server.connections(), 1);
        }
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn bodies_end_at_their_limit() {
    let body = "x".repeat(1000);
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e8\r\n{body}\r\n0\r\n\r\n");
    for answer in [ok(&body), chunked] {
        let server = Server::fixed(answer).await;
        assert_eq!(server.get(|request| request.max_bytes = 1000).await.unwrap().len(), 1000);
        let refused = server.get(|request| request.max_bytes = 999).await.unwrap_err();
        assert!(matches!(refused, FetchError::Unusable(200)), "{refused:?}");
    }
}

#[tokio::test]
async fn an_endless_body_is_cut_off_while_it_is_read() {
    let server = Server::new(|mut stream| async move {
        let head = "HTTP/1.1 200 OK\r\n\r\n";
        let mut sent = stream.write_all(head.as_bytes()).await;
        while sent.is_ok() {
            sent = stream.write_all(&[b'x'; 64 * 1024]).await;
        }
    })
    .await;
    let refused = server.get(|_| {}).await.unwrap_err();
    assert!(matches!(refused, FetchError::Unusable(200)), "{refused:?}");
}

#[tokio::test]
async fn slow_answers_end_at_their_time() {
    let silent = Server::new(|stream| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let drip = Server::new(|mut stream| async move {
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
        while sent.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            sent = stream.write_all(b"x").await;
        }
    })
    .await;
    let dripping_head = Server::new(|mut stream| async move {
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        while sent.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            sent = stream.write_all(b"x").await;
        }
    })
    .await;
    for server in [silent, drip, dripping_head] {
        let began = tokio::time::Instant::now();
        let refused = server.get(|request| request.timeout = Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(refused, FetchError::Unreachable(_)), "{refused:?}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn nothing_is_unpacked() {
    // The head of a gzip stream; what follows does not matter, since nobody looks.
    for encoding in ["gzip", "br", "zstd", "deflate", "identity, gzip"] {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: 10\r\n\r\n");
        let mut answer = head.into_bytes();
        answer.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
        let server = Server::fixed(answer).await;
        let refused = server.get(|_| {}).await.unwrap_err();
        assert!(matches!(refused, FetchError::Unusable(200)), "{encoding}: {refused:?}");
    }
}

#[tokio::test]
async fn half_an_answer_is_none() {
    for answer in
        ["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{}", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n", ""]
    {
        let server = Server::fixed(answer).await;
        let refused = server.get(|_| {}).await.unwrap_err();
        assert!(matches!(refused, FetchError::Unreachable(_)), "{answer}: {refused:?}");
    }
}

#[tokio::test]
async fn nothing_is_connected_that_is_not_public_or_allowed() {
    let server = Server::fixed(ok("{}")).await;
    let port = server.origin.rsplit_once(':').unwrap().1;
    let fetch = GuardedFetch::new().unwrap().allow_origin("http://127.0.0.1:1").unwrap();
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("https://2130706433:{port}/"),
        format!("https://0x7f.1:{port}/"),
        format!("https://localhost:{port}/"),
        format!("https://[::1]:{port}/"),
        format!("https://[::ffff:127.0.0.1]:{port}/"),
        format!("https://[64:ff9b::7f00:1]:{port}/"),
        format!("https://[2002:7f00:1::1]:{port}/"),
        format!("https://0.0.0.0:{port}/"),
        "https://10.0.0.1/".to_owned(),
        "https://169.254.169.254/latest".to_owned(),
        "http://example.com/".to_owned(),
        "https://user@example.com/".to_owned(),
        "https://user:secret@example.com/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "data:,x".to_owned(),
        "http://user@127.0.0.1:1/".to_owned(),
    ] {
        let refused = fetch.fetch(FetchRequest::get(url.parse().unwrap())).await.unwrap_err();
        assert!(matches!(refused, FetchError::NotAllowed), "{url}: {refused:?}");
    }
    assert_eq!(server.connections(), 0);
}

/// Where keys may be read nobody writes, and the other way round.
#[tokio::test]
async fn posts_go_where_posts_are_allowed() {
    let server = Server::fixed(ok("{}")).await;
    let post = || FetchRequest::post_json(server.url(), Secret::from("{}"));
    let fetch = GuardedFetch::new().unwrap();
    let reads = fetch.clone().allow_origin(&server.origin).unwrap();
    let writes = fetch.allow_posts_to(&server.origin).unwrap();
    assert!(matches!(reads.fetch(post()).await, Err(FetchError::NotAllowed)));
    assert!(matches!(writes.fetch(FetchRequest::get(server.url())).await, Err(FetchError::NotAllowed)));
    assert_eq!(server.connections(), 0);
    assert_eq!(writes.fetch(post()).await.unwrap(), b"{}");
    assert!(reads.fetch(FetchRequest::get(server.url())).await.is_ok());
    assert!(GuardedFetch::new().unwrap().allow_posts_to("https://hook.test/path").is_err());
}

#[tokio::test]
async fn names_lead_to_public_addresses_only() {
    let refused = PublicOnly.resolve("localhost".parse().unwrap()).await.err().unwrap();
    assert!(refused.is::<NotPublic>());
}

#[test]
fn an_allowed_origin_is_one_and_nothing_more() {
    let allow = |origin| GuardedFetch::new().unwrap().allow_origin(origin);
    for origin in ["https://kubernetes.default.svc", "http://127.0.0.1:8080", "https://[::1]:8443"] {
        assert!(allow(origin).is_ok(), "{origin}");
    }
    for bad in [
        "",
        "*",
        "https://",
        "kubernetes.default.svc",
        "https://a.example/",
        "https://a.example/path",
        "https://A.example",
        "https://a.example:443",
        "https://u@a.example",
        "file:///x",
    ] {
        assert!(matches!(allow(bad), Err(GuardedFetchError::Origin(_))), "{bad}");
    }
    let fetch = allow("http://127.0.0.1:8080").unwrap();
    let goes = |url: &str| fetch.client_for(&FetchRequest::get(url.parse().unwrap())).is_some();
    assert!(goes("http://127.0.0.1:8080/x") && goes("https://example.com/x"));
    assert!(
        !goes("http://127.0.0.1:8081/x")
            && !goes("https://127.0.0.1:8080/x")
            && !goes("http://localhost:8080/x")
    );
}

#[test]
fn a_post_into_this_machine_or_network_is_refused_before_any_look_up() {
    let fetch = GuardedFetch::new().unwrap().allow_posts_to("https://localhost:8443").unwrap();
    let may = |url: &str| fetch.may_post_to(&url.parse().unwrap());
    for url in ["https://localhost:8443/cb", "https://example.com/cb", "https://localhost.example.com/cb"] {
        assert!(may(url), "{url}");
    }
    for host in [
        "localhost",
        "localhost:8444",
        "localhost.",
        "localhost.:8443",
        "a.localhost",
        "a.LOCALHOST.",
        "10.0.0.1",
        "127.1",
        "[::1]",
    ] {
        assert!(!may(&format!("https://{host}/cb")), "{host}");
    }
    assert!(!may("http://example.com/cb") && !may("https://u@example.com/cb"));
}
