//! What a lab is made of and how each part does.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::control_plane;
use crate::layout::Layout;
use crate::network::{
    API_PORT, API_SERVER, HUB, HUB_HOST, OUTSIDE, OUTSIDE_HOST, host_addresses, node_host,
};
use crate::node;
use crate::state::{Phase, State, key};
use crate::underlay;

#[cfg(test)]
mod tests;

/// How one process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessStatus {
    /// It runs.
    Running,
    /// A person stopped it.
    Stopped,
    /// It was started and is gone.
    Died,
    /// `up` did not come to it.
    Missing,
}

impl fmt::Display for ProcessStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Died => "DIED",
            Self::Missing => "missing",
        })
    }
}

/// A member of the lab: the hub, `outside` or a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// `hub`, `outside`, `n1`, ...
    pub name: String,
    /// Its underlay addresses.
    pub addresses: Vec<String>,
    /// Pid of the process that holds its namespaces open, for `nsenter`.
    pub namespaces_pid: Option<i32>,
    /// Its daemons by name.
    pub processes: BTreeMap<String, ProcessStatus>,
    /// Whether its cable is in; of the hub the one to this machine. `outside` does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<ProcessStatus>,
    /// The Ready condition of its Node object; nodes only, while the API server answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
}

/// The whole lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `up`, `starting` or `stopping`.
    pub phase: String,
    /// Random name of this lab.
    pub id: String,
    /// The options of `up`, as they are typed.
    pub options: String,
    /// Address of the API server.
    pub api_server: String,
    /// Kubeconfig of the administrator.
    pub kubeconfig: PathBuf,
    /// Path of `kubectl`.
    pub kubectl: PathBuf,
    /// Path of `helm`.
    pub helm: PathBuf,
    /// Directory of the logs.
    pub logs: PathBuf,
    /// Hub, `outside` and the nodes.
    pub members: Vec<MemberStatus>,
}

impl Status {
    /// Whether `up` finished and nothing is stopped or dead.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.phase == "up"
            && self.members.iter().all(|member| {
                member.namespaces_pid.is_some()
                    && member
                        .processes
                        .values()
                        .chain(&member.link)
                        .all(|process| *process == ProcessStatus::Running)
            })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "lab {} is {} ({})",
            self.id, self.phase, self.options
        )?;
        writeln!(formatter, "  API server  {}", self.api_server)?;
        writeln!(formatter, "  logs        {}", self.logs.display())?;
        writeln!(formatter, "  kubectl     {}", self.kubectl.display())?;
        writeln!(formatter, "  helm        {}", self.helm.display())?;
        writeln!(
            formatter,
            "  export KUBECONFIG={}",
            self.kubeconfig.display()
        )?;
        writeln!(formatter)?;
        writeln!(
            formatter,
            "{:<8} {:<24} {:<9} PROCESSES",
            "NAME", "ADDRESS", "READY"
        )?;
        for member in &self.members {
            let mut parts: Vec<String> = member
                .processes
                .iter()
                .map(|(name, status)| format!("{name} {status}"))
                .collect();
            if let Some(link) = member.link.filter(|link| *link != ProcessStatus::Running) {
                parts.push(format!("link {link}"));
            }
            if member.namespaces_pid.is_none() {
                parts.push("namespaces gone".to_owned());
            }
            let row = format!(
                "{:<8} {:<24} {:<9} {}",
                member.name,
                member.addresses.join(","),
                member.ready.as_deref().unwrap_or("-"),
                parts.join(", ")
            );
            writeln!(formatter, "{}", row.trim_end())?;
        }
        Ok(())
    }
}

/// Looks at every recorded process, and at the Node objects if the API server answers.
pub(crate) fn of(layout: &Layout, state: &State) -> Status {
    let mut members = vec![member(state, HUB, control_plane::PROCESSES)];
    let families = state.options.families;
    members[0].addresses = host_addresses(HUB_HOST, families);
    let ours = underlay::owner().is_ok_and(|owner| owner.is_some_and(|it| it.lab == state.id));
    members[0].link = Some(if ours {
        ProcessStatus::Running
    } else {
        ProcessStatus::Died
    });
    members.push(MemberStatus {
        addresses: host_addresses(OUTSIDE_HOST, families),
        ..member(state, OUTSIDE, &[])
    });
    let server = key(HUB, "kube-apiserver");
    let answers = state
        .daemons
        .get(&server)
        .is_some_and(|process| process.is_alive());
    let ready = if answers {
        node_readiness(layout)
    } else {
        BTreeMap::new()
    };
    // n10 stands behind n9, not behind n1.
    let mut nodes: Vec<_> = state.nodes.iter().collect();
    nodes.sort_by_key(|(_, index)| **index);
    for (name, index) in nodes {
        let link = state.stopped.contains(&key(name, "link"));
        members.push(MemberStatus {
            addresses: host_addresses(node_host(*index), families),
            link: Some(if link {
                ProcessStatus::Stopped
            } else {
                ProcessStatus::Running
            }),
            ready: ready.get(name).cloned(),
            ..member(state, name, node::PROCESSES)
        });
    }
    Status {
        phase: match state.phase {
            Phase::Starting => "starting",
            Phase::Up => "up",
            Phase::Stopping => "stopping",
        }
        .to_owned(),
        id: state.id.clone(),
        options: state.options.to_string(),
        api_server: format!("https://{API_SERVER}:{API_PORT}"),
        kubeconfig: layout.admin_kubeconfig(),
        kubectl: layout.programs().join("kubectl"),
        helm: layout.programs().join("helm"),
        logs: layout.root().join("log"),
        members,
    }
}

fn member(state: &State, name: &str, processes: &[&str]) -> MemberStatus {
    let holder = state.holders.get(name).filter(|holder| holder.is_alive());
    MemberStatus {
        name: name.to_owned(),
        addresses: Vec::new(),
        namespaces_pid: holder.map(|holder| holder.pid),
        processes: processes
            .iter()
            .map(|process| {
                (
                    (*process).to_owned(),
                    process_status(state, &key(name, process)),
                )
            })
            .collect(),
        link: None,
        ready: None,
    }
}

fn process_status(state: &State, key: &str) -> ProcessStatus {
    if state.stopped.contains(key) {
        return ProcessStatus::Stopped;
    }
    match state.daemons.get(key) {
        Some(process) if process.is_alive() => ProcessStatus::Running,
        Some(_) => ProcessStatus::Died,
        None => ProcessStatus::Missing,
    }
}

/// The Ready condition of every Node; empty when the API server does not answer in time.
fn node_readiness(layout: &Layout) -> BTreeMap<String, String> {
    let path =
        "{range .items[*]}{.metadata.name}={.status.conditions[?(@.type==\"Ready\")].status} {end}";
    let query = format!("jsonpath={path}");
    let arguments = ["--request-timeout=3s", "get", "nodes", "--output", &query];
    let text = control_plane::kubectl(layout, &arguments).unwrap_or_default();
    parse_readiness(&text)
}

/// Nodes of which a kubelet has reported, from `n1=True n2=False n3=`.
pub(crate) fn parse_readiness(text: &str) -> BTreeMap<String, String> {
    text.split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .filter(|(_, ready)| !ready.is_empty())
        .map(|(name, ready)| (name.to_owned(), ready.to_owned()))
        .collect()
}

/// Nodes that have registered and reported a Ready condition, of whatever value.
pub(crate) fn registered(layout: &Layout) -> Vec<String> {
    node_readiness(layout).into_keys().collect()
}
