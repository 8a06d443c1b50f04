//! Kernel -> [`Network`].

use std::collections::BTreeMap;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressMessage, AddressScope},
        link::{
            InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVxlan, LinkAttribute,
            LinkFlags, LinkInfo, LinkMessage,
        },
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol},
    },
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{ROUTE_PROTOCOL, error};
use crate::{
    Address, Bridge, Error, FdbEntry, IfName, Kind, Link, MacAddr, Neighbour, Network, Port, Route,
    Vxlan,
};

type Names = BTreeMap<u32, IfName>;

/// `ENODEV`.
const NO_DEVICE: i32 = 19;

pub(super) async fn dump(handle: &Handle) -> Result<Network, Error> {
    let messages: Vec<LinkMessage> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(|e| error("list links", e))?;
    let names: Names = messages
        .iter()
        .filter_map(|m| Some((m.header.index, name_of(m)?)))
        .collect();
    let mut network = Network::default();
    for message in &messages {
        if let Some(name) = names.get(&message.header.index) {
            network.links.insert(name.clone(), link_of(message, &names));
        }
    }
    let addresses: Vec<AddressMessage> = handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(|e| error("list addresses", e))?;
    network.addresses = addresses
        .iter()
        .filter_map(|m| address_of(m, &names))
        .collect();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut filter = RouteMessageBuilder::<IpAddr>::new().build();
        filter.header.address_family = family;
        let routes: Vec<RouteMessage> = handle
            .route()
            .get(filter)
            .execute()
            .try_collect()
            .await
            .map_err(|e| error("list routes", e))?;
        network
            .routes
            .extend(routes.iter().filter_map(|m| route_of(m, &names)));
    }
    let mut get = handle.neighbours().get();
    get.message_mut().header.family = AddressFamily::Bridge;
    let fdb: Vec<NeighbourMessage> = get
        .execute()
        .try_collect()
        .await
        .map_err(|e| error("list FDB entries", e))?;
    network.fdb = fdb.iter().filter_map(|m| fdb_of(m, &names)).collect();
    let neighbours: Vec<NeighbourMessage> = handle
        .neighbours()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(|e| error("list neighbours", e))?;
    network.neighbours = neighbours
        .iter()
        .filter_map(|m| neighbour_of(m, &names))
        .collect();
    Ok(network)
}

/// One link. Names of other links (a veth's other end, the bridge of a port) are not known here.
pub(super) async fn link(handle: &Handle, name: &IfName) -> Result<Option<Link>, Error> {
    let links = handle.link().get().match_name(name.to_string()).execute();
    let found: Result<Vec<LinkMessage>, _> = links.try_collect().await;
    match found {
        Ok(found) => Ok(found.first().map(|m| link_of(m, &Names::new()))),
        Err(rtnetlink::Error::NetlinkError(message))
            if message.to_io().raw_os_error() == Some(NO_DEVICE) =>
        {
            Ok(None)
        }
        Err(failure) => Err(error(format!("look at link {name}"), failure)),
    }
}

fn name_of(message: &LinkMessage) -> Option<IfName> {
    message.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => IfName::parse(name).ok(),
        _ => None,
    })
}

fn mac_of(bytes: &[u8]) -> Option<MacAddr> {
    bytes.try_into().ok().map(MacAddr)
}

fn link_of(message: &LinkMessage, names: &Names) -> Link {
    let mut link = Link {
        kind: Kind::Other(String::new()),
        alias: String::new(),
        group: 0,
        mac: None,
        mtu: None,
        up: Some(message.header.flags.contains(LinkFlags::Up)),
        port: None,
    };
    let mut peer = None;
    let mut peer_is_elsewhere = false;
    let mut controller = None;
    let mut infos: &[LinkInfo] = &[];
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            LinkAttribute::Group(group) => link.group = *group,
            LinkAttribute::Address(bytes) => link.mac = mac_of(bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = Some(*mtu),
            LinkAttribute::Link(index) => peer = names.get(index).cloned(),
            LinkAttribute::LinkNetNsId(_) => peer_is_elsewhere = true,
            LinkAttribute::Controller(index) => controller = names.get(index).cloned(),
            LinkAttribute::LinkInfo(list) => infos = list,
            _ => {}
        }
    }
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Veth) => {
                link.kind = Kind::Veth {
                    peer: peer.clone().filter(|_| !peer_is_elsewhere),
                };
            }
            LinkInfo::Kind(kind) => link.kind = Kind::Other(kind.to_string()),
            LinkInfo::Data(InfoData::Bridge(list)) => link.kind = Kind::Bridge(bridge_of(list)),
            LinkInfo::Data(InfoData::Vxlan(list)) => link.kind = Kind::Vxlan(vxlan_of(list)),
            LinkInfo::PortData(InfoPortData::BridgePort(list)) => {
                link.port = controller.clone().map(|bridge| port_of(bridge, list));
            }
            _ => {}
        }
    }
    link
}

