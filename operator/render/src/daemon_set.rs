//! The pods on the nodes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet},
        core::v1::{
            Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource,
            HTTPGetAction, HostPathVolumeSource, LocalObjectReference, ObjectFieldSelector,
            PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecurityContext,
            Toleration, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use weft_crds::WeftNetworkSpec;

use crate::{CLEANUP, CONFIG_HASH, Facts, NAME_LABEL, NODE_AGENT, labels, meta};

const ROUTER: &str = "/usr/bin/weft-router";
const NPC: &str = "/usr/bin/weft-npc";
const PROBE: &str = "/usr/bin/weft-probe";

/// Port of `/livez` and `/readyz` of the router, on 127.0.0.1.
const ROUTER_HEALTH: u16 = 6784;
/// Port of npc's probes and metrics.
const NPC_PORT: u16 = 6781;
/// Port of the router's metrics.
const ROUTER_METRICS: u16 = 6782;

/// The node agent.
pub(crate) fn agent(
    spec: &WeftNetworkSpec,
    facts: &Facts,
    owner: &OwnerReference,
    config_hash: &str,
) -> DaemonSet {
    let mut install = container(spec, facts, "install-cni", ROUTER, &["install-cni"]);
    push(&mut install.command, ["--bin-dir", "/host/opt/cni/bin"]);
    install.security_context = Some(security(&[]));
    install.volume_mounts = Some(vec![mount("cni-bin", "/host/opt/cni/bin")]);

    let mut router = container(spec, facts, "router", ROUTER, &["run"]);
    push(&mut router.command, FILES);
    push(&mut router.command, ROUTER_FILES);
    router.volume_mounts = Some([&shared_mounts()[..], &router_mounts()[..]].concat());
    router.ports = Some(vec![port("metrics", ROUTER_METRICS)]);
    probes(&mut router, ROUTER_HEALTH);

    let mut npc = container(spec, facts, "npc", NPC, &["run"]);
    push(&mut npc.command, FILES);
    npc.volume_mounts = Some(shared_mounts());
    npc.ports = Some(vec![port("npc-metrics", NPC_PORT)]);
    probes(&mut npc, NPC_PORT);

    let mut pod = pod(facts, false);
    pod.init_containers = Some(vec![install]);
    pod.containers = vec![router, npc];
    pod.volumes
        .get_or_insert_default()
        .push(directory("cni-bin", &spec.cni.bin_dir));
    pod.volumes
        .get_or_insert_default()
        .push(directory("cni-conf", &spec.cni.conf_dir));
    let annotations = [(CONFIG_HASH.to_owned(), config_hash.to_owned())].into();
    daemon_set(NODE_AGENT, spec, facts, owner, annotations, pod)
}

/// Removes everything of ours from the node, then stays, so that readiness tells who is done.
pub(crate) fn cleanup(spec: &WeftNetworkSpec, facts: &Facts, owner: &OwnerReference) -> DaemonSet {
    let mut clean = container(spec, facts, "cleanup", ROUTER, &["cleanup"]);
    push(&mut clean.command, FILES);
    push(&mut clean.command, ROUTER_FILES);
    push(&mut clean.command, ["--bin-dir", "/host/opt/cni/bin"]);
    let mut mounts = [&shared_mounts()[..], &router_mounts()[..]].concat();
    mounts.push(mount("cni-bin", "/host/opt/cni/bin"));
    clean.volume_mounts = Some(mounts);

    let mut done = container(spec, facts, "done", PROBE, &["wait"]);
    done.security_context = Some(security(&[]));

    let mut pod = pod(facts, true);
    pod.init_containers = Some(vec![clean]);
    pod.containers = vec![done];
    pod.volumes
        .get_or_insert_default()
        .push(directory("cni-bin", &spec.cni.bin_dir));
    pod.volumes
        .get_or_insert_default()
        .push(directory("cni-conf", &spec.cni.conf_dir));
    daemon_set(CLEANUP, spec, facts, owner, BTreeMap::new(), pod)
}

const FILES: [&str; 6] = [
    "--config",
    "/etc/weft/node.json",
    "--state-dir",
    "/var/lib/weft",
    "--run-dir",
    "/run/weft",
];

const ROUTER_FILES: [&str; 4] = [
    "--cni-conf-dir",
    "/host/etc/cni/net.d",
    "--sysctl-dir",
    "/host/proc/sys/net",
];

fn push<const N: usize>(command: &mut Option<Vec<String>>, words: [&str; N]) {
    command
        .get_or_insert_default()
        .extend(words.map(String::from));
}

fn daemon_set(
    name: &str,
    spec: &WeftNetworkSpec,
    facts: &Facts,
    owner: &OwnerReference,
    annotations: BTreeMap<String, String>,
    pod: PodSpec,
) -> DaemonSet {
    let max_unavailable = i32::try_from(spec.rollout.max_unavailable).unwrap_or(i32::MAX);
    DaemonSet {
        metadata: meta(name, Some(facts), owner),
        spec: Some(DaemonSetSpec {
            selector: LabelSelector {
                match_labels: Some([(NAME_LABEL.to_owned(), name.to_owned())].into()),
                ..LabelSelector::default()
            },
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDaemonSet {
                    max_unavailable: Some(IntOrString::Int(max_unavailable)),
                    max_surge: None,
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels(name)),
                    annotations: (!annotations.is_empty()).then_some(annotations),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod),
            },
            ..DaemonSetSpec::default()
        }),
        ..DaemonSet::default()
    }
}

