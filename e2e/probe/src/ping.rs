//! `ping`: ICMP echo, by an unprivileged datagram socket where `net.ipv4.ping_group_range` allows
//! it (container runtimes set it for pods), otherwise by a raw one.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{UdpSocket, lookup_host},
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    connect::no_answer,
    duration,
    icmp::{self, Family},
    report::{self, ErrorClass},
};

/// Room for the largest IP packet.
const PACKET: usize = 65_536;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Host to ping.
    host: String,
    /// Bytes of payload; the packet is 28 bytes larger (48 over IPv6).
    #[arg(long, default_value_t = 56)]
    size: usize,
    /// Do not fragment: a packet larger than the path MTU is an error.
    #[arg(long)]
    df: bool,
    /// Number of requests.
    #[arg(long, default_value_t = 1)]
    count: u16,
    /// Time between the starts of two requests.
    #[arg(long, default_value = "100ms", value_parser = duration::parse)]
    interval: Duration,
    /// How long to wait for each reply.
    #[arg(long, default_value = "2s", value_parser = duration::parse)]
    timeout: Duration,
    /// Local address to send from.
    #[arg(long)]
    bind: Option<IpAddr>,
}

/// Result of `ping`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct PingReport {
    sent: u64,
    received: u64,
    errors: BTreeMap<ErrorClass, u64>,
    /// Shortest and longest round trip, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_us: Option<(u64, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let report = probe(arguments).await?;
    report::print(&report)?;
    Ok(report::exit(report.received > 0))
}

async fn probe(arguments: &Arguments) -> anyhow::Result<PingReport> {
    anyhow::ensure!(
        arguments.size <= 65_507,
        "--size {} does not fit in an IP packet: the largest is 65507",
        arguments.size
    );
    let target = lookup_host((arguments.host.as_str(), 0))
        .await
        .with_context(|| format!("resolve {}", arguments.host))?
        .next()
        .with_context(|| format!("{} has no address", arguments.host))?;
    let echo = Echo::open(target, arguments.bind, arguments.df)?;
    let mut report = PingReport::default();
    for sequence in 0..arguments.count {
        let start = Instant::now();
        report.sent += 1;
        match echo
            .exchange(sequence, arguments.size, start + arguments.timeout)
            .await
        {
            Ok(rtt) => {
                let rtt = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
                report.received += 1;
                let (low, high) = report.rtt_us.unwrap_or((rtt, rtt));
                report.rtt_us = Some((low.min(rtt), high.max(rtt)));
            }
            Err(error) => {
                let error = if error.kind() == io::ErrorKind::TimedOut {
                    no_answer(arguments.timeout)
                } else {
                    error
                };
                *report.errors.entry(ErrorClass::of(&error)).or_default() += 1;
                report.last_error = Some(error.to_string());
            }
        }
        if sequence + 1 < arguments.count {
            sleep_until(start + arguments.interval).await;
        }
    }
    Ok(report)
}

/// An ICMP socket towards one host.
struct Echo {
    socket: UdpSocket,
    family: Family,
    /// A raw socket gets every ICMP packet of the host, with the IPv4 header in front.
    raw: bool,
    identifier: u16,
}

impl Echo {
    fn open(target: SocketAddr, bind: Option<IpAddr>, df: bool) -> anyhow::Result<Self> {
        let (family, domain, protocol) = match target {
            SocketAddr::V4(_) => (Family::V4, Domain::IPV4, Protocol::ICMPV4),
            SocketAddr::V6(_) => (Family::V6, Domain::IPV6, Protocol::ICMPV6),
        };
        let (socket, raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
            Ok(socket) => (socket, false),
            Err(unprivileged) => {
                let socket = Socket::new(domain, Type::RAW, Some(protocol)).with_context(|| {
                    format!(
                        "open an ICMP socket: {unprivileged}; let this group use one by sysctl \
                         net.ipv4.ping_group_range, or give the process NET_RAW"
                    )
                })?;
                (socket, true)
            }
        };
        if df {
            match family {
                Family::V4 => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO),
                Family::V6 => set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DO),
            }
            .context("set the don't-fragment option")?;
        }
        if let Some(address) = bind {
            socket
                .bind(&SocketAddr::new(address, 0).into())
                .with_context(|| format!("send from {address}"))?;
        }
        socket
            .connect(&target.into())
            .with_context(|| format!("no route to {}", target.ip()))?;
        socket.set_nonblocking(true).context("set O_NONBLOCK")?;
        // An ICMP socket is a datagram socket; tokio has no name of its own for it.
        let socket = UdpSocket::from_std(socket.into()).context("register the ICMP socket")?;
        Ok(Self {
            socket,
            family,
            raw,
            identifier: std::process::id() as u16,
        })
    }

    /// Sends one request and waits for its reply; the reply must carry the same payload.
    async fn exchange(&self, sequence: u16, size: usize, until: Instant) -> io::Result<Duration> {
        let request = icmp::request(self.family, self.identifier, sequence, size);
        let start = Instant::now();
        self.socket.send(&request).await?;
        let mut buffer = vec![0; PACKET];
        loop {
            let read = timeout_at(until, self.socket.recv(&mut buffer)).await??;
            let message = match (self.raw, self.family) {
                (true, Family::V4) => icmp::after_ipv4_header(&buffer[..read]),
                (true, Family::V6) | (false, _) => &buffer[..read],
            };
            match icmp::reply(self.family, message) {
                Some((answered, payload))
                    if answered == sequence && payload == &request[icmp::HEADER..] =>
                {
                    return Ok(start.elapsed());
                }
                Some(_) | None => {}
            }
        }
    }
}

/// The address to bind for "any", by family of `like`.
pub(crate) fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(size: usize, df: bool) -> Arguments {
        Arguments {
            host: "127.0.0.1".into(),
            size,
            df,
            count: 2,
            interval: Duration::from_millis(1),
            timeout: Duration::from_secs(2),
            bind: None,
        }
    }

    #[tokio::test]
    #[ignore = "needs root: a raw socket, where ping_group_range does not allow a plain one"]
    async fn sixty_kilobytes_come_back_whole() {
        for size in [56, 60_000] {
            let report = probe(&arguments(size, false)).await.expect("a report");
            assert_eq!((report.sent, report.received), (2, 2), "{report:?}");
        }
    }

    #[tokio::test]
    async fn packet_that_no_network_can_carry_is_refused_with_the_limit() {
        let error = probe(&arguments(70_000, true)).await.expect_err("too big");
        assert_eq!(
            error.to_string(),
            "--size 70000 does not fit in an IP packet: the largest is 65507"
        );
    }
}
