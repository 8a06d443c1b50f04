//! What a node shows, and what happens to addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::Value;
use weft_crds::IPPool;
use weft_e2e::{Plan, Scenario, eventually, scenario, state};

/// Kind and bridge of a device.
type Device = (String, Option<String>);

#[tokio::test]
#[ignore = "needs a cluster"]
async fn node_shows_the_picture_of_weave_net() {
    scenario("picture", async |s| {
        let [n1, _] = s.two_nodes().await?;
        s.start([Plan::new("a").on(&n1)]).await?;
        let text = s.read_node(&n1, "ip -d -j link").await?;
        let links: Vec<Value> = serde_json::from_str(&text).context("ip -j link")?;
        let mut devices = BTreeMap::new();
        let mut pods = 0;
        for link in &links {
            let name = link["ifname"].as_str().unwrap_or_default().to_owned();
            let alias = link["ifalias"].as_str().unwrap_or_default();
            let device: Device = (
                link["linkinfo"]["info_kind"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                link["master"].as_str().map(str::to_owned),
            );
            if name.starts_with("vethwepl") {
                ensure!(
                    device == ("veth".into(), Some("weave".into())),
                    "{name}: {device:?}"
                );
                ensure!(name.len() == "vethwepl".len() + 7, "{name}");
                ensure!(alias.starts_with("weft/"), "{name} has the alias {alias:?}");
                pods += 1;
            } else if ["weave", "datapath", "vxlan-6784"].contains(&name.as_str())
                || name.starts_with("vethwe-")
            {
                ensure!(alias.starts_with("weft/"), "{name} has the alias {alias:?}");
                devices.insert(name, device);
            }
        }
        let expected: BTreeMap<String, Device> = [
            ("datapath", "bridge", None),
            ("vethwe-bridge", "veth", Some("weave")),
            ("vethwe-datapath", "veth", Some("datapath")),
            ("vxlan-6784", "vxlan", Some("datapath")),
            ("weave", "bridge", None),
        ]
        .into_iter()
        .map(|(name, kind, bridge)| (name.into(), (kind.into(), bridge.map(str::to_owned))))
        .collect();
        ensure!(devices == expected, "{devices:#?} instead of {expected:#?}");
        ensure!(pods >= 1, "no vethwepl device for the pod");
        let vxlan = links
            .iter()
            .find(|link| link["ifname"] == "vxlan-6784")
            .context("vxlan-6784")?;
        ensure!(
            vxlan["linkinfo"]["info_data"]["port"] == 6784,
            "the tunnel must use UDP 6784: {vxlan}"
        );
        let pool = Api::<IPPool>::all(s.cluster.client.clone())
            .get("default")
            .await?;
        let text = s.read_node(&n1, "ip -j addr show dev weave").await?;
        let weave: Value = serde_json::from_str(&text).context("ip -j addr")?;
        let held: Vec<IpAddr> = weave[0]["addr_info"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|info| info["local"].as_str()?.parse().ok())
            .collect();
        let ranges: Vec<ipnet::IpNet> = pool
            .spec
            .cidrs
            .iter()
            .map(|cidr| cidr.parse())
            .collect::<Result<_, _>>()?;
        for range in &ranges {
            let gateway = held.iter().find(|address| {
                address.is_ipv4() == range.addr().is_ipv4()
                    && ranges.iter().any(|range| range.contains(*address))
            });
            ensure!(
                gateway.is_some(),
                "weave must hold a gateway address of the family of {range}: {text}"
            );
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn churn_of_fifty_pods_returns_every_address() {
    scenario("churn", async |s| {
        const PODS: usize = 50;
        let nodes = s.nodes().await?;
        let before = settled(s).await?;

        let plans: Vec<Plan> = (0..PODS)
            .map(|number| {
                let mut plan =
                    Plan::new(&format!("churn-{number}")).on(&nodes[number % nodes.len()]);
                plan.command = vec!["/usr/bin/weft-probe".into(), "wait".into()];
                plan
            })
            .collect();
        futures::future::try_join_all(
            plans
                .iter()
                .map(|plan| s.cluster.create(&s.namespace, plan)),
        )
        .await?;
        let pods = s.cluster.pods(&s.namespace);
        let addresses: BTreeSet<String> = eventually(
            Duration::from_secs(120),
            "50 pods with addresses",
            async || {
                let list = pods.list(&ListParams::default()).await?.items;
                let waiting: Vec<String> = list
                    .iter()
                    .filter(|pod| !runs(pod))
                    .map(|pod| {
                        format!(
                            "{}: {}",
                            pod.metadata.name.clone().unwrap_or_default(),
                            state(pod)
                        )
                    })
                    .collect();
                ensure!(
                    waiting.is_empty() && list.len() == PODS,
                    "{} of {} run; first of the others: {:?}",
                    list.len() - waiting.len(),
                    list.len(),
                    waiting.first()
                );
                Ok(list.iter().filter_map(address).collect())
            },
        )
        .await?;
        ensure!(
            addresses.len() == PODS,
            "{} addresses for {PODS} pods: {addresses:?}",
            addresses.len()
        );

        pods.delete_collection(
            &DeleteParams::default().grace_period(0),
            &ListParams::default(),
        )
        .await?;
        eventually(Duration::from_secs(60), "no pod is left", async || {
            let left = pods.list(&ListParams::default()).await?.items.len();
            ensure!(left == 0, "{left} pods");
            Ok(())
        })
        .await?;
        let after = settled(s).await?;
        ensure!(
            after == before,
            "{after} addresses are allocated, {before} were before the churn"
        );
        Ok(())
    })
    .await;
}

/// Addresses that the pool `default` counts, once they equal the pods that live in it.
async fn settled(s: &Scenario) -> anyhow::Result<i64> {
    let pools: Api<IPPool> = Api::all(s.cluster.client.clone());
    let pods: Api<Pod> = Api::all(s.cluster.client.clone());
    eventually(
        Duration::from_secs(90),
        "the pool counts the pods that live",
        async || {
            let pool = pools.get("default").await?;
            let allocated = pool.status.map_or(0, |status| status.allocated);
            let living: usize = pods
                .list(&ListParams::default())
                .await?
                .items
                .iter()
                .filter(|pod| in_pool(pod))
                .map(addresses)
                .sum();
            ensure!(
                usize::try_from(allocated).ok() == Some(living),
                "{allocated} addresses are allocated, pods have {living}"
            );
            Ok(allocated)
        },
    )
    .await
}

/// Whether the pod holds an address of ours: not of the host's network, and not ended.
fn in_pool(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let host = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.host_network)
        .unwrap_or(false);
    !host && !matches!(phase, Some("Failed" | "Succeeded")) && address(pod).is_some()
}

fn address(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.pod_ip.clone()
}

/// How many addresses the pod has: one of each family.
fn addresses(pod: &Pod) -> usize {
    pod.status
        .as_ref()
        .and_then(|status| status.pod_ips.as_ref())
        .map_or(0, Vec::len)
}

fn runs(pod: &Pod) -> bool {
    address(pod).is_some()
        && pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            == Some("Running")
}
