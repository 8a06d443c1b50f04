use super::*;

fn pod(namespace: &str, name: &str, uid: &str, addresses: &[&str]) -> Pod {
    Pod {
        key: ObjectKey::new(namespace, name),
        uid: uid.into(),
        labels: [("app", "web")].into_iter().collect(),
        node: Some("n2".into()),
        addresses: addresses
            .iter()
            .map(|a| a.parse().expect("address"))
            .collect(),
        ports: Box::default(),
        host_network: false,
        finished: false,
        terminating: false,
        created: 0,
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

#[test]
fn a_pod_comes_out_as_it_went_in() {
    let mut store = Store::default();
    let uuid = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
    let pods = [
        pod("x", "a", uuid, &["10.32.0.2"]),
        pod(
            "x",
            "b",
            "0A1B2C3D-4E5F-6071-8293-A4B5C6D7E8F9",
            &["10.32.0.3", "fd00::3"],
        ),
        pod("x", "c", "0123456789abcdef0123456789abcdef", &[]),
        pod(
            "y",
            "a",
            "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f",
            &["fd00::4"],
        ),
        Pod {
            node: None,
            created: -1,
            terminating: true,
            ..pod("y", "b", "", &[])
        },
    ];
    for pod in pods.iter().rev() {
        store.insert(pod, true);
    }
    assert_eq!(store.iter().collect::<Vec<_>>(), pods);
    for pod in &pods {
        assert!(store.see(pod, true) && !store.see(pod, false));
        assert_eq!(store.get(&pod.key).as_ref(), Some(pod));
        assert!(store.has(&pod.key, &pod.uid) && !store.has(&pod.key, &"other".into()));
    }
}

#[test]
fn what_a_list_did_not_have_is_gone() {
    let mut store = Store::default();
    let pods = [
        pod("x", "a", "1", &[]),
        pod("x", "b", "2", &[]),
        pod("y", "a", "3", &[]),
    ];
    for pod in &pods {
        store.insert(pod, false);
    }
    store.begin_list();
    assert_eq!(store.unlisted().len(), 3);
    assert!(store.see(&pods[0], false));
    store.insert(&pod("x", "b", "4", &[]), false);
    assert_eq!(store.unlisted(), [ObjectKey::new("y", "a")]);
}

#[test]
fn of_two_that_claim_an_address_the_younger_has_it_and_the_other_when_that_goes() {
    let mut store = Store::default();
    let old = pod("x", "old", "1", &["10.32.0.2"]);
    let young = Pod {
        created: 5,
        ..pod("x", "young", "2", &["10.32.0.2"])
    };
    let owner = |store: &Store| {
        let number = store.owner(address("10.32.0.2"));
        number
            .and_then(|n| store.key(n))
            .map(|key| key.name.to_string())
    };
    for order in [[&old, &young], [&young, &old]] {
        order.into_iter().for_each(|pod| store.insert(pod, true));
        assert_eq!(owner(&store).as_deref(), Some("young"));
        assert_eq!(store.addresses(), 1);
        let leaving = Pod {
            terminating: true,
            ..young.clone()
        };
        store.insert(&leaving, true);
        assert_eq!(owner(&store).as_deref(), Some("old"));
        let number = store.number(&young.key).expect("there");
        assert_eq!(store.own(number).count(), 0);
        store.set_claims(&old.key, false);
        assert_eq!(owner(&store).as_deref(), Some("young"));
        assert!(store.remove(&young.key));
        assert_eq!(owner(&store), None);
        assert!(store.remove(&old.key) && !store.remove(&old.key));
        assert_eq!(store.addresses(), 0);
    }
}

#[test]
fn nothing_is_left_of_what_has_gone() {
    let mut store = Store::default();
    for n in 0..100_000 {
        let mut pod = pod("x", "busy", "1", &["10.32.0.2"]);
        let label = n.to_string();
        pod.labels = [("label", label.as_str())].into_iter().collect();
        store.insert(&pod, true);
    }
    assert!(store.remove(&ObjectKey::new("x", "busy")));
    let Store {
        rows,
        groups,
        by_template,
        namespaces,
        ..
    } = &store;
    assert_eq!((rows.iter().count(), groups.iter().count()), (0, 0));
    assert!(by_template.is_empty() && namespaces.is_empty());
}
