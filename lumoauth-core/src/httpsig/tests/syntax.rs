//! The two fields as texts: labels, names twice, alphabets, sizes, and everything that RFC 9421 knows and nobody here uses.

use super::support::{NONCE, Request};
use crate::httpsig::{Profile, SignatureError};

fn signed() -> Request {
    Request::new().signed(Profile::LUMO_RFC)
}

/// The signed request with another `Signature-Input`, made of its own.
fn input(change: impl FnOnce(&str) -> String) -> Request {
    let request = signed();
    let input = change(request.get("signature-input"));
    request.with("signature-input", &input)
}

#[test]
fn a_request_without_both_fields_is_not_signed() {
    refused!(Request::new().check(), SignatureError::Missing);
    refused!(signed().without("signature").check(), SignatureError::Missing);
    refused!(signed().without("signature-input").check(), SignatureError::Missing);
}

#[test]
fn the_form_in_agent_auth_is_refused_with_the_names_of_the_fields() {
    let text = r#"sig1=:AAAA:; label="sig1"; alg="ed25519"; keyid="https://a.example#k"; created=1; covered="@method @target-uri""#;
    let error = Request::new().with("agent-auth", text).check().unwrap_err();
    assert!(matches!(error, SignatureError::InAgentAuth));
    assert!(error.to_string().contains("`Signature-Input` and `Signature`"));
    assert!(!error.is_outage());
    let token = Request::new().with("agent-auth", "agent_token=ey.J.0");
    refused!(token.check(), SignatureError::Missing);
    assert!(signed().with("agent-auth", text).check().is_ok(), "the RFC's fields count");
}

#[test]
fn there_is_one_signature_under_one_label_and_its_name_does_not_matter() {
    let request = signed();
    let (input, signature) = (request.get("signature-input"), request.get("signature"));
    let renamed = |name: &str| {
        let rename = |text: &str| text.replacen("sig1=", &format!("{name}="), 1);
        request.clone().with("signature-input", &rename(input)).with("signature", &rename(signature))
    };
    for name in ["sig", "*a", "a-b_c.d*9", "sig-b26"] {
        assert_eq!(&*renamed(name).check().unwrap().signature().label().to_owned(), name);
    }
    refused!(renamed("Sig1").check(), SignatureError::Malformed(_));

    let second = |text: &str| format!("{text}, {}", text.replacen("sig1=", "sig2=", 1));
    let both = request.clone().with("signature-input", &second(input)).with("signature", &second(signature));
    refused!(both.check(), SignatureError::Labels);
    refused!(request.clone().with("signature-input", &second(input)).check(), SignatureError::Labels);
    refused!(request.clone().with("signature", &second(signature)).check(), SignatureError::Labels);
    let other = request.clone().with("signature", &signature.replacen("sig1", "sig2", 1));
    refused!(other.check(), SignatureError::Labels);

    // One label twice: RFC 9651 keeps the last, others the first.
    let twice = |text: &str| format!("{text}, {text}");
    refused!(request.clone().with("signature-input", &twice(input)).check(), SignatureError::Labels);
    refused!(request.clone().with("signature", &twice(signature)).check(), SignatureError::Malformed(_));
    refused!(request.clone().and("signature-input", input).check(), SignatureError::Repeated(_));
    refused!(request.clone().and("signature", signature).check(), SignatureError::Repeated(_));
    refused!(request.clone().with("signature-input", "").check(), SignatureError::Labels);
    refused!(request.clone().with("signature", "").check(), SignatureError::Labels);
}

#[test]
fn what_is_no_list_of_names_is_malformed() {
    for bad in [
        "sig1",
        "sig1=1",
        "sig1=\"@method\"",
        "sig1=(",
        "sig1=()x",
        "sig1=(@method)",
        "sig1=(1 2)",
        "sig1=((\"@method\"))",
        "sig1=(\"@method\";)",
        "sig1=(\"@method\"\"@path\")",
        "sig1=(\"@method\");created",
        "=()",
        "sig1=(\"@method\\x\")",
    ] {
        let request = signed().with("signature-input", bad);
        assert!(request.read().is_err(), "{bad}");
    }
    refused!(signed().with("signature-input", "sig1=1").read(), SignatureError::Malformed(_));
}

