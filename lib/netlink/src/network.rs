//! A whole network namespace as a value: as it is ([`Network`]) and as it shall be ([`Desired`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{IfName, Kind, Link, MacAddr, Port, Step};

/// Address of a link. The net keeps its host bits: `10.32.0.1/12`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// On which link.
    pub link: IfName,
    /// Address and prefix length.
    pub net: IpNet,
}

/// An on-link route in the main table, with our protocol number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Out of which link.
    pub link: IfName,
    /// Where to.
    pub destination: IpNet,
}

/// A static FDB entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FdbEntry {
    /// On a vxlan device: frames to `mac` go to the tunnel end `remote`. Several remotes may stand
    /// for [`MacAddr::ZERO`], the flood list.
    Tunnel {
        /// The vxlan device.
        link: IfName,
        /// Inner destination.
        mac: MacAddr,
        /// Tunnel end.
        remote: IpAddr,
    },
    /// On a bridge port: frames to `mac` leave by this port.
    Port {
        /// The port.
        link: IfName,
        /// Destination.
        mac: MacAddr,
    },
}

impl FdbEntry {
    /// The link it hangs on.
    #[must_use]
    pub fn link(&self) -> &IfName {
        match self {
            Self::Tunnel { link, .. } | Self::Port { link, .. } => link,
        }
    }
}

/// A permanent neighbour entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// On which link.
    pub link: IfName,
    /// Its IP address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: MacAddr,
}

/// What is in a network namespace. Holds only what we could have made: global addresses, routes of
/// our protocol number, static FDB entries, permanent neighbours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Every link, ours or not.
    pub links: BTreeMap<IfName, Link>,
    /// Addresses of all links.
    pub addresses: BTreeSet<Address>,
    /// Routes.
    pub routes: BTreeSet<Route>,
    /// FDB entries.
    pub fdb: BTreeSet<FdbEntry>,
    /// Neighbours.
    pub neighbours: BTreeSet<Neighbour>,
}

/// What shall be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Links of the fabric. One of ours that is missing here is deleted.
    pub links: BTreeMap<IfName, Link>,
    /// Pod links, made and deleted by the CNI plugin: only bridge and port flags are kept, and only
    /// while the link exists.
    pub pod_ports: BTreeMap<IfName, Port>,
    /// Addresses of fabric links.
    pub addresses: BTreeSet<Address>,
    /// Routes through fabric links.
    pub routes: BTreeSet<Route>,
    /// FDB entries on fabric and pod links.
    pub fdb: BTreeSet<FdbEntry>,
    /// Neighbours on fabric links.
    pub neighbours: BTreeSet<Neighbour>,
}

impl Network {
    /// The first address on `link` of the family of `like`.
    #[must_use]
    pub fn link_of_address(&self, address: IpAddr) -> Option<&IfName> {
        self.addresses
            .iter()
            .find(|a| a.net.addr() == address)
            .map(|a| &a.link)
    }

    /// What the kernel would make of `step`: the model behind the fake and the laws of `diff`.
    /// Returns whether the step was possible.
    pub fn apply(&mut self, step: &Step) -> bool {
        match step {
            Step::DeleteLink(name) => self.delete_link(name),
            Step::CreateLink { name, link } => self.create_link(name, link),
            Step::SetAlias { name, alias } => self.edit(name, |l| l.alias.clone_from(alias)),
            Step::SetMac { name, mac } => self.edit(name, |l| l.mac = Some(*mac)),
            Step::SetMtu { name, mtu } => self.edit(name, |l| l.mtu = Some(*mtu)),
            Step::SetUp { name, up } => self.edit(name, |l| l.up = Some(*up)),
            Step::SetBridge { name, bridge } => self.edit(name, |l| l.kind = Kind::Bridge(*bridge)),
            Step::SetPort { name, port } => {
                self.links.contains_key(&port.bridge)
                    && self.edit(name, |l| l.port = Some(port.clone()))
            }
            Step::ClearPort { name } => {
                self.fdb
                    .retain(|e| !matches!(e, FdbEntry::Port { link, .. } if link == name));
                self.edit(name, |l| l.port = None)
            }
            Step::AddAddress(a) => {
                self.links.contains_key(&a.link) && self.addresses.insert(a.clone())
            }
            Step::DeleteAddress(a) => self.addresses.remove(a),
            Step::AddRoute(r) => self.links.contains_key(&r.link) && self.routes.insert(r.clone()),
            Step::DeleteRoute(r) => self.routes.remove(r),
            Step::AddFdb(e) => self.links.contains_key(e.link()) && self.fdb.insert(e.clone()),
            Step::DeleteFdb(e) => self.fdb.remove(e),
            Step::AddNeighbour(n) => {
                self.links.contains_key(&n.link) && {
                    self.neighbours
                        .retain(|o| (&o.link, o.address) != (&n.link, n.address));
                    self.neighbours.insert(n.clone())
                }
            }
            Step::DeleteNeighbour(n) => self.neighbours.remove(n),
        }
    }

    fn edit(&mut self, name: &IfName, change: impl FnOnce(&mut Link)) -> bool {
        self.links.get_mut(name).map(change).is_some()
    }

    fn create_link(&mut self, name: &IfName, link: &Link) -> bool {
        if self.links.contains_key(name) {
            return false;
        }
        let bare = |kind: Kind, mac, mtu| Link {
            kind,
            alias: String::new(),
            group: link.group,
            mac,
            mtu,
            up: Some(false),
            port: None,
        };
        if let Kind::Veth { peer: Some(peer) } = &link.kind {
            if self.links.contains_key(peer) {
                return false;
            }
            let kind = Kind::Veth {
                peer: Some(name.clone()),
            };
            self.links.insert(peer.clone(), bare(kind, None, link.mtu));
        }
        self.links
            .insert(name.clone(), bare(link.kind.clone(), link.mac, link.mtu));
        true
    }

    fn delete_link(&mut self, name: &IfName) -> bool {
        let Some(link) = self.links.remove(name) else {
            return false;
        };
        self.addresses.retain(|a| a.link != *name);
        self.routes.retain(|r| r.link != *name);
        self.neighbours.retain(|n| n.link != *name);
        self.fdb.retain(|e| e.link() != name);
        for (port_name, port) in &mut self.links {
            if port.port.as_ref().is_some_and(|p| p.bridge == *name) {
                port.port = None;
                self.fdb
                    .retain(|e| !matches!(e, FdbEntry::Port { link, .. } if link == port_name));
            }
        }
        if let Kind::Veth { peer: Some(peer) } = link.kind {
            self.delete_link(&peer);
        }
        true
    }
}
