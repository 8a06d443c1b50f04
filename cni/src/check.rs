//! CHECK.

use weft_socket::{AddReply, code};

use crate::{
    call::Call,
    conf::{NetConf, Previous},
    error::Failure,
    host::Router,
    link::{self, Wanted},
    netlink::Netlink,
    netns::Netns,
};

/// Compares result, router and kernel. Every difference is named.
pub(crate) fn check(call: &Call, conf: &NetConf) -> Result<(), Failure> {
    let Some(previous) = &conf.previous else {
        return Err(Failure::new(
            code::INVALID_NETWORK_CONFIG,
            "CHECK without prevResult",
            "the runtime must hand in the result of the ADD",
        ));
    };
    let netns = Netns::open(&call.netns)?;
    let reply = Router(conf).check(&call.id)?;
    let mut problems = against_router(call, previous, &reply);
    let wanted = Wanted::new(reply, &call.id.ifname)?;
    let mut host = Netlink::open()?;
    match host.link(&wanted.reply.host_ifname)? {
        None => problems.push(format!("link {} is gone", wanted.reply.host_ifname)),
        Some(port) => {
            let bridge = host.link(&wanted.reply.bridge)?.map(|b| b.index);
            if bridge.is_none() || port.master != bridge {
                problems.push(format!(
                    "{} is not a port of bridge {}",
                    port.name, wanted.reply.bridge
                ));
            }
            if port.alias != wanted.reply.host_ifalias {
                problems.push(format!(
                    "{} has alias {:?}, not {:?}",
                    port.name, port.alias, wanted.reply.host_ifalias
                ));
            }
            if !port.up {
                problems.push(format!("{} is down", port.name));
            }
            problems.extend(link::problems(&netns, &wanted, &port)?);
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        code::CHECK_FAILED,
        format!(
            "container {} is not attached as it was: {}",
            call.id.container_id,
            problems.join("; ")
        ),
        "delete the pod to have it attached anew",
    ))
}

/// The result of the ADD against what the router holds now. Addresses and interfaces of chained
/// plugins are theirs to check.
fn against_router(call: &Call, previous: &Previous, reply: &AddReply) -> Vec<String> {
    let mut problems = Vec::new();
    let own = previous
        .interfaces
        .iter()
        .position(|i| i.name == call.id.ifname && !i.sandbox.is_empty());
    let Some(index) = own else {
        return vec![format!(
            "prevResult has no interface {} of the pod",
            call.id.ifname
        )];
    };
    if let Some(interface) = previous.interfaces.get(index) {
        if !interface.mac.eq_ignore_ascii_case(&reply.mac) {
            problems.push(format!(
                "the result has MAC {}, the router {}",
                interface.mac, reply.mac
            ));
        }
        if interface.mtu.is_some_and(|mtu| mtu > reply.mtu) {
            problems.push(format!(
                "the pod's MTU {} is above the network's {} now",
                interface.mtu.unwrap_or_default(),
                reply.mtu
            ));
        }
    }
    let mut given: Vec<_> = previous
        .ips
        .iter()
        .filter(|ip| ip.interface.is_none_or(|i| i == index))
        .map(|ip| ip.address)
        .collect();
    let mut held = reply.addresses.clone();
    given.sort_unstable();
    held.sort_unstable();
    if given != held {
        problems.push(format!(
            "the result has addresses {given:?}, the router {held:?}"
        ));
    }
    problems
}
