//! Ranges of addresses.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// A range of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address.
///
/// An IPv4 address in the form of an IPv6 one (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2), as which it comes on a socket
/// for both, is that IPv4 address, here and where addresses are compared. So no range of IPv6 has an IPv4 address in it, not
/// even `::/0`.
///
/// ```
/// use lumoauth_core::network::Network;
///
/// let network: Network = "10.1.2.3/8".parse()?;
/// assert_eq!(network.to_string(), "10.0.0.0/8");
/// assert!(network.contains("::ffff:10.255.255.255".parse().unwrap()));
/// assert!(!network.contains("11.0.0.0".parse().unwrap()));
/// # Ok::<_, lumoauth_core::network::ParseNetworkError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    /// The first one.
    first: IpAddr,
    /// How many bits all of them have in common.
    length: u8,
}

/// A text is no range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is neither a network such as `10.0.0.0/8` or `2001:db8::/32` nor an address")]
pub struct ParseNetworkError(());

impl Network {
    /// Whether `address` is one of them.
    pub fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && first(address, self.length) == self.first
    }
}

/// The first address of the range of `length` that `address` is in.
fn first(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

const fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        const NONE: ParseNetworkError = ParseNetworkError(());
        let (address, length) = match text.trim().split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| NONE)?;
        let most = bits(address);
        let length = match length {
            None => most,
            Some(text) if text.bytes().all(|digit| digit.is_ascii_digit()) => {
                text.parse().map_err(|_| NONE)?
            }
            Some(_) => return Err(NONE),
        };
        if length > most {
            return Err(NONE);
        }
        let (address, length) = match (address.to_canonical(), length.checked_sub(128 - 32)) {
            (canonical, Some(rest)) if canonical.is_ipv4() && address.is_ipv6() => (canonical, rest),
            _ => (address, length),
        };
        Ok(Self { first: first(address, length), length })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.length == bits(self.first) {
            self.first.fmt(f)
        } else {
            write!(f, "{}/{}", self.first, self.length)
        }
    }
}

impl TryFrom<String> for Network {
    type Error = ParseNetworkError;

    fn try_from(text: String) -> Result<Self, ParseNetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn first_and_last_are_in_and_their_neighbours_are_not() {
        for (text, first, last, before, after) in [
            ("10.0.0.0/8", "10.0.0.0", "10.255.255.255", "9.255.255.255", "11.0.0.0"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.255", "192.0.2.127", "192.0.3.0"),
            ("192.0.2.4/31", "192.0.2.4", "192.0.2.5", "192.0.2.3", "192.0.2.6"),
            ("192.0.2.4/32", "192.0.2.4", "192.0.2.4", "192.0.2.3", "192.0.2.5"),
            ("192.0.2.4", "192.0.2.4", "192.0.2.4", "192.0.2.3", "192.0.2.5"),
            (
                "2001:db8::/32",
                "2001:db8::",
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:db7:ffff::",
                "2001:db9::",
            ),
            ("2001:db8::8/127", "2001:db8::8", "2001:db8::9", "2001:db8::7", "2001:db8::a"),
            ("::1", "::1", "::1", "::", "::2"),
        ] {
            let contains = |address: &str| network(text).contains(address.parse().unwrap());
            assert!(contains(first) && contains(last), "{text}");
            assert!(!contains(before) && !contains(after), "{text}");
        }
    }

    #[test]
    fn everything_is_everything_of_one_family() {
        for (text, inside, outside) in [
            ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255", "::ffff:192.0.2.1"], ["::", "::1", "2001:db8::1"]),
            ("::/0", ["::", "ffff::", "::1"], ["0.0.0.0", "127.0.0.1", "::ffff:192.0.2.1"]),
        ] {
            assert!(inside.iter().all(|address| network(text).contains(address.parse().unwrap())), "{text}");
            assert!(
                !outside.iter().any(|address| network(text).contains(address.parse().unwrap())),
                "{text}"
            );
        }
    }

    #[test]
    fn mapped_addresses_are_those_of_ipv4() {
        for text in ["::ffff:192.0.2.0/120", "::ffff:c000:200/120", "192.0.2.0/24"] {
            assert_eq!(network(text).to_string(), "192.0.2.0/24");
            assert!(network(text).contains("192.0.2.9".parse().unwrap()));
            assert!(network(text).contains("::ffff:192.0.2.9".parse().unwrap()));
            assert!(!network(text).contains("::192.0.2.9".parse().unwrap()));
        }
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_eq!(network("::ffff:0:0/96"), network("0.0.0.0/0"));
        // Larger than all of IPv4: a range of IPv6.
        assert!(!network("::ffff:0:0/95").contains("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn it_is_shown_as_what_it_is() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("192.0.2.1/32", "192.0.2.1"),
            (" 192.0.2.1 ", "192.0.2.1"),
            ("2001:DB8:0:0::1/32", "2001:db8::/32"),
            ("2001:db8::1/128", "2001:db8::1"),
        ] {
            assert_eq!(network(text).to_string(), shown);
            assert_eq!(network(shown), network(text));
            let json = serde_json::to_string(&network(text)).unwrap();
            assert_eq!(json, format!("\"{shown}\""));
            assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network(text));
        }
    }

    #[test]
    fn what_is_no_range_is_none() {
        for text in [
            "",
            " ",
            "*",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0.0/256",
            "10.0.0.0/264",
            "10.0.0.0 /8",
            "10.0.0.0/ 8",
            "10.0.0/8",
            "10/8",
            "010.0.0.0/8",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0-10.0.0.9",
            "10.0.0.*",
            "256.0.0.0",
            "localhost",
            "a.test",
            "10.0.0.1:80",
            "[::1]",
            "::1%eth0",
            "fe80::1%1/64",
            "::/129",
            "::1::/64",
            "0x0a000000",
            "167772160",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text:?}");
        }
    }
}
