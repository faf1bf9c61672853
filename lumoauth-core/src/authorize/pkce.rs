//! Proof Key for Code Exchange (RFC 7636), `S256` only: `plain` shows the secret to whoever sees the request.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::secret::{SecretHash, sha256};

/// Whether `text` is a `code_challenge`: 32 bytes in canonical base64url.
pub(crate) fn is_challenge(text: &str) -> bool {
    text.len() == 43 && URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

/// Whether `verifier` is well formed (43 to 128 unreserved characters) and the one behind `challenge`.
pub(crate) fn verifies(challenge: &str, verifier: &str) -> bool {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    if !(43..=128).contains(&verifier.len()) || !verifier.bytes().all(unreserved) {
        return false;
    }
    let Ok(Ok(wanted)) = URL_SAFE_NO_PAD.decode(challenge).map(<[u8; 32]>::try_from) else { return false };
    SecretHash::from_bytes(wanted).equals(&SecretHash::from_bytes(sha256(verifier.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7636 appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn the_example_of_the_standard_verifies_and_nothing_near_it() {
        assert!(is_challenge(CHALLENGE) && verifies(CHALLENGE, VERIFIER));
        assert!(!verifies(CHALLENGE, &VERIFIER.replace('d', "D")));
        assert!(!verifies(VERIFIER, VERIFIER), "a challenge is not its own verifier");
        assert!(!verifies(CHALLENGE, ""));
    }

    #[test]
    fn verifiers_and_challenges_have_their_form() {
        let challenge = |verifier: &str| URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes()));
        for (verifier, good) in [
            ("a".repeat(42), false),
            ("a".repeat(43), true),
            ("~".repeat(128), true),
            ("a".repeat(129), false),
            ("+".repeat(43), false),
            ("é".repeat(43), false),
        ] {
            assert_eq!(verifies(&challenge(&verifier), &verifier), good, "{verifier}");
        }
        for bad in
            ["", "abc", &"A".repeat(42), &"A".repeat(44), &format!("{}=", "A".repeat(42)), &"+".repeat(43)]
        {
            assert!(!is_challenge(bad), "{bad}");
        }
    }
}
