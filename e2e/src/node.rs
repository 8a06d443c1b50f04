//! A node's own network and processes, through a privileged pod of the test: works on any cluster.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::ListParams};
use weft_probe::cluster::{Output, Plan, Rights, Running, eventually};

use crate::{Scenario, WEFT_NAMESPACE};

/// Limit for a command on a node.
const COMMAND: Duration = Duration::from_secs(20);
/// The kubelet restarts a container at once the first time, then after 10 s, 20 s, 40 s (until it
/// ran for ten minutes): a second and third run on one cluster must pass too.
const RESTART: Duration = Duration::from_secs(90);

impl Scenario {
    /// A pod in the network and process namespaces of `node`. It works where the pod network does
    /// not.
    ///
    /// # Errors
    /// The pod does not start.
    pub async fn agent(&self, node: &str) -> anyhow::Result<Running> {
        let mut agents = self.agents.lock().await;
        if let Some(agent) = agents.get(node) {
            return Ok(agent.clone());
        }
        let mut plan = Plan::new(&format!("agent-{node}")).on(node);
        plan.rights = Rights::Node;
        plan.command = vec!["/usr/bin/weft-probe".into(), "wait".into()];
        self.cluster.create(&self.namespace, &plan).await?;
        let agent = self.cluster.ready(&self.namespace, &plan.name).await?;
        agents.insert(node.into(), agent.clone());
        Ok(agent)
    }

    /// Runs a shell line on a node.
    ///
    /// # Errors
    /// It could not be started. A line that failed is no error.
    pub async fn on_node(&self, node: &str, line: &str) -> anyhow::Result<Output> {
        let agent = self.agent(node).await?;
        self.cluster
            .exec(&agent, &["/bin/sh", "-c", line], COMMAND)
            .await
    }

    /// As [`Scenario::on_node`], for a line that must succeed; returns its stdout.
    ///
    /// # Errors
    /// It failed; the message has its stderr.
    pub async fn read_node(&self, node: &str, line: &str) -> anyhow::Result<String> {
        let output = self.on_node(node, line).await?;
        ensure!(
            output.success,
            "on {node}: {line}: {} {}",
            output.stderr.trim(),
            output.message
        );
        Ok(output.stdout)
    }

    /// Kills (SIGKILL) the processes of one container of weft on `node` and waits until the kubelet
    /// has it ready again. `app` is `weft-node` or `weft-operator`.
    ///
    /// # Errors
    /// There is no such container, or it does not come back.
    pub async fn kill(&self, app: &str, pod: &str, container: &str) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), WEFT_NAMESPACE);
        let (id, restarts, node) = container_of(&pods.get(pod).await?, container)?;
        let id = id.rsplit('/').next().unwrap_or_default().to_owned();
        ensure!(!id.is_empty(), "{app}/{container} has no container id");
        // The cgroup path names the container, so exactly its processes are hit.
        let line = format!(
            "n=0; for p in /proc/[0-9]*; do \
               if grep -q {id} $p/cgroup 2>/dev/null; then kill -9 ${{p#/proc/}} && n=$((n+1)); fi; \
             done; test $n -gt 0"
        );
        self.read_node(&node, &line)
            .await
            .with_context(|| format!("kill {container} of {pod}"))?;
        eventually(
            RESTART,
            &format!("{container} of {pod} ready again after SIGKILL"),
            async || {
                let found = pods.get(pod).await?;
                let (_, now, _) = container_of(&found, container)?;
                ensure!(now > restarts, "not restarted yet ({now} restarts)");
                ensure!(is_container_ready(&found, container), "not ready yet");
                Ok(())
            },
        )
        .await
    }

    /// Pods of weft with the label `app.kubernetes.io/name=<app>`, by name.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn weft_pods(&self, app: &str) -> anyhow::Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), WEFT_NAMESPACE);
        let selector = format!("app.kubernetes.io/name={app}");
        let mut found = pods
            .list(&ListParams::default().labels(&selector))
            .await?
            .items;
        found.sort_by_key(kube::ResourceExt::name_any);
        Ok(found)
    }

    /// Name of the node agent's pod on `node`.
    ///
    /// # Errors
    /// There is none.
    pub async fn node_agent(&self, node: &str) -> anyhow::Result<String> {
        self.weft_pods("weft-node")
            .await?
            .iter()
            .find(|pod| {
                pod.spec
                    .as_ref()
                    .is_some_and(|spec| spec.node_name.as_deref() == Some(node))
            })
            .map(kube::ResourceExt::name_any)
            .with_context(|| format!("no pod weft-node on {node}"))
    }
}

/// Container id, restart count and node.
fn container_of(pod: &Pod, container: &str) -> anyhow::Result<(String, i32, String)> {
    let status = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .find(|status| status.name == container)
        .with_context(|| format!("pod {} has no container {container}", pod.name_any()))?;
    let node = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.clone())
        .unwrap_or_default();
    Ok((
        status.container_id.clone().unwrap_or_default(),
        status.restart_count,
        node,
    ))
}

fn is_container_ready(pod: &Pod, container: &str) -> bool {
    pod.status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .any(|status| status.name == container && status.ready)
}
