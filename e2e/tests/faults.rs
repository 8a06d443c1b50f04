//! What goes on while parts of weft die and nodes come and go.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod},
};
use kube::{Api, ResourceExt as _, api::ListParams};
use weft_crds::{IPBlock, PeerSlice, WeftNode};
use weft_e2e::{
    Flow, Lab, PORT, Plan, Scenario, Traffic, WEFT_NAMESPACE, eventually, policy::ingress, scenario,
};

#[tokio::test]
#[ignore = "needs a cluster"]
async fn traffic_flows_while_operator_router_and_npc_are_killed() {
    scenario("kills", async |s| {
        let [n1, n2] = s.two_nodes().await?;
        let [server, near, far, enemy] = s
            .start([
                Plan::new("server").on(&n1),
                Plan::new("near").on(&n1).label("role", "friend"),
                Plan::new("far").on(&n2).label("role", "friend"),
                Plan::new("enemy").on(&n2),
            ])
            .await?;
        // A policy in force: a dead npc must neither open nor close anything.
        let friends = serde_json::json!([{"podSelector": {"matchLabels": {"role": "friend"}}}]);
        s.create_policy("friends", ingress("server", friends, serde_json::json!([])))
            .await?;
        s.expect(&[
            Flow::new(&near, &server, true),
            Flow::new(&far, &server, true),
            Flow::new(&enemy, &server, false),
        ])
        .await?;
        // The agent must exist before its node is disturbed.
        s.agent(&n1).await?;
        let leader = leader(s).await?;
        let node_agent = s.node_agent(&n1).await?;

        for (app, pod, container) in [
            ("weft-operator", leader.as_str(), "operator"),
            ("weft-node", node_agent.as_str(), "router"),
            ("weft-node", node_agent.as_str(), "npc"),
        ] {
            let target = format!("{}:{PORT}", server.ip);
            let length = Duration::from_secs(8);
            let flows = Traffic::of_each_kind(&s.cluster, &[&near, &far], &target, length);
            let denied = ["--interval", "20ms", "--timeout", "1s"];
            let denied = Traffic::start(&s.cluster, &enemy, &target, &denied, length);

            // Probes that start later have answers: the traffic flows.
            s.once(&[
                Flow::new(&near, &server, true),
                Flow::new(&far, &server, true),
            ])
            .await?;
            s.kill(app, pod, container).await?;

            for flow in flows {
                flow.end_without_loss()
                    .await
                    .with_context(|| format!("while {container} was killed"))?;
            }
            denied
                .end_without_answer()
                .await
                .with_context(|| format!("while {container} was killed"))?;
        }
        // All parts work again: a change of policy and a new pod are followed.
        s.delete_policy("friends").await?;
        let [late] = s.start([Plan::new("late").on(&n1)]).await?;
        s.expect(&[
            Flow::new(&enemy, &server, true),
            Flow::new(&late, &server, true),
        ])
        .await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn pods_start_and_stop_while_the_router_is_killed() {
    scenario("kill_in_churn", async |s| {
        // Another node than in the test above: its restarts are not held back yet.
        let [_, n2] = s.two_nodes().await?;
        s.agent(&n2).await?;
        let node_agent = s.node_agent(&n2).await?;
        let plans: Vec<Plan> = (0..6)
            .map(|number| Plan::new(&format!("pod-{number}")).on(&n2))
            .collect();
        let (started, killed) = tokio::join!(
            s.cluster.start(&s.namespace, &plans),
            s.kill("weft-node", &node_agent, "router"),
        );
        killed?;
        let pods = started?;
        let flows: Vec<Flow> = pods
            .windows(2)
            .map(|pair| Flow::new(&pair[0], &pair[1], true))
            .collect();
        s.expect(&flows).await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn nodes_can_join_and_leave() {
    scenario("nodes", async |s| {
        let lab = Lab::new(&s.settings).await?;
        let [old, far] = s.start_on_two_nodes(["old", "far"]).await?;
        let mut removed = Vec::new();
        for round in ["first", "second"] {
            let node = s.add_node(&lab).await?;
            let [new] = s.start([Plan::new(round).on(&node)]).await?;
            s.expect(&[Flow::new(&old, &new, true), Flow::new(&new, &old, true)])
                .await?;
            lab.run(&["remove-node", &node]).await?;
            removed.push(node);
        }
        for node in &removed {
            forget_node(s, node).await?;
        }
        // The others did not notice.
        s.expect(&[Flow::new(&old, &far, true), Flow::new(&far, &old, true)])
            .await
    })
    .await;
}

/// Waits until nothing in the cluster remembers the node: no Node, WeftNode, block or peer.
async fn forget_node(s: &Scenario, node: &str) -> anyhow::Result<()> {
    let client = &s.cluster.client;
    eventually(
        Duration::from_secs(150),
        &format!("{node} is forgotten and its blocks are back"),
        async || {
            let nodes = Api::<Node>::all(client.clone());
            ensure!(nodes.get_opt(node).await?.is_none(), "the Node is there");
            let pods = Api::<Pod>::all(client.clone());
            let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
            for pod in pods.list(&on_node).await?.items {
                // The pod garbage collector takes its time; a person would do this.
                let own =
                    Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
                let now = kube::api::DeleteParams::default().grace_period(0);
                let _ = own.delete(&pod.name_any(), &now).await;
            }
            let weft_nodes = Api::<WeftNode>::all(client.clone());
            ensure!(
                weft_nodes.get_opt(node).await?.is_none(),
                "the WeftNode is there"
            );
            let blocks = Api::<IPBlock>::all(client.clone())
                .list(&ListParams::default())
                .await?;
            let left: Vec<String> = blocks
                .items
                .iter()
                .filter(|block| block.spec.node.name == node)
                .map(kube::ResourceExt::name_any)
                .collect();
            ensure!(left.is_empty(), "it holds blocks {left:?}");
            let slices = Api::<PeerSlice>::all(client.clone())
                .list(&ListParams::default())
                .await?;
            ensure!(
                !slices.items.iter().any(|slice| slice
                    .spec
                    .peers
                    .iter()
                    .any(|peer| peer.node == node)),
                "it is a peer"
            );
            Ok(())
        },
    )
    .await
}

/// Pod of the operator that holds the Lease.
async fn leader(s: &Scenario) -> anyhow::Result<String> {
    let leases: Api<Lease> = Api::namespaced(s.cluster.client.clone(), WEFT_NAMESPACE);
    let holder = leases
        .get("weft-operator")
        .await
        .context("the Lease weft-operator")?
        .spec
        .and_then(|spec| spec.holder_identity)
        .context("nobody holds the Lease weft-operator")?;
    let pods = s.weft_pods("weft-operator").await?;
    pods.iter()
        .map(kube::ResourceExt::name_any)
        .find(|name| holder.starts_with(name.as_str()))
        .with_context(|| format!("no pod of the operator is {holder}"))
}
