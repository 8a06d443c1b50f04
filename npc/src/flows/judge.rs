//! Is a flow forbidden now? Asked of the evaluator, about the flow's first packet.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use nix::ifaddrs::getifaddrs;
use weft_netfilter::nfnetlink::conntrack::Tuple;
use weft_policy::{
    Direction, Packet, Path, Payload, PolicyModel, Protocol, State, Subject, evaluate,
};

/// Judges flows of one node at one moment.
pub(super) struct Judge<'a> {
    model: &'a PolicyModel,
    /// Addresses of the node itself, as long as it has them.
    own: &'a BTreeSet<IpAddr>,
    /// Pods from which, or to which, something is forbidden: most flows have no such end.
    closed: HashMap<IpAddr, Closed>,
}

#[derive(Debug, Clone, Copy)]
struct Closed {
    ingress: bool,
    egress: bool,
}

impl Closed {
    fn of(subject: &Subject) -> Option<Self> {
        let closed = Self {
            ingress: subject.standing.is_closed(Direction::Ingress),
            egress: subject.standing.is_closed(Direction::Egress),
        };
        (closed.ingress || closed.egress).then_some(closed)
    }
}

/// Is anything forbidden on this node?
pub(super) fn has_closed(model: &PolicyModel) -> bool {
    model
        .subjects
        .values()
        .any(|subject| Closed::of(subject).is_some())
}

/// Addresses of the node, of all its devices: npc is on the network of its node.
///
/// # Errors
/// The kernel does not list them.
pub(crate) fn own_addresses() -> std::io::Result<BTreeSet<IpAddr>> {
    let addresses = getifaddrs()?.filter_map(|device| {
        let address = device.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
    });
    Ok(addresses.collect())
}

impl<'a> Judge<'a> {
    pub(super) fn new(model: &'a PolicyModel, own: &'a BTreeSet<IpAddr>) -> Self {
        let closed = model.subjects.values().flat_map(|subject| {
            let closed = Closed::of(subject);
            closed.into_iter().flat_map(|closed| {
                let addresses = subject.addresses.iter();
                addresses.map(move |address| (*address, closed))
            })
        });
        Self {
            model,
            own,
            closed: closed.collect(),
        }
    }

    /// Would its first packet be denied?
    ///
    /// Flows of closed addresses that no pod has are none: whoever had them is gone.
    pub(super) fn forbids(&self, original: &Tuple, reply: &Tuple) -> bool {
        // What answers is where the packet went, whatever it was sent to.
        let (source, destination) = (original.source, reply.source);
        let from_closed = self.closed.get(&source).is_some_and(|end| end.egress);
        let to_closed = || self.closed.get(&destination).is_some_and(|end| end.ingress);
        if !from_closed && !to_closed() {
            return false;
        }
        let packet = Packet {
            source,
            destination,
            payload: payload(original, reply),
            state: State::New,
            path: self.path(source, destination),
        };
        !evaluate(self.model, &packet).is_allowed()
    }

    fn path(&self, source: IpAddr, destination: IpAddr) -> Path {
        if self.is_own(source) {
            Path::Output
        } else if self.is_own(destination) {
            Path::Input
        } else {
            Path::Forward { out_port: None }
        }
    }

    fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.own.contains(&address)
    }
}

fn payload(original: &Tuple, reply: &Tuple) -> Payload {
    let protocol = original.protocol;
    let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let of_policy = known.into_iter().find(|known| known.number() == protocol.0);
    match (of_policy, reply.ports, original.icmp_type) {
        (Some(protocol), Some((port, _)), _) => Payload::Port { protocol, port },
        (_, _, Some(kind)) => Payload::Icmp(kind),
        _ => Payload::Other(protocol.0),
    }
}

#[cfg(test)]
mod tests;
