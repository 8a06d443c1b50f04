//! Names and addresses that are checked once, where they are made.

use std::{fmt, net::IpAddr, str::FromStr};

/// Why a name or MAC is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a name the kernel takes.
    #[error(
        "{0:?} is no interface name: 1 to 15 bytes without '/', ':', '%', white space, not '.' or '..'"
    )]
    IfName(String),
    /// Not six pairs of hex digits.
    #[error("{0:?} is no MAC address such as 0a:58:0a:20:00:05")]
    Mac(String),
}

/// Name of a network interface: 1 to 15 bytes (`IFNAMSIZ` - 1, `dev_valid_name` in the kernel).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

impl IfName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`ParseError::IfName`].
    pub fn parse(name: &str) -> Result<Self, ParseError> {
        let bad = name.is_empty()
            || name.len() > 15
            || name == "."
            || name == ".."
            || name
                .chars()
                .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%'));
        if bad {
            Err(ParseError::IfName(name.to_owned()))
        } else {
            Ok(Self(name.to_owned()))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for IfName {
    type Err = ParseError;
    fn from_str(s: &str) -> Result<Self, ParseError> {
        Self::parse(s)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All zero: on a vxlan device the destinations of broadcast, multicast and unknown unicast.
    pub const ZERO: Self = Self([0; 6]);

    /// MAC of the pod that has `addr`: `0a:58` + the IPv4 address; for a pod without IPv4 `0a:59` +
    /// the low 32 bits of the IPv6 address, which are unique inside our blocks (docs/architecture.md,
    /// "Fabric").
    #[must_use]
    pub fn of_pod(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(a) => {
                let [a, b, c, d] = a.octets();
                Self([0x0a, 0x58, a, b, c, d])
            }
            IpAddr::V6(a) => {
                let [.., a, b, c, d] = a.octets();
                Self([0x0a, 0x59, a, b, c, d])
            }
        }
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = ParseError;
    fn from_str(s: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::Mac(s.to_owned());
        let mut octets = [0; 6];
        let mut parts = s.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        match parts.next() {
            None => Ok(Self(octets)),
            Some(_) => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_what_the_kernel_takes() {
        for good in ["weave", "vethwe-datapath", "a", "eth0.5@x"] {
            assert_eq!(IfName::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "a b",
            "a/b",
            "a:b",
            "a%d",
            "sixteen-bytes-xx",
        ] {
            assert_eq!(IfName::parse(bad), Err(ParseError::IfName(bad.into())));
        }
    }

    #[test]
    fn macs_print_and_parse() {
        let mac: MacAddr = "0a:58:0a:20:00:05".parse().unwrap();
        assert_eq!(mac, MacAddr::of_pod("10.32.0.5".parse().unwrap()));
        assert_eq!(mac.to_string(), "0a:58:0a:20:00:05");
        assert_eq!(
            MacAddr::of_pod("fd00:10::1:2".parse().unwrap()).to_string(),
            "0a:59:00:01:00:02"
        );
        for bad in [
            "",
            "0a:58:0a:20:00",
            "0a:58:0a:20:00:05:06",
            "0a:58:0a:20:00:5",
            "0a-58-0a-20-00-05",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }
}
