use std::net::SocketAddr;

use weft_probe::measured::Transport;

use super::*;
use crate::serve::tests::{pushing_server, server};

fn target(proto: Transport, address: SocketAddr, rate: u32) -> Target {
    Target {
        proto,
        address,
        rate,
    }
}

fn arguments() -> Arguments {
    Arguments {
        forbidden: Vec::new(),
        allowed: Vec::new(),
        flow: Vec::new(),
        interval: Duration::from_millis(5),
        forbidden_deadline: Duration::from_millis(250),
        allowed_deadline: Duration::from_millis(900),
        duration: None,
        until_eof: false,
    }
}

/// A UDP socket that hears and never answers.
async fn deaf() -> (tokio::net::UdpSocket, SocketAddr) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = socket.local_addr().expect("a bound socket");
    (socket, address)
}

/// An address where nobody listens.
async fn closed() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    listener.local_addr().expect("a bound socket")
}

/// For 300 ms, in steps: however long this process waits for a processor, between two of them all
/// parts have their turn.
async fn for_a_while(arguments: &Arguments) -> Measured {
    measure(arguments, async {
        for _ in 0..30 {
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    })
    .await
    .expect("a report")
}

#[tokio::test]
async fn answered_refused_and_silent_attempts_are_told_apart() {
    let (_kept, silent) = deaf().await;
    let server = server().await;
    let closed = closed().await;
    let measured = for_a_while(&Arguments {
        forbidden: vec![
            target(Transport::Udp, silent, 100),
            target(Transport::Tcp, closed, 100),
            target(Transport::Tcp, server, 100),
        ],
        allowed: vec![
            target(Transport::Tcp, server, 100),
            target(Transport::Udp, server, 100),
            target(Transport::Tcp, closed, 100),
        ],
        ..arguments()
    })
    .await;
    for lane in &measured.lanes {
        assert!(lane.sent >= 10 && lane.untried == 0, "{lane:?}");
    }
    let counts: Vec<[bool; 4]> = measured
        .lanes
        .iter()
        .map(|lane| {
            [
                lane.passed == lane.sent,
                lane.refused == lane.sent,
                lane.silent == lane.sent,
                lane.wrong == lane.sent,
            ]
        })
        .collect();
    assert_eq!(
        counts,
        [
            [false, false, true, false],
            [false, true, false, true],
            [true, false, false, true],
            [true, false, false, false],
            [true, false, false, false],
            [false, true, false, true],
        ]
    );
    let all_wrong = &measured.lanes[2];
    assert_eq!(all_wrong.windows.len(), 1, "{all_wrong:?}");
    assert_eq!(all_wrong.windows[0].attempts, all_wrong.sent);
}

#[tokio::test]
async fn flows_that_nobody_disturbs_lose_nothing() {
    let measured = for_a_while(&Arguments {
        flow: vec![
            target(Transport::Tcp, pushing_server().await, 1),
            target(Transport::Udp, server().await, 1),
        ],
        ..arguments()
    })
    .await;
    assert!(measured.begun_unix_ms > 1_600_000_000_000);
    assert!(measured.length_ms >= 300);
    for flow in &measured.flows {
        assert!(flow.sent >= 10, "{flow:?}");
        assert_eq!(
            (flow.received, flow.lost, &flow.ended),
            (flow.sent, 0, &None),
            "{flow:?}"
        );
    }
    assert!(measured.flows[0].pushed >= 10, "{:?}", measured.flows[0]);
}

#[tokio::test]
async fn flow_that_is_not_answered_any_more_is_lost_from_there_on() {
    let (_kept, silent) = deaf().await;
    let measured = for_a_while(&Arguments {
        flow: vec![
            target(Transport::Udp, silent, 1),
            target(Transport::Tcp, closed().await, 1),
        ],
        ..arguments()
    })
    .await;
    let udp = &measured.flows[0];
    assert!(udp.sent >= 10 && udp.lost == udp.sent, "{udp:?}");
    assert!(udp.longest_gap_ms >= 290, "{udp:?}");
    let tcp = &measured.flows[1];
    assert_eq!((tcp.sent, tcp.lost), (1, 1));
    assert!(tcp.ended.is_some());
}

#[tokio::test]
async fn measurement_of_nothing_is_refused() {
    let error = measure(&arguments(), async { Ok(()) })
        .await
        .expect_err("nothing to measure");
    assert_eq!(
        error.to_string(),
        "nothing to measure: give --forbidden, --allowed or --flow"
    );
}
