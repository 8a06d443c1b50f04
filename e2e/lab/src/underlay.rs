//! The underlay: a bridge in the hub's namespace, one veth per member, one veth to the machine.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::command::run;
use crate::namespace::Namespaces;
use crate::network::{BRIDGE, HUB_HOST, ROOT_HOST, ROOT_LINK, ROOT_PORT, addresses, gateways};
use crate::options::Options;

#[cfg(test)]
mod tests;

/// Who owns the lab's device in the root namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Id of the lab.
    pub(crate) lab: String,
    /// Directory of the lab's files.
    pub(crate) root: PathBuf,
}

impl Owner {
    /// `ifalias` of the device.
    fn alias(&self) -> String {
        format!("weft-lab {} {}", self.lab, self.root.display())
    }

    fn parse(alias: &str) -> Option<Self> {
        let (lab, root) = alias
            .trim_end()
            .strip_prefix("weft-lab ")?
            .split_once(' ')?;
        Some(Self {
            lab: lab.to_owned(),
            root: root.into(),
        })
    }
}

/// The lab that owns the root device, `None` if there is no such device.
///
/// # Errors
/// A device of that name that no lab made.
pub(crate) fn owner() -> anyhow::Result<Option<Owner>> {
    let path = format!("/sys/class/net/{ROOT_LINK}/ifalias");
    match fs::read_to_string(&path) {
        Ok(alias) => match Owner::parse(&alias) {
            Some(owner) => Ok(Some(owner)),
            None => bail!(
                "the device {ROOT_LINK} exists and is not a lab's (alias {:?}); remove or rename it",
                alias.trim()
            ),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
    }
}

#[derive(Deserialize)]
struct Route {
    dst: String,
    dev: Option<String>,
}

/// Fails when the machine has a route to the lab's addresses already.
pub(crate) fn require_free(options: &Options) -> anyhow::Result<()> {
    for (index, address) in gateways(options.families).iter().enumerate() {
        let family = if index == 0 { "-4" } else { "-6" };
        let routes = run("ip", &[family, "-json", "route", "show", "match", address])?;
        if let Some(taken) = occupied(&routes)? {
            bail!(
                "the lab needs {}, but this machine routes {taken} already; remove that route or \
                 address, or run the lab elsewhere",
                addresses(0, options.families)[index]
            );
        }
    }
    Ok(())
}

/// The first route that is not the default route, as `PREFIX dev DEVICE`.
fn occupied(routes: &str) -> anyhow::Result<Option<String>> {
    let routes: Vec<Route> = if routes.trim().is_empty() {
        Vec::new()
    } else {
        serde_json::from_str(routes).context("cannot read the output of `ip -json route`")?
    };
    Ok(routes
        .into_iter()
        .find(|route| route.dst != "default")
        .map(|route| {
            format!(
                "{} dev {}",
                route.dst,
                route.dev.unwrap_or_else(|| "?".to_owned())
            )
        }))
}

/// Makes the bridge and the machine's link to it.
pub(crate) fn create(hub: &Namespaces, owner: &Owner, options: &Options) -> anyhow::Result<()> {
    let mtu = options.underlay_mtu.to_string();
    let hub_pid = hub.holder.pid.to_string();
    hub.within(|| {
        // Frames between nodes must not pass the hub's iptables.
        for file in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
            write_if_there(&format!("/proc/sys/net/bridge/{file}"), "0")?;
        }
        Ok(())
    })?;
    hub.run("ip", &["link", "set", "lo", "up"])?;
    // An explicit MAC: a bridge without ports would lose its own.
    let bridge = [
        "link",
        "add",
        BRIDGE,
        "address",
        "02:00:ac:1e:00:01",
        "mtu",
        &mtu,
    ];
    let kind = [
        "type",
        "bridge",
        "stp_state",
        "0",
        "forward_delay",
        "0",
        "mcast_snooping",
        "0",
    ];
    hub.run("ip", &[&bridge[..], &kind[..]].concat())?;
    address(BRIDGE, HUB_HOST, options, |arguments| {
        hub.run("ip", arguments)
    })?;

    let link = ["link", "add", ROOT_LINK, "mtu", &mtu, "type", "veth"];
    let peer = ["peer", "name", ROOT_PORT, "mtu", &mtu, "netns", &hub_pid];
    run("ip", &[&link[..], &peer[..]].concat())?;
    run("ip", &["link", "set", ROOT_LINK, "alias", &owner.alias()])?;
    hub.run("ip", &["link", "set", ROOT_PORT, "master", BRIDGE, "up"])?;
    address(ROOT_LINK, ROOT_HOST, options, |arguments| {
        run("ip", arguments)
    })
}

/// Joins a member to the underlay: `eth0` inside, a port named like the member on the bridge.
pub(crate) fn join(
    hub: &Namespaces,
    member: &Namespaces,
    name: &str,
    host: u8,
    options: &Options,
) -> anyhow::Result<()> {
    let mtu = options.underlay_mtu.to_string();
    let pid = member.holder.pid.to_string();
    let link = ["link", "add", name, "mtu", &mtu, "type", "veth"];
    let peer = ["peer", "name", "eth0", "mtu", &mtu, "netns", &pid];
    hub.run("ip", &[&link[..], &peer[..]].concat())?;
    hub.run("ip", &["link", "set", name, "master", BRIDGE, "up"])?;
    member.run("ip", &["link", "set", "lo", "up"])?;
    address("eth0", host, options, |arguments| {
        member.run("ip", arguments)
    })
}

/// Gives a member a default route to the hub.
pub(crate) fn default_routes(member: &Namespaces, options: &Options) -> anyhow::Result<()> {
    for gateway in gateways(options.families) {
        member.run("ip", &["route", "add", "default", "via", &gateway])?;
    }
    Ok(())
}

/// Takes a member's cable out or puts it back.
pub(crate) fn set_link(hub: &Namespaces, member: &str, up: bool) -> anyhow::Result<()> {
    hub.run(
        "ip",
        &["link", "set", member, if up { "up" } else { "down" }],
    )
    .map(drop)
}

/// Removes a member's link; fine when it is gone already.
pub(crate) fn leave(hub: &Namespaces, member: &str) {
    hub.run("ip", &["link", "del", member]).ok();
}

/// Removes the machine's link if it is this lab's.
pub(crate) fn remove(lab: &str) -> anyhow::Result<()> {
    let ours = || anyhow::Ok(owner()?.is_some_and(|owner| owner.lab == lab));
    if ours()?
        && let Err(error) = run("ip", &["link", "del", ROOT_LINK])
        // The kernel tears the hub's namespace down in its own time, and this end with it.
        && ours()?
    {
        return Err(error);
    }
    Ok(())
}

fn address(
    device: &str,
    host: u8,
    options: &Options,
    ip: impl Fn(&[&str]) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    for address in addresses(host, options.families) {
        // Duplicate address detection would make an IPv6 address useless for a second.
        let nodad: &[&str] = if address.contains("::") {
            &["nodad"]
        } else {
            &[]
        };
        ip(&[&["addr", "add", address.as_str(), "dev", device], nodad].concat())?;
    }
    ip(&["link", "set", device, "up"]).map(drop)
}

/// Writes a sysctl that not every kernel has.
pub(crate) fn write_if_there(path: &str, value: &str) -> anyhow::Result<()> {
    if fs::metadata(path).is_err() {
        return Ok(());
    }
    fs::write(path, value).with_context(|| format!("cannot write {value:?} to {path}"))
}
