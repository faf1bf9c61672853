//! Requests that a role of AWS signed, at the token endpoint. The input is the JSON inside of the subject token, a line that says
//! `.`, and what AWS answers when it is sent there.

#![no_main]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::header;
use libfuzzer_sys::fuzz_target;
use lumoauth_fuzz::{Bench, ISSUER, halves};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let (request, answer) = halves(text, "\n.\n");
    let bench = Bench::new();
    *bench.world.answer.lock().expect("one thread") = Some(answer.as_bytes().to_vec());
    let exchange = || {
        bench.token(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token_type", "urn:lumoauth:token-type:aws-sts-request"),
            ("subject_token", &URL_SAFE_NO_PAD.encode(request)),
            ("client_id", "cli_aws"),
        ])
    };
    let accepted = exchange().status.is_success();
    let sent = std::mem::take(&mut *bench.world.asked.lock().expect("one thread"));
    assert!(sent.len() <= 1 && (!accepted || sent.len() == 1));
    // Whatever was given, nothing but that question goes out, and only to AWS.
    for sent in sent {
        let host = sent.url.host_str().expect("a host");
        let is_aws =
            host == "sts.amazonaws.com" || host.starts_with("sts.") && host.ends_with(".amazonaws.com");
        assert!(is_aws && sent.url.as_str() == format!("https://{host}/"), "{}", sent.url);
        let body = sent.form.as_ref().expect("a POST").expose();
        let mut asks: Vec<_> = body.split('&').collect();
        asks.sort_unstable();
        assert_eq!(asks, ["Action=GetCallerIdentity", "Version=2011-06-15"]);
        assert!(
            sent.headers.iter().all(|(name, _)| *name != header::HOST && *name != header::CONTENT_LENGTH)
        );
        assert!(sent.headers.iter().any(|(name, value)| name == "x-lumoauth-server-id" && value == ISSUER));
        assert!(!exchange().status.is_success(), "it is used once");
    }
    if accepted {
        let answer: Value = serde_json::from_str(answer).expect("JSON");
        let caller = &answer["GetCallerIdentityResponse"]["GetCallerIdentityResult"];
        assert_eq!(caller["Account"], "123456789012");
        let arn = caller["Arn"].as_str().expect("a text");
        let session = arn.strip_prefix("arn:aws:sts::123456789012:assumed-role/bot/");
        assert!(arn == "arn:aws:iam::123456789012:role/bot" || session.is_some_and(|it| !it.contains('/')));
    }
});
