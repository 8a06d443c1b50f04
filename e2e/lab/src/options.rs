//! What a person may choose when a lab is started.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Backend of kube-proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// `--proxy-mode=iptables`
    Iptables,
    /// `--proxy-mode=nftables`
    Nftables,
}

impl ProxyMode {
    /// The word that kube-proxy knows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for ProxyMode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "iptables" => Ok(Self::Iptables),
            "nftables" => Ok(Self::Nftables),
            other => bail!("unknown proxy mode {other:?}; use iptables or nftables"),
        }
    }
}

/// Address families of nodes and Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Families {
    /// IPv4 only.
    V4,
    /// IPv4 first, IPv6 second.
    Dual,
}

impl Families {
    /// Whether nodes and Services have IPv6 addresses too.
    #[must_use]
    pub fn has_v6(self) -> bool {
        self == Self::Dual
    }
}

impl fmt::Display for Families {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V4 => "v4",
            Self::Dual => "dual",
        })
    }
}

impl FromStr for Families {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "v4" => Ok(Self::V4),
            "dual" => Ok(Self::Dual),
            other => bail!("unknown families {other:?}; use v4 or dual"),
        }
    }
}

/// The shape of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// Nodes at start, `n1` to `nN`.
    pub nodes: u8,
    /// Backend of kube-proxy.
    pub proxy_mode: ProxyMode,
    /// Address families.
    pub families: Families,
    /// MTU of every underlay link, in bytes.
    pub underlay_mtu: u32,
}

impl Options {
    /// More would not fit the address plan (and no machine this is meant for).
    pub const MAXIMUM_NODES: u8 = 100;

    /// Refuses what cannot work, before anything is made.
    ///
    /// # Errors
    /// Names the option and what it may be.
    pub fn validate(&self) -> anyhow::Result<()> {
        if self.nodes == 0 || self.nodes > Self::MAXIMUM_NODES {
            bail!(
                "--nodes {} is out of range; use 1 to {}",
                self.nodes,
                Self::MAXIMUM_NODES
            );
        }
        // 1280 is the least MTU of IPv6 (RFC 8200 §5); inside a tunnel less would be left for pods,
        // and 65,535 is the most that a veth takes.
        if !(1280..=65_535).contains(&self.underlay_mtu) {
            bail!(
                "--underlay-mtu {} is out of range; use 1280 to 65535",
                self.underlay_mtu
            );
        }
        Ok(())
    }
}

impl fmt::Display for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "--nodes {} --proxy-mode {} --families {} --underlay-mtu {}",
            self.nodes, self.proxy_mode, self.families, self.underlay_mtu
        )
    }
}
