//! A packet of the policy's words in the words of the packet tracer, and its way through the node.

use weft_netfilter::{
    CtState, Protocol,
    trace::{Names, Packet as Traced, Pass, Way},
};
use weft_policy::{Packet, Path, Payload, PolicyModel, State};

use crate::sync::Journey;

/// Any port: no rule looks at it.
const SOURCE_PORT: u16 = 40_000;

/// The packet and the hooks it passes; `to_pod`: a destination that is not here is another node's
/// pod, and not routed out.
pub(super) fn journey(model: &PolicyModel, packet: &Packet, to_pod: bool) -> Journey {
    let v4 = packet.source.is_ipv4();
    let (protocol, dst_port, icmp_type) = match packet.payload {
        Payload::Port { protocol, port } => (Protocol(protocol.number()), Some(port), None),
        Payload::Icmp(kind) if v4 => (Protocol::ICMP, None, Some(kind)),
        Payload::Icmp(kind) => (Protocol::ICMP6, None, Some(kind)),
        Payload::Other(number) => (Protocol(number), None, None),
    };
    let traced = Traced {
        src_port: dst_port.map(|_| SOURCE_PORT),
        dst_port,
        icmp_type,
        ct: match packet.state {
            State::New => CtState::New,
            State::Established => CtState::Established,
            State::Related => CtState::Related,
            State::Invalid => CtState::Invalid,
            State::Untracked => CtState::Untracked,
        },
        ..Traced::new(packet.source, packet.destination, protocol)
    };
    (traced, passes(model, packet, to_pod))
}

fn passes(model: &PolicyModel, packet: &Packet, to_pod: bool) -> Vec<Pass> {
    let names = Names::default();
    let port = |address| {
        let (_, subject) = model.subject_at(address)?;
        subject.ports.first().cloned()
    };
    // An address of our blocks that is nobody's has a port too.
    let source = port(packet.source).unwrap_or_else(|| names.bridge_port.clone());
    let way = match &packet.path {
        Path::Output => Way::NodeToPod,
        Path::Input => Way::PodToNode { from: source },
        Path::Forward { .. } => match port(packet.destination) {
            Some(to) => Way::PodToPod { from: source, to },
            None if to_pod => Way::PodToRemotePod { from: source },
            None => Way::PodToOutside { from: source },
        },
    };
    way.passes(&names)
}
