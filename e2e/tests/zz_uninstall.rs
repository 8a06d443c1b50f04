//! `helm uninstall` with pods running, the one manifest instead of helm, and installing again. Its
//! name makes cargo run it last: each test leaves a fresh release behind.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{Namespace, Node, Pod},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::Value;
use weft_e2e::{Flow, Lab, Scenario, WEFT_NAMESPACE, eventually, scenario};

/// The rendered chart, for people without helm.
const MANIFEST: &str = "charts/weft.yaml";

/// How long operator, node agents and nodes may take to become ready.
const STARTED: Duration = Duration::from_secs(120);

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
        let nodes = s.nodes().await?;
        works(s, ["a", "b"]).await?;
        between_releases(s, &lab, async || clean(s, &lab, &nodes, &["a", "b"]).await).await?;
        ready_again(s, &nodes).await?;
        works(s, ["c", "d"]).await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn manifest_alone_gives_a_working_network_and_goes_without_a_trace() {
    scenario("manifest", async |s| {
        let lab = Lab::new(&s.settings).await?;
        let nodes = s.nodes().await?;
        between_releases(s, &lab, async || {
            clean(s, &lab, &nodes, &[]).await?;
            let result = apply_and_use(s, &lab, &nodes).await;
            // Whatever was found, helm needs an empty place.
            let removed = remove_manifest(&lab).await;
            result?;
            removed?;
            clean(s, &lab, &nodes, &["a", "b"]).await
        })
        .await?;
        ready_again(s, &nodes).await
    })
    .await;
}

/// A pod on each of two nodes; each reaches the other.
async fn works(s: &Scenario, names: [&str; 2]) -> anyhow::Result<()> {
    let [a, b] = s.start_on_two_nodes(names).await?;
    s.expect(&[Flow::new(&a, &b, true), Flow::new(&b, &a, true)])
        .await
}

/// Takes the release away, does something without it, and brings it back with its values: the next
/// test, and the next run, need a network.
async fn between_releases(
    s: &Scenario,
    lab: &Lab,
    body: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let release = ["weft", "-n", WEFT_NAMESPACE];
    let values = lab
        .helm(&[&["get", "values"], &release[..], &["-o", "json"]].concat())
        .await?;
    let file = s.settings.workspace.join("target/e2e-values.json");
    std::fs::write(&file, values).with_context(|| format!("write {}", file.display()))?;
    let file = file.to_string_lossy();

    let uninstall = [
        &["uninstall"],
        &release[..],
        &["--wait", "--timeout", "180s"],
    ]
    .concat();
    let result = match lab.helm(&uninstall).await {
        Ok(_) => body().await,
        Err(error) => Err(error),
    };
    // What a failed test left behind is taken over.
    let install = [
        "upgrade",
        "--install",
        "weft",
        "charts/weft",
        "-n",
        WEFT_NAMESPACE,
        "--values",
        &file,
        "--take-ownership",
        "--wait",
        "--timeout",
        "180s",
    ];
    lab.helm(&install).await.context("install again")?;
    result
}

async fn ready_again(s: &Scenario, nodes: &[String]) -> anyhow::Result<()> {
    node_agents_are_ready(s, nodes).await?;
    eventually(STARTED, "every node is Ready again", async || {
        let ready = s.nodes().await?;
        ensure!(ready == nodes, "{ready:?} of {nodes:?}");
        Ok(())
    })
    .await
}

/// A node stays Ready for a while after its network went; the agents tell when it is back.
async fn node_agents_are_ready(s: &Scenario, nodes: &[String]) -> anyhow::Result<()> {
    let sets: Api<DaemonSet> = Api::namespaced(s.cluster.client.clone(), WEFT_NAMESPACE);
    eventually(STARTED, "a ready node agent on every node", async || {
        let status = sets.get("weft-node").await?.status.unwrap_or_default();
        let ready = usize::try_from(status.number_ready)?;
        ensure!(ready == nodes.len(), "{ready} of {}", nodes.len());
        Ok(())
    })
    .await
}

/// `kubectl apply` of the one file is all that a person does.
async fn apply_and_use(s: &Scenario, lab: &Lab, nodes: &[String]) -> anyhow::Result<()> {
    let apply = ["apply", "--server-side", "-f", MANIFEST];
    lab.kubectl(&apply).await?;
    ready_again(s, nodes).await?;
    works(s, ["a", "b"]).await?;
    let before = revisions(lab).await?;
    lab.kubectl(&apply).await?;
    let after = revisions(lab).await?;
    ensure!(
        before == after,
        "the second apply changed something: {before:?}, then {after:?}"
    );
    Ok(())
}

