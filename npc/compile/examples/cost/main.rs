//! What a sync costs before the kernel is asked: `cargo run --release -p weft-policy-compile
//! --example cost [LOCAL PODS] [PODS] [POLICIES]`. Prints the best of ten in milliseconds; then what
//! policies that are meant to hurt cost beside these.
#![allow(clippy::print_stdout, reason = "the figures are its output")]

mod hostile;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use weft_netfilter::plan::{Observed, diff};
use weft_policy::{Endpoint, EndpointId, Index, ObjectKey};
use weft_policy_compile::{NodeView, compile};
use weft_testkit::builders::{
    make_namespace, make_network_policy, make_pod, namespaces, pods, port_number,
};

/// Namespaces and applications that pods and policies are spread over.
const NAMESPACES: u32 = 20;
const APPS: u32 = 50;

fn main() {
    let mut sizes = std::env::args().skip(1).map(|n| n.parse::<u32>());
    let mut size = |default| sizes.next().map_or(default, |n| n.expect("a number"));
    let (local, all, policies) = (size(110), size(2000), size(100));
    let mut index = index(local, all, policies);
    let model = index.model();
    let view = NodeView::default();
    let ruleset = compile(&model, &view);
    let (rules, sets, elements) = ruleset.size();
    println!(
        "{local} local pods of {all}, {policies} policies ({} of them here)",
        model.policies.len()
    );
    println!("{rules} rules, {sets} sets, {elements} elements");
    best("model from nothing", || index.model());
    index.refresh();
    best("model when nothing changed", || index.refresh());
    let mut turn = 0;
    let mut change = || {
        turn += 1;
        // Policy 0 is here and names every pod of this namespace.
        let pod = make_pod(&namespace(1), "changing").label("app", "app-0");
        let pod = pod.address(&format!("10.48.0.{turn}")).node("n2");
        assert!(index.apply_pod(&pod.build()));
        index.refresh()
    };
    best("a pod changes: model", &mut change);
    best("a pod changes: model, comparison, ruleset", || {
        let after = change();
        assert_ne!(after.peers, model.peers);
        compile(&after, &view)
    });
    best("clone of the model", || model.clone());
    best("comparison of equal models", || model == index.model());
    best("compile", || compile(&model, &view));
    best("difference to nothing", || {
        diff(&Observed::default(), &ruleset)
            .expect("a plan")
            .to_string()
    });
    hostile::print(&mut index, &view);
}

fn best<T>(what: &str, mut work: impl FnMut() -> T) {
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let start = Instant::now();
        let done = work();
        best = best.min(start.elapsed());
        drop(done);
    }
    println!("{:8.2} ms  {what}", best.as_secs_f64() * 1000.0);
}

fn namespace(n: u32) -> String {
    format!("team-{}", n % NAMESPACES)
}

fn index(local: u32, all: u32, policies: u32) -> Index {
    let mut index = Index::new("n1");
    for n in 0..NAMESPACES {
        let name = namespace(n);
        index.apply_namespace(&make_namespace(&name, &[("team", &name)]));
    }
    for n in 0..policies {
        let app = format!("app-{}", n % APPS);
        let client = format!("app-{}", (n + 1) % APPS);
        let other = namespace(n + 1);
        let policy = make_network_policy(&namespace(n), &format!("policy-{n}"))
            .selects(&[("app", &app)])
            .ingress(
                vec![pods(&[("app", &client)]), namespaces(&[("team", &other)])],
                vec![port_number(8080)],
            );
        index.apply_network_policy(&policy.build());
    }
    for n in 0..all {
        let address = Ipv4Addr::from_bits(0x0a20_0002 + n);
        let name = format!("pod-{n}");
        let mut pod = make_pod(&namespace(n), &name)
            .uid(&name)
            .label("app", &format!("app-{}", n / NAMESPACES % APPS))
            .label("app.kubernetes.io/instance", &name)
            .label("pod-template-hash", "5d4f8c7b9")
            .address(&address.to_string())
            .node("n2");
        if n < local {
            pod = pod.node("n1");
        }
        index.apply_pod(&pod.build());
        if n < local {
            let endpoint = Endpoint {
                pod: ObjectKey::new(&namespace(n), &name),
                uid: name.as_str().into(),
                addresses: BTreeSet::from([IpAddr::V4(address)]),
                host_ifname: format!("vethwepl{n:07}"),
            };
            index.apply_endpoint(EndpointId::new(&name, "eth0"), endpoint);
        }
    }
    index
}
