//! `helm uninstall` with pods running, and installing again. Its name makes cargo run it last: it
//! leaves a fresh installation behind.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::{
    api::core::v1::Namespace,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, ResourceExt, api::ListParams};
use weft_e2e::{Flow, Lab, Plan, Scenario, WEFT_NAMESPACE, eventually, scenario};

/// Prints what weft would have left on a node; nothing if it is clean.
const LEFT: &str = r#"
ip -o link | grep -E ' (weave|datapath|vxlan-6784|vethwe[^:@]*)[:@]'
for v in iptables-legacy iptables-nft ip6tables-legacy ip6tables-nft; do
  $v-save 2>/dev/null | grep -i WEFT | sed "s/^/$v: /"
done
ipset list -n | grep -E '^weft-'
nft list tables | grep weft
ls /etc/cni/net.d | grep -i weft
true
"#;

#[tokio::test]
#[ignore = "needs a cluster"]
async fn helm_uninstall_leaves_nodes_clean_and_weft_can_come_back() {
    scenario("uninstall", async |s| {
        let lab = Lab::new(&s.settings).await?;
        let [n1, n2] = s.two_nodes().await?;
        let [a, b] = s
            .start([Plan::new("a").on(&n1), Plan::new("b").on(&n2)])
            .await?;
        s.expect(&[Flow::new(&a, &b, true)]).await?;
        let nodes = s.nodes().await?;

        lab.helm(&[
            "uninstall",
            "weft",
            "-n",
            WEFT_NAMESPACE,
            "--wait",
            "--timeout",
            "180s",
        ])
        .await?;
        let result = clean(s, &lab, &nodes, [&a.name, &b.name]).await;
        // Whatever was found, the next test needs a network.
        lab.helm(&[
            "install",
            "weft",
            "charts/weft",
            "-n",
            WEFT_NAMESPACE,
            "--wait",
            "--timeout",
            "120s",
        ])
        .await
        .context("install again")?;
        result?;

        eventually(
            Duration::from_secs(60),
            "every node is Ready again",
            async || {
                let ready = s.nodes().await?;
                ensure!(ready == nodes, "{ready:?} of {nodes:?}");
                Ok(())
            },
        )
        .await?;
        let [c, d] = s
            .start([Plan::new("c").on(&n1), Plan::new("d").on(&n2)])
            .await?;
        s.expect(&[Flow::new(&c, &d, true), Flow::new(&d, &c, true)])
            .await
    })
    .await;
}

async fn clean(
    s: &Scenario,
    lab: &Lab,
    nodes: &[String],
    pods: [&String; 2],
) -> anyhow::Result<()> {
    // The runtime can still take down what lived in the network.
    let api = s.cluster.pods(&s.namespace);
    for pod in pods {
        api.delete(pod, &kube::api::DeleteParams::default()).await?;
    }
    eventually(Duration::from_secs(60), "the pods are gone", async || {
        for pod in pods {
            ensure!(api.get_opt(pod).await?.is_none(), "{pod} is there");
        }
        Ok(())
    })
    .await?;
    nothing_terminates(s).await?;
    for node in nodes {
        eventually(
            Duration::from_secs(30),
            &format!("{node} is clean"),
            async || {
                let left = lab.enter(node, &["sh", "-c", LEFT]).await?;
                ensure!(left.trim().is_empty(), "left on {node}:\n{left}");
                Ok(())
            },
        )
        .await?;
    }
    Ok(())
}

/// No CRD or namespace waits for a finalizer that nobody serves.
async fn nothing_terminates(s: &Scenario) -> anyhow::Result<()> {
    let client = &s.cluster.client;
    eventually(
        Duration::from_secs(30),
        "nothing in Terminating",
        async || {
            let crds = Api::<CustomResourceDefinition>::all(client.clone())
                .list(&ListParams::default())
                .await?;
            let namespaces = Api::<Namespace>::all(client.clone())
                .list(&ListParams::default())
                .await?;
            let stuck: Vec<String> = crds
                .items
                .iter()
                .filter(|crd| crd.metadata.deletion_timestamp.is_some())
                .map(ResourceExt::name_any)
                .chain(
                    namespaces
                        .items
                        .iter()
                        .filter(|namespace| namespace.metadata.deletion_timestamp.is_some())
                        .map(ResourceExt::name_any),
                )
                .collect();
            ensure!(stuck.is_empty(), "{stuck:?}");
            Ok(())
        },
    )
    .await
}
