//! [`Step`] -> kernel.

use std::net::IpAddr;

use futures::StreamExt;
use ipnet::IpNet;
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder,
    packet_core::{
        NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
        NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{
            InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
            InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
        },
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
        route::{RouteMessage, RouteProtocol, RouteScope},
    },
};

use super::{ROUTE_PROTOCOL, error, refused};
use crate::{
    Address, Bridge, Error, FdbEntry, IfName, Kind, Link, MacAddr, Neighbour, Port, Route, Step,
    Vxlan,
};

/// Prefix of temporary state: IPv6 addresses on `weave` need no duplicate detection, the operator
/// grants them once.
const IFA_F_NODAD: u32 = 0x02;

pub(super) async fn apply(handle: &Handle, step: &Step) -> Result<(), Error> {
    use RouteNetlinkMessage as M;
    let set = |message| (M::NewLink(message), 0);
    let (message, flags) = match step {
        Step::DeleteLink(name) => (M::DelLink(by_name(name)), 0),
        Step::CreateLink { name, link } => {
            (M::NewLink(new_link(name, link)), NLM_F_CREATE | NLM_F_EXCL)
        }
        Step::SetAlias { name, alias } => set(with(name, LinkAttribute::IfAlias(alias.clone()))),
        Step::SetMac { name, mac } => set(with(name, LinkAttribute::Address(mac.0.to_vec()))),
        Step::SetMtu { name, mtu } => set(with(name, LinkAttribute::Mtu(*mtu))),
        Step::SetUp { name, up } => {
            let mut message = by_name(name);
            message.header.change_mask = LinkFlags::Up;
            if *up {
                message.header.flags = LinkFlags::Up;
            }
            set(message)
        }
        Step::SetBridge { name, bridge } => set(with(name, bridge_info(bridge))),
        Step::SetPort { name, port } => {
            // Two requests: the port's flags exist only once it is a port.
            let bridge = index_of(handle, &port.bridge).await?;
            let message = with(name, LinkAttribute::Controller(bridge));
            send(handle, step, M::NewLink(message), 0).await?;
            set(with(name, port_info(port)))
        }
        Step::ClearPort { name } => set(with(name, LinkAttribute::Controller(0))),
        Step::AddAddress(a) => (
            M::NewAddress(address(handle, a).await?),
            NLM_F_CREATE | NLM_F_EXCL,
        ),
        Step::DeleteAddress(a) => (M::DelAddress(address(handle, a).await?), 0),
        Step::AddRoute(r) => (
            // Never in place of somebody else's route to the same range.
            M::NewRoute(route(handle, r).await?),
            NLM_F_CREATE | NLM_F_EXCL,
        ),
        Step::DeleteRoute(r) => (M::DelRoute(route(handle, r).await?), 0),
        // Appending, as rtnetlink's own requests cannot: one MAC with several remotes.
        Step::AddFdb(e) => (
            M::NewNeighbour(fdb(handle, e).await?),
            match e {
                FdbEntry::Tunnel { .. } => NLM_F_CREATE | NLM_F_APPEND,
                FdbEntry::Port { .. } => NLM_F_CREATE | NLM_F_REPLACE,
            },
        ),
        Step::DeleteFdb(e) => (M::DelNeighbour(fdb(handle, e).await?), 0),
        Step::AddNeighbour(n) => (
            M::NewNeighbour(neighbour(handle, n).await?),
            NLM_F_CREATE | NLM_F_REPLACE,
        ),
        Step::DeleteNeighbour(n) => (M::DelNeighbour(neighbour(handle, n).await?), 0),
    };
    send(handle, step, message, flags).await
}

async fn send(
    handle: &Handle,
    step: &Step,
    message: RouteNetlinkMessage,
    flags: u16,
) -> Result<(), Error> {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut answers = handle
        .clone()
        .request(request)
        .map_err(|e| error(step, e))?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(message) = answer.payload
            && message.code.is_some()
        {
            return Err(refused(step, &message));
        }
    }
    Ok(())
}

async fn index_of(handle: &Handle, name: &IfName) -> Result<u32, Error> {
    let mut links = handle.link().get().match_name(name.to_string()).execute();
    match links.next().await {
        Some(Ok(message)) => Ok(message.header.index),
        Some(Err(e)) => Err(error(format!("look up link {name}"), e)),
        None => Err(Error {
            action: format!("look up link {name}"),
            cause: "no answer".into(),
            errno: None,
        }),
    }
}

fn by_name(name: &IfName) -> LinkMessage {
    LinkMessageBuilder::<LinkUnspec>::default()
        .name(name.to_string())
        .build()
}

fn with(name: &IfName, attribute: LinkAttribute) -> LinkMessage {
    LinkMessageBuilder::<LinkUnspec>::default()
        .name(name.to_string())
        .append_extra_attribute(attribute)
        .build()
}

