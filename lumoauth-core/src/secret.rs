//! Secrets that never print, and the hashes that stores keep instead of them.

use std::{borrow::Cow, fmt};

use aws_lc_rs::{constant_time, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::random::random_bytes;

/// A credential in the clear: a client secret, an API key, a token.
///
/// It has no `Display`, `Serialize` or `PartialEq`, its `Debug` is redacted, and its memory is wiped on drop.
/// [`Secret::expose`] is the only way to the text.
///
/// ```
/// use lumoauth_core::secret::Secret;
///
/// let secret = Secret::generate("lms_");
/// assert_eq!(format!("{secret:?}"), "Secret([redacted])");
/// assert!(secret.expose().starts_with("lms_"));
/// assert!(secret.hash().matches(&secret));
/// assert!(!secret.hash().matches(&Secret::from("guess")));
/// ```
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// A new secret: `prefix`, then 256 random bits in base64url.
    pub fn generate(prefix: &str) -> Self {
        let random = Zeroizing::new(random_bytes::<32>());
        let mut text = Zeroizing::new(String::with_capacity(prefix.len() + 43));
        text.push_str(prefix);
        URL_SAFE_NO_PAD.encode_string(random.as_slice(), &mut text);
        Self(text)
    }

    /// The text. Never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What a store may keep of this secret.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(&self.0)
    }
}

/// How the credentials that are made here begin.
const PREFIXES: [&str; 9] = ["lms_", "lmk_", "agk_", "rt_", "ac_", "aac_", "ach_", "apr_", "areq_"];

/// What is written in place of a credential.
const HIDDEN: &str = "[hidden]";

/// `text` without what has the form of a credential: one that is made here, or a signed token. For what callers write and
/// somebody reads later, in a log: they put the right thing in the wrong place.
///
/// ```
/// use lumoauth_core::secret::{Secret, without_credentials};
///
/// let secret = Secret::generate("lms_");
/// assert_eq!(without_credentials(&format!("as {}!", secret.expose())), "as [hidden]!");
/// assert_eq!(without_credentials("read:documents"), "read:documents");
/// ```
pub fn without_credentials(text: &str) -> Cow<'_, str> {
    let runs = || text.split_inclusive(|c: char| !is_of_credential(c));
    let word = |run: &str| run.trim_end_matches(|c| !is_of_credential(c)).len();
    if !runs().any(|run| is_credential(&run[..word(run)])) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len());
    for run in runs() {
        let (run, rest) = run.split_at(word(run));
        kept.push_str(if is_credential(run) { HIDDEN } else { run });
        kept.push_str(rest);
    }
    Cow::Owned(kept)
}

fn is_of_credential(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Whether there is a credential in this run of characters that credentials are made of.
fn is_credential(run: &str) -> bool {
    // 256 random bits are 43 characters; of a part of them, half is enough to hide it.
    const LEAST: usize = 22;
    if run.len() < LEAST {
        return false;
    }
    let begins = |before: &str| !before.ends_with(|c: char| c.is_ascii_alphanumeric());
    // All of them end in an underscore, of which most text has few.
    let ours = |at: usize| {
        let (head, tail) = run.split_at(at + 1);
        tail.len() >= LEAST && PREFIXES.iter().any(|prefix| head.strip_suffix(prefix).is_some_and(begins))
    };
    let signed = || run.find("eyJ").is_some_and(|at| begins(&run[..at]) && run[at..].contains('.'));
    run.match_indices('_').any(|(at, _)| ours(at)) || signed()
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

/// The SHA-256 of a generated secret.
///
/// A fast hash is right here, and only here: these secrets carry 256 random bits, so there is nothing to
/// guess, and a password hash on every token request would be a denial of service on ourselves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of `presented`.
    pub fn of(presented: &str) -> Self {
        Self(sha256(presented.as_bytes()))
    }

    /// Whether `presented` is the secret behind this hash, compared in constant time.
    pub fn matches(&self, presented: &Secret) -> bool {
        self.equals(&presented.hash())
    }

    /// Whether both are the same, compared in constant time.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }

    /// Eight hexadecimal digits of it, enough to recognise what was sent twice and too few to guess it.
    pub(crate) fn short(&self) -> String {
        self.0[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The 32 bytes of the hash, as a store keys by them.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A hash that was stored as bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash([redacted])")
    }
}

impl Serialize for SecretHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for SecretHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(serde::de::Error::custom)?;
        bytes.try_into().map(Self).map_err(|_| serde::de::Error::custom("not 32 bytes"))
    }
}

/// SHA-512, for the hash of an access token beside an Ed25519 signature.
pub(crate) fn sha512(data: &[u8]) -> [u8; 64] {
    let mut out = [0; 64];
    out.copy_from_slice(digest::digest(&digest::SHA512, data).as_ref());
    out
}

/// SHA-256, as used for secrets, handles and digests.
pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_text() {
        for prefix in PREFIXES {
            let secret = Secret::generate(prefix);
            let text = secret.expose();
            for (before, after) in [("", ""), ("a ", " b"), ("\u{e9}:", "/x"), ("read:", ":*"), ("a_", "")] {
                let shown = without_credentials(&format!("{before}{text}{after}")).into_owned();
                assert!(shown.contains("[hidden]") && !shown.contains(&text[..20]), "{shown}");
            }
            // Half of one is one.
            assert!(!without_credentials(&text[..prefix.len() + 22]).contains(prefix));
        }
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJhIjoxfQ.c2lnbmF0dXJl";
        assert_eq!(
            without_credentials(&format!("Bearer {token}, twice {token}")),
            "Bearer [hidden], twice [hidden]"
        );
        for text in [
            "",
            "read:documents",
            "agt_2fcd31b0659f4a0db0989fe2ba0b21f7",
            "report_of_everything_that_happened_this_year",
            "apr_7",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0",
            "tool:eyJ",
            "0c0d4d5e-9a55-0a6e-5b9d-1f10aa23bc45",
        ] {
            assert!(matches!(without_credentials(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}
