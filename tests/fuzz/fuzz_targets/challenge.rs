//! What a resource wants, as an agent reads it: a line of the input is a line of `Agent-Auth`.

#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use lumoauth_core::aauth::client::Challenge;
use lumoauth_core::secret::Secret;

fuzz_target!(|data: &[u8]| {
    let mut headers = HeaderMap::new();
    let lines: Vec<_> = data.split(|byte| *byte == b'\n').take(16).collect();
    for line in &lines {
        let Ok(line) = HeaderValue::from_bytes(line) else { return };
        headers.append("agent-auth", line);
    }
    let Some(read) = Challenge::read(&headers) else { return };
    let text = String::from_utf8(lines.join(&b", "[..])).expect("only text is read");
    assert!(text.contains("httpsig") && text.len() <= 20 * 1024);
    assert!(!read.auth_token || text.contains("auth-token"));
    // Said again in the form that the documents have, it means the same.
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut again = "httpsig".to_owned();
    if read.auth_token {
        again.push_str("; auth-token");
    }
    let token = read.resource_token.as_ref().map(Secret::expose);
    for (name, value) in [("resource_token", token), ("auth_server", read.auth_server.as_deref())] {
        if let Some(value) = value {
            assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            again.push_str(&format!("; {name}=\"{}\"", quoted(value)));
        }
    }
    if again.len() > 20 * 1024 {
        return;
    }
    let mut headers = HeaderMap::new();
    headers.insert("agent-auth", again.parse().expect("text"));
    let same = Challenge::read(&headers).expect("it reads what it means");
    assert_eq!(same.auth_token, read.auth_token);
    assert_eq!(same.auth_server, read.auth_server);
    assert_eq!(same.resource_token.as_ref().map(Secret::expose), token);
});
