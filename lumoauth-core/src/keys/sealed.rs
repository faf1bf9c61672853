//! Private keys at rest: AES-256-GCM under a master key that no store ever sees.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{KeyError, KeyPurpose};
use crate::{
    id::{KeyId, OrgId},
    random::random_bytes,
};

/// The key that seals all other keys; 32 bytes, given to the server from outside the store.
///
/// ```
/// use lumoauth_core::keys::MasterKey;
///
/// let key = MasterKey::generate();
/// assert!(MasterKey::from_base64(&key.to_base64()).is_ok());
/// assert_eq!(format!("{key:?}"), "MasterKey([redacted])");
/// ```
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

/// The text is not the base64 of 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a master key is 32 bytes in base64")]
#[non_exhaustive]
pub struct ParseMasterKeyError;

impl MasterKey {
    /// A new random key.
    pub fn generate() -> Self {
        Self(Zeroizing::new(random_bytes()))
    }

    /// Reads the base64 form.
    ///
    /// # Errors
    /// [`ParseMasterKeyError`] if it is not 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self, ParseMasterKeyError> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| ParseMasterKeyError)?);
        let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| ParseMasterKeyError)?;
        Ok(Self(Zeroizing::new(key)))
    }

    /// The base64 form, to keep in a file that only the server can read.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.as_slice()))
    }

    /// 32 bytes for another use of the host's, such as authenticating the cookies of its sessions: the same on every server
    /// with this master key, unrelated to those of any other `purpose`, and no way back to the master key (HKDF-SHA256,
    /// RFC 5869).
    ///
    /// ```
    /// # use lumoauth_core::keys::MasterKey;
    /// let key = MasterKey::generate();
    /// assert_eq!(key.derive("cookies")?, key.derive("cookies")?);
    /// assert_ne!(key.derive("cookies")?, key.derive("links")?);
    /// # Ok::<(), lumoauth_core::keys::KeyError>(())
    /// ```
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if the cryptographic library refuses.
    pub fn derive(&self, purpose: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        let failed = |_| KeyError::Crypto("deriving a key");
        let mut key = Zeroizing::new([0; 32]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
            .extract(self.0.as_slice())
            .expand(&[b"lumoauth derived key 1\0", purpose.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(key.as_mut_slice()))
            .map_err(failed)?;
        Ok(key)
    }

    fn cipher(&self) -> Result<LessSafeKey, KeyError> {
        UnboundKey::new(&AES_256_GCM, self.0.as_slice())
            .map(LessSafeKey::new)
            .map_err(|_| KeyError::Crypto("master key"))
    }

    /// Nonce, ciphertext and tag. The nonce is random: one master key seals far fewer than 2^32 keys.
    pub(crate) fn seal(&self, bound_to: &Binding<'_>, pkcs8: &[u8]) -> Result<Vec<u8>, KeyError> {
        let nonce: [u8; NONCE_LEN] = random_bytes();
        let mut text = Zeroizing::new(pkcs8.to_vec());
        let tag = self
            .cipher()?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound_to.bytes()),
                &mut text,
            )
            .map_err(|_| KeyError::Crypto("sealing"))?;
        Ok([nonce.as_slice(), &text, tag.as_ref()].concat())
    }

    /// The PKCS#8 behind `sealed`, if it was sealed under this key for exactly this place.
    pub(crate) fn open(&self, bound_to: &Binding<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let failed = || KeyError::Sealed(bound_to.id.clone());
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or_else(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let mut buffer = Zeroizing::new(text.to_vec());
        let length = self
            .cipher()?
            .open_in_place(nonce, Aad::from(bound_to.bytes()), &mut buffer)
            .map_err(|_| failed())?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey([redacted])")
    }
}

/// What a sealed key belongs to: its ciphertext opens nowhere else.
pub(crate) struct Binding<'a> {
    pub(crate) org: &'a OrgId,
    pub(crate) purpose: KeyPurpose,
    pub(crate) id: &'a KeyId,
}

impl Binding<'_> {
    fn bytes(&self) -> Vec<u8> {
        format!("lumoauth sealed key 1\0{}\0{}\0{}", self.org, self.purpose.as_str(), self.id).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_opens_only_in_its_own_place_and_under_its_own_master() {
        let (org, other) = (OrgId::parse("acme").unwrap(), OrgId::parse("globex").unwrap());
        let (id, other_id) = (KeyId::parse("k1").unwrap(), KeyId::parse("k2").unwrap());
        let place = |org, id| Binding { org, purpose: KeyPurpose::AccessToken, id };
        let master = MasterKey::generate();
        let sealed = master.seal(&place(&org, &id), b"private").unwrap();
        assert_eq!(master.open(&place(&org, &id), &sealed).unwrap().as_slice(), b"private");
        assert!(master.open(&place(&other, &id), &sealed).is_err());
        assert!(master.open(&place(&org, &other_id), &sealed).is_err());
        assert!(MasterKey::generate().open(&place(&org, &id), &sealed).is_err());
        for cut in [0, NONCE_LEN - 1, NONCE_LEN, sealed.len() - 1] {
            assert!(master.open(&place(&org, &id), &sealed[..cut]).is_err());
        }
    }
}
