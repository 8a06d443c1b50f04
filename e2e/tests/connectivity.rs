//! Who reaches whom, without policies: pods, Services, the outside.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};
use weft_crds::{IPPool, WeftNode};
use weft_e2e::{
    Flow, Lab, OUTSIDE, OUTSIDE_V6, PORT, Plan, Proto, Report, Running, Scenario, eventually,
    of_family_of, scenario, socket,
};

/// Limit for one probe.
const PROBE: Duration = Duration::from_secs(30);

#[tokio::test]
#[ignore = "needs a cluster"]
async fn pods_reach_each_other_by_address_on_one_node_and_on_two() {
    scenario("pods_reach_each_other", async |s| {
        let [first, near, far] = s.start_near_and_far("first").await?;
        for (from, to) in [
            (&first, &near),
            (&first, &far),
            (&far, &first),
            (&first, &first),
        ] {
            for (own, theirs) in from.pairs(to) {
                reaches(s, from, own, to, theirs).await?;
            }
        }
        Ok(())
    })
    .await;
}

/// TCP, UDP and ping from `from` to the address `theirs` of `to`, which must see `own`.
async fn reaches(
    s: &Scenario,
    from: &Running,
    own: &str,
    to: &Running,
    theirs: &str,
) -> anyhow::Result<()> {
    for proto in [Proto::Tcp, Proto::Udp] {
        let more = ["--proto", proto.word(), "--count", "5"];
        let report = s
            .cluster
            .connect(from, &socket(theirs, PORT), &more)
            .await?;
        let what = format!(
            "{} -> {} ({theirs}) {proto:?}: {report:?}",
            from.name, to.name
        );
        ensure!(report.received == 5, "{what}");
        ensure!(report.me.as_deref() == Some(to.name.as_str()), "{what}");
        ensure!(
            saw(&report, own),
            "the server must see the pod's own address {own}: {what}"
        );
    }
    let ping: Value = s
        .cluster
        .probe(from, &["ping", theirs, "--count", "3"], PROBE)
        .await?;
    ensure!(
        ping["received"] == 3,
        "ping {} -> {} ({theirs}): {ping}",
        from.name,
        to.name
    );
    Ok(())
}

