//! What a signature must be (security HS-01 to HS-17), as a client meets it.

use lumoauth_tests::{
    AAuthAgent, AAuthResource, Call, Ed25519, Response, Server, b64, on_each_backend, unique, unix_now,
};
use serde_json::{Value, json};

use super::{refused, unauthenticated};

on_each_backend!(
    both_forms_are_accepted,
    no_component_of_the_sdk_form_may_be_missing_elsewhere_or_twice,
    every_component_of_the_other_form_is_required,
    created_is_there_and_within_a_minute,
    nonce_is_there_and_long_enough,
    parameters_of_the_sdk_form_are_two,
    expires_and_alg_and_tag_are_heeded,
    content_is_what_its_digest_says,
    request_without_a_signature_is_told_which_headers_to_send,
    form_of_the_docs_pages_is_refused_with_the_names_of_the_headers,
    authorization_that_is_there_is_covered,
    refused_requests_have_no_effect,
    signing_key_is_the_one_of_the_token_and_nothing_that_the_request_names,
    key_of_another_organization_signs_nothing_here,
);

pub(super) fn both<'a>(server: &'a Server) -> (AAuthAgent<'a>, AAuthResource<'a>) {
    let org = server.acme();
    (org.aauth_agent(json!({})), org.aauth_resource(json!({})))
}

fn body(agent: &AAuthAgent<'_>, resource: &AAuthResource<'_>) -> Value {
    json!({ "request_type": "auth", "resource_token": resource.token_for(agent) })
}

pub(super) fn sdk(agent: &AAuthAgent<'_>, resource: &AAuthResource<'_>) -> Call {
    agent.call(&body(agent, resource))
}

pub(super) fn rfc(agent: &AAuthAgent<'_>, resource: &AAuthResource<'_>) -> Call {
    Call::rfc(&agent.org, "/aauth/agent/token", &body(agent, resource)).by(&agent.token())
}

pub(super) fn send(agent: &AAuthAgent<'_>, call: &Call) -> Response {
    call.signed(&agent.key).send()
}

/// Refused, as malformed or as not proven; never accepted.
#[track_caller]
pub(super) fn no(answer: &Response) {
    match answer.status {
        400 => drop(answer.refused(400, "invalid_request")),
        // What was signed is another request, or another one signed this.
        _ if answer.text().contains("key_binding_failed") => {
            drop(unauthenticated(answer, "key_binding_failed"))
        }
        _ => drop(unauthenticated(answer, "invalid_signature")),
    }
}

fn both_forms_are_accepted(server: &Server) {
    let (agent, resource) = both(server);
    send(&agent, &sdk(&agent, &resource)).ok();
    send(&agent, &rfc(&agent, &resource)).ok();
    // The other alphabet of either.
    let mut call = sdk(&agent, &resource);
    call.url_alphabet = false;
    send(&agent, &call).ok();
    let mut call = rfc(&agent, &resource);
    call.url_alphabet = true;
    send(&agent, &call).ok();
    // The whole address in place of its parts, and more than is wanted.
    let call = rfc(&agent, &resource).not_covering("@authority").not_covering("@path");
    send(&agent, &call.covering("@target-uri")).ok();
    send(&agent, &rfc(&agent, &resource).and("X-Trace", "1").covering("x-trace").covering("agent-auth")).ok();
    // A nonce in a field, which counts once as well, and only where it is covered.
    let nonce = b64(unique("nonce"));
    let with_field = || {
        let call = rfc(&agent, &resource).with("Nonce", &nonce);
        call.saying(&format!(";created={}", unix_now()))
    };
    no(&send(&agent, &with_field()));
    send(&agent, &with_field().covering("nonce")).ok();
    no(&send(&agent, &with_field().covering("nonce")));
}

fn no_component_of_the_sdk_form_may_be_missing_elsewhere_or_twice(server: &Server) {
    let (agent, resource) = both(server);
    let whole = sdk(&agent, &resource).covered;
    for n in 0..whole.len() {
        let mut call = sdk(&agent, &resource);
        call.covered.remove(n);
        no(&send(&agent, &call));
        let mut call = sdk(&agent, &resource);
        call.covered.swap(n, (n + 1) % whole.len());
        no(&send(&agent, &call));
        let mut call = sdk(&agent, &resource);
        call.covered.push(whole[n].clone());
        no(&send(&agent, &call));
        // What is signed is one thing, what is said another.
        let mut call = sdk(&agent, &resource);
        let signature = agent.key.sign(call.base().as_bytes());
        call.covered.remove(n);
        no(&call.carrying(&signature).send());
    }
    let mut call = sdk(&agent, &resource);
    call.covered.clear();
    no(&send(&agent, &call));
}

