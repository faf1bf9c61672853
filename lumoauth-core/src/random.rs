//! The one source of randomness: the operating system, through aws-lc.

/// `N` random bytes that are fit for keys and secrets.
///
/// # Panics
/// If the operating system cannot give randomness. Going on without it would mean guessable secrets.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::disallowed_methods, reason = "the one place that draws randomness")]
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// A random integer from 1 to 2^53 - 1: the integer ids that JSON clients can hold exactly.
pub fn random_number() -> u64 {
    (u64::from_be_bytes(random_bytes()) >> 11).max(1)
}
