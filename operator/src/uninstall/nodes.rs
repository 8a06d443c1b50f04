//! Our condition on Nodes. Nobody else takes it off, and without weft nobody keeps it true.

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    api::NODES,
    looping::{Error, Tried},
    nodes::condition::{NETWORK_UNAVAILABLE, REASONS},
};

/// How often a Node is looked at again that changes under our hands (its kubelet reports).
const TRIES: u32 = 5;

/// Removes NetworkUnavailable from every Node where we wrote it. Returns from how many.
pub(super) async fn release(client: &Client) -> Result<usize, Error> {
    let api = Api::<Node>::all(client.clone());
    let list = api
        .list(&ListParams::default())
        .await
        .tried(|| "cannot list Nodes".into())?;
    let mut released = 0;
    let mut errors = Vec::new();
    for node in list.items {
        match release_one(&api, node).await {
            Ok(true) => released += 1,
            Ok(false) => {}
            Err(error) => errors.push(error),
        }
    }
    Error::join(errors).map(|()| released)
}

/// By compare-and-swap: between our look and our write another network may have taken the
/// condition over.
async fn release_one(api: &Api<Node>, mut node: Node) -> Result<bool, Error> {
    let name = node.name_any();
    let what = || format!("cannot remove condition {NETWORK_UNAVAILABLE} of Node {name}");
    for _ in 0..TRIES {
        if !is_ours(&node) {
            return Ok(false);
        }
        let patch = json!({
            "metadata": {"uid": node.uid(), "resourceVersion": node.resource_version()},
            "status": {"conditions": [{"$patch": "delete", "type": NETWORK_UNAVAILABLE}]},
        });
        let params = PatchParams {
            field_manager: Some(NODES.into()),
            ..PatchParams::default()
        };
        match api
            .patch_status(&name, &params, &Patch::Strategic(patch))
            .await
        {
            Ok(_) => return Ok(true),
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(false),
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            Err(error) => return Err(error).tried(what),
        }
        match api.get_opt(&name).await.tried(what)? {
            Some(fresh) => node = fresh,
            None => return Ok(false),
        }
    }
    Err(Error::Other(format!(
        "{}: it changed under our hands {TRIES} times",
        what()
    )))
}

fn is_ours(node: &Node) -> bool {
    let status = node.status.as_ref();
    let mut conditions = status
        .and_then(|s| s.conditions.as_ref())
        .into_iter()
        .flatten();
    conditions.any(|c| {
        c.type_ == NETWORK_UNAVAILABLE && c.reason.as_deref().is_some_and(|r| REASONS.contains(&r))
    })
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::Value;

    use super::*;
    use crate::scripted::{call, failure, scenario};

    fn node(name: &str, version: &str, reason: &str) -> Value {
        json!({"kind": "Node", "apiVersion": "v1",
        "metadata": {"name": name, "uid": name, "resourceVersion": version},
        "status": {"conditions": [
            {"type": "Ready", "status": "True", "reason": "KubeletReady"},
            {"type": "NetworkUnavailable", "status": "False", "reason": reason},
        ]}})
    }

    #[tokio::test]
    async fn our_condition_leaves_every_node_and_those_of_others_stay() {
        let bare = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n4"}});
        let nodes = [
            node("n1", "1", "WeftIsUp"),
            node("n2", "2", "FlannelIsUp"),
            node("n3", "3", "WeftNotReady"),
            bare,
        ];
        let list = json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": nodes});
        let script = vec![
            call(Method::GET, "/api/v1/nodes", 200, list),
            call(
                Method::PATCH,
                "/api/v1/nodes/n1/status",
                200,
                nodes[0].clone(),
            ),
            call(
                Method::PATCH,
                "/api/v1/nodes/n3/status",
                200,
                nodes[2].clone(),
            ),
        ];
        let (done, bodies) = scenario(script, async |client| release(&client).await.unwrap()).await;
        assert_eq!(done, 2);
        assert_eq!(
            bodies[1],
            json!({
                "metadata": {"uid": "n1", "resourceVersion": "1"},
                "status": {"conditions": [{"$patch": "delete", "type": "NetworkUnavailable"}]},
            })
        );
    }

    #[tokio::test]
    async fn a_condition_that_somebody_else_took_over_meanwhile_stays() {
        let list = json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {},
            "items": [node("n1", "1", "WeftIsUp"), node("n2", "7", "WeftIsUp")]});
        let script = vec![
            call(Method::GET, "/api/v1/nodes", 200, list),
            call(
                Method::PATCH,
                "/api/v1/nodes/n1/status",
                409,
                failure(409, "Conflict"),
            ),
            call(
                Method::GET,
                "/api/v1/nodes/n1",
                200,
                node("n1", "2", "CalicoIsUp"),
            ),
            call(
                Method::PATCH,
                "/api/v1/nodes/n2/status",
                409,
                failure(409, "Conflict"),
            ),
            call(
                Method::GET,
                "/api/v1/nodes/n2",
                200,
                node("n2", "8", "WeftIsUp"),
            ),
            call(
                Method::PATCH,
                "/api/v1/nodes/n2/status",
                404,
                failure(404, "NotFound"),
            ),
        ];
        let (done, bodies) = scenario(script, async |client| release(&client).await.unwrap()).await;
        assert_eq!(done, 0);
        assert_eq!(bodies[5]["metadata"]["resourceVersion"], "8");
    }
}
