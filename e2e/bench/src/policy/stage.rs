//! Where packets run: a node with the bridge `weave`, the measured pod, and a pod of another node
//! behind `vethwe-bridge`. Bridged frames go through FORWARD of the node, as in the pod network.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{
    Backend,
    objects::{ALLOWED, CLIENT, FORBIDDEN, FREE, GATEWAY, TARGET, at},
    shot,
    space::Space,
};

/// Three namespaces.
pub(crate) struct Stage {
    pub(crate) node: Space,
    pub(crate) client: Space,
    pub(crate) server: Space,
}

/// Rules as the tools list them: what a shell can load again.
pub(crate) struct Dump {
    sets: String,
    rules: String,
}

/// A port-unreachable or reset per attempt, whatever the rate; many attempts per source address.
const SYSCTLS: &str = "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv4.icmp_msgs_per_sec=1000000 \
    net.ipv4.ip_local_port_range='1024 39999'";

/// Every node of a cluster tracks connections, for Services. Here too, also without any policy:
/// what is measured is what rules add.
const CONNTRACK: &str = "\
add table inet weft-bench
add chain inet weft-bench prerouting { type filter hook prerouting priority -150; policy accept; }
add rule inet weft-bench prerouting ct state invalid counter
";

impl Stage {
    /// Without any policy rule.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let stage = Self {
            node: Space::new()?,
            client: Space::new()?,
            server: Space::new()?,
        };
        // The bridge's MAC is set: left alone it would be the lowest of its ports'.
        stage.node.sh(&format!(
            "sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.ipv4.ip_forward=1; \
             ip link add weave address 02:00:00:00:00:01 type bridge nf_call_iptables 1; \
             ip link set weave up; ip addr add {GATEWAY}/12 dev weave; \
             ip link add vethwepltarget master weave type veth peer name eth0 netns {}; \
             ip link add vethwe-bridge master weave type veth peer name eth0 netns {}; \
             ip link set vethwepltarget up; ip link set vethwe-bridge up",
            stage.server.name(),
            stage.client.name()
        ))?;
        stage.node.feed(&["nft", "-f", "-"], CONNTRACK)?;
        for (space, addresses) in [
            (&stage.server, vec![TARGET, FREE]),
            (&stage.client, vec![CLIENT]),
        ] {
            space.sh(SYSCTLS)?;
            space.sh("ip link set eth0 up")?;
            for address in addresses {
                space.sh(&format!("ip addr add {address}/12 dev eth0"))?;
            }
        }
        // The bridge takes up a port some time after it is told to.
        let start = Instant::now();
        while !stage.arrives(FORBIDDEN)? {
            ensure!(
                start.elapsed() < Duration::from_secs(10),
                "the control failed: without rules no packet arrives"
            );
        }
        Ok(stage)
    }

    /// Does the client reach this port of the measured pod? Nobody listens: what arrives is
    /// answered by a reset.
    pub(crate) fn arrives(&self, port: u16) -> anyhow::Result<bool> {
        self.client
            .run(move || shot::arrives(at(port), Duration::from_millis(300)))
    }

    /// Fails unless the rules let in what they should, and nothing else.
    pub(crate) fn check(&self, what: &str) -> anyhow::Result<()> {
        ensure!(
            self.arrives(ALLOWED)?,
            "{what}: an allowed connection is refused"
        );
        ensure!(
            !self.arrives(FORBIDDEN)?,
            "{what}: a forbidden connection passes"
        );
        Ok(())
    }

    /// Connections of earlier samples are forgotten.
    pub(crate) fn forget_connections(&self) -> anyhow::Result<()> {
        self.node.call(&["conntrack", "-F"]).map(drop)
    }

    /// Rules of npc in the kernel.
    pub(crate) fn dump(&self, backend: Backend) -> anyhow::Result<Dump> {
        let node = &self.node;
        Ok(match backend {
            Backend::Nftables => Dump {
                sets: String::new(),
                rules: node.sh("nft -n list table inet weft; nft -n list table bridge weft-npc")?,
            },
            Backend::IptablesNft | Backend::IptablesLegacy => Dump {
                sets: node.call(&["ipset", "save"])?,
                rules: node.call(&[backend.iptables("-save"), "-t".into(), "filter".into()])?,
            },
        })
    }

    /// Loads them by hand, into a kernel without rules.
    pub(crate) fn load(&self, backend: Backend, dump: &Dump) -> anyhow::Result<()> {
        match backend {
            Backend::Nftables => self.node.feed(&["nft", "-f", "-"], &dump.rules),
            Backend::IptablesNft | Backend::IptablesLegacy => {
                self.node.feed(&["ipset", "restore"], &dump.sets)?;
                self.node
                    .feed(&[&backend.iptables("-restore")], &dump.rules)
            }
        }
    }
}
