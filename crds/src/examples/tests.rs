use std::collections::BTreeSet;

use super::*;

#[test]
fn every_rule_has_an_accepted_and_a_refused_example_and_no_example_is_left_over() {
    let of_rules: BTreeSet<(String, String, String)> = rules()
        .into_iter()
        .map(|r| (r.kind, r.path, r.message))
        .collect();
    let of_examples: BTreeSet<(String, String, String)> = examples()
        .into_iter()
        .map(|e| (e.kind.to_owned(), e.path.to_owned(), e.message.to_owned()))
        .collect();
    assert_eq!(of_rules, of_examples);
    assert_eq!(examples().len(), rules().len());
}

#[test]
fn a_rule_about_changes_has_an_object_before() {
    for rule in rules() {
        let example = examples()
            .into_iter()
            .find(|e| e.kind == rule.kind && e.path == rule.path && e.message == rule.message)
            .unwrap();
        assert_eq!(example.before.is_some(), rule.transition, "{rule:?}");
    }
}

#[test]
fn accepted_and_refused_differ_and_both_are_of_the_type() {
    for example in examples() {
        assert_ne!(example.accepted, example.refused);
        for object in [&example.accepted, &example.refused] {
            match example.kind {
                "WeftNetwork" => drop(read::<crate::WeftNetwork>(object)),
                "IPPool" => drop(read::<crate::IPPool>(object)),
                _ => drop(read::<crate::IPBlock>(object)),
            }
        }
    }
}

fn read<K: serde::de::DeserializeOwned>(object: &Value) -> K {
    serde_json::from_value(object.clone()).unwrap()
}