fn every_component_of_the_other_form_is_required(server: &Server) {
    let (agent, resource) = both(server);
    for name in ["@method", "@authority", "@path", "content-digest", "content-type"] {
        no(&send(&agent, &rfc(&agent, &resource).not_covering(name)));
        no(&send(&agent, &rfc(&agent, &resource).covering(name)));
    }
    for name in ["Content-Digest", "Content-Type"] {
        no(&send(&agent, &rfc(&agent, &resource).without(name)));
        no(&send(&agent, &rfc(&agent, &resource).without(name).not_covering(&name.to_lowercase())));
    }
    // What is covered must be there: only the SDK's form signs what is not.
    no(&send(&agent, &rfc(&agent, &resource).covering("authorization")));
    no(&send(&agent, &rfc(&agent, &resource).covering("signature-key")));
}

fn created_is_there_and_within_a_minute(server: &Server) {
    let (agent, resource) = both(server);
    let now = unix_now();
    for age in [0, 50, -50] {
        send(&agent, &sdk(&agent, &resource).aged(age)).ok();
    }
    for age in [70, -70, 3600, 31_536_000, now + 1] {
        unauthenticated(&send(&agent, &sdk(&agent, &resource).aged(age)), "invalid_signature");
        unauthenticated(&send(&agent, &rfc(&agent, &resource).aged(age)), "invalid_signature");
    }
    let nonce = "bm9uY2Vub25jZW5vbmNl";
    for created in ["9223372036854775808", "999999999999999999", "\"1\"", "1.5", "?1", "now", ""] {
        let params = format!(";created={created};nonce=\"{nonce}\"");
        no(&send(&agent, &sdk(&agent, &resource).saying(&params)));
        no(&send(&agent, &rfc(&agent, &resource).saying(&params)));
    }
    for params in [format!(";nonce=\"{nonce}\""), format!(";created={now};created={now};nonce=\"{nonce}\"")] {
        no(&send(&agent, &sdk(&agent, &resource).saying(&params)));
        no(&send(&agent, &rfc(&agent, &resource).saying(&params)));
    }
}

fn nonce_is_there_and_long_enough(server: &Server) {
    let (agent, resource) = both(server);
    let now = unix_now();
    for nonce in [
        "\"\"",
        "\"short\"",
        "\"AAAAAAAAAAAAAAA\"",
        "\"!!!!!!!!!!!!!!!!!!!!\"",
        "1234567890123456",
        ":AAAAAAAAAAAAAAAAAAAAAA==:",
    ] {
        let params = format!(";created={now};nonce={nonce}");
        no(&send(&agent, &sdk(&agent, &resource).saying(&params)));
        no(&send(&agent, &rfc(&agent, &resource).saying(&params)));
    }
    let params = format!(";created={now};nonce=\"{}\"", "A".repeat(10_000));
    no(&send(&agent, &sdk(&agent, &resource).saying(&params)));
    no(&send(&agent, &sdk(&agent, &resource).saying(&format!(";created={now}"))));
    no(&send(&agent, &rfc(&agent, &resource).saying(&format!(";created={now}"))));
}

fn parameters_of_the_sdk_form_are_two(server: &Server) {
    let (agent, resource) = both(server);
    let now = unix_now();
    let nonce = || unique("nonce");
    for params in [
        format!(";nonce=\"{}\";created={now}", nonce()),
        format!(";created={now};nonce=\"{}\";alg=\"ed25519\"", nonce()),
        format!(";created={now};nonce=\"{}\";keyid=\"k\"", nonce()),
        format!(";created={now};nonce=\"{}\";expires={}", nonce(), now + 60),
    ] {
        no(&send(&agent, &sdk(&agent, &resource).saying(&params)));
        send(&agent, &rfc(&agent, &resource).saying(&params)).ok();
    }
}

