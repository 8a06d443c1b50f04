//! What a person needs when a test failed: devices, rules and sets of every node, logs of weft, the
//! objects, and the state of the test's own pods.

use std::{fs, path::Path};

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{ListParams, LogParams},
};
use serde::{Serialize, de::DeserializeOwned};
use weft_crds::{IPBlock, IPPool, PeerSlice, WeftNetwork, WeftNode};
use weft_probe::cluster::state;

use crate::{Scenario, WEFT_NAMESPACE};

/// What is read on each node: file name and shell line.
const ON_NODE: [(&str, &str); 8] = [
    ("links.txt", "ip -d link"),
    ("addresses.txt", "ip addr; ip route; ip -6 route"),
    ("neighbours.txt", "ip neigh; bridge fdb"),
    (
        "iptables.txt",
        "iptables-legacy-save; iptables-nft-save; ip6tables-legacy-save; ip6tables-nft-save",
    ),
    ("ipset.txt", "ipset list"),
    ("nft.txt", "nft list ruleset"),
    ("conntrack.txt", "conntrack -L 2>/dev/null | head -500"),
    ("listening.txt", "ss -lntu; cat /proc/net/dev"),
];

/// Words that make a log line part of the digest.
const LOUD: [&str; 4] = ["ERROR", "WARN", "panicked", "Error:"];

/// Writes everything below `target/reports/e2e/<test>/`. It is called on a broken cluster, so every
/// part may fail and says so in its file.
pub(crate) async fn write(scenario: &Scenario) {
    let directory = scenario
        .settings
        .workspace
        .join("target/reports/e2e")
        .join(&scenario.name);
    if let Err(error) = fs::create_dir_all(&directory) {
        eprintln!("cannot write {}: {error}", directory.display());
        return;
    }
    let mut digest = Vec::new();
    objects(scenario, &directory).await;
    pods(scenario, &directory, &mut digest).await;
    logs(scenario, &directory, &mut digest).await;
    nodes(scenario, &directory).await;
    eprintln!("--- digest ---");
    for line in &digest {
        eprintln!("{line}");
    }
    eprintln!(
        "--- rules, devices and logs: target/reports/e2e/{} ---",
        scenario.name
    );
}

fn save(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    if let Err(error) = fs::write(&path, text) {
        eprintln!("cannot write {}: {error}", path.display());
    }
}

async fn nodes(scenario: &Scenario, directory: &Path) {
    let nodes = scenario.nodes().await.unwrap_or_default();
    for node in nodes {
        for (name, line) in ON_NODE {
            let text = match scenario.on_node(&node, line).await {
                Ok(output) => format!("$ {line}\n{}{}", output.stdout, output.stderr),
                Err(error) => format!("$ {line}\n{error:#}\n"),
            };
            save(directory, &format!("{node}-{name}"), &text);
        }
    }
}

async fn objects(scenario: &Scenario, directory: &Path) {
    save(
        directory,
        "weftnetworks.json",
        &list::<WeftNetwork>(scenario).await,
    );
    save(directory, "ippools.json", &list::<IPPool>(scenario).await);
    save(directory, "ipblocks.json", &list::<IPBlock>(scenario).await);
    save(
        directory,
        "weftnodes.json",
        &list::<WeftNode>(scenario).await,
    );
    save(
        directory,
        "peerslices.json",
        &list::<PeerSlice>(scenario).await,
    );
}

async fn list<K>(scenario: &Scenario) -> String
where
    K: Resource<Scope = kube::core::ClusterResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    match Api::<K>::all(scenario.cluster.client.clone())
        .list(&ListParams::default())
        .await
    {
        Ok(mut list) => {
            for item in &mut list.items {
                item.managed_fields_mut().clear();
            }
            serde_json::to_string_pretty(&list.items).unwrap_or_else(|error| error.to_string())
        }
        Err(error) => error.to_string(),
    }
}

/// State of the test's pods and the events of its namespaces.
async fn pods(scenario: &Scenario, directory: &Path, digest: &mut Vec<String>) {
    let mut namespaces = scenario.more_namespaces.lock().await.clone();
    namespaces.push(scenario.namespace.clone());
    let mut text = String::new();
    for namespace in &namespaces {
        let pods = scenario
            .cluster
            .pods(namespace)
            .list(&ListParams::default())
            .await;
        for pod in pods.map(|list| list.items).unwrap_or_default() {
            let line = describe(&pod);
            text.push_str(&format!("{line}\n"));
            digest.push(line);
        }
        let events: Api<Event> = Api::namespaced(scenario.cluster.client.clone(), namespace);
        let events = events.list(&ListParams::default()).await;
        for event in events.map(|list| list.items).unwrap_or_default() {
            let line = format!(
                "event {} {} {}: {}",
                event.type_.unwrap_or_default(),
                event.involved_object.name.unwrap_or_default(),
                event.reason.unwrap_or_default(),
                event.message.unwrap_or_default()
            );
            text.push_str(&format!("{line}\n"));
            if line.starts_with("event Warning") {
                digest.push(line);
            }
        }
    }
    save(directory, "pods.txt", &text);
}

fn describe(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    format!(
        "pod {}/{} on {} {}: {}",
        pod.namespace().unwrap_or_default(),
        pod.name_any(),
        pod.spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_else(|| "no node".into()),
        status.pod_ip.unwrap_or_else(|| "no address".into()),
        state(pod)
    )
}

/// Logs of operator, router and npc, also of a container that ended before.
async fn logs(scenario: &Scenario, directory: &Path, digest: &mut Vec<String>) {
    let api: Api<Pod> = Api::namespaced(scenario.cluster.client.clone(), WEFT_NAMESPACE);
    for app in ["weft-operator", "weft-node"] {
        for pod in scenario.weft_pods(app).await.unwrap_or_default() {
            digest.push(describe(&pod));
            let spec = pod.spec.clone().unwrap_or_default();
            let containers = spec
                .init_containers
                .into_iter()
                .flatten()
                .chain(spec.containers);
            for container in containers {
                for previous in [false, true] {
                    let parameters = LogParams {
                        container: Some(container.name.clone()),
                        previous,
                        tail_lines: Some(3000),
                        timestamps: true,
                        ..LogParams::default()
                    };
                    let Ok(text) = api.logs(&pod.name_any(), &parameters).await else {
                        continue;
                    };
                    let name = format!(
                        "{}-{}{}.log",
                        pod.name_any(),
                        container.name,
                        if previous { "-previous" } else { "" }
                    );
                    save(directory, &name, &text);
                    let loud: Vec<&str> = text
                        .lines()
                        .filter(|line| LOUD.iter().any(|word| line.contains(word)))
                        .collect();
                    for line in loud.iter().rev().take(5).rev() {
                        digest.push(format!("{name}: {line}"));
                    }
                }
            }
        }
    }
}
