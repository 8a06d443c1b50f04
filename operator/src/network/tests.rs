use weft_crds::{Condition, Versions, WeftNetworkSpec, WeftNode, WeftNodeSpec, WeftNodeStatus};
use weft_ipam::claim::NodeRef;

use super::{status::status, *};
use crate::rows::{DaemonSetRow, NodeRow};

fn network() -> WeftNetwork {
    let mut network = WeftNetwork::new(DEFAULT_NAME, WeftNetworkSpec::default());
    network.metadata.generation = Some(2);
    network
}

fn figures(desired: u32, updated: u32, ready: u32) -> DaemonSetRow {
    DaemonSetRow {
        observed: true,
        desired,
        updated,
        ready,
    }
}

fn node(name: &str) -> Arc<NodeRow> {
    Arc::new(NodeRow {
        id: NodeRef {
            name: name.into(),
            uid: name.into(),
        },
        addresses: vec![std::net::IpAddr::from([172, 30, 0, 1])],
        ..NodeRow::default()
    })
}

fn weft_node(name: &str, ready: ConditionStatus, message: &str) -> Arc<WeftNode> {
    let mut object = WeftNode::new(
        name,
        WeftNodeSpec {
            node_uid: name.into(),
            ..WeftNodeSpec::default()
        },
    );
    object.status = Some(WeftNodeStatus {
        node_uid: name.into(),
        conditions: vec![Condition {
            type_: "Ready".into(),
            status: ready,
            reason: "R".into(),
            message: message.into(),
            observed_generation: None,
            last_transition_time: None,
        }],
        versions: Versions {
            router: "0.1.0".into(),
            ..Versions::default()
        },
        ..WeftNodeStatus::default()
    });
    Arc::new(object)
}

/// (Available, Progressing, Degraded) as reasons, and the summary.
fn verdict(
    network: &WeftNetwork,
    set: DaemonSetRow,
    nodes: &[Arc<NodeRow>],
    weft_nodes: &[Arc<WeftNode>],
) -> ([String; 3], String) {
    let status = status(network, Some(&set), nodes, weft_nodes, "t");
    let say = |type_: &str| {
        let c = condition(&status.conditions, type_).unwrap();
        format!("{:?} {}", c.status, c.reason)
    };
    (
        ["Available", "Progressing", "Degraded"].map(say),
        status.summary,
    )
}

#[test]
fn table() {
    let well = [node("n1"), node("n2")];
    let up = ["n1", "n2"].map(|n| weft_node(n, ConditionStatus::True, ""));
    let table = [
        (figures(0, 0, 0), "False NodesNotReady", "False RolledOut"),
        (figures(3, 3, 0), "False NodesNotReady", "True Starting"),
        (figures(3, 3, 2), "False NodesNotReady", "True Starting"),
        (figures(3, 1, 2), "True NodesReady", "True RollingOut"),
        (figures(3, 1, 1), "False NodesNotReady", "True RollingOut"),
        (figures(1, 0, 0), "False NodesNotReady", "True RollingOut"),
        (figures(3, 3, 3), "True NodesReady", "False RolledOut"),
    ];
    for (set, available, progressing) in table {
        let (said, _) = verdict(&network(), set, &well, &up);
        assert_eq!(
            said,
            [available, progressing, "False AsExpected"],
            "{set:?}"
        );
    }
}

#[test]
fn all_well_is_said_in_one_line_with_versions() {
    let nodes = [node("n1"), node("n2")];
    let up = ["n1", "n2"].map(|n| weft_node(n, ConditionStatus::True, ""));
    let status = status(&network(), Some(&figures(2, 2, 2)), &nodes, &up, "t");
    assert_eq!(status.summary, "all 2 nodes are connected");
    assert_eq!(
        (status.nodes.as_str(), status.observed_generation),
        ("2/2", 2)
    );
    assert_eq!(status.versions.len(), 1);
    assert_eq!(
        (
            status.versions[0].version.as_str(),
            status.versions[0].nodes
        ),
        ("0.1.0", 2)
    );
    let mut later = network();
    later.status = Some(status.clone());
    assert_eq!(
        super::status::status(&later, Some(&figures(2, 2, 2)), &nodes, &up, "t2"),
        status
    );
}

#[test]
fn nodes_that_are_not_ready_or_have_no_address_are_named() {
    let nodes = [node("n1"), node("n2")];
    let sick = [
        weft_node("n1", ConditionStatus::True, ""),
        weft_node(
            "n2",
            ConditionStatus::False,
            "a device named weave is not ours",
        ),
    ];
    let (said, summary) = verdict(&network(), figures(2, 2, 2), &nodes, &sick);
    assert_eq!(said[2], "True NodesNotReady");
    assert_eq!(
        summary,
        "not ready: n2; n2: a device named weave is not ours"
    );
    let homeless = [Arc::new(NodeRow {
        addresses: vec![],
        ..NodeRow::clone(&node("n3"))
    })];
    let (said, summary) = verdict(&network(), figures(1, 1, 1), &homeless, &[]);
    assert_eq!(said[2], "True NodesWithoutAddress");
    assert!(summary.contains("n3"), "{summary}");
}
