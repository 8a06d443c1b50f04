//! Each feature of NetworkPolicy v1 by packets (clauses: the API's own text).

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use kube::api::LogParams;
use serde_json::json;
use tokio::time::Instant;
use weft_e2e::{
    Flow, PORT, Plan, Proto, Report, Running, Scenario, Traffic, eventually,
    policy::{app, egress, ingress},
    scenario, state,
};

/// `server` on node 1 with ports 8080 (TCP, UDP), 8081, 8082 and `web` = 8090; `near` (role friend)
/// on node 1 and `far` on node 2 in its namespace; `blue` (role friend) and `grey` in a namespace
/// with the label `team: blue`.
struct Pods {
    server: Running,
    near: Running,
    far: Running,
    blue: Running,
    grey: Running,
}

impl Pods {
    async fn start(s: &Scenario) -> anyhow::Result<Self> {
        let [n1, n2] = s.two_nodes().await?;
        let mut server = Plan::new("server").on(&n1);
        server.more_ports = vec![8081, 8082];
        server.named_ports = BTreeMap::from([("web".into(), 8090)]);
        let other = s.another_namespace(&[("team", "blue")]).await?;
        let home = s.start([
            server,
            Plan::new("near").on(&n1).label("role", "friend"),
            Plan::new("far").on(&n2),
        ]);
        let away = s.start_in(
            &other,
            [
                Plan::new("blue").on(&n2).label("role", "friend"),
                Plan::new("grey").on(&n1),
            ],
        );
        let ([server, near, far], [blue, grey]) = tokio::try_join!(home, away)?;
        Ok(Self {
            server,
            near,
            far,
            blue,
            grey,
        })
    }

