//! Protocols and ports of NetworkPolicy.

use std::fmt;

/// The protocols that NetworkPolicy and container ports can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub enum Protocol {
    /// TCP, the default where none is given.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Reads `TCP`, `UDP` or `SCTP`; absent and empty mean TCP (API default).
    ///
    /// # Errors
    /// The text that is none of them, to be shown to the user.
    pub fn parse(text: Option<&str>) -> Result<Self, String> {
        match text {
            None | Some("" | "TCP") => Ok(Self::Tcp),
            Some("UDP") => Ok(Self::Udp),
            Some("SCTP") => Ok(Self::Sctp),
            Some(other) => Err(format!(
                "protocol {other:?} is not supported; use TCP, UDP or SCTP"
            )),
        }
    }

    /// IANA protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// Destination ports `first..=last`; `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The range, or `None` if it is empty.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// Highest port, included.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Whether `port` lies in the range.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}
