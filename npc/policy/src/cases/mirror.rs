//! The other family: what a case says of IPv4 holds of IPv6, and the reverse.
//!
//! Each IPv4 address has a twin with the same bits under `2001:db8::/96` (groups under
//! `ff0e::/96`), so that whatever contains an address contains its twin's twin.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::networking::v1 as networking;

use crate::Payload;

const UNICAST: u128 = 0x2001_0db8 << 96;
const GROUPS: u128 = 0xff0e << 112;

/// The same address in the other family, if it has one there.
pub(super) fn address(address: IpAddr) -> Option<IpAddr> {
    match address {
        // To all, which IPv6 does not have.
        IpAddr::V4(Ipv4Addr::BROADCAST) => None,
        IpAddr::V4(v4) => {
            let above = if v4.is_multicast() { GROUPS } else { UNICAST };
            Some(Ipv6Addr::from_bits(above | u128::from(v4.to_bits())).into())
        }
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            let low = u32::try_from(bits & u128::from(u32::MAX)).unwrap_or_default();
            let above = bits - u128::from(low);
            (above == UNICAST || above == GROUPS).then(|| Ipv4Addr::from_bits(low).into())
        }
    }
}

/// The same network in the other family, if it has one there. All of one family is all of the
/// other.
fn net(net: IpNet) -> Option<IpNet> {
    if net.prefix_len() == 0 {
        return Some(match net {
            IpNet::V4(_) => Ipv6Net::default().into(),
            IpNet::V6(_) => Ipv4Net::default().into(),
        });
    }
    let length = match net {
        IpNet::V4(v4) => v4.prefix_len() + 96,
        IpNet::V6(v6) => v6.prefix_len().checked_sub(96)?,
    };
    IpNet::new(address(net.addr())?, length).ok()
}

/// A CIDR as a policy writes it. What has no twin, or is no CIDR, stays.
fn cidr(text: &mut String) {
    if let Some(twin) = text.parse().ok().and_then(net) {
        *text = twin.to_string();
    }
}

/// A policy with each ipBlock in the other family.
pub(super) fn policy(policy: &mut networking::NetworkPolicy) {
    let spec = policy.spec.get_or_insert_default();
    let ingress = spec.ingress.iter_mut().flatten();
    let ingress = ingress.flat_map(|rule| rule.from.iter_mut().flatten());
    let egress = spec.egress.iter_mut().flatten();
    let egress = egress.flat_map(|rule| rule.to.iter_mut().flatten());
    for block in ingress.chain(egress).filter_map(|p| p.ip_block.as_mut()) {
        cidr(&mut block.cidr);
        block.except.iter_mut().flatten().for_each(cidr);
    }
}

/// ICMP types that mean the same: echo, its reply, unreachable, time exceeded.
const TYPES: [(u8, u8); 4] = [(8, 128), (0, 129), (3, 1), (11, 3)];

/// The same payload in the other family, if it has one there.
pub(super) fn payload(payload: Payload, to_v6: bool) -> Option<Payload> {
    let Payload::Icmp(kind) = payload else {
        return Some(payload);
    };
    let twin = TYPES
        .iter()
        .find_map(|(four, six)| match (to_v6, kind == *four, kind == *six) {
            (true, true, _) => Some(*six),
            (false, _, true) => Some(*four),
            _ => None,
        });
    twin.map(Payload::Icmp)
}