/// Whether the server saw `address` as the client's.
fn saw(report: &Report, address: &str) -> bool {
    let seen = report.you.as_deref().and_then(|you| you.parse().ok());
    seen.map(|seen: SocketAddr| seen.ip()) == address.parse().ok()
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn multicast_and_broadcast_reach_pods_of_other_nodes() {
    scenario("multicast_and_broadcast", async |s| {
        let [sender, near, far] = s.start_near_and_far("sender").await?;
        let subnet = pool_cidr(s).await?;
        // Each with its own port: a sender goes on for a while after it was heard.
        let groups = [
            "239.1.2.3:9000".to_owned(),
            format!("{}:9001", subnet.broadcast()),
            "255.255.255.255:9002".to_owned(),
        ];
        for group in &groups {
            let listen = async |pod: &Running| -> anyhow::Result<Value> {
                let arguments = [
                    "listen-group",
                    group.as_str(),
                    "--count",
                    "3",
                    "--timeout",
                    "10s",
                ];
                s.cluster
                    .probe(pod, &arguments, PROBE)
                    .await
                    .with_context(|| format!("listen to {group} in {}", pod.name))
            };
            // The sender goes on while the listeners start, and until both have heard enough.
            let send = async {
                let arguments = [
                    "send-group",
                    group.as_str(),
                    "--count",
                    "400",
                    "--interval",
                    "50ms",
                ];
                s.cluster.probe::<Value>(&sender, &arguments, PROBE).await
            };
            let heard = async { tokio::try_join!(listen(&near), listen(&far)) };
            let (near, far) = tokio::select! {
                heard = heard => heard?,
                sent = send => bail!("{group}: the sender ended before the listeners: {sent:?}"),
            };
            for (name, heard) in [("near", near), ("far", far)] {
                ensure!(
                    heard["from"][&sender.ip] == 3,
                    "{group}: {name} heard {heard}, the sender is {}",
                    sender.ip
                );
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn containers_of_one_pod_meet_on_localhost() {
    scenario("localhost", async |s| {
        let mut plan = Plan::new("two");
        plan.second = vec!["/usr/bin/weft-probe".into(), "wait".into()];
        let [pod] = s.start([plan]).await?;
        for proto in ["tcp", "udp"] {
            let target = format!("127.0.0.1:{PORT}");
            let command = ["/usr/bin/weft-probe", "connect", &target, "--proto", proto];
            let output = s
                .cluster
                .exec_in(&pod, Some("second"), &command, PROBE)
                .await?;
            ensure!(output.success, "{proto}: {output:?}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn pods_reach_services_by_cluster_ip_and_themselves_through_one() {
    scenario("services", async |s| {
        let [server, near, far] = s.start_near_and_far("server").await?;
        let service = create_service(
            s,
            json!({
                "selector": {"app": "server"},
                // An address of each family that the cluster has.
                "ipFamilyPolicy": "PreferDualStack",
                "ports": [
                    {"name": "tcp", "port": 80, "targetPort": PORT, "protocol": "TCP"},
                    {"name": "udp", "port": 80, "targetPort": PORT, "protocol": "UDP"},
                ],
            }),
        )
        .await?;
        let addresses = service
            .spec
            .and_then(|spec| spec.cluster_ips)
            .context("no ClusterIP")?;
        let mut flows = Vec::new();
        for from in [&near, &far, &server] {
            for own in &from.ips {
                let address = of_family_of(&addresses, own).with_context(|| {
                    format!("{} has {own}, the Service {addresses:?}", from.name)
                })?;
                let target = socket(address, 80);
                for proto in [Proto::Tcp, Proto::Udp] {
                    flows.push(Flow::to(from, &target, proto, true));
                }
            }
        }
        s.expect(&flows).await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn large_pings_are_fragmented_and_unfragmented_ones_hold_the_mtu() {
    scenario("mtu", async |s| {
        let [first, near, far] = s.start_near_and_far("first").await?;
        let mtu = Api::<WeftNode>::all(s.cluster.client.clone())
            .get(&first.node)
            .await?
            .status
            .and_then(|status| status.mtu)
            .with_context(|| format!("WeftNode {} has no status.mtu", first.node))?;
        for to in [&near, &far] {
            for (_, address) in first.pairs(to) {
                // 20 or 40 bytes of IP header, 8 of ICMP.
                let header = if address.contains(':') { 48 } else { 28 };
                let fits = (mtu - header).to_string();
                let too_long = (mtu - header + 1).to_string();
                let ping = async |more: &[&str]| -> anyhow::Result<Value> {
                    let mut arguments = vec!["ping", address, "--count", "3"];
                    arguments.extend(more);
                    s.cluster.probe(&first, &arguments, PROBE).await
                };
                let large = ping(&["--size", "60000"]).await?;
                ensure!(large["received"] == 3, "60 KB to {address}: {large}");
                let whole = ping(&["--size", &fits, "--df"]).await?;
                ensure!(whole["received"] == 3, "MTU {mtu} to {address}: {whole}");
                let over = ping(&["--size", &too_long, "--df"]).await?;
                ensure!(
                    over["received"] == 0 && over["errors"]["TOO_LONG"] == 3,
                    "one byte over MTU {mtu} to {address} must be refused: {over}"
                );
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn outside_sees_the_address_of_the_node() {
    scenario("masquerade", async |s| {
        let lab = Lab::new(&s.settings).await?;
        let _server = lab.serve_outside(7080).await?;
        let [a, b] = s.start_on_two_nodes(["a", "b"]).await?;
        for pod in [&a, &b] {
            for own in &pod.ips {
                let outside = if own.contains(':') {
                    OUTSIDE_V6
                } else {
                    OUTSIDE
                };
                let node = of_family_of(&pod.host_ips, own)
                    .with_context(|| format!("{} has no address like {own}", pod.node))?;
                for proto in ["tcp", "udp"] {
                    let report = s
                        .cluster
                        .connect(pod, &socket(outside, 7080), &["--proto", proto])
                        .await?;
                    ensure!(
                        saw(&report, node),
                        "{} on {} ({node}), {proto}: the host outside saw {report:?}",
                        pod.name,
                        pod.node
                    );
                }
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn outside_reaches_a_local_node_port_and_keeps_its_address() {
    scenario("node_port", async |s| {
        let lab = Lab::new(&s.settings).await?;
        let [n1, _] = s.two_nodes().await?;
        let [server] = s.start([Plan::new("server").on(&n1)]).await?;
        let service = create_service(
            s,
            json!({
                "type": "NodePort",
                "externalTrafficPolicy": "Local",
                "selector": {"app": "server"},
                "ports": [{"port": 80, "targetPort": PORT, "protocol": "TCP"}],
            }),
        )
        .await?;
        let port = service
            .spec
            .and_then(|spec| spec.ports)
            .and_then(|ports| ports.first().and_then(|port| port.node_port))
            .context("no node port")?;
        let target = format!("{}:{port}", server.host_ip);
        let report = eventually(Duration::from_secs(15), "NodePort", async || {
            lab.connect_outside(&target, &["--timeout", "1s"]).await
        })
        .await?;
        ensure!(
            saw(&report, OUTSIDE),
            "the pod must see {OUTSIDE}: {report:?}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn host_port_leads_to_the_pod() {
    scenario("host_port", async |s| {
        const HOST_PORT: u16 = 18_080;
        let [n1, n2] = s.two_nodes().await?;
        let mut plan = Plan::new("server").on(&n1);
        plan.host_port = Some(HOST_PORT);
        let [server, far] = s.start([plan, Plan::new("far").on(&n2)]).await?;
        let other_node = s.agent(&n2).await?;
        let target = format!("{}:{HOST_PORT}", server.host_ip);
        s.expect(&[
            Flow::to(&other_node, &target, Proto::Tcp, true),
            Flow::to(&far, &target, Proto::Tcp, true),
        ])
        .await
    })
    .await;
}

async fn create_service(s: &Scenario, spec: Value) -> anyhow::Result<Service> {
    let service = serde_json::from_value(json!({"metadata": {"name": "server"}, "spec": spec}))?;
    let services: Api<Service> = Api::namespaced(s.cluster.client.clone(), &s.namespace);
    Ok(services.create(&PostParams::default(), &service).await?)
}

/// The first IPv4 range of the pool `default`.
async fn pool_cidr(s: &Scenario) -> anyhow::Result<ipnet::Ipv4Net> {
    let pools = Api::<IPPool>::all(s.cluster.client.clone())
        .list(&ListParams::default())
        .await?;
    pools
        .items
        .iter()
        .find(|pool| pool.metadata.name.as_deref() == Some("default"))
        .and_then(|pool| pool.spec.cidrs.iter().find_map(|cidr| cidr.parse().ok()))
        .context("the pool default has no IPv4 range")
}
