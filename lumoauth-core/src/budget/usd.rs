//! US dollars as whole millionths, read from decimal text.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, de};
use serde_json::value::RawValue;

/// An amount of money: millionths of a US dollar. A single amount that is read is at most one billion dollars.
///
/// Read from the decimal text of a JSON number or string, never through a float, and written back as exact
/// decimal text.
///
/// ```
/// use lumoauth_core::budget::MicroUsd;
///
/// assert_eq!("0.1".parse::<MicroUsd>().unwrap().micros() + "0.2".parse::<MicroUsd>().unwrap().micros(), 300_000);
/// assert!("0.0000001".parse::<MicroUsd>().is_err());
/// assert_eq!(MicroUsd::from_micros(1_250_000).to_string(), "1.25");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MicroUsd(u64);

/// The text is not an amount: digits with at most six decimals, from 0 to 1000000000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an amount is 0 to 1000000000 with at most 6 decimals, without sign or exponent")]
#[non_exhaustive]
pub struct ParseUsdError;

impl MicroUsd {
    /// The largest single amount that is read, in millionths.
    pub const MAX: u64 = 1_000_000_000_000_000;

    /// The amount of `micros` millionths. Sums may be larger than what is read from outside.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Millionths of a dollar.
    pub const fn micros(self) -> u64 {
        self.0
    }
}

impl FromStr for MicroUsd {
    type Err = ParseUsdError;

    fn from_str(text: &str) -> Result<Self, ParseUsdError> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str, most: usize| {
            (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
        };
        if !digits(whole, 10) || !digits(fraction, 6) {
            return Err(ParseUsdError);
        }
        let whole: u64 = whole.parse().map_err(|_| ParseUsdError)?;
        let micros: u64 = format!("{fraction:0<6}").parse().map_err(|_| ParseUsdError)?;
        let amount = whole * 1_000_000 + micros;
        if amount <= Self::MAX { Ok(Self(amount)) } else { Err(ParseUsdError) }
    }
}

/// Exact decimal text without needless zeros: `40`, `1.25`, `0.000001`.
impl fmt::Display for MicroUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if micros == 0 {
            return write!(f, "{whole}");
        }
        let fraction = format!("{micros:06}");
        write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
    }
}

/// A JSON number with the exact decimal text.
impl Serialize for MicroUsd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// A JSON number or string, by its text.
impl<'de> Deserialize<'de> for MicroUsd {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        text.strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(text)
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_or_refused() {
        for (text, micros) in
            [("0", 0), ("50", 50_000_000), ("0.03", 30_000), ("0.000001", 1), ("1000000000", MicroUsd::MAX)]
        {
            assert_eq!(text.parse::<MicroUsd>().unwrap().micros(), micros);
        }
        for bad in [
            "",
            ".",
            "-1",
            "+1",
            "1.",
            ".5",
            "1e3",
            "NaN",
            "0.1234567",
            "1000000001",
            "99999999999",
            "1,5",
            " 1",
            "0x1",
            "1.000000000000000000000000000000001",
        ] {
            assert!(bad.parse::<MicroUsd>().is_err(), "{bad}");
        }
    }

    #[test]
    fn json_keeps_the_text() {
        let amount: MicroUsd = serde_json::from_str("0.1").unwrap();
        assert_eq!(serde_json::to_string(&amount).unwrap(), "0.1");
        assert_eq!(serde_json::from_str::<MicroUsd>("\"0.0245\"").unwrap().micros(), 24_500);
        for bad in ["-1", "1e308", "null", "true", "[1]", "\"1e3\"", "18446744073709551616"] {
            assert!(serde_json::from_str::<MicroUsd>(bad).is_err(), "{bad}");
        }
    }
}