    /// TCP to the server's main port: near, far, blue, grey.
    fn ingress(&self, passes: [bool; 4]) -> Vec<Flow> {
        [&self.near, &self.far, &self.blue, &self.grey]
            .into_iter()
            .zip(passes)
            .map(|(from, passes)| Flow::new(from, &self.server, passes))
            .collect()
    }
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn ingress_is_judged_by_peers_and_ports() {
    scenario("policy_ingress", async |s| {
        let p = Pods::start(s).await?;
        s.expect(&p.ingress([true; 4])).await?;

        let mut flows = p.ingress([false; 4]);
        // Isolation is per direction, and replies need no rule.
        flows.push(Flow::new(&p.server, &p.far, true));
        flows.push(Flow::port(&p.near, &p.server, PORT, Proto::Udp, false));
        let deny = json!({"podSelector": app("server"), "policyTypes": ["Ingress"]});
        s.under("deny-all", deny, &flows).await?;

        let friends = json!([{"podSelector": {"matchLabels": {"role": "friend"}}}]);
        let spec = ingress("server", friends, json!([]));
        s.under(
            "pod-selector",
            spec,
            &p.ingress([true, false, false, false]),
        )
        .await?;

        let team = json!([{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]);
        let spec = ingress("server", team, json!([]));
        s.under(
            "namespace-selector",
            spec,
            &p.ingress([false, false, true, true]),
        )
        .await?;

        let both = json!([{
            "namespaceSelector": {"matchLabels": {"team": "blue"}},
            "podSelector": {"matchLabels": {"role": "friend"}},
        }]);
        let spec = ingress("server", both, json!([]));
        s.under(
            "both-selectors",
            spec,
            &p.ingress([false, false, true, false]),
        )
        .await?;

        let block = json!([{"ipBlock": {
            "cidr": "0.0.0.0/0",
            "except": [format!("{}/32", p.far.ip), format!("{}/32", p.grey.ip)],
        }}]);
        let spec = ingress("server", block, json!([]));
        let flows = p.ingress([true, false, true, false]).into_iter();
        s.under("ip-block", spec, &flows.map(Flow::ipv4).collect::<Vec<_>>())
            .await?;

        let tcp = |port, passes| Flow::port(&p.far, &p.server, port, Proto::Tcp, passes);
        let spec = ingress("server", json!([]), json!([{"port": 8081}]));
        let udp = Flow::port(&p.near, &p.server, PORT, Proto::Udp, false);
        s.under(
            "port",
            spec,
            &[tcp(8081, true), tcp(PORT, false), udp.clone()],
        )
        .await?;

        let spec = ingress(
            "server",
            json!([]),
            json!([{"protocol": "UDP", "port": PORT}]),
        );
        let udp = Flow::port(&p.near, &p.server, PORT, Proto::Udp, true);
        s.under("udp-port", spec, &[tcp(PORT, false), udp]).await?;

        let spec = ingress(
            "server",
            json!([]),
            json!([{"port": 8081, "endPort": 8082}]),
        );
        let flows = [
            tcp(8081, true),
            tcp(8082, true),
            tcp(PORT, false),
            tcp(8090, false),
        ];
        s.under("end-port", spec, &flows).await?;

        let spec = ingress("server", json!([]), json!([{"port": "web"}]));
        s.under("named-port", spec, &[tcp(8090, true), tcp(8081, false)])
            .await?;

        // A name that no pod has matches nothing.
        let spec = ingress("server", json!([]), json!([{"port": "no-such-name"}]));
        s.under("unknown-name", spec, &[tcp(8090, false), tcp(PORT, false)])
            .await?;

        // The last policy is gone: open again.
        s.expect(&p.ingress([true; 4])).await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn egress_is_judged_by_peers_and_ports() {
    scenario("policy_egress", async |s| {
        let p = Pods::start(s).await?;
        let from_near = |to: &Running, passes| Flow::new(&p.near, to, passes);

        let deny = json!({"podSelector": app("near"), "policyTypes": ["Egress"]});
        let flows = [
            from_near(&p.server, false),
            from_near(&p.far, false),
            // Ingress stays open and its replies get out.
            Flow::new(&p.far, &p.near, true),
            Flow::new(&p.far, &p.server, true),
        ];
        s.under("deny-all", deny, &flows).await?;

        let spec = egress("near", json!([{"podSelector": app("server")}]), json!([]));
        let flows = [
            from_near(&p.server, true),
            from_near(&p.far, false),
            from_near(&p.blue, false),
        ];
        s.under("pod-selector", spec, &flows).await?;

        let team = json!([{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]);
        let flows = [
            from_near(&p.blue, true),
            from_near(&p.grey, true),
            from_near(&p.server, false),
        ];
        s.under(
            "namespace-selector",
            egress("near", team, json!([])),
            &flows,
        )
        .await?;

        let block = json!([{"ipBlock": {
            "cidr": "0.0.0.0/0", "except": [format!("{}/32", p.server.ip)],
        }}]);
        let flows = [
            from_near(&p.server, false).ipv4(),
            from_near(&p.far, true).ipv4(),
            from_near(&p.blue, true).ipv4(),
        ];
        s.under("ip-block", egress("near", block, json!([])), &flows)
            .await?;

        let tcp = |port, passes| Flow::port(&p.near, &p.server, port, Proto::Tcp, passes);
        let ports = json!([{"port": 8081, "endPort": 8082}]);
        let flows = [tcp(8081, true), tcp(8082, true), tcp(PORT, false)];
        s.under("end-port", egress("near", json!([]), ports), &flows)
            .await?;

        // The name is the destination's: `far` has no port of that name.
        let flows = [tcp(8090, true), tcp(8081, false), from_near(&p.far, false)];
        let spec = egress("near", json!([]), json!([{"port": "web"}]));
        s.under("named-port", spec, &flows).await?;

        // Egress allowed at the source does not open ingress at the destination.
        let deny = json!({"podSelector": app("server"), "policyTypes": ["Ingress"]});
        s.create_policy("server-deny", deny).await?;
        let spec = egress("near", json!([{"podSelector": app("server")}]), json!([]));
        s.under("egress-is-no-ingress", spec, &[from_near(&p.server, false)])
            .await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn allowed_flows_lose_nothing_while_policies_come_and_go() {
    scenario("policy_established", async |s| {
        let [n1, n2] = s.two_nodes().await?;
        let [server, near, far] = s
            .start([
                Plan::new("server").on(&n1),
                Plan::new("near").on(&n1).label("role", "friend"),
                Plan::new("far").on(&n2).label("role", "friend"),
            ])
            .await?;
        let target = format!("{}:{PORT}", server.ip);
        let length = Duration::from_secs(15);
        let begun = Instant::now();
        let flows = Traffic::of_each_kind(&s.cluster, &[&near, &far], &target, length);

        let friends = json!([{"podSelector": {"matchLabels": {"role": "friend"}}}]);
        // As many changes as fit while the traffic flows, and at least one.
        for round in 0.. {
            if round > 0 && begun.elapsed() > length / 2 {
                break;
            }
            let wide = format!("wide-{round}");
            let narrow = format!("narrow-{round}");
            s.create_policy(&wide, ingress("server", friends.clone(), json!([])))
                .await?;
            let ports =
                json!([{"protocol": "TCP", "port": PORT}, {"protocol": "UDP", "port": PORT}]);
            s.create_policy(&narrow, ingress("server", friends.clone(), ports))
                .await?;
            s.expect(&[
                Flow::new(&near, &server, true),
                Flow::new(&far, &server, true),
            ])
            .await?;
            s.delete_policy(&wide).await?;
            s.delete_policy(&narrow).await?;
            ensure!(
                round > 0 || begun.elapsed() < length,
                "the first change took longer than the traffic: nothing was shown"
            );
        }
        for flow in flows {
            flow.end_without_loss().await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn probes_of_the_own_node_pass_under_deny_all() {
    scenario("policy_probes", async |s| {
        let [n1, _] = s.two_nodes().await?;
        s.create_policy(
            "deny",
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        )
        .await?;
        let mut plan = Plan::new("probed").on(&n1);
        plan.probed = true;
        // Ready only if the kubelet reaches the port.
        let [pod] = s.start([plan]).await?;
        let node = s.agent(&n1).await?;
        s.expect(&[Flow::new(&node, &pod, true)]).await?;
        let still = s.cluster.ready(&s.namespace, &pod.name).await?;
        ensure!(still == pod, "{still:?} instead of {pod:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn policy_is_in_force_before_the_first_packet_of_a_pod() {
    scenario("policy_first_packet", async |s| {
        let [n1, n2] = s.two_nodes().await?;
        let [server, witness] = s
            .start([
                Plan::new("server").on(&n2),
                Plan::new("witness").on(&n1).label("role", "denied"),
            ])
            .await?;
        s.create_policy(
            "deny-egress",
            json!({
                "podSelector": {"matchLabels": {"role": "denied"}},
                "policyTypes": ["Egress"],
            }),
        )
        .await?;
        s.expect(&[Flow::new(&witness, &server, false)]).await?;

        let target = format!("{}:{PORT}", server.ip);
        for round in 0..5 {
            let name = format!("hasty-{round}");
            let mut plan = Plan::new(&name).on(&n1).label("role", "denied");
            // From the first moment of its life, every 2 ms.
            plan.init = [
                "/usr/bin/weft-probe",
                "connect",
                &target,
                "--count",
                "200",
                "--interval",
                "2ms",
                "--timeout",
                "1s",
            ]
            .map(String::from)
            .to_vec();
            s.cluster.create(&s.namespace, &plan).await?;
            let pods = s.cluster.pods(&s.namespace);
            let report: Report = eventually(Duration::from_secs(40), &name, async || {
                let pod = pods.get(&name).await?;
                ensure!(
                    pod.status
                        .as_ref()
                        .and_then(|status| status.phase.as_deref())
                        == Some("Failed"),
                    "the init container must fail: {}",
                    state(&pod)
                );
                let parameters = LogParams {
                    container: Some("first".into()),
                    ..LogParams::default()
                };
                let log = pods.logs(&name, &parameters).await?;
                let line = log.lines().last().context("an empty log")?;
                Ok(serde_json::from_str(line)?)
            })
            .await?;
            ensure!(
                report.sent == 200 && report.received == 0,
                "{name} got through before its policy: {report:?}"
            );
        }
        Ok(())
    })
    .await;
}
