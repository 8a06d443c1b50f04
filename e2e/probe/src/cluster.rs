//! Pods that probe: make them, run a command in them, read the answer.

mod plan;
mod wait;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, bail};
use k8s_openapi::{
    api::core::v1::{Namespace, Pod},
    apimachinery::pkg::apis::meta::v1::Status,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{AttachParams, DeleteParams, PostParams},
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

pub use self::{
    plan::{PORT, Plan, Rights},
    wait::eventually,
};
use crate::report::Report;

/// How long the API server and a kubelet may take to start a pod whose image is on the node.
/// The kubelet tries a pod again after 10, 20 and 40 s when its CNI was away.
const START: Duration = Duration::from_secs(90);

/// A cluster, and the image that the probes run from.
#[derive(Clone)]
pub struct Cluster {
    /// Client of the API server.
    pub client: Client,
    /// Image with `/usr/bin/weft-probe`.
    pub image: String,
    /// Its pull policy.
    pub pull_policy: String,
}

/// A pod that runs and has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Namespace of the pod.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Node it runs on.
    pub node: String,
    /// Its first address.
    pub ip: String,
    /// Its addresses, at most one of each family; [`Running::ip`] is the first.
    pub ips: Vec<String>,
    /// First address of its node.
    pub host_ip: String,
    /// Addresses of its node, at most one of each family.
    pub host_ips: Vec<String>,
}

impl Running {
    /// For each family that both pods have: the own address, and the other pod's.
    #[must_use]
    pub fn pairs<'a>(&'a self, to: &'a Running) -> Vec<(&'a str, &'a str)> {
        to.ips
            .iter()
            .filter_map(|theirs| Some((of_family_of(&self.ips, theirs)?, theirs.as_str())))
            .collect()
    }
}

/// The address among `addresses` that is of the family of `like`.
#[must_use]
pub fn of_family_of<'a>(addresses: &'a [String], like: &str) -> Option<&'a str> {
    addresses
        .iter()
        .find(|address| address.contains(':') == like.contains(':'))
        .map(String::as_str)
}

/// `address:port`, as `weft-probe` and URLs want it.
#[must_use]
pub fn socket(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// Result of a command in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    /// Exit code 0.
    pub success: bool,
    /// What the kubelet said of a failure.
    pub message: String,
}

