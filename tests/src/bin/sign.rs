//! Signs requests with our signature core, for implementations of others to verify.
//!
//! Each line of the input is a JSON object with `profile` (`sdk` or `rfc`), `method`, `url`, `headers`, `body`, `pkcs8` (PEM)
//! and perhaps `signature_key` and `keyid`; each line of the output has the `headers` to add.

use std::io::{self, BufRead, Write};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use lumoauth_core::{
    clock::Timestamp,
    httpsig::{self, Content, Message, Profile, SignWith},
    id::KeyId,
    keys::{Algorithm, LocalSigner},
};
use lumoauth_tests::{text, unix_now};
use serde_json::{Map, Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    for line in io::stdin().lock().lines() {
        let asked: Value = serde_json::from_str(&line?).expect("a JSON object");
        let answer = json!({ "headers": signed(&asked).await });
        writeln!(io::stdout(), "{answer}")?;
        io::stdout().flush()?;
    }
    Ok(())
}

async fn signed(asked: &Value) -> Map<String, Value> {
    let profile = match text(&asked["profile"]) {
        "sdk" => Profile::LUMO_SDK,
        "rfc" => Profile::LUMO_RFC,
        other => panic!("no profile {other}"),
    };
    let uri: Uri = text(&asked["url"]).parse().expect("a URL");
    let method: Method = text(&asked["method"]).parse().expect("a method");
    let mut headers = HeaderMap::new();
    for (name, value) in asked["headers"].as_object().into_iter().flatten() {
        let name: HeaderName = name.parse().expect("a name");
        headers.append(name, text(value).parse().expect("a value"));
    }
    let message = Message {
        method: &method,
        scheme: uri.scheme_str().expect("a scheme"),
        authority: uri.authority().expect("an authority").as_str(),
        path: uri.path(),
        query: uri.query(),
        headers: &headers,
        content: Content::Bytes(text(&asked["body"]).as_bytes()),
    };
    let signer = LocalSigner::from_pkcs8_pem(
        KeyId::parse("k").expect("an id"),
        Algorithm::EdDsa,
        text(&asked["pkcs8"]),
    );
    let now = Timestamp::from_unix_seconds(unix_now().try_into().expect("after 1970"));
    let mut with = SignWith::now(now);
    if let Some(value) = asked["signature_key"].as_str() {
        with = with.signature_key(HeaderValue::try_from(value).expect("a value"));
    }
    if let Some(key_id) = asked["keyid"].as_str() {
        with = with.key_id(key_id);
    }
    let signed =
        httpsig::sign(&signer.expect("a key"), &profile, &message, with).await.expect("it can be signed");
    let field =
        |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.to_str().expect("text").into());
    signed.iter().map(field).collect()
}