fn expires_and_alg_and_tag_are_heeded(server: &Server) {
    let (agent, resource) = both(server);
    let now = unix_now();
    let with = |more: &str| {
        let params = format!(";created={now};nonce=\"{}\"{more}", unique("nonce"));
        send(&agent, &rfc(&agent, &resource).saying(&params))
    };
    for more in ["", ";alg=\"ed25519\"", ";unknown=1", &format!(";expires={}", now + 30)] {
        with(more).ok();
    }
    for more in [
        format!(";expires={}", now - 1),
        format!(";expires={}", now - 100),
        ";expires=\"never\"".to_owned(),
        ";alg=\"hmac-sha256\"".to_owned(),
        ";alg=\"rsa-pss-sha512\"".to_owned(),
        ";alg=\"ecdsa-p256-sha256\"".to_owned(),
        ";alg=\"none\"".to_owned(),
        ";alg=ed25519".to_owned(),
        ";tag=\"web-bot-auth\"".to_owned(),
    ] {
        no(&with(&more));
    }
}

fn content_is_what_its_digest_says(server: &Server) {
    let (agent, resource) = both(server);
    for algorithm in ["sha-256", "sha-512"] {
        send(&agent, &sdk(&agent, &resource).digested(algorithm)).ok();
        send(&agent, &rfc(&agent, &resource).digested(algorithm)).ok();
    }
    // Signed, and another body sent.
    for call in [sdk(&agent, &resource), rfc(&agent, &resource)] {
        let mut sent = call.signed(&agent.key);
        sent.body = body(&agent, &resource).to_string().into_bytes();
        unauthenticated(&sent.send(), "invalid_signature");
        let mut sent = call.signed(&agent.key);
        sent.body.push(b' ');
        unauthenticated(&sent.send(), "invalid_signature");
    }
    let wrong = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let call = rfc(&agent, &resource).digested("sha-512");
    let right = call.signed(&agent.key).field("Content-Digest").to_owned();
    for digest in [
        format!("sha-256=:{wrong}:"),
        format!("sha-256=:{wrong}:, {right}"),
        format!("{right}, sha-256=:{wrong}:"),
        "md5=:AAAAAAAAAAAAAAAAAAAAAA==:".to_owned(),
        "sha-256=::".to_owned(),
        "sha-256".to_owned(),
        format!("sha-256={wrong}"),
        String::new(),
        "SHA-256=:x:".to_owned(),
    ] {
        no(&send(&agent, &sdk(&agent, &resource).with("Content-Digest", &digest)));
        no(&send(&agent, &rfc(&agent, &resource).with("Content-Digest", &digest)));
    }
    no(&send(&agent, &sdk(&agent, &resource).without("Content-Digest")));
    // Of an empty body it is the one of nothing, and nothing is no request.
    let mut call = sdk(&agent, &resource);
    call.body.clear();
    refused(&send(&agent, &call.digested("sha-256")), 400, "invalid_request");
}

fn request_without_a_signature_is_told_which_headers_to_send(server: &Server) {
    let (agent, resource) = both(server);
    let body = body(&agent, &resource);
    let bare = agent.org.post("/aauth/agent/token").json(body.clone());
    for request in [
        bare.clone(),
        bare.clone().header("Agent-Auth", &format!("agent_token={}", agent.token())),
        bare.clone().bearer(&agent.token()),
        bare.api_key(agent.org.key()),
    ] {
        let refusal = unauthenticated(&request.send(), "invalid_signature");
        let text = refusal["error_description"].to_string();
        assert!(text.contains("Signature-Input") && text.contains("`Signature`"), "{text}");
    }
}

