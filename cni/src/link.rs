//! The devices of an attachment: made, looked at, completed.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;
use std::os::fd::AsFd;
use weft_socket::{AddReply, code};

use crate::{
    error::Failure,
    netlink::{self, Link, Mac, Netlink, Route, Veth},
    netns::Netns,
    sysctl,
};

/// What an attachment is to look like: the router's answer, read.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) reply: AddReply,
    pub(crate) mac: Mac,
    pub(crate) ifname: String,
}

impl Wanted {
    pub(crate) fn new(reply: AddReply, ifname: &str) -> Result<Self, Failure> {
        let mac = netlink::parse_mac(&reply.mac).ok_or_else(|| {
            Failure::new(
                code::INTERNAL,
                format!("the router answered with MAC {:?}", reply.mac),
                "plugin and router are of different versions: restart the pod weft-node",
            )
        })?;
        Ok(Self {
            reply,
            mac,
            ifname: ifname.to_owned(),
        })
    }

    fn has_ipv6(&self) -> bool {
        self.reply.addresses.iter().any(|a| a.addr().is_ipv6())
    }

    /// On-link routes, then default routes: the gateway must be reachable before it is used.
    pub(crate) fn routes(&self) -> Vec<Route> {
        let on_link = |dst| Route { dst, gateway: None };
        let mut routes: Vec<Route> = self.reply.on_link.iter().copied().map(on_link).collect();
        for gateway in &self.reply.gateways {
            let same = |a: &IpNet| a.addr().is_ipv4() == gateway.is_ipv4();
            if !self.reply.addresses.iter().any(same) {
                continue;
            }
            let ranges = self.reply.addresses.iter().chain(&self.reply.on_link);
            if !ranges.clone().any(|net| net.contains(gateway)) {
                routes.push(on_link(IpNet::from(*gateway)));
            }
            routes.push(Route {
                dst: everything(*gateway),
                gateway: Some(*gateway),
            });
        }
        routes
    }
}

/// The destination of a default route.
fn everything(gateway: IpAddr) -> IpNet {
    let unspecified: IpAddr = match gateway {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    IpNet::new_assert(unspecified, 0)
}

/// Makes the pair and marks it. The host end stays down. A pair that a call before this one left is
/// used if it is whole, else replaced.
pub(crate) fn make(
    host: &mut Netlink,
    netns: &Netns,
    wanted: &Wanted,
    bridge: &Link,
) -> Result<Link, Failure> {
    let reply = &wanted.reply;
    if let Some(found) = host.link(&reply.host_ifname)? {
        // Between making a pair and marking it there is a moment in which we can be killed.
        let ours = found.alias == reply.host_ifalias
            || (found.alias.is_empty() && found.kind == "veth" && !found.up);
        if !ours {
            return Err(Failure::new(
                code::IO_FAILURE,
                format!(
                    "link {} exists and is not ours (kind {:?}, alias {:?})",
                    found.name, found.kind, found.alias
                ),
                format!(
                    "find out who made it; if nobody needs it: ip link delete {}",
                    found.name
                ),
            ));
        }
        let alive = found.alias == reply.host_ifalias && found.master == Some(bridge.index);
        if alive && problems(netns, wanted, &found)?.is_empty() {
            return Ok(found);
        }
        host.delete(found.index, &found.name)?;
    }
    let veth = Veth {
        host_name: &reply.host_ifname,
        pod_name: &wanted.ifname,
        pod_mac: wanted.mac,
        mtu: reply.mtu,
        bridge: bridge.index,
        netns: netns.as_fd(),
    };
    let what = format!("make veth pair {} - {}", reply.host_ifname, wanted.ifname);
    host.send_link(veth.create(), &what).map_err(|e| {
        let exists = e.source == Errno::EEXIST;
        let mut failure = Failure::from(e);
        if exists {
            failure.details = format!(
                "the pod has an interface {} already, which we did not make: another network plugin \
                 is configured before weft, or the sandbox is reused",
                wanted.ifname
            );
        }
        failure
    })?;
    let made = host.link(&reply.host_ifname)?.ok_or_else(|| {
        Failure::new(
            code::TRY_AGAIN_LATER,
            format!(
                "link {} was removed while it was being made",
                reply.host_ifname
            ),
            "",
        )
    })?;
    let claim = Veth::claim(made.index, &reply.host_ifalias);
    if let Err(e) = host.send_link(claim, &format!("mark bridge port {}", made.name)) {
        // Unmarked, nobody else would know that it is ours.
        let _ = host.delete(made.index, &made.name);
        return Err(e.into());
    }
    sysctl::harden_host(&made.name);
    Ok(made)
}

/// Completes the pod's end, on the thread inside its namespace; returns its index. Everything may be
/// there already.
pub(crate) fn complete(inside: &mut Netlink, wanted: &Wanted) -> Result<u32, Failure> {
    let link = inside.link(&wanted.ifname)?.ok_or_else(|| {
        Failure::new(
            code::UNKNOWN_CONTAINER,
            format!("interface {} vanished from the pod", wanted.ifname),
            "",
        )
    })?;
    sysctl::tune_pod(&wanted.ifname, wanted.has_ipv6());
    for address in &wanted.reply.addresses {
        inside.add_address(link.index, *address)?;
    }
    inside.set_up(link.index, &link.name)?;
    for route in wanted.routes() {
        inside.add_route(link.index, route)?;
    }
    Ok(link.index)
}

/// What differs between the pod's end and what it is to look like.
pub(crate) fn problems(
    netns: &Netns,
    wanted: &Wanted,
    host: &Link,
) -> Result<Vec<String>, Failure> {
    netns.run(|| {
        let mut inside = Netlink::open()?;
        let ifname = &wanted.ifname;
        let Some(link) = inside.link(ifname)? else {
            return Ok(vec![format!("the pod has no interface {ifname}")]);
        };
        let mut problems = Vec::new();
        let mut expect = |right: bool, what: String| {
            if !right {
                problems.push(what);
            }
        };
        expect(
            link.kind == "veth" && link.peer == Some(host.index),
            format!("{ifname} in the pod is not the other end of {}", host.name),
        );
        expect(link.up, format!("{ifname} in the pod is down"));
        expect(
            link.mac == Some(wanted.mac),
            format!(
                "{ifname} in the pod has MAC {}, not {}",
                link.mac.map_or_else(|| "none".into(), netlink::format_mac),
                wanted.reply.mac
            ),
        );
        let addresses = inside.addresses(link.index)?;
        for address in &wanted.reply.addresses {
            expect(
                addresses.contains(address),
                format!("{ifname} in the pod lacks address {address}"),
            );
        }
        let routes = inside.routes()?;
        for route in wanted.routes() {
            let through_us = routes.contains(&(link.index, route));
            // Another interface of the pod may have had it first.
            let through_others = routes
                .iter()
                .any(|(via, r)| *via != link.index && r.dst == route.dst);
            expect(
                through_us || through_others,
                format!("the pod lacks the route to {} through {ifname}", route.dst),
            );
        }
        Ok(problems)
    })
}
