//! Peers and ports of a rule as matches.
//!
//! Sets of pods are named by what selects them, sets of networks by what they hold: a set whose
//! meaning changes is another set, so updating elements never changes what a rule means.

use std::collections::BTreeSet;

use ipnet::IpNet;
use weft_netfilter::plan::MAX_ELEMENTS;
use weft_netfilter::{Element, Family, Match, PortRange, Protocol, SetKind, SetName, SetRole};
use weft_policy::{
    Direction, IpBlock, Named, ObjectKey, PeerSelector, Peers, PortMatch, Ports, Rule,
};

use crate::table::Builder;

// A set of pods that a policy may have fits into a set of the kernel.
const _: () = assert!(weft_policy::MAX_ADDRESSES < MAX_ELEMENTS as usize);

/// Any of the one and any of the other; what is in one list must all hold.
pub(crate) type Alternatives = (Vec<Vec<Match>>, Vec<Vec<Match>>);

/// What the rule allows, as a union. Nothing where no packet of this family can match.
pub(crate) fn alternatives(
    builder: &mut Builder<'_>,
    policy: &ObjectKey,
    direction: Direction,
    rule: &Rule,
) -> Vec<Alternatives> {
    let peers = peers(builder, direction, &rule.peers);
    let entries = match &rule.ports {
        Ports::Any => return vec![(peers, vec![Vec::new()])],
        Ports::Only(entries) => entries,
    };
    let mut ports = Vec::new();
    let mut of_peers = Vec::new();
    for entry in entries {
        match entry {
            PortMatch::Protocol(protocol) => {
                ports.push(vec![Match::Protocol(number(*protocol))]);
            }
            PortMatch::Range(protocol, range) => ports.push(vec![Match::DstPorts {
                protocol: number(*protocol),
                ports: PortRange::new(range.first(), range.last()),
            }]),
            PortMatch::Named(named) => {
                let set = named_set(builder, policy, direction, &rule.peers, named);
                let lookup = vec![Match::DstPortSet { set }];
                match direction {
                    Direction::Ingress => ports.push(lookup),
                    // Its members are pods among the peers: that is the whole condition.
                    Direction::Egress => of_peers.push(lookup),
                }
            }
        }
    }
    [(peers, ports), (vec![Vec::new()], of_peers)]
        .into_iter()
        .filter(|(peers, ports)| !peers.is_empty() && !ports.is_empty())
        .collect()
}

fn number(protocol: weft_policy::Protocol) -> Protocol {
    Protocol(protocol.number())
}

fn peers(builder: &mut Builder<'_>, direction: Direction, peers: &Peers) -> Vec<Vec<Match>> {
    let (pods, blocks) = match peers {
        Peers::Any => return vec![Vec::new()],
        Peers::Only { pods, blocks } => (pods, blocks),
    };
    let mut matches: Vec<Vec<Match>> = Vec::new();
    for selector in pods {
        let set = peer_set(builder, selector);
        matches.push(vec![lookup(direction, set)]);
    }
    let family = builder.family;
    let ours = || {
        blocks
            .iter()
            .filter(|block| Family::of_net(&block.cidr()) == family)
    };
    let whole: BTreeSet<IpNet> = ours()
        .filter(|block| block.except().is_empty())
        .map(IpBlock::cidr)
        .collect();
    match whole.first() {
        None => {}
        // Every address of the family: no condition, and no other block adds to it.
        Some(net) if net.prefix_len() == 0 => return vec![Vec::new()],
        Some(net) if whole.len() == 1 => matches.push(vec![other_end(direction, *net)]),
        Some(_) => {
            let set = net_set(builder, &whole);
            matches.push(vec![lookup(direction, set)]);
        }
    }
    // Each with its own excepts: an except of one block takes nothing from another.
    for block in ours().filter(|block| !block.except().is_empty()) {
        let set = net_set(builder, block.except());
        let except = match direction {
            Direction::Ingress => Match::not_src_set(set),
            Direction::Egress => Match::not_dst_set(set),
        };
        matches.push(vec![other_end(direction, block.cidr()), except]);
    }
    matches
}

fn other_end(direction: Direction, net: IpNet) -> Match {
    match direction {
        Direction::Ingress => Match::src(net),
        Direction::Egress => Match::dst(net),
    }
}

fn lookup(direction: Direction, set: SetName) -> Match {
    match direction {
        Direction::Ingress => Match::src_set(set),
        Direction::Egress => Match::dst_set(set),
    }
}

fn peer_set(builder: &mut Builder<'_>, selector: &PeerSelector) -> SetName {
    let family = builder.family;
    let readable = selector.pods.to_string();
    // Debug, not Display: it quotes, so that no two selectors look alike.
    let set = builder
        .names
        .set("p", &readable, &format!("{selector:?}"), family);
    let model = builder.model;
    let members = model.peers.get(selector);
    let members = members.into_iter().flat_map(|members| members.iter());
    builder.set(
        &set,
        SetKind::Addr,
        SetRole::Allow,
        members.map(|address| Element::Addr(*address)),
    );
    set
}

fn net_set(builder: &mut Builder<'_>, nets: &BTreeSet<IpNet>) -> SetName {
    let family = builder.family;
    let readable = nets.first().map(IpNet::to_string).unwrap_or_default();
    let set = builder
        .names
        .set("n", &readable, &format!("nets {nets:?}"), family);
    let elements = nets.iter().flat_map(|net| Element::nets(*net));
    builder.set(&set, SetKind::Net, SetRole::Mixed, elements);
    set
}

fn named_set(
    builder: &mut Builder<'_>,
    policy: &ObjectKey,
    direction: Direction,
    peers: &Peers,
    named: &Named,
) -> SetName {
    let Named {
        protocol,
        name,
        members,
    } = named;
    let of = match (direction, peers) {
        (Direction::Ingress, _) => format!("subjects of {policy}"),
        (Direction::Egress, Peers::Any) => "all pods".to_owned(),
        (Direction::Egress, Peers::Only { pods, .. }) => format!("{pods:?}"),
    };
    let identity = format!("port {name:?} {protocol} of {of}");
    let set = builder.names.set("m", name, &identity, builder.family);
    let protocol = number(*protocol);
    let elements = members
        .iter()
        .map(|(address, port)| Element::AddrPort(*address, protocol, *port));
    builder.set(&set, SetKind::AddrPort, SetRole::Allow, elements);
    set
}
