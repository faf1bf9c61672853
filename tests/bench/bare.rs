//! The yardstick: what a token endpoint cannot do without. A form is read, one signature made, JSON written.

use std::sync::Arc;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use axum::{Form, Json, Router, extract::State, routing::post, serve::ListenerExt};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::target::announce;

/// Where it answers.
pub(crate) const PATH: &str = "/token";

struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
    message: String,
    scope: String,
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

/// Serves until it is killed. It signs `message` bytes per request, and answers with about `answer` bytes of JSON.
pub(crate) async fn serve(message: usize, answer: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a port");
    let around =
        "{'access_token':'','token_type':'Bearer','expires_in':3600,'scope':''}".len() + ".".len() + 86;
    let signer = Signer {
        key: key(),
        random: random(),
        message: "e".repeat(message),
        scope: "s".repeat(answer.saturating_sub(message + around)),
    };
    let app = Router::new().route(PATH, post(token)).with_state(Arc::new(signer));
    announce(address);
    let listener = listener.tap_io(|tcp| {
        let _ = tcp.set_nodelay(true);
    });
    axum::serve(listener, app).await.expect("the listener works");
}

async fn token(State(signer): State<Arc<Signer>>, Form(ask): Form<Ask>) -> Json<Answer> {
    // Used, so that nothing of the parsing can be left out.
    assert!(!ask.grant_type.is_empty() && !ask.client_id.is_empty() && !ask.client_secret.is_empty());
    let Signer { key, random, message, scope } = &*signer;
    let signature = key.sign(random, message.as_bytes()).expect("the key signs");
    let mut access_token = String::with_capacity(message.len() + 90);
    access_token.push_str(message);
    access_token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut access_token);
    Json(Answer { access_token, token_type: "Bearer", expires_in: 3600, scope: scope.clone() })
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
