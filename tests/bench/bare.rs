//! The yardstick: what a token endpoint cannot do without. A form is read, one signature made, JSON written; for an
//! exchange, signatures are checked as well.

use std::sync::Arc;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
        Signature,
    },
};
use axum::{Form, Json, Router, extract::State, routing::post, serve::ListenerExt};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::target::announce;

/// Where it answers.
pub(crate) const PATH: &str = "/token";

/// Where it takes the form of an exchange.
pub(crate) const EXCHANGE: &str = "/exchange";

struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
    message: String,
    scope: String,
    public: ParsedPublicKey,
    /// Of the message.
    signature: Signature,
    /// How many signatures an exchange checks.
    checks: usize,
}

#[derive(Deserialize)]
struct Exchange {
    grant_type: String,
    subject_token: String,
    subject_token_type: String,
    actor_token: String,
    actor_token_type: String,
}

#[derive(Deserialize)]
struct Ask {
    grant_type: String,
    client_id: String,
    client_secret: String,
}

#[derive(Serialize)]
struct Answer {
    access_token: String,
    token_type: &'static str,
    expires_in: u32,
    scope: String,
}

/// Serves until it is killed. It signs `message` bytes per request, and answers with about `answer` bytes of JSON. For an
/// exchange it checks `checks` signatures over as many bytes before.
pub(crate) async fn serve(message: usize, answer: usize, checks: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a port");
    let around =
        "{'access_token':'','token_type':'Bearer','expires_in':3600,'scope':''}".len() + ".".len() + 86;
    let (key, random, message) = (key(), random(), "e".repeat(message));
    let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key().as_ref());
    let signer = Signer {
        signature: key.sign(&random, message.as_bytes()).expect("the key signs"),
        public: public.expect("it is a key"),
        scope: "s".repeat(answer.saturating_sub(message.len() + around)),
        key,
        random,
        message,
        checks,
    };
    let app =
        Router::new().route(PATH, post(token)).route(EXCHANGE, post(exchange)).with_state(Arc::new(signer));
    announce(address);
    let listener = listener.tap_io(|tcp| {
        let _ = tcp.set_nodelay(true);
    });
    axum::serve(listener, app).await.expect("the listener works");
}

async fn token(State(signer): State<Arc<Signer>>, Form(ask): Form<Ask>) -> Json<Answer> {
    // Used, so that nothing of the parsing can be left out.
    assert!(!ask.grant_type.is_empty() && !ask.client_id.is_empty() && !ask.client_secret.is_empty());
    Json(signer.answer())
}

async fn exchange(State(signer): State<Arc<Signer>>, Form(ask): Form<Exchange>) -> Json<Answer> {
    assert!(!ask.grant_type.is_empty() && !ask.subject_token.is_empty() && !ask.actor_token.is_empty());
    assert_eq!(ask.subject_token_type, ask.actor_token_type);
    let Signer { public, message, signature, checks, .. } = &*signer;
    for _ in 0..*checks {
        public.verify_sig(message.as_bytes(), signature.as_ref()).expect("the signature fits");
    }
    Json(signer.answer())
}

impl Signer {
    fn answer(&self) -> Answer {
        let Self { key, random, message, scope, .. } = self;
        let signature = key.sign(random, message.as_bytes()).expect("the key signs");
        let mut access_token = String::with_capacity(message.len() + 90);
        access_token.push_str(message);
        access_token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut access_token);
        Answer { access_token, token_type: "Bearer", expires_in: 3600, scope: scope.clone() }
    }
}

fn key() -> EcdsaKeyPair {
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random()).expect("a key can be made");
    EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref()).expect("it can be read")
}

#[expect(clippy::disallowed_methods, reason = "the yardstick uses nothing of the library it measures")]
fn random() -> SystemRandom {
    SystemRandom::new()
}
