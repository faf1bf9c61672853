//! Keys of somebody else, for tests: they publish and sign as platforms and clients do.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{JwkSet, JwsAlgorithm};

/// One key pair.
#[derive(Debug)]
pub(crate) struct TestKey {
    algorithm: JwsAlgorithm,
    kid: &'static str,
    pair: Pair,
}

#[derive(Debug)]
enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, usize),
    Ed25519(Ed25519KeyPair),
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl TestKey {
    pub(crate) fn new(algorithm: JwsAlgorithm, kid: &'static str) -> Self {
        let ec = |curve, size| Pair::Ec(EcdsaKeyPair::generate(curve).unwrap(), size);
        let pair = match algorithm {
            JwsAlgorithm::Es256 => ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, 32),
            JwsAlgorithm::Es384 => ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, 48),
            JwsAlgorithm::EdDsa => Pair::Ed25519(Ed25519KeyPair::generate().unwrap()),
            _ => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
        };
        Self { algorithm, kid, pair }
    }

    /// The same key, signing by another algorithm.
    pub(crate) fn by(mut self, algorithm: JwsAlgorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// The public key, without `alg` and `use`.
    pub(crate) fn jwk(&self) -> Value {
        match &self.pair {
            Pair::Rsa(pair) => {
                let key = pair.public_key();
                let (n, e) = (key.modulus(), key.exponent());
                let (n, e) =
                    (b64(n.big_endian_without_leading_zero()), b64(e.big_endian_without_leading_zero()));
                json!({"kty": "RSA", "kid": self.kid, "n": n, "e": e})
            }
            Pair::Ec(pair, size) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(*size);
                let crv = if *size == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "kid": self.kid, "crv": crv, "x": b64(x), "y": b64(y)})
            }
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "kid": self.kid, "crv": "Ed25519", "x": b64(pair.public_key())})
            }
        }
    }

    /// A set of this key alone.
    pub(crate) fn jwks(&self) -> JwkSet {
        JwkSet { keys: vec![self.jwk()] }
    }

    /// The header that names algorithm and key.
    pub(crate) fn header(&self) -> Value {
        json!({"alg": self.algorithm.as_str(), "kid": self.kid})
    }

    /// A JWT with the usual header.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.raw(&self.header().to_string(), &claims.to_string())
    }

    /// A JWT of these texts, whatever they are.
    pub(crate) fn raw(&self, header: &str, payload: &str) -> String {
        let text = format!("{}.{}", b64(header), b64(payload));
        let signature = self.sign(text.as_bytes());
        format!("{text}.{}", b64(signature))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair, _) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let encoding: &dyn signature::RsaEncoding = match self.algorithm {
                    JwsAlgorithm::Rs256 => &signature::RSA_PKCS1_SHA256,
                    JwsAlgorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
                    JwsAlgorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
                    JwsAlgorithm::Ps256 => &signature::RSA_PSS_SHA256,
                    JwsAlgorithm::Ps384 => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut made = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut made).unwrap();
                made
            }
        }
    }
}
