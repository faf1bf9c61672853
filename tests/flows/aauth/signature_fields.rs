//! The two fields of a signature, byte by byte (security HS-07, HS-11, HS-17).

use lumoauth_tests::{Ed25519, Request, Server, Stopwatch, on_each_backend};

use super::{
    signatures::{both, no, rfc, sdk, send},
    unauthenticated,
};

on_each_backend!(
    one_signature_is_accepted_under_one_label,
    signature_is_of_the_right_length_in_one_alphabet,
    covered_fields_stand_in_one_line,
    components_have_no_parameters_and_are_known,
    present_and_empty_is_not_absent,
    huge_and_deep_inputs_are_refused_quickly,
);

fn one_signature_is_accepted_under_one_label(server: &Server) {
    let (agent, resource) = both(server);
    let thief = Ed25519::generate("t");
    let of = |key: &Ed25519, label: &str| {
        let mut call = rfc(&agent, &resource);
        call.label = label.to_owned();
        let sent = call.signed(key);
        (sent.field("Signature-Input").to_owned(), sent.field("Signature").to_owned())
    };
    let good = rfc(&agent, &resource);
    let (inputs, signatures) = {
        let sent = good.signed(&agent.key);
        (sent.field("Signature-Input").to_owned(), sent.field("Signature").to_owned())
    };
    for key in [&agent.key, &thief] {
        for label in ["other", "anything"] {
            let (input, signature) = of(key, label);
            for (inputs, signatures) in [
                (format!("{inputs}, {input}"), format!("{signatures}, {signature}")),
                (format!("{input}, {inputs}"), format!("{signature}, {signatures}")),
                (format!("{inputs}, {input}"), signatures.clone()),
                (inputs.clone(), format!("{signatures}, {signature}")),
            ] {
                let sent = good.signed(&agent.key);
                no(&sent.with("Signature-Input", &inputs).with("Signature", &signatures).send());
            }
            let sent = good.signed(&agent.key);
            no(&sent.clone().and("Signature-Input", &input).and("Signature", &signature).send());
            no(&sent.clone().and("Signature", &signature).send());
            no(&sent.and("Signature-Input", &input).send());
        }
    }
    let sent = good.signed(&agent.key);
    let other = sent.field("Signature").replace("anything", "else");
    no(&sent.clone().with("Signature", &other).send());
    no(&sent.clone().without("Signature").send());
    no(&sent.clone().without("Signature-Input").send());
    sent.send().ok();
}