impl Cluster {
    /// Makes a namespace with a fresh name that starts with `prefix`, and with `labels`.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn make_namespace(
        &self,
        prefix: &str,
        labels: BTreeMap<String, String>,
    ) -> anyhow::Result<String> {
        let mut namespace = Namespace::default();
        namespace.metadata.generate_name = Some(format!("{prefix}-"));
        namespace.metadata.labels = Some(labels);
        let made = Api::<Namespace>::all(self.client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("make a namespace {prefix}-*"))?;
        Ok(made.name_any())
    }

    /// Asks for the deletion of a namespace; its pods end without grace.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn delete_namespace(&self, name: &str) -> anyhow::Result<()> {
        let pods: Api<Pod> = self.pods(name);
        // Without this each pod would take its grace period.
        let _ = pods
            .delete_collection(
                &DeleteParams::default().grace_period(0),
                &kube::api::ListParams::default(),
            )
            .await;
        Api::<Namespace>::all(self.client.clone())
            .delete(name, &DeleteParams::background())
            .await
            .with_context(|| format!("delete namespace {name}"))?;
        Ok(())
    }

    /// Pods of a namespace.
    #[must_use]
    pub fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates a pod and does not wait for it.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create(&self, namespace: &str, plan: &Plan) -> anyhow::Result<()> {
        let pod = plan.pod(&self.image, &self.pull_policy)?;
        // A fresh namespace has no ServiceAccount for some milliseconds.
        eventually(Duration::from_secs(10), "create the pod", async || {
            self.pods(namespace)
                .create(&PostParams::default(), &pod)
                .await
                .with_context(|| format!("create pod {namespace}/{}", plan.name))
        })
        .await?;
        Ok(())
    }

    /// Creates pods and waits until all of them are ready.
    ///
    /// # Errors
    /// A pod is refused or does not become ready; the message has its state.
    pub async fn start(&self, namespace: &str, plans: &[Plan]) -> anyhow::Result<Vec<Running>> {
        futures::future::try_join_all(plans.iter().map(|plan| self.create(namespace, plan)))
            .await?;
        futures::future::try_join_all(plans.iter().map(|plan| self.ready(namespace, &plan.name)))
            .await
    }

    /// Waits until a pod is ready.
    ///
    /// # Errors
    /// It is not ready in time; the message has its state.
    pub async fn ready(&self, namespace: &str, name: &str) -> anyhow::Result<Running> {
        let pods = self.pods(namespace);
        eventually(START, "a ready pod", async || {
            let pod = pods.get(name).await?;
            running(&pod).with_context(|| format!("pod {namespace}/{name}: {}", state(&pod)))
        })
        .await
    }

    /// Runs a command in the first container of a pod.
    ///
    /// # Errors
    /// The command could not be started or took longer than `limit`. A command that failed is no
    /// error: see [`Output::success`].
    pub async fn exec(
        &self,
        pod: &Running,
        command: &[&str],
        limit: Duration,
    ) -> anyhow::Result<Output> {
        self.exec_in(pod, None, command, limit).await
    }

    /// As [`Cluster::exec`], in a named container.
    ///
    /// # Errors
    /// As [`Cluster::exec`].
    pub async fn exec_in(
        &self,
        pod: &Running,
        container: Option<&str>,
        command: &[&str],
        limit: Duration,
    ) -> anyhow::Result<Output> {
        let what = || {
            format!(
                "in pod {}/{} on {}: {}",
                pod.namespace,
                pod.name,
                pod.node,
                command.join(" ")
            )
        };
        let run = async {
            let mut parameters = AttachParams::default().stdin(false);
            if let Some(container) = container {
                parameters = parameters.container(container);
            }
            let mut process = self
                .pods(&pod.namespace)
                .exec(&pod.name, command.iter().copied(), &parameters)
                .await?;
            let stdout = process.stdout();
            let stderr = process.stderr();
            let status = process.take_status();
            let read = async |stream: Option<_>| -> std::io::Result<String> {
                let mut bytes = Vec::new();
                if let Some(mut stream) = stream {
                    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes).await?;
                }
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            };
            let (stdout, stderr) = tokio::try_join!(read(stdout), read(stderr))?;
            let status = match status {
                Some(status) => status.await,
                None => None,
            };
            anyhow::Ok(output(stdout, stderr, status))
        };
        timeout(limit, run)
            .await
            .with_context(|| format!("not finished within {limit:?}"))
            .and_then(|result| result)
            .with_context(what)
    }

    /// Runs `weft-probe` in a pod and reads its JSON answer.
    ///
    /// # Errors
    /// The probe could not run, or did not answer in JSON.
    pub async fn probe<T: DeserializeOwned>(
        &self,
        pod: &Running,
        arguments: &[&str],
        limit: Duration,
    ) -> anyhow::Result<T> {
        let mut command = vec!["/usr/bin/weft-probe"];
        command.extend(arguments);
        let output = self.exec(pod, &command, limit).await?;
        serde_json::from_str(&output.stdout).with_context(|| {
            format!(
                "in pod {}/{} on {}: {} did not answer in JSON: {} {} {}",
                pod.namespace,
                pod.name,
                pod.node,
                command.join(" "),
                output.stdout.trim(),
                output.stderr.trim(),
                output.message
            )
        })
    }

    /// Runs `weft-probe connect` in a pod.
    ///
    /// # Errors
    /// The probe could not run. A server that does not answer is no error: see [`Report`].
    pub async fn connect(
        &self,
        pod: &Running,
        target: &str,
        more: &[&str],
    ) -> anyhow::Result<Report> {
        let mut arguments = vec!["connect", target];
        arguments.extend(more);
        self.probe(pod, &arguments, Duration::from_secs(120)).await
    }
}