/// What both DaemonSets have in common. `late`: the ConfigMap may be gone already.
fn pod(facts: &Facts, late: bool) -> PodSpec {
    let secrets = facts
        .image_pull_secrets
        .iter()
        .map(|name| LocalObjectReference { name: name.clone() })
        .collect::<Vec<_>>();
    PodSpec {
        service_account_name: Some(NODE_AGENT.into()),
        host_network: Some(true),
        dns_policy: Some("Default".into()),
        priority_class_name: Some("system-node-critical".into()),
        node_selector: Some([("kubernetes.io/os".to_owned(), "linux".to_owned())].into()),
        // The network comes before everything else, on every node, whatever its state.
        tolerations: Some(vec![Toleration {
            operator: Some("Exists".into()),
            ..Toleration::default()
        }]),
        termination_grace_period_seconds: Some(10),
        image_pull_secrets: (!secrets.is_empty()).then_some(secrets),
        volumes: Some(vec![
            Volume {
                name: "config".into(),
                config_map: Some(ConfigMapVolumeSource {
                    name: NODE_AGENT.into(),
                    optional: late.then_some(true),
                    ..ConfigMapVolumeSource::default()
                }),
                ..Volume::default()
            },
            directory("run", "/run/weft"),
            directory("state", "/var/lib/weft"),
            host_path("xtables-lock", "/run/xtables.lock", "FileOrCreate"),
            host_path("sysctl", "/proc/sys/net", "Directory"),
        ]),
        ..PodSpec::default()
    }
}

fn shared_mounts() -> Vec<VolumeMount> {
    vec![
        VolumeMount {
            read_only: Some(true),
            ..mount("config", "/etc/weft")
        },
        mount("run", "/run/weft"),
        mount("state", "/var/lib/weft"),
        mount("xtables-lock", "/run/xtables.lock"),
    ]
}

fn router_mounts() -> Vec<VolumeMount> {
    vec![
        mount("sysctl", "/host/proc/sys/net"),
        mount("cni-conf", "/host/etc/cni/net.d"),
    ]
}

fn container(
    spec: &WeftNetworkSpec,
    facts: &Facts,
    name: &str,
    program: &str,
    arguments: &[&str],
) -> Container {
    let policy = match facts.image_pull_policy.as_str() {
        "" => "IfNotPresent",
        policy => policy,
    };
    let mut command = vec![program.to_owned()];
    command.extend(arguments.iter().map(|a| (*a).to_owned()));
    Container {
        name: name.into(),
        image: Some(spec.image.clone().unwrap_or_else(|| facts.image.clone())),
        image_pull_policy: Some(policy.into()),
        command: Some(command),
        env: Some(environment(facts)),
        resources: Some(ResourceRequirements {
            requests: Some(
                [("cpu", "20m"), ("memory", "32Mi")]
                    .map(|(k, v)| (k.to_owned(), Quantity(v.to_owned())))
                    .into(),
            ),
            ..ResourceRequirements::default()
        }),
        security_context: Some(security(&["NET_ADMIN", "NET_RAW"])),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..Container::default()
    }
}

fn environment(facts: &Facts) -> Vec<EnvVar> {
    let field = |name: &str, path: &str| EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".into()),
                field_path: path.into(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let value = |name: &str, value: &str| EnvVar {
        name: name.into(),
        value: Some(value.into()),
        ..EnvVar::default()
    };
    let mut env = vec![
        field("NODE_NAME", "spec.nodeName"),
        field("POD_NAME", "metadata.name"),
        field("WEFT_NAMESPACE", "metadata.namespace"),
    ];
    if let Some((host, port)) = &facts.api_server {
        env.push(value("KUBERNETES_SERVICE_HOST", host));
        env.push(value("KUBERNETES_SERVICE_PORT", &port.to_string()));
    }
    if let Some((filter, format)) = &facts.log {
        env.push(value("WEFT_LOG", filter));
        env.push(value("WEFT_LOG_FORMAT", format));
    }
    env
}

/// Root without rights, but for `add`; nothing of the image can be changed.
fn security(add: &[&str]) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            add: (!add.is_empty()).then(|| add.iter().map(|c| (*c).to_owned()).collect()),
            drop: Some(vec!["ALL".into()]),
        }),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_user: Some(0),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".into(),
            localhost_profile: None,
        }),
        ..SecurityContext::default()
    }
}

fn probes(container: &mut Container, port: u16) {
    let probe = |path: &str| Probe {
        http_get: Some(HTTPGetAction {
            host: Some("127.0.0.1".into()),
            path: Some(path.into()),
            port: IntOrString::Int(i32::from(port)),
            scheme: Some("HTTP".into()),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(5),
        ..Probe::default()
    };
    container.readiness_probe = Some(Probe {
        period_seconds: Some(2),
        ..probe("/readyz")
    });
    container.liveness_probe = Some(Probe {
        initial_delay_seconds: Some(10),
        period_seconds: Some(10),
        failure_threshold: Some(3),
        ..probe("/livez")
    });
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: i32::from(number),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        ..VolumeMount::default()
    }
}

fn directory(name: &str, path: &str) -> Volume {
    host_path(name, path, "DirectoryOrCreate")
}

fn host_path(name: &str, path: &str, kind: &str) -> Volume {
    Volume {
        name: name.into(),
        host_path: Some(HostPathVolumeSource {
            path: path.into(),
            type_: Some(kind.into()),
        }),
        ..Volume::default()
    }
}
