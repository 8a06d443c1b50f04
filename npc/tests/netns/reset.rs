//! A flow that its server has reset is forgotten by both ends, and not by the kernel between them:
//! for as long as it remembers (10 s) it takes a new SYN of the same ports for a packet of the old
//! flow (`nf_conntrack_proto_tcp.c`: it looks anew only where the client has reset it, or a FIN was
//! seen). A policy that came meanwhile must hold for it too.

use std::{
    io::Read as _,
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
};

use nix::{
    errno::Errno,
    libc::linger,
    sys::{
        socket::{
            self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt,
            sockopt::{Linger, ReceiveTimeout, ReuseAddr, SendTimeout},
        },
        time::TimeVal,
    },
};
use weft_testkit::{
    builders::{make_network_policy, pods},
    eventually::eventually_eq,
};

use crate::{
    api::POLICIES,
    flows::node::{Node, at},
    world::PATIENCE,
};

const CLIENT: &str = "10.32.0.3:41000";
const SERVER: &str = "10.32.0.2:7000";
/// Less than the second after which a SYN is repeated.
const NO_ANSWER: TimeVal = TimeVal::new(0, 900_000);

/// Connects, and waits until the server resets the connection.
fn connect() -> nix::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket::socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    setsockopt(&fd, ReuseAddr, &true)?;
    // Bounds connect() as well (socket(7)).
    setsockopt(&fd, SendTimeout, &NO_ANSWER)?;
    setsockopt(&fd, ReceiveTimeout, &TimeVal::new(10, 0))?;
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(at(CLIENT)))?;
    socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(at(SERVER)))?;
    let read = TcpStream::from(fd).read(&mut [0]);
    let error = read.expect_err("the server says nothing");
    Err(Errno::from_raw(error.raw_os_error().unwrap_or_default()))
}

/// Accepts one connection and resets it.
fn reset_one(listener: &TcpListener) {
    let (stream, _) = listener.accept().expect("a connection");
    let at_once = linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, Linger, &at_once).expect("SO_LINGER");
}

fn reset_before_the_policy(backend: &str) {
    let node = Node::new(backend);
    // However slow the machine is: the kernel still remembers.
    node.world
        .ns
        .sh("sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_close=600");
    let listener = node.pods[&2].run(|| TcpListener::bind(at(SERVER)).expect("a port"));
    let server = std::thread::spawn(move || {
        reset_one(&listener);
        listener
    });
    let connect = || node.pods[&3].run(connect);
    let remembered = || {
        let list = node.world.ns.sh("conntrack -L -p tcp 2>/dev/null");
        let ours = |line: &&str| line.contains(" CLOSE ") && line.contains("sport=41000");
        list.lines().filter(ours).count()
    };
    assert_eq!(connect(), Err(Errno::ECONNRESET), "nothing forbids it");
    let _listening = server.join().expect("the connection was accepted");
    eventually_eq(PATIENCE, &1, remembered);

    let policy = make_network_policy("default", "p").selects(&[("app", "pod2")]);
    let policy = policy.ingress(vec![pods(&[("app", "pod4")])], vec![]);
    node.world.api.add(POLICIES, &policy.build());
    eventually_eq(PATIENCE, &(1, 0), || node.counts());
    assert_eq!(connect(), Err(Errno::EINPROGRESS));
    assert_eq!(
        remembered(),
        1,
        "the flow was forgotten: this shows nothing"
    );
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_flow_that_was_reset_before_the_policy_is_no_way_around_it_with_iptables_nft() {
    reset_before_the_policy("Nft");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_flow_that_was_reset_before_the_policy_is_no_way_around_it_with_iptables_legacy() {
    reset_before_the_policy("Legacy");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_flow_that_was_reset_before_the_policy_is_no_way_around_it_with_nftables() {
    reset_before_the_policy("nftables");
}
