//! `serve`, as an operator runs it: up, restarted, behind TLS, and down.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use lumoauth_tests::{Backend, Connection, Jwks, Request, ServeOptions, Server, Stopwatch, run_server, text};
use serde_json::json;

#[test]
fn serve_comes_up_with_its_organizations_and_first_administrator() {
    let options = ServeOptions::new();
    let server = Server::serve(&options);
    let get = |path: &str| Request::new(options.authority(), "GET", path).send();
    assert_eq!(get("/healthz").expect(200).json()["status"], "ok");
    assert_eq!(get("/readyz").expect(200).json()["status"], "ready");
    assert_eq!(Request::new(options.authority(), "POST", "/readyz").send().status, 405);
    let org = server.acme();
    let metadata = org.get("/.well-known/oauth-authorization-server").send().ok();
    assert_eq!(metadata["issuer"], org.issuer());
    let agent = org.agent(&["read:a"]);
    let token = agent.token();
    Jwks::fetch(&org).verify(&token, &org.issuer(), &agent.client_id);
    agent.userinfo(&token).ok();
    // The other organization is there, but this key is not for it.
    let path = "/orgs/globex/api/v1/admin/agents";
    Request::new(options.authority(), "GET", path).api_key(org.key()).send().refused(403, "forbidden");
    get("/orgs/nobody/api/v1/.well-known/jwks.json").refused(404, "tenant_not_found");
    let log = server.log();
    for secret in [options.api_key(), agent.secret.as_str(), token.as_str()] {
        assert!(!log.contains(secret), "a secret in the log");
    }
    assert_eq!(server.terminate(), Some(0));
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

#[test]
fn serve_keeps_everything_over_a_restart() {
    assert_a_restart_keeps_everything(&ServeOptions::new().embedded());
}

#[test]
fn serve_on_postgres_keeps_everything_over_a_restart() {
    let options = ServeOptions::new().on(Backend::Postgres);
    options.migrate();
    // Once more is no harm.
    options.migrate();
    assert_a_restart_keeps_everything(&options);
}

#[test]
fn serve_on_postgres_with_redis_keeps_everything_over_a_restart() {
    let options = ServeOptions::new().on(Backend::PostgresRedis);
    options.migrate();
    assert_a_restart_keeps_everything(&options);
}

#[test]
fn serve_refuses_a_database_without_its_tables_and_names_the_command() {
    let options = ServeOptions::new().on(Backend::Postgres);
    let path = options.write();
    let path = path.to_str().expect("a readable path");
    let (code, text) = run_server(&["serve", "--config", path], &options.variables());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("migrate"), "{text}");
    assert!(!text.contains(options.store()), "the URL with its password is printed: {text}");
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

fn assert_a_restart_keeps_everything(options: &ServeOptions) {
    let first = Server::serve(options);
    let agent = first.acme().agent(&["read:a"]);
    let token = agent.token();
    let jwks = Jwks::fetch(&first.acme()).raw().clone();
    let (id, secret) = (agent.client_id.clone(), agent.secret.clone());
    assert_eq!(first.terminate(), Some(0));

    let second = Server::serve(options);

    let org = second.acme();
    assert_eq!(Jwks::fetch(&org).raw(), &jwks, "the same signing keys");
    org.get("/oauth/userinfo").bearer(&token).send().ok();
    let form = [("grant_type", "client_credentials"), ("client_id", &*id), ("client_secret", &*secret)];
    org.post("/oauth/token").form(&form).send().ok();
    assert_eq!(org.audit("action=api_key.created").len(), 1, "the bootstrap key is stored once");
    assert_eq!(org.audit("action=organization.created").len(), 1);
    drop(second);
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

#[test]
fn bootstrap_key_that_was_revoked_stays_revoked() {
    let options = ServeOptions::new().embedded();
    let first = Server::serve(&options);
    let org = first.acme();
    let keys = org.admin("GET", "/api-keys").send().ok();
    let other = org.api_key(&["admin"]);
    let path = format!("/admin/api-keys/{}", keys["data"][0]["id"]);
    org.request("DELETE", &path).api_key(&other).send().ok();
    org.admin("GET", "/agents").send().refused_somehow();
    drop(first);

    let second = Server::serve(&options);

    assert_eq!(second.acme().admin("GET", "/agents").send().status, 401);
    second.acme().get("/admin/agents").api_key(&other).send().ok();
    drop(second);
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

#[test]
fn request_that_is_under_way_is_answered_before_the_end() {
    let options = ServeOptions::new();
    let server = Server::serve(&options);
    let agent = server.acme().agent(&["read:a"]);
    let mut idle = Connection::open(options.authority()).expect("the server listens");
    idle.send(&Request::new(options.authority(), "GET", "/healthz")).expect("an answer");
    let body =
        format!("grant_type=client_credentials&client_id={}&client_secret={}", agent.client_id, agent.secret);
    let (sent, rest) = body.split_at(10);
    let mut stream = TcpStream::connect(options.authority()).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket takes a timeout");
    let head = format!(
        "POST /orgs/acme-corp/api/v1/oauth/token HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{sent}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("the server reads");
    // It is under way once the server has read its head.
    std::thread::sleep(Duration::from_millis(200));

    server.ask_to_stop();
    let watch = Stopwatch::start();
    while TcpStream::connect(options.authority()).is_ok() {
        assert!(watch.elapsed() < Duration::from_secs(5), "new connections are still accepted");
        std::thread::sleep(Duration::from_millis(10));
    }
    stream.write_all(rest.as_bytes()).expect("the server still reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, and then the end");

    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("access_token"), "{answer}");
    // An idle connection keeps nobody waiting.
    let watch = Stopwatch::start();
    assert_eq!(server.wait_for_end(), Some(0));
    assert!(watch.elapsed() < Duration::from_secs(5), "{:?}", watch.elapsed());
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

#[test]
fn serve_speaks_tls_with_the_certificate_it_was_given() {
    let plain = ServeOptions::new();
    let (cert, key) = (plain.dir().join("cert.pem"), plain.dir().join("key.pem"));
    self_signed(&cert, &key);
    let options = plain.tls(&cert, &key);
    let server = Server::serve(&options);

    let (trusted, answer) =
        over_tls(options.authority(), &cert, "/orgs/acme-corp/api/v1/.well-known/jwks.json");
    assert!(trusted && answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"kty\""), "{answer}");
    let path = "/orgs/acme-corp/api/v1/.well-known/oauth-authorization-server";
    let (_, answer) = over_tls(options.authority(), &cert, path);
    let issuer = format!("\"https://{}/orgs/acme-corp/api/v1\"", options.authority());
    assert!(answer.contains(&issuer), "{answer}");
    // Who does not speak TLS gets no answer, and does no harm.
    let mut connection = Connection::open(options.authority()).expect("the server listens");
    assert!(connection.send(&Request::new(options.authority(), "GET", "/healthz")).is_err());
    let (_, answer) = over_tls(options.authority(), &cert, "/healthz");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.terminate(), Some(0));
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}

/// A certificate for the loopback address, good for two days.
fn self_signed(cert: &Path, key: &Path) {
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(cert)
        .output()
        .expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// GET over TLS, whether the certificate was accepted for the address, and the whole answer.
fn over_tls(authority: &str, trust: &Path, path: &str) -> (bool, String) {
    let mut child = Command::new("openssl")
        .args(["s_client", "-quiet", "-alpn", "http/1.1", "-connect", authority])
        .args(["-verify_return_error", "-verify_ip", "127.0.0.1", "-CAfile"])
        .arg(trust)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    child.stdin.as_mut().expect("a pipe").write_all(request.as_bytes()).expect("openssl reads");
    let output = child.wait_with_output().expect("openssl ends");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn signing_algorithm_is_taken_from_the_file() {
    let options = ServeOptions::new().line("signing_alg = \"EdDSA\"");
    let server = Server::serve(&options);
    let agent = server.acme().agent(&[]);
    let token = agent.parsed_token();
    assert_eq!(token.header["alg"], "EdDSA");
    let claims = Jwks::fetch(&server.acme()).verify(&token.text, &server.acme().issuer(), &agent.client_id);
    assert_eq!(text(&claims["client_id"]), agent.client_id);
    assert_eq!(server.acme().get("/.well-known/jwks.json").send().ok()["keys"][0]["crv"], json!("Ed25519"));
    drop(server);
    fs::remove_dir_all(options.dir()).expect("the directory can go");
}