fn new_link(name: &IfName, link: &Link) -> LinkMessage {
    let basics = |message: &mut LinkMessage, mac: Option<MacAddr>| {
        message.attributes.push(LinkAttribute::Group(link.group));
        message
            .attributes
            .extend(mac.map(|m| LinkAttribute::Address(m.0.to_vec())));
        message.attributes.extend(link.mtu.map(LinkAttribute::Mtu));
    };
    let mut message = by_name(name);
    basics(&mut message, link.mac);
    let info = match &link.kind {
        Kind::Bridge(bridge) => bridge_info(bridge),
        Kind::Vxlan(vxlan) => vxlan_info(vxlan),
        Kind::Veth { peer } => {
            let mut infos = vec![LinkInfo::Kind(InfoKind::Veth)];
            if let Some(peer) = peer {
                let mut other = by_name(peer);
                basics(&mut other, None);
                infos.push(LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))));
            }
            LinkAttribute::LinkInfo(infos)
        }
        Kind::Other(kind) => {
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Other(kind.clone()))])
        }
    };
    message.attributes.push(info);
    message
}

fn bridge_info(bridge: &Bridge) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(vec![
            InfoBridge::AgeingTime(bridge.ageing.saturating_mul(100)),
            InfoBridge::MulticastSnooping(bridge.multicast_snooping),
            InfoBridge::NfCallIpTables(bridge.nf_call_iptables),
            InfoBridge::NfCallIp6Tables(bridge.nf_call_ip6tables),
            InfoBridge::NfCallArpTables(bridge.nf_call_arptables),
        ])),
    ])
}

fn vxlan_info(vxlan: &Vxlan) -> LinkAttribute {
    let mut list = vec![
        InfoVxlan::Id(vxlan.vni),
        InfoVxlan::Port(vxlan.port),
        InfoVxlan::Learning(vxlan.learning),
    ];
    list.extend(vxlan.local.map(|local| match local {
        IpAddr::V4(a) => InfoVxlan::Local(a),
        IpAddr::V6(a) => InfoVxlan::Local6(a),
    }));
    LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vxlan),
        LinkInfo::Data(InfoData::Vxlan(list)),
    ])
}

fn port_info(port: &Port) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![
            InfoBridgePort::Learning(port.learning),
            InfoBridgePort::UnicastFlood(port.unicast_flood),
            InfoBridgePort::HairpinMode(port.hairpin),
        ])),
    ])
}

async fn address(handle: &Handle, address: &Address) -> Result<AddressMessage, Error> {
    let mut message = AddressMessage::default();
    message.header.index = index_of(handle, &address.link).await?;
    message.header.prefix_len = address.net.prefix_len();
    let addr = address.net.addr();
    message.attributes.push(AddressAttribute::Local(addr));
    message.attributes.push(AddressAttribute::Address(addr));
    match address.net {
        IpNet::V4(net) => {
            message.header.family = AddressFamily::Inet;
            if net.prefix_len() < 31 {
                message
                    .attributes
                    .push(AddressAttribute::Broadcast(net.broadcast()));
            }
        }
        IpNet::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.attributes.push(AddressAttribute::Flags(
                rtnetlink::packet_route::address::AddressFlags::from_bits_retain(IFA_F_NODAD),
            ));
        }
    }
    Ok(message)
}

async fn route(handle: &Handle, route: &Route) -> Result<RouteMessage, Error> {
    let index = index_of(handle, &route.link).await?;
    let protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    Ok(match route.destination {
        IpNet::V4(net) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .output_interface(index)
            .protocol(protocol)
            .scope(RouteScope::Link)
            .build(),
        IpNet::V6(net) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .output_interface(index)
            .protocol(protocol)
            .build(),
    })
}

fn neighbour_address(addr: IpAddr) -> NeighbourAttribute {
    NeighbourAttribute::Destination(match addr {
        IpAddr::V4(a) => NeighbourAddress::Inet(a),
        IpAddr::V6(a) => NeighbourAddress::Inet6(a),
    })
}

async fn fdb(handle: &Handle, entry: &FdbEntry) -> Result<NeighbourMessage, Error> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index_of(handle, entry.link()).await?;
    let lladdr = |mac: &MacAddr| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec());
    match entry {
        FdbEntry::Tunnel { mac, remote, .. } => {
            message.header.flags = NeighbourFlags::Own;
            message.header.state = NeighbourState::Permanent;
            message.attributes = vec![lladdr(mac), neighbour_address(*remote)];
        }
        FdbEntry::Port { mac, .. } => {
            message.header.flags = NeighbourFlags::Controller;
            message.header.state = NeighbourState::Noarp;
            message.attributes = vec![lladdr(mac)];
        }
    }
    Ok(message)
}

async fn neighbour(handle: &Handle, neighbour: &Neighbour) -> Result<NeighbourMessage, Error> {
    let mut message = NeighbourMessage::default();
    message.header.family = match neighbour.address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = index_of(handle, &neighbour.link).await?;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        neighbour_address(neighbour.address),
        NeighbourAttribute::LinkLayerAddress(neighbour.mac.0.to_vec()),
    ];
    Ok(message)
}