#[test]
fn parameters_of_components_and_names_twice_are_refused() {
    for parameter in [";sf", ";bs", ";tr", ";req", ";key=\"a\"", ";name=\"a\"", ";other", ";sf=?0"] {
        let request =
            input(|text| text.replacen("\"content-type\"", &format!("\"content-type\"{parameter}"), 1));
        refused!(request.check(), SignatureError::ComponentParameter);
    }
    refused!(
        input(|text| text.replacen("\"@path\"", "\"@path\" \"@path\"", 1)).check(),
        SignatureError::CoveredTwice(_)
    );
    refused!(input(|text| format!("{text};created=1750000000")).check(), SignatureError::ParameterTwice);
    refused!(input(|text| format!("{text};nonce=\"{NONCE}\"")).check(), SignatureError::ParameterTwice);
}

#[test]
fn components_of_responses_and_names_that_are_none_are_refused() {
    for name in [
        "@status",
        "@query-param",
        "@signature-params",
        "@request-response",
        "@METHOD",
        "@",
        "",
        "Content-Type",
        "x y",
        "x:",
        "signature",
        "signature-input",
    ] {
        let request = input(|text| text.replacen("\"@path\"", &format!("\"@path\" \"{name}\""), 1));
        assert!(
            matches!(
                request.check(),
                Err(SignatureError::UnsupportedComponent(_) | SignatureError::Malformed(_))
            ),
            "{name}"
        );
    }
    refused!(
        input(|text| text.replacen("\"@path\"", "\"@status\"", 1)).check(),
        SignatureError::UnsupportedComponent(_)
    );
}

#[test]
fn white_space_that_means_nothing_means_nothing() {
    let request = input(|text| {
        text.replacen("(\"@method\" ", "(  \"@method\"   ", 1).replacen(";created", "; created", 1)
    });
    assert!(request.check().is_ok(), "what is signed is the strict form");
}

#[test]
fn the_value_is_in_one_alphabet() {
    let request = Request::new().signed(Profile::LUMO_SDK);
    let value = request.get("signature").to_owned();
    assert!(value.contains('+') && value.contains('/'), "the vector has both");
    let with = |value: &str| request.clone().with("signature", value);
    refused!(with(&value.replacen('+', "-", 1)).check(), SignatureError::Malformed(_));
    refused!(with(&value.replacen('/', "_", 1)).check(), SignatureError::Malformed(_));
    assert!(with(&value.replace('+', "-").replace('/', "_")).check().is_ok());
    for bad in ["sig1=:A A:", "sig1=:AA", "sig1=AA", "sig1=:%:", "sig1=\"AA\"", "sig1", "sig1=(:AA:)"] {
        assert!(with(bad).check().is_err(), "{bad}");
    }
    // One byte less, one byte more.
    for length in [0, 63, 65, 128] {
        let made = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, vec![7; length]);
        refused!(with(&format!("sig1=:{made}:")).check(), SignatureError::Invalid);
    }
}

#[test]
fn what_is_too_long_is_refused_at_once() {
    let started = crate::clock::Stopwatch::start();
    let many = |count: usize| (0..count).map(|n| format!("\"x{n}\"")).collect::<Vec<_>>().join(" ");
    let long = |text: &str| signed().with("signature-input", text);
    refused!(long(&format!("sig1=({})", many(33))).check(), SignatureError::TooLong("Signature-Input"));
    refused!(long(&format!("sig1=({})", many(10_000))).check(), SignatureError::TooLong("Signature-Input"));
    refused!(
        long(&format!("sig1=(\"{}\")", "x".repeat(1 << 20))).check(),
        SignatureError::TooLong("Signature-Input")
    );
    refused!(long(&"(".repeat(1 << 20)).check(), SignatureError::TooLong("Signature-Input"));
    let signature = signed().with("signature", &format!("sig1=:{}:", "A".repeat(1 << 20)));
    refused!(signature.check(), SignatureError::TooLong("Signature"));
    assert!(started.elapsed() < std::time::Duration::from_millis(500), "{:?}", started.elapsed());
    let absent = long(&format!("sig1=({});created=1750000000;nonce=\"{NONCE}\"", many(32)));
    refused!(absent.check(), SignatureError::NotCovered(_));
    let deep = long(&format!("sig1={}", "(".repeat(4000)));
    assert!(deep.check().is_err());
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    for name in ["signature-input", "signature", "content-type", "content-digest"] {
        let mut request = signed();
        let value = http::HeaderValue::from_bytes(b"sig1=\xff\xfe").unwrap();
        request.headers.insert(name, value);
        assert!(request.check().is_err(), "{name}");
    }
}