/// As the README says it.
async fn remove_manifest(lab: &Lab) -> anyhow::Result<()> {
    lab.kubectl(&[
        "exec",
        "-n",
        WEFT_NAMESPACE,
        "deployment/weft-operator",
        "--",
        "/usr/bin/weft-operator",
        "uninstall",
        "--timeout",
        "120s",
    ])
    .await
    .context("take weft off the nodes")?;
    lab.kubectl(&["delete", "--wait", "-f", MANIFEST])
        .await
        .map(drop)
}

/// What the manifest's objects are at: the generation where there is one (a status changes by
/// itself), else the resource version.
async fn revisions(lab: &Lab) -> anyhow::Result<BTreeMap<String, String>> {
    let text = lab.kubectl(&["get", "-f", MANIFEST, "-o", "json"]).await?;
    let list: Value = serde_json::from_str(&text)?;
    let items = list["items"].as_array().context("no items")?;
    ensure!(!items.is_empty(), "the manifest has no objects");
    Ok(items
        .iter()
        .map(|item| {
            let metadata = &item["metadata"];
            let revision = metadata
                .get("generation")
                .unwrap_or(&metadata["resourceVersion"]);
            (
                format!("{} {}", item["kind"], metadata["name"]),
                revision.to_string(),
            )
        })
        .collect())
}

async fn clean(s: &Scenario, lab: &Lab, nodes: &[String], pods: &[&str]) -> anyhow::Result<()> {
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
    no_node_says_weft_is_up(s).await?;
    for node in nodes {
        eventually(
            Duration::from_secs(30),
            &format!("{node} is clean"),
            async || {
                // Each time anew: one of them may end meanwhile.
                let strangers = strangers(s).await?;
                let strangers = strangers.get(node).copied().unwrap_or_default();
                let left = lab.enter(node, &["sh", "-c", LEFT]).await?;
                let left = without_what_pods_need(&left, strangers);
                ensure!(left.is_empty(), "left on {node}:\n{}", left.join("\n"));
                Ok(())
            },
        )
        .await?;
    }
    Ok(())
}

/// Running pods in the network that no test started (the demo's), by node.
async fn strangers(s: &Scenario) -> anyhow::Result<BTreeMap<String, usize>> {
    let pods = Api::<Pod>::all(s.cluster.client.clone())
        .list(&ListParams::default())
        .await?;
    let mut strangers = BTreeMap::new();
    for pod in pods {
        let running = pod.status.and_then(|s| s.phase).as_deref() == Some("Running");
        let Some(spec) = pod.spec else { continue };
        if running && spec.host_network != Some(true) {
            *strangers
                .entry(spec.node_name.unwrap_or_default())
                .or_default() += 1;
        }
    }
    Ok(strangers)
}

/// While pods run, their host ends stay, and the configuration by which the runtime takes them down.
fn without_what_pods_need(left: &str, pods: usize) -> Vec<&str> {
    let (ends, mut rest): (Vec<&str>, Vec<&str>) = left
        .lines()
        .filter(|line| !line.trim().is_empty())
        .partition(|line| line.contains(": vethwepl"));
    if ends.len() != pods {
        rest.extend(ends);
    }
    if pods > 0 {
        rest.retain(|line| *line != "10-weft.conflist");
    }
    rest
}

#[test]
fn what_stays_for_running_pods_is_told_from_what_is_left_behind() {
    let left = "8: vethwepl1@if2: UP\n9: weave: UP\n10-weft.conflist\n";
    assert_eq!(without_what_pods_need(left, 1), ["9: weave: UP"]);
    assert_eq!(
        without_what_pods_need(left, 0),
        ["9: weave: UP", "10-weft.conflist", "8: vethwepl1@if2: UP"]
    );
    assert_eq!(
        without_what_pods_need(left, 2),
        ["9: weave: UP", "8: vethwepl1@if2: UP"]
    );
    assert!(without_what_pods_need("\n", 0).is_empty());
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

/// Nobody would keep the condition true.
async fn no_node_says_weft_is_up(s: &Scenario) -> anyhow::Result<()> {
    let nodes = Api::<Node>::all(s.cluster.client.clone())
        .list(&ListParams::default())
        .await?;
    for node in nodes {
        let name = node.name_any();
        let conditions = node.status.and_then(|s| s.conditions).unwrap_or_default();
        let left = conditions
            .iter()
            .find(|c| c.reason.as_deref().is_some_and(|r| r.starts_with("Weft")));
        ensure!(left.is_none(), "left on Node {name}: {left:?}");
    }
    Ok(())
}
