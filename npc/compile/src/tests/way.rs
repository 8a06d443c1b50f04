//! A packet of the policy's words in the words of the tracer.

use std::net::IpAddr;

use weft_netfilter::nft::Tables;
use weft_netfilter::trace::{
    Names, NftOutcome, Outcome, Packet as TracePacket, Pass, Way, trace, trace_nft,
};
use weft_netfilter::{CtState, Family, Hook, PktType, Protocol, Ruleset};
use weft_policy::{Packet, Path, Payload, PolicyModel, State, cases};

/// Takes the packet through all hooks it passes on a node whose switch filters too.
pub(super) fn traced(ruleset: &Ruleset, model: &PolicyModel, packet: &Packet) -> Outcome {
    // Somebody else's marks, ours among them, must neither help nor get lost.
    traced_with_mark(ruleset, model, packet, 0xffff_ffff)
}

/// The same with a mark of the packet's own.
pub(super) fn traced_with_mark(
    ruleset: &Ruleset,
    model: &PolicyModel,
    packet: &Packet,
    mark: u32,
) -> Outcome {
    traced_in_flow(ruleset, model, packet, mark, 0)
}

/// The same with a mark of its flow's, too.
pub(super) fn traced_in_flow(
    ruleset: &Ruleset,
    model: &PolicyModel,
    packet: &Packet,
    mark: u32,
    ct_mark: u32,
) -> Outcome {
    let passes = passes(model, packet);
    let packet = TracePacket {
        mark,
        ct_mark,
        ..translated(packet)
    };
    trace(ruleset, &packet, &passes).expect("a ruleset that the kernel could hold")
}

/// The same through tables of nftables.
pub(super) fn traced_by_nft(
    tables: &Tables,
    model: &PolicyModel,
    packet: &Packet,
    mark: u32,
    ct_mark: u32,
) -> NftOutcome {
    let passes = passes(model, packet);
    let packet = TracePacket {
        mark,
        ct_mark,
        ..translated(packet)
    };
    trace_nft(tables, &packet, &passes).expect("tables that the kernel could hold")
}

/// Whether iptables, and nftables, drop the packet if it comes from this port.
pub(super) fn dropped_from(
    port: u16,
    ruleset: &Ruleset,
    tables: &Tables,
    model: &PolicyModel,
    packet: &Packet,
) -> [bool; 2] {
    let passes = passes(model, packet);
    let packet = TracePacket {
        src_port: Some(port),
        ..translated(packet)
    };
    let iptables = trace(ruleset, &packet, &passes).expect("a ruleset that the kernel could hold");
    let nft = trace_nft(tables, &packet, &passes).expect("tables that the kernel could hold");
    [iptables.dropped, nft.dropped]
}

fn translated(packet: &Packet) -> TracePacket {
    let v4 = packet.source.is_ipv4();
    let (protocol, dst_port, icmp_type) = match packet.payload {
        Payload::Port { protocol, port } => (Protocol(protocol.number()), Some(port), None),
        Payload::Icmp(kind) if v4 => (Protocol::ICMP, None, Some(kind)),
        Payload::Icmp(kind) => (Protocol::ICMP6, None, Some(kind)),
        Payload::Other(number) => (Protocol(number), None, None),
    };
    TracePacket {
        src_port: dst_port.map(|_| 40_000),
        dst_port,
        icmp_type,
        ct: match packet.state {
            State::New => CtState::New,
            State::Established => CtState::Established,
            State::Related => CtState::Related,
            State::Invalid => CtState::Invalid,
            State::Untracked => CtState::Untracked,
        },
        pkt_type: PktType::Unicast,
        ..TracePacket::new(packet.source, packet.destination, protocol)
    }
}

fn passes(model: &PolicyModel, packet: &Packet) -> Vec<Pass> {
    let port = |address| {
        let (_, subject) = model.subject_at(address)?;
        subject.ports.first().cloned()
    };
    let out_port = match &packet.path {
        Path::Output => return Way::NodeToPod.passes(&Names::default()),
        Path::Input => {
            let from = port(packet.source).unwrap_or_else(|| "vethwe-bridge".to_owned());
            return Way::PodToNode { from }.passes(&Names::default());
        }
        Path::Forward { out_port } => out_port.clone().or_else(|| port(packet.destination)),
    };
    let flooded = matches!(packet.path, Path::Forward { out_port: Some(_) });
    let way = match (port(packet.source), out_port) {
        (Some(from), Some(to)) => Way::PodToPod { from, to },
        (Some(from), None) if in_pool(packet.destination) => Way::PodToRemotePod { from },
        (Some(from), None) => Way::PodToOutside { from },
        // A copy of a frame is made by a bridge, whatever its source claims.
        (None, Some(to)) if flooded || in_pool(packet.source) => Way::RemoteToPod { to },
        (None, Some(_)) => Way::OutsideToPod,
        // Between others: an address that belongs to nobody, a frame flooded past us.
        (None, None) => {
            return vec![
                Pass::new(Hook::Forward, Some("weave"), Some("weave"))
                    .ports(Some("vethwe-bridge"), Some("vethwe-bridge")),
            ];
        }
    };
    way.passes(&Names::default())
}

fn in_pool(address: IpAddr) -> bool {
    let pools = [
        cases::POOLS[0],
        cases::POOLS[1],
        "224.0.0.0/4",
        "255.255.255.255/32",
        "ff00::/8",
    ];
    pools.iter().any(|pool| {
        let pool: ipnet::IpNet = pool.parse().expect("a network");
        Family::of_net(&pool) == Family::of(&address) && pool.contains(&address)
    })
}
