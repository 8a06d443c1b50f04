//! E43 and E44: policies and pods of somebody who means harm, while another namespace is probed.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::Context as _;
use k8s_openapi::api::{core::v1::Pod, networking::v1::NetworkPolicy};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use weft_probe::measured::Measured;

use super::{
    Size,
    count::Limits,
    cut::{DWELL, compare, latencies, swing, with_another},
    prober::{Place, Prober},
    stage::{ALLOWED, Client, Found, Stage, server},
};
use crate::{Running, policy::policy, socket};

/// Clients that change labels at the same time.
const WRITERS: usize = 8;

/// Specs that a namespace's administrator may write: the pods of the namespace are their subjects.
fn specs() -> Vec<(String, Value)> {
    let subject = json!({});
    let ingress = |rules: Value| json!({"podSelector": subject, "policyTypes": ["Ingress"], "ingress": rules});
    let address = |number: usize| format!("198.{}.{}", 18 + number / 65536, number % 65536 / 256);
    let rules: Vec<Value> = (1..=10_000)
        .map(|port| json!({"ports": [{"port": port}]}))
        .collect();
    let ranges: Vec<Value> = (1..=100)
        .map(|port| json!({"ports": [{"port": port, "endPort": 65535}]}))
        .collect();
    let blocks: Vec<Value> = (0..5000)
        .map(|number| {
            let net = format!("{}.{}", address(number * 16), number * 16 % 256);
            json!({"ipBlock": {"cidr": format!("{net}/28"), "except": [format!("{net}/30")]}})
        })
        .collect();
    let excepts: Vec<String> = (0..10_000)
        .map(|number| format!("{}.{}/32", address(number), number % 256))
        .collect();
    let selector = json!({"matchExpressions": [
        {"key": "app", "operator": "In", "values": ["a", "b", "hostile-0"]},
        {"key": "app", "operator": "NotIn", "values": ["c"]},
        {"key": "app", "operator": "Exists"},
        {"key": "none", "operator": "DoesNotExist"},
    ]});
    vec![
        ("ten-thousand-rules".into(), ingress(json!(rules))),
        ("widest-ranges".into(), ingress(json!(ranges))),
        (
            "five-thousand-blocks".into(),
            ingress(json!([{"from": blocks}])),
        ),
        (
            "everything-but".into(),
            ingress(json!([{"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": excepts}}]}])),
        ),
        (
            "named-port-with-two-numbers".into(),
            ingress(json!([{"ports": [{"port": "web"}]}])),
        ),
        (
            "every-operator".into(),
            ingress(json!([{"from": [{"namespaceSelector": selector, "podSelector": selector}]}])),
        ),
        (long_name(), ingress(json!([]))),
    ]
}

/// The longest name that the API takes.
fn long_name() -> String {
    let part = "a".repeat(50);
    [part.as_str(); 5].join(".")[..253].to_owned()
}