fn signature_is_of_the_right_length_in_one_alphabet(server: &Server) {
    let (agent, resource) = both(server);
    for signature in [
        "sig1=::",
        "sig1=:AAAA:",
        "sig1=\"AAAA\"",
        "sig1=AAAA",
        "sig1=?1",
        "sig1=:AAAA",
        "sig1",
        "",
        "sig1=:+-AAAA==:",
        "sig1=(:AAAA:)",
    ] {
        let sent = sdk(&agent, &resource).signed(&agent.key).with("Signature", signature);
        no(&sent.send());
    }
    let call = sdk(&agent, &resource);
    let mut long = agent.key.sign(call.base().as_bytes());
    long.push(0);
    let answer = call.carrying(&long).send();
    assert_eq!(answer.status, 401, "{answer}");
    let answer = call.carrying(&[0; 64]).send();
    unauthenticated(&answer, "key_binding_failed");
    // The same point with a scalar that is not reduced is another signature, and none.
    let good = agent.key.sign(call.base().as_bytes());
    let mut malleated = good.clone();
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0_u16;
    for (byte, add) in malleated[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    unauthenticated(&call.carrying(&malleated).send(), "key_binding_failed");
    call.carrying(&good).send().ok();
}

fn covered_fields_stand_in_one_line(server: &Server) {
    let (agent, resource) = both(server);
    for name in ["Content-Digest", "Content-Type", "Signature-Input", "Signature"] {
        let sent = sdk(&agent, &resource).signed(&agent.key);
        let again = sent.field(name).to_owned();
        let answer = sent.and(name, &again).send();
        assert!(matches!(answer.status, 400 | 401), "{answer}");
    }
    // Two lines and one with a comma are the same to the signature.
    let call = rfc(&agent, &resource).with("X-A", "1").and("X-A", "2").covering("x-a");
    no(&send(&agent, &call));
    let sent = rfc(&agent, &resource).with("X-A", "1, 2").covering("x-a").signed(&agent.key);
    no(&sent.clone().with("X-A", "1").and("X-A", "2").send());
    sent.send().ok();
}

fn components_have_no_parameters_and_are_known(server: &Server) {
    let (agent, resource) = both(server);
    for component in [
        "\"content-type\";sf",
        "\"content-digest\";key=\"sha-256\"",
        "\"content-type\";bs",
        "\"@method\";req",
        "\"x\";tr",
        "\"@query-param\";name=\"a\"",
        "\"@status\"",
        "\"@unknown\"",
        "\"@signature-params\"",
        "\"Content-Type\"",
        "\"\"",
        "\"a b\"",
        "content-type",
        "1",
        "(\"content-type\")",
    ] {
        let call = rfc(&agent, &resource).with("X", "1");
        let input = call.input().replacen('(', &format!("({component} "), 1);
        let sent = call.signed(&agent.key).with("Signature-Input", &format!("{}={input}", call.label));
        no(&sent.send());
    }
}

fn present_and_empty_is_not_absent(server: &Server) {
    let (agent, resource) = both(server);
    for name in ["Authorization", "Signature-Key"] {
        let call = sdk(&agent, &resource);
        // The same is signed in both cases.
        no(&call.signed(&agent.key).with(name, "").send());
        no(&send(&agent, &call.with(name, "")));
    }
}

fn huge_and_deep_inputs_are_refused_quickly(server: &Server) {
    let (agent, resource) = both(server);
    let many: String = (0..2000).map(|n| format!("\"x-{n}\" ")).collect();
    let deep = format!("sig1={}\"a\"{}", "(".repeat(5000), ")".repeat(5000));
    for input in [
        format!("sig1=({many});created=1;nonce=\"x\""),
        format!("sig1=({});created=1", "\"a\" ".repeat(5000)),
        deep,
        "a=(),".repeat(5000),
        format!("sig1=();x=\"{}\"", "x".repeat(30_000)),
    ] {
        let sent = sdk(&agent, &resource).signed(&agent.key).with("Signature-Input", &input);
        let watch = Stopwatch::start();
        let answer = sent.send();
        assert!(matches!(answer.status, 400 | 401 | 431), "{answer}");
        assert!(watch.elapsed().as_secs() < 3, "{:?}", watch.elapsed());
    }
}

/// Bytes that no library would send.
#[test]
fn obsolete_folding_and_control_characters_are_refused() {
    let server = lumoauth_tests::shared(lumoauth_tests::Backend::Memory);
    let (agent, resource) = both(server);
    let sent = sdk(&agent, &resource).signed(&agent.key);
    let request = |input: &str| {
        let mut request = Request::new(server.authority(), "POST", &sent.target);
        for (name, value) in &sent.headers {
            let value = if name == "Signature-Input" { input } else { value };
            request = request.header(name, value);
        }
        request.content(sent.body.clone())
    };
    let input = sent.field("Signature-Input");
    for bent in [
        input.replacen(';', ";\r\n ", 1),
        input.replacen(' ', "\t", 1),
        input.replacen("\"@path\"", "\"@path\u{0}\"", 1),
        input.replacen(' ', "  \u{b}", 1),
        format!("{input}é"),
    ] {
        let answer = request(&bent).send();
        assert!(matches!(answer.status, 400 | 401), "{answer}");
    }
    request(input).send().ok();
}
