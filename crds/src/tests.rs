use serde_json::Value;

use super::*;

fn schemas() -> Vec<(String, Value)> {
    all()
        .iter()
        .flat_map(|crd| {
            let kind = crd.spec.names.kind.clone();
            let of = move |v: &_| (kind.clone(), serde_json::to_value(v).unwrap_or_default());
            crd.spec
                .versions
                .iter()
                .map(move |v| of(&v.schema))
                .collect::<Vec<_>>()
        })
        .map(|(kind, schema)| (kind, schema["openAPIV3Schema"].clone()))
        .collect()
}

fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    for below in ["items", "additionalProperties"] {
        if schema[below].is_object() {
            walk(&format!("{path}[]"), &schema[below], visit);
        }
    }
}

/// <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>
#[test]
fn schemas_are_structural() {
    for (kind, schema) in schemas() {
        walk(&kind, &schema, &mut |path, node| {
            // An IntOrString or a free-form object would be the exceptions; we have none.
            assert!(node["type"].is_string(), "{path} has no type: {node}");
            assert!(node["$ref"].is_null(), "{path} has a $ref");
            for keyword in ["definitions", "deprecated", "patternProperties", "const"] {
                assert!(node[keyword].is_null(), "{path} has {keyword}");
            }
        });
    }
}

#[test]
fn lists_of_users_and_of_the_operator_are_bounded() {
    for (kind, schema) in schemas() {
        walk(&kind, &schema, &mut |path, node| {
            // LabelSelectors are Kubernetes' own type.
            if node["type"] == "array" && !path.contains("Selector") {
                assert!(node["maxItems"].is_u64(), "{path} has no bound");
            }
        });
    }
}

/// The API server refuses the definition otherwise.
#[test]
fn defaults_satisfy_the_lengths_of_their_own_schema() {
    for (kind, schema) in schemas() {
        walk(&kind, &schema, &mut |path, node| {
            if let (Some(default), Some(least)) =
                (node["default"].as_str(), node["minLength"].as_u64())
            {
                assert!(default.len() as u64 >= least, "{path}");
            }
        });
    }
}

#[test]
fn every_definition_is_below_100_kilobytes() {
    for crd in all() {
        let size = serde_json::to_string_pretty(&crd).unwrap_or_default().len();
        assert!(size < 100_000, "{}: {size}", crd.spec.names.kind);
    }
}

#[test]
fn a_block_has_one_name() {
    let name = |cidr: &str| BlockName(cidr.parse().unwrap()).to_string();
    assert_eq!(name("10.32.0.64/26"), "10-32-0-64-26");
    assert_eq!(
        name("fd00:10::/122"),
        "fd00-0010-0000-0000-0000-0000-0000-0000-122"
    );
    assert_eq!(name("fd00:10:0:0::/122"), name("fd00:10::/122"));
}

#[test]
fn an_empty_network_spec_has_weave_nets_values() {
    let spec: WeftNetworkSpec = serde_json::from_str("{}").unwrap();
    assert_eq!(spec, WeftNetworkSpec::default());
    assert_eq!((spec.fabric.port, spec.fabric.control_port), (6784, 6783));
}

#[test]
fn a_condition_keeps_its_time_until_its_status_flips() {
    let new = |status, reason: &str| Condition {
        type_: "Ready".into(),
        status,
        reason: reason.into(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: None,
    };
    let mut list = Vec::new();
    assert!(set_condition(
        &mut list,
        new(ConditionStatus::False, "A"),
        "t1"
    ));
    assert!(set_condition(
        &mut list,
        new(ConditionStatus::False, "B"),
        "t2"
    ));
    assert!(!set_condition(
        &mut list,
        new(ConditionStatus::False, "B"),
        "t3"
    ));
    assert_eq!(list[0].last_transition_time.as_deref(), Some("t1"));
    assert!(set_condition(
        &mut list,
        new(ConditionStatus::True, "B"),
        "t4"
    ));
    assert_eq!(list[0].last_transition_time.as_deref(), Some("t4"));
}

#[test]
fn a_block_counts_only_when_the_right_node_confirmed_this_grant() {
    let spec = IPBlockSpec {
        pool: "default".into(),
        cidr: "10.32.0.0/26".into(),
        node: BlockNode {
            name: "n1".into(),
            uid: "u1".into(),
        },
        epoch: 2,
    };
    let mut block = IPBlock::new("10-32-0-0-26", spec);
    assert!(!block.is_confirmed());
    let confirmed = |uid: &str, epoch| IPBlockStatus {
        phase: BlockPhase::Confirmed,
        node_uid: uid.into(),
        epoch,
        used: 0,
    };
    for (status, expected) in [
        (confirmed("u1", 2), true),
        (confirmed("u1", 1), false),
        (confirmed("u0", 2), false),
    ] {
        block.status = Some(status);
        assert_eq!(block.is_confirmed(), expected);
    }
}