/// Pods that are the subjects of hostile policies, both with a port named `web`.
async fn subjects(stage: &Stage<'_>, namespace: &str) -> anyhow::Result<[Running; 2]> {
    let pods = [0, 1].map(|number| {
        let mut plan = server(&format!("hostile-{number}"), stage.n1());
        plan.named_ports = BTreeMap::from([("web".into(), ALLOWED + number)]);
        // Asks for what it has no right to.
        plan.annotations = [
            (
                "cni.projectcalico.org/floatingIPs",
                format!("[\"{}\"]", stage.server.ip),
            ),
            ("k8s.v1.cni.cncf.io/networks", "kube-system/host".into()),
            ("weft.dev/role", "friend".into()),
            ("weft.dev/isolation", "none".into()),
            ("example.com/name", "\u{65e5}\u{672c}".into()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
        plan
    });
    stage.s.start_in(namespace, pods).await
}

/// A prober in a hostile pod: it has the label of a friend, in the wrong namespace.
async fn intruder(stage: &Stage<'_>, pod: &Running) -> anyhow::Result<Prober> {
    let place = Place::of(&stage.lab, pod).await?;
    let target = format!("tcp/{}@100", socket(&stage.server.ip, ALLOWED));
    Prober::start(&stage.lab, &place, &["--forbidden".into(), target]).await
}

/// [`latencies`] while somebody makes `trouble`; what he is about when they are known is dropped.
async fn latencies_under(
    stage: &Stage<'_>,
    client: &Client,
    count: usize,
    trouble: impl Future<Output = ()>,
) -> anyhow::Result<Vec<u64>> {
    let trouble = async {
        trouble.await;
        std::future::pending().await
    };
    tokio::select! {
        under = latencies(stage, client, count, DWELL) => under,
        under = trouble => under,
    }
}

/// What the stage's probers, the intruder, and the latencies before and under it show.
fn judged(
    stage: &Stage<'_>,
    measured: &[Measured],
    intruded: &Measured,
    [baseline, under]: [Vec<u64>; 2],
) -> Found {
    let found = Found::of(stage, measured, Limits::default());
    let what = "a friend's label in another namespace lets in";
    compare(with_another(found, what, intruded), baseline, under)
}

/// E43: policies as large and strange as the API takes them.
pub(crate) async fn policies(stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
    let namespace = stage.s.another_namespace(&[]).await?;
    let [hostile, _] = subjects(stage, &namespace).await?;
    let swing = swing(stage).await?;
    let baseline = latencies(stage, &swing, size.latencies, DWELL).await?;
    let api: Api<NetworkPolicy> = Api::namespaced(stage.s.cluster.client.clone(), &namespace);
    let specs = specs();
    let (measured, (under, intruded, (taken, refused))) = stage
        .measure(async || {
            let intruder = intruder(stage, &hostile).await?;
            let (mut taken, mut refused) = (Vec::new(), 0);
            for (name, spec) in &specs {
                let begun = Instant::now();
                let made = api
                    .create(&PostParams::default(), &policy(name, spec.clone())?)
                    .await;
                let short: String = name.chars().take(30).collect();
                taken.push(match made {
                    Ok(_) => format!("{short} ({} ms)", begun.elapsed().as_millis()),
                    Err(error) => {
                        refused += 1;
                        format!("{short} (refused by the API: {error})")
                    }
                });
            }
            // One of them changes all the time.
            let churn = async {
                let mut number = 0_u32;
                loop {
                    number += 1;
                    let first =
                        json!({"ipBlock": {"cidr": format!("203.0.113.{}/32", number % 256)}});
                    let mut spec = specs[2].1.clone();
                    spec["ingress"][0]["from"][0] = first;
                    let patch = Patch::Merge(json!({"spec": spec}));
                    let name = &specs[2].0;
                    // A refusal is a fact of the API server, not of npc.
                    let _ = api.patch(name, &PatchParams::default(), &patch).await;
                    sleep(Duration::from_millis(500)).await;
                }
            };
            let under = latencies_under(stage, &swing, size.latencies, churn).await;
            let intruded = intruder.end().await?;
            Ok((under?, intruded, (taken, refused)))
        })
        .await?;
    for (name, _) in &specs {
        let _ = api.delete(name, &kube::api::DeleteParams::default()).await;
    }
    stage.enforced().await?;
    let found = judged(stage, &measured, &intruded, [baseline, under]).note(format!(
        "hostile policies: {}; then one of 5,000 blocks changed twice a second",
        taken.join(", ")
    ));
    Ok(found.wrong_if(refused == specs.len(), "npc met none of the policies"))
}

/// E44: pods that call themselves something else a thousand times a second.
pub(crate) async fn pods(stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
    let namespace = stage.s.another_namespace(&[]).await?;
    let hostile = subjects(stage, &namespace).await?;
    let swing = swing(stage).await?;
    let baseline = latencies(stage, &swing, size.latencies, DWELL).await?;
    let api: Api<Pod> = stage.s.cluster.pods(&namespace);
    let (measured, (under, intruded, (changes, seconds))) = stage
        .measure(async || {
            let intruder = intruder(stage, &hostile[0]).await?;
            let changes = AtomicU64::new(0);
            let begun = Instant::now();
            let writers = (0..WRITERS).map(async |writer| {
                let name = &hostile[writer % hostile.len()].name;
                let mut number = 0_u64;
                loop {
                    number += 1;
                    let role = ["friend", "server", "a.b-c_d"][number as usize % 3];
                    let labels = json!({"role": role, "noise": format!("{writer}-{number}")});
                    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
                    if api
                        .patch(name, &PatchParams::default(), &patch)
                        .await
                        .is_ok()
                    {
                        changes.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            let writers = async {
                let _: Vec<()> = futures::future::join_all(writers).await;
            };
            let under = latencies_under(stage, &swing, size.latencies, writers).await;
            let seconds = begun.elapsed().as_secs().max(1);
            let intruded = intruder.end().await?;
            Ok((under?, intruded, (changes.into_inner(), seconds)))
        })
        .await
        .context("label changes")?;
    stage.enforced().await?;
    let found = judged(stage, &measured, &intruded, [baseline, under]).note(format!(
        "{} label changes a second were taken by the API server (aim: 1,000), with labels and \
         annotations that ask for other identities",
        changes / seconds
    ));
    Ok(found.wrong_if(changes == 0, "no label was changed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_policies_are_of_the_size_that_they_claim() {
        let specs = specs();
        let rules = |number: usize| specs[number].1["ingress"].as_array().expect("rules").len();
        assert_eq!((rules(0), rules(1)), (10_000, 100));
        let blocks = specs[2].1["ingress"][0]["from"].as_array().expect("blocks");
        assert_eq!(blocks.len(), 5000);
        for block in blocks {
            let cidr: ipnet::IpNet = block["ipBlock"]["cidr"]
                .as_str()
                .and_then(|cidr| cidr.parse().ok())
                .expect("a network");
            assert_eq!(cidr, cidr.trunc());
            let except: ipnet::IpNet = block["ipBlock"]["except"][0]
                .as_str()
                .and_then(|cidr| cidr.parse().ok())
                .expect("a network");
            assert!(cidr.contains(&except) && cidr != except);
        }
        let block = &specs[3].1["ingress"][0]["from"][0]["ipBlock"];
        let excepts: std::collections::BTreeSet<&str> = block["except"]
            .as_array()
            .expect("excepts")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(excepts.len(), 10_000);
        assert_eq!(long_name().len(), 253);
        for (name, spec) in specs {
            policy(&name, spec).expect("a policy");
        }
    }
}