fn output(stdout: String, stderr: String, status: Option<Status>) -> Output {
    let success = status
        .as_ref()
        .is_some_and(|status| status.status.as_deref() == Some("Success"));
    Output {
        stdout,
        stderr,
        success,
        message: status.and_then(|status| status.message).unwrap_or_default(),
    }
}

/// The pod, if all its containers are ready and it has an address.
fn running(pod: &Pod) -> anyhow::Result<Running> {
    let status = pod.status.clone().unwrap_or_default();
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    if !ready {
        bail!("not ready");
    }
    let ip = status.pod_ip.context("no address")?;
    let host_ip = status.host_ip.unwrap_or_default();
    let mut ips: Vec<String> = status
        .pod_ips
        .into_iter()
        .flatten()
        .map(|address| address.ip)
        .collect();
    let mut host_ips: Vec<String> = status
        .host_ips
        .into_iter()
        .flatten()
        .map(|address| address.ip)
        .collect();
    // Lists are younger than the single fields.
    if ips.is_empty() {
        ips.push(ip.clone());
    }
    if host_ips.is_empty() {
        host_ips.push(host_ip.clone());
    }
    Ok(Running {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        node: pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .context("no node")?,
        ip,
        ips,
        host_ip,
        host_ips,
    })
}

/// What a person wants to know of a pod that does not run.
#[must_use]
pub fn state(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let mut words = vec![status.phase.unwrap_or_else(|| "no status".into())];
    for condition in status.conditions.into_iter().flatten() {
        if condition.status != "True"
            && let Some(message) = condition.message
        {
            words.push(format!("{}: {message}", condition.type_));
        }
    }
    for container in status
        .init_container_statuses
        .into_iter()
        .flatten()
        .chain(status.container_statuses.into_iter().flatten())
    {
        let state = container.state.unwrap_or_default();
        if let Some(waiting) = state.waiting {
            words.push(format!(
                "{} waits: {} {}",
                container.name,
                waiting.reason.unwrap_or_default(),
                waiting.message.unwrap_or_default()
            ));
        }
        if let Some(ended) = state.terminated {
            words.push(format!(
                "{} ended with {}: {} {}",
                container.name,
                ended.exit_code,
                ended.reason.unwrap_or_default(),
                ended.message.unwrap_or_default()
            ));
        }
    }
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_are_paired_by_family() {
        let pod = |ips: &[&str]| Running {
            namespace: "e2e".into(),
            name: "a".into(),
            node: "n1".into(),
            ip: ips[0].into(),
            ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
            host_ip: "172.30.0.11".into(),
            host_ips: vec!["172.30.0.11".into()],
        };
        let (dual, v4) = (pod(&["10.32.0.5", "fd32::5"]), pod(&["10.32.0.6"]));
        assert_eq!(
            dual.pairs(&dual),
            [("10.32.0.5", "10.32.0.5"), ("fd32::5", "fd32::5")]
        );
        assert_eq!(dual.pairs(&v4), [("10.32.0.5", "10.32.0.6")]);
        assert_eq!(socket("fd32::5", 80), "[fd32::5]:80");
        assert_eq!(socket("10.32.0.5", 80), "10.32.0.5:80");
    }

    #[test]
    fn state_of_a_stuck_pod_names_the_container_and_the_reason() {
        let pod: Pod = serde_json::from_value(json!({
            "status": {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "True"},
                    {"type": "Ready", "status": "False", "message": "containers with unready status: [probe]"},
                ],
                "containerStatuses": [{
                    "name": "probe", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": "ErrImageNeverPull", "message": "no image"}},
                }],
            },
        }))
        .expect("a pod");
        assert_eq!(
            state(&pod),
            "Pending; Ready: containers with unready status: [probe]; \
             probe waits: ErrImageNeverPull no image"
        );
        assert_eq!(
            running(&pod).expect_err("not ready").to_string(),
            "not ready"
        );
    }
}
