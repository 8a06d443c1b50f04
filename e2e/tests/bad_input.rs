//! Wrong input is answered on its own object, and the rest keeps working.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use weft_crds::{Condition, ConditionStatus, IPPool, WeftNetwork, WeftNode, condition};
use weft_e2e::{Flow, Lab, Scenario, eventually, policy::ingress, scenario};

/// How long a condition may take to appear.
const TOLD: Duration = Duration::from_secs(30);

#[tokio::test]
#[ignore = "needs a cluster"]
async fn pool_that_overlaps_says_with_what_and_the_default_keeps_working() {
    scenario("overlapping_pools", async |s| {
        let [n1, _] = s.two_nodes().await?;
        let node = s.agent(&n1).await?.host_ip;
        let services: Api<Service> = Api::namespaced(s.cluster.client.clone(), "default");
        let service = services
            .get("kubernetes")
            .await?
            .spec
            .and_then(|spec| spec.cluster_ip)
            .context("Service kubernetes has no address")?;
        let default = pools(s)
            .get("default")
            .await?
            .spec
            .cidrs
            .first()
            .cloned()
            .context("the pool default has no range")?;
        let inside: ipnet::IpNet = default.parse()?;
        let inside = ipnet::IpNet::new(inside.network(), 24)?;
        for (name, cidr) in [
            ("e2e-overlaps-pool", inside.to_string()),
            ("e2e-overlaps-nodes", around(&node)?),
            ("e2e-overlaps-services", around(&service)?),
        ] {
            let told = with_pool(s, name, json!({"cidrs": [cidr]}), async |pool| {
                let status = pool.status.clone().unwrap_or_default();
                let overlap = condition(&status.conditions, "CIDROverlap").with_context(|| {
                    format!("no condition CIDROverlap: {:?}", status.conditions)
                })?;
                ensure!(overlap.status == ConditionStatus::True, "{overlap:?}");
                Ok(overlap.clone())
            })
            .await?;
            ensure!(!told.message.is_empty(), "{name}: {told:?}");
        }
        let default = pools(s).get("default").await?.status.unwrap_or_default();
        let ready = condition(&default.conditions, "Ready").context("default: no Ready")?;
        ensure!(ready.status == ConditionStatus::True, "default: {ready:?}");
        let [a, b] = s.start_on_two_nodes(["a", "b"]).await?;
        s.expect(&[Flow::new(&a, &b, true), Flow::new(&b, &a, true)])
            .await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn pool_too_small_for_the_nodes_says_so() {
    scenario("small_pool", async |s| {
        let nodes = s.nodes().await?.len();
        ensure!(nodes >= 2, "this test needs two nodes");
        let spec = json!({"cidrs": ["10.99.0.0/28"], "blockSize": {"v4": 28, "v6": 122}});
        let told = with_pool(s, "e2e-too-small", spec, async |pool| {
            let status = pool.status.clone().unwrap_or_default();
            let told = ["Exhausted", "Ready"].into_iter().find_map(|kind| {
                let found = condition(&status.conditions, kind)?;
                let bad = match kind {
                    "Exhausted" => ConditionStatus::True,
                    _ => ConditionStatus::False,
                };
                (found.status == bad).then(|| found.clone())
            });
            told.with_context(|| format!("one block for {nodes} nodes: {:?}", status.conditions))
        })
        .await?;
        ensure!(!told.message.is_empty(), "{told:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn unknown_policy_backend_is_refused_by_the_api() {
    scenario("unknown_backend", async |s| {
        let networks: Api<WeftNetwork> = Api::all(s.cluster.client.clone());
        let patch = json!({"spec": {"policy": {"backend": "Ebpf"}}});
        let answer = networks
            .patch("default", &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        let Err(kube::Error::Api(status)) = answer else {
            bail!("the API server took the backend Ebpf: {answer:?}");
        };
        ensure!(
            status.code == 422 && status.message.contains("spec.policy.backend"),
            "{status:?}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn ipv6_block_in_a_policy_neither_opens_nor_breaks_it() {
    scenario("ipv6_block", async |s| {
        let [server, near, far] = s.start_near_and_far("server").await?;
        let peers = json!([
            {"ipBlock": {"cidr": "::/0", "except": ["fd00::/8"]}},
            {"ipBlock": {"cidr": format!("{}/32", near.ip)}},
        ]);
        let flows = [
            Flow::new(&near, &server, true).ipv4(),
            Flow::new(&far, &server, false).ipv4(),
        ];
        s.under("ipv6-and-ipv4", ingress("server", peers, json!([])), &flows)
            .await?;
        let peers = json!([{"ipBlock": {"cidr": "::/0"}}]);
        let flows = [
            Flow::new(&near, &server, false).ipv4(),
            Flow::new(&far, &server, false).ipv4(),
        ];
        s.under("ipv6-only", ingress("server", peers, json!([])), &flows)
            .await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn foreign_device_of_our_name_is_reported_and_left_alone() {
    scenario("foreign_device", async |s| {
        let lab = Lab::new(&s.settings).await?;
        let node = s.add_node(&lab).await?;
        let result = foreign_device(s, &node).await;
        lab.run(&["remove-node", &node]).await?;
        result
    })
    .await;
}

async fn foreign_device(s: &Scenario, node: &str) -> anyhow::Result<()> {
    // In one go: the router repairs a missing `weave` within milliseconds. It may also be the first
    // to remove the bridge that was `weave`, which it knows by its alias.
    let swap = r"printf 'link add foreign type bridge\nlink set foreign alias stranger\nlink set weave down\nlink set weave name gone\nlink set foreign name weave\n' | ip -batch - && { ip link del gone || ! ip link show gone; }";
    s.read_node(node, swap).await?;
    let nodes: Api<WeftNode> = Api::all(s.cluster.client.clone());
    let told = eventually(TOLD, "the WeftNode names the foreign device", async || {
        let status = nodes.get(node).await?.status.unwrap_or_default();
        let told: Vec<Condition> = status
            .conditions
            .iter()
            .filter(|c| c.status == ConditionStatus::False && c.message.contains("weave"))
            .cloned()
            .collect();
        ensure!(!told.is_empty(), "{:?}", status.conditions);
        Ok(told)
    })
    .await?;
    let device = s.read_node(node, "ip -d link show weave").await?;
    ensure!(
        device.contains("alias stranger"),
        "the foreign device was touched ({told:?}): {device}"
    );
    // The remedy: its owner takes it away, and the router builds its own.
    s.read_node(node, "ip link del weave").await?;
    eventually(TOLD, "the fabric is whole again", async || {
        let status = nodes.get(node).await?.status.unwrap_or_default();
        let ready = condition(&status.conditions, "Ready").context("no Ready")?;
        ensure!(ready.status == ConditionStatus::True, "{ready:?}");
        Ok(())
    })
    .await
}

fn pools(s: &Scenario) -> Api<IPPool> {
    Api::all(s.cluster.client.clone())
}

/// The /24 around an IPv4 address.
fn around(address: &str) -> anyhow::Result<String> {
    let address: std::net::IpAddr = address.parse()?;
    Ok(ipnet::IpNet::new(address, 24)?.trunc().to_string())
}

/// Makes a pool, waits for what `judge` wants to see, and deletes the pool in any case.
async fn with_pool<T>(
    s: &Scenario,
    name: &str,
    spec: Value,
    judge: impl AsyncFn(&IPPool) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let api = pools(s);
    let _ = api.delete(name, &DeleteParams::default()).await;
    eventually(TOLD, "the pool of an earlier run is gone", async || {
        ensure!(api.get_opt(name).await?.is_none(), "{name} is there");
        Ok(())
    })
    .await?;
    let pool: IPPool = serde_json::from_value(json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "IPPool",
        "metadata": {"name": name}, "spec": spec,
    }))?;
    api.create(&PostParams::default(), &pool)
        .await
        .with_context(|| format!("create IPPool {name}"))?;
    let told = eventually(TOLD, name, async || judge(&api.get(name).await?).await).await;
    api.delete(name, &DeleteParams::default()).await?;
    let gone = eventually(TOLD, &format!("{name} is deleted"), async || {
        ensure!(api.get_opt(name).await?.is_none(), "it is there");
        Ok(())
    })
    .await;
    let told = told?;
    gone?;
    Ok(told)
}
