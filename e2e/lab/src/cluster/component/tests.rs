use super::*;
use crate::options::{Families, Options, ProxyMode};

fn state() -> State {
    let options = Options {
        nodes: 1,
        proxy_mode: ProxyMode::Iptables,
        families: Families::V4,
        underlay_mtu: 1500,
    };
    let mut state = State::new("0a1b2c3d".into(), options);
    state.nodes.insert("n1".into(), 1);
    state
}

#[test]
fn a_component_is_found_where_it_runs() {
    let place = |word: &str, node| word.parse::<Component>().unwrap().place(&state(), node);
    assert_eq!(
        place("apiserver", None).unwrap(),
        ("hub".into(), "kube-apiserver")
    );
    assert_eq!(
        place("proxy", Some("n1")).unwrap(),
        ("n1".into(), "kube-proxy")
    );
    assert_eq!(place("link", Some("n1")).unwrap(), ("n1".into(), "link"));
}

#[test]
fn a_wrong_place_is_explained() {
    let refuse = |word: &str, node| {
        word.parse::<Component>()
            .and_then(|it| it.place(&state(), node))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refuse("kubelet", None),
        "say which node's kubelet, for example n1"
    );
    assert_eq!(
        refuse("kubelet", Some("n9")),
        "the lab has no node \"n9\"; it has n1"
    );
    assert_eq!(
        refuse("scheduler", Some("n1")),
        "kube-scheduler belongs to no node; leave out \"n1\""
    );
    assert_eq!(
        refuse("dns", None),
        "unknown component \"dns\"; use one of etcd, apiserver, controller-manager, scheduler, \
         kubelet, containerd, proxy, link"
    );
}
