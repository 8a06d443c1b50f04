//! `ipBlock`: addresses by CIDR, whoever owns them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// An `ipBlock` in normal form: host bits cleared; only excepts that lie strictly inside the CIDR
/// and not inside each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub struct IpBlock {
    cidr: IpNet,
    except: BTreeSet<IpNet>,
}

impl IpBlock {
    /// `cidr` without `except`. `None` if nothing is left because an except covers the whole CIDR.
    /// Excepts outside the CIDR (the API refuses them) take nothing away.
    pub fn new(cidr: IpNet, except: impl IntoIterator<Item = IpNet>) -> Option<Self> {
        let cidr = cidr.trunc();
        let mut inside: Vec<IpNet> = Vec::new();
        for net in except {
            let net = net.trunc();
            if net.contains(&cidr) {
                return None;
            }
            if cidr.contains(&net) {
                inside.push(net);
            }
        }
        // Sorted by address, then by length: what covers a network comes before it.
        inside.sort();
        let mut kept: Vec<IpNet> = Vec::new();
        for net in inside {
            if !kept.last().is_some_and(|outer| outer.contains(&net)) {
                kept.push(net);
            }
        }
        Some(Self {
            cidr,
            except: kept.into_iter().collect(),
        })
    }

    /// The CIDR.
    pub fn cidr(&self) -> IpNet {
        self.cidr
    }

    /// What is taken out of it.
    pub fn except(&self) -> &BTreeSet<IpNet> {
        &self.except
    }

    /// Whether the block matches the address. A block of one family never matches the other's.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address) && !self.except.iter().any(|net| net.contains(&address))
    }
}

impl fmt::Display for IpBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cidr)?;
        for (i, net) in self.except.iter().enumerate() {
            write!(f, "{}{net}", if i == 0 { " except " } else { ", " })?;
        }
        Ok(())
    }
}
