//! A frame to all: each copy is judged by the policy of the pod whose port it leaves by.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::BindToDevice};
use weft_netfilter::{backend::Backend, exec::Runner};
use weft_policy::{Endpoint, EndpointId, Index, ObjectKey};
use weft_policy_compile::compile;
use weft_testkit::builders::{ip_block, make_namespace, make_network_policy, make_pod, selector};

use crate::{
    node, runner,
    stage::{Stage, Where},
};

const PORT: u16 = 5353;
/// Pod `a` lets `friend` in and nobody else, `b` has no policy.
const PODS: [(&str, [u8; 4]); 4] = [
    ("a", [10, 32, 0, 2]),
    ("b", [10, 32, 0, 3]),
    ("friend", [10, 32, 0, 4]),
    ("stranger", [10, 32, 0, 5]),
];

fn place(name: &str) -> Where {
    Where::Local(format!("vethwepl{}", &name[..1]))
}

fn index() -> Index {
    let mut index = Index::new("n1");
    index.apply_namespace(&make_namespace("x", &[]));
    for (name, address) in PODS {
        let pod = make_pod("x", name).label("app", name).node("n1");
        index.apply_pod(&pod.build());
        let endpoint = Endpoint {
            pod: ObjectKey::new("x", name),
            uid: format!("uid-x-{name}").as_str().into(),
            addresses: [IpAddr::from(address)].into(),
            host_ifname: format!("vethwepl{}", &name[..1]),
        };
        index.apply_endpoint(EndpointId::new(name, "eth0"), endpoint);
    }
    let mut policy = make_network_policy("x", "p")
        .ingress(vec![ip_block("10.32.0.4/32", &[])], vec![])
        .build();
    policy.spec.get_or_insert_default().pod_selector = Some(selector(&[("app", "a")]));
    index.apply_network_policy(&policy);
    index
}

/// Sends a broadcast from `sender`; who of `a` and `b` gets it?
fn received(stage: &Stage, sender: &str, word: &'static str) -> [bool; 2] {
    let (_, address) = PODS
        .into_iter()
        .find(|(name, _)| *name == sender)
        .expect("pod");
    let listeners = ["a", "b"].map(|name| {
        stage.namespace(&place(name)).run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("bound");
            socket
                .set_read_timeout(Some(Duration::from_millis(500)))
                .expect("timeout");
            socket
        })
    });
    stage.namespace(&place(sender)).run(move || {
        let socket = UdpSocket::bind((Ipv4Addr::from(address), 0)).expect("bound");
        setsockopt(&socket, BindToDevice, &"eth0".into()).expect("device");
        socket.set_broadcast(true).expect("broadcast");
        socket
            .send_to(word.as_bytes(), (Ipv4Addr::BROADCAST, PORT))
            .expect("sent");
    });
    listeners.map(|socket| {
        let mut buffer = [0; 16];
        matches!(socket.recv(&mut buffer), Ok(n) if &buffer[..n] == word.as_bytes())
    })
}

pub(crate) fn play<B: Backend>(backend: impl AsyncFnOnce(Runner) -> B) {
    let mut stage = Stage::new();
    for (name, address) in PODS {
        stage.put(IpAddr::from(address), &place(name));
    }
    // The control: without rules everybody gets everything.
    assert_eq!(received(&stage, "stranger", "control"), [true, true]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let mut backend = runtime.block_on(backend(runner(&stage)));
    let ruleset = compile(&index().model(), &node());
    runtime.block_on(backend.sync(&ruleset)).expect("synced");
    assert_eq!(received(&stage, "friend", "friend"), [true, true]);
    assert_eq!(received(&stage, "stranger", "stranger"), [false, true]);
}
