//! ADD.

use std::sync::mpsc;

use serde_json::Value;
use weft_socket::{CallError, code, tombstone};

use crate::{
    announce,
    call::Call,
    conf::NetConf,
    error::Failure,
    host::Router,
    link::{self, Wanted},
    netlink::{self, LinkEvents, Netlink},
    netns::Netns,
    outcome::Added,
};

/// Attaches a pod. Asked twice for the same attachment, repairs or replaces what is there and
/// answers the same. Whatever fails, everything is taken back before the error is answered.
pub(crate) fn add(call: &Call, conf: &NetConf) -> Result<Added, Failure> {
    if conf.uninstalled.exists() {
        return Err(Failure::new(
            code::TRY_AGAIN_LATER,
            "weft was uninstalled from this node",
            format!(
                "install it again, or install another network; the marker is {}",
                conf.uninstalled.display()
            ),
        ));
    }
    if conf.previous.is_some() {
        return Err(Failure::new(
            code::INVALID_NETWORK_CONFIG,
            "weft-cni must be the first plugin of its list",
            "put plugins such as portmap behind it",
        ));
    }
    let netns = Netns::open(&call.netns)?;
    // A DEL of the same attachment that the router has not seen must not undo this ADD later.
    tombstone::exhume(&conf.del_dir, &call.id).map_err(|e| {
        Failure::io(
            "cannot remove the tombstone of an earlier DEL of this container",
            &e,
        )
    })?;
    let router = Router(conf);
    let reply = router.add(call).map_err(|e| {
        // Without an answer it may have been done.
        let unknown = matches!(e, CallError::Io { .. } | CallError::Decode { .. });
        let mut failure = Failure::from(e);
        if unknown && let Err(undo) = router.del(&call.id) {
            failure.details = format!("{}; {undo}", failure.details);
        }
        failure
    })?;
    let host_ifname = reply.host_ifname.clone();
    let host_ifalias = reply.host_ifalias.clone();
    attach(call, conf, &netns, reply).map_err(|mut failure| {
        for problem in undo(call, router, &host_ifname, &host_ifalias) {
            failure.details = if failure.details.is_empty() {
                problem
            } else {
                format!("{}; {problem}", failure.details)
            };
        }
        failure
    })
}

fn attach(
    call: &Call,
    conf: &NetConf,
    netns: &Netns,
    reply: weft_socket::AddReply,
) -> Result<Added, Failure> {
    let wanted = Wanted::new(reply, &call.id.ifname)?;
    let reply = &wanted.reply;
    let mut host = Netlink::open()?;
    let bridge = host
        .link(&reply.bridge)?
        .filter(|b| b.kind == "bridge")
        .ok_or_else(|| {
            Failure::new(
                code::TRY_AGAIN_LATER,
                format!("this node has no bridge {}", reply.bridge),
                "the router makes it; see the log of the pod weft-node of this node",
            )
        })?;
    let port = link::make(&mut host, netns, &wanted, &bridge)?;
    // The pod's end is completed while the router enforces: the host end is down until both are done.
    let (completed, completion) = mpsc::channel();
    let (flows, announcement) = mpsc::channel();
    // What a closure owns goes with it: neither side waits for one that has ended.
    let pod_side = &wanted;
    let inside = move || -> Result<(), Failure> {
        let mut pod = Netlink::open()?;
        let index = link::complete(&mut pod, pod_side)?;
        let _ = completed.send(());
        if announcement.recv().is_ok() {
            // Nobody may have known the address before, and the router repeats it: no reason to fail.
            if let Err(e) = announce::announce(&mut pod, index, pod_side) {
                eprintln!("weft-cni: {e}");
            }
        }
        Ok(())
    };
    let host_side = &port;
    let outside = move || -> Result<(), Failure> {
        Router(conf).enforce(&call.id)?;
        // Without completion there is an error inside, which is the one that counts.
        if completion.recv().is_ok() {
            open(&mut host, host_side)?;
            let _ = flows.send(());
        }
        Ok(())
    };
    let (inside, outside) = netns.beside(inside, outside);
    inside.and(outside)?;
    Ok(added(call, conf, &wanted, &bridge, &port))
}

/// Sets the host end up and waits until it runs: from here on packets flow.
fn open(host: &mut Netlink, port: &netlink::Link) -> Result<(), Failure> {
    if port.up && port.running {
        return Ok(());
    }
    // Opened before, so that the event cannot be missed. The bridge forwards nothing until the port
    // runs: an announcement before that reaches nobody.
    let events = LinkEvents::open()?;
    host.set_up(port.index, &port.name)?;
    let now = host.link(&port.name)?.is_some_and(|l| l.running);
    if now || events.wait_running(port.index) {
        return Ok(());
    }
    Err(Failure::new(
        code::TRY_AGAIN_LATER,
        format!(
            "bridge port {} did not come up within two seconds",
            port.name
        ),
        "",
    ))
}

fn added(
    call: &Call,
    conf: &NetConf,
    wanted: &Wanted,
    bridge: &netlink::Link,
    port: &netlink::Link,
) -> Added {
    let named = |link: &netlink::Link| {
        let mac = link.mac.map(netlink::format_mac).unwrap_or_default();
        (link.name.clone(), mac)
    };
    Added {
        bridge: named(bridge),
        host: named(port),
        pod: (wanted.ifname.clone(), wanted.reply.mac.clone()),
        sandbox: call.netns.clone(),
        mtu: wanted.reply.mtu,
        addresses: wanted.reply.addresses.clone(),
        gateways: wanted.reply.gateways.clone(),
        on_link: wanted.reply.on_link.clone(),
        dns: conf.dns.clone().filter(Value::is_object),
    }
}

/// Takes back what an ADD did; goes on past errors and returns them all.
fn undo(call: &Call, router: Router<'_>, ifname: &str, ifalias: &str) -> Vec<String> {
    let link_away = || -> Result<(), Failure> {
        let mut host = Netlink::open()?;
        match host.link(ifname)?.filter(|l| l.alias == ifalias) {
            Some(link) => Ok(host.delete(link.index, &link.name)?),
            None => Ok(()),
        }
    };
    [link_away(), router.del(&call.id)]
        .into_iter()
        .filter_map(|step| step.err().map(|e| format!("while undoing: {e}")))
        .collect()
}
