//! The branches of the claim protocol that a race decides, against a scripted API server.

use http::Method;
use serde_json::{Value, json};
use weft_ipam::claim::NodeRef;

use super::*;
use crate::scripted::{Call, call, failure, scenario};

const BLOCK: &str = "/apis/weft.dev/v1alpha1/ipblocks/10-32-0-0-26";
const STATUS: &str = "/apis/weft.dev/v1alpha1/ipblocks/10-32-0-0-26/status";
const NODE: &str = "/api/v1/nodes/n2";
const PODS: &str = "/api/v1/pods";

fn orphan(version: &str, phase: BlockPhase) -> IPBlock {
    let mut block = object(&NewBlock {
        pool: "default".into(),
        node: NodeRef {
            name: "n2".into(),
            uid: "u2".into(),
        },
        cidr: "10.32.0.0/26".parse().unwrap(),
        epoch: 3,
    });
    block.metadata.uid = Some("b1".into());
    block.metadata.resource_version = Some(version.into());
    block.status = Some(IPBlockStatus {
        phase,
        node_uid: "u2".into(),
        epoch: 3,
        used: 4,
    });
    block
}

fn json_of(block: &IPBlock) -> Value {
    serde_json::to_value(block).unwrap()
}

fn no_pods() -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []})
}

fn no_node() -> Call {
    call(Method::GET, NODE, 404, failure(404, "NotFound"))
}

#[tokio::test]
async fn a_release_marks_and_deletes_exactly_what_it_saw() {
    let mut marked = orphan("8", BlockPhase::Releasing);
    marked.status.as_mut().unwrap().used = 0;
    let script = vec![
        no_node(),
        call(Method::GET, PODS, 200, no_pods()),
        call(Method::PUT, STATUS, 200, json_of(&marked)),
        call(Method::DELETE, BLOCK, 200, json_of(&marked)),
    ];
    let (done, bodies) = scenario(script, async |client| {
        release(&client, &orphan("7", BlockPhase::Confirmed)).await
    })
    .await;
    assert!(done.unwrap());
    assert_eq!(bodies[2]["metadata"]["resourceVersion"], "7");
    assert_eq!(
        bodies[2]["status"],
        json!({"phase": "Releasing", "nodeUID": "u2", "epoch": 3, "used": 0})
    );
    assert_eq!(
        bodies[3]["preconditions"],
        json!({"uid": "b1", "resourceVersion": "8"})
    );
}

#[tokio::test]
async fn a_node_that_is_back_keeps_its_block() {
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n2", "uid": "u2"}});
    let script = vec![call(Method::GET, NODE, 200, node)];
    let (done, _) = scenario(script, async |client| {
        release(&client, &orphan("7", BlockPhase::Confirmed)).await
    })
    .await;
    assert!(!done.unwrap());
}

#[tokio::test]
async fn a_pod_with_an_address_of_it_keeps_the_block() {
    let pods = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [{
        "metadata": {"name": "p", "namespace": "d"},
        "spec": {"nodeName": "n2", "containers": []},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.32.0.7"}]},
    }]});
    let script = vec![no_node(), call(Method::GET, PODS, 200, pods)];
    let (done, _) = scenario(script, async |client| {
        release(&client, &orphan("7", BlockPhase::Confirmed)).await
    })
    .await;
    assert!(!done.unwrap());
}

#[tokio::test]
async fn a_block_that_was_written_meanwhile_is_not_deleted() {
    let script = vec![
        no_node(),
        call(Method::GET, PODS, 200, no_pods()),
        call(Method::PUT, STATUS, 409, failure(409, "Conflict")),
    ];
    let (done, _) = scenario(script, async |client| {
        release(&client, &orphan("7", BlockPhase::Confirmed)).await
    })
    .await;
    assert_eq!(done.unwrap_err().class(), "conflict");
}

#[tokio::test]
async fn a_failed_precondition_of_the_delete_is_a_conflict() {
    let mut returned = orphan("7", BlockPhase::Releasing);
    returned.status.as_mut().unwrap().used = 0;
    let script = vec![call(Method::DELETE, BLOCK, 409, failure(409, "Conflict"))];
    let (done, bodies) = scenario(script, async |client| release(&client, &returned).await).await;
    assert_eq!(done.unwrap_err().class(), "conflict");
    assert_eq!(
        bodies[0]["preconditions"],
        json!({"uid": "b1", "resourceVersion": "7"})
    );
}

#[tokio::test]
async fn a_lost_race_is_no_error_and_the_next_block_is_created() {
    const BLOCKS: &str = "/apis/weft.dev/v1alpha1/ipblocks";
    let new = |cidr: &str| NewBlock {
        pool: "default".into(),
        node: NodeRef {
            name: "n1".into(),
            uid: "u1".into(),
        },
        cidr: cidr.parse().unwrap(),
        epoch: 1,
    };
    let script = vec![
        call(Method::POST, BLOCKS, 409, failure(409, "AlreadyExists")),
        call(
            Method::POST,
            BLOCKS,
            201,
            json_of(&orphan("1", BlockPhase::Pending)),
        ),
        call(Method::POST, BLOCKS, 403, failure(403, "Forbidden")),
    ];
    let create = ["10.32.0.0/26", "10.32.0.64/26", "10.32.0.128/26"].map(new);
    let (errors, bodies) = scenario(script, async |client| {
        create_all(&Api::all(client), &create).await
    })
    .await;
    assert_eq!(bodies[1]["metadata"]["name"], "10-32-0-64-26");
    let classes: Vec<_> = errors.iter().map(Error::class).collect();
    assert_eq!(classes, ["forbidden"]);
}
