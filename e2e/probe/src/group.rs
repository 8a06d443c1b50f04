//! `listen-group` and `send-group`: multicast and broadcast between pods.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::UdpSocket,
    time::{Instant, sleep, timeout_at},
};

use crate::{duration, ping::unspecified, report, serve::host_name};

#[derive(clap::Args)]
pub(crate) struct ListenArguments {
    /// Group (224.0.0.0/4, ff00::/8) or broadcast address, and port.
    group: SocketAddr,
    /// Stop after this many datagrams.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Stop after this time.
    #[arg(long, default_value = "10s", value_parser = duration::parse)]
    timeout: Duration,
}

#[derive(clap::Args)]
pub(crate) struct SendArguments {
    /// Group (224.0.0.0/4, ff00::/8) or broadcast address, and port.
    group: SocketAddr,
    /// Number of datagrams.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Time between two datagrams.
    #[arg(long, default_value = "100ms", value_parser = duration::parse)]
    interval: Duration,
    /// Local address to send from.
    #[arg(long)]
    bind: Option<IpAddr>,
}

/// Result of `listen-group`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct ListenReport {
    received: u64,
    /// Datagrams by sender (address without port).
    from: BTreeMap<IpAddr, u64>,
    /// Host names that the senders wrote into them.
    names: BTreeMap<String, u64>,
}

/// Result of `send-group`.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct SendReport {
    sent: u64,
}

pub(crate) async fn listen(arguments: &ListenArguments) -> anyhow::Result<ExitCode> {
    let socket = joined(arguments.group)?;
    eprintln!("listening on {}", arguments.group);
    let report = collect(&socket, arguments.count, arguments.timeout).await?;
    report::print(&report)?;
    Ok(report::exit(report.received > 0))
}

pub(crate) async fn send(arguments: &SendArguments) -> anyhow::Result<ExitCode> {
    let socket = sender(arguments.group, arguments.bind)?;
    let name = host_name()?;
    let mut sent = 0;
    for number in 0..arguments.count {
        if number > 0 {
            sleep(arguments.interval).await;
        }
        socket
            .send_to(name.as_bytes(), arguments.group)
            .await
            .with_context(|| format!("send to {}", arguments.group))?;
        sent += 1;
    }
    report::print(&SendReport { sent })?;
    Ok(ExitCode::SUCCESS)
}

/// A socket that receives what is sent to the group.
fn joined(group: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = open(group)?;
    socket
        .set_reuse_address(true)
        .context("share the port with other listeners")?;
    // Bound to the group itself, so that plain datagrams to the port don't count.
    let local = match group.ip() {
        IpAddr::V4(ip) if ip.is_multicast() => group,
        IpAddr::V6(_) | IpAddr::V4(_) => SocketAddr::new(unspecified(group.ip()), group.port()),
    };
    socket
        .bind(&local.into())
        .with_context(|| format!("listen on {local}"))?;
    match group.ip() {
        IpAddr::V4(ip) if ip.is_multicast() => {
            socket.join_multicast_v4(&ip, &Ipv4Addr::UNSPECIFIED)
        }
        IpAddr::V6(ip) if ip.is_multicast() => socket.join_multicast_v6(&ip, 0),
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(()),
    }
    .with_context(|| format!("join the group {}", group.ip()))?;
    into_tokio(socket)
}

/// A socket that may send to groups and to broadcast addresses (and to plain ones).
fn sender(group: SocketAddr, bind: Option<IpAddr>) -> anyhow::Result<UdpSocket> {
    let socket = open(group)?;
    if let Some(address) = bind {
        socket
            .bind(&SocketAddr::new(address, 0).into())
            .with_context(|| format!("send from {address}"))?;
    }
    socket.set_broadcast(true).context("allow broadcast")?;
    if group.ip().is_multicast() {
        match group {
            SocketAddr::V4(_) => socket.set_multicast_ttl_v4(4),
            SocketAddr::V6(_) => socket.set_multicast_hops_v6(4),
        }
        .context("set the hop limit")?;
    }
    into_tokio(socket)
}

fn open(group: SocketAddr) -> anyhow::Result<Socket> {
    Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))
        .context("open a UDP socket")
}

fn into_tokio(socket: Socket) -> anyhow::Result<UdpSocket> {
    socket.set_nonblocking(true).context("set O_NONBLOCK")?;
    UdpSocket::from_std(socket.into()).context("register the UDP socket")
}

async fn collect(socket: &UdpSocket, count: u64, limit: Duration) -> anyhow::Result<ListenReport> {
    let until = Instant::now() + limit;
    let mut report = ListenReport::default();
    let mut buffer = vec![0; 2048];
    while report.received < count {
        let Ok(received) = timeout_at(until, socket.recv_from(&mut buffer)).await else {
            break;
        };
        let (read, peer) = received.context("receive")?;
        report.received += 1;
        *report.from.entry(peer.ip()).or_default() += 1;
        let name = String::from_utf8_lossy(&buffer[..read]).into_owned();
        *report.names.entry(name).or_default() += 1;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn listener_counts_datagrams_by_sender() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let target = socket.local_addr().expect("a bound socket");
        let other = sender(target, None).expect("a socket");
        for _ in 0..2 {
            other.send_to(b"pod-a", target).await.expect("loopback");
        }
        let report = collect(&socket, 2, Duration::from_secs(5))
            .await
            .expect("a report");
        assert_eq!(
            report,
            ListenReport {
                received: 2,
                from: BTreeMap::from([(IpAddr::from([127, 0, 0, 1]), 2)]),
                names: BTreeMap::from([("pod-a".into(), 2)]),
            }
        );
    }

    #[tokio::test]
    async fn listener_that_hears_nothing_reports_nothing() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let report = collect(&socket, 1, Duration::from_millis(20))
            .await
            .expect("a report");
        assert_eq!(report, ListenReport::default());
    }
}
