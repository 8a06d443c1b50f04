use std::collections::BTreeMap;

use super::*;
use crate::{report::ErrorClass, serve::tests::server};

pub(crate) fn arguments(target: &str, proto: Proto) -> Arguments {
    Arguments {
        target: target.to_owned(),
        proto,
        timeout: Duration::from_millis(300),
        count: None,
        interval: Duration::from_millis(1),
        duration: None,
        hold: false,
        bind: None,
        source_port: 0,
    }
}

#[tokio::test]
async fn server_says_whom_it_sees_over_tcp_and_udp() {
    let server = server().await.to_string();
    for proto in [Proto::Tcp, Proto::Udp] {
        let report = probe(&arguments(&server, proto)).await.expect("a report");
        assert_eq!((report.sent, report.received), (1, 1), "{proto:?}");
        assert_eq!(report.errors, BTreeMap::new(), "{proto:?}");
        assert_eq!(report.me.as_deref(), Some("server"), "{proto:?}");
        let you = report.you.expect("the server saw us");
        assert!(you.starts_with("127.0.0.1:"), "{proto:?}: {you}");
    }
}

#[tokio::test]
async fn closed_port_is_refused_over_tcp_and_udp() {
    let closed = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        socket.local_addr().expect("a bound socket").to_string()
    };
    for proto in [Proto::Tcp, Proto::Udp] {
        let report = probe(&arguments(&closed, proto)).await.expect("a report");
        assert_eq!(
            report.errors,
            BTreeMap::from([(ErrorClass::Refused, 1)]),
            "{proto:?}"
        );
        assert_eq!(report.received, 0, "{proto:?}");
    }
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let target = silent.local_addr().expect("a bound socket").to_string();
    let report = probe(&arguments(&target, Proto::Udp))
        .await
        .expect("a report");
    assert_eq!(report.errors, BTreeMap::from([(ErrorClass::Timeout, 1)]));
    assert!(report.longest_gap_ms >= 300, "{report:?}");
}

#[tokio::test]
async fn attempts_do_not_wait_for_each_other() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let target = silent.local_addr().expect("a bound socket").to_string();
    let start = Instant::now();
    let report = probe(&Arguments {
        count: Some(50),
        ..arguments(&target, Proto::Udp)
    })
    .await
    .expect("a report");
    assert_eq!(report.errors, BTreeMap::from([(ErrorClass::Timeout, 50)]));
    // One after the other they would take 15 s.
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn held_flow_counts_every_sequence_number_that_comes_back() {
    let server = server().await.to_string();
    for proto in [Proto::Tcp, Proto::Udp] {
        let report = probe(&Arguments {
            hold: true,
            count: Some(40),
            ..arguments(&server, proto)
        })
        .await
        .expect("a report");
        assert_eq!((report.sent, report.received), (40, 40), "{proto:?}");
        assert_eq!(report.errors, BTreeMap::new(), "{proto:?}");
    }
}

#[tokio::test]
async fn other_servers_count_as_answers() {
    assert_eq!(
        parse(b"HTTP/1.1 400 Bad Request\r\n").expect("an answer"),
        Greeting {
            you: String::new(),
            me: "HTTP/1.1 400 Bad Request".into(),
            echo: None,
        }
    );
    assert_eq!(
        parse(b"").expect_err("silence").kind(),
        io::ErrorKind::UnexpectedEof
    );
}
