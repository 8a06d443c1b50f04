//! What a probe pod looks like.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

/// TCP and UDP port on which every probe pod serves.
pub const PORT: u16 = 8080;

/// What a probe pod may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rights {
    /// What the Pod Security Standard "restricted" admits.
    #[default]
    Restricted,
    /// Root with NET_ADMIN and NET_RAW in its own network namespace.
    NetAdmin,
    /// The node's network and processes.
    Node,
}

/// A probe pod: `weft-probe serve` on [`PORT`] unless `command` says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Name of the pod; also its label `app`.
    pub name: String,
    /// More labels.
    pub labels: BTreeMap<String, String>,
    /// Node it must run on.
    pub node: Option<String>,
    /// Command instead of the server.
    pub command: Vec<String>,
    /// Command of a container that runs before.
    pub init: Vec<String>,
    /// Command of a second container, named `second`.
    pub second: Vec<String>,
    /// More TCP ports to serve.
    pub more_ports: Vec<u16>,
    /// Named TCP ports (documentation for people, targets for policies).
    pub named_ports: BTreeMap<String, u16>,
    /// Node port that leads to [`PORT`].
    pub host_port: Option<u16>,
    /// What it may do.
    pub rights: Rights,
    /// Pod annotations.
    pub annotations: BTreeMap<String, String>,
    /// Whether the kubelet asks [`PORT`] by TCP whether the pod is ready.
    pub probed: bool,
}

impl Plan {
    /// A server named `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Pins it to a node.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.into());
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// The pod as the API wants it.
    ///
    /// # Errors
    /// Never for a plan that was built by these types.
    pub fn pod(&self, image: &str, pull_policy: &str) -> serde_json::Result<Pod> {
        let command = if self.command.is_empty() {
            self.server()
        } else {
            self.command.clone()
        };
        let container = |name: &str, command: &[String]| {
            json!({
                "name": name,
                "image": image,
                "imagePullPolicy": pull_policy,
                "command": command,
                "securityContext": self.security(),
            })
        };
        let mut first = container("probe", &command);
        first["ports"] = self.ports();
        if self.probed {
            first["readinessProbe"] = json!({
                "tcpSocket": {"port": PORT}, "periodSeconds": 1, "failureThreshold": 2,
            });
        }
        let mut containers = vec![first];
        if !self.second.is_empty() {
            containers.push(container("second", &self.second));
        }
        let mut labels = self.labels.clone();
        labels.insert("app".into(), self.name.clone());
        let mut spec = json!({
            "containers": containers,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            // The API server's default would keep a pod for 5 minutes on a node that is gone.
            "tolerations": [{"operator": "Exists"}],
        });
        if !self.init.is_empty() {
            spec["initContainers"] = json!([container("first", &self.init)]);
        }
        match self.rights {
            // Old runtimes don't let a pod ping; this sysctl is a safe one and needs no right.
            Rights::Restricted | Rights::NetAdmin => {
                spec["securityContext"] = json!({
                    "sysctls": [{"name": "net.ipv4.ping_group_range", "value": "0 2147483647"}],
                });
            }
            Rights::Node => {
                spec["hostNetwork"] = true.into();
                spec["hostPID"] = true.into();
            }
        }
        if let Some(node) = &self.node {
            spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        }
        serde_json::from_value(json!({
            "metadata": {
                "name": self.name,
                "labels": labels,
                "annotations": self.annotations,
            },
            "spec": spec,
        }))
    }

    fn server(&self) -> Vec<String> {
        let mut tcp = vec![PORT.to_string()];
        tcp.extend(self.more_ports.iter().map(u16::to_string));
        tcp.extend(self.named_ports.values().map(u16::to_string));
        tcp.dedup();
        vec![
            "/usr/bin/weft-probe".into(),
            "serve".into(),
            "--tcp".into(),
            tcp.join(","),
            "--udp".into(),
            PORT.to_string(),
        ]
    }

    fn ports(&self) -> Value {
        let mut ports = Vec::new();
        for (name, port) in &self.named_ports {
            ports.push(json!({"name": name, "containerPort": port, "protocol": "TCP"}));
        }
        if let Some(host_port) = self.host_port {
            ports.push(json!({"containerPort": PORT, "hostPort": host_port, "protocol": "TCP"}));
        }
        ports.into()
    }

    fn security(&self) -> Value {
        match self.rights {
            Rights::Restricted => json!({
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }),
            Rights::NetAdmin => json!({
                "runAsUser": 0,
                "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
            }),
            Rights::Node => json!({"runAsUser": 0, "privileged": true}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_server_is_admitted_by_the_restricted_level() {
        let pod = Plan::new("server")
            .on("n1")
            .pod("docker.io/weft/weft:0.1.0", "IfNotPresent")
            .expect("a pod");
        assert_eq!(
            serde_json::to_value(pod).expect("JSON"),
            json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "server", "labels": {"app": "server"}, "annotations": {}},
                "spec": {
                    "containers": [{
                        "name": "probe",
                        "image": "docker.io/weft/weft:0.1.0",
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["/usr/bin/weft-probe", "serve", "--tcp", "8080", "--udp", "8080"],
                        "ports": [],
                        "securityContext": {
                            "runAsNonRoot": true,
                            "runAsUser": 65532,
                            "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true,
                            "capabilities": {"drop": ["ALL"]},
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                    }],
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 1,
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "tolerations": [{"operator": "Exists"}],
                    "nodeSelector": {"kubernetes.io/hostname": "n1"},
                    "securityContext": {
                        "sysctls": [{"name": "net.ipv4.ping_group_range", "value": "0 2147483647"}],
                    },
                },
            })
        );
    }

    #[test]
    fn named_ports_are_served_and_declared() {
        let plan = Plan {
            named_ports: BTreeMap::from([("web".into(), 8090)]),
            ..Plan::new("server")
        };
        let pod = plan.pod("i", "Never").expect("a pod");
        let container = &pod.spec.expect("a spec").containers[0];
        assert_eq!(
            container.command.clone().expect("a command")[3],
            "8080,8090"
        );
        assert_eq!(
            serde_json::to_value(&container.ports).expect("JSON"),
            json!([{"name": "web", "containerPort": 8090, "protocol": "TCP"}])
        );
    }
}
