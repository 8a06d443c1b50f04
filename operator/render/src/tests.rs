use weft_crds::{PolicyBackend, WeftNetworkSpec};

use super::*;

fn network() -> WeftNetwork {
    let mut network = WeftNetwork::new("default", WeftNetworkSpec::default());
    network.metadata.uid = Some("4711".into());
    network.metadata.generation = Some(3);
    network
}

fn facts() -> Facts {
    Facts {
        namespace: "kube-system".into(),
        cluster_id: "c1".into(),
        image: "docker.io/weft/weft:0.1.0".into(),
        ..Facts::default()
    }
}

fn json<T: serde::Serialize>(object: &T) -> String {
    serde_json::to_string_pretty(object).unwrap()
}

#[test]
fn the_agent_of_an_empty_spec() {
    let agent = agent(&network(), &facts()).unwrap();
    insta::assert_snapshot!("service_account", json(&agent.service_account));
    insta::assert_snapshot!("cluster_role", json(&agent.cluster_role));
    insta::assert_snapshot!("cluster_role_binding", json(&agent.cluster_role_binding));
    insta::assert_snapshot!("admission_policy", json(&agent.admission_policy));
    insta::assert_snapshot!("admission_binding", json(&agent.admission_binding));
    insta::assert_snapshot!("config_map", json(&agent.config_map));
    insta::assert_snapshot!("daemon_set", json(&agent.daemon_set));
}

#[test]
fn the_clean_up() {
    insta::assert_snapshot!("cleanup", json(&cleanup(&network(), &facts())));
}

fn hash_of(network: &WeftNetwork, facts: &Facts) -> String {
    let template = agent(network, facts)
        .unwrap()
        .daemon_set
        .spec
        .unwrap()
        .template;
    template.metadata.unwrap().annotations.unwrap()[CONFIG_HASH].clone()
}

#[test]
fn a_setting_of_the_agent_rolls_it_and_the_way_of_rolling_does_not() {
    let before = hash_of(&network(), &facts());
    let mut changed = network();
    changed.metadata.generation = Some(4);
    changed.spec.rollout.max_unavailable = 7;
    assert_eq!(hash_of(&changed, &facts()), before);
    changed.spec.fabric.mtu = Some(1400);
    assert_ne!(hash_of(&changed, &facts()), before);
}

#[test]
fn agents_run_with_the_backend_that_was_asked_for() {
    let mut asked = network();
    for backend in [
        PolicyBackend::Auto,
        PolicyBackend::Iptables,
        PolicyBackend::Nftables,
    ] {
        asked.spec.policy.backend = backend;
        let config = node_config(&asked, &facts());
        assert_eq!(config.network.policy.backend, backend);
        assert_eq!((config.generation, config.cluster_id.as_str()), (3, "c1"));
    }
}

#[test]
fn image_pull_secrets_api_server_and_log_reach_every_container() {
    let mut network = network();
    network.spec.image = Some("registry.local/weft:dev".into());
    let facts = Facts {
        image_pull_secrets: vec!["registry".into()],
        api_server: Some(("172.30.0.1".into(), 6443)),
        log: Some(("debug".into(), "json".into())),
        ..facts()
    };
    for set in [
        agent(&network, &facts).unwrap().daemon_set,
        cleanup(&network, &facts),
    ] {
        let pod = set.spec.unwrap().template.spec.unwrap();
        assert_eq!(pod.image_pull_secrets.unwrap()[0].name, "registry");
        for container in pod.containers.iter().chain(&pod.init_containers.unwrap()) {
            assert_eq!(container.image.as_deref(), Some("registry.local/weft:dev"));
            let env = container.env.as_ref().unwrap();
            let value = |name: &str| {
                let found = env.iter().find(|e| e.name == name);
                found.and_then(|e| e.value.clone()).unwrap_or_default()
            };
            assert_eq!(
                [
                    value("KUBERNETES_SERVICE_HOST"),
                    value("KUBERNETES_SERVICE_PORT"),
                    value("WEFT_LOG"),
                    value("WEFT_LOG_FORMAT"),
                ],
                ["172.30.0.1", "6443", "debug", "json"]
            );
        }
    }
}

#[test]
fn the_operator_holds_every_permission_it_grants() {
    let operator = operator_rules();
    for rule in node_rules() {
        assert!(operator.contains(&rule), "{rule:?}");
    }
}

#[test]
fn everything_rendered_is_found_by_the_selector_and_owned_by_the_network() {
    let agent = agent(&network(), &facts()).unwrap();
    let all = [
        agent.service_account.metadata,
        agent.cluster_role.metadata,
        agent.cluster_role_binding.metadata,
        agent.admission_policy.metadata,
        agent.admission_binding.metadata,
        agent.config_map.metadata,
        agent.daemon_set.metadata,
        cleanup(&network(), &facts()).metadata,
    ];
    for meta in all {
        let labels = meta.labels.unwrap();
        for pair in SELECTOR.split(',') {
            let (key, value) = pair.split_once('=').unwrap();
            assert_eq!(labels.get(key).map(String::as_str), Some(value));
        }
        assert_eq!(meta.owner_references.unwrap()[0].uid, "4711");
    }
}

#[test]
fn equal_inputs_give_equal_bytes() {
    let once = agent(&network(), &facts()).unwrap();
    let again = agent(&network(), &facts()).unwrap();
    assert_eq!(json(&once.daemon_set), json(&again.daemon_set));
    assert_eq!(once, again);
}
