//! npc judges before anybody accepts: the order of the jumps in the host's FORWARD and INPUT.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use weft_e2e::{Flow, Lab, Scenario, eventually, hooks, scenario};

/// Drift must be repaired within a second; this is the limit beyond which it is not repaired.
const REPAIRED: Duration = Duration::from_secs(30);

/// kube-proxy writes everything at its start.
const STARTED: Duration = Duration::from_secs(60);

/// `iptables` and `ip6tables` in one variant.
struct Tools {
    iptables: String,
    ip6tables: String,
}

impl Tools {
    /// The variant that has a jump to `target` in FORWARD on this node. Weft's and kube-proxy's may
    /// differ, on a node where somebody chose so.
    async fn with(s: &Scenario, node: &str, target: &str) -> anyhow::Result<Self> {
        for variant in ["nft", "legacy"] {
            let tools = Self {
                iptables: format!("iptables-{variant}"),
                ip6tables: format!("ip6tables-{variant}"),
            };
            if tools.forward(s, node).await?.iter().any(|to| to == target) {
                return Ok(tools);
            }
        }
        anyhow::bail!("no variant of iptables on {node} has a jump to {target} in FORWARD")
    }

    /// The variant that the router uses.
    async fn of_weft(s: &Scenario, node: &str) -> anyhow::Result<Self> {
        Self::with(s, node, "WEFT-FORWARD").await
    }

    async fn forward(&self, s: &Scenario, node: &str) -> anyhow::Result<Vec<String>> {
        // Without a table's name: naming one would make it, in the legacy variant.
        let save = format!("{}-save", self.iptables);
        Ok(hooks::targets(&s.read_node(node, &save).await?, "FORWARD"))
    }
}

/// Whether npc writes its rules in nftables: then it has no jumps in iptables.
async fn npc_in_nftables(s: &Scenario, node: &str) -> anyhow::Result<bool> {
    let tables = s.read_node(node, "nft list tables").await?;
    Ok(tables.lines().any(|line| line.trim() == "table inet weft"))
}

/// Whether kube-proxy runs in nftables mode.
async fn kube_proxy_in_nftables(s: &Scenario, node: &str) -> anyhow::Result<bool> {
    let tables = s.read_node(node, "nft list tables").await?;
    Ok(tables
        .lines()
        .any(|line| line.trim() == "table ip kube-proxy"))
}

/// Looks at both families of one node.
async fn in_order(s: &Scenario, node: &str, tools: &Tools) -> anyhow::Result<()> {
    let jumps = !npc_in_nftables(s, node).await?;
    let save = s
        .read_node(node, &format!("{}-save", tools.iptables))
        .await?;
    hooks::judge(&save, jumps).with_context(|| format!("{} on {node}", tools.iptables))?;
    let save = s
        .read_node(node, &format!("{}-save", tools.ip6tables))
        .await?;
    // npc writes only families that pods have.
    let jumps = jumps && s.pods_have_ipv6().await?;
    hooks::judge(&save, jumps).with_context(|| format!("{} on {node}", tools.ip6tables))
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn jump_of_npc_is_first_on_every_node() {
    scenario("hooks", async |s| {
        let nodes = s.nodes().await?;
        ensure!(!nodes.is_empty(), "no Ready node");
        for node in &nodes {
            let tools = Tools::of_weft(s, node).await?;
            eventually(REPAIRED, "the order of the jumps", async || {
                in_order(s, node, &tools).await
            })
            .await?;
            // kube-proxy in iptables mode jumps too, or this showed nothing of it.
            if !kube_proxy_in_nftables(s, node).await? {
                Tools::with(s, node, "KUBE-SERVICES").await?;
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn rule_that_somebody_puts_first_does_not_stay_ahead_of_npc() {
    scenario("hooks_foreign", async |s| {
        let [n1, _] = s.two_nodes().await?;
        let tools = Tools::of_weft(s, &n1).await?;
        let rule = "FORWARD -m comment --comment weft-e2e -j ACCEPT";
        s.read_node(&n1, &format!("{} -w 10 -I {rule}", tools.iptables))
            .await?;
        let repaired = eventually(REPAIRED, "npc is ahead of the rule", async || {
            in_order(s, &n1, &tools).await
        })
        .await;
        // Foreign rules are left alone: it must still be there to be taken away.
        let removed = s
            .read_node(&n1, &format!("{} -w 10 -D {rule}", tools.iptables))
            .await;
        repaired?;
        removed.map(drop).context("the foreign rule was touched")
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn kube_proxy_that_starts_anew_does_not_get_ahead_of_npc() {
    scenario("hooks_kube_proxy", async |s| {
        let lab = Lab::new(&s.settings).await?;
        let [n1, _] = s.two_nodes().await?;
        let [a, b] = s.start_on_two_nodes(["a", "b"]).await?;
        let tools = Tools::of_weft(s, &n1).await?;
        let proxy = KubeProxy::of(s, &n1).await?;
        lab.run(&["stop", "proxy", &n1]).await?;
        let forgotten = proxy.forget(s, &n1).await;
        // The node needs its kube-proxy again, whatever was found.
        lab.run(&["start", "proxy", &n1]).await?;
        forgotten?;
        eventually(STARTED, "kube-proxy writes its rules", async || {
            ensure!(
                proxy.has_rules(s, &n1).await?,
                "nothing of kube-proxy on {n1}"
            );
            Ok(())
        })
        .await?;
        eventually(REPAIRED, "the order of the jumps", async || {
            in_order(s, &n1, &tools).await
        })
        .await?;
        s.expect(&[Flow::new(&a, &b, true), Flow::new(&b, &a, true)])
            .await
    })
    .await;
}

/// Where kube-proxy writes its rules.
enum KubeProxy {
    Iptables(Tools),
    Nftables,
}

impl KubeProxy {
    async fn of(s: &Scenario, node: &str) -> anyhow::Result<Self> {
        if kube_proxy_in_nftables(s, node).await? {
            return Ok(Self::Nftables);
        }
        Tools::with(s, node, "KUBE-SERVICES")
            .await
            .map(Self::Iptables)
    }

    /// Takes its jumps out of FORWARD and INPUT, or its table away, so that its next start puts
    /// them first. The kubelet's jumps stay: it would not make them anew.
    async fn forget(&self, s: &Scenario, node: &str) -> anyhow::Result<()> {
        let line = match self {
            Self::Nftables => "nft delete table ip kube-proxy".to_owned(),
            // In one commit, as kube-proxy does it itself.
            Self::Iptables(Tools { iptables, .. }) => format!(
                "({iptables}-save -t filter | grep -E \
                   '^[*]|^-A FORWARD .*-j KUBE-|^-A INPUT .*-j KUBE-(PROXY|NODEPORTS|EXTERNAL)' | \
                   sed 's/^-A /-D /'; echo COMMIT) | {iptables}-restore --noflush -w 10"
            ),
        };
        s.read_node(node, &line).await?;
        ensure!(!self.has_rules(s, node).await?, "kube-proxy is still there");
        Ok(())
    }

    async fn has_rules(&self, s: &Scenario, node: &str) -> anyhow::Result<bool> {
        match self {
            Self::Nftables => kube_proxy_in_nftables(s, node).await,
            Self::Iptables(tools) => {
                let forward = tools.forward(s, node).await?;
                Ok(forward.iter().any(|target| target == "KUBE-SERVICES"))
            }
        }
    }
}
