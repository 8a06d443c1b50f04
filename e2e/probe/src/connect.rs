//! `connect`: reach a server, each attempt as a new flow with its own deadline.
//!
//! Attempts start on a fixed clock, not after the answer to the one before: a dropped packet must
//! not slow down the measurement that shall find out how long packets were dropped.

use std::{io, net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::{TcpSocket, TcpStream, UdpSocket, lookup_host},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{
    duration, hold,
    report::{self, Greeting, Report},
};

/// Attempts under way at the same time; more are not started (and not counted as sent).
const IN_FLIGHT: usize = 512;

#[derive(clap::Args, Clone)]
pub(crate) struct Arguments {
    /// Server, as HOST:PORT.
    pub(crate) target: String,
    /// Transport protocol.
    #[arg(long, value_enum, default_value = "tcp")]
    pub(crate) proto: Proto,
    /// How long an attempt may take; with --hold, how long to wait for what is still under way.
    #[arg(long, default_value = "2s", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
    /// Number of attempts. Default: 1, or without limit when --duration is given.
    #[arg(long)]
    pub(crate) count: Option<u64>,
    /// Time between the starts of two attempts.
    #[arg(long, default_value = "100ms", value_parser = duration::parse)]
    pub(crate) interval: Duration,
    /// Stop starting attempts after this time.
    #[arg(long, value_parser = duration::parse)]
    pub(crate) duration: Option<Duration>,
    /// One long-lived flow that carries sequence numbers; counts those that don't come back.
    #[arg(long)]
    pub(crate) hold: bool,
    /// Local address to send from.
    #[arg(long)]
    pub(crate) bind: Option<std::net::IpAddr>,
    /// Local port to send from; attempts then follow one another.
    #[arg(long, default_value_t = 0)]
    pub(crate) source_port: u16,
}

/// Transport protocol.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let report = probe(arguments).await?;
    report::print(&report)?;
    Ok(report.exit())
}

/// Runs the attempts and sums them up.
pub(crate) async fn probe(arguments: &Arguments) -> anyhow::Result<Report> {
    let target = resolve(&arguments.target).await?;
    if arguments.hold {
        return hold::probe(target, arguments).await;
    }
    let count = match (arguments.count, arguments.duration) {
        (Some(count), _) => count,
        (None, Some(_)) => u64::MAX,
        (None, None) => 1,
    };
    let start = Instant::now();
    let end = arguments.duration.map(|duration| start + duration);
    let (sender, mut results) = mpsc::channel(IN_FLIGHT);
    let mut tick = interval(arguments.interval.max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);

    let mut report = Report::default();
    let mut under_way = 0_usize;
    let mut last_answer = start;
    loop {
        let more = report.sent < count && end.is_none_or(|end| Instant::now() < end);
        if !more && under_way == 0 {
            break;
        }
        tokio::select! {
            _ = tick.tick(), if more && under_way < IN_FLIGHT => {
                report.sent += 1;
                under_way += 1;
                let sender = sender.clone();
                let arguments = arguments.clone();
                tokio::spawn(async move {
                    let outcome = attempt(target, &arguments).await;
                    // The receiver lives until the last attempt has reported.
                    let _ = sender.send((Instant::now(), outcome)).await;
                });
            }
            Some((at, outcome)) = results.recv() => {
                under_way -= 1;
                match outcome {
                    Ok(greeting) => {
                        report.gap(at.saturating_duration_since(last_answer));
                        last_answer = last_answer.max(at);
                        report.answered(greeting);
                    }
                    Err(error) => report.failed(&error),
                }
            }
        }
    }
    report.gap(Instant::now().saturating_duration_since(last_answer));
    Ok(report)
}

/// The first address of HOST:PORT.
pub(crate) async fn resolve(target: &str) -> anyhow::Result<SocketAddr> {
    lookup_host(target)
        .await
        .with_context(|| format!("resolve {target} (expected HOST:PORT)"))?
        .next()
        .with_context(|| format!("{target} has no address"))
}

async fn attempt(target: SocketAddr, arguments: &Arguments) -> io::Result<Greeting> {
    let exchange = async {
        match arguments.proto {
            Proto::Tcp => tcp(target, arguments).await,
            Proto::Udp => udp(target, arguments).await,
        }
    };
    timeout(arguments.timeout, exchange)
        .await
        .unwrap_or_else(|_| Err(no_answer(arguments.timeout)))
}

/// The error of an attempt whose time is over.
pub(crate) fn no_answer(limit: Duration) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no answer within {limit:?}"),
    )
}

/// The local end that the arguments ask for.
fn local(target: SocketAddr, arguments: &Arguments) -> SocketAddr {
    let any = match target {
        SocketAddr::V4(_) => std::net::IpAddr::from([0, 0, 0, 0]),
        SocketAddr::V6(_) => std::net::IpAddr::from([0_u16; 8]),
    };
    SocketAddr::new(arguments.bind.unwrap_or(any), arguments.source_port)
}

/// A TCP connection from the local end that the arguments ask for.
pub(crate) async fn open(target: SocketAddr, arguments: &Arguments) -> io::Result<TcpStream> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(local(target, arguments))?;
    socket.connect(target).await
}

/// A UDP socket connected to the target: only then do ICMP errors reach us.
pub(crate) async fn datagram(target: SocketAddr, arguments: &Arguments) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local(target, arguments)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

async fn tcp(target: SocketAddr, arguments: &Arguments) -> io::Result<Greeting> {
    let stream = open(target, arguments).await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    parse(line.as_bytes())
}

async fn udp(target: SocketAddr, arguments: &Arguments) -> io::Result<Greeting> {
    let socket = datagram(target, arguments).await?;
    socket.send(b"hello").await?;
    let mut buffer = vec![0; 2048];
    let read = socket.recv(&mut buffer).await?;
    parse(&buffer[..read])
}

/// Reads the greeting. A server that says something else (agnhost, an HTTP server) still proves
/// that the packet came through; only silence is a failure.
pub(crate) fn parse(line: &[u8]) -> io::Result<Greeting> {
    if line.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server closed the connection without a word",
        ));
    }
    Ok(serde_json::from_slice(line).unwrap_or_else(|_| Greeting {
        you: String::new(),
        me: String::from_utf8_lossy(line).trim().to_owned(),
        echo: None,
    }))
}

#[cfg(test)]
mod tests;
