//! Who reaches whom, without policies: pods, Services, the outside.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};
use weft_crds::{IPPool, WeftNode};
use weft_e2e::{
    ErrorClass, Flow, Lab, OUTSIDE, PORT, Plan, Proto, Rights, Running, Scenario, eventually,
    scenario,
};

/// Limit for one probe.
const PROBE: Duration = Duration::from_secs(30);

#[tokio::test]
#[ignore = "needs a cluster"]
async fn pods_reach_each_other_by_address_on_one_node_and_on_two() {
    scenario("pods_reach_each_other", async |s| {
        let [n1, n2] = s.two_nodes().await?;
        let [a, b, c] = s
            .start([
                Plan::new("a").on(&n1),
                Plan::new("b").on(&n1),
                Plan::new("c").on(&n2),
            ])
            .await?;
        for (from, to) in [(&a, &b), (&a, &c), (&c, &a), (&a, &a)] {
            for proto in [Proto::Tcp, Proto::Udp] {
                let report = s
                    .cluster
                    .connect(
                        from,
                        &format!("{}:{PORT}", to.ip),
                        &["--proto", proto.word(), "--count", "5"],
                    )
                    .await?;
                let what = format!("{} -> {} {proto:?}: {report:?}", from.name, to.name);
                ensure!(report.received == 5, "{what}");
                ensure!(report.me.as_deref() == Some(to.name.as_str()), "{what}");
                let seen = report.you.as_deref().unwrap_or_default();
                ensure!(
                    seen.starts_with(&format!("{}:", from.ip)),
                    "the server must see the pod's own address: {what}"
                );
            }
            let ping: Value = s
                .cluster
                .probe(from, &["ping", &to.ip, "--count", "3"], PROBE)
                .await?;
            ensure!(
                ping["received"] == 3,
                "ping {} -> {}: {ping}",
                from.name,
                to.name
            );
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn multicast_and_broadcast_reach_pods_of_other_nodes() {
    scenario("multicast_and_broadcast", async |s| {
        let [n1, n2] = s.two_nodes().await?;
        let [sender, near, far] = s
            .start([
                Plan::new("sender").on(&n1),
                Plan::new("near").on(&n1),
                Plan::new("far").on(&n2),
            ])
            .await?;
        let subnet = pool_cidr(s).await?;
        let groups = [
            "239.1.2.3:9000".to_owned(),
            format!("{}:9000", subnet.broadcast()),
            "255.255.255.255:9000".to_owned(),
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
            // The sender goes on while the listeners start.
            let send = async {
                let arguments = [
                    "send-group",
                    group.as_str(),
                    "--count",
                    "40",
                    "--interval",
                    "50ms",
                ];
                s.cluster.probe::<Value>(&sender, &arguments, PROBE).await
            };
            let (near, far, _) = tokio::try_join!(listen(&near), listen(&far), send)?;
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
        let [n1, n2] = s.two_nodes().await?;
        let [server, near, far] = s
            .start([
                Plan::new("server").on(&n1),
                Plan::new("near").on(&n1),
                Plan::new("far").on(&n2),
            ])
            .await?;
        let service = create_service(
            s,
            json!({
                "selector": {"app": "server"},
                "ports": [
                    {"name": "tcp", "port": 80, "targetPort": PORT, "protocol": "TCP"},
                    {"name": "udp", "port": 80, "targetPort": PORT, "protocol": "UDP"},
                ],
            }),
        )
        .await?;
        let ip = service
            .spec
            .and_then(|spec| spec.cluster_ip)
            .context("no ClusterIP")?;
        let target = format!("{ip}:80");
        let mut flows = Vec::new();
        for from in [&near, &far, &server] {
            for proto in [Proto::Tcp, Proto::Udp] {
                flows.push(Flow::to(from, &target, proto, true));
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
        let [n1, n2] = s.two_nodes().await?;
        let [a, b, c] = s
            .start([
                Plan::new("a").on(&n1),
                Plan::new("b").on(&n1),
                Plan::new("c").on(&n2),
            ])
            .await?;
        let mtu = Api::<WeftNode>::all(s.cluster.client.clone())
            .get(&n1)
            .await?
            .status
            .and_then(|status| status.mtu)
            .with_context(|| format!("WeftNode {n1} has no status.mtu"))?;
        // 20 bytes of IPv4 header, 8 of ICMP.
        let fits = (mtu - 28).to_string();
        let too_long = (mtu - 27).to_string();
        for to in [&b, &c] {
            let ping = async |more: &[&str]| -> anyhow::Result<Value> {
                let mut arguments = vec!["ping", to.ip.as_str(), "--count", "3"];
                arguments.extend(more);
                s.cluster.probe(&a, &arguments, PROBE).await
            };
            let large = ping(&["--size", "60000"]).await?;
            ensure!(large["received"] == 3, "60 KB to {}: {large}", to.name);
            let whole = ping(&["--size", &fits, "--df"]).await?;
            ensure!(whole["received"] == 3, "MTU {mtu} to {}: {whole}", to.name);
            let over = ping(&["--size", &too_long, "--df"]).await?;
            ensure!(
                over["received"] == 0 && over["errors"]["TOO_LONG"] == 3,
                "one byte over MTU {mtu} to {} must be refused: {over}",
                to.name
            );
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
        let [n1, n2] = s.two_nodes().await?;
        let [a, b] = s
            .start([Plan::new("a").on(&n1), Plan::new("b").on(&n2)])
            .await?;
        for pod in [&a, &b] {
            for proto in ["tcp", "udp"] {
                let report = s
                    .cluster
                    .connect(pod, &format!("{OUTSIDE}:7080"), &["--proto", proto])
                    .await?;
                let seen = report.you.clone().unwrap_or_default();
                ensure!(
                    seen.starts_with(&format!("{}:", pod.host_ip)),
                    "{} on {} ({}), {proto}: the host outside saw {report:?}",
                    pod.name,
                    pod.node,
                    pod.host_ip
                );
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
        let seen = report.you.clone().unwrap_or_default();
        ensure!(
            seen.starts_with(&format!("{OUTSIDE}:")),
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

#[tokio::test]
#[ignore = "needs a cluster"]
async fn pods_cannot_send_with_what_is_not_theirs() {
    scenario("spoofing", async |s| {
        let [n1, n2] = s.two_nodes().await?;
        let mut thief = Plan::new("thief").on(&n1);
        thief.rights = Rights::NetAdmin;
        let [thief, victim, near, far] = s
            .start([
                thief,
                Plan::new("victim").on(&n2),
                Plan::new("near").on(&n1),
                Plan::new("far").on(&n2),
            ])
            .await?;
        let run = async |words: &[&str]| {
            let output = s.cluster.exec(&thief, words, PROBE).await?;
            ensure!(output.success, "{words:?}: {output:?}");
            Ok(())
        };
        let stolen = format!("{}/32", victim.ip);

        // IP: datagrams with the stolen address must not arrive, honest ones must.
        run(&["ip", "addr", "add", &stolen, "dev", "eth0"]).await?;
        for to in [&near, &far] {
            let target = format!("{}:9000", to.ip);
            let listen = async {
                let arguments = [
                    "listen-group",
                    target.as_str(),
                    "--count",
                    "100",
                    "--timeout",
                    "4s",
                ];
                s.cluster.probe::<Value>(to, &arguments, PROBE).await
            };
            let send = async |bind: &str| -> anyhow::Result<Value> {
                let arguments = [
                    "send-group",
                    target.as_str(),
                    "--count",
                    "30",
                    "--interval",
                    "100ms",
                    "--bind",
                    bind,
                ];
                s.cluster.probe(&thief, &arguments, PROBE).await
            };
            let (heard, _, _) = tokio::try_join!(listen, send(&thief.ip), send(&victim.ip))?;
            ensure!(
                heard["from"][&thief.ip].as_u64() > Some(0),
                "{}: honest datagrams must arrive: {heard}",
                to.name
            );
            ensure!(
                heard["from"][&victim.ip].is_null(),
                "{}: datagrams with the address of another pod arrived: {heard}",
                to.name
            );
        }

        // ARP: nobody may learn the stolen address with the thief's MAC.
        let neighbours = s.cluster.exec(&near, &["ip", "neigh"], PROBE).await?;
        let mac = s
            .cluster
            .exec(&thief, &["cat", "/sys/class/net/eth0/address"], PROBE)
            .await?;
        ensure!(
            !neighbours
                .stdout
                .lines()
                .any(|line| line.starts_with(&format!("{} ", victim.ip))
                    && line.contains(mac.stdout.trim())),
            "near took the thief for {}: {}",
            victim.ip,
            neighbours.stdout
        );
        run(&["ip", "addr", "del", &stolen, "dev", "eth0"]).await?;

        // MAC: frames with another source address are dropped.
        s.once(&[Flow::new(&thief, &near, true)]).await?;
        run(&["ip", "link", "set", "eth0", "address", "0a:58:0a:2f:ff:01"]).await?;
        let report = s
            .cluster
            .connect(&thief, &format!("{}:{PORT}", near.ip), &["--timeout", "1s"])
            .await?;
        ensure!(
            report.received == 0
                && report.errors.keys().all(|class| {
                    matches!(class, ErrorClass::Timeout | ErrorClass::Unreachable)
                }),
            "with a foreign MAC nothing may pass: {report:?}"
        );
        Ok(())
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
