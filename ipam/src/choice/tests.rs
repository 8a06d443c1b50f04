use super::{
    ChoiceError, Labels, Operator, PoolRules, Reason, Requirement, Selector, Subject, choose,
};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn selector(pairs: &[(&str, &str)]) -> Option<Selector> {
    Some(Selector {
        match_labels: labels(pairs),
        match_expressions: vec![],
    })
}

fn pool(name: &str) -> PoolRules {
    PoolRules {
        name: name.into(),
        active: true,
        ..PoolRules::default()
    }
}

fn pools() -> Vec<PoolRules> {
    vec![
        pool("default"),
        pool("named"),
        PoolRules {
            namespace: selector(&[("team", "a")]),
            ..pool("team-a")
        },
        PoolRules {
            pod: selector(&[("tier", "db")]),
            priority: 10,
            ..pool("databases")
        },
        PoolRules {
            pod: selector(&[("tier", "db")]),
            priority: 10,
            ..pool("alternatives")
        },
        PoolRules {
            active: false,
            ..pool("draining")
        },
        PoolRules {
            node: selector(&[("zone", "1")]),
            ..pool("zone-1")
        },
    ]
}

fn chosen(subject: &Subject<'_>) -> Result<(Vec<String>, Reason), String> {
    choose(subject, &pools())
        .map(|c| (c.pools, c.reason))
        .map_err(|e| e.to_string())
}

#[test]
fn pod_annotation_before_namespace_annotation_before_selector_before_default() {
    let mut subject = Subject {
        pod_annotation: Some("named"),
        namespace_annotation: Some("zone-1, default"),
        namespace_labels: labels(&[("team", "a")]),
        node_labels: labels(&[("zone", "1")]),
        ..Subject::default()
    };
    let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        chosen(&subject),
        Ok((names(&["named"]), Reason::PodAnnotation))
    );
    subject.pod_annotation = None;
    assert_eq!(
        chosen(&subject),
        Ok((names(&["zone-1", "default"]), Reason::NamespaceAnnotation))
    );
    subject.namespace_annotation = None;
    assert_eq!(chosen(&subject), Ok((names(&["team-a"]), Reason::Selector)));
    subject.namespace_labels = Labels::new();
    assert_eq!(chosen(&subject), Ok((names(&["default"]), Reason::Default)));
}

#[test]
fn among_selectors_the_priority_decides_and_then_the_name() {
    let subject = Subject {
        pod_labels: labels(&[("tier", "db")]),
        namespace_labels: labels(&[("team", "a")]),
        ..Subject::default()
    };
    assert_eq!(
        chosen(&subject),
        Ok((vec!["alternatives".into()], Reason::Selector))
    );
}

#[test]
fn an_annotation_that_cannot_be_followed_is_an_error_never_another_pool() {
    let of = |names| {
        chosen(&Subject {
            pod_annotation: Some(names),
            ..Subject::default()
        })
    };
    assert_eq!(
        of("nope, draining,zone-1"),
        Err(
            "annotation weft.dev/pools of the pod: IPPool \"nope\" does not exist; IPPool \
             \"draining\" gives out no new addresses (phase is not Active); IPPool \"zone-1\" is \
             not for this node (nodeSelector)"
                .into()
        )
    );
    assert_eq!(
        of(" , "),
        Err(ChoiceError::EmptyAnnotation("pod").to_string())
    );
    // One usable name is enough, and each is tried once.
    assert_eq!(
        of("nope,named,named"),
        Ok((vec!["named".into()], Reason::PodAnnotation))
    );
}

#[test]
fn without_a_usable_default_the_pod_has_no_pool() {
    let subject = Subject::default();
    assert_eq!(
        choose(&subject, &[]),
        Err(ChoiceError::NoDefault("does not exist".into()))
    );
    let restricted = PoolRules {
        namespace: selector(&[("team", "a")]),
        ..pool("default")
    };
    assert_eq!(
        choose(&subject, &[restricted]),
        Err(ChoiceError::NoDefault(
            "has selectors that do not match".into()
        ))
    );
}

#[test]
fn selectors_mean_what_they_mean_in_kubernetes() {
    let text = r#"{"matchLabels":{"a":"1"},"matchExpressions":[
        {"key":"b","operator":"In","values":["x","y"]},
        {"key":"c","operator":"NotIn","values":["x"]},
        {"key":"d","operator":"DoesNotExist"},
        {"key":"a","operator":"Exists"}]}"#;
    let selector: Selector = serde_json::from_str(text).unwrap();
    assert!(selector.matches(&labels(&[("a", "1"), ("b", "x")])));
    assert!(selector.matches(&labels(&[("a", "1"), ("b", "y"), ("c", "z")])));
    assert!(!selector.matches(&labels(&[("a", "2"), ("b", "x")])));
    assert!(!selector.matches(&labels(&[("a", "1")])));
    assert!(!selector.matches(&labels(&[("a", "1"), ("b", "x"), ("c", "x")])));
    assert!(!selector.matches(&labels(&[("a", "1"), ("b", "x"), ("d", "")])));
    assert!(Selector::default().matches(&Labels::new()));
    let requirement = Requirement {
        key: "k".into(),
        operator: Operator::In,
        values: vec![],
    };
    let none = Selector {
        match_expressions: vec![requirement],
        ..Selector::default()
    };
    assert!(!none.matches(&labels(&[("k", "")])));
}