fn bridge_of(list: &[InfoBridge]) -> Bridge {
    let mut bridge = Bridge {
        ageing: 0,
        multicast_snooping: false,
        nf_call_iptables: false,
        nf_call_ip6tables: false,
        nf_call_arptables: false,
    };
    for info in list {
        match info {
            // The kernel counts in hundredths of a second (USER_HZ).
            InfoBridge::AgeingTime(t) => bridge.ageing = *t / 100,
            InfoBridge::MulticastSnooping(on) => bridge.multicast_snooping = *on,
            InfoBridge::NfCallIpTables(on) => bridge.nf_call_iptables = *on,
            InfoBridge::NfCallIp6Tables(on) => bridge.nf_call_ip6tables = *on,
            InfoBridge::NfCallArpTables(on) => bridge.nf_call_arptables = *on,
            _ => {}
        }
    }
    bridge
}

fn vxlan_of(list: &[InfoVxlan]) -> Vxlan {
    let mut vxlan = Vxlan {
        vni: 0,
        port: 0,
        local: None,
        learning: false,
    };
    for info in list {
        match info {
            InfoVxlan::Id(vni) => vxlan.vni = *vni,
            InfoVxlan::Port(port) => vxlan.port = *port,
            InfoVxlan::Local(addr) => vxlan.local = Some(IpAddr::V4(*addr)),
            InfoVxlan::Local6(addr) => vxlan.local = Some(IpAddr::V6(*addr)),
            InfoVxlan::Learning(on) => vxlan.learning = *on,
            _ => {}
        }
    }
    vxlan
}

fn port_of(bridge: IfName, list: &[InfoBridgePort]) -> Port {
    let mut port = Port {
        bridge,
        learning: false,
        unicast_flood: false,
        hairpin: false,
    };
    for info in list {
        match info {
            InfoBridgePort::Learning(on) => port.learning = *on,
            InfoBridgePort::UnicastFlood(on) => port.unicast_flood = *on,
            InfoBridgePort::HairpinMode(on) => port.hairpin = *on,
            _ => {}
        }
    }
    port
}

fn address_of(message: &AddressMessage, names: &Names) -> Option<Address> {
    if message.header.scope != AddressScope::Universe {
        return None;
    }
    // IFA_LOCAL is the address, IFA_ADDRESS the peer's on point-to-point links; IPv6 has only the
    // latter.
    let find = |local: bool| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(addr) if local => Some(*addr),
            AddressAttribute::Address(addr) if !local => Some(*addr),
            _ => None,
        })
    };
    let addr = find(true).or_else(|| find(false))?;
    Some(Address {
        link: names.get(&message.header.index)?.clone(),
        net: IpNet::new(addr, message.header.prefix_len).ok()?,
    })
}

fn route_of(message: &RouteMessage, names: &Names) -> Option<Route> {
    if message.header.protocol != RouteProtocol::Other(ROUTE_PROTOCOL)
        || message.header.table != RouteHeader::RT_TABLE_MAIN
    {
        return None;
    }
    let mut link = None;
    let mut destination = match message.header.address_family {
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = names.get(index).cloned(),
            RouteAttribute::Destination(RouteAddress::Inet(a)) => destination = IpAddr::V4(*a),
            RouteAttribute::Destination(RouteAddress::Inet6(a)) => destination = IpAddr::V6(*a),
            _ => {}
        }
    }
    Some(Route {
        link: link?,
        destination: IpNet::new(destination, message.header.destination_prefix_length).ok()?,
    })
}

fn lladdr_of(message: &NeighbourMessage) -> Option<MacAddr> {
    message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => mac_of(bytes),
        _ => None,
    })
}

fn destination_of(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => Some(IpAddr::V4(*a)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => Some(IpAddr::V6(*a)),
        // FDB entries are of the bridge family, which leaves the tunnel end as bytes.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from))
                .ok()
        }
        _ => None,
    })
}

/// States are bits: `bridge fdb` writes NOARP and PERMANENT together.
pub(super) fn has(message: &NeighbourMessage, state: NeighbourState) -> bool {
    u16::from(message.header.state) & u16::from(state) != 0
}

/// Learned entries (`REACHABLE`) and a bridge's own addresses (`PERMANENT` on a port) are left out.
fn fdb_of(message: &NeighbourMessage, names: &Names) -> Option<FdbEntry> {
    let link = names.get(&message.header.ifindex)?.clone();
    let mac = lladdr_of(message)?;
    match destination_of(message) {
        Some(remote) => has(message, NeighbourState::Permanent).then_some(FdbEntry::Tunnel {
            link,
            mac,
            remote,
        }),
        None => {
            let on_bridge = message
                .attributes
                .iter()
                .any(|a| matches!(a, NeighbourAttribute::Controller(_)));
            let own = message.header.flags.contains(NeighbourFlags::Own);
            (has(message, NeighbourState::Noarp) && on_bridge && !own)
                .then_some(FdbEntry::Port { link, mac })
        }
    }
}

fn neighbour_of(message: &NeighbourMessage, names: &Names) -> Option<Neighbour> {
    if !has(message, NeighbourState::Permanent)
        || message.header.family == AddressFamily::Bridge
        || message.header.flags.contains(NeighbourFlags::Proxy)
    {
        return None;
    }
    Some(Neighbour {
        link: names.get(&message.header.ifindex)?.clone(),
        address: destination_of(message)?,
        mac: lladdr_of(message)?,
    })
}
