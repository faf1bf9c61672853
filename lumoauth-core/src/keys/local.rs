//! Key pairs held in this process.

use std::fmt;

use async_trait::async_trait;
use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use pem::{EncodeConfig, LineEnding, Pem};
use zeroize::Zeroizing;

use super::{Algorithm, KeyError, Signer, VerifyingKey};
use crate::{id::KeyId, jwks::PublicKey, secret::Secret};

/// A key pair in this process, with its id: for programs that keep their own key in a file.
///
/// Its `Debug` shows the id alone.
///
/// ```
/// use lumoauth_core::{id::KeyId, keys::{Algorithm, LocalSigner}};
///
/// let signer = LocalSigner::generate(KeyId::parse("key-1")?, Algorithm::EdDsa)?;
/// let pem = signer.to_pkcs8_pem()?;
/// let again = LocalSigner::from_pkcs8_pem(KeyId::parse("key-1")?, Algorithm::EdDsa, pem.expose())?;
/// assert_eq!(again.public_key()?.thumbprint(), signer.public_key()?.thumbprint());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LocalSigner {
    id: KeyId,
    pair: Pair,
}

enum Pair {
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

/// A new private key in PKCS#8.
pub(crate) fn generate(algorithm: Algorithm) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let failed = |_| KeyError::Crypto("key generation");
    let random = random();
    let bytes = match algorithm {
        Algorithm::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(failed)?
            .as_ref()
            .to_vec(),
        Algorithm::EdDsa => Ed25519KeyPair::generate_pkcs8(&random).map_err(failed)?.as_ref().to_vec(),
        Algorithm::Rs256 => {
            use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
            AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(failed)?.as_ref().to_vec()
        }
    };
    Ok(Zeroizing::new(bytes))
}

/// The label of an unencrypted private key (RFC 7468 section 10).
const PEM_LABEL: &str = "PRIVATE KEY";

impl LocalSigner {
    /// A new key pair.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if none can be made.
    pub fn generate(id: KeyId, algorithm: Algorithm) -> Result<Self, KeyError> {
        Self::from_pkcs8(id, algorithm, &generate(algorithm)?)
    }

    /// The key pair of an unencrypted PKCS#8 PEM text (RFC 5958, RFC 7468 section 10), as `openssl genpkey` writes it.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if it is something else, or a key for another algorithm. The text is not in the error.
    pub fn from_pkcs8_pem(id: KeyId, algorithm: Algorithm, pem: &str) -> Result<Self, KeyError> {
        let parsed = pem::parse(pem).ok().filter(|pem| pem.tag() == PEM_LABEL);
        let der = Zeroizing::new(parsed.ok_or(KeyError::Crypto("not a PKCS#8 PEM text"))?.into_contents());
        Self::from_pkcs8_der(id, algorithm, &der)
    }

    /// The key pair of a PKCS#8 document in DER, version 1 or 2.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if it is something else, or a key for another algorithm.
    pub fn from_pkcs8_der(id: KeyId, algorithm: Algorithm, der: &[u8]) -> Result<Self, KeyError> {
        Self::from_pkcs8(id, algorithm, der)
            .map_err(|_| KeyError::Crypto("not a private key for this algorithm"))
    }

    /// The Ed25519 key pair of its 32 secret bytes (RFC 8032 section 5.1.5; the `d` of a JWK).
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if the library refuses.
    pub fn from_ed25519_seed(id: KeyId, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Crypto("not an Ed25519 seed"))?;
        Ok(Self { id, pair: Pair::EdDsa(pair) })
    }

    /// The key pair as a PKCS#8 PEM text, unencrypted. Whoever reads it can sign as this key. The text is wiped when it is
    /// dropped; copies that are made of the key on the way to it are not.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if it cannot be written.
    pub fn to_pkcs8_pem(&self) -> Result<Secret, KeyError> {
        use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
        let failed = |_| KeyError::Crypto("key export");
        let der = match &self.pair {
            // Version 1, which everything reads.
            Pair::EdDsa(pair) => pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
            Pair::Es256(pair) => pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
            Pair::Rs256(pair) => AsDer::<Pkcs8V1Der<'_>>::as_der(pair).map_err(failed)?.as_ref().to_vec(),
        };
        let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
        Ok(Secret::from(pem::encode_config(&Pem::new(PEM_LABEL, der), config)))
    }

    /// The public half.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if the pair is one that nobody should accept, such as RSA of less than 2048 bits.
    pub fn public_key(&self) -> Result<PublicKey, KeyError> {
        let jwk = serde_json::to_value(self.verifying_key()?.jwk());
        let key = jwk.ok().as_ref().and_then(PublicKey::from_jwk);
        key.ok_or(KeyError::Crypto("not a key that others accept"))
    }

    pub(crate) fn from_pkcs8(id: KeyId, algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, KeyError> {
        let rejected = |_| KeyError::Sealed(id.clone());
        let pair = match algorithm {
            Algorithm::Es256 => Pair::Es256(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map_err(rejected)?,
            ),
            Algorithm::Rs256 => Pair::Rs256(RsaKeyPair::from_pkcs8(pkcs8).map_err(rejected)?),
            Algorithm::EdDsa => Pair::EdDsa(Ed25519KeyPair::from_pkcs8(pkcs8).map_err(rejected)?),
        };
        Ok(Self { id, pair })
    }

    pub(crate) fn verifying_key(&self) -> Result<VerifyingKey, KeyError> {
        let id = self.id.clone();
        match &self.pair {
            Pair::Es256(pair) => VerifyingKey::es256(id, pair.public_key().as_ref()),
            Pair::EdDsa(pair) => VerifyingKey::eddsa(id, pair.public_key().as_ref()),
            Pair::Rs256(pair) => {
                let key = pair.public_key();
                VerifyingKey::rs256(
                    id,
                    key.as_ref(),
                    key.modulus().big_endian_without_leading_zero(),
                    key.exponent().big_endian_without_leading_zero(),
                )
            }
        }
    }
}

#[async_trait]
impl Signer for LocalSigner {
    fn key_id(&self) -> &KeyId {
        &self.id
    }

    fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Es256(_) => Algorithm::Es256,
            Pair::Rs256(_) => Algorithm::Rs256,
            Pair::EdDsa(_) => Algorithm::EdDsa,
        }
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let failed = |_| KeyError::Crypto("signing");
        match &self.pair {
            Pair::Es256(pair) => Ok(pair.sign(&random(), message).map_err(failed)?.as_ref().to_vec()),
            Pair::EdDsa(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random(), message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "key generation and ECDSA draw from the operating system")]
fn random() -> SystemRandom {
    SystemRandom::new()
}

impl fmt::Debug for LocalSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSigner").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_algorithm_signs_what_its_public_key_verifies_and_nothing_else() {
        for algorithm in [Algorithm::Es256, Algorithm::Rs256, Algorithm::EdDsa] {
            let id = KeyId::parse("k1").unwrap();
            let pkcs8 = generate(algorithm).unwrap();
            let signer = LocalSigner::from_pkcs8(id, algorithm, &pkcs8).unwrap();
            let key = signer.verifying_key().unwrap();
            let signature = signer.sign(b"message").await.unwrap();
            assert!(key.verify(b"message", &signature), "{algorithm:?}");
            assert!(!key.verify(b"massage", &signature), "{algorithm:?}");
            assert!(!key.verify(b"message", &signature[1..]), "{algorithm:?}");
            assert_eq!(signer.algorithm(), key.algorithm());
            assert_eq!(key.jwk().alg, algorithm.as_str());
        }
    }
}
