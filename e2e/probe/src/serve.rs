//! `serve`: one line that says whom we see, then an echo (TCP); the same line as the answer to each
//! datagram (UDP); on ports of `--push` numbers that nobody asked for.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use futures::future::{select_all, try_join_all};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
};

use crate::{push::push, report::Greeting, stop};

/// Bytes of a datagram that come back in the answer; enough for a sequence number.
const ECHO_BYTES: usize = 64;
/// Connections that wait to be taken. The usual 128 are a quarter of a second of a meter at full rate:
/// what a server that has no processor for so long loses would look like a fault of the network.
const WAITING: u32 = 4096;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// TCP ports to serve.
    #[arg(long, value_delimiter = ',')]
    tcp: Vec<u16>,
    /// UDP ports to serve.
    #[arg(long, value_delimiter = ',')]
    udp: Vec<u16>,
    /// TCP ports on which numbers are sent without being asked.
    #[arg(long, value_delimiter = ',')]
    push: Vec<u16>,
    /// Address to listen on. Default: every address of both families.
    #[arg(long)]
    address: Option<IpAddr>,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        !(arguments.tcp.is_empty() && arguments.udp.is_empty() && arguments.push.is_empty()),
        "nothing to serve: give --tcp, --udp or --push"
    );
    let me: Arc<str> = host_name()?.into();
    let mut tasks = Vec::new();
    for port in &arguments.tcp {
        let listener = bind_tcp(arguments.address, *port)?;
        tasks.push(tokio::spawn(serve_tcp(listener, Arc::clone(&me))));
    }
    for port in &arguments.push {
        let listener = bind_tcp(arguments.address, *port)?;
        tasks.push(tokio::spawn(serve_push(listener)));
    }
    for port in &arguments.udp {
        // One socket per local address: a wildcard socket would answer from whatever address the
        // route prefers, and the client would not take it for the answer.
        let sockets = bind_udp(arguments.address, *port).await?;
        for socket in sockets {
            tasks.push(tokio::spawn(serve_udp(socket, Arc::clone(&me))));
        }
    }
    tokio::select! {
        stopped = stop::requested() => stopped.map(|()| ExitCode::SUCCESS),
        (ended, _, _) = select_all(tasks) => ended.context("a serving task ended")?,
    }
}

/// The name by which clients recognise this server.
pub(crate) fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("read the host name")?;
    Ok(name.to_string_lossy().into_owned())
}

/// Listens on both families where the node has IPv6, otherwise on IPv4.
fn bind_tcp(address: Option<IpAddr>, port: u16) -> anyhow::Result<TcpListener> {
    let bound = match address {
        Some(address) => listen(address, port),
        None => listen(Ipv6Addr::UNSPECIFIED.into(), port)
            .or_else(|_| listen(Ipv4Addr::UNSPECIFIED.into(), port)),
    };
    bound.with_context(|| format!("listen on TCP port {port}"))
}

fn listen(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let socket = match address {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections of a server before us may still be there.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(address, port))?;
    socket.listen(WAITING)
}

/// Binds each local address of the container, so that an answer leaves from the address that was
/// asked; without any (or when one was given) just that one.
async fn bind_udp(address: Option<IpAddr>, port: u16) -> anyhow::Result<Vec<UdpSocket>> {
    let addresses = match address {
        Some(address) => vec![address],
        None => local_addresses()?,
    };
    let bind = |address: IpAddr| async move {
        UdpSocket::bind((address, port))
            .await
            .with_context(|| format!("listen on UDP {address}:{port}"))
    };
    try_join_all(addresses.into_iter().map(bind)).await
}

/// Addresses of this network namespace, without link-local IPv6 ones (they need a scope).
pub(crate) fn local_addresses() -> anyhow::Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for interface in nix::ifaddrs::getifaddrs().context("list the addresses of this host")? {
        let Some(address) = interface.address else {
            continue;
        };
        if let Some(v4) = address.as_sockaddr_in() {
            addresses.push(IpAddr::V4(v4.ip()));
        } else if let Some(v6) = address.as_sockaddr_in6() {
            let ip = v6.ip();
            if !ip.is_unicast_link_local() {
                addresses.push(IpAddr::V6(ip));
            }
        }
    }
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

async fn serve_tcp(listener: TcpListener, me: Arc<str>) -> anyhow::Result<ExitCode> {
    loop {
        let (stream, peer) = accept(&listener).await;
        let me = Arc::clone(&me);
        tokio::spawn(async move {
            // The client sees the broken connection and counts it.
            let _ = echo(stream, peer, &me).await;
        });
    }
}

async fn serve_push(listener: TcpListener) -> anyhow::Result<ExitCode> {
    loop {
        let (stream, _) = accept(&listener).await;
        tokio::spawn(push(stream));
    }
}

/// The next client. One that gave up before we accepted it is no reason to stop serving.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                eprintln!("accept: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
}

async fn echo(mut stream: TcpStream, peer: SocketAddr, me: &str) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(&greeting(peer, me, None)?).await?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read]).await?;
    }
}

async fn serve_udp(socket: UdpSocket, me: Arc<str>) -> anyhow::Result<ExitCode> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // Errors here are ICMP answers to what we sent before; the socket goes on working.
        let Ok((read, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let echo = String::from_utf8_lossy(&buffer[..read.min(ECHO_BYTES)]).into_owned();
        let answer = greeting(peer, &me, Some(echo))?;
        if let Err(error) = socket.send_to(&answer, peer).await {
            eprintln!("answer {peer}: {error}");
        }
    }
}

/// The JSON line. An IPv4 client of a two-family socket is shown by its IPv4 address.
fn greeting(peer: SocketAddr, me: &str, echo: Option<String>) -> anyhow::Result<Vec<u8>> {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let mut line = serde_json::to_vec(&Greeting {
        you: peer.to_string(),
        me: me.to_owned(),
        echo,
    })?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A server of both protocols on loopback; returns its address (one port number for both).
    pub(crate) async fn server() -> SocketAddr {
        loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("a bound socket");
            let Ok(socket) = UdpSocket::bind(address).await else {
                continue;
            };
            tokio::spawn(serve_tcp(listener, "server".into()));
            tokio::spawn(serve_udp(socket, "server".into()));
            return address;
        }
    }

    /// A server that pushes, on loopback.
    pub(crate) async fn pushing_server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        tokio::spawn(serve_push(listener));
        address
    }

    #[tokio::test]
    async fn connections_wait_for_a_server_that_has_no_time() {
        let listener = bind_tcp(Some(Ipv4Addr::LOCALHOST.into()), 0).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let mut kept = Vec::new();
        // Nobody takes any: one that finds no room waits for ever.
        while kept.len() < 500 {
            let patience = std::time::Duration::from_secs(10);
            let connected = tokio::time::timeout(patience, TcpStream::connect(address)).await;
            let stream = connected.map(|connected| connected.expect("no error"));
            kept.push(stream.unwrap_or_else(|_| panic!("{} connections wait", kept.len())));
        }
    }

    #[test]
    fn ipv4_client_of_a_two_family_socket_is_shown_by_its_ipv4_address() {
        let peer: SocketAddr = "[::ffff:10.32.0.5]:4000".parse().expect("an address");
        assert_eq!(
            greeting(peer, "server", None).expect("JSON"),
            b"{\"you\":\"10.32.0.5:4000\",\"me\":\"server\"}\n"
        );
    }
}
