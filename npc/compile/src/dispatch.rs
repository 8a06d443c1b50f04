//! From an address to a chain without walking all of them: a tree of address prefixes.
//!
//! A node of the tree holds at most [`LEAF`] addresses as rules of their own, or at most 2^BITS
//! rules that lead to the next prefixes. 110 pods in two /26 blocks cost at most two levels, some
//! 16 rules. (In nftables the whole tree is one verdict map, see [`weft_netfilter::nft`].)

use std::net::IpAddr;

use ipnet::IpNet;
use weft_netfilter::{ChainName, Match, Rule, Verdict};
use weft_policy::Direction;

use crate::table::{Builder, dispatch_chain};

const LEAF: usize = 8;
const BITS: u8 = 3;

/// Writes the tree for `targets`, sorted by address, each address once.
pub(crate) fn tree(
    builder: &mut Builder<'_>,
    direction: Direction,
    targets: &[(IpAddr, ChainName)],
) {
    let root = dispatch_chain(direction);
    level(builder, direction, &root, targets);
}

fn level(
    builder: &mut Builder<'_>,
    direction: Direction,
    chain: &ChainName,
    targets: &[(IpAddr, ChainName)],
) {
    let end = |net: IpNet| match direction {
        Direction::Ingress => Match::dst(net),
        Direction::Egress => Match::src(net),
    };
    let leaf = |(address, to): &(IpAddr, ChainName)| {
        Rule::new([end(IpNet::from(*address))], Verdict::Goto(to.clone()))
    };
    let (Some((first, _)), Some((last, _))) = (targets.first(), targets.last()) else {
        builder.chain(chain, Vec::new());
        return;
    };
    if targets.len() <= LEAF {
        builder.chain(chain, targets.iter().map(leaf).collect());
        return;
    }
    let length = child_length(*first, *last);
    let mut rules = Vec::new();
    for group in targets.chunk_by(|(a, _), (b, _)| common_bits(*a, *b) >= length) {
        if let [target] = group {
            rules.push(leaf(target));
            continue;
        }
        let net = prefix(group[0].0, length);
        let kind = match direction {
            Direction::Ingress => "DI",
            Direction::Egress => "DE",
        };
        let child = builder
            .names
            .chain(kind, &length.to_string(), &format!("{direction} {net}"));
        rules.push(Rule::new([end(net)], Verdict::Goto(child.clone())));
        level(builder, direction, &child, group);
    }
    builder.chain(chain, rules);
}

/// Children of a prefix are `BITS` longer than what all addresses have in common.
fn child_length(first: IpAddr, last: IpAddr) -> u8 {
    let longest = if first.is_ipv4() { 32 } else { 128 };
    (common_bits(first, last) + BITS).min(longest)
}

fn common_bits(a: IpAddr, b: IpAddr) -> u8 {
    let bits = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    };
    u8::try_from(bits).unwrap_or(128)
}

fn prefix(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length)
        .expect("no longer than an address")
        .trunc()
}
