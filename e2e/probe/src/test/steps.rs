//! The steps of the test, in the order in which a person would try.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::{core::v1::Service, networking::v1::NetworkPolicy};
use kube::{Api, api::PostParams};
use weft_probe::{
    cluster::{Cluster, PORT, Plan, Running, eventually, socket},
    report::Report,
};

use super::{objects, say};

/// How long a change of a Service or policy may take until every node follows it.
const FOLLOWS: Duration = Duration::from_secs(15);

pub(super) async fn run(
    cluster: &Cluster,
    namespace: &str,
    nodes: &[String],
) -> anyhow::Result<()> {
    let first = &nodes[0];
    // On one node alone the far client is a second near one: policy is still worth a test.
    let second = nodes.get(1).unwrap_or(first);
    let plans = [
        Plan::new("server").on(first),
        Plan::new("friend").on(first).label("role", "friend"),
        Plan::new("far").on(second),
    ];
    let pods = cluster.start(namespace, &plans).await?;
    let [server, friend, far] = pods.as_slice() else {
        anyhow::bail!("three pods were started, {} came", pods.len());
    };
    for pod in &pods {
        say(&format!("     pod {} {} on {}", pod.name, pod.ip, pod.node));
    }

    for proto in ["tcp", "udp"] {
        direct(cluster, friend, server, proto, "on one node").await?;
    }
    if nodes.len() > 1 {
        for proto in ["tcp", "udp"] {
            direct(cluster, far, server, proto, "on two nodes").await?;
        }
    } else {
        say("skip pod to pod on two nodes: this cluster has one usable node");
    }
    service(cluster, namespace, &[friend, far]).await?;
    policy(cluster, namespace, server, friend, far).await
}

/// Pod to pod by address; the server must see the client's own address.
async fn direct(
    cluster: &Cluster,
    client: &Running,
    server: &Running,
    proto: &str,
    where_: &str,
) -> anyhow::Result<()> {
    let target = socket(&server.ip, PORT);
    let report = cluster
        .connect(client, &target, &["--proto", proto, "--count", "3"])
        .await?;
    let what = format!(
        "pod to pod {where_}, {}: {} -> {target}",
        proto.to_uppercase(),
        client.ip
    );
    ensure!(
        report.received == report.sent,
        "{what}: {} of {} answered, errors {:?}",
        report.received,
        report.sent,
        report.errors
    );
    let you = report.you.clone().unwrap_or_default();
    ensure!(
        you.starts_with(&client.ip) || you.starts_with(&format!("[{}]", client.ip)),
        "{what}: the server saw {you}, not the pod's own address"
    );
    say(&format!("ok   {what}, server saw {you}"));
    Ok(())
}

async fn service(cluster: &Cluster, namespace: &str, clients: &[&Running]) -> anyhow::Result<()> {
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
    let service = services
        .create(&PostParams::default(), &objects::service()?)
        .await
        .context("create the Service")?;
    let ip = service
        .spec
        .and_then(|spec| spec.cluster_ip)
        .context("the Service has no ClusterIP")?;
    let target = socket(&ip, 80);
    for client in clients {
        let what = format!(
            "Service from {} on {}: -> {target}",
            client.name, client.node
        );
        eventually(FOLLOWS, &what, async || {
            let report = cluster
                .connect(client, &target, &["--timeout", "1s"])
                .await?;
            answered(&report)
        })
        .await?;
        say(&format!("ok   {what}"));
    }
    Ok(())
}

async fn policy(
    cluster: &Cluster,
    namespace: &str,
    server: &Running,
    friend: &Running,
    far: &Running,
) -> anyhow::Result<()> {
    let policies: Api<NetworkPolicy> = Api::namespaced(cluster.client.clone(), namespace);
    let target = socket(&server.ip, PORT);
    let attempt = async |client: &Running| {
        cluster
            .connect(client, &target, &["--timeout", "1s", "--count", "2"])
            .await
    };

    policies
        .create(&PostParams::default(), &objects::deny()?)
        .await
        .context("create the policy that denies")?;
    for client in [friend, far] {
        let what = format!("policy deny: {} -> {target} is dropped", client.name);
        eventually(FOLLOWS, &what, async || dropped(&attempt(client).await?)).await?;
        say(&format!("ok   {what}"));
    }

    policies
        .create(&PostParams::default(), &objects::allow_friends()?)
        .await
        .context("create the policy that allows friends")?;
    let what = format!("policy allow: {} -> {target} passes", friend.name);
    eventually(FOLLOWS, &what, async || answered(&attempt(friend).await?)).await?;
    say(&format!("ok   {what}"));
    let what = format!("policy allow: {} -> {target} is still dropped", far.name);
    dropped(&attempt(far).await?).context(what.clone())?;
    say(&format!("ok   {what}"));
    Ok(())
}

fn answered(report: &Report) -> anyhow::Result<()> {
    ensure!(
        report.received == report.sent,
        "{} of {} answered, errors {:?}",
        report.received,
        report.sent,
        report.errors
    );
    Ok(())
}

/// A denied packet is dropped: nothing comes back, not even a refusal.
fn dropped(report: &Report) -> anyhow::Result<()> {
    ensure!(
        report.received == 0
            && report
                .errors
                .keys()
                .all(|class| *class == weft_probe::report::ErrorClass::Timeout),
        "{} of {} answered, errors {:?}; is NetworkPolicy enforced?",
        report.received,
        report.sent,
        report.errors
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weft_probe::report::ErrorClass;

    use super::*;

    #[test]
    fn refused_is_not_dropped() {
        let report = |class, received| Report {
            sent: 2,
            received,
            errors: BTreeMap::from([(class, 2 - received)]),
            ..Report::default()
        };
        assert!(dropped(&report(ErrorClass::Timeout, 0)).is_ok());
        assert!(dropped(&report(ErrorClass::Timeout, 1)).is_err());
        assert!(dropped(&report(ErrorClass::Refused, 0)).is_err());
    }
}
