//! What a pod may not send: addresses that are not its own, and IPv6 where it has none.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use weft_e2e::{ErrorClass, Flow, PORT, Plan, Rights, Running, Scenario, scenario};

/// Limit for one probe.
const PROBE: Duration = Duration::from_secs(30);

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
                    "200",
                    "--timeout",
                    "8s",
                ];
                s.cluster.probe::<Value>(to, &arguments, PROBE).await
            };
            let send = async |bind: &str| -> anyhow::Result<Value> {
                let arguments = [
                    "send-group",
                    target.as_str(),
                    "--count",
                    "60",
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

#[tokio::test]
#[ignore = "needs a cluster"]
async fn pods_without_ipv6_cannot_talk_by_link_local_addresses() {
    scenario("link_local", async |s| {
        let [first, near, far] = s.start_near_and_far("first").await?;
        if first.ips.iter().any(|ip| ip.contains(':')) {
            eprintln!("pods have IPv6 here, and policies judge it: nothing to show");
            return Ok(());
        }
        // The kernel makes the addresses; a scope by number is one that every resolver reads.
        let index = s
            .cluster
            .exec(&first, &["cat", "/sys/class/net/eth0/ifindex"], PROBE)
            .await?;
        let index = index.stdout.trim();
        ensure!(!index.is_empty(), "no eth0 in {}", first.name);
        let ping = async |host: &str| -> anyhow::Result<Value> {
            let arguments = ["ping", host, "--count", "5", "--timeout", "1s"];
            s.cluster.probe(&first, &arguments, PROBE).await
        };
        // The tool and the kernel can do it: the pod reaches itself.
        let own = link_local(s, &first).await?;
        let myself = ping(&format!("{own}%{index}")).await?;
        ensure!(myself["received"] == 5, "ping the own {own}: {myself}");
        for to in [&near, &far] {
            let honest = ping(&to.ip).await?;
            ensure!(honest["received"] == 5, "ping {}: {honest}", to.ip);
            let theirs = link_local(s, to).await?;
            let answer = ping(&format!("{theirs}%{index}")).await?;
            ensure!(
                answer["sent"] == 5 && answer["received"] == 0,
                "{} -> {} ({theirs}) must be dropped: {answer}",
                first.name,
                to.name
            );
            let target = format!("[{theirs}%{index}]:{PORT}");
            let more = ["--count", "3", "--timeout", "1s"];
            let report = s.cluster.connect(&first, &target, &more).await?;
            ensure!(
                report.sent == 3 && report.received == 0,
                "{} -> {target} must be dropped: {report:?}",
                first.name
            );
        }
        Ok(())
    })
    .await;
}

/// The link-local address that the kernel gave a pod's eth0.
async fn link_local(s: &Scenario, pod: &Running) -> anyhow::Result<String> {
    let command = [
        "ip", "-j", "-6", "addr", "show", "dev", "eth0", "scope", "link",
    ];
    let output = s.cluster.exec(pod, &command, PROBE).await?;
    let text = &output.stdout;
    let devices: Value = serde_json::from_str(text).with_context(|| format!("{output:?}"))?;
    // With `-j` and a filter ip prints empty objects for the other devices.
    devices
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|device| device["addr_info"][0]["local"].as_str())
        .map(str::to_owned)
        .with_context(|| {
            format!(
                "{} has no link-local address, so this test shows nothing: {text}",
                pod.name
            )
        })
}
