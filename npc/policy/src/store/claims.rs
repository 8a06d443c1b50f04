//! Which pods claim an address. Nearly always it is one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::PodNumber;

#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    v4: HashMap<Ipv4Addr, PodNumber>,
    v6: HashMap<Ipv6Addr, PodNumber>,
    /// All claimants of addresses that have several.
    contested: BTreeMap<IpAddr, BTreeSet<PodNumber>>,
}

impl Claims {
    fn one(&self, address: IpAddr) -> Option<PodNumber> {
        match address {
            IpAddr::V4(address) => self.v4.get(&address).copied(),
            IpAddr::V6(address) => self.v6.get(&address).copied(),
        }
    }

    fn set(&mut self, address: IpAddr, to: Option<PodNumber>) {
        match (address, to) {
            (IpAddr::V4(address), Some(to)) => self.v4.insert(address, to),
            (IpAddr::V4(address), None) => self.v4.remove(&address),
            (IpAddr::V6(address), Some(to)) => self.v6.insert(address, to),
            (IpAddr::V6(address), None) => self.v6.remove(&address),
        };
    }

    pub(super) fn add(&mut self, address: IpAddr, by: PodNumber) {
        match self.one(address) {
            None => self.set(address, Some(by)),
            Some(first) if first == by => {}
            Some(first) => {
                let all = self.contested.entry(address).or_default();
                all.extend([first, by]);
            }
        }
    }

    pub(super) fn remove(&mut self, address: IpAddr, by: PodNumber) {
        let Some(all) = self.contested.get_mut(&address) else {
            if self.one(address) == Some(by) {
                self.set(address, None);
            }
            return;
        };
        all.remove(&by);
        let (left, first) = (all.len(), all.first().copied());
        if left < 2 {
            self.contested.remove(&address);
        }
        self.set(address, first);
    }

    pub(super) fn is_contested(&self, address: IpAddr) -> bool {
        !self.contested.is_empty() && self.contested.contains_key(&address)
    }

    /// All who claim the address.
    pub(super) fn of(&self, address: IpAddr) -> impl Iterator<Item = PodNumber> {
        let several = self.contested.get(&address);
        let one = match several {
            None => self.one(address),
            Some(_) => None,
        };
        one.into_iter()
            .chain(several.into_iter().flatten().copied())
    }

    pub(super) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }
}