fn form_of_the_docs_pages_is_refused_with_the_names_of_the_headers(server: &Server) {
    let (agent, resource) = both(server);
    let body = body(&agent, &resource).to_string();
    let org = &agent.org;
    let base = format!(
        "\"@method\": POST\n\"@target-uri\": {}/aauth/agent/token\n\"content-type\": application/json",
        org.issuer()
    );
    let signature = base64_of(&agent.key.sign(base.as_bytes()));
    let value = format!(
        "sig1=:{signature}:; label=\"sig1\"; alg=\"ed25519\"; keyid=\"{}#{}\"; created={}; \
         covered=\"@method @target-uri content-type\"",
        agent.identifier,
        agent.key.kid(),
        unix_now(),
    );
    let request = org.post("/aauth/agent/token").header("Agent-Auth", &value).body("application/json", body);
    let refusal = unauthenticated(&request.send(), "invalid_signature");
    let text = refusal["error_description"].to_string();
    assert!(text.contains("Signature-Input") && text.contains("RFC 9421"), "{text}");
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

fn authorization_that_is_there_is_covered(server: &Server) {
    let (agent, resource) = both(server);
    let call = sdk(&agent, &resource).with("Authorization", "Bearer x");
    send(&agent, &call).ok();
    no(&sdk(&agent, &resource).signed(&agent.key).with("Authorization", "Bearer x").send());
    no(&send(&agent, &rfc(&agent, &resource).with("Authorization", "Bearer x")));
    send(&agent, &rfc(&agent, &resource).with("Authorization", "Bearer x").covering("authorization")).ok();
}

fn refused_requests_have_no_effect(server: &Server) {
    let (agent, resource) = both(server);
    let call = sdk(&agent, &resource);
    let thief = Ed25519::generate("t");
    let sent = call.signed(&agent.key);
    // Neither the nonce nor the resource token is used up by whoever cannot sign.
    unauthenticated(&call.signed(&thief).send(), "key_binding_failed");
    let mut bent = sent.clone();
    bent.body.push(b' ');
    unauthenticated(&bent.send(), "invalid_signature");
    sent.send().ok();
    unauthenticated(&sent.send(), "invalid_signature");
}

fn signing_key_is_the_one_of_the_token_and_nothing_that_the_request_names(server: &Server) {
    let (agent, resource) = both(server);
    let thief = agent.org.aauth_agent(json!({}));
    // Another agent's key, which the request names by every means.
    let name = format!("{}#{}", thief.identifier, thief.key.kid());
    let call = sdk(&agent, &resource).with("Signature-Key", &name);
    unauthenticated(&send(&thief, &call), "key_binding_failed");
    let params = format!(";created={};nonce=\"{}\";keyid=\"{name}\"", unix_now(), unique("nonce"));
    unauthenticated(&send(&thief, &rfc(&agent, &resource).saying(&params)), "key_binding_failed");
    let inline = format!("sig=hwk;kty=\"OKP\";crv=\"Ed25519\";x=\"{}\"", thief.key.x());
    let call = rfc(&agent, &resource).with("Signature-Key", &inline).covering("signature-key");
    unauthenticated(&send(&thief, &call), "key_binding_failed");
}

fn key_of_another_organization_signs_nothing_here(server: &Server) {
    let (agent, resource) = both(server);
    let there = server.globex();
    // Of the same name, and under the same name of its key, so that nothing but the organization tells them apart.
    let keys = [agent.key.kid(), resource.key.kid()].map(Ed25519::generate);
    let mut twin = there.aauth_agent(json!({ "agent_identifier": agent.identifier, "jwks": keys[0].jwks() }));
    let mut door =
        there.aauth_resource(json!({ "resource_identifier": resource.identifier, "jwks": keys[1].jwks() }));
    [twin.key, door.key] = keys;
    // There they are good.
    twin.tokens(&door);
    let name = |agent: &AAuthAgent<'_>| format!("{}#{}", agent.identifier, agent.key.kid());
    let params = format!(";created={};nonce=\"{}\";keyid=\"{}\"", unix_now(), unique("nonce"), name(&twin));
    unauthenticated(&send(&twin, &rfc(&agent, &resource).saying(&params)), "key_binding_failed");
    unauthenticated(&send(&twin, &sdk(&agent, &resource)), "key_binding_failed");
    // With an agent token of its own, which is one of the same agent to whoever does not look at the key.
    let call = agent.call(&body(&agent, &resource)).by(&twin.token());
    unauthenticated(&send(&twin, &call), "invalid_agent_token");
    // By the name of a registered key.
    let body = json!({ "token": "jti" });
    let named = Call::sdk(&agent.org, "/aauth/token/revoke", &body).with("Signature-Key", &name(&twin));
    unauthenticated(&send(&twin, &named), "invalid_signature");
    send(&agent, &named).ok();
    let ask = json!({ "auth_token": "x" });
    let call = resource.call("/aauth/auth/token/verify", &ask);
    unauthenticated(&call.signed(&door.key).send(), "invalid_signature");
    call.signed(&resource.key).send().ok();
    // Nor a resource token by the other's key.
    let token = door.key.token("resource+jwt", &resource.claims(&agent, json!({})));
    refused(
        &agent.ask(&json!({ "request_type": "auth", "resource_token": token })),
        400,
        "invalid_resource_token",
    );
}
